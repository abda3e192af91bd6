"""
One cycle: observe → diff → guard → apply → record.

Whatever breaks off, wherever, the next cycle starts from what the node and
the rows say then, and mends it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from reconciler.config import Config
from reconciler.desired.reader import DesiredReader
from reconciler.errors import LeaseLost, NodeUnreachable
from reconciler.loop.apply import Applied, Means, apply
from reconciler.loop.look import Look, consider, observe_node, read_desired
from reconciler.loop.observe import Observation
from reconciler.model import Desired, Instant, Node, NodeState, Outcome, Owner, StepKind
from reconciler.node.port import NodePort
from reconciler.plan.clock import ClockWatch
from reconciler.plan.settle import Settlement, settle
from reconciler.plan.steps import Breach, Neighbour
from reconciler.status.lease import Lease
from reconciler.status.recorder import Counts, NodeStatus, Recorder


@dataclass(frozen=True, slots=True)
class CycleReport:
    """What a cycle saw, did and left; `look` is None when it got no answer."""

    outcome: Outcome
    error: str | None = None
    look: Look | None = None
    applied: Applied = field(default_factory=Applied)
    counts: Counts | None = None
    boot_at: Instant | None = None
    applied_at: Instant = 0.0

    @property
    def removals_frozen(self) -> bool:
        """Whether the database's clock was not believed."""
        return self.look is not None and self.look.removals_frozen

    @property
    def expected_users(self) -> dict[str, int]:
        """How many users each inbound must have now, ours and foreign."""
        if self.look is None:
            return {}
        seen = self.look.observation
        users = dict(seen.probe.users) | {tag: len(listed) for tag, listed in seen.actual.items()}
        for step in self.applied.done:
            if step.kind in (StepKind.ADD, StepKind.REMOVE):
                users[step.inbound] += 1 if step.kind is StepKind.ADD else -1
        return users


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
    watch: ClockWatch
    crowded: frozenset[Neighbour] = frozenset()  # which keys of ours shared a slot after the last cycle

    async def run(self) -> CycleReport:
        """
        Run one cycle and record it.

        Raises StoreError when PostgreSQL is out of reach, LeaseLost when the
        node is not ours any more. A node that does not answer is an outcome.
        """
        try:
            look, read_at = await self._look()
        except NodeUnreachable as error:
            report = CycleReport(Outcome.UNREACHABLE, error.detail)
            await self.recorder.record(self.lease, NodeStatus(report.outcome, error=report.error))
            return report
        if look.desired.state is NodeState.DISABLED:
            return CycleReport(Outcome.CONVERGED, look=look)
        acts = look.desired.state is not NodeState.OBSERVED
        applied = await self._act(look) if acts else Applied()
        settlement = settle(look.desired, look.plan, applied.done)
        probed_at = look.desired.now - (read_at - look.observation.probed_at)
        report = CycleReport(
            outcome=_outcome(look, applied),
            error=_error(look, applied),
            look=look,
            applied=applied,
            counts=_counts(look, settlement),
            boot_at=probed_at - look.observation.probe.uptime_seconds,
            applied_at=look.desired.now + (self.clock() - read_at),
        )
        status = NodeStatus(report.outcome, report.counts, report.boot_at, report.error)
        removed = {step.key_id for step in applied.done if step.kind is StepKind.REMOVE}
        if acts:
            await self.recorder.record(self.lease, status, settlement, look.purged(removed))
        else:
            await self.recorder.record(self.lease, status)
        return report

    async def _look(self) -> tuple[Look, float]:
        """Look at the node and its rows; return also the reading of our clock at the rows' `now`."""
        self.lease.remaining_seconds(self.clock())
        observation, desired = await self._read()
        if desired.inbounds != self.node.inbounds:
            self.node = replace(self.node, inbounds=desired.inbounds)
            observation, desired = await self._read()
        read_at = self.clock()
        self.watch, believed = self.watch.read(desired.now, read_at)
        look = consider(
            observation,
            desired,
            self.owner,
            self.config(),
            removals_frozen=not believed,
            crowded=self.crowded,
        )
        return look, read_at

    async def _read(self) -> tuple[Observation, Desired]:
        observation = await observe_node(self.node, self.port, self.config(), self.clock)
        return observation, await read_desired(self.node, observation, self.reader, self.owner)

    async def _act(self, look: Look) -> Applied:
        if look.release_orders:
            await self.recorder.rebase(self.lease, look.desired, sorted(look.released), look.release_orders)
        breaches = {
            breach: sorted({step.key_id for step in look.plan.steps if step.breach is breach})
            for breach in Breach
        }
        if any(breaches.values()):
            await self.recorder.spend(self.lease, breaches)
        applied = await apply(look.plan, look.desired.inbounds, self._means())
        if applied.done >= set(look.plan.steps):
            self.crowded = look.plan.crowded
        return applied

    def _means(self) -> Means:
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
            stopping=self.stopping,
            progressed=self.progressed,
            in_flight=config.cycle.in_flight,
            batch=config.cycle.recheck_batch,
        )


def _counts(look: Look, settlement: Settlement) -> Counts:
    plan = look.plan
    return Counts(
        active=settlement.active_users,
        desired=sum(1 for row in look.desired.rows.values() if row.desired),
        foreign=plan.foreign,
        orphans=len(plan.orphans),
        held=len({step.key_id for step in plan.held if step.kind is StepKind.REMOVE}),
    )


def _outcome(look: Look, applied: Applied) -> Outcome:
    plan = look.plan
    if isinstance(applied.broken, LeaseLost):
        return Outcome.FAILED
    if applied.broken is not None:
        return Outcome.UNREACHABLE
    refused = plan.unlisted or applied.failures or not look.desired.inbounds
    if refused or any(conflict.desired for conflict in plan.conflicts):
        return Outcome.REJECTED
    if plan.held or any(step not in applied.done for step in plan.steps):
        return Outcome.HELD
    return Outcome.CHANGED if applied.done else Outcome.CONVERGED


def _error(look: Look, applied: Applied) -> str | None:
    """Return the reason that an operator can act on, without any credential; None when all is well."""
    if applied.broken is not None:
        return str(applied.broken)
    if not look.desired.inbounds:
        return "the node has no inbound"
    for tag in look.plan.unlisted:
        return f"inbound {tag!r}: {look.observation.refusals.get(tag, 'not listed yet')}"
    for step, failure in applied.failures:
        return f"inbound {step.inbound!r}: {failure.detail}"
    for conflict in look.plan.conflicts:
        if conflict.desired:
            return (
                f"inbound {conflict.inbound!r}: key {conflict.key_id} shares its UUID with {conflict.name!r}"
            )
    return None
