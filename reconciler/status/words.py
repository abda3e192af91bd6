"""What others wrote and how long things take, as the command line and the fleet page show it. Pure."""

from reconciler.logs import mask

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_TWO_DIGITS = 10
_UNPRINTABLE = "\N{REPLACEMENT CHARACTER}"


def span(seconds: float) -> str:
    """Return a length of time in its one fitting unit: `3 s`, `5 min`, `12 d`."""
    seconds = abs(seconds)
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    if seconds < 2 * _DAY:
        return f"{seconds / _HOUR:.0f} h"
    return f"{seconds / _DAY:.0f} d"


def latency(seconds: float) -> str:
    """Return a time that is short when all is well: `0.4 ms`, `12 ms`, `1.3 s`, `20 s`."""
    number, unit = (seconds * 1000, "ms") if seconds < 1 else (seconds, "s")
    return f"{number:.1f} {unit}" if number < _TWO_DIGITS else f"{number:.0f} {unit}"


def plain(text: str) -> str:
    """Return what somebody else wrote so that it is only shown: on one line, and secrets masked."""
    return "".join(letter if letter.isprintable() else _UNPRINTABLE for letter in mask(text))
