"""A customer with one open connection through a node, who measures the round trip again and again (P7)."""

import asyncio
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.bench.lines import answer

HOST = "127.0.0.1"
BETWEEN_SECONDS = 0.002
_MESSAGE = b"x" * 64


class Customer:
    """One connection through the client's SOCKS port to a server of its own that sends everything back."""

    def __init__(self) -> None:
        self._connection: socket.socket | None = None

    async def connect(self, socks: int) -> dict[str, Any]:
        """Open it; tell whether this process may come before all others of its core."""
        server = socket.create_server((HOST, 0))
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
        connection = self._connection = socket.create_connection((HOST, socks))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b"\x05\x01\x00")
        _exactly(connection, 2)
        port = server.getsockname()[1]
        connection.sendall(b"\x05\x01\x00\x01" + socket.inet_aton(HOST) + port.to_bytes(2, "big"))
        _exactly(connection, 10)
        _round_trip(connection)
        _come_first()
        return {"first": os.sched_getscheduler(0) == os.SCHED_RR}

    async def measure(self, seconds: float) -> dict[str, Any]:
        """
        Send at a steady beat; return the round trips in seconds, and the moment of each.

        A message that could not be sent at its beat, because the one before
        was still on its way, counts from its beat: so one long stall is not
        taken for one slow message.
        """
        connection = self._connection
        assert connection is not None
        trips, moments = [], []
        began = last = time.perf_counter()
        beat = began
        while beat < began + seconds:
            now = time.perf_counter()
            if now < beat:
                time.sleep(beat - now)  # noqa: ASYNC251 - nothing else runs here
            from_when = beat if last > beat else time.perf_counter()
            _round_trip(connection)
            last = time.perf_counter()
            trips.append(last - from_when)
            moments.append(beat - began)
            beat += BETWEEN_SECONDS
        return {"trips": trips, "moments": moments}


def _come_first() -> None:
    """Go before all others of this core, where that is allowed."""
    with suppress(PermissionError):
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setscheduler(int(thread.name), os.SCHED_RR, os.sched_param(2))


def _round_trip(connection: socket.socket) -> None:
    connection.sendall(_MESSAGE)
    _exactly(connection, len(_MESSAGE))


def _exactly(connection: socket.socket, number: int) -> None:
    while number:
        got = len(connection.recv(number))
        if not got:
            raise ConnectionError("the node closed the customer's connection")
        number -= got


def _echo(server: socket.socket) -> None:
    connection, _ = server.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while received := connection.recv(65_536):
        connection.sendall(received)


if __name__ == "__main__":
    customer = Customer()
    asyncio.run(answer({"connect": customer.connect, "measure": customer.measure}))
