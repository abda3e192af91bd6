"""
The HTTP port: metrics, health and the fleet page, answered from memory.

Whoever may connect may ask, so nothing a client does can hurt the work: an
answer ends its connection, one that lasts is cut after some seconds, one beyond
the limit cuts the oldest of its kind, and what is no HTTP gets its 4xx without
a log line.
"""

import asyncio
import errno
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from reconciler.config import socket_path, split_address
from reconciler.errors import ConfigError, Fault
from reconciler.status.fleet_page import HEADERS, FleetPage
from reconciler.status.health import Check, Health, healthy
from reconciler.status.metrics import CONTENT_TYPE, Metrics

MOST_CONNECTIONS = 256
ACCEPTED_AT_ONCE = 16
"""No burst may push out who came with it before his request is read: that takes some turns of the loop."""
WAITING = 512  # in the kernel's queue, where a burst costs nobody anything
DEADLINE_SECONDS = 10.0  # what Prometheus waits for an answer unless told otherwise

_Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _is_ours(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_log = logging.getLogger(__name__)
_log.addFilter(_is_ours)


class HttpServer:
    """A running server; `address` is host:port, or unix:/path, as it was bound."""

    def __init__(self, runner: web.AppRunner, server: asyncio.Server) -> None:
        self._runner = runner
        self._server = server
        self.address = _address(server.sockets[0].getsockname())

    async def close(self) -> None:
        """Listen no more, and end what is under way within a second."""
        self._server.close()
        await self._runner.cleanup()


async def serve(
    listen: str,
    metrics: Metrics,
    health: Health,
    page: FleetPage,
    clock: Callable[[], float],
    deadline_seconds: float = DEADLINE_SECONDS,
) -> HttpServer:
    """
    Serve on `listen`, host:port or unix:/path; `clock` is the one that `health` is told the time by.

    Raises ConfigError when the address cannot be listened on.
    """
    room = _Room(deadline_seconds)
    app = web.Application(middlewares=[room.answering])
    live = _checks(lambda: health.live(clock()))
    app.add_routes(
        [
            web.get("/", _page(page)),
            web.get("/metrics", _metrics(metrics)),
            web.get("/livez", live),
            web.get("/healthz", live),
            web.get("/readyz", _checks(lambda: health.ready(clock()))),
        ]
    )
    runner = web.AppRunner(
        app, access_log=None, logger=_log, handle_signals=False, shutdown_timeout=1.0, lingering_time=0
    )
    await runner.setup()
    try:
        server = await _bound(listen, lambda: room.connection(runner.server))
    except (OSError, UnicodeError) as error:
        await runner.cleanup()
        fault = f"cannot be listened on: {_reason(error)}"
        raise ConfigError([Fault("http.listen", listen, fault)]) from error
    for listening in server.sockets:
        with listening.dup() as same:
            same.listen(WAITING)
    return HttpServer(runner, server)


async def _bound(listen: str, connection: Callable[[], web.RequestHandler]) -> asyncio.Server:
    """Listen; a socket file is open to every account of the host, as a port of loopback is."""
    loop = asyncio.get_running_loop()
    if (path := socket_path(listen)) is None:
        return await loop.create_server(connection, *split_address(listen), backlog=ACCEPTED_AT_ONCE)
    server = await loop.create_unix_server(connection, path, backlog=ACCEPTED_AT_ONCE)
    path.chmod(0o666)
    return server


def _address(bound: str | tuple[str, int]) -> str:
    if isinstance(bound, str):
        return f"unix:{bound}"
    host, port = bound[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(error: OSError | UnicodeError) -> str:
    """Return the reason alone: asyncio's own words repeat the address."""
    if isinstance(error, socket.gaierror):
        return error.strerror or "no such host"
    if isinstance(error, UnicodeError):
        return "no such host"
    return os.strerror(error.errno or errno.EADDRNOTAVAIL)  # no number: none of the host's addresses fits


class _Room:
    """
    Keeps the number of connections and their lives bounded.

    Those who have asked and those who only came are two crowds, and the larger
    one makes room, so that neither can push out the other.
    """

    def __init__(self, deadline_seconds: float) -> None:
        self._deadline_seconds = deadline_seconds
        self._asked: set[web.RequestHandler] = set()

    def connection(self, server: web.Server | None) -> web.RequestHandler:
        """Make room for one more connection, and return it."""
        if server is None:
            raise ConnectionAbortedError
        present = [other for other in server.connections if _is_open(other)]  # the oldest first
        self._asked.intersection_update(present)
        asked = [other for other in present if other in self._asked]
        silent = [other for other in present if other not in self._asked]
        too_many = max(0, len(present) - MOST_CONNECTIONS + 1)
        for oldest in max(asked, silent, key=len)[:too_many]:
            _cut(oldest)
        newest = server()
        asyncio.get_running_loop().call_later(self._deadline_seconds, _cut, newest)
        return newest

    @web.middleware
    async def answering(self, request: web.Request, handler: _Answer) -> web.StreamResponse:
        """Note who has asked, and end his connection after the answer; the library prescribes the names."""
        self._asked.add(request.protocol)
        try:
            response = await handler(request)
        except web.HTTPException as refusal:
            refusal.force_close()
            raise
        response.force_close()
        return response


def _is_open(connection: web.RequestHandler) -> bool:
    return connection.transport is not None and not connection.transport.is_closing()


def _cut(connection: web.RequestHandler) -> None:
    """End a connection at once; closing it would wait for a client that does not read."""
    if connection.transport is not None:
        connection.transport.abort()


def _metrics(metrics: Metrics) -> _Answer:
    async def answer(_request: web.Request) -> web.Response:
        parts = []
        for part in metrics.slices():
            parts.append(part)
            await asyncio.sleep(0)  # the work of a thousand nodes goes on in between
        return web.Response(body="".join(parts).encode(), headers={"Content-Type": CONTENT_TYPE})

    return answer


def _page(page: FleetPage) -> _Answer:
    async def answer(request: web.Request) -> web.Response:
        rendered = await page.rendered()
        headers = {"Content-Type": "text/html; charset=utf-8", **HEADERS}
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            return web.Response(body=rendered.packed, headers={**headers, "Content-Encoding": "gzip"})
        return web.Response(body=rendered.html, headers=headers)

    return answer


def _checks(look: Callable[[], list[Check]]) -> _Answer:
    async def answer(request: web.Request) -> web.Response:
        checks = look()
        ok = healthy(checks)
        status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
        if "application/json" in request.headers.get("Accept", ""):
            body = json.dumps({"ok": ok, "checks": [check._asdict() for check in checks]})
            return web.Response(text=body, status=status, content_type="application/json")
        shown = checks if "verbose" in request.query else [check for check in checks if not check.ok]
        lines = [*map(_line, shown), "ok" if ok else "not ok"]
        return web.Response(text="\n".join(lines) + "\n", status=status)

    return answer


def _line(check: Check) -> str:
    mark = "+" if check.ok else "-" if check.required else "!"
    return f"[{mark}] {check.name}: {check.detail}"
