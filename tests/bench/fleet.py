"""Many keys, and few real Xray processes that play many nodes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from reconciler.demo.xray import HOST, XrayProcess, free_port

NODES_PER_XRAY = 100
TAG = "vless-in"

_KEYS = """
INSERT INTO reconciler.users (name) VALUES ('somebody');
INSERT INTO reconciler.subscriptions (user_id, starts_at, expires_at)
SELECT 1, now() - interval '10 days', now() + interval '30 days' + make_interval(secs => number)
  FROM generate_series(1, {keys}) AS number;
INSERT INTO reconciler.keys (subscription_id, credential)
SELECT id, gen_random_uuid() FROM reconciler.subscriptions ORDER BY id;
"""

# The keys of one node are spread over all pages of the tables, as they are where nodes fill side by side.
_PLACED = """
INSERT INTO reconciler.placements (key_id, node_id, reason)
SELECT id, 1 + (id - 1) % {nodes}, 'a benchmark' FROM reconciler.keys ORDER BY id;
"""
_COUNTED = """
INSERT INTO reconciler.placement_counts (node_id, live)
SELECT node_id, count(*) FROM reconciler.placements WHERE ended_at IS NULL GROUP BY node_id;
"""
_PROMISED = """
INSERT INTO reconciler.promises (key_id, node_id, account_digest, promised_until)
SELECT k.id, p.node_id, reconciler.account_digest(k.credential, n.text), s.expires_at
  FROM reconciler.placements p
  JOIN reconciler.keys k ON k.id = p.key_id
  JOIN reconciler.subscriptions s ON s.id = k.subscription_id
  JOIN (SELECT id, reconciler.inbounds_text(id) AS text FROM reconciler.nodes) n ON n.id = p.node_id;
"""

_HISTORY = """
INSERT INTO reconciler.placements (key_id, node_id, reason, placed_at, ended_at)
SELECT key_id, node_id, 'a benchmark', now() - interval '9 days', now() - interval '8 days'
  FROM reconciler.placements, generate_series(1, {times}) WHERE ended_at IS NULL;
INSERT INTO reconciler.promises
  (key_id, node_id, account_digest, promised_until, made_at, ended_at, ended_reason)
SELECT key_id, node_id, account_digest, now() - interval '8 days', now() - interval '9 days',
       now() - interval '8 days', 'expired'
  FROM reconciler.promises, generate_series(1, {times}) WHERE ended_at IS NULL;
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node is: its API, and which inbound of the process is its own."""

    api: str
    tag: str


@dataclass(frozen=True, slots=True)
class Size:
    """So many nodes with so many keys each."""

    nodes: int
    keys_each: int

    @property
    def keys(self) -> int:
        """All keys."""
        return self.nodes * self.keys_each

    @property
    def words(self) -> str:
        """Say it as people do."""
        return f"{self.keys:,} keys on {self.nodes:,} node{'s' if self.nodes > 1 else ''}"


@dataclass(frozen=True, slots=True)
class User:
    """A key as an Xray configuration has it."""

    key_id: int
    credential: str

    def client(self) -> dict[str, str]:
        """Return it in Xray's words."""
        return {"email": f"k{self.key_id}@test", "id": self.credential}


async def enrol(dsn: str, places: Sequence[Place], keys: int, *, promised: bool = True) -> None:
    """Write nodes and keys, evenly placed; unless `promised`, nothing was ever put on a node."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as sql:
        await sql.execute("SET session_replication_role = replica")  # no bells, and rows that refer rightly
        await sql.execute("SET synchronous_commit = off")
        for number, place in enumerate(places, 1):
            await sql.execute(
                "INSERT INTO reconciler.nodes (name, api, state) VALUES (%s, %s, 'active')",
                (f"n{number}", place.api),
            )
            await sql.execute(
                "INSERT INTO reconciler.inbounds (node_id, tag, protocol) VALUES (%s, %s, 'vless')",
                (number, place.tag),
            )
        statements = _KEYS + _PLACED + _COUNTED + (_PROMISED if promised else "")
        for statement in statements.format(keys=keys, nodes=len(places)).split(";\n"):
            if statement.strip():
                await sql.execute(statement.encode())
        await sql.execute("VACUUM ANALYZE")


async def add_history(dsn: str, times: int) -> None:
    """Write `times` ended placements and promises for each live one."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as sql:
        await sql.execute("SET session_replication_role = replica")
        for statement in _HISTORY.format(times=times).split(";\n"):
            if statement.strip():
                await sql.execute(statement.encode())
        await sql.execute("VACUUM ANALYZE")


async def free(dsn: str) -> None:
    """Let go of the leases of whoever held the nodes before, and forget what it said of them."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as sql:
        await sql.execute("DELETE FROM reconciler.leases")
        await sql.execute("DELETE FROM reconciler.node_status")


async def users(dsn: str, first: int = 1, last: int = 1) -> dict[int, list[User]]:
    """Return all keys that are placed on the nodes from the first to the last, by node."""
    async with await psycopg.AsyncConnection.connect(dsn) as sql:
        cursor = await sql.execute(
            """SELECT p.node_id, k.id, k.credential::text FROM reconciler.keys k
                 JOIN reconciler.placements p ON p.key_id = k.id AND p.ended_at IS NULL
                WHERE p.node_id BETWEEN %s AND %s ORDER BY k.id""",
            (first, last),
        )
        found: dict[int, list[User]] = {node_id: [] for node_id in range(first, last + 1)}
        async for node_id, *user in cursor:
            found[node_id].append(User(*user))
        return found


def address() -> str:
    """Return where a node may have its API."""
    return f"{HOST}:{free_port()}"


def one_node(directory: Path, api: str, door: int, known: Sequence[User] = ()) -> XrayProcess:
    """Return a process that is one node: its API, the port for its customers, its configured users."""
    config = _config(api, [_inbound(TAG, HOST, door, known)])
    return XrayProcess(directory, name=f"node-{door}", api=api, config=config)


def places(nodes: int) -> list[Place]:
    """Say where so many nodes will be: a hundred addresses of loopback for each process."""
    found = []
    port = 0
    for index in range(nodes):
        if index % NODES_PER_XRAY == 0:
            port = free_port()
        found.append(Place(f"127.0.0.{index % NODES_PER_XRAY + 1}:{port}", f"in-{index + 1}"))
    return found


@asynccontextmanager
async def fleet(directory: Path, dsn: str, where: Sequence[Place]) -> AsyncIterator[None]:
    """Run the processes that play these nodes, whose users are those that the rows want."""
    async with AsyncExitStack() as running:
        for start in range(0, len(where), NODES_PER_XRAY):
            part = where[start : start + NODES_PER_XRAY]
            port = free_port()
            known = await users(dsn, start + 1, start + len(part))
            inbounds = [
                _inbound(place.tag, f"127.0.0.{offset}", port, known[start + offset])
                for offset, place in enumerate(part, 1)
            ]
            api = part[0].api
            config = _config("0.0.0.0:" + api.partition(":")[2], inbounds)
            process = XrayProcess(directory, name=f"fleet-{start}", api=api, config=config)
            await running.enter_async_context(process)
        yield


def _inbound(tag: str, host: str, port: int, known: Sequence[User]) -> dict[str, Any]:
    clients = [user.client() for user in known]
    settings = {"clients": clients, "decryption": "none"}
    return {"tag": tag, "protocol": "vless", "listen": host, "port": port, "settings": settings}


def _config(api: str, inbounds: list[dict[str, Any]]) -> dict[str, Any]:
    counted = {"statsUserUplink": True, "statsUserDownlink": True, "statsUserOnline": True}
    return {
        "log": {"loglevel": "warning"},
        "api": {"tag": "api", "services": ["HandlerService", "StatsService"], "listen": api},
        "stats": {},
        "policy": {"levels": {"0": counted}},
        "inbounds": inbounds,
        "outbounds": [{"protocol": "freedom", "settings": {"finalRules": [{"action": "allow"}]}}],
    }
