"""A customer who is there all the time: one long download, and a new connection every 50 milliseconds."""

import asyncio
import threading
from contextlib import suppress
from dataclasses import dataclass

from reconciler.demo.vless import VlessClient

BETWEEN_SECONDS = 0.05
_CHUNK = bytes(16_384)


@dataclass
class Visit:
    """What the customer met with."""

    opened: int
    refused: int
    downloaded_bytes: int
    broken: str | None
    """Why the download ended before he was done."""


async def visit(customer: VlessClient, enough: threading.Event) -> Visit:
    """Be a customer until it is enough."""
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send without end, slowly enough to leave the processors to others."""
        with suppress(OSError):
            await reader.readexactly(5)
            while True:
                writer.write(_CHUNK)
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()
        left.set()

    seen = Visit(0, 0, 0, None)
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with customer, customer.connection(port) as (reader, writer):
            writer.write(b"begin")
            download = asyncio.create_task(_download(reader, seen))
            attempts = []
            while not enough.is_set():
                attempts.append(asyncio.create_task(customer.opens()))
                await asyncio.sleep(BETWEEN_SECONDS)
            opened = await asyncio.gather(*attempts)
            download.cancel()
            await asyncio.wait([download])
        await left.wait()
    seen.opened, seen.refused = opened.count(True), opened.count(False)
    return seen


async def _download(reader: asyncio.StreamReader, seen: Visit) -> None:
    try:
        while chunk := await reader.read(65_536):
            seen.downloaded_bytes += len(chunk)
        seen.broken = "it ended"
    except OSError as error:
        seen.broken = str(error)
