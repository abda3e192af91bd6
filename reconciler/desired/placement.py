"""
Placing keys: a live row for every desired key that has none, and never more of them than a node may hold.

Any number of daemons may do it at once. Each pool has a lock for the length
of a transaction, and what is counted and what is missing is read again under
it. Every live row counts against its node's capacity, those of expired keys
too: that keeps the room for a renewal, which brings a key back to its node
and is never refused. `Moves.vacate` gives up the room of keys long ended.

A key stays where it is for as long as it has a live row that was not told to
leave: on a draining node until its keys are moved, and on a disabled one,
because that is left alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import LiteralString

from reconciler.db.pool import Connection, store_errors
from reconciler.desired.writing import POOL_LOCK
from reconciler.plan.place import Placement, Room, Wanted, choose

BATCH = 5_000
"""Rows written in one transaction: what a crash can lose, and how long others wait for the pool."""

_DUE: LiteralString = """
  FROM reconciler.keys k JOIN reconciler.subscriptions s ON s.id = k.subscription_id
 WHERE k.revoked_at IS NULL AND s.revoked_at IS NULL AND s.starts_at <= now() AND now() < s.expires_at
   AND (%(keys)s::bigint[] IS NULL OR k.id = ANY(%(keys)s))
"""

_NOWHERE: LiteralString = """
   AND k.spread = 'one'
   AND NOT EXISTS (SELECT FROM reconciler.placements p
                    WHERE p.key_id = k.id AND p.ended_at IS NULL AND p.leaving_at IS NULL)
"""

_UNPLACED = f"""
SELECT pool, count(*) FROM (
  SELECT k.pool {_DUE} {_NOWHERE}
  UNION ALL
  SELECT k.pool {_DUE} AND k.spread = 'all' AND EXISTS (
    SELECT FROM reconciler.nodes n WHERE n.pool = k.pool AND n.state = 'active' AND NOT EXISTS (
      SELECT FROM reconciler.placements p
       WHERE p.key_id = k.id AND p.node_id = n.id AND p.ended_at IS NULL))
) AS unplaced GROUP BY pool ORDER BY pool
"""

# Grouped before the join: no slower with statistics out of date, as they are while thousands are placed.
_ROOMS = """
SELECT n.id, n.name, n.capacity, coalesce(live.used, 0)
  FROM reconciler.nodes n
  LEFT JOIN (SELECT node_id, count(*) AS used
               FROM reconciler.placements WHERE ended_at IS NULL GROUP BY node_id) AS live
    ON live.node_id = n.id
 WHERE n.pool = %s AND n.state = 'active'
"""

# What keys for all nodes lack is asked once they are found: in one go, a wrong guess of their number costs
# seconds.
_WANTED = f"""
WITH everywhere AS MATERIALIZED (
  SELECT k.id {_DUE} AND k.spread = 'all' AND k.pool = %(pool)s)
SELECT k.id, NULL::bigint[] AS missing {_DUE} {_NOWHERE} AND k.pool = %(pool)s
UNION ALL
SELECT e.id, absent.missing
  FROM everywhere e CROSS JOIN LATERAL (
    SELECT array(SELECT unnest(%(open)s::bigint[])
                 EXCEPT SELECT p.node_id FROM reconciler.placements p
                         WHERE p.key_id = e.id AND p.ended_at IS NULL
                  ORDER BY 1) AS missing OFFSET 0) AS absent
 WHERE absent.missing <> '{{}}'
 ORDER BY id LIMIT %(limit)s
"""

# A node that a key leaves may be the one that is chosen for it: then it stays after all.
_INSERT = """
INSERT INTO reconciler.placements (key_id, node_id, reason)
SELECT key_id, node_id, %s FROM unnest(%s::bigint[], %s::bigint[]) AS chosen(key_id, node_id)
    ON CONFLICT (key_id, node_id) WHERE ended_at IS NULL DO UPDATE SET leaving_at = NULL, grace_seconds = NULL
"""

REASON = "lowest share of its pool in use"


@dataclass(frozen=True, slots=True)
class Placed:
    """How many rows were written, for which nodes, and how many keys of which pools still lack one."""

    placements: int
    nodes: frozenset[int]
    unplaced: Mapping[str, int]


async def place(connection: Connection, key_ids: Sequence[int] | None = None, batch: int = BATCH) -> Placed:
    """
    Place every desired key that lacks a node, or those of `key_ids` that do.

    `connection` is idle; each batch of rows is a transaction of its own, so
    keys stay placed when a later batch fails. Keys of a pool without an open node
    stay unplaced and are counted. Raises StoreError and its kinds.
    """
    keys = None if key_ids is None else list(key_ids)
    unplaced = await _unplaced(connection, keys)
    if not unplaced:
        return Placed(0, frozenset(), unplaced)
    written, nodes, placed = 0, set[int](), set[int]()
    for pool in unplaced:
        more = True
        while more:
            chosen, more = await _place_batch(connection, pool, keys, batch)
            written += len(chosen)
            nodes.update(node_id for _, node_id in chosen)
            placed.update(key_id for key_id, _ in chosen)
    # One key with one row is what a bell asks for, and it has no time for a question whose answer is known.
    left = (
        {} if keys and placed == set(keys) and written == len(placed) else await _unplaced(connection, keys)
    )
    return Placed(written, frozenset(nodes), left)


async def _unplaced(connection: Connection, keys: list[int] | None) -> dict[str, int]:
    async with store_errors():
        async with connection.pipeline(), connection.transaction():
            cursor = await connection.execute(_UNPLACED, {"keys": keys})
        return dict(await cursor.fetchall())


async def _place_batch(
    connection: Connection, pool: str, keys: list[int] | None, batch: int
) -> tuple[list[Placement], bool]:
    """Place up to `batch` keys of a pool, and say whether there may be more to do."""
    async with store_errors(), connection.pipeline(), connection.transaction():
        # What is read below has to be read after the lock, whatever the server's default is.
        await connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        await connection.execute(f"SELECT {POOL_LOCK % '%s'}", (pool,))
        cursor = await connection.execute(_ROOMS, (pool,))
        rooms = [Room(*row) for row in await cursor.fetchall()]
        open_ids = [room.node_id for room in rooms if room.open]
        if not open_ids:
            return [], False
        cursor = await connection.execute(
            _WANTED, {"keys": keys, "pool": pool, "open": open_ids, "limit": batch}
        )
        wanted = [Wanted(key_id, missing) for key_id, missing in await cursor.fetchall()]
        chosen = choose(rooms, _at_most(batch, wanted))
        if chosen:
            key_column, node_column = map(list, zip(*chosen, strict=True))
            await connection.execute(_INSERT, (REASON, key_column, node_column))
        return chosen, bool(chosen) and sum(map(_rows, wanted)) >= batch


def _rows(wanted: Wanted) -> int:
    return 1 if wanted.missing is None else len(wanted.missing)


def _at_most(batch: int, wanted: list[Wanted]) -> list[Wanted]:
    """Return as many of the first as make `batch` rows; a key for many nodes may make more by itself."""
    sums = accumulate(map(_rows, wanted))
    return [one for one, rows in zip(wanted, sums, strict=True) if rows <= batch] or wanted[:1]
