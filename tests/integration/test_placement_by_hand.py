"""What operators do with placements, and how it meets a placement that is under way."""

import asyncio

import pytest

from reconciler.desired.writer import Operator
from reconciler.desired.writing import POOL_LOCK
from reconciler.errors import Invalid, Unknown
from reconciler.model import NodeState
from tests.placing import grant, live, node, place_rows, waiting_for_the_pool


async def test_the_room_of_keys_long_ended_is_given_up_on_the_operators_word(operator, root, daemon):
    await node(operator, "fra-1", 2)
    old, ended = await grant(root, 2)
    await place_rows(daemon)
    await root.execute(
        "UPDATE reconciler.subscriptions s"
        "   SET starts_at = now() - interval '99 days', expires_at = now() - days * interval '1 day'"
        "  FROM reconciler.keys k"
        "  JOIN (VALUES (%s::bigint, 31), (%s, 29)) AS ages (key_id, days) ON key_id = k.id"
        " WHERE k.subscription_id = s.id",
        (old, ended),
    )
    (fresh,) = await grant(root, 1)

    assert await operator.vacate(30) == 1
    assert await operator.vacate(30) == 0
    assert await place_rows(daemon) == (1, {})
    assert await live(root) == {ended: ["fra-1"], fresh: ["fra-1"]}


async def test_a_node_drains_only_after_the_placement_that_is_under_way(database, operator, root, daemon):
    await node(operator, "fra-1")
    (key_id,) = await grant(root, 1)
    async with await database.connect("operator") as other:
        async with root.transaction():
            await root.execute(f"SELECT {POOL_LOCK % '%s'}", ("default",))
            draining = asyncio.create_task(Operator(other, "root").set_state("fra-1", NodeState.DRAINING))
            placing = asyncio.create_task(place_rows(daemon))
            await waiting_for_the_pool(database, 2)
            assert not draining.done()
            await root.execute(
                "INSERT INTO reconciler.placements (key_id, node_id, reason)"
                " SELECT %s, id, 'under way' FROM reconciler.nodes",
                (key_id,),
            )
        assert await draining
        assert await placing == (0, {})

    assert await live(root) == {key_id: ["fra-1"]}


async def test_an_operator_moves_a_key_by_hand(operator, root, daemon):
    await node(operator, "fra-1")
    (key_id,) = await grant(root, 1)
    await place_rows(daemon)
    await node(operator, "fra-2", 1)
    assert await operator.place_on(key_id, "fra-2", "nearer")
    assert not await operator.place_on(key_id, "fra-2", "nearer")
    assert await live(root) == {key_id: ["fra-1", "fra-2"]}

    assert await operator.end_placement(key_id, "fra-1")
    assert not await operator.end_placement(key_id, "fra-1")
    assert await place_rows(daemon) == (0, {})
    assert await live(root) == {key_id: ["fra-2"]}


async def test_a_hand_places_nothing_on_a_node_that_is_full_or_not_active(operator, root):
    await node(operator, "full", 0)
    await node(operator, "drained", state=NodeState.DRAINING)
    (key_id,) = await grant(root, 1)
    for name, bound in (("full", "not full"), ("drained", "active")):
        with pytest.raises(Invalid, match=bound):
            await operator.place_on(key_id, name, "test")
    for unknown in (
        operator.place_on(key_id, "nowhere", "test"),
        operator.end_placement(key_id, "nowhere"),
        operator.end_placement(key_id + 1, "full"),
    ):
        with pytest.raises(Unknown):
            await unknown
    await operator.set_capacity("full", 5)
    with pytest.raises(Unknown, match="key"):
        await operator.place_on(key_id + 1, "full", "test")
    with pytest.raises(Invalid, match="reason"):
        await operator.place_on(key_id, "full", " ")

    assert await live(root) == {}
