"""
The stage: an embedded PostgreSQL, three real Xray nodes, the daemon as its own process.

Each part is put on the caller's exit stack before it is started, so that
whatever breaks off, wherever, takes down what was there.
"""

import asyncio
import os
import secrets
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import tomli_w
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from reconciler.db.migrate import migrate
from reconciler.db.pool import Connection, connect, store_errors
from reconciler.demo.daemon import DaemonProcess
from reconciler.demo.postgres import EmbeddedPostgres
from reconciler.demo.telling import Telling, span
from reconciler.demo.vless import VlessClient
from reconciler.demo.watch import until
from reconciler.demo.xray import HOST, Listener, XrayProcess, free_port
from reconciler.desired import look
from reconciler.desired.look import FleetRow
from reconciler.desired.nodes import NewNode
from reconciler.desired.subscriptions import Granted
from reconciler.desired.writer import Operator
from reconciler.model import Credential, Inbound, Listed, Owner, Protocol
from reconciler.node.port import list_users
from reconciler.node.xray import XrayNode

CITIES = ("paris", "tokyo", "lima")
DOOR = Inbound("vless-in", Protocol.VLESS)
OWNER = Owner("demo")
CYCLE_SECONDS = 1.0
CALL_SECONDS = 5.0

# The rows are gone with the demo, so nothing is gained by making them survive a power cut.
_POSTGRES = {"fsync": "off", "full_page_writes": "off"}
_ROLES = ("daemon", "operator")


@dataclass(frozen=True, slots=True)
class City:
    """One node: its process, and what somebody with access to the machine may do to it by hand."""

    node_id: int
    xray: XrayProcess
    hand: XrayNode

    @property
    def name(self) -> str:
        """The name of its row."""
        return self.xray.name

    async def users(self) -> dict[str, Listed]:
        """List the node's users by name, as the node itself tells."""
        return {user.name: user for user in await list_users(self.hand, DOOR, CALL_SECONDS)}

    async def count(self) -> int:
        """Ask the node how many users it has."""
        return (await self.hand.probe((DOOR,), CALL_SECONDS)).users[DOOR.tag]


@dataclass(slots=True)
class Stage:
    """All that the chapters work with; `keys` is what was granted, by the id of the key."""

    directory: Path
    stack: AsyncExitStack
    operator_dsn: str
    psql: Path
    connection: Connection
    operator: Operator
    daemon: DaemonProcess
    cities: dict[str, City]
    keys: dict[int, Granted] = field(default_factory=dict)
    _customers: dict[bytes, VlessClient] = field(default_factory=dict)

    @property
    def operator_config(self) -> Path:
        """The configuration for commands with the operator's rights."""
        return self.directory / "operator.toml"

    async def now(self) -> datetime:
        """Read the database's clock."""
        async with store_errors():
            cursor = await self.connection.execute("SELECT clock_timestamp()")
            row = await cursor.fetchone()
        assert row is not None
        now: datetime = row[0]
        return now

    async def customer(self, city: City, key_id: int) -> VlessClient:
        """Return a real client of this node that holds this key."""
        return await self.stranger(city, await look.credential(self.connection, key_id))

    async def stranger(self, city: City, credential: Credential) -> VlessClient:
        """Return a real client of this node with any credential; asked for again, it is the same one."""
        known = bytes(credential) + city.name.encode()
        if known not in self._customers:
            client = VlessClient(self.directory, city.xray.port(DOOR.tag), credential)
            self._customers[known] = await self.stack.enter_async_context(client)
        return self._customers[known]

    async def placed_on(self, city: City) -> list[int]:
        """Return the keys that were placed on a node, ascending."""
        return await look.keys_on(self.connection, city.node_id)

    async def status(self, city: City) -> FleetRow:
        """Return what the daemon last reported of a node."""
        fleet = {row.node_id: row for row in await look.fleet(self.connection)}
        return fleet[city.node_id]

    async def await_cycles(self, city: City, number: int) -> None:
        """Wait until the daemon has ended so many more cycles of a node."""
        before = (await self.daemon.figures(city.name)).cycles

        async def passed() -> bool:
            return (await self.daemon.figures(city.name)).cycles >= before + number

        await until(passed, f"{number} cycles of {city.name}")


async def build(stack: AsyncExitStack, tell: Telling) -> Stage:
    """
    Start everything but the customers; the daemon is ready, and no key is there yet.

    Raises ReconcilerError, RuntimeError and OSError for what could not be started.
    """
    directory = Path(tempfile.mkdtemp(prefix="reconciler-demo-"))
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    tell.say("It takes half a minute; Ctrl-C ends it at any moment, and nothing is left.")
    with tell.waiting("starting PostgreSQL and three nodes"):
        started = time.monotonic()
        postgres = await _postgres(stack)
        nodes = await _nodes(stack, directory)
        await migrate(postgres.dsn, OWNER.mark, lambda _: None)
        dsns = await _logins(postgres.dsn, directory)
    took = span(time.monotonic() - started)
    tell.seen(f"PostgreSQL, and the Xray nodes paris, tokyo and lima: up in {took}")
    connection = await stack.enter_async_context(await connect(dsns["operator"]))
    await connection.set_autocommit(True)
    operator = Operator(connection, "demo")
    cities = {}
    for xray in nodes:
        template = f"vless://{{uuid}}@{HOST}:{xray.port(DOOR.tag)}?encryption=none#{{name}}"
        row = NewNode(name=xray.name, api=xray.api, inbounds=(DOOR,), link_template=template)
        hand = XrayNode(xray.name, xray.api)
        stack.push_async_callback(hand.close)
        cities[xray.name] = City(await operator.add_node(row), xray, hand)
    with tell.waiting("starting the daemon"):
        started = time.monotonic()
        daemon = await _daemon(stack, directory, dsns)
    took = span(time.monotonic() - started)
    tell.seen(f"the daemon, a process of its own, a full cycle each second: up in {took}")
    return Stage(
        directory, stack, dsns["operator"], postgres.binaries / "psql", connection, operator, daemon, cities
    )


async def _postgres(stack: AsyncExitStack) -> EmbeddedPostgres:
    """
    Start the server from a thread of its own.

    The thread lives as long as the stack, because the server ends with the
    thread that started it; being the only one, it also closes the server
    after a start that is still under way, never before.
    """
    thread = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="postgres"))
    loop = asyncio.get_running_loop()
    postgres = EmbeddedPostgres(_POSTGRES)

    async def close() -> None:
        await loop.run_in_executor(thread, postgres.close)

    stack.push_async_callback(close)
    await loop.run_in_executor(thread, postgres.start)
    return postgres


async def _nodes(stack: AsyncExitStack, directory: Path) -> list[XrayProcess]:
    nodes = [
        XrayProcess(directory, [Listener(DOOR.tag, DOOR.protocol, free_port())], name=name) for name in CITIES
    ]
    for node in nodes:
        stack.callback(node.kill)
        await node.start()
    return nodes


async def _logins(dsn: str, directory: Path) -> dict[str, str]:
    """Make a login role for the daemon and one for the operator; return their DSNs, which hold no secret."""
    passwords = {f"demo_{role}": secrets.token_urlsafe(18) for role in _ROLES}
    file = directory / "pgpass"
    _write(file, "".join(f"*:*:*:{user}:{password}\n" for user, password in passwords.items()))
    given = conninfo_to_dict(dsn)
    place = {name: str(given[name]) for name in ("host", "port", "dbname")}
    async with store_errors(), await connect(dsn) as connection:
        for role, (user, password) in zip(_ROLES, passwords.items(), strict=True):
            statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}").format(
                sql.Identifier(user), sql.Literal(password), sql.Identifier(f"reconciler_{role}")
            )
            await connection.execute(statement)
    return {role: make_conninfo(**place, user=f"demo_{role}", passfile=str(file)) for role in _ROLES}


async def _daemon(stack: AsyncExitStack, directory: Path, dsns: dict[str, str]) -> DaemonProcess:
    listen = f"{HOST}:{free_port()}"
    for role in _ROLES:
        document = {
            "database": {"dsn": dsns[role]},
            "cycle": {"full_interval_seconds": CYCLE_SECONDS},
            "traffic": {"interval_seconds": CYCLE_SECONDS},
            "http": {"listen": listen},
        }
        _write(directory / f"{role}.toml", tomli_w.dumps(document))
    daemon = DaemonProcess(directory / "daemon.toml", directory / "daemon.log", listen)
    stack.push_async_callback(daemon.stop)
    daemon.start()
    await until(daemon.is_ready, "the daemon is ready", 30)
    return daemon


def _write(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
