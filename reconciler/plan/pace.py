"""When to come back: time and chance are arguments."""

from dataclasses import dataclass

from reconciler.model import Instant


def next_due(previous: Instant, interval_seconds: float, now: Instant, jitter: float = 0.0) -> Instant:
    """
    Return when the next cycle is due on a fixed cadence.

    `jitter` (a share of the interval, drawn by the caller) spreads nodes
    that started together. A cycle that overran its interval is followed at
    once, and the beats it missed are not made up for. One that was rung
    before it was due begins the cadence anew: looking more often must never
    put the next look off.
    """
    due = min(previous, now) + interval_seconds * (1 + jitter)
    return max(due, now)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Capped exponential delay between tries at a node that does not answer."""

    initial_seconds: float
    greatest_seconds: float

    def delay(self, failures: int, jitter: float = 0.0) -> float:
        """
        Return the seconds to wait after `failures` in a row (from 1 on).

        `jitter` is a share, drawn by the caller; the cap holds with it.
        """
        if failures < 1:
            return 0.0
        doublings = min(failures - 1, 64)
        raw = min(self.initial_seconds * 2.0**doublings, self.greatest_seconds)
        return min(raw * (1 + jitter), self.greatest_seconds)
