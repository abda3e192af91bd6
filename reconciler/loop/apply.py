"""Carry out a plan: phase by phase, many steps in flight, each at most once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from reconciler.errors import LeaseLost, NameMissing, NodeRejected, NodeUnreachable
from reconciler.model import Inbound, Owner, StepKind
from reconciler.node.port import NodePort
from reconciler.plan.steps import Phase, Plan, Step

FRESH_SECONDS = 1.0
"""A removal is sent at most so long after its row was read again."""


@dataclass(frozen=True, slots=True)
class Means:
    """What carrying out a plan needs of the world."""

    port: NodePort
    owner: Owner
    desired_again: Callable[[Sequence[int]], Awaitable[frozenset[int]]]
    timeout: Callable[[], float]  # of the next call; raises LeaseLost when we may not act any more
    clock: Callable[[], float]
    stopping: Callable[[], bool]
    progressed: Callable[[], None]
    in_flight: int
    batch: int


@dataclass(slots=True)
class Applied:
    """What came of a plan: `done` was acknowledged by the node."""

    done: set[Step] = field(default_factory=set)
    failures: list[tuple[Step, NodeRejected]] = field(default_factory=list)
    broken: NodeUnreachable | LeaseLost | None = None

    def growth(self, tag: str) -> int:
        """Return by how many users the inbound `tag` has grown."""
        kinds = [step.kind for step in self.done if step.inbound == tag]
        return kinds.count(StepKind.ADD) - kinds.count(StepKind.REMOVE)


async def apply(plan: Plan, inbounds: Sequence[Inbound], means: Means) -> Applied:
    """
    Carry out the steps of `plan`.

    A step that the node refuses is left, the others go on. After a call
    without an answer nothing more is sent: whether it took effect is for the
    next cycle to see. Raises StoreError when rows cannot be read again.
    """
    work = _Apply({inbound.tag: inbound for inbound in inbounds}, means)
    await work.run(plan)
    return work.applied


class _Apply:
    def __init__(self, inbounds: dict[str, Inbound], means: Means) -> None:
        self._inbounds = inbounds
        self._means = means
        self.applied = Applied()

    async def run(self, plan: Plan) -> None:
        phases: dict[Phase, list[Step]] = {phase: [] for phase in Phase}
        for step in plan.steps:
            phases[step.phase].append(step)
        self.applied.done.update(phases[Phase.EXTEND])
        seats = await self._clear(phases[Phase.LIFT], phases[Phase.FREE])
        await self._each([*seats, *phases[Phase.ADD]], self._put_on)
        await self._each(phases[Phase.REPLACE], self._swap)
        await self._remove(phases[Phase.REMOVE])

    async def _clear(self, lifts: list[Step], frees: list[Step]) -> list[Step]:
        """Empty the slots that desired keys need; return the steps whose key is now to be put on."""
        lifted = await self._each(lifts, self._take_off)
        stuck = {step.inbound for step, _ in self.applied.failures}
        frees = [step for step in frees if step.inbound not in stuck]
        replaced = await self._each([step for step in frees if step.kind is StepKind.REPLACE], self._take_off)
        await self._remove([step for step in frees if step.kind is StepKind.REMOVE])
        return [*lifted, *replaced]

    async def _remove(self, steps: list[Step]) -> None:
        """Take off, in batches, the keys whose rows still say so."""
        size = self._means.batch
        for batch in (steps[start : start + size] for start in range(0, len(steps), size)):
            if self._is_over():
                return
            read_at = self._means.clock()
            wanted = await self._means.desired_again([step.key_id for step in batch])
            stale_at = read_at + FRESH_SECONDS
            due = [step for step in batch if step.key_id not in wanted]
            removed = await self._each(due, self._take_off, until=stale_at)
            self.applied.done.update(removed)

    async def _each(
        self,
        steps: Iterable[Step],
        act: Callable[[Step], Awaitable[None]],
        until: float = float("inf"),
    ) -> list[Step]:
        """Do `act` for all steps, many at once; return those that the node acknowledged."""
        steps = list(steps)
        todo = iter(steps)
        good: list[Step] = []

        async def work() -> None:
            for step in todo:
                if self._is_over() or self._means.clock() > until:
                    return
                try:
                    await act(step)
                except (NodeUnreachable, LeaseLost) as error:
                    self.applied.broken = error
                except NodeRejected as error:
                    self.applied.failures.append((step, error))
                else:
                    good.append(step)
                self._means.progressed()

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._means.in_flight, len(steps))):
                group.create_task(work())
        return good

    def _is_over(self) -> bool:
        return self.applied.broken is not None or self._means.stopping()

    async def _take_off(self, step: Step) -> None:
        name = self._means.owner.name(step.key_id)
        with suppress(NameMissing):  # which is what was wanted
            await self._means.port.remove(self._inbounds[step.inbound], name, self._means.timeout())

    async def _put_on(self, step: Step) -> None:
        name = self._means.owner.name(step.key_id)
        assert step.account is not None, "adds and replaces carry the account"
        await self._means.port.add(self._inbounds[step.inbound], name, step.account, self._means.timeout())
        self.applied.done.add(step)

    async def _swap(self, step: Step) -> None:
        await self._take_off(step)
        await self._put_on(step)
