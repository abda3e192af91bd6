"""
Two states in, one plan out.

Removal needs a row that says so: a key with our mark and no row is an orphan
and stays. A user without our mark is never in a plan. The account is
compared, not only the name. Everything else in here is about slots: see
`Phase` for what two names with one masked UUID do to each other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

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
from reconciler.plan.steps import Breach, Conflict, Phase, Plan, Step

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
) -> Plan:
    """
    Decide what turns `actual` into `desired` on one node.

    `hold` says which steps are kept back; it is an argument, not a filter
    afterwards, because a key whose slot stays taken must then stay where it
    is. `purge` names orphans that an operator ordered off. Rows must differ
    in their slots, which the database sees to. Pure; equal states give an
    empty plan.
    """
    parts = [
        _InboundDiff(inbound, desired, actual[inbound.tag], owner, hold, purge).decide()
        for inbound in desired.inbounds
        if inbound.tag in actual
    ]
    steps = [step for part in parts for step in part.steps]
    return Plan(
        steps=tuple(sorted([*_extends(desired), *steps], key=lambda step: step.sort_key)),
        held=tuple(sorted((step for part in parts for step in part.held), key=lambda step: step.sort_key)),
        conflicts=tuple(conflict for part in parts for conflict in part.conflicts.values()),
        present={part.inbound.tag: frozenset(part.ours) for part in parts},
        orphans=frozenset(key_id for part in parts for key_id in part.orphans),
        strays=frozenset(key_id for part in parts for key_id in part.orphans if key_id in desired.rows),
        foreign=len({user.name for part in parts for user in part.foreign}),
        unlisted=tuple(inbound.tag for inbound in desired.inbounds if inbound.tag not in actual),
    )


def _extends(desired: Desired) -> Iterable[Step]:
    for row in desired.rows.values():
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
    listed: Sequence[Listed]
    owner: Owner
    hold: Hold
    purge: frozenset[int]

    ours: dict[int, Account] = field(default_factory=dict)
    foreign: list[Listed] = field(default_factory=list)
    orphans: set[int] = field(default_factory=set)
    unwanted: set[int] = field(default_factory=set)
    steps: list[Step] = field(default_factory=list)
    held: list[Step] = field(default_factory=list)
    conflicts: dict[int, Conflict] = field(default_factory=dict)

    def decide(self) -> "_InboundDiff":
        self._sort_users()
        self._find_conflicts()
        wanted = [
            row for row in self.desired.rows.values() if row.desired and row.key_id not in self.conflicts
        ]
        leaving = [step for step in self._leaving(wanted) if not self._is_held(step)]
        touched = self._touched(step.key_id for step in leaving)
        needed = self._needed(wanted, touched) if touched else {}
        self.steps += (self._phased(step, needed) for step in leaving)
        self.steps += self._reseats(wanted, needed, {step.key_id for step in leaving})
        self.steps += self._adds(wanted)
        return self

    def _sort_users(self) -> None:
        rows = self.desired.rows
        for user in self.listed:
            key_id = self.owner.key_id(user.name)
            if key_id is None:
                self.foreign.append(user)
                continue
            self.ours[key_id] = user.account
            row = rows.get(key_id)
            if row is None or row.standing is Standing.STRAY:
                self.orphans.add(key_id)
            elif not row.desired:
                self.unwanted.add(key_id)

    def _find_conflicts(self) -> None:
        """
        Find the keys that cannot be touched without hurting a user that is not ours to judge.

        A foreign user in the slot of a key: adding the key takes the slot,
        removing it empties it. A kept orphan in the slot of a key that
        leaves: the orphan would lose it. A foreign name that Xray folds to
        one of ours: whatever we call would reach that user.
        """
        taken = {user.account.credential.slot: user.name for user in self.foreign}
        folded = {user.name.lower(): user.name for user in self.foreign if not user.name.isascii()}
        kept = {
            self.ours[key_id].credential.slot: self.owner.name(key_id) for key_id in self.orphans - self.purge
        }
        if not (taken or kept):
            return
        for key_id, row in self.desired.rows.items():
            present = self.ours.get(key_id)
            in_way = folded.get(self.owner.name(key_id))
            if row.desired and in_way is None:
                in_way = taken.get(row.credential.slot)
            if present is not None and in_way is None and key_id not in self.orphans:
                in_way = self._in_way_of_leaving(row, present, taken, kept)
            if in_way is not None and (row.desired or present is not None):
                self.conflicts[key_id] = Conflict(self.inbound.tag, key_id, in_way, row.desired)
        for key_id in self.orphans & self.purge:
            in_way = taken.get(self.ours[key_id].credential.slot)
            if in_way is not None:
                self.conflicts[key_id] = Conflict(self.inbound.tag, key_id, in_way, desired=False)

    def _in_way_of_leaving(
        self, row: KeyRow, present: Account, taken: Mapping[bytes, str], kept: Mapping[bytes, str]
    ) -> str | None:
        slot = present.credential.slot
        if row.desired and present == self._account(row):
            return taken.get(slot)
        return taken.get(slot) or kept.get(slot)

    def _account(self, row: KeyRow) -> Account:
        return Account(row.credential, self.inbound.flow)

    def _leaving(self, wanted: Iterable[KeyRow]) -> Iterable[Step]:
        """Yield every step that takes a listed account off: removes, and replaces of a wrong account."""
        tag = self.inbound.tag
        for key_id in self.unwanted - self.conflicts.keys():
            row = self.desired.rows[key_id]
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

    def _is_held(self, step: Step) -> bool:
        if not self.hold.holds(step):
            return False
        self.held.append(step)
        return True

    def _touched(self, key_ids: Iterable[int]) -> set[bytes]:
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
        return Step(
            Phase.FREE,
            step.inbound,
            step.key_id,
            step.kind,
            step.cause,
            step.account,
            step.breach,
            step.drift,
        )

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
