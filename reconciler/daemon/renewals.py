"""Watching for the months of subscriptions that begin."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from reconciler.errors import StoreError
from reconciler.status.periods import Periods

log = structlog.get_logger()

TICK_SECONDS = 1.0


async def renew_quotas(periods: Periods, interval: Callable[[], float], clock: Callable[[], float]) -> None:
    """Renew what is due, for ever; every `interval` seconds look also for what nobody has begun yet."""
    look_at = clock()
    while True:
        everything = clock() >= look_at
        with suppress(StoreError):  # the fleet tells of it, and what was due stays due
            renewed = await periods.renew(everything=everything)
            if everything:
                look_at = clock() + interval()
            if renewed.opened:
                log.info("quotas renewed", begun=renewed.begun, opened=renewed.opened)
        await asyncio.sleep(TICK_SECONDS)
