"""The daemon and a database that misleads or hangs."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.db.migrate import migrate
from reconciler.demo.postgres import EmbeddedPostgres
from reconciler.demo.xray import XrayProcess
from reconciler.model import Inbound, Protocol
from reconciler.node.port import list_users
from reconciler.node.xray import XrayNode
from tests.daemons import DaemonProcess, running, until
from tests.parts_postgres import Database
from tests.parts_xray import StartXray

VLESS = Inbound("vless-in", Protocol.VLESS)
KEYS = 20

# What the daemon asks for the time is found here before PostgreSQL's own.
_CLOCK = """
CREATE SCHEMA ahead;
CREATE TABLE ahead.shift (by interval NOT NULL);
INSERT INTO ahead.shift VALUES ('0');
CREATE FUNCTION ahead.now() RETURNS timestamptz LANGUAGE sql STABLE
  AS 'SELECT pg_catalog.now() + by FROM ahead.shift';
CREATE FUNCTION ahead.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
  AS 'SELECT pg_catalog.clock_timestamp() + by FROM ahead.shift';
GRANT USAGE ON SCHEMA ahead TO PUBLIC;
GRANT SELECT ON ahead.shift TO PUBLIC;
"""
# gRPC makes deadlines of Python's clock, and judges them by the kernel's, which no test can set.
_SHIFTED = """
import sys, time
right = time.time
def shifted():
    asking = sys._getframe(1).f_globals.get("__name__", "")
    return right() if asking.startswith("grpc") else right() + {}
time.time = shifted
"""
_ROWS = """
WITH node AS (INSERT INTO reconciler.nodes (name, api, state) VALUES ('n1', '{api}', 'active') RETURNING id),
door AS (INSERT INTO reconciler.inbounds (node_id, tag, protocol) SELECT id, 'vless-in', 'vless' FROM node),
person AS (INSERT INTO reconciler.users (name) VALUES ('somebody') RETURNING id),
access AS (INSERT INTO reconciler.subscriptions (user_id, starts_at, expires_at)
  SELECT person.id, now() - interval '1 day', now() + interval '30 days'
    FROM person, generate_series(1, {keys})
  RETURNING id)
INSERT INTO reconciler.keys (subscription_id, credential) SELECT id, gen_random_uuid() FROM access
"""


@pytest.fixture
async def node(start_xray: StartXray) -> AsyncIterator[tuple[XrayProcess, XrayNode]]:
    process = await start_xray()
    port = XrayNode(process.name, process.api)
    yield process, port
    await port.close()


async def users(port: XrayNode) -> int:
    return len(await list_users(port, VLESS, 5))


async def test_a_clock_set_forward_removes_nobody_though_it_ends_the_leases(
    database: Database, node: tuple[XrayProcess, XrayNode], tmp_path: Path
):
    process, port = node
    async with await database.connect() as sql:
        await sql.execute(_CLOCK)
        await sql.execute(
            f"ALTER ROLE {database.prefix}_daemon IN DATABASE {database.name}"
            " SET search_path = ahead, pg_catalog"
        )
        await sql.execute(_ROWS.format(api=process.api, keys=KEYS))
        async with running(DaemonProcess(tmp_path, database.dsn_as("daemon"))) as daemon:

            async def all_there() -> bool:
                return await users(port) == KEYS

            async def settled() -> bool:
                cursor = await sql.execute(
                    "SELECT outcome = 'held' AND epoch > 1 FROM reconciler.node_status JOIN reconciler.leases"
                    " USING (node_id)"
                )
                return await cursor.fetchone() == (True,)

            async def refused(value: float) -> bool:
                return await daemon.metric('reconciler_source_refused{reason="clock"}') == value

            await until(all_there, "the keys are on the node")
            await sql.execute("UPDATE ahead.shift SET by = '40 days'")

            await until(settled, "the node is held again, and a cycle was recorded")
            assert await users(port) == KEYS
            await daemon.logs("removals frozen: the clock of the database jumped")
            await until(lambda: refused(1), "the metrics tell it")
            await sql.execute("UPDATE reconciler.nodes SET state = 'disabled'")
            await until(lambda: refused(0), "no node is left that could be meant")


@contextmanager
def frozen(server: EmbeddedPostgres) -> Iterator[None]:
    """Stop every process of a server, so that it takes questions and never answers."""
    found = subprocess.run(["pgrep", "-P", str(server.pid)], capture_output=True, text=True, check=False)
    processes = [server.pid, *map(int, found.stdout.split())]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


async def test_a_database_that_hangs_is_told_of_and_kills_nobody_and_is_met_again(tmp_path: Path):
    with EmbeddedPostgres({"fsync": "off"}) as server:
        await migrate(server.dsn, "test", lambda _: None)
        quick = {"statement_timeout_seconds": 1.0}
        async with running(DaemonProcess(tmp_path, server.dsn, database=quick)) as daemon:
            await daemon.logs("ready")
            with frozen(server):
                await daemon.logs("database out of reach; nodes stay as they are")
                assert (await daemon.get("/livez"))[0] == 200
            await daemon.logs("database is back")


async def test_a_listener_without_a_way_to_the_database_is_told_of(database: Database, tmp_path: Path):
    for name, listen_dsn, down in (("deaf", "host=/nowhere dbname=none", 1), ("hears", "", 0)):
        settings = {"listen_dsn": listen_dsn}
        async with running(
            DaemonProcess(tmp_path, database.dsn_as("daemon"), name, database=settings)
        ) as daemon:
            await daemon.logs("not listening for changes; they are found by looking" if down else "ready")
            await daemon.logs("ready")
            assert await daemon.metric("reconciler_listener_down") == down
            assert await daemon.metric("reconciler_database_up") == 1


async def test_deaf_to_bells_a_key_that_is_placed_is_put_on_its_node_all_the_same(
    database: Database, node: tuple[XrayProcess, XrayNode], tmp_path: Path
):
    """Nothing but the placement asks for a look at the node: the next full cycle is an hour away."""
    process, port = node
    async with await database.connect() as sql:
        await sql.execute(_ROWS.format(api=process.api, keys=KEYS))
        await sql.execute("UPDATE reconciler.nodes SET capacity = 0")
        deaf = DaemonProcess(
            tmp_path,
            database.dsn_as("daemon"),
            database={"listen_dsn": "host=/nowhere dbname=none"},
            cycle={"full_interval_seconds": 3600.0, "probe_interval_seconds": 60.0},
        )
        async with running(deaf) as daemon:
            await daemon.logs("keys without a node: their pool has no room")
            await daemon.logs("ready")
            await sql.execute("UPDATE reconciler.nodes SET capacity = NULL")

            async def all_there() -> bool:
                return await users(port) == KEYS

            await until(all_there, "the keys are on the node")


@pytest.mark.parametrize("off_by_seconds", [-3600, 3600])
async def test_the_hosts_clock_may_be_an_hour_off(
    database: Database,
    node: tuple[XrayProcess, XrayNode],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    off_by_seconds: int,
):
    process, port = node
    (tmp_path / "sitecustomize.py").write_text(_SHIFTED.format(off_by_seconds))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with await database.connect() as sql:
        await sql.execute(_ROWS.format(api=process.api, keys=KEYS))
        async with running(DaemonProcess(tmp_path, database.dsn_as("daemon"))) as daemon:

            async def there(number: int) -> bool:
                return await users(port) == number

            async def attempted() -> float | None:
                return await daemon.metric('reconciler_node_last_attempt_timestamp_seconds{node="n1"}')

            async def promised() -> bool:
                cursor = await sql.execute("SELECT count(*) FROM reconciler.promises")
                return await cursor.fetchone() == (KEYS,)

            await until(lambda: there(KEYS), "whoever has access gets in")
            await until(promised, "and is promised it")
            told = await until(attempted, "the metrics carry the host's clock")
            assert abs(told - time.time() - off_by_seconds) < 1000, "the clock of this test is off"
            await sql.execute("UPDATE reconciler.promises SET promised_until = now() WHERE key_id % 2 = 0")
            await sql.execute(
                "UPDATE reconciler.subscriptions s SET expires_at = now() + interval '2 seconds'"
                " FROM reconciler.keys k WHERE k.subscription_id = s.id AND k.id % 2 = 0"
            )
            await until(lambda: there(KEYS // 2), "who has ended is out")
            cursor = await sql.execute(
                """SELECT bool_and(p.ended_at >= s.expires_at) FROM reconciler.promises p
                     JOIN reconciler.keys k ON k.id = p.key_id
                     JOIN reconciler.subscriptions s ON s.id = k.subscription_id
                    WHERE p.ended_at IS NOT NULL"""
            )
            assert await cursor.fetchone() != (False,), "and not before his time"
            assert daemon.lines("removals frozen: the clock of the database jumped") == []


async def test_told_to_stop_while_the_database_hangs_it_ends(tmp_path: Path):
    with EmbeddedPostgres({"fsync": "off"}) as server:
        await migrate(server.dsn, "test", lambda _: None)
        async with running(DaemonProcess(tmp_path, server.dsn)) as daemon:
            await daemon.logs("ready")
            with frozen(server):
                await asyncio.sleep(2)  # any question of the next second then waits for its answer
                assert await daemon.stop() == 0
