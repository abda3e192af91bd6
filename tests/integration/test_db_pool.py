import asyncio
import logging
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg_pool import AsyncConnectionPool
from psycopg_pool.base import AttemptWithBackoff

from reconciler.db.pool import Connection, open_pool, store_errors
from reconciler.demo.postgres import EmbeddedPostgres
from reconciler.errors import ConfigError, RightsMissing, StoreError, StoreUnavailable
from tests.rows import one

CANARY = "canary-77aa"


@pytest.fixture
def server() -> Iterator[EmbeddedPostgres]:
    """A server of this test alone, to be taken away and brought back; not yet started."""
    server = EmbeddedPostgres({"fsync": "off"}, tcp=True)
    yield server
    server.close()


async def answers(pool: AsyncConnectionPool[Connection]) -> bool:
    try:
        async with store_errors(), pool.connection() as connection:
            return bool(await one(connection, "SELECT 1") == 1)
    except StoreUnavailable:
        return False


async def until_it_answers(pool: AsyncConnectionPool[Connection], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not await answers(pool):
            pass


async def test_the_pool_opens_while_the_database_is_down_and_works_once_it_is_up(server):
    async with await open_pool(server.tcp_dsn, 2, wait_seconds=0.5) as pool:
        assert not await answers(pool)
        await asyncio.to_thread(server.start)
        await until_it_answers(pool, 10)


@pytest.mark.parametrize("way", ["stop", "kill"])
async def test_the_pool_recovers_from_a_database_that_was_gone(server, way):
    await asyncio.to_thread(server.start)
    async with await open_pool(server.dsn, 2, wait_seconds=0.5) as pool:
        await until_it_answers(pool, 10)
        await asyncio.to_thread(getattr(server, way))
        for _ in range(5):
            assert not await answers(pool)
        await asyncio.to_thread(server.start)
        await until_it_answers(pool, 10)


async def test_a_long_outage_does_not_stretch_the_pause_between_attempts(server, monkeypatch):
    monkeypatch.setattr(AttemptWithBackoff, "DELAY_BACKOFF", 60.0)  # as if the outage were long
    async with await open_pool(server.dsn, 2, wait_seconds=0.5) as pool:
        for _ in range(4):
            assert not await answers(pool)
        await asyncio.to_thread(server.start)
        await until_it_answers(pool, 10)


async def test_a_connection_that_the_server_has_ended_is_given_to_nobody(database):
    async with await open_pool(database.dsn, 3) as pool, await database.connect() as sql:
        for _ in range(5):
            async with pool.connection() as first, pool.connection() as second:
                ended = [first.info.backend_pid, second.info.backend_pid]
            for pid in ended:
                await sql.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))

            assert await answers(pool)


async def test_a_connection_is_asked_whether_it_lives_only_when_it_has_been_quiet_for_long(
    database, monkeypatch
):
    async def last_question() -> object:
        async with pool.connection() as connection:
            pid = connection.info.backend_pid
        return await one(watcher, "SELECT query FROM pg_stat_activity WHERE pid = %s", pid)

    async with await open_pool(database.dsn, 1) as pool, await database.connect() as watcher:
        async with pool.connection() as connection:
            await connection.execute("SELECT 'the last one'", prepare=False)
        assert await last_question() == "SELECT 'the last one'"

        monkeypatch.setattr("reconciler.db.pool.IDLE_SECONDS", 0.0)
        assert await last_question() == ""


async def test_a_session_has_its_bounds(database):
    async with await open_pool(database.dsn, 1) as pool, pool.connection() as connection:
        assert connection.autocommit
        for setting, value in {
            "statement_timeout": "30s",
            "lock_timeout": "5s",
            "idle_in_transaction_session_timeout": "30s",
            "jit": "off",
            "application_name": "reconciler",
        }.items():
            assert await one(connection, "SELECT current_setting(%s)", setting) == value


async def test_a_statement_ends_when_the_configuration_says(database):
    async with (
        await open_pool(database.dsn, 1, statement_seconds=1.5) as pool,
        pool.connection() as connection,
    ):
        assert await one(connection, "SELECT current_setting('statement_timeout')") == "1500ms"
        assert connection.info.get_parameters()["connect_timeout"] == "5"


async def test_options_of_the_dsn_win_and_ours_stay(database):
    dsn = make_conninfo(database.dsn, options="-c statement_timeout=7s")
    async with await open_pool(dsn, 1) as pool, pool.connection() as connection:
        assert await one(connection, "SELECT current_setting('statement_timeout')") == "7s"
        assert await one(connection, "SELECT current_setting('lock_timeout')") == "5s"


async def test_behind_a_pooler_nothing_is_prepared_and_no_setting_is_sent(database):
    pool = await open_pool(database.dsn, 1, prepared_statements=False)
    async with pool, pool.connection() as connection:
        for _ in range(20):
            await one(connection, "SELECT %s::int", 1)
        assert await one(connection, "SELECT count(*) FROM pg_prepared_statements") == 0
        assert await one(connection, "SELECT current_setting('statement_timeout')") == "0"


async def test_a_dsn_that_cannot_be_read_is_refused_at_once():
    with pytest.raises(ConfigError):
        await open_pool(f"host=x password='{CANARY}", 1)


async def test_a_failing_pool_writes_nothing_of_its_dsn_to_the_log(caplog):
    caplog.set_level(logging.DEBUG)
    dsn = f"host={CANARY}.invalid password={CANARY} user=x"
    async with await open_pool(dsn, 1, wait_seconds=0.5) as pool:
        with pytest.raises(StoreUnavailable) as caught:
            async with store_errors(), pool.connection():
                pass
    assert CANARY not in caplog.text + str(caught.value)


@pytest.mark.parametrize(
    ("query", "kind", "words"),
    [
        ("SELECT FROM reconciler.placements", RightsMissing, "permission denied"),
        ("SELECT FROM reconciler.absent", StoreError, "reconciler migrate"),
        ("SELECT FROM absent.x", StoreError, "reconciler migrate"),
        ("SELECT 1/0", StoreError, "DivisionByZero"),
        ("SELEC", StoreError, "syntax error"),
        ("SET statement_timeout = 1; SELECT pg_sleep(10)", StoreUnavailable, "statement timeout"),
        ("SELECT pg_terminate_backend(pg_backend_pid())", StoreUnavailable, "terminating connection"),
        (
            "SET transaction_read_only = on; UPDATE reconciler.users SET name = 'x'",
            StoreUnavailable,
            "read-only",
        ),
    ],
)
async def test_what_psycopg_raises_becomes_ours(database, query, kind, words):
    async with await database.connect("writer") as connection:
        with pytest.raises(StoreError, match=words) as caught:
            async with store_errors():
                await connection.execute(query.encode())
    assert type(caught.value) is kind


def test_the_mapping_works_without_async_too_and_lets_others_pass():
    with pytest.raises(StoreUnavailable), store_errors():
        raise psycopg.OperationalError("the connection is closed")
    with pytest.raises(KeyError), store_errors():
        raise KeyError
    with store_errors():
        pass
