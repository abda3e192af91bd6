"""A node that answers later than it is waited for: nobody knows whether a step took effect."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from reconciler.demo.xray import XrayProcess
from reconciler.errors import NodeUnreachable
from reconciler.model import Account, Inbound, Outcome
from reconciler.node.xray import XrayNode
from tests.parts_postgres import Database
from tests.parts_xray import StartXray
from tests.world import OWNER, World, make_world

SHORT_SECONDS = 0.2


class LateNode(XrayNode):
    """A real node that is late with the next step on the name `late`."""

    def __init__(self, process: XrayProcess, *, stands_still: bool) -> None:
        super().__init__(process.name, process.api)
        self._process = process
        self._stands_still = stands_still
        self.late = ""

    async def add(self, inbound: Inbound, name: str, account: Account, timeout_seconds: float) -> None:
        await self._step(
            name, timeout_seconds, lambda limit: XrayNode.add(self, inbound, name, account, limit)
        )

    async def remove(self, inbound: Inbound, name: str, timeout_seconds: float) -> None:
        await self._step(name, timeout_seconds, lambda limit: XrayNode.remove(self, inbound, name, limit))

    async def _step(self, name: str, limit: float, call: Callable[[float], Awaitable[None]]) -> None:
        if name != self.late:
            await call(limit)
            return
        self.late = ""
        if self._stands_still:
            self._process.freeze()
            try:
                await call(SHORT_SECONDS)
            finally:
                self._process.thaw()
        await call(limit)
        raise NodeUnreachable("n1", "does not answer: timed out")


@pytest.fixture(params=["the step arrives", "the node stands still"])
async def late(
    request: pytest.FixtureRequest, database: Database, start_xray: StartXray
) -> AsyncIterator[tuple[World, LateNode]]:
    process = await start_xray()
    node = LateNode(process, stands_still=request.param == "the node stands still")
    async with make_world(database, node, api=process.api) as world:
        yield world, node


async def test_a_late_add_is_no_promise_until_the_next_cycle_has_seen_the_key(late: tuple[World, LateNode]):
    world, node = late
    keys = await world.keys(3)
    node.late = OWNER.name(keys[1])

    assert (await world.cycle()).outcome is Outcome.UNREACHABLE
    assert keys[1] not in await world.promises()

    await world.cycle()
    assert await world.names() == {OWNER.name(key) for key in keys}
    assert (await world.promises()).keys() == {*keys}
    assert (await world.cycle()).outcome is Outcome.CONVERGED


async def test_a_late_removal_is_spent_once_and_over_with_the_next_cycle(late: tuple[World, LateNode]):
    world, node = late
    keys = await world.keys(3)
    await world.cycle()
    await world.revoke(keys[:1])
    node.late = OWNER.name(keys[0])

    assert (await world.cycle()).outcome is Outcome.UNREACHABLE
    assert keys[0] in await world.promises()

    await world.cycle()
    assert await world.names() == {OWNER.name(key) for key in keys[1:]}
    assert (await world.promises()).keys() == {*keys[1:]}
    assert await world.execute("SELECT count(*) FROM reconciler.promises WHERE early = 'early'") == [(1,)]


async def test_a_bell_that_met_a_late_answer_asks_for_a_full_cycle(late: tuple[World, LateNode]):
    world, node = late
    await world.cycle()
    (key,) = await world.keys(1)
    node.late = OWNER.name(key)

    report = await world.cycles.run_keys([key])

    assert report is not None
    assert report.doubt
    assert await world.promises() == {}
    await world.cycle()
    assert (await world.promises()).keys() == {key}
