"""Placing keys that ring by a look that was taken before they did."""

import asyncio

import pytest

from reconciler.desired.placement import Ahead, place
from reconciler.model import NodeState
from tests.placing import grant, live, node, per_node, place_rows


async def looked(connection) -> Ahead:
    ahead = Ahead()
    await ahead.look(connection)
    return ahead


async def test_one_by_one_they_go_where_a_look_for_each_would_have_put_them(operator, root, daemon):
    for name, capacity, pool in (
        ("fra-1", 10, "default"),
        ("fra-2", 20, "default"),
        ("fra-3", None, "default"),
        ("ams-1", 5, "europe"),
    ):
        await node(operator, name, capacity, pool=pool)
    keys = [*await grant(root, 40), *await grant(root, 4, "europe")]
    ahead = await looked(daemon)

    for key in keys:
        assert (await place(daemon, [key], ahead=ahead)).placements == 1

    assert await per_node(root) == {"fra-1": 8, "fra-2": 16, "fra-3": 16, "ams-1": 4}
    assert ahead.worn


async def test_many_at_once_take_one_turn_each(operator, root, daemon):
    await node(operator, "fra-1", 30)
    await node(operator, "fra-2", 60)
    await node(operator, "ams-1", pool="europe")
    keys = [*await grant(root, 60), *await grant(root, 9, "europe")]

    placed = await place(daemon, keys, ahead=await looked(daemon))

    assert placed.placements == 69
    assert await per_node(root) == {"fra-1": 20, "fra-2": 40, "ams-1": 9}


@pytest.mark.parametrize("change", ["drained", "full", "moved"])
async def test_a_turn_that_is_not_good_any_more_is_not_taken(operator, root, daemon, change):
    await node(operator, "fra-1")
    first, second = await grant(root, 2)
    ahead = await looked(daemon)
    if change == "drained":
        await operator.set_state("fra-1", NodeState.DRAINING)
    elif change == "full":
        await operator.set_capacity("fra-1", 0)
    else:
        await root.execute("UPDATE reconciler.nodes SET pool = 'elsewhere'")

    assert (await place(daemon, [first], ahead=ahead)).unplaced == {"default": 1}
    await node(operator, "fra-2")

    assert (await place(daemon, [first, second], ahead=ahead)).placements == 2
    assert await live(root) == {first: ["fra-2"], second: ["fra-2"]}


async def test_what_has_no_turn_is_looked_at(operator, root, daemon):
    await node(operator, "fra-1")
    ahead = await looked(daemon)
    await node(operator, "fra-2")
    await node(operator, "ams-1", pool="europe")
    (everywhere,) = await grant(root, 1, spread="all")
    (elsewhere,) = await grant(root, 1, "europe")
    (revoked,) = await grant(root, 1)
    await root.execute("UPDATE reconciler.keys SET revoked_at = now() WHERE id = %s", (revoked,))

    placed = await place(daemon, [everywhere, elsewhere, revoked, 987654321], ahead=ahead)

    assert placed.placements == 3
    assert await live(root) == {everywhere: ["fra-1", "fra-2"], elsewhere: ["ams-1"]}


async def test_a_key_that_leaves_the_node_whose_turn_it_is_stays_there(operator, root, daemon):
    await node(operator, "fra-1")
    (key,) = await grant(root, 1)
    await place_rows(daemon)
    ahead = await looked(daemon)
    await root.execute("UPDATE reconciler.placements SET leaving_at = now(), grace_seconds = 0")

    assert (await place(daemon, [key], ahead=ahead)).placements == 1
    cursor = await root.execute("SELECT leaving_at, ended_at FROM reconciler.placements")
    assert await cursor.fetchall() == [(None, None)]


async def test_five_with_the_same_turns_overshoot_nothing_and_place_no_key_twice(database, operator, root):
    for name, capacity in (("fra-1", 30), ("fra-2", 50)):
        await node(operator, name, capacity)
    keys = await grant(root, 100)

    async def one() -> int:
        async with await database.connect("daemon") as own:
            ahead = await looked(own)
            return sum([(await place(own, [key], ahead=ahead)).placements for key in keys])

    assert sum(await asyncio.gather(*(one() for _ in range(5)))) == 80
    assert await per_node(root) == {"fra-1": 30, "fra-2": 50}
