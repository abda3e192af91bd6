"""Months of a subscription: each begins on the day and at the time of its start, in UTC."""

from calendar import monthrange
from datetime import UTC, datetime
from typing import NamedTuple

_MONTHS = 12


class Period(NamedTuple):
    """From its beginning to right before its end, where the next one begins."""

    begins: datetime
    ends: datetime


def month_of(start: datetime, now: datetime) -> Period:
    """
    Return the month of a subscription that began at `start`, not after `now`, in which `now` lies.

    Where a month has no such day its last one is taken: what began on the
    31st of January goes on at the end of February, and on the 31st of March.
    """
    start, now = start.astimezone(UTC), now.astimezone(UTC)
    months = (now.year - start.year) * _MONTHS + now.month - start.month
    if _later(start, months) > now:
        months -= 1
    return Period(_later(start, months), _later(start, months + 1))


def _later(start: datetime, months: int) -> datetime:
    """Return the start, so many months later."""
    year, month = divmod(start.year * _MONTHS + start.month - 1 + months, _MONTHS)
    return start.replace(year=year, month=month + 1, day=min(start.day, monthrange(year, month + 1)[1]))
