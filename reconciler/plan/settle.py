"""
What the promises must say once steps have been carried out.

Observation counts as much as our own steps: a key found in its place is
promised, and a promise whose key is found gone is ended, so whatever a crash
left unwritten is mended by the next cycle.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from reconciler.model import Desired, Instant, KeyRow, StepKind
from reconciler.plan.rows import telling
from reconciler.plan.steps import Plan, Step


@dataclass(frozen=True, slots=True)
class Made:
    """A promise to make, or to carry on with a new account."""

    key_id: int
    digest: bytes
    until: Instant


@dataclass(frozen=True, slots=True)
class Ended:
    """A promise to end."""

    key_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Settlement:
    """The promises to write, and how many of our keys the node holds now."""

    made: tuple[Made, ...]
    extended: tuple[Made, ...]
    ended: tuple[Ended, ...]
    active_users: int


def settle(
    desired: Desired, plan: Plan, done: Collection[Step], settled: Collection[int] = frozenset()
) -> Settlement:
    """
    Return what to write after the steps in `done` have been acknowledged.

    A promise exists only when the key stands on every inbound of the node
    with its account, so nothing is made or ended while one could not be
    listed. Keys in `settled` have been written already.
    """
    finished = set(done)
    undone = {step.key_id for step in plan.steps if step not in finished and step.kind is not StepKind.EXTEND}
    blocked = undone | _kept_back(plan) | frozenset(settled)
    rows, complete = telling(desired.rows), _is_complete(desired, plan)
    return Settlement(
        made=tuple(_made(rows, blocked)) if complete else (),
        extended=tuple(_extended(desired, finished)),
        ended=tuple(_ended(rows, plan, _removals(plan), blocked)) if complete else (),
        active_users=_active_users(plan, finished),
    )


class Settling:
    """
    Tells, while the steps of a plan are being acknowledged, which promises can be written already.

    A key is settled with the last of its steps. What is left afterwards is
    for `settle`, which is given the keys in `settled`.
    """

    def __init__(self, desired: Desired, plan: Plan) -> None:
        self._desired = desired
        self._plan = plan
        self._left = Counter(step.key_id for step in plan.steps if step.kind is not StepKind.EXTEND)
        self._blocked = _kept_back(plan)
        self._removals = _removals(plan)
        self._complete = _is_complete(desired, plan)
        self._ready: list[int] = []
        self.settled: set[int] = set()

    @property
    def ready(self) -> int:
        """How many keys have been settled since the last `take`."""
        return len(self._ready)

    def done(self, step: Step) -> None:
        """Take in that a step was acknowledged."""
        self._left[step.key_id] -= 1
        if self._left[step.key_id] == 0 and self._complete:
            self._ready.append(step.key_id)

    def take(self) -> Settlement:
        """Return what can be written, once; `active_users` are not counted yet."""
        key_ids, self._ready = sorted(self._ready), []
        rows = [self._desired.rows[key_id] for key_id in key_ids if key_id in self._desired.rows]
        self.settled.update(key_ids)
        return Settlement(
            made=tuple(_made(rows, self._blocked)),
            extended=(),
            ended=tuple(_ended(rows, self._plan, self._removals, self._blocked)),
            active_users=0,
        )


def _kept_back(plan: Plan) -> frozenset[int]:
    return plan.held_keys | {conflict.key_id for conflict in plan.conflicts}


def _is_complete(desired: Desired, plan: Plan) -> bool:
    return bool(desired.inbounds) and not plan.unlisted


def _removals(plan: Plan) -> dict[int, str]:
    """Return why each key is removed that is."""
    return {step.key_id: step.cause for step in plan.steps if step.kind is StepKind.REMOVE}


def _made(rows: Iterable[KeyRow], blocked: Collection[int]) -> list[Made]:
    return [
        Made(row.key_id, row.digest, row.until)
        for row in rows
        if row.desired and row.key_id not in blocked and row.kept_promise is None
    ]


def _extended(desired: Desired, finished: Collection[Step]) -> list[Made]:
    return [
        Made(step.key_id, desired.rows[step.key_id].digest, step.until)
        for step in finished
        if step.kind is StepKind.EXTEND and step.until is not None
    ]


def _ended(
    rows: Iterable[KeyRow], plan: Plan, removed: Mapping[int, str], blocked: Collection[int]
) -> list[Ended]:
    """End what is owed to keys that are neither desired nor on the node."""
    ended = []
    for row in rows:
        key_id = row.key_id
        if row.desired or key_id in blocked or key_id in plan.orphans:
            continue
        if key_id in removed or (row.promise is not None and row.promise.live):
            ended.append(Ended(key_id, removed.get(key_id, row.standing)))
    return ended


def _active_users(plan: Plan, finished: Collection[Step]) -> int:
    """Count our keys on the node: as listed, with each acknowledged step followed."""
    on_node: set[int] = set()
    for tag, key_ids in plan.present.items():
        steps = [step for step in finished if step.inbound == tag]
        removed = {step.key_id for step in steps if step.kind is StepKind.REMOVE}
        on_node |= key_ids - removed if removed else key_ids
        on_node |= {step.key_id for step in steps if step.kind is StepKind.ADD}
    return len(on_node)
