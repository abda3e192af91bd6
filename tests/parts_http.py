"""The HTTP port, over real sockets, on parts that a test fills by hand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import pytest

from reconciler.status.board import Board
from reconciler.status.fleet_page import FleetPage
from reconciler.status.health import Health
from reconciler.status.http import HttpServer, serve
from reconciler.status.metrics import Metrics


class HttpPort:
    """A server on a free port, and what stands behind it."""

    server: HttpServer

    def __init__(self, metrics: Metrics | None = None) -> None:
        self.metrics = metrics or Metrics()
        self.health = Health()
        self.board = Board(lambda: 120.0)
        self.now = 0.0
        self.fleet = FleetPage(self.board, self.health, lambda: self.now, lambda: 1_800_000_000.0)

    async def serve(self, listen: str = "127.0.0.1:0", **options: float) -> None:
        self.server = await serve(listen, self.metrics, self.health, self.fleet, lambda: self.now, **options)

    @property
    def place(self) -> tuple[str, int]:
        host, _, port = self.server.address.rpartition(":")
        return host.strip("[]"), int(port)

    async def ask(self, path: str, method: str = "GET", **options: Any) -> tuple[int, Mapping[str, str], str]:
        async with aiohttp.ClientSession() as client:
            url = f"http://{self.server.address}{path}"
            async with client.request(method, url, **options) as answer:
                return answer.status, answer.headers, await answer.text()

    async def say(self, raw: bytes) -> bytes:
        """Send bytes as they are, and return all that comes back."""
        reader, writer = await asyncio.open_connection(*self.place)
        writer.write(raw)
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        return answer


StartHttp = Callable[..., Awaitable[HttpPort]]


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What still comes until the other side ends the connection, politely or not."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


@pytest.fixture
async def start() -> AsyncIterator[StartHttp]:
    pages: list[HttpPort] = []

    async def start(listen: str = "127.0.0.1:0", **options: float) -> HttpPort:
        page = HttpPort()
        await page.serve(listen, **options)
        pages.append(page)
        return page

    yield start
    for page in pages:
        await page.server.close()


@pytest.fixture
async def page(start: StartHttp) -> HttpPort:
    return await start()
