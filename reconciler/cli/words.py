"""Numbers, times and rows as people read and write them. Pure."""

import re
from datetime import UTC, datetime
from fractions import Fraction

from reconciler.status.words import plain, span

__all__ = ["away", "date", "parse_moment", "parse_size", "plain", "plural", "size", "span", "when"]

_SIZE = re.compile(r"(?P<number>[0-9]{1,18}(?:\.[0-9]{1,9})?) ?(?P<unit>[kKMGTPE]?i?B)", re.ASCII)
_THOUSANDS = "kMGTPE"


def away(moment: datetime | None, now: datetime) -> str:
    """Return how far a moment is from `now`: `3 s ago`, `in 12 d`; a dash for none."""
    if moment is None:
        return "-"
    seconds = (moment - now).total_seconds()
    return f"in {span(seconds)}" if seconds > 0 else f"{span(seconds)} ago"


def date(moment: datetime | None) -> str:
    """Return a moment to the minute, in UTC; a dash for none."""
    return "-" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def when(moment: datetime, now: datetime) -> str:
    """Return a moment, and how far away it is."""
    return f"{date(moment)} ({away(moment, now)})"


def size(count: int | None) -> str:
    """Return a number of bytes in its one fitting decimal unit; a dash for no number."""
    if count is None:
        return "-"
    for power in range(len(_THOUSANDS), 0, -1):
        if abs(count) >= 1000**power:
            return f"{count / 1000**power:.3g} {_THOUSANDS[power - 1]}B"
    return f"{count} B"


def parse_size(text: str) -> int:
    """
    Return the bytes in `100GB` or `1.5TiB`; a unit with `i` counts by 1024, one without by 1000.

    Raises ValueError for anything else, a bare number and a part of a byte
    included.
    """
    found = _SIZE.fullmatch(text)
    unit = found["unit"].removesuffix("B") if found else "?"
    if found is None or unit == "i":
        raise ValueError("a number and its unit, such as 100GB or 1.5TiB")
    power = _THOUSANDS.index(unit[0].replace("K", "k")) + 1 if unit else 0
    scale: int = (1024 if unit.endswith("i") else 1000) ** power
    count = Fraction(found["number"]) * scale
    if count.denominator != 1:
        raise ValueError("a whole number of bytes")
    return count.numerator


def parse_moment(text: str) -> datetime:
    """Return the moment in ISO 8601 text; raises ValueError, also where a time zone is missing."""
    bound = "a date and time with its zone, such as 2027-01-31T12:00:00Z"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(bound) from None
    if moment.tzinfo is None:
        raise ValueError(bound)
    return moment


def plural(count: int, noun: str) -> str:
    """Return `1 key` or `2 keys`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
