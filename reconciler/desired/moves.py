"""Writing placements by an operator's hand; placing what has no node is `placement`'s."""

from reconciler.desired import bounds
from reconciler.desired.writing import Writing
from reconciler.errors import Invalid
from reconciler.model import NodeState

_PLACE_ON = """
INSERT INTO reconciler.placements (key_id, node_id, reason)
SELECT id, %(node)s, %(reason)s FROM reconciler.keys WHERE id = %(key)s
    ON CONFLICT DO NOTHING RETURNING id
"""

_USED = "SELECT count(*) FROM reconciler.placements WHERE node_id = %s AND ended_at IS NULL"

_VACATE = """
WITH ended AS (
  UPDATE reconciler.placements p SET ended_at = now()
    FROM reconciler.keys k JOIN reconciler.subscriptions s ON s.id = k.subscription_id
   WHERE p.key_id = k.id AND p.ended_at IS NULL
     AND least(k.revoked_at, s.revoked_at, s.expires_at) < now() - %s * interval '24 hours'
  RETURNING p.id)
SELECT count(*) FROM ended
"""


class Moves(Writing):
    """A move is `place_on` the new node, then `end_placement` on the old one, which waits for the new."""

    async def place_on(self, key_id: int, node: str, reason: str) -> bool:
        """
        Say that a key belongs on this node too; False when it did already.

        Its pool is not asked for: that is the operator's to choose. Raises
        Unknown, and Invalid for a node that is not active or is full.
        """
        key_id = bounds.row_id("key", key_id)
        reason = bounds.text("reason", reason, 200)
        async with self._transaction():
            locked = await self._lock_node(node)
            if locked.state != NodeState.ACTIVE:
                raise Invalid("node", node, f"active, and this one is {locked.state}")
            row = await self._row(_PLACE_ON, key=key_id, node=locked.node_id, reason=reason)
            if row is None:
                await self._must_exist("key", key_id)
                return False
            used = await self._row(_USED, locked.node_id)
            if locked.capacity is not None and used is not None and used[0] > locked.capacity:
                raise Invalid("node", node, f"not full, and this one has its {locked.capacity} keys")
        return True

    async def end_placement(self, key_id: int, node: str) -> bool:
        """
        Say that a key no longer belongs on this node; False when it did not.

        A desired key that has no other node is placed again, and that may be
        this one. Raises Unknown.
        """
        key_id = bounds.row_id("key", key_id)
        async with self._transaction():
            locked = await self._lock_node(node)
            row = await self._row(
                "UPDATE reconciler.placements SET ended_at = now()"
                " WHERE key_id = %s AND node_id = %s AND ended_at IS NULL RETURNING id",
                key_id,
                locked.node_id,
            )
            if row is None:
                await self._must_exist("key", key_id)
        return row is not None

    async def vacate(self, days: int) -> int:
        """
        Give up the room of keys that ended more than `days` days ago, and return how many rows that ended.

        Such a key is placed anew when it is renewed after all. Raises Invalid.
        """
        bounds.whole("days", days, 1, bounds.GREATEST_DAYS)
        async with self._transaction():
            row = await self._row(_VACATE, days)
        return 0 if row is None else int(row[0])
