"""The HTTP port of the daemon as a process, under everything that a client can do wrong, all at once."""

import asyncio
import json
import random
import resource
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from reconciler.status.http import MOST_CONNECTIONS
from tests.daemons import DaemonProcess, running, until
from tests.parts_postgres import Database

IDLE = 1000
SPARE_FILES = 100  # what the daemon has open besides, and what is accepted before the oldest are gone
GROWTH_BYTES = 96 * 2**20
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as may be: each idle client is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2 * IDLE <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
async def daemon(database: Database, tmp_path: Path) -> AsyncIterator[DaemonProcess]:
    async with running(DaemonProcess(tmp_path, database.dsn_as("daemon"))) as daemon:
        await daemon.logs("ready")
        yield daemon


async def open_files(daemon: DaemonProcess) -> float:
    return await daemon.metric("process_open_fds") or 0.0


async def say(daemon: DaemonProcess, *pieces: bytes, pause: float = 0.0, read: bool = True) -> bytes:
    """Send these pieces, one after the other, and return what comes back until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
    answer = b""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(30):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
            while read and (more := await reader.read(65536)):
                answer += more
    with suppress(OSError):
        writer.transport.abort()
    return answer


async def idle(daemon: DaemonProcess) -> None:
    """A thousand connections that say nothing, all open at once."""
    opened = []
    for _ in range(IDLE):
        with suppress(OSError):
            opened.append(await asyncio.open_connection("127.0.0.1", daemon.port))
    assert len(opened) > IDLE / 2
    assert await open_files(daemon) < MOST_CONNECTIONS + SPARE_FILES
    for _, writer in opened:
        writer.transport.abort()


async def dribble(daemon: DaemonProcess) -> None:
    """Requests that come letter by letter."""
    letters = [bytes([letter]) for letter in b"GET /livez HTTP/1.1\r\nX-Slow: aaaaaaaaaaaaaaaaaa"]
    await asyncio.gather(*(say(daemon, *letters, pause=0.05, read=False) for _ in range(100)))


async def noise(daemon: DaemonProcess) -> None:
    """What is no HTTP, or begins like it and goes on as something else."""
    chance = random.Random(20261121)  # noise that is the same in every run
    starts = (
        b"",
        b"GET ",
        b"GET / HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PRI * ",
    )

    async def once() -> None:
        said = chance.choice(starts) + chance.randbytes(chance.randrange(1, 20_000)) + b"\r\n\r\n"
        answer = await say(daemon, said, read=chance.random() < 0.5)
        assert answer[:12] in (b"", b"HTTP/1.0 400", b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 405")

    for _ in range(10):
        await asyncio.gather(*(once() for _ in range(15)))


async def floods(daemon: DaemonProcess) -> None:
    """Headers, bodies, lines and requests without end."""
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
    pieces = (
        (request + b"\r\n") * 2000,
        request + b"A: b\r\n" * 10_000,
        request + b"A: " + b"b" * 100_000,
        b"GET /" + b"a" * 100_000,
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n" + b"a" * 100_000,
        b"\r\n" * 50_000,
    )
    await asyncio.gather(*(say(daemon, *([piece] * 100), read=False) for piece in pieces * 2))


async def vanish(daemon: DaemonProcess) -> None:
    """Clients that ask and are gone, or ask for much and read nothing of it."""
    unread = []
    for number in range(200):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        with suppress(OSError):
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", daemon.port))
            client.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        if number % 2:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            client.close()
        else:
            unread.append(client)
        await asyncio.sleep(0)
    for client in unread:
        client.close()


ABUSE: tuple[Callable[[DaemonProcess], Awaitable[None]], ...] = (idle, dribble, noise, floods, vanish)


@pytest.mark.usefixtures("many_files")
async def test_nothing_that_a_client_does_keeps_others_from_their_answers(daemon: DaemonProcess):
    files, memory = await open_files(daemon), await daemon.metric("process_resident_memory_bytes")
    over = asyncio.Event()
    answers: dict[str, list[int]] = {"/livez": [], "/readyz": [], "/metrics": [], "/": []}

    async def ask() -> None:
        while not over.is_set():
            for path, statuses in answers.items():
                statuses.append((await daemon.get(path))[0])

    asking = asyncio.create_task(ask())
    await asyncio.gather(*(abuse(daemon) for abuse in ABUSE))
    over.set()
    await asking

    assert {path: {*statuses} for path, statuses in answers.items()} == {path: {200} for path in answers}

    async def given_back() -> bool:
        return await open_files(daemon) <= files + 2

    await until(given_back, "the files of those who are gone are given back")
    grown = (await daemon.metric("process_resident_memory_bytes") or 0.0) - (memory or 0.0)
    assert grown < GROWTH_BYTES
    assert await daemon.stop() == 0
    lines = daemon.log_file.read_text().splitlines()
    assert {json.loads(line)["level"] for line in lines} == {"info"}, "who abuses us does not fill our log"


async def test_who_asks_in_unusual_ways_gets_a_plain_answer(daemon: DaemonProcess):
    for said, status in (
        (b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
        (b"GET /livez HTTP/1.0\r\n\r\n", b"200"),
        (b"GET http://elsewhere.example/livez HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
        (b"GET /livez?verbose&verbose=%00%ff HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b"200"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n", b"200"),
        (b"GET //livez HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET /livez/ HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", b"40"),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", b"40"),
        (b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", b"40"),
    ):
        answer = await say(daemon, said)

        final = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert final[9:].startswith(status), (said, answer[:300])
        assert b"Traceback" not in answer
    assert await daemon.stop() == 0
    assert {json.loads(line)["level"] for line in daemon.log_file.read_text().splitlines()} == {"info"}
