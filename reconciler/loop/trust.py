"""
What a daemon believes of the database's clock, whichever of its nodes asks.

One memory for all nodes, and one that outlives their loops: a clock set
forward ends every lease too, and a loop that began anew with the new time
would take it for the right one.
"""

from reconciler.model import Instant
from reconciler.plan.clock import ClockWatch


class ClockTrust:
    """Remembers the last believed readings of both clocks."""

    def __init__(self, tolerance_seconds: float) -> None:
        self._watch = ClockWatch(tolerance_seconds)

    def believes(self, database: Instant, monotonic: float) -> bool:
        """Take a reading; return whether it is believed."""
        self._watch, believed = self._watch.read(database, monotonic)
        return believed
