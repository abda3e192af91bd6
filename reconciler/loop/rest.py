"""
What makes a full cycle cheap where nothing has happened.

A plan is a function of what the node lists and what the rows say. Both are
read every time, and when both say what they said when nothing was left to
do, then nothing is left to do, and neither is unpacked.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.desired.glance import Glance
from reconciler.loop.observe import Answers
from reconciler.loop.outcome import CycleReport
from reconciler.model import Instant, Outcome, Probe
from reconciler.plan.rows import telling
from reconciler.status.recorder import Counts


@dataclass(frozen=True, slots=True)
class Seen:
    """Both sides as they were read; `read_at` is our clock at the rows' own time."""

    answers: Answers
    glance: Glance
    read_at: float

    @property
    def boot_at(self) -> Instant:
        """When the node started, on the database's clock."""
        return self.glance.now - (self.read_at - self.answers.asked_at) - self.answers.uptime_seconds


@dataclass(frozen=True, slots=True)
class Rest:
    """What was seen of a node at rest: digests of both sides, and what follows from them."""

    listings: Mapping[str, bytes]
    rows: bytes
    counts: Counts
    users: Mapping[str, int]

    def goes_on(self, seen: Seen) -> bool:
        """Whether both sides still say the same."""
        return seen.answers.digests == self.listings and seen.glance.digest == self.rows

    def report(self, seen: Seen) -> CycleReport:
        """Return what a look would have found."""
        probe = Probe(seen.answers.uptime_seconds, self.users)
        return CycleReport(
            Outcome.CONVERGED,
            seen=probe,
            counts=self.counts,
            boot_at=seen.boot_at,
            listing_seconds=seen.answers.listing_seconds,
        )


def at_rest(seen: Seen, report: CycleReport) -> Rest | None:
    """
    Return what to compare the next look with; None when that one must be taken in full.

    Rows that are not quiet may come to mean something else by time alone, an
    orphan's row may come, and orders and a frozen clock ask for a look by
    themselves.
    """
    look, probe, counts = report.look, report.seen, report.counts
    if look is None or probe is None or counts is None or report.outcome is not Outcome.CONVERGED:
        return None
    # The rows may have been read again for the look, and what the glance found telling was quiet by then.
    unsettled = seen.glance.telling or telling(look.desired.rows) or look.plan.orphans or look.desired.orders
    if unsettled or look.removals_frozen:
        return None
    return Rest(seen.answers.digests, seen.glance.digest, counts, probe.users)
