"""
The daemon's side of the desired state: one consistent snapshot of one node.

The rows that matter to a node are those placed on it, those promised on it,
and those of keys that it lists without either. The last are asked for by id
within the same snapshot, so that "no row" is a fact and not a race. What a
row says is judged in SQL, by the database's clock.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import tuple_row

from reconciler.db.pool import Connection, Pool, store_errors
from reconciler.model import (
    GREATEST_KEY_ID,
    Credential,
    Desired,
    Inbound,
    KeyRow,
    Node,
    NodeState,
    Order,
    OrderKind,
    Owner,
    Promise,
    Protocol,
    Standing,
)
from reconciler.plan.rows import Rows


# reconciler.account_digest and reconciler.used_bytes, written out where they are asked for every row, because
# PostgreSQL inlines neither, and calling them costs more than all the rest.
def _digest(inbounds: str) -> str:
    return f"substring(sha256(uuid_send(k.credential) || {inbounds}) FROM 1 FOR 16)"


_USED = """
coalesce((SELECT sum(u.up_bytes + u.down_bytes) FROM reconciler.keys o
            JOIN reconciler.usage u ON u.key_id = o.id WHERE o.subscription_id = s.id), 0)
- coalesce((SELECT base_bytes FROM reconciler.usage_periods
             WHERE subscription_id = s.id AND started_at <= now() ORDER BY started_at DESC LIMIT 1), 0)
"""

# Nearly every row is quiet (see reconciler.plan.rows): it comes as a record, and all records as one value.
# Of a row that is not, only the id comes; none at all of one that is over and owed nothing, because it counts
# only when the node lists its key, and is then asked for by id.
_JUDGED = f"""
SELECT k.id, k.credential, s.expires_at, greatest(k.updated_at, s.updated_at, pl.placed_at) AS changed_at,
       p.promised_until, p.account_digest,
       CASE WHEN k.revoked_at IS NOT NULL OR s.revoked_at IS NOT NULL
                 OR s.expires_at <= now() OR s.starts_at > now()
            THEN CASE WHEN p.key_id IS NULL THEN 'over' ELSE 'telling' END
            WHEN pl.key_id IS NULL OR p.key_id IS NULL
                 OR p.promised_until < s.expires_at OR p.promised_until = 'infinity'
                 OR p.early_at > now() - interval '1 hour'
                 OR p.account_digest <> {_digest("n.inbounds")} THEN 'telling'
            WHEN s.traffic_limit_bytes IS NULL THEN 'quiet'
            WHEN {_USED} < s.traffic_limit_bytes THEN 'quiet'
            ELSE 'telling' END AS word
  FROM (SELECT key_id, placed_at FROM reconciler.placements WHERE node_id = %(node)s AND ended_at IS NULL) pl
  FULL JOIN (SELECT key_id, promised_until, account_digest, early_at FROM reconciler.promises
              WHERE node_id = %(node)s AND ended_at IS NULL) p USING (key_id)
  JOIN reconciler.keys k ON k.id = key_id
  JOIN reconciler.subscriptions s ON s.id = k.subscription_id
 OFFSET 0
"""
_RECORD = """
int8send(id) || uuid_send(credential) || timestamptz_send(expires_at) || timestamptz_send(changed_at)
|| timestamptz_send(promised_until) || account_digest
"""
_NO_ROWS = "SELECT NULL::bytea AS quiet, NULL::bigint[] AS telling"
_ALL_ROWS = f"""
SELECT string_agg({_RECORD}, '') FILTER (WHERE word = 'quiet') AS quiet,
       array_agg(id) FILTER (WHERE word = 'telling') AS telling
  FROM ({_JUDGED}) judged
"""


def _of_node(rows: str) -> str:
    return f"""
SELECT date_part('epoch', now()), n.state, n.inbounds,
       (SELECT coalesce(json_agg(json_build_array(i.tag, i.protocol, i.flow) ORDER BY i.tag), '[]')
          FROM reconciler.inbounds i WHERE i.node_id = n.id AND i.ended_at IS NULL),
       (SELECT count(*) FROM reconciler.promises p
         WHERE p.node_id = n.id AND p.early = 'early' AND p.early_at > now() - interval '1 hour'),
       (SELECT count(*) FROM reconciler.promises p
         WHERE p.node_id = n.id AND p.early = 'over_quota' AND p.early_at > now() - interval '1 hour'),
       (SELECT coalesce(json_agg(json_build_array(o.id, o.kind, o.key_ids) ORDER BY o.id), '[]')
          FROM reconciler.orders o
         WHERE o.node_id = n.id AND o.done_at IS NULL AND o.valid_until > now()),
       found.quiet, found.telling
  FROM (SELECT id, state, convert_to(reconciler.inbounds_text(id), 'UTF8') AS inbounds
          FROM reconciler.nodes WHERE id = %(node)s OFFSET 0) n
 CROSS JOIN LATERAL ({rows}) found
"""


_NODE_ALONE = _of_node(_NO_ROWS)
_WHOLE_NODE = _of_node(_ALL_ROWS)

# Removal is routine where the other node carries the current account by promise.
_CONFIRMED_ELSEWHERE = """
EXISTS (SELECT FROM reconciler.placements o
          JOIN reconciler.nodes n ON n.id = o.node_id AND n.state IN ('active', 'draining')
          JOIN reconciler.promises q ON q.key_id = o.key_id AND q.node_id = o.node_id AND q.ended_at IS NULL
         WHERE o.key_id = k.id AND o.ended_at IS NULL AND o.node_id <> %(node)s
           AND q.account_digest =
               reconciler.account_digest(k.credential, reconciler.inbounds_text(o.node_id)))
"""

_ROWS_OF_KEYS = f"""
SELECT k.id, uuid_send(k.credential),
       CASE WHEN k.revoked_at IS NOT NULL OR s.revoked_at IS NOT NULL THEN 'revoked'
            WHEN s.expires_at <= now() THEN 'expired'
            WHEN s.starts_at > now() THEN 'not_started'
            WHEN s.traffic_limit_bytes IS NOT NULL
                 AND reconciler.used_bytes(s.id) >= s.traffic_limit_bytes THEN 'over_quota'
            WHEN pl.id IS NOT NULL THEN 'desired'
            WHEN NOT EXISTS (SELECT FROM reconciler.placements e
                              WHERE e.key_id = k.id AND e.node_id = %(node)s AND e.ended_at IS NOT NULL)
            THEN 'stray'
            WHEN {_CONFIRMED_ELSEWHERE} THEN 'moved'
            ELSE 'unplaced' END,
       date_part('epoch', s.expires_at),
       date_part('epoch', greatest(k.updated_at, s.updated_at, pl.placed_at)),
       {_digest("%(inbounds)s")},
       p.account_digest, date_part('epoch', p.promised_until),
       coalesce(p.early_at > now() - interval '1 hour', false),
       p.id IS NULL AND EXISTS (SELECT FROM reconciler.promises e
                                 WHERE e.key_id = k.id AND e.node_id = %(node)s AND e.ended_at IS NOT NULL)
  FROM (SELECT unnest(%(keys)s::bigint[]) AS key_id) c
  JOIN reconciler.keys k ON k.id = c.key_id
  JOIN reconciler.subscriptions s ON s.id = k.subscription_id
  LEFT JOIN reconciler.placements pl ON pl.key_id = k.id AND pl.node_id = %(node)s AND pl.ended_at IS NULL
  LEFT JOIN reconciler.promises p ON p.key_id = k.id AND p.node_id = %(node)s AND p.ended_at IS NULL
"""

_STANDINGS = {str(standing): standing for standing in Standing}

_FLEET = """
SELECT n.id, n.name, n.api, n.state,
       (SELECT coalesce(json_agg(json_build_array(i.tag, i.protocol, i.flow) ORDER BY i.tag), '[]')
          FROM reconciler.inbounds i WHERE i.node_id = n.id AND i.ended_at IS NULL)
  FROM reconciler.nodes n ORDER BY n.id
"""


class DesiredReader:
    """Reads what should hold; raises StoreError and its kinds."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def owner(self) -> Owner:
        """Return our mark on every node."""
        async with store_errors(), self._pool.connection() as connection:
            cursor = await connection.execute("SELECT owner FROM reconciler.source")
            row = await cursor.fetchone()
        assert row is not None, "migrate writes the one row of source"
        return Owner(row[0])

    async def fleet(self) -> list[Node]:
        """Return every node, whatever its state."""
        async with store_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(_FLEET, binary=True)
            return [
                Node(node_id, name, api, NodeState(state), _inbounds(inbounds))
                async for node_id, name, api, state, inbounds in cursor
            ]

    async def snapshot(self, node_id: int, seen: Collection[int], *, whole: bool = True) -> Desired:
        """
        Return what should hold on a node, as of one instant.

        `seen` are the ids of the keys that the node lists; those without a
        row in the answer have none in the database. Unless `whole`, rows of
        these keys are all that is read.
        """
        async with store_errors(), self._pool.connection() as connection:
            if whole:
                desired, unread = await _node(connection, _WHOLE_NODE, node_id, seen)
                if not unread.keys:
                    return desired
            # One statement is one instant; keys to be asked for by id need a transaction to share it.
            async with connection.transaction():
                await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                query = _WHOLE_NODE if whole else _NODE_ALONE
                desired, unread = await _node(connection, query, node_id, seen)
                unread.rows.update(await _rows(connection, node_id, unread.keys, unread.inbounds))
                return desired

    async def desired_again(self, node_id: int, key_ids: Sequence[int]) -> frozenset[int]:
        """Return which of these keys the rows want on the node now; asked right before taking them off."""
        async with store_errors(), self._pool.connection() as connection:
            rows = await _rows(connection, node_id, key_ids, b"")
            return frozenset(key_id for key_id, row in rows.items() if row.desired)


@dataclass(frozen=True, slots=True)
class _Unread:
    """Keys whose rows are still to be read, and where they belong."""

    keys: list[int]
    rows: dict[int, KeyRow]
    inbounds: bytes


async def _node(
    connection: Connection, query: str, node_id: int, seen: Collection[int]
) -> tuple[Desired, _Unread]:
    cursor = await connection.execute(query, {"node": node_id}, binary=True)
    found = await cursor.fetchone()
    assert found is not None, "nodes are ended by their state, never deleted"
    now, state, text, inbounds, early, quota, orders, quiet, telling = found
    rest: dict[int, KeyRow] = {}
    rows = Rows(quiet or b"", rest)
    keys = frozenset(seen).difference(rows.quiet).union(telling or ())
    desired = Desired(
        now=now,
        state=NodeState(state),
        inbounds=_inbounds(inbounds),
        rows=rows,
        early_spent=early,
        quota_spent=quota,
        orders=_orders(orders),
    )
    return desired, _Unread([key_id for key_id in keys if key_id <= GREATEST_KEY_ID], rest, text)


async def _rows(
    connection: Connection, node_id: int, key_ids: Sequence[int], inbounds: bytes
) -> dict[int, KeyRow]:
    given = {"node": node_id, "inbounds": inbounds, "keys": list(key_ids)}
    async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(_ROWS_OF_KEYS, given)
        return {row[0]: _key_row(*row) for row in await cursor.fetchall()}


def _key_row(
    key_id: int,
    credential: bytes,
    standing: str,
    until: float,
    changed_at: float,
    digest: bytes,
    *promise: Any,  # noqa: ANN401 - four columns, typed by _promise
) -> KeyRow:
    return KeyRow(
        key_id, Credential(credential), _STANDINGS[standing], until, changed_at, digest, _promise(*promise)
    )


def _promise(digest: bytes | None, until: float | None, spent: bool, ended: bool) -> Promise | None:  # noqa: FBT001 - columns
    if digest is not None and until is not None:
        return Promise(digest, until, live=True, spent=spent)
    return Promise(b"", 0.0, live=False) if ended else None


def _orders(rows: Sequence[tuple[int, str, list[int]]]) -> tuple[Order, ...]:
    return tuple(Order(order_id, OrderKind(kind), frozenset(key_ids)) for order_id, kind, key_ids in rows)


def _inbounds(rows: Sequence[tuple[str, str, str]]) -> tuple[Inbound, ...]:
    return tuple(Inbound(tag, Protocol(protocol), flow) for tag, protocol, flow in rows)
