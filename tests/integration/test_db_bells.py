from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg import AsyncConnection

from tests.parts_postgres import Database
from tests.rows import add, add_key, add_node, add_subscription, one, place, promise


class Bells:
    """A connection that listens, beside one that writes."""

    def __init__(self, writing: AsyncConnection, listening: AsyncConnection) -> None:
        self.writing = writing
        self._listening = listening

    async def heard(self) -> list[str]:
        """What rang since the last call; our own last bell tells that nothing before it is missing."""
        await self.writing.execute("NOTIFY reconciler, 'end'")
        payloads: list[str] = []
        async for notify in self._listening.notifies(timeout=20):
            if notify.payload == "end":
                return payloads
            payloads.append(notify.payload)
        raise AssertionError("no bell came")

    async def after(self, statement: str, *values: object) -> list[str]:
        """What this one statement rings."""
        await self.heard()
        await self.writing.execute(statement.encode(), values)
        return await self.heard()


@pytest.fixture
async def bells(database: Database) -> AsyncIterator[Bells]:
    async with await database.connect() as writing, await database.connect("daemon") as listening:
        await listening.execute("LISTEN reconciler")
        yield Bells(writing, listening)


async def fill(bells: Bells, keys: int, nodes: int) -> None:
    """Nodes 1…n and keys 1…k, dealt to them in turn, with subscriptions of the same ids."""
    script = f"""
        INSERT INTO reconciler.users (name) VALUES ('u');
        INSERT INTO reconciler.nodes (name, api)
          SELECT 'n' || g, 'h:' || g FROM generate_series(1, {nodes}) g;
        INSERT INTO reconciler.subscriptions (user_id, expires_at)
          SELECT 1, now() + interval '1 day' FROM generate_series(1, {keys});
        INSERT INTO reconciler.keys (subscription_id, credential)
          SELECT g, gen_random_uuid() FROM generate_series(1, {keys}) g;
        INSERT INTO reconciler.placements (key_id, node_id, reason)
          SELECT g, 1 + (g - 1) % {nodes}, 'test' FROM generate_series(1, {keys}) g;
    """
    await bells.writing.execute(script.encode())


async def test_a_new_key_rings_at_no_node_and_its_placement_at_its_node(bells):
    subscription_id = await add_subscription(bells.writing)
    await bells.heard()

    key_id = await add_key(bells.writing, subscription_id)
    assert await bells.heard() == [f"1 k 0:{key_id}"]

    node_id = await add_node(bells.writing, "fra-1")
    assert await bells.heard() == [f"1 n {node_id}"] * 2  # the node, then its inbound

    await place(bells.writing, key_id, node_id)
    assert await bells.heard() == [f"1 k {node_id}:{key_id}"]


SUBSCRIPTION_CHANGES = [
    "expires_at = expires_at + interval '1 day'",
    "starts_at = starts_at - interval '1 day'",
    "revoked_at = now()",
    "traffic_limit_bytes = 5",
]
KEY_CHANGES = ["credential = gen_random_uuid()", "revoked_at = now()", "pool = 'other'", "spread = 'all'"]


@pytest.mark.parametrize(
    ("table", "change"),
    [("subscriptions", c) for c in SUBSCRIPTION_CHANGES] + [("keys", c) for c in KEY_CHANGES],
)
async def test_a_change_of_what_is_due_rings_at_the_keys_node(bells, table, change):
    await fill(bells, 2, 2)
    assert await bells.after(f"UPDATE reconciler.{table} SET {change} WHERE id = 2") == ["1 k 2:2"]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE reconciler.subscriptions SET plan = 'gold', expires_at = expires_at",
        "UPDATE reconciler.subscriptions SET revoked_at = now() WHERE false",
        "UPDATE reconciler.keys SET pool = pool",
        "UPDATE reconciler.placements SET reason = 'other'",
        "UPDATE reconciler.nodes SET link_template = 'x{uuid}'",
        "UPDATE reconciler.users SET name = 'other'",
    ],
)
async def test_what_changes_nothing_that_is_due_is_silent(bells, statement):
    await fill(bells, 3, 2)
    assert await bells.after(statement) == []


async def test_a_writer_rings_at_nodes_that_it_cannot_see(bells, database):
    await fill(bells, 1, 1)
    await bells.heard()
    async with await database.connect("writer") as writer:
        await writer.execute("UPDATE reconciler.subscriptions SET revoked_at = now()")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await writer.execute("SELECT FROM reconciler.placements")
    assert await bells.heard() == ["1 k 1:1"]


async def test_a_key_rings_too_where_it_is_only_promised_still(bells):
    await fill(bells, 1, 2)
    await promise(bells.writing, 1, 2)
    assert await bells.after("UPDATE reconciler.subscriptions SET revoked_at = now()") == ["1 k 1:1,2:1"]


async def test_a_placement_that_changes_its_node_rings_at_both(bells):
    await fill(bells, 1, 2)
    assert await bells.after("UPDATE reconciler.placements SET node_id = 2") == ["1 k 1:1,2:1"]


async def test_a_key_whose_last_placement_ended_is_to_be_placed_again(bells):
    await fill(bells, 1, 2)
    await place(bells.writing, 1, 2)
    end = "UPDATE reconciler.placements SET ended_at = now() WHERE node_id = %s"
    assert await bells.after(end, 1) == ["1 k 1:1"]
    assert await bells.after(end, 2) == ["1 k 0:1,2:1"]


async def test_a_confirmed_move_rings_at_the_old_node(bells):
    await fill(bells, 1, 2)
    await promise(bells.writing, 1, 1)
    await place(bells.writing, 1, 2)
    await bells.heard()

    await promise(bells.writing, 1, 2)
    assert await bells.heard() == ["1 k 1:1"]

    assert await bells.after("UPDATE reconciler.promises SET promised_until = now()") == []
    change = "UPDATE reconciler.promises SET account_digest = 'x' WHERE node_id = 2"
    assert await bells.after(change) == ["1 k 1:1"]


async def test_a_promise_of_a_key_that_is_nowhere_else_is_silent(bells):
    await fill(bells, 1, 1)
    await bells.heard()
    await promise(bells.writing, 1, 1)
    assert await bells.heard() == []


async def test_promises_of_a_key_spread_over_all_nodes_ring_nowhere(bells):
    await fill(bells, 1, 2)
    await bells.writing.execute("UPDATE reconciler.keys SET spread = 'all'")
    await place(bells.writing, 1, 2)
    await promise(bells.writing, 1, 1)
    await bells.heard()
    await promise(bells.writing, 1, 2)
    assert await bells.heard() == []


@pytest.mark.parametrize("change", ["state = 'draining'", "pool = 'x'", "capacity = 5", "api = 'other:1'"])
async def test_a_changed_node_rings_as_a_whole(bells, change):
    await fill(bells, 1, 1)
    assert await bells.after(f"UPDATE reconciler.nodes SET {change}") == ["1 n 1"]


@pytest.mark.parametrize("change", ["ended_at = now()", "tag = 'other'", "flow = 'xtls-rprx-vision'"])
async def test_a_changed_inbound_rings_its_node(bells, change):
    node_id = await add_node(bells.writing, "fra-1")
    assert await bells.after(f"UPDATE reconciler.inbounds SET {change}") == [f"1 n {node_id}"]


async def test_an_order_rings_its_node_or_all_of_them(bells):
    node_id = await add_node(bells.writing, "fra-1")
    for target, bell in ((node_id, f"1 n {node_id}"), (None, "1 *")):
        await bells.heard()
        await add(
            bells.writing,
            "orders",
            kind="release",
            node_id=target,
            key_ids=[1],
            digest=await one(bells.writing, "SELECT sha256('1')"),
            count=1,
            actor="a",
            valid_until="2030-01-01Z",
        )
        assert await bells.heard() == [bell]
    assert await bells.after("UPDATE reconciler.orders SET done_at = now()") == []


async def test_a_hundred_pairs_are_named_and_more_ring_their_nodes(bells):
    await fill(bells, 101, 2)
    extend = "UPDATE reconciler.subscriptions SET expires_at = expires_at + interval '1 day' WHERE id <= %s"

    (named,) = await bells.after(extend, 100)
    assert sorted(named.removeprefix("1 k ").split(",")) == sorted(f"{2 - i % 2}:{i}" for i in range(1, 101))
    assert await bells.after(extend, 101) == ["1 n 1,2"]


async def test_more_than_500_nodes_ring_everything(bells):
    await fill(bells, 0, 501)
    (five_hundred,) = await bells.after("UPDATE reconciler.nodes SET state = 'active' WHERE id <= 500")
    assert five_hundred == "1 n " + ",".join(map(str, range(1, 501)))
    assert await bells.after("UPDATE reconciler.nodes SET state = 'draining'") == ["1 *"]


async def test_more_than_10000_keys_at_once_ring_everything(bells):
    await fill(bells, 10_001, 2)
    assert await bells.after("UPDATE reconciler.subscriptions SET revoked_at = now()") == ["1 *"]
    reopen = "UPDATE reconciler.subscriptions SET revoked_at = NULL WHERE id <= 10000"
    assert await bells.after(reopen) == ["1 n 1,2"]


async def test_the_longest_pairs_and_nodes_fit_into_a_payload(bells):
    greatest = 2**63 - 1
    many = f"ARRAY(SELECT {greatest} - g FROM generate_series(0, %s) g)"

    (pairs,) = await bells.after(f"SELECT reconciler.ring_pairs({many}, {many})", 99, 99)
    assert pairs.count(f":{greatest // 10**6}") == 100
    assert await bells.after(f"SELECT reconciler.ring_nodes({many})", 499) == ["1 *"]


async def test_a_statement_rings_only_when_it_is_committed(bells):
    await fill(bells, 1, 1)
    await bells.heard()
    async with bells.writing.transaction(force_rollback=True):
        await bells.writing.execute("UPDATE reconciler.subscriptions SET revoked_at = now()")
    assert await bells.heard() == []
