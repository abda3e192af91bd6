"""What the rows say of every node: read now and then for the fleet page, never because somebody asks."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from reconciler.db.pool import Pool, store_errors
from reconciler.errors import StoreError
from reconciler.model import NodeState, Outcome
from reconciler.status.board import Board, NodeRow, Sight
from reconciler.status.recorder import Counts

READ_SECONDS = 10.0

_ROWS = """
SELECT n.name, n.state, n.pool, n.capacity,
       CASE WHEN l.expires_at > clock_timestamp() THEN l.holder END,
       s.outcome, s.error,
       date_part('epoch', clock_timestamp() - s.last_attempt_at),
       date_part('epoch', clock_timestamp() - s.last_converged_at),
       s.last_full_at IS NOT NULL,
       s.active_users, s.desired_users, s.foreign_users, s.orphan_users, s.held_removals
  FROM reconciler.nodes n
  LEFT JOIN reconciler.node_status s ON s.node_id = n.id
  LEFT JOIN reconciler.leases l ON l.node_id = n.id
"""


async def watch(pool: Pool, board: Board, clock: Callable[[], float]) -> None:
    """Keep the board's rows fresh, for ever; while they cannot be read, the board tells how old they are."""
    while True:
        with suppress(StoreError):  # the fleet's own readings meet it as well, and tell of it
            board.rows_read(await read(pool, clock), clock())
        await asyncio.sleep(READ_SECONDS)


async def read(pool: Pool, clock: Callable[[], float]) -> list[NodeRow]:
    """Read the row of every node; times are told on `clock`. Raises StoreError."""
    async with store_errors(), pool.connection() as connection:
        cursor = await connection.execute(_ROWS, binary=True)
        rows = await cursor.fetchall()
    now = clock()
    return [
        NodeRow(name, NodeState(state), pool_name, capacity, holder, _sight(now, *status))
        for name, state, pool_name, capacity, holder, *status in rows
    ]


def _sight(
    now: float,
    outcome: str | None,
    error: str | None,
    tried_ago: float | None,
    converged_ago: float | None,
    listed: bool,  # noqa: FBT001 - a column
    *counts: int,
) -> Sight:
    return Sight(
        outcome=None if outcome is None else Outcome(outcome),
        error=error,
        counts=Counts(*counts) if listed else None,
        tried_at=None if tried_ago is None else now - tried_ago,
        converged_at=None if converged_ago is None else now - converged_ago,
    )
