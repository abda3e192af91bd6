"""
What the promises must say once steps have been carried out.

Observation counts as much as our own steps: a key found in its place is
promised, and a promise whose key is found gone is ended, so whatever a crash
left unwritten is mended by the next cycle.
"""

from collections.abc import Collection
from dataclasses import dataclass

from reconciler.model import Desired, Instant, StepKind
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


def settle(desired: Desired, plan: Plan, done: Collection[Step]) -> Settlement:
    """
    Return what to write after the steps in `done` have been acknowledged.

    A promise exists only when the key stands on every inbound of the node
    with its account, so nothing is made or ended while one could not be
    listed.
    """
    finished = set(done)
    undone = {step.key_id for step in plan.steps if step not in finished and step.kind is not StepKind.EXTEND}
    blocked = undone | plan.held_keys | {conflict.key_id for conflict in plan.conflicts}
    complete = bool(desired.inbounds) and not plan.unlisted
    return Settlement(
        made=tuple(_made(desired, blocked)) if complete else (),
        extended=tuple(_extended(desired, finished)),
        ended=tuple(_ended(desired, plan, blocked)) if complete else (),
        active_users=_active_users(plan, finished),
    )


def _made(desired: Desired, blocked: Collection[int]) -> list[Made]:
    return [
        Made(row.key_id, row.digest, row.until)
        for row in telling(desired.rows)
        if row.desired and row.key_id not in blocked and row.kept_promise is None
    ]


def _extended(desired: Desired, finished: Collection[Step]) -> list[Made]:
    return [
        Made(step.key_id, desired.rows[step.key_id].digest, step.until)
        for step in finished
        if step.kind is StepKind.EXTEND and step.until is not None
    ]


def _ended(desired: Desired, plan: Plan, blocked: Collection[int]) -> list[Ended]:
    """End what is owed to keys that are neither desired nor on the node."""
    removed = {step.key_id: step.cause for step in plan.steps if step.kind is StepKind.REMOVE}
    ended = []
    for row in telling(desired.rows):
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
