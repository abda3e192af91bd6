"""Nodes, keys in force and what became of them, for the tests of placement; and who writes them."""

import asyncio
from collections import Counter
from typing import LiteralString

import pytest

from reconciler.db.pool import Connection
from reconciler.desired.nodes import NewNode
from reconciler.desired.placement import place
from reconciler.desired.writer import Operator
from reconciler.model import Inbound, NodeState, Protocol
from tests.parts_postgres import Database

ENDS: dict[str, LiteralString] = {
    "expired": "UPDATE reconciler.subscriptions SET expires_at = now() - interval '1 second'",
    "revoked": "UPDATE reconciler.subscriptions SET revoked_at = now()",
    "key revoked": "UPDATE reconciler.keys SET revoked_at = now()",
    "not started": "UPDATE reconciler.subscriptions SET starts_at = now() + interval '1 minute'",
}


@pytest.fixture
async def root(database):
    """A superuser's connection."""
    async with await database.connect() as root:
        yield root


@pytest.fixture
async def operator(root):
    """All the writes there are, on that connection."""
    return Operator(root, "root")


@pytest.fixture
async def daemon(database):
    """A connection with the rights of the daemon."""
    async with await database.connect("daemon") as daemon:
        yield daemon


async def node(
    operator: Operator,
    name: str,
    capacity: int | None = None,
    state: NodeState = NodeState.ACTIVE,
    pool: str = "default",
) -> int:
    return await operator.add_node(
        NewNode(
            name=name,
            api=f"{name}:1",
            inbounds=[Inbound("in", Protocol.VLESS)],
            capacity=capacity,
            state=state,
            pool=pool,
        )
    )


async def grant(root: Connection, number: int, pool: str = "default", spread: str = "one") -> list[int]:
    """Write so many keys at once, each with a subscription of its own that is in force."""
    cursor = await root.execute(
        "WITH someone AS (INSERT INTO reconciler.users (name) VALUES ('Olga') RETURNING id),"
        " granted AS (INSERT INTO reconciler.subscriptions (user_id, starts_at, expires_at)"
        "   SELECT id, now() - interval '1 day', now() + interval '1 day'"
        "     FROM someone, generate_series(1, %s) RETURNING id)"
        " INSERT INTO reconciler.keys (subscription_id, credential, pool, spread)"
        "   SELECT id, gen_random_uuid(), %s, %s FROM granted RETURNING id",
        (number, pool, spread),
    )
    return sorted(key_id for (key_id,) in await cursor.fetchall())


async def place_rows(
    connection: Connection, key_ids: list[int] | None = None, batch: int | None = None
) -> tuple[int, dict[str, int]]:
    """Place, and return how many rows that wrote and how many keys of which pools are left."""
    placed = await place(connection, key_ids, batch)
    return placed.placements, dict(placed.unplaced)


async def live(root: Connection) -> dict[int, list[str]]:
    """Return the nodes of every placed key."""
    cursor = await root.execute(
        "SELECT p.key_id, array_agg(n.name ORDER BY n.name)"
        "  FROM reconciler.placements p JOIN reconciler.nodes n ON n.id = p.node_id"
        " WHERE p.ended_at IS NULL GROUP BY p.key_id ORDER BY p.key_id"
    )
    return dict(await cursor.fetchall())


async def per_node(root: Connection) -> Counter[str]:
    return Counter(name for names in (await live(root)).values() for name in names)


async def waiting_for_the_pool(database: Database, number: int) -> None:
    """Return when so many sessions of this database wait for the lock of a pool."""
    async with asyncio.timeout(10), await database.connect() as watcher:
        while True:
            cursor = await watcher.execute(
                "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database"
                " WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
            )
            if await cursor.fetchone() == (number,):
                return
