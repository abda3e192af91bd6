"""Carrying out a plan, on a node that answers one call at a time and on a clock that the test turns."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from reconciler.errors import NameTaken, NodeUnreachable, StoreUnavailable
from reconciler.loop.apply import FRESH_SECONDS, Applied, Means, apply
from reconciler.model import Account, Inbound, Owner, Probe, Standing, Vitals
from reconciler.node.port import Listing
from reconciler.plan.counting import Counts
from reconciler.plan.diff import diff
from reconciler.plan.steps import Plan, Step
from reconciler.plan.window import FIRST
from tests.builders import NOW, OURS, VLESS, actual, desired, kept, key, listed

CEILING = 64


@dataclass
class Stage:
    """
    The node, the rows and the clock.

    `step_seconds` go by for each call, one call after the other; `read_seconds` for each look at rows.
    """

    step_seconds: float = 0.0001
    read_seconds: float = 0.0
    batch: int = 50
    now: float = 0.0
    stopped: bool = False
    wanted: frozenset[int] = frozenset()  # what the rows say when they are read again
    faults: dict[int, Exception] = field(default_factory=dict)  # by key, what its call meets
    read_fault: tuple[int, Exception] | None = None  # of which look, and what it meets
    sent: list[int] = field(default_factory=list)
    accounts: dict[str, Account] = field(default_factory=dict)
    looks: list[float] = field(default_factory=list)
    looked: dict[int, float] = field(default_factory=dict)  # by key, when its rows were read again
    ages: list[float] = field(default_factory=list)  # of its look, when a removal was sent
    under_way: deque[asyncio.Future[None]] = field(default_factory=deque)
    widths: list[int] = field(default_factory=list)
    acknowledged: list[Step] = field(default_factory=list)

    async def add(self, inbound: Inbound, name: str, account: Account, timeout_seconds: float) -> None:
        self.accounts[name] = account
        await self._call(inbound, name, timeout_seconds)

    async def remove(self, inbound: Inbound, name: str, timeout_seconds: float) -> None:
        key_id = OURS.key_id(name)
        if key_id in self.looked:
            self.ages.append(self.now - self.looked[key_id])
        await self._call(inbound, name, timeout_seconds)

    async def probe(self, inbounds: Sequence[Inbound], timeout_seconds: float) -> Probe:
        raise NotImplementedError

    async def listing(self, inbound: Inbound, timeout_seconds: float) -> Listing:
        raise NotImplementedError

    async def vitals(self, timeout_seconds: float) -> Vitals:
        raise NotImplementedError

    async def counters(self, owner: Owner, timeout_seconds: float) -> Counts:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    async def desired_again(self, key_ids: Sequence[int]) -> frozenset[int]:
        begun = self.now
        self.looks.append(begun)
        self.looked |= dict.fromkeys(key_ids, begun)
        if self.read_fault is not None and self.read_fault[0] == len(self.looks):
            raise self.read_fault[1]
        while self.now < begun + self.read_seconds:
            await asyncio.sleep(0)
        return self.wanted & frozenset(key_ids)

    async def carry_out(self, plan: Plan) -> Applied:
        """Apply `plan` while the clock goes on."""
        means = Means(
            port=self,
            owner=OURS,
            desired_again=self.desired_again,
            timeout=lambda: 2.0,
            clock=lambda: self.now,
            stopping=lambda: self.stopped,
            progressed=lambda: None,
            acknowledged=self.acknowledged.append,
            in_flight=CEILING,
            batch=self.batch,
        )
        carrying = asyncio.create_task(apply(plan, (VLESS,), means))
        while not carrying.done():
            await asyncio.sleep(0)
            self._let_time_pass()
        return await carrying

    async def _call(self, inbound: Inbound, name: str, timeout_seconds: float) -> None:
        assert (inbound, timeout_seconds) == (VLESS, 2.0)
        key_id = OURS.key_id(name)
        assert key_id is not None
        self.sent.append(key_id)
        answer = asyncio.get_running_loop().create_future()
        self.under_way.append(answer)
        self.widths.append(len(self.under_way))
        await answer
        if key_id in self.faults:
            raise self.faults[key_id]

    def _let_time_pass(self) -> None:
        if self.under_way:
            self.now += self.step_seconds
            self.under_way.popleft().set_result(None)
        else:
            self.now += 0.001


def adding(number: int) -> Plan:
    return diff(desired(*(key(number) for number in range(1, number + 1))), actual(), OURS)


def removing(number: int) -> Plan:
    ended = [kept(number, Standing.EXPIRED, until=NOW) for number in range(1, number + 1)]
    return diff(desired(*ended), actual(*(listed(number) for number in range(1, number + 1))), OURS)


async def test_every_step_is_sent_once():
    stage = Stage()

    applied = await stage.carry_out(adding(500))

    assert sorted(stage.sent) == list(range(1, 501))
    assert {step.key_id for step in applied.done} == set(stage.sent)
    assert stage.accounts[OURS.name(7)] == listed(7).account


async def test_a_quick_node_is_given_all_that_is_allowed():
    stage = Stage(step_seconds=0.00001)

    await stage.carry_out(adding(1_000))

    assert stage.widths[FIRST - 1] == FIRST
    assert max(stage.widths) == CEILING


async def test_a_node_that_slows_down_is_given_fewer_at_once():
    stage = Stage(step_seconds=0.00001)
    plan = adding(2_000)
    slow: list[int] = []

    async def slow_down() -> None:
        while len(stage.sent) < 1_000:
            await asyncio.sleep(0)
        slow.append(len(stage.widths))
        stage.step_seconds = 0.005

    slowing = asyncio.create_task(slow_down())
    await stage.carry_out(plan)
    await slowing

    assert max(stage.widths[: slow[0]]) == CEILING
    assert max(stage.widths[-500:]) == FIRST


async def test_a_refused_step_is_left_and_the_others_go_on():
    refusal = NameTaken("n1", "k7@ours on vless-in: the name is there already")
    stage = Stage(faults={7: refusal})

    applied = await stage.carry_out(adding(50))

    assert [(step.key_id, error) for step, error in applied.failures] == [(7, refusal)]
    assert len(applied.done) == 49
    assert applied.broken is None


async def test_after_a_call_without_an_answer_nothing_more_is_sent():
    stage = Stage(step_seconds=0.01, faults={3: NodeUnreachable("n1", "UNAVAILABLE: nobody answers")})

    applied = await stage.carry_out(adding(50))

    assert applied.broken is stage.faults[3]
    assert len(stage.sent) <= 3 + FIRST


async def test_stopping_lets_what_is_under_way_end_and_begins_nothing():
    stage = Stage(step_seconds=0.01)

    async def stop() -> None:
        while len(stage.sent) < 10:
            await asyncio.sleep(0)
        stage.stopped = True

    stopping = asyncio.create_task(stop())
    applied = await stage.carry_out(adding(50))
    await stopping

    assert len(applied.done) == len(stage.sent) < 20


@pytest.mark.parametrize("step_seconds", [0.0001, 0.003, 0.05, 0.4])
async def test_a_removal_is_sent_within_a_second_of_its_check_whatever_the_pace(step_seconds: float):
    stage = Stage(step_seconds=step_seconds, read_seconds=0.02)

    applied = await stage.carry_out(removing(160))

    assert len(applied.done) == len(stage.ages) == 160
    assert max(stage.ages) <= FRESH_SECONDS


async def test_the_next_batch_is_checked_while_one_is_sent():
    stage = Stage(step_seconds=0.0025, read_seconds=0.05, batch=20)

    await stage.carry_out(removing(160))

    assert len(stage.looks) == 8
    assert stage.now < 160 * 0.0025 + 8 * 0.05 / 2


async def test_a_key_that_is_wanted_again_stays():
    stage = Stage(wanted=frozenset({5, 120}))

    applied = await stage.carry_out(removing(150))

    assert {5, 120}.isdisjoint(stage.sent)
    assert len(applied.done) == 148


async def test_all_are_wanted_again_and_all_stay():
    stage = Stage(wanted=frozenset(range(1, 151)), read_seconds=0.5)

    assert (await stage.carry_out(removing(150))).done == set()
    assert len(stage.looked) == 150


async def test_rows_that_take_too_long_to_read_cost_nobody_the_door():
    stage = Stage(read_seconds=2 * FRESH_SECONDS)

    applied = await stage.carry_out(removing(150))

    assert stage.sent == []
    assert applied.done == set()
    assert applied.broken is None


async def test_rows_that_become_too_slow_to_read_end_it():
    stage = Stage()

    async def slow_down() -> None:
        while not stage.looks:
            await asyncio.sleep(0)
        stage.read_seconds = 2 * FRESH_SECONDS

    slowing = asyncio.create_task(slow_down())
    applied = await asyncio.wait_for(stage.carry_out(removing(150)), 10)
    await slowing

    assert 0 < len(applied.done) <= 50
    assert len(stage.looks) <= 5


@pytest.mark.parametrize("look", [1, 2, 3])
async def test_rows_that_cannot_be_read_again_are_an_error_of_the_store(look: int):
    fault = StoreUnavailable("gone")
    stage = Stage(read_fault=(look, fault))

    with pytest.raises(StoreUnavailable) as caught:
        await stage.carry_out(removing(150))

    assert caught.value is fault


async def test_a_check_that_is_under_way_ends_with_the_plan():
    stage = Stage(read_seconds=0.2, faults={1: NodeUnreachable("n1", "UNAVAILABLE: nobody answers")})
    before = asyncio.all_tasks()

    applied = await stage.carry_out(removing(150))

    assert applied.broken is not None
    assert asyncio.all_tasks() == before
