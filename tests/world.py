"""One node, its database and its cycles: the daemon's own parts put together by hand, without the daemon."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from reconciler.config import Config
from reconciler.db.pool import open_pool
from reconciler.demo.xray import Listener, XrayProcess, client, free_port
from reconciler.desired.reader import DesiredReader
from reconciler.loop.cycle import Cycles
from reconciler.loop.outcome import CycleReport
from reconciler.loop.trust import ClockTrust
from reconciler.model import Account, Credential, Inbound, Owner, Protocol, StepKind
from reconciler.node.port import NodePort, list_users
from reconciler.node.xray import XrayNode
from reconciler.status.lease import Leases
from reconciler.status.recorder import Recorder
from tests.parts_postgres import Database
from tests.parts_xray import StartXray

OWNER = Owner("test")
VLESS = Inbound("vless-in", Protocol.VLESS)
CALL_SECONDS = 5.0
FOREIGN = Credential(bytes(range(16)))
STRANGER = "operator@elsewhere"


@dataclass
class World:
    """Rows are written by `sql` as a superuser; everything else is done with the daemon's own rights."""

    sql: psycopg.AsyncConnection[tuple[Any, ...]]
    cycles: Cycles
    port: NodePort
    leases: Leases
    node_id: int

    async def execute(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        cursor = await self.sql.execute(query, values)
        return await cursor.fetchall() if cursor.description else []

    async def keys(self, number: int, days: float = 30) -> list[int]:
        """Grant `number` keys that are placed on the node; return their ids."""
        made = await self.execute(
            """
            WITH person AS (INSERT INTO reconciler.users (name) VALUES ('somebody') RETURNING id),
            access AS (INSERT INTO reconciler.subscriptions (user_id, starts_at, expires_at)
              SELECT person.id, now() - interval '1 day', now() + make_interval(secs => %s * 86400)
                FROM person, generate_series(1, %s) RETURNING id),
            doors AS (INSERT INTO reconciler.keys (subscription_id, credential)
              SELECT id, gen_random_uuid() FROM access RETURNING id)
            INSERT INTO reconciler.placements (key_id, node_id, reason)
            SELECT id, %s, 'a test' FROM doors ORDER BY id RETURNING key_id
            """,
            days,
            number,
            self.node_id,
        )
        return [key_id for (key_id,) in made]

    async def credential(self, key_id: int) -> Credential:
        ((credential,),) = await self.execute(
            "SELECT uuid_send(credential) FROM reconciler.keys WHERE id = %s", key_id
        )
        return Credential(credential)

    async def revoke(self, key_ids: Sequence[int]) -> None:
        await self.execute("UPDATE reconciler.keys SET revoked_at = now() WHERE id = ANY(%s)", list(key_ids))

    async def set_expiry(self, key_ids: Sequence[int], interval: str) -> None:
        """Move the end of these keys' subscriptions to so long from now, which may be negative."""
        await self.execute(
            """UPDATE reconciler.subscriptions s
                  SET expires_at = now() + %s::interval, starts_at = now() - interval '100 days'
                 FROM reconciler.keys k WHERE k.subscription_id = s.id AND k.id = ANY(%s)""",
            interval,
            list(key_ids),
        )

    async def order(self, kind: str, key_ids: Sequence[int]) -> int:
        ((order_id,),) = await self.execute(
            """INSERT INTO reconciler.orders (kind, node_id, key_ids, digest, count, actor, valid_until)
               VALUES (%s, %s, %s, sha256(convert_to(array_to_string(%s::bigint[], ','), 'UTF8')), %s,
                       'a test', now() + interval '1 hour') RETURNING id""",
            kind,
            self.node_id,
            sorted(key_ids),
            sorted(key_ids),
            len(key_ids),
        )
        return int(order_id)

    async def cycle(self) -> CycleReport:
        return await self.cycles.run()

    async def names(self, inbound: Inbound = VLESS) -> set[str]:
        """The names on the node, as it lists them."""
        return {user.name for user in await list_users(self.port, inbound, CALL_SECONDS)}

    async def promises(self) -> dict[int, tuple[Any, ...]]:
        """The live promises: key id → (digest, until)."""
        rows = await self.execute(
            """SELECT key_id, account_digest, promised_until FROM reconciler.promises
                WHERE node_id = %s AND ended_at IS NULL""",
            self.node_id,
        )
        return {row[0]: row[1:] for row in rows}

    async def status(self, column: str) -> Any:
        ((value,),) = await self.execute(
            f"SELECT {column} FROM reconciler.node_status WHERE node_id = %s", self.node_id
        )
        return value


def kinds(report: CycleReport) -> list[StepKind]:
    """What was done, step by step."""
    return sorted(step.kind for step in report.applied.done)


@asynccontextmanager
async def make_world(
    database: Database,
    port: NodePort,
    *inbounds: Inbound,
    api: str = "127.0.0.1:1",
    state: str = "active",
    config: Callable[[], Config] = Config,
    name: str = "n1",
) -> AsyncIterator[World]:
    """Write the node's rows and hold its lease; the pool is the daemon's, with the daemon's rights."""
    sql = await database.connect()
    pool = await open_pool(database.dsn_as("daemon"), 4)
    try:
        cursor = await sql.execute(
            "INSERT INTO reconciler.nodes (name, api, state) VALUES (%s, %s, %s) RETURNING id",
            (name, api, state),
        )
        row = await cursor.fetchone()
        assert row is not None
        for inbound in inbounds or (VLESS,):
            await sql.execute(
                "INSERT INTO reconciler.inbounds (node_id, tag, protocol, flow) VALUES (%s, %s, %s, %s)",
                (row[0], inbound.tag, inbound.protocol, inbound.flow),
            )
        reader = DesiredReader(pool)
        node = next(node for node in await reader.fleet() if node.node_id == row[0])
        leases = Leases(pool, f"test-{name}", time.monotonic, ttl_seconds=60, margin_seconds=1)
        await leases.keep({node.node_id: node.name})
        cycles = Cycles(
            node=node,
            lease=leases.held[node.node_id],
            port=port,
            reader=reader,
            recorder=Recorder(pool),
            owner=await reader.owner(),
            config=config,
            clock=time.monotonic,
            stopping=lambda: False,
            progressed=lambda: None,
            trust=ClockTrust(60),
            slots=asyncio.Semaphore(1),
        )
        yield World(sql, cycles, port, leases, node.node_id)
    finally:
        await port.close()
        await pool.close()
        await sql.close()


@pytest.fixture
async def node(start_xray: StartXray) -> XrayProcess:
    """A node without users."""
    return await start_xray()


@pytest.fixture
async def world(database: Database, node: XrayProcess) -> AsyncIterator[World]:
    """That node under the name n1, without keys."""
    async with make_world(database, XrayNode("n1", node.api), api=node.api) as world:
        yield world


async def strangers_node(start_xray: StartXray) -> XrayProcess:
    """Start a node whose own configuration has a user that is none of ours."""
    stranger = client(Protocol.VLESS, STRANGER, Account(FOREIGN))
    return await start_xray(Listener(VLESS.tag, VLESS.protocol, free_port(), [stranger]))


def ours(*key_ids: int) -> set[str]:
    """The names of these keys, and that of the stranger."""
    return {OWNER.name(key_id) for key_id in key_ids} | {STRANGER}
