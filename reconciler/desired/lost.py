"""Moving keys off a node that does not answer, as many as an hour may see."""

from dataclasses import dataclass

from reconciler.db.pool import Connection, store_errors
from reconciler.desired.writing import POOL_LOCK
from reconciler.plan.lost import Silence, allowance
from reconciler.plan.place import Room, Wanted, choose

REASON = "its node did not answer"

_SILENCE = """
SELECT count(*), count(*) FILTER (WHERE s.outcome = 'unreachable')
  FROM reconciler.nodes n JOIN reconciler.node_status s ON s.node_id = n.id
 WHERE n.state IN ('active', 'draining')
"""

_POOL = f"SELECT pool, {POOL_LOCK % 'pool'} FROM reconciler.nodes WHERE id = %s"

# Every key that was told to leave counts, by whoever: what an hour may see is for the customers of the pool.
_COUNTS = """
SELECT (SELECT count(*) FROM reconciler.placements p JOIN reconciler.nodes n ON n.id = p.node_id
         WHERE n.pool = %(pool)s AND p.ended_at IS NULL AND p.leaving_at IS NULL),
       (SELECT count(*) FROM reconciler.placements p JOIN reconciler.nodes n ON n.id = p.node_id
         WHERE n.pool = %(pool)s AND p.leaving_at > now() - interval '1 hour')
"""

_ROOMS = """
SELECT n.id, n.name, n.capacity,
       coalesce((SELECT sum(c.live) FROM reconciler.placement_counts c WHERE c.node_id = n.id), 0)::bigint
  FROM reconciler.nodes n JOIN reconciler.node_status s ON s.node_id = n.id
 WHERE n.pool = %s AND n.state = 'active' AND s.outcome IN ('changed', 'converged')
"""

_KEYS = """
SELECT k.id, count(*) OVER ()
  FROM reconciler.placements p
  JOIN reconciler.keys k ON k.id = p.key_id AND k.pool = %(pool)s AND k.spread = 'one'
  JOIN reconciler.subscriptions s ON s.id = k.subscription_id
 WHERE p.node_id = %(node)s AND p.ended_at IS NULL AND p.leaving_at IS NULL
   AND k.revoked_at IS NULL AND s.revoked_at IS NULL AND s.starts_at <= now() AND now() < s.expires_at
   AND NOT EXISTS (SELECT FROM reconciler.placements o
                    WHERE o.key_id = p.key_id AND o.node_id <> p.node_id AND o.ended_at IS NULL)
 ORDER BY k.id LIMIT %(limit)s
"""

_MOVE = """
WITH chosen AS (SELECT * FROM unnest(%(keys)s::bigint[], %(nodes)s::bigint[]) AS chosen(key_id, node_id)),
told AS (
  UPDATE reconciler.placements p SET leaving_at = now(), grace_seconds = %(grace)s
    FROM chosen c WHERE p.key_id = c.key_id AND p.node_id = %(node)s AND p.ended_at IS NULL)
INSERT INTO reconciler.placements (key_id, node_id, reason) SELECT key_id, node_id, %(reason)s FROM chosen
"""


@dataclass(frozen=True, slots=True)
class Rescued:
    """What was moved off one node: how many keys, to which nodes, and how many must stay for now."""

    keys: int
    nodes: frozenset[int]
    left: int


async def silence(connection: Connection) -> Silence:
    """Return how many nodes answer to none of the daemons. Raises StoreError and its kinds."""
    async with store_errors():
        found = await (await connection.execute(_SILENCE)).fetchone()
    assert found is not None
    return Silence(found[0], found[1])


async def move_off(connection: Connection, node_id: int, share: float, grace_seconds: int) -> Rescued:
    """
    Have keys leave a node for others of its pool that are as desired, up to `share` of the pool in an hour.

    Keys that have another node stay out of it. Raises StoreError and its kinds.
    """
    async with store_errors(), connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        pool = await (await connection.execute(_POOL, (node_id,))).fetchone()
        counts = await (await connection.execute(_COUNTS, {"pool": pool and pool[0]})).fetchone()
        if pool is None or counts is None:
            return Rescued(0, frozenset(), 0)
        limit = allowance(counts[0], share, counts[1])
        cursor = await connection.execute(_ROOMS, (pool[0],))
        rooms = [Room(*row) for row in await cursor.fetchall() if row[0] != node_id]
        # One is always asked for, because each row tells how many there are.
        given = {"pool": pool[0], "node": node_id, "limit": max(1, limit)}
        found = await (await connection.execute(_KEYS, given)).fetchall()
        chosen = choose(rooms, [Wanted(key_id) for key_id, _ in found[:limit]])
        if chosen:
            keys, nodes = map(list, zip(*chosen, strict=True))
            more = {"node": node_id, "grace": grace_seconds, "reason": REASON}
            await connection.execute(_MOVE, {"keys": keys, "nodes": nodes, **more})
    number = found[0][1] if found else 0
    return Rescued(len(chosen), frozenset(it.node_id for it in chosen), number - len(chosen))
