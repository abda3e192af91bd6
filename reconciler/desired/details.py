"""
Reading for the command line only: what `explain`, `revoke` and waiting for an order need beside `look`.

Each function is one look of its own, on an idle connection; all need the
rights of an operator. None returns a credential.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from reconciler.db.pool import Connection, store_errors
from reconciler.desired import bounds
from reconciler.desired.look import SubscriptionState
from reconciler.errors import Unknown


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """One key as its row says, beside the subscription that it belongs to."""

    key_id: int
    subscription_id: int
    user_id: int
    pool: str
    spread: str
    revoked_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class KeyTraffic:
    """What a key has carried ever, and of which month its subscription's limit is, if it is of one."""

    up_bytes: int
    down_bytes: int
    counted_at: datetime | None  # the last of it
    renewal: str | None
    month_since: datetime | None
    next_month_at: datetime | None


@dataclass(frozen=True, slots=True)
class Carrier:
    """A node on which a key is placed or promised; a promise for ever is one that nobody remembers."""

    node_id: int
    node: str
    placed_at: datetime | None
    reason: str | None
    promised_since: datetime | None
    promised_until: datetime | None
    leaving_at: datetime | None = None  # since when the node is to let it go, once another has it
    grace_seconds: int | None = None
    left_at: datetime | None = None  # when its last promise there ended
    left_reason: str | None = None


@dataclass(frozen=True, slots=True)
class OrderState:
    """How far an order is; `now` is the database's clock."""

    done_at: datetime | None
    valid_until: datetime
    now: datetime


@dataclass(frozen=True, slots=True)
class EarlyCount:
    """
    What the guard counts of a node.

    Removals before their time that it has seen in the last hour, those that
    wait there without an order, and its live promises.
    """

    node: str
    spent: int
    waiting: int
    promises: int


@dataclass(frozen=True, slots=True)
class Homeless:
    """A key in force that no node has, nor will have, unless it is placed."""

    key_id: int
    pool: str


_KEYS = """
SELECT k.id AS key_id, k.subscription_id, s.user_id, k.pool, k.spread, k.revoked_at, k.created_at
  FROM reconciler.keys k JOIN reconciler.subscriptions s ON s.id = k.subscription_id
 WHERE k.id = ANY(%(keys)s) OR k.subscription_id = ANY(%(subscriptions)s) ORDER BY k.id
"""

_SUBSCRIPTIONS = """
SELECT user_id, user_name, telegram_id, subscription_id, plan, starts_at, expires_at, traffic_limit_bytes,
       used_bytes, revoked_at, bucket
  FROM reconciler.subscription_state WHERE subscription_id = ANY(%s) ORDER BY subscription_id
"""

_TRAFFIC = """
SELECT coalesce(g.up_bytes, 0) AS up_bytes, coalesce(g.down_bytes, 0) AS down_bytes,
       g.updated_at AS counted_at, s.traffic_renewal AS renewal,
       p.started_at AS month_since, p.next_at AS next_month_at
  FROM reconciler.keys k JOIN reconciler.subscriptions s ON s.id = k.subscription_id
  LEFT JOIN reconciler.usage g ON g.key_id = k.id
  LEFT JOIN reconciler.usage_periods p ON p.subscription_id = s.id AND p.next_at IS NOT NULL
 WHERE k.id = %s ORDER BY p.started_at DESC LIMIT 1
"""

_CARRIERS = """
SELECT n.id AS node_id, n.name AS node, pl.placed_at, pl.reason, p.made_at AS promised_since,
       nullif(p.promised_until, 'infinity') AS promised_until, pl.leaving_at, pl.grace_seconds,
       gone.ended_at AS left_at, gone.ended_reason AS left_reason
  FROM reconciler.nodes n
  LEFT JOIN reconciler.placements pl ON pl.node_id = n.id AND pl.key_id = %(key)s AND pl.ended_at IS NULL
  LEFT JOIN reconciler.promises p ON p.node_id = n.id AND p.key_id = %(key)s AND p.ended_at IS NULL
  LEFT JOIN LATERAL (SELECT e.ended_at, e.ended_reason FROM reconciler.promises e
                      WHERE e.node_id = n.id AND e.key_id = %(key)s AND e.ended_at IS NOT NULL
                      ORDER BY e.ended_at DESC LIMIT 1) gone ON true
 WHERE pl.id IS NOT NULL OR p.id IS NOT NULL ORDER BY n.name
"""

_PROMISED = """
SELECT n.name, p.key_id FROM reconciler.promises p JOIN reconciler.nodes n ON n.id = p.node_id
 WHERE p.key_id = ANY(%s) AND p.ended_at IS NULL ORDER BY n.name, p.key_id
"""

# Of the nodes that owe something to these keys.
_EARLY = """
WITH waiting AS (
  SELECT p.node_id, p.key_id
    FROM reconciler.promises p
    JOIN reconciler.keys k ON k.id = p.key_id
    JOIN reconciler.subscriptions s ON s.id = k.subscription_id
   WHERE p.node_id IN (SELECT node_id FROM reconciler.promises
                        WHERE key_id = ANY(%(keys)s) AND ended_at IS NULL)
     AND p.ended_at IS NULL AND p.promised_until > now()
     AND (k.revoked_at IS NOT NULL OR s.revoked_at IS NOT NULL)
     AND (p.early_at IS NULL OR p.early_at <= now() - interval '1 hour')
     AND NOT EXISTS (
       SELECT FROM reconciler.orders o
        WHERE o.node_id = p.node_id AND o.kind IN ('release', 'empty') AND o.done_at IS NULL
          AND o.valid_until > now() AND p.key_id = ANY(o.key_ids)))
SELECT n.name AS node,
       (SELECT count(*) FROM reconciler.promises p
         WHERE p.node_id = n.id AND p.early = 'early' AND p.early_at > now() - interval '1 hour') AS spent,
       (SELECT count(*) FROM waiting w WHERE w.node_id = n.id) AS waiting,
       (SELECT count(*) FROM reconciler.promises p WHERE p.node_id = n.id AND p.ended_at IS NULL) AS promises
  FROM reconciler.nodes n
 WHERE n.state IN ('active', 'draining')
   AND n.id IN (SELECT node_id FROM waiting WHERE key_id = ANY(%(keys)s))
 ORDER BY n.name
"""

_WITHOUT_NODE = """
SELECT k.id AS key_id, k.pool
  FROM reconciler.keys k JOIN reconciler.subscriptions s ON s.id = k.subscription_id
 WHERE k.revoked_at IS NULL AND s.revoked_at IS NULL AND s.starts_at <= now() AND now() < s.expires_at
   AND NOT EXISTS (SELECT FROM reconciler.placements p
                    WHERE p.key_id = k.id AND p.ended_at IS NULL AND p.leaving_at IS NULL)
   AND (s.traffic_limit_bytes IS NULL OR reconciler.used_bytes(s.id) < s.traffic_limit_bytes)
 ORDER BY k.id
"""


async def now(connection: Connection) -> datetime:
    """Return the time, which is the database's."""
    async with store_errors():
        cursor = await connection.execute("SELECT now()")
        row = await cursor.fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment


async def keys(connection: Connection, key_ids: Collection[int]) -> list[KeyFacts]:
    """Return these keys, by id. Raises Unknown for the first that there is not."""
    wanted = sorted({bounds.row_id("key", key_id) for key_id in key_ids})
    found = await _keys(connection, wanted, [])
    missing = set(wanted) - {key.key_id for key in found}
    if missing:
        raise Unknown("key", min(missing))
    return found


async def keys_of(connection: Connection, subscription_ids: Collection[int]) -> list[KeyFacts]:
    """Return the keys of these subscriptions, revoked ones included, by id."""
    return await _keys(connection, [], list(subscription_ids))


async def subscriptions(connection: Connection, subscription_ids: Collection[int]) -> list[SubscriptionState]:
    """Return these subscriptions, by id. Raises Unknown for the first that there is not."""
    wanted = sorted({bounds.row_id("subscription", one) for one in subscription_ids})
    async with store_errors():
        cursor = connection.cursor(row_factory=class_row(SubscriptionState))
        found = await (await cursor.execute(_SUBSCRIPTIONS, (wanted,))).fetchall()
    missing = set(wanted) - {row.subscription_id for row in found}
    if missing:
        raise Unknown("subscription", min(missing))
    return found


async def traffic(connection: Connection, key_id: int) -> KeyTraffic:
    """Return what a key has carried. Raises Unknown."""
    async with store_errors():
        cursor = connection.cursor(row_factory=class_row(KeyTraffic))
        found = await (await cursor.execute(_TRAFFIC, (key_id,))).fetchone()
    if found is None:
        raise Unknown("key", key_id)
    return found


async def carriers(connection: Connection, key_id: int) -> list[Carrier]:
    """Return the nodes on which a key is placed or promised, by name."""
    async with store_errors():
        cursor = connection.cursor(row_factory=class_row(Carrier))
        return await (await cursor.execute(_CARRIERS, {"key": key_id})).fetchall()


async def promised(connection: Connection, key_ids: Collection[int]) -> dict[str, list[int]]:
    """Return which of these keys have a live promise, by the name of the node."""
    async with store_errors():
        cursor = await connection.execute(_PROMISED, (list(key_ids),))
        nodes: dict[str, list[int]] = {}
        for node, key_id in await cursor.fetchall():
            nodes.setdefault(node, []).append(key_id)
    return nodes


async def early_counts(connection: Connection, key_ids: Collection[int]) -> list[EarlyCount]:
    """Return what the guard counts, for each node on which the removal of one of these keys waits."""
    async with store_errors():
        cursor = connection.cursor(row_factory=class_row(EarlyCount))
        return await (await cursor.execute(_EARLY, {"keys": list(key_ids)})).fetchall()


async def keys_without_node(connection: Connection) -> list[Homeless]:
    """Return the keys in force that are on no node, or only on one that they are to leave."""
    async with store_errors():
        cursor = connection.cursor(row_factory=class_row(Homeless))
        return await (await cursor.execute(_WITHOUT_NODE)).fetchall()


async def order_state(connection: Connection, order_id: int) -> OrderState:
    """Return how far an order is. Raises Unknown."""
    async with store_errors():
        cursor = connection.cursor(row_factory=class_row(OrderState))
        await cursor.execute(
            "SELECT done_at, valid_until, now() AS now FROM reconciler.orders WHERE id = %s", (order_id,)
        )
        found = await cursor.fetchone()
    if found is None:
        raise Unknown("order", order_id)
    return found


async def _keys(connection: Connection, key_ids: list[int], subscription_ids: list[int]) -> list[KeyFacts]:
    async with store_errors():
        cursor = connection.cursor(row_factory=class_row(KeyFacts))
        given = {"keys": key_ids, "subscriptions": subscription_ids}
        return await (await cursor.execute(_KEYS, given)).fetchall()
