"""
How many steps may be under way at once on one node.

A node carries customers while we work on it, and they wait behind our steps.
So the window follows the node's answers: their time above the shortest one is
what our own steps wait there, and that is kept near a few milliseconds. The
way to the node is in the shortest time, too, so it does not count, and a
distant node gets as many steps as it takes to keep it at work.
"""

from dataclasses import dataclass, field

FIRST = 4
"""The window at the start, and its least: so few hurt nobody, and fewer would mostly wait for each other."""

PATIENCE_SECONDS = 0.002
"""How long a step may wait at the node, on the average of a round."""

PATIENCE_SHARE = 0.5
"""Or this share of the way to it, if that is longer: over a long way times vary by themselves."""

ROUTE_SECONDS = 30.0
"""After so long the shortest answer is measured anew: the way may have become longer."""


@dataclass(slots=True)
class Window:
    """
    The window of one node: `limit` steps may be under way, never more than `ceiling`.

    Once a round, which is as many answers as the window is wide, it is
    multiplied by the wait that is allowed over the wait that was seen, at
    most doubled and at most halved. The clock is the caller's.
    """

    ceiling: int
    limit: int = field(init=False)
    _shortest: float = field(init=False, default=float("inf"))
    _measured_at: float | None = field(init=False, default=None)
    _stale: int = field(init=False, default=0)  # answers to come that were asked for under a wider window
    _answers: int = field(init=False, default=0)
    _seconds: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.limit = min(FIRST, self.ceiling)

    def answered(self, seconds: float, now: float) -> None:
        """Take in that a call which took `seconds` was answered at `now`."""
        if self._measured_at is None:
            self._measured_at = now
        elif now - self._measured_at > ROUTE_SECONDS:
            # Few steps under way tell how long the way is; with many, the shortest time has a wait in it.
            self._measured_at, self._shortest = now, float("inf")
            self._widen_to(FIRST)
        self._shortest = min(self._shortest, seconds)
        if self._stale:
            self._stale -= 1
            return
        self._answers += 1
        self._seconds += seconds
        if self._answers >= self.limit:
            self._end_round()

    def _end_round(self) -> None:
        wait = self._seconds / self._answers - self._shortest
        patience = max(PATIENCE_SECONDS, PATIENCE_SHARE * self._shortest)
        change = patience / wait if wait > 0 else 2.0
        self._widen_to(round(self.limit * min(max(change, 0.5), 2.0)))

    def _widen_to(self, limit: int) -> None:
        before, self.limit = self.limit, min(max(limit, FIRST), self.ceiling)
        self._stale = before if self.limit < before else 0
        self._answers, self._seconds = 0, 0.0
