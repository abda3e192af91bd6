from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from tests.rows import add, add_key, add_node, add_subscription, one, place

KEPT = (
    "users",
    "subscriptions",
    "keys",
    "grants",
    "nodes",
    "inbounds",
    "placements",
    "orders",
    "source",
)


@pytest.mark.parametrize("table", KEPT)
@pytest.mark.parametrize("statement", ["DELETE FROM reconciler.{}", "TRUNCATE reconciler.{} CASCADE"])
async def test_rows_are_ended_and_never_deleted_even_by_a_superuser(database, table, statement):
    async with await database.connect() as connection:
        with pytest.raises(psycopg.errors.RaiseException, match=f"reconciler.{table} is refused"):
            await connection.execute(sql.SQL(statement).format(sql.Identifier(table)))


@pytest.mark.parametrize("table", ["users", "subscriptions", "keys", "nodes"])
async def test_a_change_is_stamped_by_the_clock_and_not_by_the_transaction(database, table):
    async with await database.connect() as connection:
        await place(connection, await add_key(connection), await add_node(connection, "fra-1"))
        later = sql.SQL("SELECT updated_at > now() FROM reconciler.{}").format(sql.Identifier(table))
        async with connection.transaction():
            change = sql.SQL("UPDATE reconciler.{} SET updated_at = '2001-01-01Z'")
            await connection.execute(change.format(sql.Identifier(table)))
            cursor = await connection.execute(later)
            assert await cursor.fetchall() == [(True,)]


async def test_a_new_row_cannot_claim_another_time(database):
    async with await database.connect() as connection:
        await add(connection, "users", name="x", updated_at="2001-01-01Z")
        assert await one(connection, "SELECT updated_at > '2002-01-01Z' FROM reconciler.users")


async def test_a_grant_is_not_rewritten(database):
    async with await database.connect() as connection:
        subscription_id = await add_subscription(connection)
        await add(
            connection,
            "grants",
            subscription_id=subscription_id,
            kind="gift",
            actor="a",
            resulting_expires_at="2030-01-01Z",
        )
        with pytest.raises(psycopg.errors.RaiseException, match="history stays"):
            await connection.execute("UPDATE reconciler.grants SET days = 5")


@pytest.mark.parametrize(
    "change",
    [
        "kind = 'empty'",
        "actor = 'other'",
        "node_id = NULL",
        "key_ids = '{1}', count = 1, digest = sha256('1')",
    ],
)
async def test_an_order_stays_bound_to_what_was_shown(database, change):
    async with await database.connect() as connection:
        await add(
            connection,
            "orders",
            kind="release",
            node_id=await add_node(connection, "fra-1"),
            key_ids=[1, 2],
            digest=await one(connection, "SELECT sha256('1,2')"),
            count=2,
            actor="a",
            valid_until="2030-01-01Z",
        )
        with pytest.raises(psycopg.errors.RaiseException, match="an order is bound to what was shown"):
            await connection.execute(f"UPDATE reconciler.orders SET {change}".encode())
        await connection.execute("UPDATE reconciler.orders SET done_at = now()")


async def test_the_mark_is_for_ever_and_the_beat_is_not(database):
    async with await database.connect() as connection:
        with pytest.raises(psycopg.errors.RaiseException, match="the mark stands on every node"):
            await connection.execute("UPDATE reconciler.source SET owner = 'other'")
        await connection.execute("UPDATE reconciler.source SET beat = beat + 1")


async def test_there_is_one_source(database):
    async with await database.connect() as connection:
        for single in (True, False):
            with pytest.raises(psycopg.errors.IntegrityError):
                await connection.execute(
                    "INSERT INTO reconciler.source (single, owner) VALUES (%s, 'b')", (single,)
                )


@pytest.mark.parametrize(
    ("second", "clash"),
    [
        ("11111111-2222-ffff-4444-555555555555", True),  # only bytes 7 and 8 differ, which Xray ignores
        ("11111111-2223-3333-4444-555555555555", False),  # byte 6 differs
        ("11111111-2222-3333-4544-555555555555", False),  # byte 9 differs
    ],
)
async def test_keys_that_xray_cannot_tell_apart_are_refused(database, second, clash):
    async with await database.connect() as connection:
        await add_key(connection, credential=UUID("11111111-2222-3333-4444-555555555555"))
        if clash:
            with pytest.raises(psycopg.errors.UniqueViolation, match="keys_credential_masked"):
                await add_key(connection, credential=UUID(second))
        else:
            await add_key(connection, credential=UUID(second))


async def test_a_placement_or_inbound_lives_once_and_may_come_again(database):
    async with await database.connect() as connection:
        node_id = await add_node(connection, "fra-1")
        key_id = await add_key(connection)
        await place(connection, key_id, node_id)
        with pytest.raises(psycopg.errors.UniqueViolation):
            await place(connection, key_id, node_id)
        with pytest.raises(psycopg.errors.UniqueViolation):
            await add(connection, "inbounds", node_id=node_id, tag="vless-in", protocol="vmess")
        await connection.execute("UPDATE reconciler.placements SET ended_at = now()")
        await connection.execute("UPDATE reconciler.inbounds SET ended_at = now()")
        await place(connection, key_id, node_id)
        await add(connection, "inbounds", node_id=node_id, tag="vless-in", protocol="vmess")


SUBSCRIPTION = "subscriptions (user_id, expires_at) VALUES (1, {})"
NODE = "nodes (name, api, {0}) VALUES ('a', 'a:1', {1})"
REFUSED = {
    "an end before the start": SUBSCRIPTION.format("'2000-01-02Z'"),
    "an end absurdly far": SUBSCRIPTION.format("'2100-01-01Z'"),
    "an end that is infinity": SUBSCRIPTION.format("'infinity'"),
    "a node whose api is no address": "nodes (name, api) VALUES ('a', 'nowhere')",
    "a node whose capacity is below zero": NODE.format("capacity", "-1"),
    "a link without its uuid": NODE.format("link_template", "'vless://x'"),
    "an unknown state": NODE.format("state", "'on'"),
    "an order with the digest of another set": (
        "orders (kind, key_ids, digest, count, actor, valid_until)"
        " VALUES ('release', '{1}', sha256('2'), 1, 'a', now())"
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_row_out_of_its_bounds_is_refused(database, case):
    async with await database.connect() as connection:
        await add(connection, "users", name="somebody")
        with pytest.raises(psycopg.errors.CheckViolation):
            await connection.execute(f"INSERT INTO reconciler.{REFUSED[case]}".encode())
