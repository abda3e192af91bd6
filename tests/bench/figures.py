"""The arithmetic of a benchmark, without any I/O: medians, spreads, ratios, slopes, and goals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, inf, log
from statistics import median


@dataclass(frozen=True, slots=True)
class Spread:
    """What several runs of one thing gave: the middle one, the least and the greatest."""

    median: float
    low: float
    high: float
    runs: int

    @property
    def width(self) -> float:
        """How far apart the runs are, as a share of the median; infinite around zero."""
        return (self.high - self.low) / self.median if self.median else inf


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on a score, which is met at the bound itself."""

    bound: float
    at_most: bool
    words: str

    def held(self, score: float) -> bool:
        """Whether a score keeps to the bound; one that is no number does not."""
        return score <= self.bound if self.at_most else score >= self.bound


@dataclass(frozen=True, slots=True)
class Row:
    """
    One line of the table.

    `score` is what the goal speaks of, in `score_unit`: a ratio of ours to
    the reference (`x`), or a difference in the rows' own unit.
    """

    measure: str
    what: str
    unit: str
    ours: Spread
    beside: str = ""
    reference: Spread | None = None
    score: Spread | None = None
    score_unit: str = "x"
    goal: Goal | None = None

    @property
    def held(self) -> bool | None:
        """Whether the goal was met by the median; None when there is none, or nothing to judge it by."""
        if self.goal is None or self.score is None:
            return None
        return self.goal.held(self.score.median)

    @property
    def sure(self) -> bool:
        """Whether every run says the same of the goal; else the machine was too unsteady to tell."""
        if self.goal is None or self.score is None:
            return True
        return self.goal.held(self.score.low) is self.goal.held(self.score.high)


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of at least one value."""
    return Spread(median(values), min(values), max(values), len(values))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Return the spread of ours ÷ theirs, taken run by run: what slowed a whole round falls out of it."""
    return spread([_divided(mine, other) for mine, other in zip(ours, theirs, strict=True)])


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Return the spread of ours minus theirs, taken run by run."""
    return spread([mine - other for mine, other in zip(ours, theirs, strict=True)])


def percentile(values: Sequence[float], share: float) -> float:
    """Return the least value that at least so large a share of all values does not exceed."""
    ranked = sorted(values)
    return ranked[max(0, ceil(share * len(ranked)) - 1)]


def blocks(values: Sequence[float], number: int) -> Iterator[Sequence[float]]:
    """Cut values, in their order, into `number` blocks whose lengths differ by one at most."""
    edges = [len(values) * step // number for step in range(number + 1)]
    return (values[start:end] for start, end in pairwise(edges))


def power(points: Mapping[float, float]) -> float:
    """
    Return the exponent of the power law through these points, by least squares of their logarithms.

    1 is linear, 0 is constant. Raises ValueError for fewer than two sizes.
    """
    return _slope([(log(size), log(cost)) for size, cost in points.items()])


def slope(points: Mapping[float, float]) -> float:
    """Return by how much the cost grows with each unit of size, by least squares."""
    return _slope([*points.items()])


def _slope(points: Sequence[tuple[float, float]]) -> float:
    if len(points) < 2:
        raise ValueError("a slope needs two sizes at least")
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    spent = sum((x - middle_x) * (y - middle_y) for x, y in points)
    return spent / sum((x - middle_x) ** 2 for x, _ in points)


def _divided(ours: float, theirs: float) -> float:
    return ours / theirs if theirs else inf
