"""Which of many equal failures are told."""

import re
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Streak:
    logged_at: float
    total: int = 0
    swallowed: int = 0
    texts: set[str] = field(default_factory=set)


class Repeats:
    """
    Says which of a row of equal failures to log: the first, then one in `every_seconds`.

    A key is whatever fails as one, a node for instance. Texts that differ in
    their digits only are equal, because ports and counts vary; a new text is
    logged at once, up to a number of texts, so that no variety floods the log.
    """

    _MOST_TEXTS = 8

    def __init__(self, every_seconds: float = 600.0) -> None:
        self._every_seconds = every_seconds
        self._streaks: dict[str, _Streak] = {}

    def failed(self, key: str, text: str, now: float) -> int | None:
        """Count a failure; return None to stay silent, else how many were swallowed since the last line."""
        streak = self._streaks.setdefault(key, _Streak(logged_at=now))
        streak.total += 1
        pattern = re.sub(r"\d+", "0", text)
        fresh = pattern not in streak.texts and len(streak.texts) < self._MOST_TEXTS
        if not fresh and now - streak.logged_at < self._every_seconds:
            streak.swallowed += 1
            return None
        if fresh:
            streak.texts.add(pattern)
        streak.logged_at = now
        swallowed, streak.swallowed = streak.swallowed, 0
        return swallowed

    def recovered(self, key: str) -> int | None:
        """End the row of failures of `key`; return how many there were, None when there were none."""
        streak = self._streaks.pop(key, None)
        return streak.total if streak else None
