"""The audit trail: every change of the desired tables, whoever made it, without a credential in it."""

import json
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from tests.rows import Connection, add, add_key, add_node, add_subscription, one, place

AUDITED = ("users", "subscriptions", "keys", "grants", "nodes", "inbounds", "placements", "orders")
SECRETS = {"credential"}
OBSERVING = ("audit", "ending", "ring")
"""Triggers that look at what a statement did, and change nothing of it."""

ROUNDS = 12


async def trail(connection: Connection) -> list[tuple[Any, ...]]:
    """Everything on record but times: table, rows, column, before, after."""
    cursor = await connection.execute(
        "SELECT table_name, row_ids, column_name, before, after FROM reconciler.audit ORDER BY id"
    )
    return await cursor.fetchall()


async def clear(connection: Connection) -> None:
    """Forget what is on record, as only a superuser can who goes around the triggers."""
    await connection.execute("SET session_replication_role = replica")
    await connection.execute("DELETE FROM reconciler.audit")
    await connection.execute("SET session_replication_role = origin")


async def test_each_changed_column_is_told_from_what_to_what(database):
    async with await database.connect() as root:
        subscription_id = await add_subscription(root, traffic_limit_bytes=5)
        await clear(root)
        await root.execute(
            "UPDATE reconciler.subscriptions SET plan = 'gold', traffic_limit_bytes = NULL,"
            " expires_at = '2031-01-01 03:00+02', starts_at = starts_at"
        )
        await root.execute("UPDATE reconciler.subscriptions SET plan = 'gold'")
        await root.execute("UPDATE reconciler.subscriptions SET plan = 'other' WHERE false")

        found = {column: (rows, before, after) for _, rows, column, before, after in await trail(root)}
        assert found.keys() == {"plan", "traffic_limit_bytes", "expires_at"}
        assert found["plan"] == ([subscription_id], [""], ["gold"])
        assert found["traffic_limit_bytes"] == ([subscription_id], ["5"], [None])
        assert found["expires_at"][2] == ["2031-01-01 01:00:00+00"]


async def test_the_time_the_role_the_program_and_the_transaction_are_told(database):
    async with await database.connect("writer") as writer, await database.connect() as root:
        async with writer.transaction():
            await writer.execute("SET LOCAL application_name = 'a shop'")
            await writer.execute("INSERT INTO reconciler.users (name) VALUES ('a'), ('b')")
            await writer.execute("UPDATE reconciler.users SET name = 'c' WHERE name = 'a'")
        cursor = await root.execute(
            "SELECT role, application, count(DISTINCT transaction_id), count(*),"
            " bool_and(at BETWEEN now() - interval '1 min' AND now()) FROM reconciler.audit GROUP BY 1, 2"
        )
        assert await cursor.fetchall() == [(writer.info.user, "a shop", 1, 2, True)]


async def test_one_statement_over_many_rows_is_one_entry_of_those_it_changed(database):
    async with await database.connect() as root:
        await root.execute("INSERT INTO reconciler.users (name) SELECT 'u' || g FROM generate_series(1, 9) g")
        await root.execute("UPDATE reconciler.users SET name = CASE WHEN id % 3 = 0 THEN 'x' ELSE name END")
        ((_, made, *_), (_, changed, _, before, after)) = await trail(root)
        assert sorted(made) == list(range(1, 10))
        assert sorted(zip(changed, before, after, strict=True)) == [(i, f"u{i}", "x") for i in (3, 6, 9)]


@pytest.mark.parametrize("table", AUDITED)
async def test_every_desired_table_is_on_record(database, table):
    async with await database.connect() as root:
        subscription_id = await add_subscription(root)
        await place(root, await add_key(root, subscription_id), await add_node(root, "fra-1"))
        await add(
            root, "grants", subscription_id=1, kind="gift", actor="a", resulting_expires_at="2030-01-01Z"
        )
        order = {"key_ids": [1], "digest": await one(root, "SELECT sha256('1')"), "count": 1, "actor": "a"}
        await add(root, "orders", kind="release", node_id=1, valid_until="2030-01-01Z", **order)
        new = [rows for name, rows, column, *_ in await trail(root) if name == table and column is None]
        assert new == [[1]]
        if table != "grants":
            column = {"placements": "ended_at", "orders": "done_at", "inbounds": "ended_at"}.get(
                table, "created_at"
            )
            change = sql.SQL("UPDATE reconciler.{} SET {} = '2020-01-01Z'")
            await root.execute(change.format(sql.Identifier(table), sql.Identifier(column)))
            assert (await trail(root))[-1][:3] == (table, [1], column)


async def test_a_credential_is_only_told_to_be_another(database):
    old, new = UUID("11111111-2222-3333-4444-555555555555"), UUID("99999999-2222-3333-4444-555555555555")
    async with await database.connect() as root:
        await add_key(root, credential=old)
        await root.execute("UPDATE reconciler.keys SET credential = %s, pool = 'eu'", (new,))

        assert ("keys", [1], "credential", ["…"], ["…"]) in await trail(root)
        whole = await one(root, "SELECT string_agg(a::text, ' ') FROM reconciler.audit a")
        for secret in (old, new):
            assert str(secret) not in whole
            assert secret.hex not in whole


async def test_no_audited_column_that_could_be_a_credential_is_told(database):
    async with await database.connect() as root:
        cursor = await root.execute(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = 'reconciler' AND table_name = ANY(%s) AND data_type = 'uuid'",
            (list(AUDITED),),
        )
        assert {name for (name,) in await cursor.fetchall()} == SECRETS


@pytest.mark.parametrize("role", ["daemon", "operator", "reader", "writer"])
async def test_no_role_writes_alters_or_hides_a_track(database, role):
    async with await database.connect(role) as connection:
        for statement in (
            "INSERT INTO reconciler.audit (table_name, row_ids) VALUES ('users', '{1}')",
            "UPDATE reconciler.audit SET role = 'other'",
            "DELETE FROM reconciler.audit",
            (
                "CREATE TEMP TABLE mine (id bigint);"
                " CREATE TRIGGER forge AFTER INSERT ON mine REFERENCING NEW TABLE AS new_rows"
                " FOR EACH STATEMENT EXECUTE FUNCTION reconciler.audit_new()"
            ),
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(statement.encode())


async def test_even_the_owner_drops_only_what_is_old(database):
    async with await database.connect() as root:
        await add(root, "users", name="a")
        for statement in ("DELETE FROM reconciler.audit", "TRUNCATE reconciler.audit"):
            with pytest.raises(psycopg.errors.RaiseException, match="history stays"):
                await root.execute(statement.encode())
        await root.execute("SET session_replication_role = replica")
        await root.execute("UPDATE reconciler.audit SET at = now() - interval '91 days'")
        await root.execute("SET session_replication_role = origin")
        await root.execute("DELETE FROM reconciler.audit WHERE at < now() - interval '90 days'")
        assert await trail(root) == []


async def share(connection: Connection, statement: str, trigger: str) -> float:
    """What a trigger takes of a statement, as a part of all the rest of it."""
    cursor = await connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}".encode())
    row = await cursor.fetchone()
    assert row is not None
    (found,) = row[0] if isinstance(row[0], list) else json.loads(row[0])
    times = {one["Trigger Name"]: float(one["Time"]) for one in found["Triggers"]}
    return times[trigger] / (float(found["Execution Time"]) - sum(times[each] for each in OBSERVING))


@pytest.mark.parametrize("trigger", OBSERVING)
async def test_a_bulk_update_is_not_slowed_by_more_than_a_fifth(database, trigger):
    async with await database.connect() as root:
        await root.execute("""
            INSERT INTO reconciler.users (name) VALUES ('somebody');
            INSERT INTO reconciler.subscriptions (user_id, expires_at)
              SELECT 1, now() + interval '9 days' FROM generate_series(1, 100000);
            ANALYZE reconciler.subscriptions;
        """)
        extend = "UPDATE reconciler.subscriptions SET expires_at = expires_at + interval '1 day'"
        shares: list[float] = []
        while len(shares) < ROUNDS and (not shares or min(shares) > 0.2):
            shares.append(await share(root, extend, trigger))
        assert min(shares) <= 0.2, shares
