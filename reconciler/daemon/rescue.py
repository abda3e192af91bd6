"""Keys leave a node that has not answered for long, where that is asked for: see `[move]`."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import structlog

from reconciler.config import Config
from reconciler.db.pool import Connection, Pool, store_errors
from reconciler.desired.lost import move_off, silence
from reconciler.model import Node, NodeState, Outcome
from reconciler.plan.lost import Silence, lost

log = structlog.get_logger()

LONGEST_STEP_SECONDS = 5.0
"""What counts of the time between two looks: a host that slept has not seen its nodes silent meanwhile."""


@dataclass(slots=True)
class Rescue:
    """Remembers for how long nodes were seen silent, and has their keys moved."""

    pool: Pool
    config: Callable[[], Config]
    clock: Callable[[], float]
    _silent: dict[int, float] = field(default_factory=dict)
    _looked_at: float | None = None
    _act_at: float = 0.0
    _told: set[str] = field(default_factory=set)

    async def look(self, seen: Mapping[int, tuple[Node, Outcome | None]]) -> Collection[int]:
        """Take in how the nodes that we hold answer; return those that were given keys."""
        working = {
            node_id: it
            for node_id, it in seen.items()
            if it[0].state in (NodeState.ACTIVE, NodeState.DRAINING)
        }
        self._count({node_id for node_id, (_, outcome) in working.items() if outcome is Outcome.UNREACHABLE})
        config = self.config()
        after = config.move.unreachable_after_seconds
        if not after or max(self._silent.values(), default=0.0) < after or self.clock() < self._act_at:
            return ()
        self._act_at = self.clock() + config.cycle.full_interval_seconds
        ours = Silence(len(working), len(self._silent))
        async with store_errors(), self.pool.connection() as connection:
            gone = lost(self._silent, after, ours, await silence(connection))
            if not gone:
                self._once("held", "keys stay on silent nodes: too many do not answer", silent=ours.silent)
            moved = [await self._move_off(connection, working[node_id][0]) for node_id in gone]
        return frozenset().union(*moved)

    async def _move_off(self, connection: Connection, node: Node) -> frozenset[int]:
        move = self.config().move
        moved = await move_off(connection, node.node_id, move.unreachable_share, move.grace_seconds)
        if moved.keys:
            words = "keys moved off a node that does not answer"
            log.warning(words, node=node.name, keys=moved.keys, left=moved.left)
        elif moved.left:
            words = "keys stay on a node that does not answer: no room, or the hour's share is used up"
            self._once(node.name, words, node=node.name, keys=moved.left)
        return moved.nodes

    def _count(self, silent: Collection[int]) -> None:
        now = self.clock()
        step = 0.0 if self._looked_at is None else min(now - self._looked_at, LONGEST_STEP_SECONDS)
        self._looked_at = now
        self._silent = {node_id: self._silent.get(node_id, 0.0) + step for node_id in silent}
        if not self._silent:
            self._told.clear()

    def _once(self, what: str, message: str, **words: object) -> None:
        if what not in self._told:
            self._told.add(what)
            log.warning(message, **words)
