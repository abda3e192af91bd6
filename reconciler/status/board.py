"""
The fleet at a glance, kept in memory: what the fleet page shows, and in which order.

What a loop of ours saw of its node is newer than any row, and is there without
a database. The rest is known from the rows, and is as old as the last reading
of them: the nodes that other daemons hold, and what a loop has not seen yet.

Times are readings of one monotonic clock, passed in.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from reconciler.model import Node, NodeState, Outcome
from reconciler.status.recorder import Counts

STALE_INTERVALS = 3
STALE_SECONDS = 120.0
"""A node is tried at each full interval, and at least once a minute while it does not answer."""

STALE = "stale"
UNTRIED = "never tried"
_GRAVEST_FIRST = (
    Outcome.FAILED, Outcome.UNREACHABLE, Outcome.REJECTED, Outcome.HELD, STALE, UNTRIED,
    Outcome.CHANGED, Outcome.CONVERGED, NodeState.DISABLED,
)  # fmt: skip
_RANKS = {word: rank for rank, word in enumerate(_GRAVEST_FIRST)}


def stale_after_seconds(full_interval_seconds: float) -> float:
    """Return the age from which what was last seen of a node is not believed."""
    return max(STALE_SECONDS, STALE_INTERVALS * full_interval_seconds)


class Tone(StrEnum):
    """How much a word wants to be seen."""

    BAD = "bad"
    WARN = "warn"
    GOOD = "good"
    OFF = "off"


_TONES: dict[str, Tone] = {
    Outcome.HELD: Tone.WARN,
    UNTRIED: Tone.WARN,
    Outcome.CHANGED: Tone.GOOD,
    Outcome.CONVERGED: Tone.GOOD,
    NodeState.DISABLED: Tone.OFF,
}


@dataclass(slots=True)
class Sight:
    """What our loop saw of a node; what it has not seen yet is None."""

    outcome: Outcome | None = None
    error: str | None = None
    counts: Counts | None = None
    tried_at: float | None = None
    converged_at: float | None = None
    applied_seconds: float | None = None  # from a row to the node, the slowest of the last cycle that changed
    probe_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as the rows have it; `holder` is None while nobody's lease on it lasts."""

    name: str
    state: NodeState
    pool: str
    capacity: int | None
    holder: str | None
    sight: Sight


@dataclass(frozen=True, slots=True)
class Line:
    """One node of the page: `word` says how it is; `held_here` means by this daemon."""

    row: NodeRow
    sight: Sight
    word: str
    held_here: bool

    @property
    def name(self) -> str:
        """What the node is called."""
        return self.row.name

    @property
    def tone(self) -> Tone:
        """How much the word wants to be seen."""
        return _TONES.get(self.word, Tone.BAD)

    @property
    def is_stale(self) -> bool:
        """Whether what was last seen is too old to be believed."""
        return self.word == STALE

    @property
    def is_disabled(self) -> bool:
        """Whether the node is left alone, and counts for nothing."""
        return self.row.state is NodeState.DISABLED


@dataclass(frozen=True, slots=True)
class Glance:
    """The whole page at one moment; `read_at` is when the rows were read, None while they never were."""

    lines: list[Line]
    words: list[tuple[str, Tone, int]]
    totals: Counts
    read_at: float | None

    @property
    def awake(self) -> int:
        """How many nodes are not disabled."""
        return sum(not line.is_disabled for line in self.lines)

    @property
    def well(self) -> int:
        """How many nodes are as desired."""
        return sum(line.tone is Tone.GOOD for line in self.lines)

    @property
    def shared(self) -> bool:
        """Whether other daemons hold nodes, or nobody does."""
        return not all(line.held_here or line.is_disabled for line in self.lines)


class Board:
    """The record that loops write and the page reads."""

    def __init__(self, stale_after: Callable[[], float]) -> None:
        self._stale_after = stale_after
        self._held: dict[str, tuple[NodeRow, Sight]] = {}
        self._rows: dict[str, NodeRow] = {}
        self._read_at: float | None = None

    def take_on(self, node: Node) -> Sight:
        """Show a node as ours; return where its loop notes what it sees."""
        sight = Sight()
        until_rows_are_read = NodeRow(node.name, node.state, "", None, None, Sight())
        self._held[node.name] = (until_rows_are_read, sight)
        return sight

    def drop(self, node: str) -> None:
        """Show a node as not ours any more."""
        self._held.pop(node, None)

    def rows_read(self, rows: Iterable[NodeRow], now: float) -> None:
        """Show what the rows say of every node from now on."""
        self._rows = {row.name: row for row in rows}
        self._read_at = now

    def glance(self, now: float) -> Glance:
        """Return all of it, the gravest first."""
        bound = now - self._stale_after()
        rows = {name: row for name, (row, _) in self._held.items()} | self._rows
        lines = [self._line(row, bound) for row in rows.values()]
        lines.sort(key=lambda line: (_RANKS[line.word], line.name))
        numbers = Counter((line.word, line.tone) for line in lines)
        words = [(word, tone, number) for (word, tone), number in numbers.items()]  # in the order of lines
        return Glance(lines, words, _totals(lines), self._read_at)

    def _line(self, row: NodeRow, bound: float) -> Line:
        _, seen = self._held.get(row.name, (row, None))
        sight = row.sight if seen is None else _newest(seen, row.sight)
        return Line(row, sight, _word(row.state, sight, bound), held_here=seen is not None)


def _newest(seen: Sight, known: Sight) -> Sight:
    """Return what our loop saw, and what the rows say where it has not seen anything yet."""
    tried = known if seen.outcome is None else seen
    return Sight(
        outcome=tried.outcome,
        error=tried.error,
        counts=seen.counts or known.counts,
        tried_at=tried.tried_at,
        converged_at=known.converged_at if seen.converged_at is None else seen.converged_at,
        applied_seconds=seen.applied_seconds,
        probe_seconds=seen.probe_seconds,
    )


def _word(state: NodeState, sight: Sight, bound: float) -> str:
    if state is NodeState.DISABLED:
        return state
    if sight.outcome is None or sight.tried_at is None:
        return UNTRIED
    return STALE if sight.tried_at < bound else sight.outcome


def _totals(lines: Iterable[Line]) -> Counts:
    counted = [line.sight.counts for line in lines if line.sight.counts and not line.is_disabled]
    return Counts(
        active=sum(counts.active for counts in counted),
        desired=sum(counts.desired for counts in counted),
        foreign=sum(counts.foreign for counts in counted),
        orphans=sum(counts.orphans for counts in counted),
        held=sum(counts.held for counts in counted),
    )
