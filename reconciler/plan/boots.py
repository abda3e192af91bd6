"""
Which run of a node's Xray a reading belongs to.

Xray counts from zero at each start and has no boot id: it tells its uptime in
whole seconds, and how much it has ever allocated. To take one run for two
would bill every byte again, so where the signs disagree it is one run: what
is missed then is at most what the earlier run had counted.

How the uptime goes on beside a clock tells the most. Two clocks are asked,
the database's and the reader's own, and both have to say the same: the one
may be set, the other changes with the daemon that holds the node. An uptime
may fall behind both, when the node's host sleeps; but a process that was up
for longer than the time since the last reading was there at that reading.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reconciler.model import Instant, Vitals

TOLERANCE_SECONDS = 5.0
"""By how much a start may seem to move: whole seconds, slow answers, clocks that drift."""


class Sighting(NamedTuple):
    """A process as it was at one moment, which two clocks date."""

    vitals: Vitals
    database_at: Instant
    host_at: Instant

    @property
    def started_at(self) -> Instant:
        """When it started, by the database's clock, give or take a few seconds."""
        return self.database_at - self.vitals.uptime_seconds


@dataclass(frozen=True, slots=True)
class Boot:
    """One run of a node's Xray: its number, and how it was when last read."""

    number: int
    last: Sighting


class Recognised(NamedTuple):
    """
    The run that a reading belongs to.

    Unless it is `sure`, a counter that fell tells that it is another run
    after all; when it is, somebody has set that counter back.
    """

    boot: Boot
    sure: bool


def recognise(boots: Sequence[Boot], seen: Sighting) -> Recognised | None:
    """Return which of these runs, the newest first, was seen; None when it is a new one."""
    for boot in boots:
        sure = _same(boot.last, seen)
        if sure is not None:
            return Recognised(boot, sure)
    return None


def went_on(before: Sighting, after: Sighting) -> bool:
    """Whether both were the same run, as far as anybody can tell."""
    return _same(before, after) is not None


def is_baseline(seen: Sighting, registered_at: Instant) -> bool:
    """
    Whether the first reading of a node tells where counting begins, and no bytes yet.

    So it is unless all that was counted came after the node was registered.
    """
    return seen.started_at <= registered_at + TOLERANCE_SECONDS


def _same(last: Sighting, seen: Sighting) -> bool | None:
    """Whether it is surely the same run, or only not known to be another; None when it is another."""
    grown = seen.vitals.uptime_seconds - last.vitals.uptime_seconds
    elapsed = (seen.database_at - last.database_at, seen.host_at - last.host_at)
    behind = [span - grown for span in elapsed]
    if all(lag < -TOLERANCE_SECONDS for lag in behind):
        return None  # older than it could have become
    late = max(elapsed) <= 0
    if late:
        return True if any(lag <= TOLERANCE_SECONDS for lag in behind) else None
    if any(now < then for now, then in zip(seen.vitals, last.vitals, strict=True)):
        return None
    if seen.vitals.uptime_seconds > min(elapsed) + TOLERANCE_SECONDS:
        return True
    return False if any(lag <= TOLERANCE_SECONDS for lag in behind) else None
