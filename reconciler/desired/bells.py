"""
The doorbell: PostgreSQL says that something has changed, and where to look.

A bell is never an order and never the truth. A lost one costs time until the
next full cycle; so after every reconnection, and after a silence in which not
even our own heartbeat came back, everything is rung once.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg
import structlog

from reconciler.db.pool import connect, store_errors
from reconciler.errors import StoreError, StoreUnavailable
from reconciler.logs import Repeats

log = structlog.get_logger()

CHANNEL = "reconciler"
HEARTBEAT_SECONDS = 10.0
RECONNECT_SECONDS = 1.0

NOWHERE = 0
"""Stands for the node of a key that no node carries yet."""

_HEARTBEAT = "1 h"
_ID = "[0-9]{1,18}"
_PAIRS = re.compile(f"1 k ({_ID}:{_ID}(?:,{_ID}:{_ID})*)")
_NODES = re.compile(f"1 n ({_ID}(?:,{_ID})*)")


@dataclass(frozen=True, slots=True)
class Bell:
    """Where to look: at some keys of some nodes, at whole nodes, or everywhere."""

    keys: dict[int, frozenset[int]] = field(default_factory=dict)
    nodes: frozenset[int] = frozenset()
    everywhere: bool = False


EVERYWHERE = Bell(everywhere=True)


def read_bell(payload: str) -> Bell | None:
    """Return what a payload says; None when it is not one of ours, or of a version that we do not know."""
    if payload == "1 *":
        return EVERYWHERE
    if nodes := _NODES.fullmatch(payload):
        return Bell(nodes=frozenset(map(int, nodes[1].split(","))))
    if pairs := _PAIRS.fullmatch(payload):
        keys: dict[int, set[int]] = {}
        for pair in pairs[1].split(","):
            node, _, key = pair.partition(":")
            keys.setdefault(int(node), set()).add(int(key))
        return Bell(keys={node: frozenset(ids) for node, ids in keys.items()})
    return None


async def listen(
    dsn: str,
    ring: Callable[[Bell], None],
    tell: Callable[[str | None], None],
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> None:
    """
    Ring for every bell, for ever; the connection is our own, and is made again when it breaks.

    `tell` is told the reason why it does not listen, None when it does.
    """
    repeats = Repeats()

    def listening() -> None:
        repeats.recovered(CHANNEL)
        tell(None)
        log.info("listening for changes")
        ring(EVERYWHERE)

    while True:
        try:
            await _listen_once(dsn, ring, listening, heartbeat_seconds)
        except StoreError as error:
            tell(str(error))
            swallowed = repeats.failed(CHANNEL, str(error), asyncio.get_running_loop().time())
            if swallowed is not None:
                log.warning(
                    "not listening for changes; they are found by looking",
                    reason=str(error),
                    repeats=swallowed,
                )
        await asyncio.sleep(RECONNECT_SECONDS)


async def _listen_once(
    dsn: str, ring: Callable[[Bell], None], listening: Callable[[], None], heartbeat_seconds: float
) -> None:
    async with store_errors(), await connect(dsn) as connection:
        await connection.set_autocommit(True)
        await connection.execute(f"LISTEN {CHANNEL}")
        listening()
        while True:
            await _hear(connection, ring, heartbeat_seconds)


async def _hear(
    connection: psycopg.AsyncConnection[tuple[object, ...]], ring: Callable[[Bell], None], seconds: float
) -> None:
    """Listen for one heartbeat; raises StoreUnavailable when it does not come back, as on a dead line."""
    try:
        async with asyncio.timeout(seconds):
            await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, _HEARTBEAT))
        heard = False
        async for notice in connection.notifies(timeout=seconds):
            heard = heard or notice.payload == _HEARTBEAT
            if (bell := read_bell(notice.payload)) is not None:
                ring(bell)
    except TimeoutError:
        raise StoreUnavailable("the listening connection does not answer") from None
    if not heard:
        raise StoreUnavailable("the listening connection is silent")
