"""
Ending the placements that were told to leave, once their keys may go.

Any daemon may do it, and one at a time does. What is read here may change
before it is written, but nobody is cut by that: a key whose placement ended
too early stays where it is until another node has it (see `Standing.WAITING`).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby

from reconciler.db.pool import Connection, store_errors
from reconciler.plan.leave import Elsewhere, Leaving, confirmed_at, leaves_at

_ALONE = """
SELECT date_part('epoch', now())
 WHERE pg_try_advisory_xact_lock(hashtextextended('reconciler leaving', 0))
"""

# The nodes' texts are made once, not for every row; what reconciler.account_digest does is written out.
_LEAVING = """
WITH texts AS MATERIALIZED (
  SELECT id, convert_to(reconciler.inbounds_text(id), 'UTF8') AS inbounds
    FROM reconciler.nodes WHERE state IN ('active', 'draining'))
SELECT p.id, p.node_id, n.name,
       k.revoked_at IS NULL AND s.revoked_at IS NULL AND s.starts_at <= now() AND now() < s.expires_at
         AND (s.traffic_limit_bytes IS NULL OR reconciler.used_bytes(s.id) < s.traffic_limit_bytes),
       p.grace_seconds, date_part('epoch', o.placed_at),
       CASE WHEN q.account_digest = substring(sha256(uuid_send(k.credential) || o.inbounds) FROM 1 FOR 16)
            THEN date_part('epoch', q.made_at) END,
       CASE WHEN st.outcome NOT IN ('unreachable', 'rejected', 'failed')
            THEN date_part('epoch', st.last_converged_at) END
  FROM reconciler.placements p
  JOIN reconciler.nodes n ON n.id = p.node_id
  JOIN reconciler.keys k ON k.id = p.key_id
  JOIN reconciler.subscriptions s ON s.id = k.subscription_id
  LEFT JOIN LATERAL (
    SELECT e.node_id, e.placed_at, t.inbounds FROM reconciler.placements e JOIN texts t ON t.id = e.node_id
     WHERE e.key_id = p.key_id AND e.node_id <> p.node_id AND e.ended_at IS NULL AND e.leaving_at IS NULL) o
    ON true
  LEFT JOIN reconciler.promises q ON q.key_id = p.key_id AND q.node_id = o.node_id AND q.ended_at IS NULL
  LEFT JOIN reconciler.node_status st ON st.node_id = o.node_id
 WHERE p.leaving_at IS NOT NULL AND p.ended_at IS NULL
   AND (%(node)s::bigint IS NULL OR p.node_id = %(node)s)
 ORDER BY p.id
"""

_END = """
UPDATE reconciler.placements SET ended_at = now()
 WHERE id = ANY(%s) AND leaving_at IS NOT NULL AND ended_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the keys are that leave one node; each is in one of these."""

    unplaced: int = 0  # no other node was found yet
    unconfirmed: int = 0  # the other node does not surely have it yet
    in_grace: int = 0  # the customer still has time to take the new link

    @property
    def keys(self) -> int:
        """All keys that are still to leave."""
        return self.unplaced + self.unconfirmed + self.in_grace


@dataclass(frozen=True, slots=True)
class LetGo:
    """What a look at the leaving placements came to."""

    ended: Mapping[str, int] = field(default_factory=dict)  # placements that ended, by the node's name
    nodes: frozenset[int] = frozenset()  # the same nodes
    left: int = 0  # those that are still to end
    look_in_seconds: float | None = None  # when one of them may end by the clock alone; None when none will
    unconfirmed: bool = False  # whether one of them waits for a node


@dataclass(frozen=True, slots=True)
class _Row:
    placement_id: int
    node_id: int
    node: str
    leaving: Leaving


async def let_go(connection: Connection) -> LetGo | None:
    """End what may end; None when another daemon is at it. Raises StoreError and its kinds."""
    async with store_errors(), connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        found = await (await connection.execute(_ALONE)).fetchone()
        if found is None:
            return None
        now = float(found[0])
        rows = await _rows(connection, None)
        times = {row.placement_id: leaves_at(row.leaving, now) for row in rows}
        due = {placement_id for placement_id, at in times.items() if at is not None and at <= now}
        if due:
            await connection.execute(_END, (sorted(due),))
    gone = [row for row in rows if row.placement_id in due]
    later = [at - now for placement_id, at in times.items() if at is not None and placement_id not in due]
    return LetGo(
        ended=Counter(row.node for row in gone),
        nodes=frozenset(row.node_id for row in gone),
        left=len(rows) - len(gone),
        look_in_seconds=min(later, default=None),
        unconfirmed=None in times.values(),
    )


async def progress(connection: Connection, node_id: int) -> Progress:
    """Return how far the keys are that leave a node. Raises StoreError and its kinds."""
    async with store_errors(), connection.transaction():
        rows = await _rows(connection, node_id)
    unplaced = sum(1 for row in rows if not row.leaving.elsewhere)
    confirmed = sum(1 for row in rows if confirmed_at(row.leaving) is not None)
    return Progress(unplaced, len(rows) - unplaced - confirmed, confirmed)


async def _rows(connection: Connection, node_id: int | None) -> list[_Row]:
    cursor = await connection.execute(_LEAVING, {"node": node_id}, binary=True)
    rows = []
    for (*placement, wanted, grace), others in groupby(await cursor.fetchall(), key=lambda it: it[:5]):
        elsewhere = [Elsewhere(*other[5:]) for other in others if other[5] is not None]
        placement_id, node_of, name = placement
        rows.append(_Row(placement_id, node_of, name, Leaving(wanted, grace, elsewhere)))
    return rows
