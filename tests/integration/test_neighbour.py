"""A real node that is far away, and one that is slow: how many steps it is given at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from reconciler.demo.xray import HOST
from reconciler.model import Account, Inbound
from reconciler.node.xray import XrayNode
from tests.parts_postgres import Database
from tests.parts_xray import StartXray
from tests.world import make_world

CEILING = 128

Carry = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Watched(XrayNode):
    """A node that counts how many adds are under way."""

    under_way = 0

    def __init__(self, name: str, api: str) -> None:
        super().__init__(name, api)
        self.widths: list[int] = []

    async def add(self, inbound: Inbound, name: str, account: Account, timeout_seconds: float) -> None:
        self.under_way += 1
        self.widths.append(self.under_way)
        try:
            await super().add(inbound, name, account, timeout_seconds)
        finally:
            self.under_way -= 1


async def far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand on what comes, each piece 25 ms later."""
    loop = asyncio.get_running_loop()
    while piece := await reader.read(65_536):
        loop.call_later(0.025, writer.write, piece)


async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand on what comes at some 40,000 bytes a second, which is some 300 adds."""
    while piece := await reader.read(200):
        await asyncio.sleep(0.005)
        writer.write(piece)


async def at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65_536):
        writer.write(piece)


@asynccontextmanager
async def line(api: str, there: Carry, back: Carry) -> AsyncIterator[str]:
    """Put a line in front of a node; yields the address of its other end."""
    connections: list[asyncio.Task[None]] = []

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        current = asyncio.current_task()
        assert current is not None
        connections.append(current)
        host, _, port = api.rpartition(":")
        node_reader, node_writer = await asyncio.open_connection(host, int(port))
        try:
            await asyncio.gather(there(reader, node_writer), back(node_reader, writer))
        finally:
            for end in (writer, node_writer):
                end.transport.abort()

    server = await asyncio.start_server(connect, HOST, 0)
    try:
        yield f"{HOST}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def widths(database: Database, api: str, keys: int) -> Sequence[int]:
    """Put so many keys on the node; return how many were under way as each was sent."""
    node = Watched("n1", api)
    async with make_world(database, node, api=api) as world:
        await world.keys(keys)
        report = await world.cycle()
        assert len(report.applied.done) == keys
    return node.widths


async def test_a_distant_node_is_given_all_that_is_allowed_at_once(database: Database, start_xray: StartXray):
    process = await start_xray()
    async with line(process.api, far, far) as api:
        found = await widths(database, api, 1_500)

    assert max(found) == CEILING


async def test_a_node_that_is_slow_to_answer_is_given_few_at_once(database: Database, start_xray: StartXray):
    process = await start_xray()
    async with line(process.api, slow, at_once) as api:
        found = await widths(database, api, 600)

    assert max(found[-300:]) <= CEILING / 4
