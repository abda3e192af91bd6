"""
Plain models, without I/O, of what the daemon acts on: Xray's users, the promises table, and one cycle.

They are the reference that properties and simulations are held against, so
they are written for being read beside the real thing, not for speed.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from reconciler.errors import NameMissing, NameTaken, NodeUnreachable
from reconciler.model import (
    Account,
    Credential,
    Desired,
    Inbound,
    Instant,
    KeyRow,
    Listed,
    Owner,
    Promise,
    Standing,
    StepKind,
)
from reconciler.plan.guard import Limits, decide
from reconciler.plan.settle import Made, Settlement, settle
from reconciler.plan.steps import Breach, Neighbour, Phase, Plan, Step
from tests.builders import HOUR, OURS, digest, limits


def folded(name: str) -> str:
    """Return `name` as Xray compares it: Go folds each character by itself, and these two become ASCII."""
    return name.replace("\u0130", "i").replace("\u212a", "k").lower()


@dataclass
class UserMap:
    """
    The users of one inbound as Xray keeps them: by folded name, and by slot for the handshake.

    The last add wins a slot. Removing a name empties the slot of its
    account, whoever holds it. Listing shows the names alone.
    """

    by_name: dict[str, Listed] = field(default_factory=dict)
    slots: dict[bytes, Listed] = field(default_factory=dict)

    def add(self, name: str, account: Account) -> None:
        """Put a user on; raises NameTaken."""
        if folded(name) in self.by_name:
            raise NameTaken("model", "already exists")
        user = Listed(name, account)
        self.by_name[folded(name)] = user
        self.slots[account.credential.slot] = user

    def remove(self, name: str) -> None:
        """Take a user off; raises NameMissing."""
        user = self.by_name.pop(folded(name), None)
        if user is None:
            raise NameMissing("model", "not found")
        self.slots.pop(user.account.credential.slot, None)

    def listing(self) -> tuple[Listed, ...]:
        """Return all users, in no order that means anything."""
        return tuple(self.by_name.values())

    def opened_by(self, account: Account) -> str | None:
        """Return the name that a client with this account gets in as, None when it is refused."""
        holder = self.slots.get(account.credential.slot)
        return holder.name if holder and holder.account.flow == account.flow else None

    def shut_out(self) -> frozenset[str]:
        """Return the names that are listed, alone in a slot, and do not hold it: no listing can tell."""
        standing: dict[bytes, list[Listed]] = {}
        for user in self.by_name.values():
            standing.setdefault(user.account.credential.slot, []).append(user)
        return frozenset(
            users[0].name for slot, users in standing.items() if len(users) == 1 and slot not in self.slots
        )

    def let_in(self, name: str) -> None:
        """Give a listed name the slot of its account."""
        if (user := self.by_name.get(folded(name))) is not None:
            self.slots.setdefault(user.account.credential.slot, user)


@dataclass
class PromiseRow:
    """One row of the promises table on one node."""

    key_id: int
    digest: bytes
    until: Instant
    ended: str | None = None
    early: Breach | None = None
    early_at: Instant = 0.0

    def spent(self, now: Instant) -> bool:
        """Whether breaking it is counted in the last hour."""
        return self.early is not None and self.early_at > now - HOUR


@dataclass
class Promises:
    """The promises table of one node: at most one live row per key, ended ones are history."""

    rows: list[PromiseRow] = field(default_factory=list)

    def live(self, key_id: int) -> PromiseRow | None:
        """Return the live row of a key."""
        return next((row for row in self.rows if row.key_id == key_id and row.ended is None), None)

    def of(self, key_id: int, now: Instant) -> Promise | None:
        """Return what a snapshot says of a key: its live promise, else its newest ended one."""
        row = self.live(key_id) or next((row for row in reversed(self.rows) if row.key_id == key_id), None)
        if row is None:
            return None
        live = row.ended is None
        return Promise(row.digest, row.until, live, spent=live and row.spent(now))

    def spent(self, breach: Breach, now: Instant) -> int:
        """Return how much of a budget the last hour has used."""
        return sum(1 for row in self.rows if row.early is breach and row.spent(now))

    def mark(self, key_id: int, breach: Breach, now: Instant) -> None:
        """
        Write down, ahead of the step, that a promise is about to be broken.

        A promise that is marked already stays with the budget that paid for
        it, and its hour begins anew, because the step may come only now.
        """
        row = self.live(key_id)
        if row is None:
            row = PromiseRow(key_id, b"", float("inf"))
            self.rows.append(row)
        if not row.spent(now):
            row.early = breach
        row.early_at = now

    def settle(self, settlement: Settlement) -> None:
        """Write what a cycle has settled."""
        for made in (*settlement.made, *settlement.extended):
            self._make(made)
        for ended in settlement.ended:
            if (row := self.live(ended.key_id)) is not None:
                row.ended = ended.reason

    def _make(self, made: Made) -> None:
        row = self.live(made.key_id)
        if row is not None and row.digest == made.digest:
            row.until = max(row.until, made.until)
            return
        until = made.until
        if row is not None:
            row.ended = "replaced"
            until = max(until, row.until) if row.digest else until
        self.rows.append(PromiseRow(made.key_id, made.digest, until))

    def release(self, desired: Desired, step: Step) -> None:
        """Re-base the promise of one key to its row, as an operator ordered."""
        row = self.live(step.key_id)
        facts = desired.rows[step.key_id]
        if row is None:
            row = PromiseRow(step.key_id, facts.digest, desired.now if not facts.desired else facts.until)
            self.rows.append(row)
        if facts.desired:
            row.digest = facts.digest
        else:
            row.until = min(row.until, desired.now)


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
