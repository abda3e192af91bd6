"""Whether the keys of a node would find room on the others, asked before it is drained or emptied."""

from collections.abc import Collection
from dataclasses import dataclass

from psycopg.rows import class_row

from reconciler.db.pool import Connection, store_errors

# Keys in force that no other node has, whether they are for one node or for all.
_POOLS = """
WITH leaving AS (
  SELECT k.pool, count(*) AS keys
    FROM reconciler.placements p
    JOIN reconciler.keys k ON k.id = p.key_id
    JOIN reconciler.subscriptions s ON s.id = k.subscription_id
   WHERE p.node_id = %(node)s AND p.ended_at IS NULL
     AND k.revoked_at IS NULL AND s.revoked_at IS NULL AND s.starts_at <= now() AND now() < s.expires_at
     AND NOT EXISTS (
       SELECT FROM reconciler.placements o
         JOIN reconciler.nodes n ON n.id = o.node_id AND n.state IN ('active', 'draining')
        WHERE o.key_id = p.key_id AND o.node_id <> p.node_id AND o.ended_at IS NULL AND o.leaving_at IS NULL)
   GROUP BY k.pool),
others AS (
  SELECT n.pool, count(*) AS nodes, bool_or(n.capacity IS NULL) AS endless,
         sum(greatest(n.capacity - (SELECT count(*) FROM reconciler.placements p
                                     WHERE p.node_id = n.id AND p.ended_at IS NULL), 0)) AS room
    FROM reconciler.nodes n WHERE n.state = 'active' AND n.id <> %(node)s GROUP BY n.pool)
SELECT pool, coalesce(leaving.keys, 0)::bigint AS keys, coalesce(others.nodes, 0)::bigint AS nodes,
       CASE WHEN others.endless THEN NULL ELSE coalesce(others.room, 0)::bigint END AS room
  FROM (SELECT pool FROM reconciler.nodes WHERE id = %(node)s UNION SELECT pool FROM leaving) pools
  LEFT JOIN leaving USING (pool) LEFT JOIN others USING (pool)
 ORDER BY pool
"""


@dataclass(frozen=True, slots=True)
class PoolRoom:
    """A pool as it would be without one node: its keys there, and what the other active nodes can take."""

    pool: str
    keys: int
    nodes: int
    room: int | None  # None without end

    @property
    def homeless(self) -> int:
        """How many of the keys would have nowhere to go."""
        return 0 if self.room is None else max(0, self.keys - self.room)

    def __str__(self) -> str:
        others = "1 other active node has" if self.nodes == 1 else f"{self.nodes} other active nodes have"
        room = "room without end" if self.room is None else f"room for {self.room:,}"
        have = "has" if self.homeless == 1 else "have"
        return (
            f"{_keys(self.keys)} of the pool {self.pool}, "
            + (f"whose {others} {room}" if self.nodes else "which has no other active node")
            + (f": {_keys(self.homeless)} {have} nowhere to go" if self.homeless else "")
        )


async def without(connection: Connection, node_id: int) -> list[PoolRoom]:
    """Return the node's own pool, and each pool that it has keys in force of, as they would be without it."""
    async with connection.cursor(row_factory=class_row(PoolRoom)) as cursor:
        await cursor.execute(_POOLS, {"node": node_id})
        return await cursor.fetchall()


_OPEN = """
SELECT pool, sum(least(coalesce(n.capacity, %(endless)s) - used.live, %(endless)s))::bigint
  FROM reconciler.nodes n
 CROSS JOIN LATERAL (SELECT coalesce(sum(c.live), 0) AS live
                       FROM reconciler.placement_counts c WHERE c.node_id = n.id) used
 WHERE n.state = 'active' AND n.pool = ANY(%(pools)s) AND (n.capacity IS NULL OR n.capacity > used.live)
 GROUP BY n.pool
"""
_ENDLESS = 2**31  # beyond any capacity


async def opened(connection: Connection, pools: Collection[str]) -> dict[str, int]:
    """Return for how many more keys there is room in these pools; those without any are left out."""
    async with store_errors():
        cursor = await connection.execute(_OPEN, {"pools": sorted(pools), "endless": _ENDLESS})
        return dict(await cursor.fetchall())


def _keys(number: int) -> str:
    return "1 key" if number == 1 else f"{number:,} keys"
