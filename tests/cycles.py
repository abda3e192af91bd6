"""A plain model, without I/O, of one node's cycles, and of what can go wrong in them."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from reconciler.errors import NameMissing, NameTaken, NodeUnreachable
from reconciler.model import (
    Credential,
    Desired,
    Inbound,
    Instant,
    KeyRow,
    Listed,
    Owner,
    Standing,
    StepKind,
)
from reconciler.plan.guard import Limits, decide
from reconciler.plan.settle import Settlement, settle
from reconciler.plan.steps import Breach, Neighbour, Phase, Plan, Step
from tests.builders import HOUR, OURS, digest, limits
from tests.models import PromiseRow, Promises, UserMap


@dataclass
class Facts:
    """What the rows of one key say, whatever the time is."""

    key_id: int
    credential: Credential
    until: Instant
    standing: Standing = Standing.DESIRED


@dataclass
class Fault:
    """What goes wrong in a cycle: the call of this number fails, with or without its effect."""

    call: int
    effect: bool
    dies: bool  # the daemon with it, so that nothing more is written


class Died(Exception):
    """The daemon is gone in the middle of a cycle."""


@dataclass
class Broken:
    """A promise that was broken on the node, and when."""

    at: Instant
    row: PromiseRow
    breach: Breach


@dataclass
class World:
    """One node, its rows and its promises."""

    inbounds: tuple[Inbound, ...]
    now: Instant
    facts: dict[int, Facts] = field(default_factory=dict)
    nodes: dict[str, UserMap] = field(default_factory=dict)
    promises: Promises = field(default_factory=Promises)
    owner: Owner = OURS
    limits: Limits = field(default_factory=limits)
    purge: frozenset[int] = frozenset()
    unlisted: frozenset[str] = frozenset()
    removals_frozen: bool = False
    crowded: frozenset[Neighbour] = frozenset()  # what the daemon remembers of its last listing
    broken: list[Broken] = field(default_factory=list)
    calls: int = 0

    def __post_init__(self) -> None:
        for inbound in self.inbounds:
            self.nodes.setdefault(inbound.tag, UserMap())

    def row(self, facts: Facts) -> KeyRow:
        """Return what a snapshot says of one key."""
        ended = facts.standing is Standing.DESIRED and facts.until <= self.now
        return KeyRow(
            key_id=facts.key_id,
            credential=facts.credential,
            standing=Standing.EXPIRED if ended else facts.standing,
            until=facts.until,
            changed_at=self.now,
            digest=digest(facts.credential, self.inbounds),
            promise=self.promises.of(facts.key_id, self.now),
        )

    def desired(self) -> Desired:
        """Return a snapshot of the rows."""
        return Desired(
            now=self.now,
            inbounds=self.inbounds,
            rows={key_id: self.row(facts) for key_id, facts in self.facts.items()},
            early_spent=self.promises.spent(Breach.EARLY, self.now),
            quota_spent=self.promises.spent(Breach.OVER_QUOTA, self.now),
        )

    def actual(self) -> dict[str, tuple[Listed, ...]]:
        """Return the listing of each inbound that answers."""
        return {tag: node.listing() for tag, node in self.nodes.items() if tag not in self.unlisted}

    def decide(self, desired: Desired | None = None) -> Plan:
        """Return the plan of a cycle that begins now."""
        return decide(
            desired or self.desired(),
            self.actual(),
            self.owner,
            self.limits,
            removals_frozen=self.removals_frozen,
            purge=self.purge,
            crowded=self.crowded,
        )


@dataclass
class Report:
    """What a cycle planned, what was acknowledged, and what was written; None when it died before."""

    plan: Plan
    done: set[Step]
    settlement: Settlement | None = None

    @property
    def finished(self) -> bool:
        """Whether every step was acknowledged."""
        return self.settlement is not None and self.done >= set(self.plan.steps)


def cycle(world: World, crash_at: Fault | None = None, release: frozenset[int] = frozenset()) -> Report:
    """Run one cycle: look, decide, mark, act in phases, settle. `release` is an operator's order."""
    desired, plan = _look(world, release)
    for step in plan.steps:
        if step.breach is not None:
            world.promises.mark(step.key_id, step.breach, world.now)
    report = Report(plan, {step for step in plan.steps if step.kind is StepKind.EXTEND})
    try:
        _Hands(world, report, crash_at).carry_out(plan.steps)
    except NodeUnreachable:
        pass
    except Died:
        world.crowded = frozenset()
        return report
    report.settlement = settle(desired, plan, report.done)
    if report.finished:
        world.crowded = plan.crowded
    world.promises.settle(report.settlement)
    return report


def _look(world: World, release: frozenset[int]) -> tuple[Desired, Plan]:
    desired = world.desired()
    plan = world.decide(desired)
    for step in (*plan.steps, *plan.held):
        if step.breach is not None and step.key_id in release:
            world.promises.release(desired, step)
    if release:
        desired = world.desired()
        plan = world.decide(desired)
    return desired, plan


@dataclass
class _Hands:
    world: World
    report: Report
    fault: Fault | None
    made: int = 0

    def carry_out(self, steps: Sequence[Step]) -> None:
        lifted = [step for step in steps if step.phase is Phase.LIFT]
        freed = [step for step in steps if step.phase is Phase.FREE]
        for step in (*lifted, *freed):
            self._take_off(step)
            if step.kind is StepKind.REMOVE:
                self.report.done.add(step)
        halves = [step for step in (*lifted, *freed) if step.kind is StepKind.REPLACE]
        for step in (*halves, *(step for step in steps if step.phase is Phase.ADD)):
            self._put_on(step)
        for step in steps:
            if step.phase is Phase.REPLACE:
                self._take_off(step)
                self._put_on(step)
        for step in steps:
            if step.phase is Phase.REMOVE:
                self._take_off(step)
                self.report.done.add(step)

    def _calling(self) -> Iterator[bool]:
        """Yield whether the call takes effect, then fail as the fault says."""
        self.made += 1
        self.world.calls += 1
        if self.fault is None or self.fault.call != self.made:
            yield True
            return
        yield self.fault.effect
        if self.fault.dies:
            raise Died
        raise NodeUnreachable("model", "no answer")

    def _take_off(self, step: Step) -> None:
        name = self.world.owner.name(step.key_id)
        for effect in self._calling():
            if not effect:
                continue
            self._note_breach(step)
            with suppress(NameMissing):
                self.world.nodes[step.inbound].remove(name)

    def _put_on(self, step: Step) -> None:
        assert step.account is not None
        taken = False
        for effect in self._calling():
            if effect:
                try:
                    self.world.nodes[step.inbound].add(self.world.owner.name(step.key_id), step.account)
                except NameTaken:
                    taken = True
        if not taken:
            self.report.done.add(step)

    def _note_breach(self, step: Step) -> None:
        if step.breach is None:
            return
        row = self.world.promises.live(step.key_id)
        assert row is not None, "a broken promise is on record before it is broken"
        assert row.early is not None
        self.world.broken.append(Broken(self.world.now, row, row.early))


def broken_in_last_hour(world: World, breach: Breach) -> int:
    """Return how many promises were broken on the node within an hour and paid from that budget."""
    return len({id(it.row) for it in world.broken if it.breach is breach and it.at > world.now - HOUR})
