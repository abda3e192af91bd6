"""Carry out a plan: phase by phase, as many steps at once as the node bears, each at most once."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from reconciler.errors import LeaseLost, NameMissing, NodeRejected, NodeUnreachable
from reconciler.model import Inbound, Owner, StepKind
from reconciler.node.port import NodePort
from reconciler.plan.steps import Phase, Plan, Step
from reconciler.plan.window import Window

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
    acknowledged: Callable[[Step], None]  # by the node, as soon as it has been
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


@dataclass(frozen=True, slots=True)
class _Batch:
    """Removals whose rows have just been read again."""

    due: deque[Step]
    size: int  # at first
    stale_at: float


class _Apply:
    def __init__(self, inbounds: dict[str, Inbound], means: Means) -> None:
        self._inbounds = inbounds
        self._means = means
        self._window = Window(means.in_flight)
        self.applied = Applied()

    async def run(self, plan: Plan) -> None:
        phases: dict[Phase, list[Step]] = {phase: [] for phase in Phase}
        for step in plan.steps:
            phases[step.phase].append(step)
        self.applied.done.update(phases[Phase.EXTEND])
        seats = await self._clear(phases[Phase.LIFT], phases[Phase.FREE])
        await self._each(deque([*seats, *phases[Phase.ADD]]), self._put_on)
        await self._each(deque(phases[Phase.REPLACE]), self._swap)
        await self._remove(phases[Phase.REMOVE])

    async def _clear(self, lifts: list[Step], frees: list[Step]) -> list[Step]:
        """Empty the slots that desired keys need; return the steps whose key is now to be put on."""
        lifted = await self._each(deque(lifts), self._take_off)
        stuck = {step.inbound for step, _ in self.applied.failures}
        frees = [step for step in frees if step.inbound not in stuck]
        replacing = deque(step for step in frees if step.kind is StepKind.REPLACE)
        replaced = await self._each(replacing, self._take_off)
        await self._remove([step for step in frees if step.kind is StepKind.REMOVE])
        return [*lifted, *replaced]

    async def _remove(self, steps: list[Step]) -> None:
        """
        Take off, in batches, the keys whose rows still say so.

        While one batch is sent, the next one is checked, as long as that is
        quick enough for the check to be fresh when its turn comes.
        """
        todo = deque(steps)
        ahead: asyncio.Task[_Batch] | None = None
        quick = True
        try:
            while (todo or ahead) and not self._is_over():
                fresh = ahead is None
                batch = await (ahead or self._check(todo))
                ahead = asyncio.create_task(self._check(todo)) if todo and quick else None
                began = self._means.clock()
                for step in await self._each(batch.due, self._take_off, until=batch.stale_at):
                    self._acknowledged(step)
                if fresh and len(batch.due) == batch.size > 0:
                    return  # stale as soon as it is read: no time to take anybody off
                quick = not batch.due and self._means.clock() - began < FRESH_SECONDS / 4
                todo.extendleft(reversed(batch.due))
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)

    async def _check(self, todo: deque[Step]) -> "_Batch":
        """Take the next batch of `todo`, and read its rows again."""
        steps = [todo.popleft() for _ in range(min(self._means.batch, len(todo)))]
        stale_at = self._means.clock() + FRESH_SECONDS
        wanted = await self._means.desired_again([step.key_id for step in steps])
        due = deque(step for step in steps if step.key_id not in wanted)
        return _Batch(due, len(due), stale_at)

    async def _each(
        self, todo: deque[Step], act: Callable[[Step], Awaitable[None]], until: float = float("inf")
    ) -> list[Step]:
        """
        Do `act` for the steps of `todo`, many at once; return those that the node acknowledged.

        What is left in `todo` afterwards was not begun, because it was over, or too late.
        """
        good: list[Step] = []
        workers = 0

        async def work() -> None:
            nonlocal workers
            while todo and not self._is_over() and self._means.clock() <= until:
                step = todo.popleft()
                if await self._try(step, act):
                    good.append(step)
                if workers > self._window.limit:
                    break
                fill()
            workers -= 1

        def fill() -> None:
            nonlocal workers
            while workers < min(self._window.limit, workers + len(todo)):
                workers += 1
                group.create_task(work())

        async with asyncio.TaskGroup() as group:
            fill()
        return good

    async def _try(self, step: Step, act: Callable[[Step], Awaitable[None]]) -> bool:
        """Do `act` for one step; whether the node acknowledged it."""
        try:
            await act(step)
        except (NodeUnreachable, LeaseLost) as error:
            self.applied.broken = error
        except NodeRejected as error:
            self.applied.failures.append((step, error))
        else:
            return True
        finally:
            self._means.progressed()
        return False

    def _is_over(self) -> bool:
        return self.applied.broken is not None or self._means.stopping()

    async def _take_off(self, step: Step) -> None:
        name = self._means.owner.name(step.key_id)
        timeout = self._means.timeout()
        sent_at = self._means.clock()
        with suppress(NameMissing):  # which is what was wanted
            await self._means.port.remove(self._inbounds[step.inbound], name, timeout)
        self._answered(sent_at)

    async def _put_on(self, step: Step) -> None:
        assert step.account is not None, "adds and replaces carry the account"
        name = self._means.owner.name(step.key_id)
        timeout = self._means.timeout()
        sent_at = self._means.clock()
        await self._means.port.add(self._inbounds[step.inbound], name, step.account, timeout)
        self._answered(sent_at)
        self._acknowledged(step)

    def _acknowledged(self, step: Step) -> None:
        self.applied.done.add(step)
        self._means.acknowledged(step)

    async def _swap(self, step: Step) -> None:
        await self._take_off(step)
        await self._put_on(step)

    def _answered(self, sent_at: float) -> None:
        now = self._means.clock()
        self._window.answered(now - sent_at, now)
