"""
What the counters of a node say of our keys, and which bytes are new in that.

Counters are cumulative and never reset by us. What was counted of a boot is
kept as a checkpoint, and only what exceeds it is added: a reading that is
repeated, comes late or was lost before it changes nothing for the worse. A
counter that fell adds nothing, and its checkpoint stays where it was.
"""

import re
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from reconciler.model import GREATEST_KEY_ID, Owner

GREATEST_BYTES = 2**56
"""More than 10 Gbit/s carry in two years. A counter beyond it is broken, and a sum stops there."""

CHUNK = 1_000
"""Keys or counters looked at in one go; it takes a millisecond."""

_NAME = re.compile(r"user>>>(.*)>>>traffic>>>(up|down)link", re.DOTALL)


class Reading(NamedTuple):
    """What a node counts of one key; None where it has no such counter."""

    key_id: int
    up: int | None
    down: int | None


@dataclass(slots=True)
class Counts:
    """The counters of a node, told apart: those of our keys, and how many are something else."""

    owner: Owner
    up: dict[int, int] = field(default_factory=dict)
    down: dict[int, int] = field(default_factory=dict)
    foreign: int = 0  # of users that are not ours
    malformed: int = 0  # whose name is that of no user's traffic
    refused: int = 0  # ours, with a value that no traffic has: negative, or beyond all bounds

    @property
    def number(self) -> int:
        """How many counters there are, about."""
        return len(self.up) + len(self.down) + self.foreign + self.malformed + self.refused

    def take(self, names: Sequence[str], values: Sequence[int]) -> None:
        """Add some of the node's counters; names that differ in case only are one key's."""
        for whose, count in zip(_whose(names, self.owner), values, strict=True):
            if whose is None:
                self.malformed += 1
                continue
            key_id, direction = whose
            if key_id is None:
                self.foreign += 1
            elif not 0 <= count <= GREATEST_BYTES:
                self.refused += 1
            else:
                counts = self.up if direction == "up" else self.down
                counts[key_id] = min(counts.get(key_id, 0) + count, GREATEST_BYTES)

    def readings(self) -> Iterator[list[Reading]]:
        """
        Yield what was counted, by key, in pieces; empty ones too, as a place to take a breath.

        To sort a hundred thousand keys in one go would hold everybody up.
        """
        near: dict[int, set[int]] = defaultdict(set)
        for counts in (self.up, self.down):
            key_ids = iter(counts)
            while part := [*islice(key_ids, CHUNK)]:
                for key_id in part:
                    near[key_id // CHUNK].add(key_id)
                yield []
        piece: list[Reading] = []
        for place in sorted(near):
            piece += [
                Reading(key_id, self.up.get(key_id), self.down.get(key_id)) for key_id in sorted(near[place])
            ]
            if len(piece) >= CHUNK:
                yield piece
                piece = []
        yield piece


def _whose(names: Sequence[str], owner: Owner) -> Sequence[tuple[int | None, str] | None]:
    """Return the key and direction of each counter; quickly when all are ours, as most are."""
    text = "\n".join(names)
    found = _ours(owner).findall(text)
    if len(found) == len(names) == text.count("\n") + 1:
        return [(int(number), direction) for number, direction in found]
    return [_of_name(name, owner) for name in names]


@lru_cache(maxsize=8)
def _ours(owner: Owner) -> re.Pattern[str]:
    return re.compile(
        rf"^user>>>k([1-9][0-9]{{0,17}})@{re.escape(owner.mark)}>>>traffic>>>(up|down)link$", re.MULTILINE
    )


def _of_name(name: str, owner: Owner) -> tuple[int | None, str] | None:
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    key_id = owner.key_id(found[1])
    # No row can have a greater one, so nobody's traffic is lost with it.
    return (key_id if key_id is not None and key_id <= GREATEST_KEY_ID else None), found[2]


class Remembered:
    """
    What was last committed of one boot, at 24 bytes a key.

    It only spares the work of comparing all over again: what is sent is
    judged by the checkpoints, so what stands here may be older than they are,
    never newer.
    """

    __slots__ = ("_columns", "boot")

    def __init__(self, boot: int) -> None:
        self.boot = boot
        self._columns = (array("q"), array("q"), array("q"))

    def extend(self, readings: Iterable[Reading]) -> None:
        """Add readings of keys beyond those that are there."""
        for column, values in zip(self._columns, zip(*readings, strict=True), strict=False):
            column.extend(_ABSENT if value is None else value for value in values)

    def changed(self, counts: Counts) -> Iterator[list[Reading]]:
        """Yield the readings that differ, in pieces; empty ones too, as a place to take a breath."""
        known = zip(*self._columns, strict=True)
        last = next(known, None)
        for readings in counts.readings():
            differing = []
            for reading in readings:
                while last is not None and last[0] < reading.key_id:
                    last = next(known, None)
                if last != tuple(_ABSENT if value is None else value for value in reading):
                    differing.append(reading)
            yield differing


_ABSENT = -1


class Change(NamedTuple):
    """A checkpoint that moves, per direction, and the bytes that are counted for it; None where it stays."""

    key_id: int
    up: int | None
    down: int | None
    more_up: int
    more_down: int


@dataclass(frozen=True, slots=True)
class Counted:
    """What some readings change; `unexplained` keys have no row that has to do with the node."""

    changes: list[Change]
    fallen: int = 0
    unexplained: int = 0


Checkpoints = Mapping[int, tuple[int | None, int | None]]
"""The last bytes up and down by key; keys that are missing have nothing to do with the node."""


def count(readings: Iterable[Reading], checkpoints: Checkpoints, *, baseline: bool = False) -> Counted:
    """Return what these readings change; a `baseline` moves checkpoints and counts no byte."""
    changes = []
    fallen = unexplained = 0
    for key_id, up, down in readings:
        if key_id not in checkpoints:
            unexplained += 1
            continue
        last_up, last_down = checkpoints[key_id]
        more_up, more_down = _exceeding(up, last_up), _exceeding(down, last_down)
        fallen += (more_up < 0) + (more_down < 0)
        if more_up > 0 or more_down > 0:
            counted = (0, 0) if baseline else (max(more_up, 0), max(more_down, 0))
            moved = (up if more_up > 0 else None, down if more_down > 0 else None)
            changes.append(Change(key_id, *moved, *counted))
    return Counted(changes, fallen, unexplained)


def _exceeding(value: int | None, last: int | None) -> int:
    return 0 if value is None else value - (last or 0)


def present(readings: Iterable[Reading], checkpoints: Checkpoints) -> int:
    """Return how many counters that there is a checkpoint of are in these readings."""
    return sum(
        value is not None and last is not None
        for key_id, *values in readings
        for value, last in zip(values, checkpoints.get(key_id, (None, None)), strict=True)
    )
