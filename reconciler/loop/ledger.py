"""Promises are written while the steps of a plan go on: in batches, beside them, and never two at once."""

import asyncio
from collections.abc import Awaitable, Callable

from reconciler.plan.settle import Settlement, Settling
from reconciler.plan.steps import Step

BATCH = 2_000
"""Keys that one write settles, at least: what a crash leaves for the next cycle to find out."""


class Ledger:
    """Follows the steps that a node acknowledges; `write` puts down what they settle."""

    def __init__(self, settling: Settling, write: Callable[[Settlement], Awaitable[None]]) -> None:
        self._settling = settling
        self._write = write
        self._writing: asyncio.Task[None] | None = None

    @property
    def broken(self) -> bool:
        """Whether a write has failed, so that no more steps should be sent."""
        return self._writing is not None and self._writing.done() and self._writing.exception() is not None

    def note(self, step: Step) -> None:
        """Take in that a step was acknowledged."""
        self._settling.done(step)
        idle = self._writing is None or (self._writing.done() and not self.broken)
        if idle and self._settling.ready >= BATCH:
            self._writing = asyncio.create_task(self._put_down(self._settling.take()))

    async def close(self) -> None:
        """Wait for what is being written; raises what writing met."""
        if self._writing is not None:
            await self._writing

    async def drop(self) -> None:
        """Leave the rest to the next cycle; when this returns, nothing is written any more."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)

    async def _put_down(self, settlement: Settlement) -> None:
        await self._write(settlement)
