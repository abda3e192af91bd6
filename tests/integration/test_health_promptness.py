"""
How soon health answers while the loops are busy, beside a program that does nothing else.

The bound is that of a healthy machine; where this one is slower it is stretched
by what the least HTTP server takes for the same at the same moments.
"""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from reconciler.demo.xray import free_port
from reconciler.node.xray import XrayNode
from tests.daemons import running, until
from tests.parts_postgres import Database
from tests.parts_xray import StartXray
from tests.sites import Site, enrol
from tests.world import CALL_SECONDS, VLESS

KEYS = 10_000
ANSWER_SECONDS = 0.1
STRETCH = 10
FEWEST = 20
PATHS = ("/livez", "/readyz?verbose", "/livez", "/")

LEAST = """
import asyncio, sys
async def answer(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\nConnection: close\\r\\n\\r\\nok\\n")
    writer.close()
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
"""


@pytest.fixture
async def site(database: Database, start_xray: StartXray, tmp_path: Path) -> AsyncIterator[Site]:
    node = await start_xray()
    async with await database.connect() as sql:
        await enrol(sql, [node])
        yield Site(sql, [node], tmp_path, database.dsn_as("daemon"))


@pytest.fixture
def least() -> Iterator[int]:
    """The port of a program that answers and does nothing else."""
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", LEAST, str(port)]) as child:
        yield port
        child.kill()


async def answered(port: int, path: str) -> tuple[bytes, float]:
    """The status of one answer, and how long it took."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer[9:12], time.monotonic() - began


async def test_health_answers_while_a_node_is_filled_again(site: Site, least: int):
    port = XrayNode("n", site.nodes[0].api)
    async with running(site.daemon(cycle={"full_interval_seconds": 3600.0})) as daemon:
        await daemon.logs("ready")

        async def up() -> bool:
            try:
                return (await answered(least, "/"))[0] == b"200"
            except OSError:
                return False

        async def full() -> bool:
            return (await port.probe([VLESS], CALL_SECONDS)).users[VLESS.tag] == KEYS

        await until(up, "the least server answers")
        await site.grant(KEYS)
        await until(full, "the node is full")
        await site.nodes[0].restart()
        ours: list[float] = []
        beside: list[float] = []
        filled = asyncio.create_task(until(full, "the node is full again"))
        while not filled.done():
            for path in PATHS:
                status, seconds = await answered(daemon.port, path)
                assert status == b"200"
                ours.append(seconds)
                beside.append((await answered(least, path))[1])
        await filled
    await port.close()

    assert len(ours) >= FEWEST, "it was busy for long enough to be judged"
    bound = max(ANSWER_SECONDS, STRETCH * statistics.quantiles(beside, n=20)[-1])
    assert statistics.quantiles(ours, n=20)[-1] < bound, f"{max(ours):.3f} s at most"
