"""A shop's database, its nodes and a daemon of its own, for tests that start the whole program."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from reconciler.demo.xray import XrayProcess
from reconciler.model import Credential
from reconciler.node.port import list_users
from reconciler.node.xray import XrayNode
from tests.daemons import DaemonProcess, until
from tests.world import CALL_SECONDS, VLESS


@dataclass
class Site:
    """A shop's database and its nodes; rows are written as a superuser, by hand."""

    sql: psycopg.AsyncConnection[tuple[Any, ...]]
    nodes: list[XrayProcess]
    directory: Path
    dsn: str
    database: dict[str, Any] = field(default_factory=dict)  # the daemon's section of that name

    async def execute(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        cursor = await self.sql.execute(query, values)
        return await cursor.fetchall() if cursor.description else []

    async def grant(self, number: int, expires_in: str = "30 days") -> list[int]:
        made = await self.execute(
            """
            WITH person AS (INSERT INTO reconciler.users (name) VALUES ('somebody') RETURNING id),
            access AS (INSERT INTO reconciler.subscriptions (user_id, starts_at, expires_at)
              SELECT person.id, now() - interval '1 day', now() + %s::interval
                FROM person, generate_series(1, %s) RETURNING id)
            INSERT INTO reconciler.keys (subscription_id, credential)
            SELECT id, gen_random_uuid() FROM access RETURNING id
            """,
            expires_in,
            number,
        )
        return [key_id for (key_id,) in made]

    async def credential(self, key_id: int) -> Credential:
        ((secret,),) = await self.execute(
            "SELECT uuid_send(credential) FROM reconciler.keys WHERE id = %s", key_id
        )
        return Credential(secret)

    async def on_nodes(self) -> set[tuple[str, str]]:
        """Node and name of every user that the nodes list; a node that is down lists none."""
        listed = set()
        for node in self.nodes:
            if node.is_running:
                port = XrayNode(node.name, node.api)
                listed |= {(node.name, user.name) for user in await list_users(port, VLESS, CALL_SECONDS)}
                await port.close()
        return listed

    async def counts(self, number: int) -> None:
        async def reached() -> bool:
            return len(await self.on_nodes()) == number

        await until(reached, f"{number} keys are on the nodes")

    def daemon(self, name: str = "daemon", **sections: dict[str, Any]) -> DaemonProcess:
        return DaemonProcess(self.directory, self.dsn, name, database=self.database, **sections)


async def enrol(sql: psycopg.AsyncConnection[tuple[Any, ...]], nodes: Sequence[XrayProcess]) -> None:
    for node in nodes:
        await sql.execute(
            """WITH node AS (
                 INSERT INTO reconciler.nodes (name, api, state) VALUES (%s, %s, 'active') RETURNING id)
               INSERT INTO reconciler.inbounds (node_id, tag, protocol) SELECT id, %s, 'vless' FROM node""",
            (node.name, node.api, VLESS.tag),
        )
