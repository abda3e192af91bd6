"""Waiting for the first of several things."""

import asyncio
from collections.abc import Iterable


async def first(events: Iterable[asyncio.Event], seconds: float) -> bool:
    """Wait until one of the events is set; False when so many seconds went by without."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return bool(done)
