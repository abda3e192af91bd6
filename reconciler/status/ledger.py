"""
The rows of counting: what a node was read to have counted, and whose usage that is.

Everything here happens within one transaction, which is begun, locked and
fenced in `reconciler.status.usage`. Rows are written in the order of their
keys, so that two nodes which count the same key wait for each other, and
never for ever.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import tuple_row

from reconciler.db.pool import Connection
from reconciler.model import Instant, Vitals
from reconciler.plan.boots import Boot, Sighting
from reconciler.plan.counting import GREATEST_BYTES, Change, Checkpoints, Reading

_GREATEST_SUM = 2**62

_BOOTS = """
SELECT date_part('epoch', clock_timestamp()), date_part('epoch', n.created_at),
       b.boot, b.uptime_seconds, b.allocated_bytes::text, b.allocations::text,
       date_part('epoch', b.read_at), date_part('epoch', b.host_read_at)
  FROM reconciler.nodes n LEFT JOIN reconciler.node_boots b ON b.node_id = n.id
 WHERE n.id = %s ORDER BY b.boot DESC NULLS LAST LIMIT 8
"""

_SEEN = """
INSERT INTO reconciler.node_boots AS b
  (node_id, boot, uptime_seconds, allocated_bytes, allocations, read_at, host_read_at)
VALUES (%(node)s, %(boot)s, %(uptime)s, %(allocated)s, %(allocations)s,
        to_timestamp(%(read)s), to_timestamp(%(host)s))
ON CONFLICT (node_id, boot) DO UPDATE
   SET uptime_seconds = excluded.uptime_seconds, allocated_bytes = excluded.allocated_bytes,
       allocations = excluded.allocations, read_at = excluded.read_at, host_read_at = excluded.host_read_at
 WHERE excluded.uptime_seconds >= b.uptime_seconds
"""

# Of a key that was never placed here this node has nothing to say: it may be the Xray of another row, too.
_CHECKPOINTS = """
SELECT k.id, c.up, c.down
  FROM unnest(%(keys)b::bigint[]) AS given (key_id)
  JOIN reconciler.keys k ON k.id = given.key_id
  CROSS JOIN LATERAL (
    SELECT max(last_bytes) FILTER (WHERE direction = 'up') AS up,
           max(last_bytes) FILTER (WHERE direction = 'down') AS down
      FROM reconciler.usage_checkpoints
     WHERE node_id = %(node)s AND boot = %(boot)s AND key_id = given.key_id OFFSET 0) c
  LEFT JOIN LATERAL (
    SELECT true AS placed FROM reconciler.placements
     WHERE key_id = k.id AND node_id = %(node)s AND ended_at IS NULL AND c.up IS NULL AND c.down IS NULL
     LIMIT 1) live ON true
  LEFT JOIN LATERAL (
    SELECT true AS placed FROM reconciler.placements
     WHERE key_id = k.id AND node_id = %(node)s AND ended_at IS NOT NULL AND c.up IS NULL AND c.down IS NULL
     LIMIT 1) ended ON true
 WHERE c.up IS NOT NULL OR c.down IS NOT NULL OR live.placed OR ended.placed
"""

_NUMBER = "SELECT count(*) FROM reconciler.usage_checkpoints WHERE node_id = %s AND boot = %s"

_MOVE = """
INSERT INTO reconciler.usage_checkpoints (node_id, boot, key_id, direction, last_bytes)
SELECT %(node)s, %(boot)s, moved.key_id, counter.direction, counter.bytes
  FROM unnest(%(keys)b::bigint[], %(ups)b::bigint[], %(downs)b::bigint[]) AS moved (key_id, up, down)
 CROSS JOIN LATERAL (VALUES ('up', up), ('down', down)) AS counter (direction, bytes)
 WHERE counter.bytes >= 0
ON CONFLICT (node_id, boot, key_id, direction) DO UPDATE SET last_bytes = excluded.last_bytes
"""

_ADD = f"""
INSERT INTO reconciler.usage AS u (key_id, up_bytes, down_bytes)
SELECT key_id, up, down
  FROM unnest(%(keys)b::bigint[], %(more_ups)b::bigint[], %(more_downs)b::bigint[]) AS more (key_id, up, down)
 WHERE up > 0 OR down > 0 ORDER BY key_id
ON CONFLICT (key_id) DO UPDATE
   SET up_bytes = least(u.up_bytes + excluded.up_bytes, {GREATEST_BYTES}),
       down_bytes = least(u.down_bytes + excluded.down_bytes, {GREATEST_BYTES}),
       updated_at = clock_timestamp()
"""

# Only who was within the limit before these bytes has crossed it now, or bells would ring for ever.
_CROSSED = """
WITH more AS (
  SELECT k.subscription_id, sum(given.bytes) AS bytes
    FROM unnest(%(keys)b::bigint[], %(bytes)b::bigint[]) AS given (key_id, bytes)
    JOIN reconciler.keys k ON k.id = given.key_id
    JOIN reconciler.subscriptions s ON s.id = k.subscription_id AND s.traffic_limit_bytes IS NOT NULL
   GROUP BY k.subscription_id OFFSET 0)
SELECT s.id, ARRAY(SELECT id FROM reconciler.keys WHERE subscription_id = s.id AND revoked_at IS NULL)
  FROM more JOIN reconciler.subscriptions s ON s.id = more.subscription_id
 CROSS JOIN LATERAL (
   SELECT coalesce(sum(g.up_bytes + g.down_bytes), 0)
          - coalesce((SELECT base_bytes FROM reconciler.usage_periods
                       WHERE subscription_id = s.id AND started_at <= now()
                       ORDER BY started_at DESC LIMIT 1), 0) AS bytes
     FROM reconciler.keys k JOIN reconciler.usage g ON g.key_id = k.id
    WHERE k.subscription_id = s.id OFFSET 0) used
 WHERE used.bytes >= s.traffic_limit_bytes AND used.bytes - more.bytes < s.traffic_limit_bytes
   AND s.revoked_at IS NULL AND s.expires_at > now()
 ORDER BY s.id
"""
_RING = "SELECT reconciler.ring_subscriptions(%s::bigint[])"

_TOTAL = f"""
INSERT INTO reconciler.node_usage AS u (node_id, up_bytes, down_bytes, read_at)
VALUES (%(node)s, %(up)s, %(down)s, clock_timestamp())
ON CONFLICT (node_id) DO UPDATE
   SET up_bytes = least(u.up_bytes + excluded.up_bytes, {_GREATEST_SUM}),
       down_bytes = least(u.down_bytes + excluded.down_bytes, {_GREATEST_SUM}), read_at = excluded.read_at
"""


@dataclass(frozen=True, slots=True)
class Ledger:
    """One node's accounts, within the transaction of one reading."""

    connection: Connection
    node_id: int

    async def boots(self) -> tuple[Instant, Instant, list[Boot]]:
        """Return the time, when the node was registered, and its runs, the newest first."""
        cursor = await self.connection.execute(_BOOTS, (self.node_id,), binary=True)
        rows = await cursor.fetchall()
        boots = [
            Boot(number, Sighting(Vitals(uptime, int(allocated), int(allocations)), read_at, host_at))
            for _, _, number, uptime, allocated, allocations, read_at, host_at in rows
            if number is not None
        ]
        return rows[0][0], rows[0][1], boots

    async def checkpoints(self, boot: int, readings: Sequence[Reading]) -> Checkpoints:
        """Return what was counted of these keys in a run, of those that have to do with the node."""
        given = {"node": self.node_id, "boot": boot, "keys": [reading.key_id for reading in readings]}
        async with self.connection.cursor(binary=True, row_factory=tuple_row) as cursor:
            await cursor.execute(_CHECKPOINTS, given)
            return {key_id: (up, down) for key_id, up, down in await cursor.fetchall()}

    async def number(self, boot: int) -> int:
        """Return how many counters of a run there are checkpoints of."""
        cursor = await self.connection.execute(_NUMBER, (self.node_id, boot))
        ((number,),) = await cursor.fetchall()
        return int(number)

    async def write(self, boot: int, changes: Sequence[Change]) -> None:
        """Move checkpoints, and add what they moved by."""
        if not changes:
            return
        keys, ups, downs, more_ups, more_downs = map(list, zip(*changes, strict=True))
        moved = [[-1 if value is None else value for value in column] for column in (ups, downs)]
        given: dict[str, Any] = {"node": self.node_id, "boot": boot, "keys": keys}
        await self.connection.execute(_MOVE, given | {"ups": moved[0], "downs": moved[1]})
        await self.connection.execute(_ADD, {"keys": keys, "more_ups": more_ups, "more_downs": more_downs})

    async def seen(self, boot: int, seen: Sighting) -> None:
        """Write how the run was found; an older reading than the last one tells nothing new."""
        given = {
            "node": self.node_id,
            "boot": boot,
            "uptime": seen.vitals.uptime_seconds,
            "allocated": seen.vitals.allocated_bytes,
            "allocations": seen.vitals.allocations,
            "read": seen.database_at,
            "host": seen.host_at,
        }
        await self.connection.execute(_SEEN, given)

    async def crossed(self, changes: Sequence[Change]) -> dict[int, list[int]]:
        """Return the subscriptions that these bytes, just written, brought to their limit, and their keys."""
        added = [(change.key_id, change.more_up + change.more_down) for change in changes]
        keys, sizes = [key_id for key_id, size in added if size], [size for _, size in added if size]
        if not keys:
            return {}
        cursor = await self.connection.execute(_CROSSED, {"keys": keys, "bytes": sizes})
        return dict(await cursor.fetchall())

    async def ring(self, subscriptions: Sequence[int]) -> None:
        """Ring for the keys of these subscriptions, once this is committed."""
        await self.connection.execute(_RING, (list(subscriptions),))

    async def total(self, up_bytes: int, down_bytes: int) -> None:
        """Add to the sum of the node, and say that it was read just now."""
        given = {"node": self.node_id, "up": up_bytes, "down": down_bytes}
        await self.connection.execute(_TOTAL, given)
