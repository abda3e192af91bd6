"""The two sides of P3: full cycles over a fleet with nothing to do, and the bare reads of it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import psycopg

from reconciler.config import Config
from reconciler.db.pool import open_pool
from reconciler.desired.reader import DesiredReader
from reconciler.loop.cycle import Cycles
from reconciler.loop.trust import ClockTrust
from reconciler.model import Node, Outcome
from reconciler.node._pb.handler_pb2 import GetInboundUserRequest, GetInboundUserResponse
from reconciler.node.xray import XrayNode
from reconciler.status.lease import Leases
from reconciler.status.recorder import Recorder
from tests.bench.bare import connect
from tests.bench.lines import answer

USERS = "/xray.app.proxyman.command.HandlerService/GetInboundUsers"

# What nobody can do without who compares: who, with what, until when, and what was promised.
_BARE_ROWS = """
SELECT k.id, uuid_send(k.credential), date_part('epoch', s.expires_at),
       p.account_digest, date_part('epoch', p.promised_until)
  FROM reconciler.placements pl
  JOIN reconciler.keys k ON k.id = pl.key_id
  JOIN reconciler.subscriptions s ON s.id = k.subscription_id
  LEFT JOIN reconciler.promises p ON p.key_id = pl.key_id AND p.node_id = pl.node_id AND p.ended_at IS NULL
 WHERE pl.node_id = %s AND pl.ended_at IS NULL
"""


class Passes:
    """Passes over all nodes, as many at once as the daemon has cycles under way."""

    def __init__(self) -> None:
        self._config = Config()
        self._connections: asyncio.Queue[psycopg.AsyncConnection] = asyncio.Queue()
        self._cycles: list[Cycles] = []
        self._reads: list[tuple[Node, grpc.aio.UnaryUnaryMultiCallable[Any, Any]]] = []

    async def open(self, dsn: str) -> dict[str, Any]:
        """Connect to the database and, at the first pass, to its nodes."""
        size = self._config.database.pool_size
        pool = await open_pool(dsn, size)
        for _ in range(size):
            self._connections.put_nowait(await psycopg.AsyncConnection.connect(dsn, autocommit=True))
        reader = DesiredReader(pool)
        fleet, owner = await reader.fleet(), await reader.owner()
        leases = Leases(pool, "a benchmark", time.monotonic, ttl_seconds=3_600, margin_seconds=1)
        await leases.keep({node.node_id: node.name for node in fleet})
        trust = ClockTrust(self._config.guard.clock_tolerance_seconds)
        slots = asyncio.Semaphore(self._config.cycle.concurrency)
        for node in fleet:
            cycles = Cycles(
                node=node,
                lease=leases.held[node.node_id],
                port=XrayNode(node.name, node.api),
                reader=reader,
                recorder=Recorder(pool),
                owner=owner,
                config=lambda: self._config,
                clock=time.monotonic,
                stopping=lambda: False,
                progressed=lambda: None,
                trust=trust,
                slots=slots,
            )
            self._cycles.append(cycles)
            method = connect(node.api).unary_unary(
                USERS, GetInboundUserRequest.SerializeToString, GetInboundUserResponse.FromString
            )
            self._reads.append((node, method))
        return {"nodes": len(fleet)}

    async def cycles(self) -> dict[str, Any]:
        """One full cycle of every node; it must find nothing to do."""

        async def one(cycles: Cycles) -> int:
            report = await cycles.run()
            assert report.outcome is Outcome.CONVERGED, report.outcome
            assert report.counts is not None
            return report.counts.active

        return await self._timed([lambda each=each: one(each) for each in self._cycles])  # type: ignore[misc]  # a lambda's default

    async def bare(self) -> dict[str, Any]:
        """Read the rows and the users of every node, and look at neither."""

        async def one(node: Node, method: "grpc.aio.UnaryUnaryMultiCallable[Any, Any]") -> int:
            users = (await method(GetInboundUserRequest(tag=node.inbounds[0].tag))).users
            connection = await self._connections.get()
            cursor = await connection.execute(_BARE_ROWS, (node.node_id,), binary=True, prepare=True)
            rows = await cursor.fetchall()
            self._connections.put_nowait(connection)
            assert len(rows) == len(users)
            return len(rows)

        return await self._timed([lambda each=each: one(*each) for each in self._reads])  # type: ignore[misc]  # as above

    async def _timed(self, works: list[Callable[[], Awaitable[int]]]) -> dict[str, Any]:
        todo = iter(works)
        keys = 0

        async def work() -> None:
            nonlocal keys
            for each in todo:
                found = await each()
                keys += found

        began, spent = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._config.cycle.concurrency, len(works))):
                group.create_task(work())
        return {
            "keys": keys,
            "seconds": time.perf_counter() - began,
            "cpu": time.process_time() - spent,
        }


async def main() -> None:
    """Answer until the input ends."""
    passes = Passes()
    await answer({"open": passes.open, "cycles": passes.cycles, "bare": passes.bare})


if __name__ == "__main__":
    asyncio.run(main())
