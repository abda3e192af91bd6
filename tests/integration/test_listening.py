"""The listener, on lines that ring, break and fall silent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from reconciler.desired.bells import EVERYWHERE, Bell, listen
from tests.daemons import until
from tests.parts_postgres import Database

HEARTBEAT_SECONDS = 0.5


class Line:
    """A relay in front of PostgreSQL that can go dead without closing."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._dead = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.dsn = ""

    async def open(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.dsn = make_conninfo(self._dsn, host="127.0.0.1", port=server.sockets[0].getsockname()[1])
        return server

    def die(self) -> None:
        """Carry nothing more on the connections that are open; new ones are carried."""
        self._dead.set()
        self._dead = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = conninfo_to_dict(self._dsn)
        host, port = str(address["host"]), address.get("port", "5432")
        if host.startswith("/"):
            there, back = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            there, back = await asyncio.open_connection(host, int(str(port)))
        self.connections += 1
        dead = self._dead
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(_carry(source, sink, dead))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter, dead: asyncio.Event) -> None:
    try:
        with suppress(OSError):
            while part := await source.read(4096):
                if dead.is_set():
                    continue
                sink.write(part)
                await sink.drain()
    finally:
        sink.close()
        with suppress(OSError):
            await sink.wait_closed()


@pytest.fixture
async def line(database: Database) -> AsyncIterator[Line]:
    line = Line(database.dsn_as("daemon"))
    async with await line.open():
        yield line
        await line.close()


@asynccontextmanager
async def listening(dsn: str, told: list[str | None] | None = None) -> AsyncIterator[list[Bell]]:
    rung: list[Bell] = []
    tell = (told if told is not None else []).append
    task = asyncio.create_task(listen(dsn, rung.append, tell, HEARTBEAT_SECONDS))
    try:
        yield rung
    finally:
        task.cancel()
        await asyncio.wait([task])


async def ringing(rung: list[Bell], bell: Bell, times: int = 1) -> None:
    async def heard() -> bool:
        return rung.count(bell) >= times

    await until(heard, f"{bell} rings {times} times")


async def notify(database: Database, payload: str) -> None:
    async with await database.connect() as sql:
        await sql.execute("SELECT pg_notify('reconciler', %s)", (payload,))


async def test_everything_rings_once_when_the_listener_comes_and_then_what_is_rung(database: Database):
    async with listening(database.dsn_as("daemon")) as rung:
        await ringing(rung, EVERYWHERE)
        await notify(database, "hello, not ours")
        await notify(database, "1 k 3:4")

        await ringing(rung, Bell(keys={3: frozenset({4})}))
        assert rung.count(EVERYWHERE) == 1


async def test_a_quiet_line_is_not_taken_for_a_dead_one(database: Database):
    async with listening(database.dsn_as("daemon")) as rung:
        await ringing(rung, EVERYWHERE)
        async with await database.connect() as sql:
            await sql.execute("LISTEN reconciler")
            beats = [notice.payload async for notice in sql.notifies(timeout=30, stop_after=3)]

        assert beats == ["1 h"] * 3
        assert rung == [EVERYWHERE]


async def test_a_line_that_breaks_is_made_again_and_rings_for_everything(database: Database):
    told: list[str | None] = []
    async with listening(database.dsn_as("daemon"), told) as rung:
        await ringing(rung, EVERYWHERE)
        async with await database.connect() as sql:
            await sql.execute(
                """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE datname = current_database() AND pid <> pg_backend_pid()"""
            )

        await ringing(rung, EVERYWHERE, 2)
        await notify(database, "1 n 5")
        await ringing(rung, Bell(nodes=frozenset({5})))
        assert [reason is None for reason in told] == [True, False, True]


async def test_a_line_that_is_dead_without_being_closed_is_noticed_by_its_silence(
    database: Database, line: Line
):
    async with listening(line.dsn) as rung:
        await ringing(rung, EVERYWHERE)
        line.die()

        await ringing(rung, EVERYWHERE, 2)
        assert line.connections >= 2
        await notify(database, "1 n 5")
        await ringing(rung, Bell(nodes=frozenset({5})))
