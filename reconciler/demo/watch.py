"""Waiting for things to come true."""

import asyncio
import time
from collections.abc import Awaitable, Callable

PATIENCE_SECONDS = 15.0
"""After so long, what has not come true counts as broken: every promise shown here is much shorter."""

_POLL_SECONDS = 0.02


class Missed(Exception):
    """Something did not come true in time."""


async def until(
    true: Callable[[], Awaitable[bool]], words: str, patience_seconds: float = PATIENCE_SECONDS
) -> float:
    """Ask `true` again and again; return the seconds until it was. Raises Missed, saying `words`."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(patience_seconds):
            while not await true():  # noqa: ASYNC110 - other programs set no event of ours
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise Missed(f"{words}: not within {patience_seconds:.0f} s") from None
    return time.monotonic() - started
