"""Promises that are written while steps go on."""

import asyncio
from dataclasses import dataclass, field

import pytest

from reconciler.errors import StoreUnavailable
from reconciler.loop.ledger import BATCH, Ledger
from reconciler.model import Desired
from reconciler.plan.diff import diff
from reconciler.plan.settle import Settlement, Settling
from reconciler.plan.steps import Step
from tests.builders import OURS, actual, desired, key

KEYS = 3 * BATCH


@dataclass
class Store:
    """Writes that wait for `gate`."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    fault: Exception | None = None
    written: list[set[int]] = field(default_factory=list)
    under_way: int = 0
    most: int = 0
    called_off: int = 0

    async def write(self, settlement: Settlement) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # as a connection does that tells the server
            self.called_off += 1
            raise
        self.under_way -= 1
        if self.fault is not None:
            raise self.fault
        self.written.append({made.key_id for made in settlement.made})


@pytest.fixture(scope="module")
def rows() -> Desired:
    return desired(*(key(number) for number in range(1, KEYS + 1)))


@pytest.fixture(scope="module")
def steps(rows: Desired) -> tuple[Step, ...]:
    return diff(rows, actual(), OURS).steps


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def settling(rows: Desired) -> Settling:
    return Settling(rows, diff(rows, actual(), OURS))


async def test_what_is_acknowledged_while_one_write_is_under_way_waits_for_the_next(
    store: Store, settling: Settling, steps: tuple[Step, ...]
):
    ledger = Ledger(settling, store.write)
    for step in steps[: 2 * BATCH]:
        ledger.note(step)
    store.gate.set()
    await ledger.close()
    ledger.note(steps[2 * BATCH])
    await ledger.close()

    assert [len(keys) for keys in store.written] == [BATCH, BATCH + 1]
    assert store.most == 1
    assert set.union(*store.written) == settling.settled


async def test_few_steps_are_left_to_the_end_of_the_cycle(
    store: Store, settling: Settling, steps: tuple[Step, ...]
):
    ledger = Ledger(settling, store.write)
    for step in steps[: BATCH - 1]:
        ledger.note(step)
    await ledger.close()

    assert store.written == []
    assert settling.settled == set()


async def test_a_write_that_fails_stops_the_steps_and_is_told_at_the_end(
    store: Store, settling: Settling, steps: tuple[Step, ...]
):
    store.fault = StoreUnavailable("gone")
    store.gate.set()
    ledger = Ledger(settling, store.write)
    for step in steps[:BATCH]:
        ledger.note(step)
    while not ledger.broken:
        await asyncio.sleep(0)
    for step in steps[BATCH:]:
        ledger.note(step)

    with pytest.raises(StoreUnavailable):
        await ledger.close()
    assert store.written == []


async def test_what_is_dropped_is_not_written(store: Store, settling: Settling, steps: tuple[Step, ...]):
    ledger = Ledger(settling, store.write)
    for step in steps[:BATCH]:
        ledger.note(step)
    while not store.under_way:
        await asyncio.sleep(0)
    dropping = asyncio.create_task(ledger.drop())
    await asyncio.sleep(0)
    assert not dropping.done(), "what is under way has to be called off first"
    await dropping
    store.gate.set()
    await asyncio.sleep(0)

    assert store.called_off == 1
    assert store.written == []
