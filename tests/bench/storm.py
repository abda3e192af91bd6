"""P5 on the whole fleet: its start, a storm of changes, and the same storm beside a node that is ill."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import psycopg

from reconciler.demo.xray import HOST
from tests.bench.figures import Goal, Row, ratio, spread
from tests.bench.fleet import Place, Size, free
from tests.bench.ground import Daemon, Ground, until
from tests.parts_postgres import Database

ILL = 1
"""The node that falls ill; its keys are left out of every storm."""

SLOW_SECONDS = 0.3
ROUNDS = 3
MANY_NODES = 500
"""From here on a storm takes long enough to be told apart from chance by itself."""

# Routine: their promises end with them, so that the guard has nothing to say.
_END = """
WITH stormy AS (
  SELECT k.subscription_id, k.id FROM reconciler.keys k
    JOIN reconciler.placements p ON p.key_id = k.id AND p.ended_at IS NULL AND p.node_id <> {ill}
   WHERE (k.id - 1) / {nodes} % 100 = 7),
ended AS (UPDATE reconciler.subscriptions SET expires_at = now()
           WHERE id IN (SELECT subscription_id FROM stormy) RETURNING 1)
UPDATE reconciler.promises SET promised_until = now()
 WHERE ended_at IS NULL AND key_id IN (SELECT id FROM stormy)
"""
_BACK = """
UPDATE reconciler.subscriptions SET expires_at = now() + interval '30 days' WHERE expires_at <= now()
"""
_CONVERGED = "SELECT count(*) FROM reconciler.node_status WHERE outcome IN ('converged', 'changed')"
_USERS = "SELECT sum(active_users) FROM reconciler.node_status"
_ENDED = "SELECT max(ended_at) FROM reconciler.promises"
_MADE = "SELECT max(made_at) FROM reconciler.promises"
_OUTCOME = f"SELECT outcome FROM reconciler.node_status WHERE node_id = {ILL}"


async def measure(ground: Ground, database: Database, size: Size, where: list[Place]) -> None:
    """Start the daemon on the whole fleet, and let three storms pass over it."""
    await free(database.dsn)
    began = asyncio.get_running_loop().time()
    async with (
        Daemon(ground.directory, database.dsn_as("daemon")) as daemon,
        await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as sql,
    ):
        ground.tell(f"P5 {size.words}: start")

        async def all_seen() -> bool:
            return bool((await _one(sql, _CONVERGED))[0] == size.nodes)

        await until(all_seen, "every node converged", 0.1)
        start = asyncio.get_running_loop().time() - began
        await _storms(ground, sql, size, "to warm up", rounds=1)
        storms = {"well": await _storms(ground, sql, size, "all nodes well")}
        for illness, line in (("slow", _slow), ("hanging", _hanging)):
            async with line(where[ILL - 1].api) as api:
                await _move(sql, api)
                await _until_ill(sql, illness)
                storms[illness] = await _storms(ground, sql, size, f"one node {illness}")
        spent = daemon.cpu
    ground.findings.series["storms"] = {"start": start, "cpu": spent, **storms}
    _rows(ground, size, start, storms)


async def _storms(
    ground: Ground,
    sql: psycopg.AsyncConnection[tuple[Any, ...]],
    size: Size,
    words: str,
    rounds: int = ROUNDS,
) -> list[float]:
    """Return, for each round, the seconds that the ends and the returns of 1 % of the keys took."""
    took = []
    rounds = 1 if size.nodes >= MANY_NODES else rounds
    for turn in range(rounds):
        ground.tell(f"P5 {size.words}: storm {turn + 1} of {rounds}, {words}")
        seconds = 0.0
        end = _END.format(ill=ILL, nodes=size.nodes)
        for change, direction, last in ((end, -1, _ENDED), (_BACK, 1, _MADE)):
            before: int = (await _one(sql, _USERS))[0]
            number = (await sql.execute(change.encode())).rowcount
            committed: datetime = (await _one(sql, "SELECT clock_timestamp()"))[0]

            async def over(users: int = before + direction * number) -> bool:
                return bool((await _one(sql, _USERS))[0] == users)

            await until(over, f"{number} changes are on record", 0.1)
            seconds += ((await _one(sql, last))[0] - committed).total_seconds()
        took.append(seconds)
    return took


def _rows(ground: Ground, size: Size, start: float, storms: dict[str, list[float]]) -> None:
    rows = ground.findings.rows
    rows.append(Row("P5", f"start, {size.words}: all read and compared", "s", spread([start])))
    well = storms.pop("well")
    what = f"1 % of {size.words} ended and back"
    rows.append(Row("P5", what, "s", spread(well)))
    for illness, took in storms.items():
        rows.append(
            Row(
                "P5",
                f"{what}, one node {illness}",
                "s",
                spread(took),
                "all well",
                spread(well),
                ratio(took, well),
                goal=Goal(1.1, at_most=True, words="<= 1.1 x"),
            )
        )


async def _move(sql: psycopg.AsyncConnection[tuple[Any, ...]], api: str) -> None:
    await sql.execute("UPDATE reconciler.nodes SET api = %s WHERE id = %s", (api, ILL))


async def _until_ill(sql: psycopg.AsyncConnection[tuple[Any, ...]], illness: str) -> None:
    """A slow node is still one that converges, and one that hangs is told to be out of reach."""
    outcome = "unreachable" if illness == "hanging" else "converged"
    await sql.execute(f"UPDATE reconciler.node_status SET outcome = 'failed' WHERE node_id = {ILL}".encode())

    async def told() -> bool:
        return bool((await _one(sql, _OUTCOME))[0] == outcome)

    await until(told, f"the ill node is {outcome}", 0.1)


async def _one(sql: psycopg.AsyncConnection[tuple[Any, ...]], query: str, *given: Any) -> tuple[Any, ...]:
    row = await (await sql.execute(query.encode(), given or None)).fetchone()
    assert row is not None
    return row


@asynccontextmanager
async def _slow(api: str) -> AsyncIterator[str]:
    """A line on which every piece takes its time."""
    host, _, port = api.rpartition(":")
    loop = asyncio.get_running_loop()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65_536):
            loop.call_later(SLOW_SECONDS / 2, writer.write, piece)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        node_reader, node_writer = await asyncio.open_connection(host, int(port))
        try:
            await asyncio.gather(carry(reader, node_writer), carry(node_reader, writer))
        finally:
            for end in (writer, node_writer):
                end.transport.abort()

    async with _served(connected) as address:
        yield address


@asynccontextmanager
async def _hanging(_: str) -> AsyncIterator[str]:
    """Somebody who takes every call and says nothing."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            pass
        writer.transport.abort()

    async with _served(connected) as address:
        yield address


@asynccontextmanager
async def _served(connected: Any) -> AsyncIterator[str]:
    server = await asyncio.start_server(connected, HOST, 0)
    try:
        yield f"{HOST}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
