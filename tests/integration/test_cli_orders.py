"""Orders to the daemon: bound to what was shown, given by its number, and watched until done."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest

from reconciler.demo.xray import free_port
from reconciler.model import Account, Credential, StepKind
from reconciler.node.xray import XrayNode
from tests.daemons import until
from tests.parts_cli import Cli, Said
from tests.world import CALL_SECONDS, VLESS, World, kinds, make_world


@pytest.fixture
async def world(database, start_xray):
    node = await start_xray()
    async with make_world(database, XrayNode("n1", node.api), api=node.api) as world:
        yield world


@pytest.fixture
async def held(world):
    """Five keys whose removal exceeds the hour's budget of the daemon as well."""
    keys = await world.keys(6)
    await world.cycle()
    await world.revoke(keys)
    assert kinds(await world.cycle()) == []
    return keys


async def orders(world: World) -> list[tuple[Any, ...]]:
    return await world.execute("SELECT kind, key_ids, actor FROM reconciler.orders ORDER BY id")


async def add_node(cli: Cli, name: str, *options: str) -> None:
    """Add a node that nobody answers for; active unless told otherwise."""
    api = f"127.0.0.1:{free_port()}"
    state = () if "--state" in options else ("--state", "active")
    said = await cli("node", "add", name, "--api", api, "--inbound", "in:vless", *state, *options)
    assert said.code == 0


@asynccontextmanager
async def releasing(cli: Cli, world: World) -> AsyncIterator[asyncio.Future[Said]]:
    """Give an order and wait for it; at the end it runs out, unless it was carried out."""
    waiting = asyncio.ensure_future(cli("release", "n1", "--count", "6", "--wait", "--json"))
    try:
        await until(lambda: orders(world), "the order is written")
        yield waiting
    finally:
        await world.execute("UPDATE reconciler.orders SET valid_until = now()")


async def test_release_lets_exactly_what_was_shown_go(cli, world, held):
    said = await cli("release", "n1", typed="6\n")

    assert said.code == 0
    for key in held:
        assert ["remove", str(key), "vless-in", "revoked"] in [line.split() for line in said.out.splitlines()]
    ((kind, keys, actor),) = await orders(world)
    assert (kind, keys) == ("release", held)
    assert actor.startswith("cli:")
    assert kinds(await world.cycle()) == [StepKind.REMOVE] * 6
    assert (await cli("plan")).code == 0


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("typed", ["", "5\n", "yes\n", "66\n"])
async def test_another_number_orders_nothing(cli, world, typed):
    said = await cli("release", "n1", typed=typed)

    assert said.code == 1
    assert "nothing was changed" in said.err
    assert await orders(world) == []


@pytest.mark.usefixtures("held")
async def test_a_count_that_is_not_that_of_the_set_orders_nothing(cli, world):
    said = await cli("release", "n1", "--count", "5")

    assert said.code == 1
    assert "which is 6" in said.err
    assert await orders(world) == []


async def test_release_of_one_key_names_it_alone(cli, world, held):
    said = await cli("release", f"k{held[2]}", "--count", "1", "--json")

    assert [row["key"] for row in said.document["held"]] == [held[2]]
    assert [row[1] for row in await orders(world)] == [[held[2]]]


async def test_release_where_nothing_is_held_asks_nothing(cli, world):
    (key,) = await world.keys(1)

    for target in ("n1", str(key)):
        said = await cli("release", target)
        assert (said.code, said.out) == (0, "nothing is held\n")


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("target", ["nope", "k99", ""])
async def test_release_of_what_there_is_not_is_one_line(cli, target):
    assert (await cli("release", target)).code == 1


@pytest.mark.usefixtures("held")
async def test_an_observed_node_takes_no_order(cli, world):
    await cli("node", "observe", "n1")

    said = await cli("release", "n1", "--count", "6")

    assert said.code == 1
    assert "observed" in said.err
    assert await orders(world) == []


@pytest.mark.usefixtures("held")
async def test_waiting_ends_when_the_daemon_has_carried_it_out(cli, world):
    async with releasing(cli, world) as waiting:
        assert not waiting.done()
        await world.cycle()
    said = await waiting

    assert said.code == 0
    assert "is carried out" in said.err
    assert said.document["orders"][0]["count"] == 6


@pytest.mark.usefixtures("held")
async def test_waiting_ends_when_an_order_runs_out(cli, world):
    async with releasing(cli, world) as waiting:
        pass
    said = await waiting

    assert said.code == 1
    assert "ran out" in said.err
    assert said.document["error"]["kind"] == "NotDone"


async def test_orphans_are_shown_kept_and_removed_by_their_number(cli, world):
    (ours,) = await world.keys(1)
    await world.cycle()
    for name in ("k900@test", "K901@TEST", "k012@test", "k99999999999999999999@test"):
        await world.port.add(VLESS, name, Account(Credential(uuid4().bytes)), CALL_SECONDS)

    shown = await cli("orphans", "n1", "--json")
    refused = await cli("orphans", "n1", "--remove", typed="3\n")
    assert await orders(world) == []
    ordered = await cli("orphans", "n1", "--remove", "--count", "2")
    await world.cycle()

    names = [row["name"] for row in shown.document["orphans"]]
    assert names == ["k900@test", "k901@test", "k99999999999999999999@test"]
    assert refused.code == 1
    assert ordered.code == 0
    assert "1 with numbers beyond any key's" in ordered.err
    assert await world.names() == {f"k{ours}@test", "k012@test", "k99999999999999999999@test"}


async def test_a_node_is_emptied_once_it_is_draining(cli, world):
    keys = await world.keys(4)
    await world.cycle()
    early = await cli("node", "empty", "n1", "--count", "4")
    await add_node(cli, "n2")
    await cli("node", "drain", "n1")

    refused = await cli("node", "empty", "n1", "--count", "3")
    assert await orders(world) == []
    waiting = await cli("node", "empty", "n1", "--count", "4")
    await world.cycle()
    assert await world.names() == {f"k{key}@test" for key in keys}, "no other node has them"
    said = await cli("node", "empty", "n1", "--count", "4", "--now", "--json")
    await world.cycle()

    assert early.code == 1
    assert "draining" in early.err
    assert refused.code == 1
    assert waiting.code == 0
    assert said.document["keys"] == keys
    assert await world.names() == set()


@pytest.mark.parametrize(
    ("others", "homeless"),
    [
        ([], 4),
        ([("n2", "--capacity", "1")], 3),
        ([("n2", "--capacity", "1"), ("n3", "--capacity", "2")], 1),
        ([("n2", "--capacity", "1"), ("n3",)], 0),
        ([("n2", "--pool", "other")], 4),
        ([("n2", "--state", "observed")], 4),
    ],
    ids=["alone", "too small", "two too small", "room", "another pool", "not active"],
)
async def test_a_node_whose_keys_have_nowhere_to_go_is_emptied_on_request_only(cli, world, others, homeless):
    await world.keys(4)
    (ended, expired) = await world.keys(2)
    await world.revoke([ended])
    await world.set_expiry([expired], "-1 hour")
    for name, *options in others:
        await add_node(cli, name, *options)
    await cli("node", "drain", "n1", "--without-room")

    said = await cli("node", "empty", "n1", "--count", "6")

    assert said.code == (1 if homeless else 0)
    assert (f"{homeless} key" in said.err and "nowhere to go" in said.err) == bool(homeless)
    assert len(await orders(world)) == (0 if homeless else 1)
    if homeless:
        forced = await cli("node", "empty", "n1", "--count", "6", "--without-room")
        assert forced.code == 0
        assert "nowhere to go" in forced.err
        assert len(await orders(world)) == 1


async def test_a_key_that_another_node_has_needs_no_room(cli, world):
    (key,) = await world.keys(1)
    await add_node(cli, "n2")
    await cli("place", str(key), "n2")
    await cli("node", "drain", "n2")
    await cli("node", "drain", "n1")

    assert (await cli("node", "empty", "n1", "--count", "1")).code == 0
