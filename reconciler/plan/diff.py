"""
Two states in, one plan out.

Removal needs a row that says so: a key with our mark and no row is an orphan
and stays. A user without our mark is never in a plan. The account is
compared, not only the name. Everything else in here is about slots: see
`Phase` for what two names with one masked UUID do to each other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from reconciler.model import (
    Account,
    Desired,
    Inbound,
    Instant,
    KeyRow,
    Listed,
    Owner,
    Standing,
    StepKind,
)
from reconciler.plan.aside import in_question
from reconciler.plan.rows import telling
from reconciler.plan.slots import Crowd
from reconciler.plan.steps import Breach, Conflict, Neighbour, Phase, Plan, Step
from reconciler.plan.users import Apart, Users

Actual = Mapping[str, Sequence[Listed]]
"""The users of each inbound that could be listed, by tag."""

ORDERED = "ordered"
RESEATED = "reseated"  # right, but its slot is freed by another step, so it goes in anew


@dataclass(frozen=True, slots=True)
class Hold:
    """What the guard does not let through."""

    breaches: frozenset[Breach] = frozenset()
    removals: bool = False  # all of them, and every step that breaks a promise: nobody knows what time it is

    def holds(self, step: Step) -> bool:
        """Whether `step` is to stay undone."""
        if self.removals and (step.kind is StepKind.REMOVE or step.breach is not None):
            return True
        return step.breach in self.breaches


NOTHING_HELD = Hold()


def diff(
    desired: Desired,
    actual: Actual,
    owner: Owner,
    hold: Hold = NOTHING_HELD,
    purge: frozenset[int] = frozenset(),
    crowded: frozenset[Neighbour] | None = None,
) -> Plan:
    """
    Decide what turns `actual` into `desired` on one node.

    `hold` says which steps are kept back; it is an argument, not a filter
    afterwards, because a key whose slot stays taken must then stay where it
    is. `purge` names orphans that an operator ordered off. `crowded` is what
    the last plan that was carried out said of itself, None for a look that
    remembers nothing. Rows must differ in their slots, which the database
    sees to. Pure; equal states give an empty plan.
    """
    parts = [
        _InboundDiff(inbound, desired, Users.of(actual[inbound.tag]).apart(owner), owner, hold, purge).decide(
            crowded
        )
        for inbound in desired.inbounds
        if inbound.tag in actual
    ]
    steps = [step for part in parts for step in part.steps]
    unseen = (it for it in crowded or () if it.inbound not in actual)
    return Plan(
        steps=tuple(sorted([*_extends(desired), *steps], key=lambda step: step.sort_key)),
        held=tuple(sorted((step for part in parts for step in part.held), key=lambda step: step.sort_key)),
        conflicts=tuple(part.conflicts[key_id] for part in parts for key_id in sorted(part.conflicts)),
        present={part.inbound.tag: frozenset(part.users.credentials) for part in parts},
        orphans=frozenset(key_id for part in parts for key_id in part.orphans),
        strays=frozenset(key_id for part in parts for key_id in part.orphans if key_id in desired.rows),
        foreign=len({user.name for part in parts for user in part.users.foreign}),
        unlisted=tuple(inbound.tag for inbound in desired.inbounds if inbound.tag not in actual),
        crowded=frozenset().union(unseen, *(part.crowded for part in parts)),
    )


def _extends(desired: Desired) -> Iterable[Step]:
    for row in telling(desired.rows):
        promise = row.promise
        if (
            row.desired
            and promise
            and promise.live
            and promise.digest == row.digest
            and promise.until < row.until
        ):
            yield Step(Phase.EXTEND, "", row.key_id, StepKind.EXTEND, Standing.DESIRED, until=row.until)


def removal_breach(row: KeyRow, now: Instant) -> Breach | None:
    """Return the budget that removing the key of `row` is taken from; None when the removal is routine."""
    promise = row.promise
    if row.standing is Standing.MOVED:
        return None
    if promise is not None and (not promise.live or promise.until <= now):
        return None
    return Breach.OVER_QUOTA if row.standing is Standing.OVER_QUOTA else Breach.EARLY


def replace_breach(row: KeyRow) -> Breach | None:
    """Return the budget of giving `row` its account; None when that is what was promised, or nothing was."""
    promise = row.promise
    if promise is not None and (not promise.live or promise.digest == row.digest):
        return None
    return Breach.EARLY


@dataclass(slots=True)
class _InboundDiff:
    """The same for one inbound; its fields fill in the order of `decide`."""

    inbound: Inbound
    desired: Desired
    users: Apart
    owner: Owner
    hold: Hold
    purge: frozenset[int]

    rows: Mapping[int, KeyRow] = field(default_factory=dict)
    ours: dict[int, Account] = field(default_factory=dict)
    orphans: set[int] = field(default_factory=set)
    unwanted: set[int] = field(default_factory=set)
    steps: list[Step] = field(default_factory=list)
    held: list[Step] = field(default_factory=list)
    conflicts: dict[int, Conflict] = field(default_factory=dict)
    crowded: set[Neighbour] = field(default_factory=set)

    def decide(self, crowded: frozenset[Neighbour] | None) -> "_InboundDiff":
        before = {it for it in crowded or () if it.inbound == self.inbound.tag}
        self._sort_users(before)
        crowd = Crowd(
            self.inbound,
            self.owner,
            self.ours,
            self.users.foreign,
            frozenset(self.orphans - self.purge),
            frozenset(self.orphans & self.purge),
        )
        self.conflicts = crowd.conflicts(self.rows.values())
        wanted = [row for row in self.rows.values() if row.desired and row.key_id not in self.conflicts]
        leaving = self._free_to_leave(list(self._leaving(wanted)))
        touched = self._slots(step.key_id for step in leaving)
        touched |= self._slots(self._doubtful(crowd, wanted, before, remembers=crowded is not None))
        needed = self._needed(wanted, touched) if touched else {}
        self.steps += (self._phased(step, needed) for step in leaving)
        self.steps += self._reseats(wanted, needed, {step.key_id for step in leaving})
        self.steps += self._adds(wanted)
        return self

    def _sort_users(self, before: Iterable[Neighbour]) -> None:
        remembered = {it.key_id for it in before}
        question = in_question(self.inbound, self.desired.rows, self.users, remembered)
        self.rows, self.ours = question.rows, question.ours
        for key_id in self.ours:
            row = self.rows.get(key_id)
            if row is None or row.standing is Standing.STRAY:
                self.orphans.add(key_id)
            elif not row.desired:
                self.unwanted.add(key_id)

    def _account(self, row: KeyRow) -> Account:
        return Account(row.credential, self.inbound.flow)

    def _leaving(self, wanted: Iterable[KeyRow]) -> Iterable[Step]:
        """Yield every step that takes a listed account off: removes, and replaces of a wrong account."""
        tag = self.inbound.tag
        for key_id in self.unwanted - self.conflicts.keys():
            row = self.rows[key_id]
            breach = removal_breach(row, self.desired.now)
            yield Step(Phase.REMOVE, tag, key_id, StepKind.REMOVE, row.standing, breach=breach)
        for key_id in (self.orphans & self.purge) - self.conflicts.keys():
            yield Step(Phase.REMOVE, tag, key_id, StepKind.REMOVE, ORDERED)
        for row in wanted:
            present = self.ours.get(row.key_id)
            if present is not None and present != (account := self._account(row)):
                breach, drift = replace_breach(row), row.kept_promise is not None
                yield Step(
                    Phase.REPLACE, tag, row.key_id, StepKind.REPLACE, row.standing, account, breach, drift
                )

    def _free_to_leave(self, steps: Sequence[Step]) -> list[Step]:
        """
        Keep back what is held, and what would empty a slot in which one of ours stays.

        Whoever stays with an account that is not right any more would lose
        its door unseen, around the guard, and for good once its row is
        corrected.
        """
        stuck = self._slots(key_id for key_id in self.conflicts if key_id in self.ours)
        stuck |= self._slots(step.key_id for step in steps if self.hold.holds(step))
        leaving: list[Step] = []
        for step in steps:
            stays = self.hold.holds(step) or self.ours[step.key_id].credential.slot in stuck
            (self.held if stays else leaving).append(step)
        return leaving

    def _doubtful(
        self, crowd: Crowd, wanted: Sequence[KeyRow], before: set[Neighbour], *, remembers: bool
    ) -> set[int]:
        """Fill `crowded`; return the keys that may have lost their slot since, and can be put in anew."""
        held = {step.key_id for step in self.held}
        stayers = crowd.kept | held | (self.conflicts.keys() & self.ours.keys() - self._right())
        if not (self.users.foreign or stayers or before):
            return set()
        waiting = stayers | self.conflicts.keys()
        after = self.ours | {row.key_id: self._account(row) for row in wanted if row.key_id not in held}
        self.crowded = set(crowd.neighbours(after, stayers, waiting))
        changed = {it for it in before ^ self.crowded if it.key_id in after}
        self.crowded |= {it._replace(waiting=True) for it in changed if it.key_id in waiting}
        if not remembers:
            return set()
        return {it.key_id for it in changed if it.key_id in self.ours and it.key_id not in waiting}

    def _right(self) -> set[int]:
        """Return the keys in conflict that stand where they belong all the same."""
        rows = (self.rows.get(key_id) for key_id in self.conflicts)
        return {
            row.key_id
            for row in rows
            if row and row.desired and self.ours.get(row.key_id) == self._account(row)
        }

    def _slots(self, key_ids: Iterable[int]) -> set[bytes]:
        return {self.ours[key_id].credential.slot for key_id in key_ids}

    def _needed(self, wanted: Iterable[KeyRow], touched: set[bytes]) -> dict[bytes, set[int]]:
        """Return, for each slot that will be emptied, the keys that are to stand in it."""
        needed: dict[bytes, set[int]] = {}
        for row in wanted:
            if (slot := row.credential.slot) in touched:
                needed.setdefault(slot, set()).add(row.key_id)
        return needed

    def _phased(self, step: Step, needed: Mapping[bytes, set[int]]) -> Step:
        slot = self.ours[step.key_id].credential.slot
        if needed.get(slot, set()) <= {step.key_id}:
            return step
        return replace(step, phase=Phase.FREE)

    def _reseats(
        self, wanted: Iterable[KeyRow], needed: Mapping[bytes, set[int]], leaving: set[int]
    ) -> Iterable[Step]:
        if not needed:
            return
        for row in wanted:
            if row.credential.slot in needed and row.key_id in self.ours and row.key_id not in leaving:
                account = self._account(row)
                if self.ours[row.key_id] == account:
                    tag = self.inbound.tag
                    yield Step(Phase.LIFT, tag, row.key_id, StepKind.REPLACE, RESEATED, account)

    def _adds(self, wanted: Iterable[KeyRow]) -> Iterable[Step]:
        for row in wanted:
            if row.key_id not in self.ours:
                account, drift = self._account(row), row.kept_promise is not None
                yield Step(
                    Phase.ADD,
                    self.inbound.tag,
                    row.key_id,
                    StepKind.ADD,
                    row.standing,
                    account,
                    drift=drift,
                )
