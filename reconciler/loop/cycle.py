"""
One cycle: observe → diff → guard → apply → record.

Whatever breaks off, wherever, the next cycle starts from what the node and
the rows say then, and mends it.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from reconciler.config import Config
from reconciler.desired.reader import DesiredReader
from reconciler.errors import NodeError, NodeUnreachable
from reconciler.loop.apply import Applied, Means, apply
from reconciler.loop.ledger import Ledger
from reconciler.loop.look import Look, ask_node, consider, limits, observe_node, read_desired
from reconciler.loop.outcome import CycleReport, KeyedReport, counts, expected, judge, reason
from reconciler.loop.rest import Rest, Seen, at_rest
from reconciler.loop.trust import ClockTrust
from reconciler.model import Desired, Listed, Node, NodeState, Outcome, Owner
from reconciler.node.port import NodePort
from reconciler.plan.belief import believed
from reconciler.plan.guard import decide
from reconciler.plan.settle import Settlement, Settling, settle
from reconciler.plan.steps import Breach, Neighbour, Plan
from reconciler.status.lease import Lease
from reconciler.status.recorder import NodeStatus, Recorder

MOST_BELIEVED = 1_000
"""For more keys than these a listing is worth its cost: it is the truth, and promises are not."""


@dataclass(slots=True)
class Cycles:
    """Runs the cycles of one node; never two at once."""

    node: Node
    lease: Lease
    port: NodePort
    reader: DesiredReader
    recorder: Recorder
    owner: Owner
    config: Callable[[], Config]
    clock: Callable[[], float]
    stopping: Callable[[], bool]
    progressed: Callable[[], None]
    trust: ClockTrust
    slots: asyncio.Semaphore  # how many nodes this daemon lists and compares at once
    unanswered: bool = False
    crowded: frozenset[Neighbour] = frozenset()  # which keys of ours shared a slot after the last cycle
    others: dict[str, list[Listed]] | None = None  # by tag, who is listed without a row
    rest: Rest | None = None  # what the last look saw, when that left nothing to do

    async def run(self) -> CycleReport:
        """
        Run one cycle and record it.

        Raises StoreError when PostgreSQL is out of reach, LeaseLost when the
        node is not ours any more. A node that does not answer is an outcome.
        """
        try:
            if self.unanswered:  # one that hangs waits for its answer beside the others, not before them
                await self.port.probe((), self.config().node.call_timeout_seconds)
            async with self.slots:
                seen = await self._see()
                looked = None if self._rests(seen) else await self._look(seen)
        except NodeError as error:
            self.unanswered = isinstance(error, NodeUnreachable)
            outcome = Outcome.UNREACHABLE if self.unanswered else Outcome.REJECTED
            report = CycleReport(outcome, error.detail)
            await self.recorder.record(self.lease, _status(report))
            return report
        self.unanswered = False
        if looked is not None:
            return await self._follow(seen, *looked)
        assert self.rest is not None, "it goes on"
        report = self.rest.report(seen)
        await self.recorder.record(self.lease, _status(report))
        return report

    async def _follow(self, seen: Seen, look: Look, read_at: float) -> CycleReport:
        """Do what was decided, and record what came of it."""
        self.rest = None
        if look.desired.state is NodeState.DISABLED:
            return CycleReport(Outcome.CONVERGED, look=look, seen=expected(look, Applied()))
        acts = look.desired.state is not NodeState.OBSERVED
        before = self.crowded
        if acts:
            applied, settlement = await self._act(look)
        else:
            applied, settlement = Applied(), settle(look.desired, look.plan, ())
        report = CycleReport(
            outcome=judge(look, applied),
            error=reason(look, applied),
            look=look,
            seen=expected(look, applied),
            applied=applied,
            counts=counts(look, settlement),
            boot_at=seen.boot_at,
            listing_seconds=seen.answers.listing_seconds,
            applied_at=look.desired.now + (self.clock() - read_at),
        )
        if acts:
            await self.recorder.record(self.lease, _status(report), settlement, look.finished(applied.done))
        else:
            await self.recorder.record(self.lease, _status(report))
        self.rest = at_rest(seen, report) if look.plan.crowded == before else None
        return report

    async def run_keys(self, key_ids: Collection[int]) -> KeyedReport | None:
        """
        Answer a bell for a few keys: the same diff, guard and steps, on their rows and promises alone.

        None when that leaves a doubt, and only a full cycle can tell. Raises
        StoreError and LeaseLost.
        """
        self.lease.remaining_seconds(self.clock())
        desired = await self.reader.keyed(self.node.node_id, key_ids)
        read_at = self.clock()
        trusted = self.trust.believes(desired.now, read_at)
        plan = self._keyed_plan(desired) if trusted else None
        if plan is None or plan.held or plan.conflicts:
            return None
        applied, settlement = await self._carry_out(desired, plan)
        applied_at = desired.now + (self.clock() - read_at)
        before = {key_id for key_ids in plan.present.values() for key_id in key_ids}
        known = sum(1 for row in desired.rows.values() if row.kept_promise is not None)
        wanted = sum(1 for row in desired.rows.values() if row.desired)
        more_active = settlement.active_users - len(before)
        await self.recorder.record_keys(self.lease, settlement, more_active, wanted - known)
        return KeyedReport(desired, plan, applied, applied_at, more_active, wanted - known)

    async def run_rows(self) -> KeyedReport | None:
        """
        Look at the rows of the whole node, and act on those that say something new, without a listing.

        None when only a full cycle can tell. Raises StoreError and LeaseLost.
        """
        self.lease.remaining_seconds(self.clock())
        telling = await self.reader.telling(self.node.node_id)
        return await self.run_keys(telling) if len(telling) <= MOST_BELIEVED else None

    def _keyed_plan(self, desired: Desired) -> Plan | None:
        acts = desired.state in (NodeState.ACTIVE, NodeState.DRAINING)
        same = desired.inbounds == self.node.inbounds and not desired.orders
        if self.others is None or not (acts and same):
            return None
        actual = believed(desired, self.others, self.owner)
        return None if actual is None else decide(desired, actual, self.owner, limits(self.config()))

    async def _see(self) -> Seen:
        """Read both sides; the rows last, so that they are never the older."""
        self.lease.remaining_seconds(self.clock())
        seen = await self._read()
        if seen.glance.inbounds != self.node.inbounds:
            self.node = replace(self.node, inbounds=seen.glance.inbounds)
            seen = await self._read()
        return seen

    async def _read(self) -> Seen:
        answers = await ask_node(self.node, self.port, self.config(), self.clock)
        glance = await self.reader.glance(self.node.node_id)
        return Seen(answers, glance, self.clock())

    def _rests(self, seen: Seen) -> bool:
        trusted = self.trust.believes(seen.glance.now, seen.read_at)
        return trusted and self.rest is not None and self.rest.goes_on(seen)

    async def _look(self, seen: Seen) -> tuple[Look, float]:
        """Look into both sides, and decide; return also the reading of our clock at the rows' `now`."""
        observation = await observe_node(self.port, seen.answers, self.config())
        desired = await read_desired(self.node, observation, self.reader, self.owner, seen.glance)
        read_at = seen.read_at if desired.now == seen.glance.now else self.clock()
        trusted = self.trust.believes(desired.now, read_at)
        look = consider(
            observation,
            desired,
            self.owner,
            self.config(),
            removals_frozen=not trusted,
            crowded=self.crowded,
        )
        self.others = observation.others(self.owner, look.plan.orphans)
        return look, read_at

    async def _act(self, look: Look) -> tuple[Applied, Settlement]:
        if look.release_orders:
            await self.recorder.rebase(self.lease, look.desired, sorted(look.released), look.release_orders)
        applied, settlement = await self._carry_out(look.desired, look.plan)
        if applied.done >= set(look.plan.steps):
            self.crowded = look.plan.crowded
        return applied, settlement

    async def _carry_out(self, desired: Desired, plan: Plan) -> tuple[Applied, Settlement]:
        """Do the steps; return what came of them, and what is left to be written about it."""
        breaches = {
            breach: sorted({step.key_id for step in plan.steps if step.breach is breach}) for breach in Breach
        }
        if any(breaches.values()):
            await self.recorder.spend(self.lease, breaches)
        settling = Settling(desired, plan)
        ledger = Ledger(settling, lambda settled: self.recorder.record_keys(self.lease, settled, 0, 0))
        try:
            applied = await apply(plan, desired.inbounds, self._means(ledger))
        except BaseException:
            await ledger.drop()
            raise
        await ledger.close()
        return applied, settle(desired, plan, applied.done, settling.settled)

    def _means(self, ledger: Ledger) -> Means:
        config = self.config()

        async def desired_again(key_ids: Sequence[int]) -> frozenset[int]:
            return await self.reader.desired_again(self.node.node_id, key_ids)

        def timeout() -> float:
            return min(config.node.call_timeout_seconds, self.lease.remaining_seconds(self.clock()))

        return Means(
            port=self.port,
            owner=self.owner,
            desired_again=desired_again,
            timeout=timeout,
            clock=self.clock,
            stopping=lambda: self.stopping() or ledger.broken or self.node.state is NodeState.OBSERVED,
            progressed=self.progressed,
            acknowledged=ledger.note,
            in_flight=config.cycle.in_flight,
            batch=config.cycle.recheck_batch,
        )


def _status(report: CycleReport) -> NodeStatus:
    return NodeStatus(report.outcome, report.counts, report.boot_at, report.error)
