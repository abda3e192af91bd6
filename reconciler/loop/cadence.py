"""
When a node's cycles run: at the full interval, at a bell, and when a probe finds the node changed.

An event only says *look now*. While a node does not answer, probes go on at
their own pace and cycles back off; the first probe that is answered ends the
backoff.

A huge node is busy for a while when it lists its users, and its customers
wait. It is listed less often; a look at the rows alone takes the place of a
full cycle whenever nothing says that the node itself has changed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import structlog

from reconciler.errors import LeaseLost, NodeError, NodeUnreachable, StoreError
from reconciler.logs import cycle_context
from reconciler.loop.cycle import Cycles
from reconciler.loop.outcome import CycleReport, KeyedReport
from reconciler.loop.report import Reporter
from reconciler.loop.waiting import first
from reconciler.model import Outcome, Probe
from reconciler.plan.pace import Backoff, counting_interval, listing_interval, next_due

log = structlog.get_logger()

STORE_RETRY_SECONDS = 5.0
"""The longest wait after PostgreSQL failed: it is one server, and everybody waits for it."""


@dataclass(slots=True)
class NodeLoop:
    """Drives the cycles of one node until told to stop; its faults stay its own."""

    cycles: Cycles
    reporter: Reporter
    chance: Callable[[], float]  # uniform in [-1, 1]
    beat: Callable[[], None]
    stopping: asyncio.Event

    outcome: Outcome | None = None  # of the last full cycle
    _bell: asyncio.Event = field(default_factory=asyncio.Event)
    _rung_keys: set[int] = field(default_factory=set)
    _rung_whole: bool = False
    _failures: int = 0
    _number: int = 0
    _uptime: int | None = None
    _expected: dict[str, int] = field(default_factory=dict)
    _answered: bool = True
    _rows_at: float = float("inf")  # when all rows were last looked at
    _list_at: float = 0.0
    _count_at: float = 0.0

    @property
    def tried(self) -> bool:
        """Whether a cycle came to an end, however it did."""
        return self.outcome is not None

    def ring(self, key_ids: Iterable[int] | None = None) -> None:
        """Ask for a look at these keys, or at the whole node, as soon as the current cycle is over."""
        if key_ids is None:
            self._rung_whole = True
        else:
            self._rung_keys.update(key_ids)
        self._bell.set()

    async def run(self) -> None:
        """Cycle until stopping; raises LeaseLost when the node has gone to another daemon."""
        due, whole = self.cycles.clock(), True
        while not self.stopping.is_set():
            now, due = self.cycles.clock(), min(due, self._latest())
            rows = self._rung_whole or now >= due
            keys = self._answer_bell()
            if whole or (rows and (self._failures or now >= self._list_at)):
                due, whole = await self._cycle(due), False
            elif rows:
                whole = not await self._briefly(self.cycles.run_rows())
                due = self._next(due)
            elif keys:
                whole = not await self._briefly(self.cycles.run_keys(keys))
            self.beat()
            if not whole:
                whole = await self._wait(due)

    def _answer_bell(self) -> set[int]:
        """Return the keys that were rung; whatever rings from now on asks for one more look."""
        keys, self._rung_keys = self._rung_keys, set()
        self._rung_whole = False
        self._bell.clear()
        return keys

    async def _briefly(self, look: Awaitable[KeyedReport | None]) -> bool:
        """Look at rows only; False when a full cycle has to."""
        self._number += 1
        with cycle_context(node=self.cycles.node.name, cycle=str(self._number)):
            try:
                report = await look
            except LeaseLost:
                raise
            except StoreError:
                return False  # the full cycle meets it, too, and tells of it
            except Exception:  # noqa: BLE001 - as in a full cycle
                self.reporter.bug()
                return False
            if report is None:
                return False
            for tag in self._expected:
                self._expected[tag] += report.applied.growth(tag)
            self.reporter.report_keys(report)
            return not report.doubt

    async def _cycle(self, due: float) -> float:
        """Run the full cycle that was due; return when the next one is."""
        self._number += 1
        clock = self.cycles.clock
        with cycle_context(node=self.cycles.node.name, cycle=str(self._number)):
            started = clock()
            self.outcome = await self._tried()
            self.reporter.cycle_ended(self.outcome, clock() - started)
            return self._due(due, self.outcome)

    async def _tried(self) -> Outcome:
        """Run one cycle; whatever goes wrong is this node's outcome and nobody else's trouble."""
        try:
            report = await self.cycles.run()
        except LeaseLost:
            raise
        except StoreError as error:
            self.reporter.store_failed(error)
            return Outcome.FAILED
        except Exception:  # noqa: BLE001 - the one catch-all: a bug of ours must not stop other nodes
            self.reporter.bug()
            return Outcome.FAILED
        self._remember(report)
        self.reporter.report(report)
        return report.outcome

    def _remember(self, report: CycleReport) -> None:
        if report.seen is not None:
            self._answered = True
            self._uptime = report.seen.uptime_seconds
            self._expected = dict(report.seen.users)
            self._pace(sum(self._expected.values()), report.listing_seconds)

    def _pace(self, users: int, listing_seconds: float) -> None:
        """Say when the node may be listed and counted again; most may at any time."""
        now, config = self.cycles.clock(), self.cycles.config().cycle
        apart = listing_interval(config.full_interval_seconds, users, listing_seconds)
        self._list_at = now + apart if apart > config.full_interval_seconds else 0.0
        self._count_at = now + counting_interval(0.0, users)

    def _next(self, previous: float) -> float:
        """Return when the next look at all rows is due; most of them list the node as well."""
        config = self.cycles.config().cycle
        jitter = config.jitter_share * self.chance()
        self._rows_at = self.cycles.clock()
        return next_due(previous, config.full_interval_seconds, self._rows_at, jitter)

    def _latest(self) -> float:
        """Return when rows are due at the latest, because an interval that is made shorter counts at once."""
        if self._failures:
            return float("inf")
        config = self.cycles.config().cycle
        return self._rows_at + config.full_interval_seconds * (1 + config.jitter_share)

    def _due(self, previous: float, outcome: Outcome) -> float:
        config = self.cycles.config()
        now, interval = self.cycles.clock(), config.cycle.full_interval_seconds
        if outcome not in (Outcome.UNREACHABLE, Outcome.FAILED):
            self._failures = 0
            due = self._next(previous)
            if due <= now and self._overran(previous, interval, now):
                self.reporter.overran(now - previous - interval)
            return due
        self._failures += 1
        greatest = config.node.backoff_max_seconds
        if outcome is Outcome.FAILED:
            greatest = min(greatest, STORE_RETRY_SECONDS)
        backoff = Backoff(config.node.backoff_initial_seconds, greatest)
        return now + backoff.delay(self._failures, config.cycle.jitter_share * self.chance())

    @staticmethod
    def _overran(previous: float, interval: float, now: float) -> bool:
        return now > previous + 2 * interval

    async def _wait(self, due: float) -> bool:
        """Wait until a look is due; True when the node must be listed, whatever has rung."""
        while (left := min(due, self._latest()) - self.cycles.clock()) > 0:
            pause = min(left, self.cycles.config().cycle.probe_interval_seconds)
            if await self._rung(pause):
                return False
            self.beat()
            if self.cycles.clock() < due and await self._changed():
                return True
        return False

    async def _rung(self, seconds: float) -> bool:
        """Wait for a bell or the end; a node that backs off hears none, it will be looked at anyway."""
        return await first([self.stopping] if self._failures else [self.stopping, self._bell], seconds)

    async def _changed(self) -> bool:
        """Whether a cheap look finds the node restarted, back, or with another number of users."""
        cycles, now = self.cycles, self.cycles.clock()
        cycles.lease.remaining_seconds(now)
        counts = now >= self._count_at
        counted = cycles.node.inbounds if counts else ()
        try:
            probe = await cycles.port.probe(counted, cycles.config().node.call_timeout_seconds)
        except NodeUnreachable:
            gone, self._answered = self._answered, False
            return gone
        except NodeError:
            return False
        self.reporter.probed(cycles.clock() - now)
        back, self._answered = not self._answered, True
        changed = back or self._restarted(probe) or (counts and dict(probe.users) != self._expected)
        self._uptime = probe.uptime_seconds
        if counts:
            # One look answers one difference: what the cycle cannot mend must not ring for ever.
            self._expected = dict(probe.users)
            self._count_at = now + counting_interval(0.0, sum(probe.users.values()))
        return changed

    def _restarted(self, probe: Probe) -> bool:
        return self._uptime is not None and probe.uptime_seconds < self._uptime
