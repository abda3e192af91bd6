"""
Whether the database's clock can be believed.

Expiry is judged by that clock alone, so a clock set forward by a year would
end every subscription at once. Two clocks that count seconds must agree on
how many went by between two readings; when they do not, removals freeze.
"""

from dataclasses import dataclass

from reconciler.model import Instant


@dataclass(frozen=True, slots=True)
class ClockWatch:
    """
    The last believed pair of readings.

    A jump is explained by the clock coming back, or by the operator
    restarting the daemon, whose first reading is believed.
    """

    tolerance_seconds: float
    database: Instant | None = None
    monotonic: float = 0.0

    def departure_seconds(self, database: Instant, monotonic: float) -> float:
        """Return by how much the database's clock has gone ahead of the host's since the believed reading."""
        if self.database is None:
            return 0.0
        return (database - self.database) - (monotonic - self.monotonic)

    def read(self, database: Instant, monotonic: float) -> tuple["ClockWatch", bool]:
        """Return the watch after a reading, and whether the reading is believed."""
        if abs(self.departure_seconds(database, monotonic)) > self.tolerance_seconds:
            return self, False
        return ClockWatch(self.tolerance_seconds, database, monotonic), True
