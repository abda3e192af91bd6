"""
A node that counts and restarts, clocks that jump, and readings that go wrong on their way to the database.

What is true is known here: which run of the node a reading came from. What
the accounting makes of it is asked of a store, in memory or in PostgreSQL.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from reconciler.model import Owner, Vitals
from reconciler.plan.boots import Boot, Sighting, is_baseline, recognise
from reconciler.plan.counting import Counts, Reading, Remembered, count, present

OURS = Owner("test")
EPOCH = 1_800_000_000.0

Totals = dict[int, tuple[int, int]]
"""Bytes up and down by key."""


@dataclass(frozen=True)
class Taken:
    """A reading: its counters, the vitals before it, when it was taken, and of which run it is."""

    run: int
    counts: Counts
    vitals: Vitals
    at: float
    host_at: float


@dataclass
class Process:
    """One run of Xray after another; `now` is the time that nobody's clock has wrong."""

    now: float = 0.0
    run: int = 0
    started: float = -1_000.0
    slept: float = 0.0
    allocations: int = 10_000
    up: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    down: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    host_ahead: float = 0.0
    database_ahead: float = 0.0

    def carry(self, key_id: int, up: int, down: int) -> None:
        self.up[key_id] += up
        self.down[key_id] += down
        self.allocations += 1

    def restart(self) -> None:
        self.run += 1
        self.started, self.slept, self.allocations = self.now, 0.0, 10
        self.up.clear()
        self.down.clear()

    def read(self) -> Taken:
        self.allocations += 1
        uptime = int(self.now - self.started - self.slept)
        counts = Counts(OURS, dict(self.up), dict(self.down))
        vitals = Vitals(uptime, 100 * self.allocations, self.allocations)
        return Taken(self.run, counts, vitals, self.now, EPOCH + self.now + self.host_ahead)


@dataclass
class Model:
    """The database in memory, and what the transaction does in it."""

    registered_at: float = EPOCH - 10_000
    boots: list[Boot] = field(default_factory=list)
    checkpoints: dict[int, dict[int, tuple[int | None, int | None]]] = field(default_factory=dict)
    used: dict[int, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))

    def commit(self, taken: Taken, database_now: float, age: float, last: Remembered | None) -> int:
        """Do what the transaction does; return the number of the boot."""
        seen = Sighting(taken.vitals, database_now - age, taken.host_at)
        everything = [one for part in taken.counts.readings() for one in part]
        found = recognise(self.boots, seen)
        if found and not found.sure and self._fell(found.boot.number, everything):
            found = None
        baseline = not self.boots and is_baseline(seen, self.registered_at)
        number = found.boot.number if found else len(self.boots) + 1
        if found is None:
            self.boots.insert(0, Boot(number, seen))
        elif seen.database_at > found.boot.last.database_at or seen.host_at > found.boot.last.host_at:
            self.boots[self.boots.index(found.boot)] = Boot(number, seen)
        changed = everything
        if last is not None and last.boot == number:
            changed = [one for part in last.changed(taken.counts) for one in part]
        kept = self.checkpoints.setdefault(number, {})
        for change in count(changed, self._of(number, changed), baseline=baseline).changes:
            up, down = kept.get(change.key_id, (None, None))
            kept[change.key_id] = (
                up if change.up is None else change.up,
                down if change.down is None else change.down,
            )
            self.used[change.key_id][0] += change.more_up
            self.used[change.key_id][1] += change.more_down
        return number

    def totals(self) -> Totals:
        return {key_id: (up, down) for key_id, (up, down) in self.used.items() if up or down}

    def _fell(self, number: int, readings: list[Reading]) -> bool:
        checkpoints = self._of(number, readings)
        known = sum(last is not None for pair in self.checkpoints[number].values() for last in pair)
        return bool(count(readings, checkpoints).fallen) or present(readings, checkpoints) < known

    def _of(self, number: int, readings: list[Reading]) -> dict[int, tuple[int | None, int | None]]:
        kept = self.checkpoints.get(number, {})
        return {one.key_id: kept.get(one.key_id, (None, None)) for one in readings}


def remember(boot: int, counts: Counts) -> Remembered:
    fresh = Remembered(boot)
    for part in counts.readings():
        fresh.extend(part)
    return fresh


Kind = Literal["read", "lost", "crash", "unknown", "late", "repeat", "restart", "carry", "wait", "sleep"]
KINDS: tuple[Kind, ...] = (
    "read", "read", "lost", "crash", "unknown", "late", "repeat", "restart", "carry", "carry", "wait", "sleep"
)  # fmt: skip


class Event(NamedTuple):
    """What happens after so many seconds; `key_id` and `amount` are for what is carried."""

    kind: Kind
    seconds: float
    key_id: int
    amount: int


@dataclass
class History:
    """Plays events; `apart` keeps runs so long that their starts can be told apart."""

    apart: bool
    baseline: bool  # the node is registered after the first run began
    process: Process = field(default_factory=Process)
    truth: "Truth" = field(default_factory=lambda: Truth())  # noqa: PLW0108 - defined below
    last: Remembered | None = None
    kept: Taken | None = None  # read, and not committed yet
    done: Taken | None = None  # the last one that was

    def play(self, event: Event) -> Iterator[Taken]:
        """Yield the readings that are to be committed; `committed` is to be told of each."""
        process = self.process
        process.now += event.seconds
        if event.kind == "carry":
            process.carry(event.key_id, event.amount, 3 * event.amount)
        elif event.kind == "restart":
            process.now += 20 if self.apart else 0
            process.restart()
        elif event.kind == "sleep":
            process.slept += min(event.seconds, 0.9 * (process.now - process.started))
        elif event.kind in ("read", "unknown", "crash", "late", "repeat"):
            yield from self._readings(event.kind)

    def committed(self, taken: Taken, boot: int) -> None:
        self.truth.committed(taken, baseline=self.baseline)
        self.last, self.done = remember(boot, taken.counts), taken

    def _readings(self, kind: Kind) -> Iterator[Taken]:
        if kind == "repeat":
            yield from [self.done] if self.done else []
            return
        taken = self.process.read()
        if kind == "read":
            yield taken
            return
        self.last = None  # whoever commits next knows nothing of what was
        if kind == "unknown":  # it was committed, and nobody knows: all of it is sent again
            yield taken
            self.last = None
            yield taken
        elif kind == "late":  # an older one after a newer one
            self.kept, late = taken, self.kept
            yield from [late] if late else []


@dataclass
class Truth:
    """What is owed: of each run, the most that any committed reading has said, less the baseline's."""

    runs: dict[int, dict[int, list[int]]] = field(default_factory=dict)
    base: dict[int, tuple[int, int]] = field(default_factory=dict)
    first_run: int | None = None

    def committed(self, taken: Taken, *, baseline: bool) -> None:
        if self.first_run is None:
            self.first_run = taken.run
            if baseline:
                self.base = _by_key(taken.counts)
        said = self.runs.setdefault(taken.run, {})
        for key_id, counted in _by_key(taken.counts).items():
            most = said.setdefault(key_id, [0, 0])
            most[:] = [max(pair) for pair in zip(most, counted, strict=True)]

    def totals(self) -> Totals:
        sums: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        for run, said in self.runs.items():
            for key_id, most in said.items():
                less = self.base.get(key_id, (0, 0)) if run == self.first_run else (0, 0)
                for way in (0, 1):
                    sums[key_id][way] += max(0, most[way] - less[way])
        return {key_id: (up, down) for key_id, (up, down) in sums.items() if up or down}


def _by_key(counts: Counts) -> Totals:
    keys = counts.up.keys() | counts.down.keys()
    return {key_id: (counts.up.get(key_id, 0), counts.down.get(key_id, 0)) for key_id in keys}
