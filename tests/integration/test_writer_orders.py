"""Orders: an operator's word, bound to exactly the keys that were shown."""

from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest

from reconciler.db.pool import Connection
from reconciler.desired import buckets
from reconciler.desired.nodes import NewNode
from reconciler.desired.terms import Term
from reconciler.desired.writer import Operator
from reconciler.errors import Invalid, Unknown
from reconciler.model import Inbound, NodeState, Protocol


@pytest.fixture
async def connection(database):
    async with await database.connect("operator") as connection:
        yield connection


@pytest.fixture
async def operator(connection):
    operator = Operator(connection, "root")
    for name in ("fra-1", "fra-2"):
        inbounds = [Inbound("in", Protocol.VLESS)]
        await operator.add_node(
            NewNode(name=name, api=f"{name}:1", inbounds=inbounds, state=NodeState.ACTIVE)
        )
    return operator


async def granted(operator: Operator, number: int) -> tuple[list[int], list[int]]:
    """Grant so many subscriptions with a key each; return the ids of both."""
    user = await operator.add_user("Olga")
    made = [await operator.grant(user.user_id, Term(days=30)) for _ in range(number)]
    return [one.subscription_id for one in made], [one.key_id for one in made]


async def promise(connection: Connection, node: str, key_id: int, *, ended: bool = False) -> None:
    """Write, as the daemon would, that the node carries the key."""
    await connection.execute(
        "INSERT INTO reconciler.promises"
        " (key_id, node_id, account_digest, promised_until, ended_at, ended_reason)"
        " SELECT %s, id, '', now() + interval '1 day', CASE WHEN %s THEN now() END, 'test'"
        "   FROM reconciler.nodes WHERE name = %s",
        (key_id, ended, node),
    )


async def orders(connection: Connection) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(
        "SELECT o.kind, n.name, o.key_ids, o.count, o.actor, o.done_at"
        "  FROM reconciler.orders o JOIN reconciler.nodes n ON n.id = o.node_id ORDER BY o.id"
    )
    return await cursor.fetchall()


async def live(connection: Connection) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(
        "SELECT n.name, p.key_id FROM reconciler.placements p JOIN reconciler.nodes n ON n.id = p.node_id"
        " WHERE p.ended_at IS NULL ORDER BY 1, 2"
    )
    return await cursor.fetchall()


async def test_an_order_holds_its_keys_ascending_their_number_and_digest(operator, connection):
    ordered = await operator.release("fra-1", [30, 4, 4, 2**63 - 1])
    await operator.purge_orphans("fra-2", [7])

    assert await orders(connection) == [
        ("release", "fra-1", [4, 30, 2**63 - 1], 3, "root", None),
        ("purge_orphans", "fra-2", [7], 1, "root", None),
    ]
    cursor = await connection.execute(
        "SELECT digest, valid_until, created_at FROM reconciler.orders WHERE id = %s", (ordered.order_id,)
    )
    ((digest, valid_until, created_at),) = await cursor.fetchall()
    assert digest == sha256(b"4,30,9223372036854775807").digest()
    assert valid_until == ordered.valid_until == created_at + timedelta(hours=1)
    assert ordered.count == 3


@pytest.mark.parametrize("keys", [[], [0], [2**63], [1, 2**70]])
async def test_an_order_over_nothing_or_impossible_keys_is_refused(operator, connection, keys):
    for order in (operator.release, operator.purge_orphans, operator.empty):
        with pytest.raises(Invalid, match="key_ids"):
            await order("fra-1", keys)

    assert await orders(connection) == []


async def test_an_order_for_no_node_or_for_ever_is_refused(operator):
    with pytest.raises(Unknown, match="node"):
        await operator.release("fra-9", [1])
    for seconds in (0, -1, 8 * 86_400):
        with pytest.raises(Invalid, match="valid_seconds"):
            await operator.release("fra-1", [1], seconds)


async def test_a_draining_node_is_emptied_with_all_its_placements(operator, connection):
    _, keys = await granted(operator, 2)
    for key_id in keys:
        await operator.place_on(key_id, "fra-1", "test")
    await operator.place_on(keys[0], "fra-2", "test")
    with pytest.raises(Invalid, match="draining"):
        await operator.empty("fra-1", keys)
    await operator.set_state("fra-1", NodeState.DRAINING)
    with pytest.raises(Invalid, match="1 more"):
        await operator.empty("fra-1", keys[:1])
    assert len(await live(connection)) == 3

    await operator.empty("fra-1", [*keys, 999])

    assert len(await live(connection)) == 3
    cursor = await connection.execute(
        "SELECT key_id, grace_seconds FROM reconciler.placements WHERE leaving_at <= now()"
    )
    assert sorted(await cursor.fetchall()) == [(key_id, 0) for key_id in keys]
    await operator.empty("fra-1", keys, grace_seconds=None)
    assert await live(connection) == [("fra-2", keys[0])]
    assert await orders(connection) == [
        ("empty", "fra-1", [*keys, 999], 3, "root", None),
        ("release", "fra-1", keys, 2, "root", None),
    ]
    cursor = await connection.execute("SELECT DISTINCT reason FROM reconciler.placements")
    assert await cursor.fetchall() == [("test",)]


async def test_a_mass_revoke_orders_exactly_the_promised_keys_of_each_node(database, operator, connection):
    subscriptions, keys = await granted(operator, 5)
    async with await database.connect("daemon") as daemon:
        await promise(daemon, "fra-1", keys[0])
        await promise(daemon, "fra-1", keys[1])
        await promise(daemon, "fra-2", keys[1])
        await promise(daemon, "fra-2", keys[2], ended=True)
        await promise(daemon, "fra-2", keys[4])

    revoked = await operator.revoke_all(subscriptions[:4], 4, release=True)

    assert revoked.subscription_ids == tuple(subscriptions[:4])
    assert [order.count for order in revoked.orders] == [2, 1]
    assert await orders(connection) == [
        ("release", "fra-1", keys[:2], 2, "root", None),
        ("release", "fra-2", keys[1:2], 1, "root", None),
    ]
    found = [row.bucket for row in await buckets.users(connection)]
    assert found == ["revoked"] * 4 + ["active"]

    again = await operator.revoke_all(subscriptions[:4], 4, release=True)
    assert (again.subscription_ids, again.orders) == ((), ())
    assert len(await orders(connection)) == 2


async def test_a_mass_revoke_without_release_writes_no_order(database, operator, connection):
    subscriptions, keys = await granted(operator, 2)
    async with await database.connect("daemon") as daemon:
        await promise(daemon, "fra-1", keys[0])

    revoked = await operator.revoke_all(subscriptions, 2, release=False)

    assert len(revoked.subscription_ids) == 2
    assert await orders(connection) == []


async def test_a_mass_revoke_takes_only_the_count_that_was_shown(operator, connection):
    subscriptions, _ = await granted(operator, 3)
    for wrong in (2, 4, 0):
        with pytest.raises(Invalid, match="count"):
            await operator.revoke_all(subscriptions, wrong, release=True)
    with pytest.raises(Invalid, match="count"):
        await operator.revoke_all([], 0, release=True)
    with pytest.raises(Unknown, match="subscription"):
        await operator.revoke_all([*subscriptions, 999], 4, release=True)

    assert {row.bucket for row in await buckets.users(connection)} == {"active"}
