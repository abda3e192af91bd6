"""Placing keys, with the rights of the daemon, alone and many at once."""

import asyncio

import pytest

from reconciler.desired.placement import Placed, place
from reconciler.model import NodeState
from tests.placing import ENDS, grant, live, node, per_node, place_rows


async def test_nothing_to_place_writes_nothing(operator, daemon):
    await node(operator, "fra-1")

    assert await place_rows(daemon) == (0, {})


async def test_keys_go_to_the_lowest_share_of_their_own_pool(operator, root, daemon):
    await node(operator, "fra-1", 30)
    await node(operator, "fra-2", 60)
    await node(operator, "ams-1", pool="europe")
    await grant(root, 30)
    await grant(root, 5, "europe")

    assert await place_rows(daemon) == (35, {})
    assert await per_node(root) == {"fra-1": 10, "fra-2": 20, "ams-1": 5}
    assert await place_rows(daemon) == (0, {})


async def test_no_node_gets_more_than_its_capacity_and_the_rest_is_counted(operator, root, daemon):
    await node(operator, "fra-1", 3)
    await node(operator, "fra-2", 0)
    keys = await grant(root, 5)
    await grant(root, 2, "nowhere")

    assert await place_rows(daemon, batch=2) == (3, {"default": 2, "nowhere": 2})
    assert list(await live(root)) == keys[:3]
    await operator.set_capacity("fra-2", 9)
    assert await place_rows(daemon) == (2, {"nowhere": 2})


@pytest.mark.parametrize("state", [NodeState.OBSERVED, NodeState.DRAINING, NodeState.DISABLED])
async def test_only_an_active_node_gets_keys_and_those_it_has_stay(operator, root, daemon, state):
    await node(operator, "fra-1")
    (first,) = await grant(root, 1)
    await place(daemon)
    await operator.set_state("fra-1", state)
    (second,) = await grant(root, 1)

    assert await place_rows(daemon) == (0, {"default": 1})
    await node(operator, "fra-2")
    assert await place_rows(daemon) == (1, {})
    assert await live(root) == {first: ["fra-1"], second: ["fra-2"]}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_a_key_that_is_not_in_force_is_not_placed(operator, root, daemon, end):
    await node(operator, "fra-1")
    await grant(root, 1)
    await grant(root, 1, spread="all")
    await root.execute(end)

    assert await place_rows(daemon) == (0, {})
    assert await live(root) == {}


async def test_a_renewed_key_is_back_where_it_was_although_the_node_is_full(operator, root, daemon):
    await node(operator, "fra-1", 1)
    (key_id,) = await grant(root, 1)
    await place(daemon)
    await root.execute(ENDS["expired"])
    await grant(root, 1)
    assert await place_rows(daemon) == (0, {"default": 1})

    await root.execute("UPDATE reconciler.subscriptions SET expires_at = now() + interval '1 day'")

    assert await place_rows(daemon) == (0, {"default": 1})
    assert await live(root) == {key_id: ["fra-1"]}


async def test_a_key_for_all_nodes_gets_those_that_join_later(operator, root, daemon):
    await node(operator, "fra-1")
    await node(operator, "ams-1", pool="europe")
    (key_id,) = await grant(root, 1, spread="all")
    assert await place_rows(daemon) == (1, {})
    await node(operator, "fra-2", state=NodeState.OBSERVED)
    await node(operator, "fra-3")
    await node(operator, "fra-4", 0)

    assert await place_rows(daemon) == (1, {"default": 1})
    assert await live(root) == {key_id: ["fra-1", "fra-3"]}


async def test_a_batch_smaller_than_one_keys_nodes_places_it_all_the_same(operator, root, daemon):
    for name in ("fra-1", "fra-2", "fra-3"):
        await node(operator, name)
    keys = await grant(root, 2, spread="all")

    assert await place_rows(daemon, batch=2) == (6, {})
    assert await live(root) == {key_id: ["fra-1", "fra-2", "fra-3"] for key_id in keys}


async def test_keys_that_no_node_can_take_do_not_hold_up_the_others(operator, root, daemon):
    await node(operator, "full", 0)
    await node(operator, "free")
    everywhere = await grant(root, 3, spread="all")
    keys = await grant(root, 3)

    assert await place_rows(daemon, batch=1) == (6, {"default": 3})
    assert await live(root) == {key_id: ["free"] for key_id in everywhere + keys}


async def test_it_tells_which_node_got_which_keys(operator, root, daemon):
    first, second = [await node(operator, name, 1) for name in ("fra-1", "fra-2")]
    await node(operator, "fra-3", 0)
    keys = await grant(root, 5)

    assert (await place(daemon)).nodes == {first: {keys[0]}, second: {keys[1]}}
    assert (await place(daemon)).nodes == {}


async def test_only_the_keys_that_were_named_are_placed(operator, root, daemon):
    await node(operator, "fra-1")
    keys = await grant(root, 3)

    assert await place_rows(daemon, keys[:1]) == (1, {})
    assert list(await live(root)) == keys[:1]


async def test_named_keys_of_several_pools_are_placed_in_batches_that_ring_one_by_one(
    operator, root, daemon, database
):
    await node(operator, "fra-1")
    await node(operator, "ams-1", pool="europe")
    keys = [*await grant(root, 120), *await grant(root, 30, "europe"), *await grant(root, 2, "nowhere")]
    async with await database.connect() as listening:
        await listening.execute("LISTEN reconciler")

        assert await place_rows(daemon, keys) == (150, {"nowhere": 2})

        bells = [bell.payload async for bell in listening.notifies(timeout=0.2)]
    assert await per_node(root) == {"fra-1": 120, "ams-1": 30}
    assert [bell[:4] for bell in bells] == ["1 k "] * 2


async def test_ten_at_once_place_thousands_once_and_overshoot_nothing(database, operator, root):
    capacities = {"fra-1": 500, "fra-2": 1000, "fra-3": 300, "fra-4": 0}
    for name, capacity in capacities.items():
        await node(operator, name, capacity)
    await node(operator, "ams-1", pool="europe")
    await grant(root, 2000)
    await grant(root, 500, "europe")
    await grant(root, 20, spread="all")

    async def one() -> Placed:
        async with await database.connect("daemon") as own:
            return await place(own, batch=100)

    placed = await asyncio.gather(*(one() for _ in range(10)))

    counts = await per_node(root)
    assert counts == {"fra-1": 500, "fra-2": 1000, "fra-3": 300, "ams-1": 500}
    assert sum(one.placements for one in placed) == 2300
    doubled = await root.execute(
        "SELECT p.key_id FROM reconciler.placements p JOIN reconciler.keys k ON k.id = p.key_id"
        " WHERE k.spread = 'one' GROUP BY p.key_id HAVING count(*) > 1"
    )
    assert await doubled.fetchall() == []


async def test_ten_daemons_and_a_thousand_grants_at_once_place_each_key_once_and_overshoot_nothing(
    database, operator, root
):
    capacities = {"fra-1": 300, "fra-2": 500, "fra-3": 100}
    for name, capacity in capacities.items():
        await node(operator, name, capacity)
    granted: list[int] = []
    over: list[object] = []

    async def shop() -> None:
        async with await database.connect() as own:
            await own.set_autocommit(True)
            for _ in range(100):
                granted.extend(await grant(own, 1))

    async def daemon(number: int) -> None:
        """Odd ones answer bells, each at some keys; even ones look at everything."""
        async with await database.connect("daemon") as own:
            await own.set_autocommit(True)
            while not all(shop.done() for shop in shops):
                await place(own, granted[-20:] if number % 2 else None)
                await asyncio.sleep(0)
            await place(own)

    async def watch() -> None:
        async with await database.connect() as own:
            while True:
                counts = await per_node(own)
                over.extend(name for name in capacities if counts[name] > capacities[name])
                await asyncio.sleep(0.01)

    watcher = asyncio.create_task(watch())
    shops = [asyncio.create_task(shop()) for _ in range(10)]
    await asyncio.gather(*shops, *(daemon(number) for number in range(10)))
    watcher.cancel()

    assert over == []
    assert len(set(granted)) == 1_000
    assert await per_node(root) == capacities, "full, and not a key above it"
    doubled = await root.execute(
        "SELECT key_id FROM reconciler.placements GROUP BY key_id HAVING count(*) > 1"
    )
    assert await doubled.fetchall() == []
    async with await database.connect("daemon") as own:
        assert await place_rows(own) == (0, {"default": 100})


async def test_a_database_of_stricter_isolation_overshoots_nothing_either(database, operator, root):
    await root.execute(f"ALTER DATABASE {database.name} SET default_transaction_isolation = 'serializable'")
    await node(operator, "fra-1", 50)
    await grant(root, 100)

    async def one() -> Placed:
        async with await database.connect("daemon") as own:
            return await place(own, batch=10)

    await asyncio.gather(*(one() for _ in range(5)))

    assert await per_node(root) == {"fra-1": 50}
