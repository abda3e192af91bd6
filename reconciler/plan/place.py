"""
Which node gets a key that has none.

Each key goes to the node with the lowest share of its capacity in use at that
moment; equal shares go by name. A node without a capacity is judged as if it
had the greatest capacity among the pool's limited ones, but is never full: so
it takes its part beside them instead of all, and goes on when they are full.
Where no node has a capacity, the shares compare like plain counts.

The key order is the order of service, and nothing else counts: splitting the
keys into batches gives the same nodes as doing them at once.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Room:
    """A node that may get keys: how many it holds now, and how many it may; None is no limit."""

    node_id: int
    name: str
    capacity: int | None
    used: int

    @property
    def open(self) -> bool:
        """Whether one more key fits."""
        return self.capacity is None or self.used < self.capacity


class Wanted(NamedTuple):
    """A key to place: on one node, or, when `missing` names nodes, on each of these."""

    key_id: int
    missing: tuple[int, ...] | None = None


class Placement(NamedTuple):
    """A key and the node it goes on."""

    key_id: int
    node_id: int


def choose(rooms: Sequence[Room], wanted: Iterable[Wanted]) -> list[Placement]:
    """
    Return where each wanted key goes, in the order of `wanted`.

    No room gets more than its capacity; a key that no open room can take is
    left out. Nodes in `missing` that are not among `rooms` are passed over.
    """
    fleet = _Fleet(rooms)
    placements: list[Placement] = []
    for key_id, missing in wanted:
        if missing is None:
            lowest = fleet.take_lowest()
            nodes = [] if lowest is None else [lowest]
        else:
            nodes = [node_id for node_id in missing if fleet.take(node_id)]
        placements.extend(Placement(key_id, node_id) for node_id in nodes)
    return placements


class _Fleet:
    """The rooms while keys go into them: a heap by share, where entries of an older count are skipped."""

    def __init__(self, rooms: Sequence[Room]) -> None:
        yardstick = max((room.capacity for room in rooms if room.capacity), default=1)
        self._rooms = {room.node_id: room for room in rooms}
        self._used = {room.node_id: room.used for room in rooms}
        self._against = {room.node_id: room.capacity or yardstick for room in rooms}
        self._heap = [self._entry(room.node_id) for room in rooms if room.open]
        heapq.heapify(self._heap)

    def _entry(self, node_id: int) -> tuple[float, str, int, int]:
        used = self._used[node_id]
        return used / self._against[node_id], self._rooms[node_id].name, node_id, used

    def take(self, node_id: int) -> bool:
        """Put one key on this node, and say whether it fitted."""
        room = self._rooms.get(node_id)
        if room is None or (room.capacity is not None and self._used[node_id] >= room.capacity):
            return False
        self._used[node_id] += 1
        if room.capacity is None or self._used[node_id] < room.capacity:
            heapq.heappush(self._heap, self._entry(node_id))
        return True

    def take_lowest(self) -> int | None:
        """Put one key on the node of the lowest share and return it, None when all are full."""
        while self._heap:
            _, _, node_id, used = heapq.heappop(self._heap)
            if used == self._used[node_id] and self.take(node_id):
                return node_id
        return None
