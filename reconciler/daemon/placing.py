"""Keys are placed where they have no node, and go once they may where they were told to leave."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import structlog

from reconciler.db.pool import Pool, store_errors
from reconciler.desired import room
from reconciler.desired.leaving import LetGo, let_go
from reconciler.desired.placement import Ahead, place
from reconciler.status.health import Health
from reconciler.status.metrics import Metrics

log = structlog.get_logger()

SHARE_OF_TIME = 0.05
"""What looking at all keys that wait, for room or for a node to have them, may cost of the time."""


@dataclass(slots=True)
class Placing:
    """Writes placements and tells of them, once for each change."""

    pool: Pool
    health: Health
    metrics: Metrics
    clock: Callable[[], float]
    _unplaced: dict[str, int] = field(default_factory=dict)
    _look_at: float = 0.0
    _room: dict[str, int] = field(default_factory=dict)  # in the pools with unplaced keys, after the last try
    _untold: bool = False  # whether a key found no room that is not among the unplaced ones yet
    _tell_at: float = 0.0
    _ahead: Ahead = field(default_factory=Ahead)

    async def place(self, key_ids: Collection[int] | None) -> dict[int, frozenset[int]]:
        """Place these keys, or all that lack a node; return which were placed, by node."""
        began = self.clock()
        async with store_errors(), self.pool.connection() as connection:
            named = None if key_ids is None else sorted(key_ids)
            placed = await place(connection, named, ahead=self._ahead)
            if key_ids is None and placed.unplaced:
                self._room = await room.opened(connection, placed.unplaced)
        if placed.placements:
            self._look_at = 0.0  # a node that they leave may wait for the one that they were given
        if key_ids is None:
            self._tell_unplaced(placed.unplaced)
            now = self.clock()
            self._untold, self._tell_at = False, now + (now - began) / SHARE_OF_TIME
        elif placed.unplaced:
            self._untold = True
        return {node_id: frozenset(keys) for node_id, keys in placed.nodes.items()}

    async def should_look(self) -> bool:
        """Whether to look for all keys without a node although nothing rings: there is room now."""
        if self._untold and self.clock() >= self._tell_at:
            return True
        if not self._unplaced:
            return False
        async with store_errors(), self.pool.connection() as connection:
            now = await room.opened(connection, self._unplaced)
        before, self._room = self._room, now
        return any(number > before.get(pool, 0) for pool, number in now.items())

    async def look_ahead(self, *, rung: bool) -> None:
        """See which nodes have room for the next keys, where that may have changed."""
        if rung or self._ahead.worn:
            async with store_errors(), self.pool.connection() as connection:
                await self._ahead.look(connection)

    async def let_go(self, *, rung: bool) -> Collection[int]:
        """End the placements that may end, if it is time to look; return the nodes that let keys go."""
        began = self.clock()
        if not rung and began < self._look_at:
            return ()
        async with store_errors(), self.pool.connection() as connection:
            found = await let_go(connection)
        if found is None:
            return ()
        self._look_at = _next_look(found, began, self.clock())
        self.metrics.leaving(found.left)
        for node, keys in sorted(found.ended.items()):
            log.info("keys need their old node no longer", node=node, keys=keys)
        return found.nodes

    def _tell_unplaced(self, unplaced: Mapping[str, int]) -> None:
        """Tell of each pool whose keys find no room."""
        before, self._unplaced = self._unplaced, dict(unplaced)
        self.metrics.unplaced(sum(unplaced.values()))
        for pool in sorted(before.keys() | unplaced.keys()):
            if pool not in unplaced:
                log.info("every key of the pool has a node again", pool=pool)
            elif unplaced[pool] != before.get(pool):
                log.warning("keys without a node: their pool has no room", pool=pool, keys=unplaced[pool])
        if unplaced:
            pools = ", ".join(f"{keys} in {pool}" for pool, keys in unplaced.items())
            self.health.note("keys without a node", pools)
        else:
            self.health.clear("keys without a node")


def _next_look(found: LetGo, began: float, ended: float) -> float:
    """Return when a placement may end that nothing rings for; whatever rings is looked at as well."""
    clock = ended + found.look_in_seconds if found.look_in_seconds is not None else float("inf")
    node = ended + max(1.0, (ended - began) / SHARE_OF_TIME) if found.unconfirmed else float("inf")
    return min(clock, node)
