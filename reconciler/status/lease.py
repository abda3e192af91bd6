"""
Which daemon holds which node.

A lease is a row with an end by the database's clock. Its holder trusts itself
only until the end counted from the moment it *sent* the renewal, minus a
margin, on a clock of its own that also runs while the host sleeps; so a
holder that was frozen stops by itself before another one starts. The epoch
grows with every change of hands, and every write of the holder's is fenced
by it: Xray takes no epoch, PostgreSQL does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.db.pool import Connection, Pool, store_errors
from reconciler.errors import LeaseLost

# Renewing waits for no write under the fence, or one long write would cost a daemon all of its leases. Taking
# passes by a node whose former holder is still writing. Hence the strengths: the fence locks FOR KEY SHARE.
_RENEW = """
WITH mine AS (
  SELECT l.node_id FROM reconciler.leases l
    JOIN unnest(%(nodes)s::bigint[], %(epochs)s::bigint[]) AS held(node, epoch)
      ON l.node_id = held.node AND l.epoch = held.epoch
   WHERE l.holder = %(holder)s AND l.expires_at >= clock_timestamp()
   ORDER BY l.node_id FOR NO KEY UPDATE OF l)
UPDATE reconciler.leases l SET expires_at = clock_timestamp() + make_interval(secs => %(ttl)s)
  FROM mine WHERE l.node_id = mine.node_id
RETURNING l.node_id, l.epoch
"""

_TAKE = """
WITH free AS (
  SELECT node_id FROM reconciler.leases
   WHERE node_id = ANY(%(nodes)s) AND expires_at < clock_timestamp()
   ORDER BY node_id FOR UPDATE SKIP LOCKED)
INSERT INTO reconciler.leases AS l (node_id, holder, epoch, expires_at)
SELECT node, %(holder)s, 1, clock_timestamp() + make_interval(secs => %(ttl)s)
  FROM unnest(%(nodes)s::bigint[]) AS node
 WHERE node IN (SELECT node_id FROM free) OR NOT EXISTS (SELECT FROM reconciler.leases WHERE node_id = node)
 ORDER BY node
ON CONFLICT (node_id) DO UPDATE
   SET holder = excluded.holder, epoch = l.epoch + 1,
       expires_at = clock_timestamp() + make_interval(secs => %(ttl)s)
 WHERE l.expires_at < clock_timestamp()
RETURNING l.node_id, l.epoch
"""

_RELEASE = """
UPDATE reconciler.leases l SET expires_at = '-infinity'
  FROM unnest(%(nodes)s::bigint[], %(epochs)s::bigint[]) AS held(node, epoch)
 WHERE l.node_id = held.node AND l.epoch = held.epoch
   AND l.holder = %(holder)s AND l.expires_at >= clock_timestamp()
"""

FENCE = """
SELECT 1 FROM reconciler.leases
 WHERE node_id = %(node)s AND holder = %(holder)s AND epoch = %(epoch)s AND expires_at > clock_timestamp()
   FOR KEY SHARE
"""
"""Finds a row, and keeps the lease from changing hands until the transaction ends, when it is still ours."""


@dataclass(slots=True)
class Lease:
    """Our hold on one node; `trusted_until` is on the holder's own clock."""

    node_id: int
    node: str
    holder: str
    epoch: int
    trusted_until: float

    def remaining_seconds(self, now: float) -> float:
        """Return for how long we may still act; raises LeaseLost when that is over."""
        remaining = self.trusted_until - now
        if remaining <= 0:
            raise LeaseLost(self.node)
        return remaining


class Leases:
    """Takes, renews and releases; one statement each, however many nodes."""

    def __init__(
        self,
        pool: Pool,
        holder: str,
        clock: Callable[[], float],
        ttl_seconds: float,
        margin_seconds: float,
    ) -> None:
        self._pool = pool
        self._holder = holder
        self._clock = clock
        self._ttl = ttl_seconds
        self._margin = margin_seconds
        self.held: dict[int, Lease] = {}

    async def keep(self, nodes: dict[int, str]) -> None:
        """
        Renew what we hold and take what is free among `nodes` (id to name).

        Afterwards `held` is what we hold. A renewed lease stays the same
        object, so whoever works under it sees the new end.
        """
        sent = self._clock()
        async with store_errors(), self._pool.connection() as connection:
            renewed = await self._run(connection, _RENEW, [*self.held])
            taken = await self._run(connection, _TAKE, [node for node in nodes if node not in renewed])
        trusted_until = sent + self._ttl - self._margin
        held = {}
        for node_id, epoch in {**renewed, **taken}.items():
            lease = self.held.get(node_id)
            if lease is None or lease.epoch != epoch:
                name = nodes.get(node_id) or str(node_id)
                lease = Lease(node_id, name, self._holder, epoch, trusted_until)
            lease.trusted_until = trusted_until
            held[node_id] = lease
        self.held = held

    async def release(self, node_ids: Sequence[int]) -> None:
        """Let others take these nodes at once."""
        async with store_errors(), self._pool.connection() as connection:
            await connection.execute(_RELEASE, self._given([node for node in node_ids if node in self.held]))
        for node_id in node_ids:
            self.held.pop(node_id, None)

    def forget(self, lease: Lease) -> None:
        """Hold this lease no longer, because its end was met: only taking it anew gives the right to act."""
        if self.held.get(lease.node_id) is lease:
            del self.held[lease.node_id]

    async def _run(self, connection: Connection, query: str, node_ids: Sequence[int]) -> dict[int, int]:
        if not node_ids:
            return {}
        cursor = await connection.execute(query, self._given(node_ids))
        return {node_id: epoch async for node_id, epoch in cursor}

    def _given(self, node_ids: Sequence[int]) -> dict[str, object]:
        epochs = [self.held[node].epoch if node in self.held else 0 for node in node_ids]
        return {"holder": self._holder, "nodes": list(node_ids), "epochs": epochs, "ttl": self._ttl}


def fence_values(lease: Lease) -> dict[str, Any]:
    """Return what FENCE is given."""
    return {"node": lease.node_id, "holder": lease.holder, "epoch": lease.epoch}


async def fence(connection: Connection, lease: Lease) -> None:
    """Keep the rest of this transaction from happening unless the lease is still ours; raises LeaseLost."""
    cursor = await connection.execute(FENCE, fence_values(lease))
    if await cursor.fetchone() is None:
        raise LeaseLost(lease.node)
