"""Writing placements by an operator's hand; placing what has no node is `placement`'s."""

from dataclasses import dataclass

from reconciler.desired import bounds, room
from reconciler.desired.writing import LockedNode, Writing
from reconciler.errors import Invalid, NoRoom, Unknown
from reconciler.model import NodeState

_PLACE_ON = """
INSERT INTO reconciler.placements (key_id, node_id, reason)
SELECT id, %(node)s, %(reason)s FROM reconciler.keys WHERE id = %(key)s
    ON CONFLICT DO NOTHING RETURNING id
"""

_USED = "SELECT count(*) FROM reconciler.placements WHERE node_id = %s AND ended_at IS NULL"

# The one that it moves to is meant to stay, even if it was being left.
_STAY = """
UPDATE reconciler.placements SET leaving_at = NULL, grace_seconds = NULL
 WHERE key_id = %s AND node_id = %s AND ended_at IS NULL AND leaving_at IS NOT NULL RETURNING id
"""

_LEAVE_OTHERS = """
UPDATE reconciler.placements SET leaving_at = coalesce(leaving_at, now()), grace_seconds = %(grace)s
 WHERE key_id = %(key)s AND node_id <> %(node)s AND ended_at IS NULL
   AND grace_seconds IS DISTINCT FROM %(grace)s RETURNING id
"""

_LEAVE_NODE = """
WITH told AS (
  UPDATE reconciler.placements SET leaving_at = coalesce(leaving_at, now()), grace_seconds = %(grace)s
   WHERE node_id = %(node)s AND ended_at IS NULL AND grace_seconds IS DISTINCT FROM %(grace)s RETURNING id)
SELECT count(*) FROM told
"""

# What has nowhere else to be, or is for every node, stays on one that takes keys again.
_STAY_ON_NODE = """
UPDATE reconciler.placements p SET leaving_at = NULL, grace_seconds = NULL
  FROM reconciler.keys k
 WHERE p.node_id = %s AND p.ended_at IS NULL AND p.leaving_at IS NOT NULL AND k.id = p.key_id
   AND (k.spread = 'all' OR NOT EXISTS (
     SELECT FROM reconciler.placements o
      WHERE o.key_id = p.key_id AND o.ended_at IS NULL AND o.leaving_at IS NULL))
RETURNING p.id
"""

_VACATE = """
WITH ended AS (
  UPDATE reconciler.placements p SET ended_at = now()
    FROM reconciler.keys k JOIN reconciler.subscriptions s ON s.id = k.subscription_id
   WHERE p.key_id = k.id AND p.ended_at IS NULL
     AND least(k.revoked_at, s.revoked_at, s.expires_at) < now() - %s * interval '24 hours'
  RETURNING p.id)
SELECT count(*) FROM ended
"""


@dataclass(frozen=True, slots=True)
class Drained:
    """A node that gets no new keys: whether it did before, and how many were told to leave it just now."""

    changed: bool
    leaving: int


class Moves(Writing):
    """
    Moving keys. The row on the old node is told to leave, and the daemon ends it.

    When it does is said by `reconciler.plan.leave`. Keys that are told to
    leave, and have no other node yet, are given one by the daemon.
    """

    async def move(self, key_id: int, node: str, grace_seconds: int, reason: str) -> bool:
        """
        Have a key leave all other nodes for this one; False when it was on this one alone.

        Raises Unknown, and Invalid for a key that is for all nodes, and for
        a node of another pool, or one that is full or not active.
        """
        key_id = bounds.row_id("key", key_id)
        grace = bounds.grace_seconds(grace_seconds)
        reason = bounds.text("reason", reason, 200)
        async with self._transaction():
            locked = await self._lock_node(node)
            await self._must_move_to(node, locked, key_id)
            stays = await self._row(_STAY, key_id, locked.node_id) is not None
            placed = not stays and await self._place_on(key_id, node, locked, reason)
            left = await self._rows(_LEAVE_OTHERS, key=key_id, node=locked.node_id, grace=grace)
        return bool(placed or stays or left)

    async def drain(self, node: str, grace_seconds: int | None, *, without_room: bool = False) -> Drained:
        """
        Give a node no new keys; with a grace, have those that it has leave it for other nodes.

        Said again, it changes the grace. Raises Unknown, Invalid, and NoRoom
        when keys, new ones included, would have nowhere to go; they stay
        where they are for as long as that is so `without_room`.
        """
        grace = None if grace_seconds is None else bounds.grace_seconds(grace_seconds)
        async with self._transaction():
            locked = await self._lock_node(node)
            if not without_room:
                await self._must_have_room(node, locked, moving=grace is not None)
            changed = await self._row(
                "UPDATE reconciler.nodes SET state = 'draining' WHERE id = %s AND state <> 'draining'"
                " RETURNING id",
                locked.node_id,
            )
            told = None if grace is None else await self._row(_LEAVE_NODE, node=locked.node_id, grace=grace)
        return Drained(changed is not None, 0 if told is None else int(told[0]))

    async def stay(self, node: str) -> int:
        """
        Take back that keys leave a node, where they have no other yet; return how many that are.

        Those that have one go on leaving, because that is where they belong now. Raises Unknown.
        """
        async with self._transaction():
            locked = await self._lock_node(node)
            return len(await self._rows(_STAY_ON_NODE, locked.node_id))

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
            _must_be_active(node, locked)
            return await self._place_on(key_id, node, locked, reason)

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

    async def _place_on(self, key_id: int, node: str, locked: LockedNode, reason: str) -> bool:
        row = await self._row(_PLACE_ON, key=key_id, node=locked.node_id, reason=reason)
        if row is None:
            await self._must_exist("key", key_id)
            return False
        used = await self._row(_USED, locked.node_id)
        if locked.capacity is not None and used is not None and used[0] > locked.capacity:
            raise Invalid(
                "node",
                node,
                f"not full, and this one has {used[0] - 1:,} keys where {locked.capacity:,} may be",
            )
        return True

    async def _must_move_to(self, node: str, locked: LockedNode, key_id: int) -> None:
        _must_be_active(node, locked)
        row = await self._row(
            "SELECT k.pool, n.pool, k.spread FROM reconciler.keys k, reconciler.nodes n"
            " WHERE k.id = %s AND n.id = %s",
            key_id,
            locked.node_id,
        )
        if row is None:
            raise Unknown("key", key_id)
        wanted, pool, spread = row
        if spread == "all":
            raise Invalid("key", key_id, f"for one node; this one is for all nodes of its pool {wanted}")
        if wanted != pool:
            raise Invalid("node", node, f"of the key's pool {wanted}, and this one is of {pool}")

    async def _must_have_room(self, node: str, locked: LockedNode, *, moving: bool) -> None:
        pools = await room.without(self._connection, locked.node_id)
        short = [str(pool) for pool in pools if pool.homeless]
        if moving and short:
            raise NoRoom(f"{node} has {'; '.join(short)}")
        own = next(pool for pool in pools if pool.pool == locked.pool)
        if locked.state == NodeState.ACTIVE and own.keys and not own.nodes:
            words = f"{node} is the last active node of the pool {own.pool}, and has {own.keys:,} of its keys"
            raise NoRoom(f"{words}: new ones would have nowhere to go")


def _must_be_active(node: str, locked: LockedNode) -> None:
    if locked.state != NodeState.ACTIVE:
        raise Invalid("node", node, f"active, and this one is {locked.state}")
