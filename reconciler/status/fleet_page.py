"""
The fleet page: the fleet at a glance for people without Grafana.

It is made of what is kept in memory, so asking for it hangs on nothing, and at
most once a second, so asking often costs nothing. It needs no script, and its
policy lets none run, whatever a node's error says.
"""

import asyncio
import base64
import gzip
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import resources
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from reconciler import __version__
from reconciler.status.board import Board
from reconciler.status.health import Check, Health
from reconciler.status.words import latency, plain, span

RENEW_SECONDS = 15
FRESH_SECONDS = 1.0
LONGEST_ERROR = 400
"""A glance needs no more letters of it; the log and `reconciler status --json` have them all."""
_PIECES_PER_SLICE = 500
"""The engine makes a node of some fifty pieces; so many are put together in well under a millisecond."""

_UNKNOWN = "\N{EN DASH}"
_FILES = resources.files("reconciler.status")
_STYLE = "\n" + (_FILES / "fleet.css").read_text(encoding="utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Rendered(NamedTuple):
    """The page as it goes out, as text and packed."""

    html: bytes
    packed: bytes


class FleetPage:
    """Makes the page; `clock` is the one that board and health are told the time by, `wall` dates it."""

    def __init__(
        self, board: Board, health: Health, clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self._board = board
        self._health = health
        self._clock = clock
        self._wall = wall
        self._template = _environment().from_string((_FILES / "fleet.html").read_text(encoding="utf-8"))
        self._making = asyncio.Lock()
        self._made: Rendered | None = None
        self._made_at = 0.0

    async def rendered(self) -> Rendered:
        """Return the page, at most a second old; whoever asks meanwhile waits for the same one."""
        async with self._making:
            if self._made is None or self._clock() - self._made_at >= FRESH_SECONDS:
                self._made = await self._render()
                self._made_at = self._clock()
            return self._made

    async def _render(self) -> Rendered:
        now = self._clock()
        stream = self._template.stream(
            glance=self._board.glance(now),
            checks=self._checks(now),
            now=now,
            moment=f"{datetime.fromtimestamp(self._wall(), UTC):%Y-%m-%d %H:%M:%S}",
            renew_seconds=RENEW_SECONDS,
            longest_error=LONGEST_ERROR,
            style=Markup(_STYLE),  # noqa: S704 - a file of ours, and of no input
            version=__version__,
        )
        stream.enable_buffering(_PIECES_PER_SLICE)
        parts = []
        for part in stream:
            parts.append(part)
            await asyncio.sleep(0)  # the work of a thousand nodes goes on in between
        html = "".join(parts).encode(errors="replace")
        return Rendered(html, await asyncio.to_thread(gzip.compress, html, 1))

    def _checks(self, now: float) -> list[Check]:
        """Return every check of the work, and of the loops those that do not turn; troubles first."""
        stuck = [check for check in self._health.live(now) if not check.ok]
        return sorted([*stuck, *self._health.ready(now)], key=lambda check: (check.ok, not check.required))


def _environment() -> Environment:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    environment.filters |= {"ago": _ago, "took": _took, "number": _number, "plain": plain}
    return environment


def _ago(at: float | None, now: float) -> str:
    return _UNKNOWN if at is None else f"{span(now - at)} ago"


def _took(seconds: float | None) -> str:
    return _UNKNOWN if seconds is None else latency(seconds)


def _number(number: int | None) -> str:
    return _UNKNOWN if number is None else f"{number:,}"
