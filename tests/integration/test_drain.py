"""Draining real nodes under the real daemon, watched from both nodes at once: no key is ever on neither."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.demo.xray import XrayProcess
from reconciler.desired.writer import Operator
from reconciler.model import NodeState
from reconciler.node.port import list_users
from reconciler.node.xray import XrayNode
from tests.daemons import running, until
from tests.parts_postgres import Database
from tests.parts_xray import OpenDoor, StartXray
from tests.sites import Site, enrol
from tests.world import CALL_SECONDS, VLESS

KEYS = 1_000


@pytest.fixture
async def site(database: Database, start_xray: StartXray, tmp_path: Path) -> AsyncIterator[Site]:
    nodes = [await start_xray(), await start_xray(), await start_xray()]
    async with await database.connect() as sql:
        await enrol(sql, nodes)
        yield Site(sql, nodes, tmp_path, database.dsn_as("daemon"))


class Watch:
    """
    Who was on which node, look after look.

    A look at several nodes is no instant. So the old node is listed first: a
    key that it does not have any more must be on another one right after.
    """

    def __init__(self, old: XrayProcess, others: list[XrayProcess], keys: set[str]) -> None:
        self._ports = [XrayNode(node.name, node.api) for node in (old, *others)]
        self._keys = keys
        self.looks = 0
        self.lost: set[str] = set()

    async def look(self) -> None:
        listings = [
            {user.name for user in await list_users(port, VLESS, CALL_SECONDS)} for port in self._ports
        ]
        self.lost |= self._keys - set().union(*listings)
        self.looks += 1

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        async def go_on() -> None:
            while True:
                await self.look()
                await asyncio.sleep(0.005)

        task = asyncio.create_task(go_on())
        try:
            yield
        finally:
            task.cancel()
            (ended,) = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(ended, asyncio.CancelledError), ended
            for port in self._ports:
                await port.close()


async def put_all_on_first(site: Site, operator: Operator, keys: int) -> set[str]:
    """Fill the first node, and open the others afterwards."""
    _, *others = site.nodes
    for node in others:
        await operator.set_state(node.name, NodeState.OBSERVED)
    granted = await site.grant(keys)
    await site.counts(keys)
    for node in others:
        await operator.set_state(node.name, NodeState.ACTIVE)
    return {f"k{key}@test" for key in granted}


async def left(site: Site, node: XrayProcess) -> bool:
    return node.name not in {name for name, _ in await site.on_nodes()}


async def leaving(site: Site) -> int:
    ((number,),) = await site.execute(
        "SELECT count(*) FROM reconciler.placements WHERE leaving_at IS NOT NULL AND ended_at IS NULL"
    )
    return int(number)


async def test_a_drained_node_lets_go_of_each_key_after_another_has_it(
    site: Site, database: Database, door: OpenDoor
):
    first, second, _ = site.nodes
    async with await database.connect("operator") as own, running(site.daemon()) as daemon:
        operator = Operator(own, "test")
        keys = await put_all_on_first(site, operator, KEYS)
        watch = Watch(first, site.nodes[1:], keys)
        async with watch.watching():
            drained = await operator.drain(first.name, 0)
            await until(lambda: left(site, first), "the drained node is empty")
        now = await site.on_nodes()
        key = next(int(name[1:].partition("@")[0]) for node, name in now if node == second.name)
        customer = await door(second.port(VLESS.tag), await site.credential(key))
        assert await customer.opens()
        assert (await daemon.logs("keys need their old node no longer"))["node"] == first.name
        assert await daemon.metric("reconciler_leaving_keys") == 0
        assert daemon.lines("steps held: they would break more promises than an hour may") == []

    assert drained.leaving == KEYS
    assert watch.lost == set()
    assert watch.looks > 1
    assert {name for _, name in now} == keys
    assert len(now) == KEYS, "each on one node"


@pytest.mark.parametrize("victim", ["daemon", "new node"])
async def test_a_drain_goes_on_after_the_daemon_or_the_new_node_was_killed(
    site: Site, database: Database, victim: str
):
    first, second, third = site.nodes
    async with await database.connect("operator") as own:
        operator = Operator(own, "test")
        async with running(site.daemon()) as daemon:
            keys = await put_all_on_first(site, operator, 300)
            await operator.set_state(third.name, NodeState.OBSERVED)
            if victim == "new node":
                second.kill()
            await operator.drain(first.name, 0)
            if victim == "daemon":

                async def on_both() -> Any:
                    return any(node == second.name for node, _ in await site.on_nodes())

                await until(on_both, "the new node has some")
                daemon.kill()
            else:
                await daemon.logs("node unreachable")
                assert {name for _, name in await site.on_nodes()} == keys, "all wait for the new node"
                assert await leaving(site) == 300
                await second.start()
                await until(lambda: left(site, first), "the drained node is empty")
        if victim == "daemon":
            assert {name for _, name in await site.on_nodes()} == keys
            async with running(site.daemon("another")):
                await until(lambda: left(site, first), "the drained node is empty")

        assert await site.on_nodes() == {(second.name, name) for name in keys}
        assert await leaving(site) == 0


async def test_keys_stay_on_both_nodes_until_the_grace_is_over(site: Site, database: Database):
    first, *_ = site.nodes
    async with await database.connect("operator") as own, running(site.daemon()):
        operator = Operator(own, "test")
        await put_all_on_first(site, operator, 20)
        await operator.drain(first.name, 3600)
        await site.counts(40)
        assert await leaving(site) == 20
        await operator.drain(first.name, 0)
        await until(lambda: left(site, first), "the drained node is empty")
        await site.counts(20)


async def test_a_moved_key_has_its_new_node_before_the_old_one_lets_go(site: Site, database: Database):
    first, second, _ = site.nodes
    async with await database.connect("operator") as own, running(site.daemon()):
        operator = Operator(own, "test")
        (name,) = await put_all_on_first(site, operator, 1)
        watch = Watch(first, site.nodes[1:], {name})
        async with watch.watching():
            await operator.move(int(name[1:].partition("@")[0]), second.name, 0, "test")
            await until(lambda: left(site, first), "the old node let go")
        assert await site.on_nodes() == {(second.name, name)}

    assert watch.lost == set()


async def test_a_key_without_room_is_told_of_and_gets_what_another_leaves_long_before_the_next_full_look(
    site: Site, database: Database
):
    await site.execute("UPDATE reconciler.nodes SET capacity = 1")
    slow = {"full_interval_seconds": 600}
    async with await database.connect("operator") as own, running(site.daemon(cycle=slow)) as daemon:
        operator = Operator(own, "test")
        first, *_ = await site.grant(3)
        await site.counts(3)
        (late,) = await site.grant(1)

        async def unplaced(number: int) -> bool:
            return await daemon.metric("reconciler_unplaced_keys") == number

        await until(lambda: unplaced(1), "the metric tells of it")
        assert (await daemon.logs("keys without a node: their pool has no room"))["keys"] == 1
        ((node,),) = await site.execute(
            "SELECT n.name FROM reconciler.placements p JOIN reconciler.nodes n ON n.id = p.node_id"
            " WHERE key_id = %s",
            first,
        )
        await site.execute("UPDATE reconciler.keys SET revoked_at = now() WHERE id = %s", first)
        await operator.end_placement(first, node)

        async def there() -> bool:
            return (node, f"k{late}@test") in await site.on_nodes()

        await until(there, "the key has the room")
        await until(lambda: unplaced(0), "the metric tells of it")


async def test_a_node_with_another_address_leaves_what_was_there_and_gets_its_keys_again(
    site: Site, database: Database
):
    first, second, _ = site.nodes
    async with await database.connect("operator") as own, running(site.daemon()):
        operator = Operator(own, "test")
        names = await put_all_on_first(site, operator, 5)
        await operator.set_state(second.name, NodeState.DISABLED)
        await operator.set_api(second.name, "127.0.0.1:1")
        keys = [int(name[1:].partition("@")[0]) for name in names]
        readdressed = await operator.set_api(first.name, second.api, keys)
        await site.counts(10)

        async def done() -> Any:
            return await site.execute("SELECT id FROM reconciler.orders WHERE done_at IS NOT NULL")

        assert readdressed.order is not None
        assert await until(done, "the order is carried out") == [(readdressed.order.order_id,)]
