"""
When a key may leave a node that was told to let it go.

A move is two live placements for a while. The old one ends when another node
surely has the key, and the customer had the time to learn of it: that node
carries the present account by promise, it was seen as desired since and was
well when last tried, and the grace is over. A key that opens no door now may
leave at once.
"""

from collections.abc import Collection
from typing import NamedTuple

from reconciler.model import Instant


class Elsewhere(NamedTuple):
    """The key on another node, which acts on its rows and is not told to let the key go."""

    placed_at: Instant
    promised_at: Instant | None  # since when a promise carries the present account; None while none does
    converged_at: Instant | None  # when the node was last seen as desired; None while it is not well

    @property
    def confirmed_at(self) -> Instant | None:
        """Since when the node surely has the key; None while that is not known."""
        if self.promised_at is None or self.converged_at is None:
            return None
        since = max(self.placed_at, self.promised_at)
        return since if self.converged_at >= since else None


class Leaving(NamedTuple):
    """A live placement that was told to leave."""

    wanted: bool  # whether the rows let the customer in now, on whichever node
    grace_seconds: float
    elsewhere: Collection[Elsewhere]


def confirmed_at(leaving: Leaving) -> Instant | None:
    """Return since when another node surely has the key; None while none does."""
    return min((it.confirmed_at for it in leaving.elsewhere if it.confirmed_at is not None), default=None)


def leaves_at(leaving: Leaving, now: Instant) -> Instant | None:
    """Return when the placement ends, which may be over; None while nobody can say."""
    if not leaving.wanted:
        return now
    since = confirmed_at(leaving)
    return None if since is None else since + leaving.grace_seconds
