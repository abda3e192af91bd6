"""
Reading what one node has counted, at an interval of its own, beside its cycles.

A reading that goes wrong, wherever, is made up for by the next one: counters
go on, and only the end of the node's Xray takes what was not read.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog

from reconciler.config import Config
from reconciler.errors import LeaseLost, NodeRejected, NodeUnreachable, StoreError
from reconciler.logs import Repeats
from reconciler.loop.waiting import first
from reconciler.model import Owner
from reconciler.node.port import NodePort
from reconciler.plan.boots import Sighting, went_on
from reconciler.plan.counting import Counts, Remembered
from reconciler.plan.pace import reading_interval
from reconciler.status.lease import Lease
from reconciler.status.metrics import Metrics
from reconciler.status.usage import Added, Taken, Usage

log = structlog.get_logger()

NAMED_AT_MOST = 20

HEED_SECONDS = 2.0
"""How soon a reload of the configuration is heeded."""


@dataclass(slots=True)
class Turns:
    """
    What keeps counting from being in the way of the cycles.

    Readings are held in memory, and a commit has a connection to the database
    for as long as it takes: there are few of the first at once, and one of the second.
    """

    reading: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(8))
    committing: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class TrafficLoop:
    """Counts the traffic of one node until told to stop, or until the node is another daemon's."""

    lease: Lease
    port: NodePort
    usage: Usage
    owner: Owner
    metrics: Metrics
    turns: Turns
    config: Callable[[], Config]
    clock: Callable[[], float]
    wall: Callable[[], float]
    chance: Callable[[], float]  # uniform in [-1, 1]
    stopping: asyncio.Event
    ring: Callable[[Iterable[int]], None]  # has the node look at keys of its own

    _last: Remembered | None = None
    _counters: int = 0
    _repeats: Repeats = field(default_factory=Repeats)

    async def run(self) -> None:
        """Read, wait, and read again."""
        with structlog.contextvars.bound_contextvars(node=self.lease.node):
            while not self.stopping.is_set():
                try:
                    await self._tried()
                except LeaseLost:
                    return  # the cycles meet it as well, and tell of it
                await self._wait()

    async def _wait(self) -> None:
        """Wait for the next reading; an interval that is made shorter meanwhile counts at once."""
        began, drawn = self.clock(), self.chance()
        while not self.stopping.is_set():
            config = self.config()
            interval = reading_interval(config.traffic.interval_seconds, self._counters)
            left = began + interval * (1 + config.cycle.jitter_share * drawn) - self.clock()
            if left <= 0 or await first([self.stopping], min(left, HEED_SECONDS)):
                return

    async def _tried(self) -> None:
        """Read once; whatever goes wrong, nothing that was committed is counted again."""
        try:
            added = await self._read()
        except LeaseLost:
            raise
        except NodeUnreachable:
            return  # the cycles tell of it
        except (NodeRejected, StoreError) as error:
            self._last = None
            self._failed("traffic not counted", str(error))
        except Exception:  # noqa: BLE001 - as with a cycle: a bug of ours must not stop other nodes
            self._last = None
            self._failed("traffic not counted because of a bug of ours", "see the trace", trace=True)
        else:
            if added is not None:
                self._tell(added)

    async def _read(self) -> Added | None:
        """Read and commit; None when the node restarted in the middle."""
        config, node = self.config(), self.lease.node
        before = await self._sighting()
        host_at = self.wall()
        async with self.turns.reading:
            counts = await self.port.counters(self.owner, config.node.listing_timeout_seconds)
            if not went_on(before, await self._sighting()):
                return None
            self._doubt(counts)
            async with self.turns.committing:
                taken = Taken(counts, before.vitals, host_at, before.host_at)
                added = await self.usage.add(self.lease, taken, self._last)
            if added.new_boot or self._last is None:
                await self.usage.forget(self.lease.node_id)
            self._last = await _remembered(added.boot, counts)
        self._counters = counts.number
        self.metrics.traffic(node, "up", added.up_bytes)
        self.metrics.traffic(node, "down", added.down_bytes)
        self.metrics.traffic_read(node, self.wall())
        return added

    async def _sighting(self) -> Sighting:
        vitals = await self.port.vitals(self.config().node.call_timeout_seconds)
        now = self.clock()
        return Sighting(vitals, now, now)

    def _doubt(self, counts: Counts) -> None:
        """Tell of counters that cannot be what they should."""
        strange = counts.malformed + counts.refused
        if strange:
            self._warn("counters that no traffic has", str(strange), counters=strange)
        else:
            self._repeats.recovered("counters that no traffic has")

    def _tell(self, added: Added) -> None:
        swallowed = self._repeats.recovered("traffic not counted")
        if swallowed is not None:
            log.info("traffic is counted again", failures=swallowed)
        if added.fallen:
            self._warn("counters went backwards: does another program reset them?", "", counters=added.fallen)
        if added.crossed:
            shown = [*added.crossed][:NAMED_AT_MOST]
            log.info("traffic used up", number=len(added.crossed), subscriptions=shown)
            if not self.config().database.notify:
                self.ring(key_id for key_ids in added.crossed.values() for key_id in key_ids)

    def _warn(self, message: str, pattern: str, **keys: int) -> None:
        swallowed = self._repeats.failed(message, pattern, self.clock())
        if swallowed is not None:
            log.warning(message, repeats=swallowed, **keys)

    def _failed(self, message: str, reason: str, *, trace: bool = False) -> None:
        swallowed = self._repeats.failed("traffic not counted", reason, self.clock())
        if swallowed is not None:
            log.error(message, reason=reason, repeats=swallowed, exc_info=trace)


async def _remembered(boot: int, counts: Counts) -> Remembered:
    fresh = Remembered(boot)
    for readings in counts.readings():
        fresh.extend(readings)
        await asyncio.sleep(0)
    return fresh
