"""Draining, moving and another address, as an operator says it."""

import asyncio

import pytest

from reconciler.demo.xray import free_port
from reconciler.node.xray import XrayNode
from tests.daemons import until
from tests.parts_cli import Cli
from tests.world import make_world

OWNER_SEES = "reconciler.placements WHERE leaving_at IS NOT NULL AND ended_at IS NULL"


@pytest.fixture
async def world(database, start_xray):
    node = await start_xray()
    async with make_world(database, XrayNode("n1", node.api), api=node.api) as world:
        yield world


async def add_node(cli: Cli, name: str, *options: str) -> None:
    """Add an active node that nobody answers for."""
    api = f"127.0.0.1:{free_port()}"
    said = await cli(
        "node", "add", name, "--api", api, "--inbound", "in:vless", "--state", "active", *options
    )
    assert said.code == 0


async def test_a_drain_is_told_shown_taken_back_and_waited_for(cli, world):
    await world.keys(3)
    await add_node(cli, "n2")

    drained = await cli("node", "drain", "n1", "--move", "--grace", "5")
    again = await cli("node", "drain", "n1", "--move", "--json")
    (row, _) = (await cli("node", "list", "--json")).document["nodes"]
    back = await cli("node", "activate", "n1")
    assert "n1 is now draining" in drained.out
    assert "3 keys to leave n1: 3 without another node yet" in drained.err
    assert again.document == {
        "name": "n1",
        "state": "draining",
        "changed": False,
        "grace_seconds": 3600,
        "leaving": {"unplaced": 3, "unconfirmed": 0, "in_grace": 0, "keys": 3},
    }
    assert (row["placed"], row["leaving"]) == (3, 3)
    assert back.code == 0
    assert await world.execute(f"SELECT id FROM {OWNER_SEES}") == []

    waiting = asyncio.ensure_future(cli("node", "drain", "n1", "--move", "--grace", "0", "--wait"))

    async def begun() -> object:
        return await world.execute(f"SELECT id FROM {OWNER_SEES}")

    await until(begun, "the keys are told to leave")
    assert not waiting.done()
    await world.execute("UPDATE reconciler.placements SET ended_at = now()")
    assert "every key has left n1" in (await waiting).err


async def test_what_would_leave_keys_with_nowhere_to_go_is_refused_with_the_numbers(cli, world):
    await world.keys(3)
    alone = await cli("node", "drain", "n1")
    nowhere = await cli("node", "drain", "n1", "--move")
    await add_node(cli, "n2", "--capacity", "1")
    small = await cli("node", "drain", "n1", "--move", "--json")
    assert (alone.code, nowhere.code, small.code) == (1, 1, 1)
    assert "the last active node of the pool default, and has 3 of its keys" in alone.err
    assert "3 keys of the pool default, which has no other active node" in nowhere.err
    assert "room for 1: 2 keys have nowhere to go; nothing was changed" in str(small.document["error"])
    assert await world.execute("SELECT id FROM reconciler.nodes WHERE state = 'draining'") == []

    forced = await cli("node", "drain", "n1", "--move", "--without-room")

    assert forced.code == 0
    assert await world.execute(f"SELECT count(*) FROM {OWNER_SEES}") == [(3,)]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("node", "drain", "n1", "--wait"), 64),
        (("node", "drain", "n1", "--grace", "5"), 64),
        (("node", "drain", "n1", "--move", "--grace", "-1"), 1),
        (("node", "drain", "n1", "--move", "--grace", "99999999"), 1),
        (("node", "drain", "nope"), 1),
        (("move", "k1", "nope"), 1),
        (("move", "k99", "n1"), 1),
        (("move", "k1", "n1", "--grace", "-1"), 1),
        (("move", "anna", "n1"), 1),
    ],
)
async def test_what_makes_no_sense_is_one_line(cli, world, words, code):
    await world.keys(1)
    await add_node(cli, "n2")

    said = await cli(*words)

    assert said.code == code
    assert "Traceback" not in said.err


async def test_explain_says_that_a_key_waits_for_another_node(cli, world):
    (key,) = await world.keys(1)
    await world.cycle()
    await cli("unplace", str(key), "n1")

    said = await cli("explain", str(key))

    assert "Its placement on n1 was ended, but it stays there until another node has it" in said.out
    assert "Nothing is to be done." in said.out


async def test_another_address_lists_what_stays_behind_and_asks_for_its_number(cli, world):
    keys = await world.keys(3)
    await world.cycle()
    new = f"127.0.0.1:{free_port()}"

    refused = await cli("node", "set", "n1", "--api", new, typed="2\n")
    assert await world.execute("SELECT id FROM reconciler.orders") == []
    ordered = await cli("node", "set", "n1", "--api", new, "--count", "3", "--json")

    assert refused.code == 1
    assert "these keys stay behind" in refused.err
    for key in keys:
        assert [f"k{key}", "yes", "yes"] in [line.split() for line in refused.out.splitlines()]
    assert ordered.code == 0
    assert ordered.document["changed"] == {"api": True}
    assert [order["count"] for order in ordered.document["orders"]] == [3]
    assert await world.execute("SELECT api FROM reconciler.nodes") == [(new,)]


async def test_a_node_that_is_left_alone_tells_who_is_on_it(cli, world):
    await world.keys(2)

    said = await cli("node", "disable", "n1")

    assert "2 keys on it" in said.err
