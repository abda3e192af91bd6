import psycopg
import pytest
from psycopg import sql

from tests.parts_postgres import Database
from tests.rows import add_key, add_node, place

DESIRED = {"users", "subscriptions", "keys", "grants", "nodes", "inbounds", "placements", "orders"}
STATUS = {
    "node_status",
    "promises",
    "leases",
    "usage",
    "usage_periods",
    "usage_checkpoints",
    "node_boots",
    "node_usage",
}
ONE_ROW = {"source", "migrations"}
COUNTED = {"placement_counts"}
TRAIL = {"audit"}
VIEWS = {"subscription_state", "key_state"}
ALL = DESIRED | STATUS | COUNTED | ONE_ROW | TRAIL | VIEWS

READS = {
    "daemon": ALL - TRAIL,
    "operator": ALL,
    "reader": ALL - {"keys"},
    "writer": {"users", "subscriptions", "keys", "grants", "migrations"} | VIEWS,
}

Granted = dict[str, dict[str, set[str] | None]]

# What may be inserted and updated: every column of a table, or those named.
INSERTS: Granted = {
    "daemon": dict[str, set[str] | None].fromkeys(STATUS) | {"placements": {"key_id", "node_id", "reason"}},
    "operator": dict.fromkeys(DESIRED),
    "reader": {},
    "writer": {
        "users": {"telegram_id", "name"},
        "subscriptions": {
            "user_id",
            "plan",
            "starts_at",
            "expires_at",
            "traffic_limit_bytes",
            "traffic_renewal",
        },
        "keys": {"subscription_id", "credential", "pool", "spread"},
        "grants": {
            "subscription_id",
            "kind",
            "days",
            "traffic_bytes",
            "amount",
            "currency",
            "actor",
            "external_id",
            "resulting_expires_at",
            "note",
        },
    },
}
UPDATES: Granted = {
    "daemon": dict[str, set[str] | None].fromkeys(STATUS)
    | {"placements": {"ended_at", "leaving_at", "grace_seconds"}, "orders": {"done_at"}, "source": {"beat"}},
    "operator": dict.fromkeys(DESIRED - {"grants", "orders"}),
    "reader": {},
    "writer": {
        "users": {"telegram_id", "name"},
        "subscriptions": {
            "plan",
            "starts_at",
            "expires_at",
            "traffic_limit_bytes",
            "traffic_renewal",
            "revoked_at",
        },
        "keys": {"credential", "pool", "spread", "revoked_at"},
    },
}
ROLES = sorted(READS)


async def columns(database: Database) -> list[tuple[str, str]]:
    async with await database.connect() as connection:
        cursor = await connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'reconciler'"
        )
        return await cursor.fetchall()


async def test_the_tables_named_here_are_all_there_are(database):
    assert {table for table, _ in await columns(database)} == ALL


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_reads_what_it_should_and_nothing_else(database, role):
    async with await database.connect(role) as connection:
        for table in ALL:
            query = sql.SQL("SELECT * FROM reconciler.{}").format(sql.Identifier(table))
            if table in READS[role]:
                await connection.execute(query)
            else:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await connection.execute(query)


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_writes_the_columns_it_should_and_no_other(database, role):
    async with await database.connect(role) as connection:
        for verb, granted in (("INSERT", INSERTS[role]), ("UPDATE", UPDATES[role])):
            for table, column in await columns(database):
                named = granted.get(table, set())
                allowed = named is None or column in named
                cursor = await connection.execute(
                    "SELECT has_column_privilege('reconciler.' || %s, %s, %s)", (table, column, verb)
                )
                assert await cursor.fetchone() == (allowed,), (role, verb, table, column)


@pytest.mark.parametrize("role", ROLES)
async def test_nobody_deletes_truncates_or_alters(database, role):
    async with await database.connect(role) as connection:
        for table in ALL - VIEWS:
            for statement in (
                "DELETE FROM reconciler.{}",
                "TRUNCATE reconciler.{}",
                "ALTER TABLE reconciler.{} DISABLE TRIGGER ALL",
                "DROP TABLE reconciler.{}",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await connection.execute(sql.SQL(statement).format(sql.Identifier(table)))


async def test_a_stranger_sees_nothing(database):
    async with await database.connect() as connection, connection.transaction(force_rollback=True):
        await connection.execute("CREATE ROLE stranger")
        await connection.execute("SET LOCAL ROLE stranger")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("SELECT FROM reconciler.key_state")


@pytest.mark.parametrize("role", ROLES)
async def test_nobody_calls_what_rings_the_bells(database, role):
    async with await database.connect(role) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("SELECT reconciler.ring_nodes('{1}')")


async def test_the_writer_sells_a_key_from_first_to_last(database):
    async with await database.connect("writer") as writer:
        await writer.execute("""
            INSERT INTO reconciler.users (telegram_id, name) VALUES (7, 'somebody');
            INSERT INTO reconciler.subscriptions (user_id, plan, expires_at)
              VALUES (1, 'gold', now() + interval '9 days');
            INSERT INTO reconciler.keys (subscription_id, credential) VALUES (1, gen_random_uuid());
            INSERT INTO reconciler.grants (subscription_id, kind, days, actor, resulting_expires_at)
              VALUES (1, 'payment', 9, 'bot', now());
            SELECT FROM reconciler.subscriptions WHERE id = 1 FOR UPDATE;
            UPDATE reconciler.subscriptions SET expires_at = expires_at + interval '9 days';
            UPDATE reconciler.keys SET credential = gen_random_uuid();
            UPDATE reconciler.keys SET revoked_at = now();
        """)
        cursor = await writer.execute("SELECT bucket FROM reconciler.subscription_state")
        assert await cursor.fetchall() == [("active",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await writer.execute("UPDATE reconciler.users SET role = 'admin'")


@pytest.mark.parametrize("role", ROLES)
async def test_both_views_answer_every_role_with_rows(database, role):
    async with await database.connect() as connection:
        await place(connection, await add_key(connection), await add_node(connection, "fra-1"))
    async with await database.connect(role) as connection:
        cursor = await connection.execute("SELECT node, usable_since FROM reconciler.key_state")
        assert await cursor.fetchall() == [("fra-1", None)]


async def test_the_daemon_places_promises_and_ends(database):
    async with await database.connect() as connection:
        await add_key(connection)
        await add_node(connection, "fra-1")
    async with await database.connect("daemon") as daemon:
        await daemon.execute("""
            INSERT INTO reconciler.placements (key_id, node_id, reason) VALUES (1, 1, 'least keys');
            INSERT INTO reconciler.promises (key_id, node_id, account_digest, promised_until)
              SELECT 1, 1, reconciler.account_digest(credential, reconciler.inbounds_text(1)), now()
                FROM reconciler.keys;
            UPDATE reconciler.placements SET ended_at = now();
            UPDATE reconciler.source SET beat = beat + 1;
            SELECT reconciler.used_bytes(1);
        """)


async def test_the_reader_sees_keys_without_their_credential(database):
    async with await database.connect("reader") as reader:
        await reader.execute("SELECT id, subscription_id, pool, spread, revoked_at FROM reconciler.keys")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await reader.execute("SELECT credential FROM reconciler.keys")
