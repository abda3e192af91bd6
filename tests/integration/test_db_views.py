import pytest
from psycopg.rows import dict_row

from tests.rows import Connection, add, add_key, add_node, add_subscription, one, place, promise

PAST, SOON, LATER = "-1 second", "7 days", "7 days 1 minute"


async def state(connection: Connection, subscription_id: int | None) -> dict[str, object]:
    cursor = connection.cursor(row_factory=dict_row)
    await cursor.execute(
        "SELECT * FROM reconciler.subscription_state WHERE subscription_id IS NOT DISTINCT FROM %s",
        (subscription_id,),
    )
    (row,) = await cursor.fetchall()
    return row


async def use(connection: Connection, key_id: int, size: int) -> None:
    await connection.execute(
        "INSERT INTO reconciler.usage (key_id, up_bytes, down_bytes) VALUES (%s, %s, %s)"
        " ON CONFLICT (key_id) DO UPDATE SET down_bytes = EXCLUDED.down_bytes",
        (key_id, 1, size - 1),
    )


@pytest.mark.parametrize(
    ("expires_in", "used", "revoked", "bucket"),
    [
        (LATER, 99, False, "active"),
        (SOON, 99, False, "expiring_in_7d"),
        (LATER, 100, False, "over_quota"),
        (SOON, 100, False, "over_quota"),
        (PAST, 100, False, "expired"),
        (PAST, 100, True, "revoked"),
        (LATER, 99, True, "revoked"),
    ],
)
async def test_a_subscription_falls_in_the_first_bucket_that_fits(
    database, expires_in, used, revoked, bucket
):
    async with await database.connect() as connection:
        subscription_id = await add_subscription(connection, expires_in, traffic_limit_bytes=100)
        await use(connection, await add_key(connection, subscription_id), used)
        if revoked:
            await connection.execute("UPDATE reconciler.subscriptions SET revoked_at = now()")

        row = await state(connection, subscription_id)

        assert (row["bucket"], row["used_bytes"]) == (bucket, used)


async def test_a_user_without_subscriptions_has_one_row(database):
    async with await database.connect() as connection:
        user_id = await add(connection, "users", name="somebody", telegram_id=77)
        row = await state(connection, None)
    assert (row["user_id"], row["telegram_id"], row["bucket"]) == (user_id, 77, "no_subscription")


async def test_usage_is_that_of_all_keys_since_the_period_began_as_the_function_says(database):
    async with await database.connect() as connection:
        subscription_id = await add_subscription(connection, LATER, traffic_limit_bytes=100)
        first, second = [await add_key(connection, subscription_id) for _ in range(2)]
        await use(connection, first, 100)
        await use(connection, second, 80)
        await connection.execute("UPDATE reconciler.keys SET revoked_at = now() WHERE id = %s", (first,))
        assert (await state(connection, subscription_id))["bucket"] == "over_quota"

        for started, base in (("-2 days", 50), ("-1 day", 150), ("1 day", 999)):
            await connection.execute(
                "INSERT INTO reconciler.usage_periods VALUES (%s, now() + %s::interval, %s)",
                (subscription_id, started, base),
            )

        row = await state(connection, subscription_id)
        assert (row["used_bytes"], row["bucket"]) == (30, "active")
        assert await one(connection, "SELECT reconciler.used_bytes(%s)", subscription_id) == 30


async def keys(connection: Connection) -> list[tuple[object, ...]]:
    cursor = await connection.execute(
        "SELECT key_id, node, placed_at IS NOT NULL, usable_since IS NOT NULL, promised_until IS NOT NULL,"
        " revoked FROM reconciler.key_state ORDER BY key_id, node"
    )
    return await cursor.fetchall()


async def test_a_key_is_one_row_per_node_and_one_without_any(database):
    async with await database.connect() as connection:
        key_id = await add_key(connection)
        assert await keys(connection) == [(key_id, None, False, False, False, False)]

        nodes = [await add_node(connection, name) for name in ("ams-1", "fra-1")]
        for node_id in nodes:
            await place(connection, key_id, node_id)
        await promise(connection, key_id, nodes[1])
        assert await keys(connection) == [
            (key_id, "ams-1", True, False, False, False),
            (key_id, "fra-1", True, True, True, False),
        ]

        await connection.execute("UPDATE reconciler.placements SET ended_at = now()")
        await connection.execute("UPDATE reconciler.keys SET revoked_at = now()")
        assert await keys(connection) == [(key_id, None, False, False, False, True)]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE reconciler.keys SET credential = gen_random_uuid()",
        "UPDATE reconciler.inbounds SET flow = 'xtls-rprx-vision' WHERE protocol = 'vless'",
        "INSERT INTO reconciler.inbounds (node_id, tag, protocol) VALUES (1, 'other', 'vmess')",
        "UPDATE reconciler.promises SET ended_at = now(), ended_reason = 'moved'",
    ],
)
async def test_a_key_is_usable_only_while_the_promise_carries_its_present_account(database, change):
    async with await database.connect() as connection:
        key_id, node_id = await add_key(connection), await add_node(connection, "fra-1")
        await add(connection, "inbounds", node_id=node_id, tag="a", protocol="vmess")
        await place(connection, key_id, node_id)
        await promise(connection, key_id, node_id)
        assert (await keys(connection))[0][3] is True

        await connection.execute(change.encode())

        assert (await keys(connection))[0][3] is False


async def test_no_view_shows_a_credential(database):
    async with await database.connect() as connection:
        cursor = await connection.execute(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = 'reconciler' AND table_name IN ('key_state', 'subscription_state')"
            " AND data_type IN ('uuid', 'bytea')"
        )
        assert await cursor.fetchall() == []


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM reconciler.subscription_state WHERE user_id = 5",
        "SELECT * FROM reconciler.subscription_state WHERE telegram_id = 5",
        "SELECT * FROM reconciler.key_state WHERE key_id = 5",
        "SELECT * FROM reconciler.key_state WHERE user_id = 5",
    ],
)
async def test_one_row_is_found_without_reading_whole_tables(database, query):
    async with await database.connect() as connection:
        await connection.execute("""
            INSERT INTO reconciler.users (name, telegram_id) SELECT 'u', g FROM generate_series(1, 5000) g;
            INSERT INTO reconciler.subscriptions (user_id, expires_at)
              SELECT id, '2099-01-01Z' FROM reconciler.users;
            INSERT INTO reconciler.keys (subscription_id, credential)
              SELECT id, gen_random_uuid() FROM reconciler.subscriptions;
            INSERT INTO reconciler.nodes (name, api) VALUES ('n', 'h:1');
            INSERT INTO reconciler.placements (key_id, node_id, reason)
              SELECT id, 1, 'x' FROM reconciler.keys;
            INSERT INTO reconciler.promises (key_id, node_id, account_digest, promised_until)
              SELECT id, 1, '', now() FROM reconciler.keys;
            INSERT INTO reconciler.usage (key_id) SELECT id FROM reconciler.keys;
            ANALYZE reconciler.users, reconciler.subscriptions, reconciler.keys, reconciler.placements,
              reconciler.promises, reconciler.usage;
        """)
        cursor = await connection.execute(b"EXPLAIN " + query.encode())
        plan = [line for (line,) in await cursor.fetchall()]

    small = ("nodes", "inbounds", "usage_periods")
    whole = [line for line in plan if "Seq Scan" in line and not any(f"on {t} " in line for t in small)]
    assert whole == []
