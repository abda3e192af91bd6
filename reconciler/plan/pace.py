"""When to come back: time and chance are arguments."""

from dataclasses import dataclass

from reconciler.model import Instant

LISTING_SHARE = 0.004
"""Of a node's time; well under 1 %, so that of a hundred round trips of a customer none meets a listing."""

COUNTING_SHARE = 0.002
"""The same for counting, which costs a customer a few milliseconds."""

SECONDS_PER_LISTED_USER = 1e-5
"""What a user adds to a listing on a slow core; a fast one takes a third of it."""

SECONDS_PER_COUNTED_USER = 1e-7
"""What a user adds to a count."""

READING_SHARE = 0.005
"""The same for reading the counters of its users."""

SECONDS_PER_COUNTER = 1e-6
"""What one of them takes on a slow core; a fast one takes a third of it."""


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


def listing_interval(interval_seconds: float, users: int, took_seconds: float) -> float:
    """
    Return how often to list a node whose last listing had so many users and took so long.

    A node of one core does little else while it lists, and its customers wait
    for as long, so that is kept to a small share of its time. What a listing
    takes over a long way with few users costs the node nothing.
    """
    busy_seconds = min(took_seconds, users * SECONDS_PER_LISTED_USER)
    return max(interval_seconds, busy_seconds / LISTING_SHARE)


def counting_interval(interval_seconds: float, users: int) -> float:
    """Return how often to count the users of a node that has so many: Xray walks through all of them."""
    return max(interval_seconds, users * SECONDS_PER_COUNTED_USER / COUNTING_SHARE)


def reading_interval(interval_seconds: float, counters: int) -> float:
    """
    Return how often to read a node that has so many counters, two for each user who was ever there.

    That is every 40 s for 100,000 users: nobody's quota is worth his neighbour's latency.
    """
    return max(interval_seconds, counters * SECONDS_PER_COUNTER / READING_SHARE)
