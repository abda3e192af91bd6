"""
Reading for people: what the command line and the bot show.

Each function is one look of its own, on an idle connection. None of them
returns a credential but `credential`. Those that read only the two views and
the tables of the writer say so; the others need more than the bot may see.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString, TypeVar

from psycopg.rows import class_row

from reconciler.db.pool import Connection, store_errors
from reconciler.desired import bounds
from reconciler.errors import Unknown
from reconciler.model import Credential, Inbound, Protocol

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class NodeDetail:
    """A node as its row says, with the number of its live placements, and of those that are to leave."""

    node_id: int
    name: str
    api: str
    pool: str
    capacity: int | None
    state: str
    link_template: str | None
    placed: int
    leaving: int


@dataclass(frozen=True, slots=True)
class FleetRow:
    """A node beside what its holder last reported; None where nothing was reported yet."""

    node_id: int
    name: str
    state: str
    holder: str | None
    lease_expires_at: datetime | None
    outcome: str | None
    active_users: int | None
    desired_users: int | None
    foreign_users: int | None
    orphan_users: int | None
    held_removals: int | None
    boot_at: datetime | None
    last_attempt_at: datetime | None
    last_full_at: datetime | None
    last_converged_at: datetime | None
    up_bytes: int | None
    down_bytes: int | None
    traffic_read_at: datetime | None
    error: str | None


@dataclass(frozen=True, slots=True)
class SubscriptionState:
    """One user with one subscription, or with none: a row of subscription_state."""

    user_id: int
    user_name: str
    telegram_id: int | None
    subscription_id: int | None
    plan: str | None
    starts_at: datetime | None
    expires_at: datetime | None
    traffic_limit_bytes: int | None
    used_bytes: int | None
    revoked_at: datetime | None
    bucket: str


@dataclass(frozen=True, slots=True)
class KeyState:
    """One key on one node, or on none: a row of key_state."""

    key_id: int
    subscription_id: int
    user_id: int
    node: str | None
    link_template: str | None
    placed_at: datetime | None
    usable_since: datetime | None
    promised_until: datetime | None
    up_bytes: int
    down_bytes: int
    revoked: bool
    leaving_at: datetime | None  # since when the node is to let it go, once another has it


@dataclass(frozen=True, slots=True)
class GrantRow:
    """One line of a subscription's history."""

    grant_id: int
    kind: str
    days: int | None
    traffic_bytes: int | None
    amount: int | None
    currency: str | None
    actor: str
    external_id: str | None
    resulting_expires_at: datetime
    note: str
    created_at: datetime


_NODES: LiteralString = """
SELECT n.id AS node_id, n.name, n.api, n.pool, n.capacity, n.state, n.link_template,
       (SELECT count(*) FROM reconciler.placements p WHERE p.node_id = n.id AND p.ended_at IS NULL) AS placed,
       (SELECT count(*) FROM reconciler.placements p
         WHERE p.node_id = n.id AND p.ended_at IS NULL AND p.leaving_at IS NOT NULL) AS leaving
  FROM reconciler.nodes n
"""

_FLEET = """
SELECT n.id AS node_id, n.name, n.state, l.holder,
       nullif(l.expires_at, '-infinity') AS lease_expires_at, s.outcome,
       s.active_users, s.desired_users, s.foreign_users, s.orphan_users, s.held_removals, s.boot_at,
       s.last_attempt_at, s.last_full_at, s.last_converged_at,
       u.up_bytes, u.down_bytes, u.read_at AS traffic_read_at, s.error
  FROM reconciler.nodes n
  LEFT JOIN reconciler.node_status s ON s.node_id = n.id
  LEFT JOIN reconciler.node_usage u ON u.node_id = n.id
  LEFT JOIN reconciler.leases l ON l.node_id = n.id
 ORDER BY n.name
"""

SUBSCRIPTIONS: LiteralString = """
SELECT user_id, user_name, telegram_id, subscription_id, plan, starts_at, expires_at, traffic_limit_bytes,
       used_bytes::bigint, revoked_at, bucket
  FROM reconciler.subscription_state
"""

_KEYS: LiteralString = """
SELECT key_id, subscription_id, user_id, node, link_template, placed_at, usable_since,
       nullif(promised_until, 'infinity') AS promised_until,
       up_bytes, down_bytes, revoked, leaving_at
  FROM reconciler.key_state
"""

_GRANTS = """
SELECT id AS grant_id, kind, days, traffic_bytes, amount, currency, actor, external_id, resulting_expires_at,
       note, created_at
  FROM reconciler.grants WHERE subscription_id = %(subscription)s ORDER BY id
"""


async def nodes(connection: Connection) -> list[NodeDetail]:
    """Return every node, by name."""
    return await rows(connection, NodeDetail, f"{_NODES} ORDER BY n.name")


async def node(connection: Connection, name: str) -> NodeDetail:
    """Return the node of this name. Raises Unknown."""
    found = await rows(connection, NodeDetail, f"{_NODES} WHERE n.name = %(name)s", {"name": name})
    if not found:
        raise Unknown("node", name)
    return found[0]


async def inbounds(connection: Connection, node_id: int) -> list[Inbound]:
    """Return the live inbounds of a node, by tag."""
    async with store_errors(), connection.transaction():
        cursor = await connection.execute(
            "SELECT tag, protocol, flow FROM reconciler.inbounds"
            " WHERE node_id = %s AND ended_at IS NULL ORDER BY tag",
            (node_id,),
        )
        return [Inbound(tag, Protocol(protocol), flow) for tag, protocol, flow in await cursor.fetchall()]


async def keys_on(connection: Connection, node_id: int) -> list[int]:
    """Return the keys with a live placement on a node, ascending."""
    async with store_errors(), connection.transaction():
        cursor = await connection.execute(
            "SELECT key_id FROM reconciler.placements"
            " WHERE node_id = %s AND ended_at IS NULL ORDER BY key_id",
            (node_id,),
        )
        return [key_id for (key_id,) in await cursor.fetchall()]


async def keys_owed(connection: Connection, node_id: int) -> list[int]:
    """Return the keys that are placed or promised on a node, ascending."""
    async with store_errors(), connection.transaction():
        cursor = await connection.execute(
            "SELECT key_id FROM reconciler.placements WHERE node_id = %(node)s AND ended_at IS NULL"
            " UNION SELECT key_id FROM reconciler.promises WHERE node_id = %(node)s AND ended_at IS NULL"
            " ORDER BY key_id",
            {"node": node_id},
        )
        return [key_id for (key_id,) in await cursor.fetchall()]


async def fleet(connection: Connection) -> list[FleetRow]:
    """Return every node beside its status and lease, by name."""
    return await rows(connection, FleetRow, _FLEET)


async def subscriptions(connection: Connection, user_id: int) -> list[SubscriptionState]:
    """Return one user's subscriptions, one row without any when there are none. Raises Unknown."""
    user_id = bounds.row_id("user", user_id)
    found = await rows(
        connection,
        SubscriptionState,
        f"{SUBSCRIPTIONS} WHERE user_id = %(user)s ORDER BY subscription_id",
        {"user": user_id},
    )
    if not found:
        raise Unknown("user", user_id)
    return found


async def keys(connection: Connection, user_id: int) -> list[KeyState]:
    """Return the keys of a user, a row for each node that a key is placed on. The bot may ask it."""
    return await rows(
        connection, KeyState, f"{_KEYS} WHERE user_id = %(user)s ORDER BY key_id, node", {"user": user_id}
    )


async def key(connection: Connection, key_id: int) -> list[KeyState]:
    """Return one key, a row for each node that it is placed on. Raises Unknown. The bot may ask it."""
    key_id = bounds.row_id("key", key_id)
    found = await rows(connection, KeyState, f"{_KEYS} WHERE key_id = %(key)s ORDER BY node", {"key": key_id})
    if not found:
        raise Unknown("key", key_id)
    return found


async def grants(connection: Connection, subscription_id: int) -> list[GrantRow]:
    """Return the history of a subscription, oldest first. The bot may ask it."""
    return await rows(connection, GrantRow, _GRANTS, {"subscription": subscription_id})


async def credential(connection: Connection, key_id: int) -> Credential:
    """Return what opens the door, for the one who shows a customer his link. Raises Unknown."""
    key_id = bounds.row_id("key", key_id)
    async with store_errors(), connection.transaction():
        cursor = await connection.execute("SELECT credential FROM reconciler.keys WHERE id = %s", (key_id,))
        row = await cursor.fetchone()
    if row is None:
        raise Unknown("key", key_id)
    return Credential(row[0].bytes)


async def rows(
    connection: Connection, kind: type[Row], query: LiteralString, values: Mapping[str, object] | None = None
) -> list[Row]:
    """Ask for rows of one kind, whose fields are the names of the columns."""
    async with store_errors(), connection.transaction():
        cursor = await connection.cursor(row_factory=class_row(kind)).execute(query, values)
        return await cursor.fetchall()
