"""A real client of a node, and the target that it reaches through it: what proves that a door is open."""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from reconciler.demo.xray import HOST, XrayProcess, free_port
from reconciler.model import Credential, Protocol

KNOCK_BYTES = 16
_PIECE_BYTES = 65_536


class _Target(asyncio.Protocol):
    """One connection of the server that customers talk to: it sends back what it gets, to the end."""

    def __init__(self, open_ones: set[asyncio.Transport]) -> None:
        self._open_ones = open_ones

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._open_ones.add(self._transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._open_ones.discard(self._transport)


class VlessClient:
    """
    One customer with one credential: an Xray process as the client, and a server of his own to talk to.

    Use it as an async context manager. VMess and Trojan are spoken as well.
    """

    def __init__(
        self, directory: Path, server_port: int, credential: Credential, protocol: Protocol = Protocol.VLESS
    ) -> None:
        """`directory` takes the client's configuration and log; `server_port` is the node's inbound."""
        self._socks_port = free_port()
        inbound = {"protocol": "socks", "listen": HOST, "port": self._socks_port, "settings": {"udp": False}}
        config = {
            "log": {"loglevel": "warning"},
            "inbounds": [inbound],
            "outbounds": [_outbound(protocol, server_port, credential)],
        }
        self._process = XrayProcess(directory, name=f"client-{self._socks_port}", config=config)
        self._target: asyncio.Server | None = None
        self._connections: set[asyncio.Transport] = set()

    @property
    def proxy(self) -> str:
        """Where other programs get through the node as this customer, as a proxy's URL."""
        return f"socks5h://{HOST}:{self._socks_port}"

    async def opens(self, patience_seconds: float = 5) -> bool:
        """
        Make one new connection through the node, and tell whether bytes go to the target and back.

        False when the node refuses, cannot be reached, or lets nothing
        through for `patience_seconds`. Raises RuntimeError when the client itself is not running.
        """
        return await self.transfer(KNOCK_BYTES, patience_seconds) == KNOCK_BYTES

    async def transfer(self, count: int, patience_seconds: float = 5) -> int:
        """
        Send so many bytes to the target on one new connection, and return how many are known to be back.

        None are when the node refuses or cannot be reached, and fewer when it
        takes longer than `patience_seconds`. Raises RuntimeError when the client itself is not running.
        """
        if self._target is None or not self._process.is_running:
            raise RuntimeError("the client is not running")
        port = self._target.sockets[0].getsockname()[1]
        came_back = 0
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(patience_seconds), self.connection(port) as (reader, writer):
                while came_back < count:
                    fresh = secrets.token_bytes(min(_PIECE_BYTES, count - came_back))
                    writer.write(fresh)
                    if await reader.readexactly(len(fresh)) != fresh:
                        break
                    came_back += len(fresh)
        return came_back

    @contextlib.asynccontextmanager
    async def connection(self, port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """
        Open a connection to a port of loopback through the node.

        The client's SOCKS5 inbound says yes before the node was asked, so
        what comes back tells whether the door is open, and not this.
        """
        reader, writer = await asyncio.open_connection(HOST, self._socks_port)
        try:
            writer.write(b"\x05\x01\x00")
            await reader.readexactly(2)
            writer.write(b"\x05\x01\x00\x01" + socket.inet_aton(HOST) + port.to_bytes(2, "big"))
            await reader.readexactly(10)
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._target = await loop.create_server(lambda: _Target(self._connections), HOST, 0)
        await self._process.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        if self._target is not None:
            self._target.close()
        for connection in list(self._connections):
            connection.abort()


def _outbound(protocol: Protocol, port: int, credential: Credential) -> dict[str, Any]:
    server: dict[str, Any] = {"address": HOST, "port": port}
    if protocol is Protocol.TROJAN:
        settings = {"servers": [{**server, "password": credential.text()}]}
    else:
        only = {"encryption": "none"} if protocol is Protocol.VLESS else {"security": "auto"}
        settings = {"vnext": [{**server, "users": [{"id": credential.text(), **only}]}]}
    return {"protocol": protocol.value, "settings": settings, "mux": {"enabled": False}}
