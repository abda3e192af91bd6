"""Rows written straight into the tables, for tests of what the tables themselves do."""

from typing import Any, LiteralString
from uuid import UUID, uuid4

from psycopg import AsyncConnection, sql

Connection = AsyncConnection[Any]


async def one(connection: Connection, query: LiteralString, *values: object) -> Any:
    """Return the first column of the first row, None without rows."""
    cursor = await connection.execute(query, values)
    row = await cursor.fetchone()
    return row[0] if row else None


async def add(connection: Connection, table: str, **values: object) -> int:
    """Insert one row of schema `reconciler` and return its id."""
    query = sql.SQL("INSERT INTO reconciler.{} ({}) VALUES ({}) RETURNING id").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, values)),
        sql.SQL(", ").join(sql.Placeholder() * len(values)),
    )
    cursor = await connection.execute(query, list(values.values()))
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def add_subscription(connection: Connection, expires_in: str = "30 days", **values: object) -> int:
    """Insert a user with one subscription that ends in `expires_in`, and return its id."""
    user_id = await add(connection, "users", name="somebody")
    until = await one(connection, "SELECT now() + %s::interval", expires_in)
    begin = await one(connection, "SELECT now() - interval '100 days'")
    return await add(
        connection, "subscriptions", user_id=user_id, starts_at=begin, expires_at=until, **values
    )


async def add_key(
    connection: Connection,
    subscription_id: int | None = None,
    credential: UUID | None = None,
    **values: object,
) -> int:
    """Insert a key, of a subscription of its own when none is given, and return its id."""
    if subscription_id is None:
        subscription_id = await add_subscription(connection)
    return await add(
        connection, "keys", subscription_id=subscription_id, credential=credential or uuid4(), **values
    )


async def add_node(connection: Connection, name: str) -> int:
    """Insert an active node with one inbound, and return its id."""
    node_id = await add(
        connection, "nodes", name=name, api=f"{name}:1", state="active", link_template="vless://{uuid}@x"
    )
    await add(connection, "inbounds", node_id=node_id, tag="vless-in", protocol="vless")
    return node_id


async def place(connection: Connection, key_id: int, node_id: int) -> int:
    """Insert a live placement, and return its id."""
    return await add(connection, "placements", key_id=key_id, node_id=node_id, reason="test")


async def promise(connection: Connection, key_id: int, node_id: int) -> None:
    """Insert a live promise of the key's present account until its end."""
    await connection.execute(
        """
        INSERT INTO reconciler.promises (key_id, node_id, account_digest, promised_until)
        SELECT k.id, n, reconciler.account_digest(k.credential, reconciler.inbounds_text(n)), s.expires_at
          FROM (SELECT %s::bigint AS n) given, reconciler.keys k
          JOIN reconciler.subscriptions s ON s.id = k.subscription_id
         WHERE k.id = %s
        """,
        (node_id, key_id),
    )
