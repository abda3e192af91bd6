"""
The daemon's side of the desired state: one consistent snapshot of one node.

The rows that matter to a node are those placed on it, those promised on it,
and those of keys that it lists without either. The last are asked for by id
within the same snapshot, so that "no row" is a fact and not a race. What a
row says is judged in SQL, by the database's clock.
"""

from collections.abc import Collection, Sequence
from typing import Any

from psycopg.rows import tuple_row

from reconciler.db.pool import Connection, Pool, store_errors
from reconciler.desired.glance import (
    DIGEST,
    NODE,
    OF_NODE,
    TELLING,
    Glance,
    glance_of,
    inbounds_of,
    read_glance,
)
from reconciler.model import (
    GREATEST_KEY_ID,
    Credential,
    Desired,
    KeyRow,
    Node,
    NodeState,
    Owner,
    Promise,
    Standing,
)

# Removal is routine where another node surely has the key; reconciler.plan.leave says when that is.
_CONFIRMED_ELSEWHERE = """
EXISTS (SELECT FROM reconciler.placements o
          JOIN reconciler.nodes n ON n.id = o.node_id AND n.state IN ('active', 'draining')
          JOIN reconciler.promises q ON q.key_id = o.key_id AND q.node_id = o.node_id AND q.ended_at IS NULL
          JOIN reconciler.node_status ns ON ns.node_id = o.node_id
           AND ns.last_converged_at >= greatest(o.placed_at, q.made_at)
           AND ns.outcome NOT IN ('unreachable', 'rejected', 'failed')
         WHERE o.key_id = k.id AND o.ended_at IS NULL AND o.node_id <> %(node)s
           AND q.account_digest =
               reconciler.account_digest(k.credential, reconciler.inbounds_text(o.node_id)))
"""

_RELEASED = """
EXISTS (SELECT FROM reconciler.orders r
         WHERE r.node_id = %(node)s AND r.kind = 'release' AND r.done_at IS NULL AND r.valid_until > now()
           AND k.id = ANY(r.key_ids))
"""


# Asked by index, key by key, whatever the planner knows of the tables: statistics of promises are out of date
# while thousands are made. The array stands in a query of its own so that its length changes no plan.
def _of_keys(inbounds: str) -> str:
    return f"""
       k.id, uuid_send(k.credential),
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
            WHEN p.promised_until > now() AND NOT {_RELEASED} THEN 'waiting'
            ELSE 'unplaced' END,
       date_part('epoch', s.expires_at),
       date_part('epoch', greatest(k.updated_at, s.updated_at, pl.placed_at)),
       {DIGEST.format(inbounds=inbounds)},
       p.account_digest, date_part('epoch', p.promised_until),
       coalesce(p.early_at > now() - interval '1 hour', false),
       p.id IS NULL AND EXISTS (SELECT FROM reconciler.promises e
                                 WHERE e.key_id = k.id AND e.node_id = %(node)s AND e.ended_at IS NOT NULL)
  FROM unnest((SELECT %(keys)s::bigint[])) AS named(id)
 CROSS JOIN LATERAL (SELECT * FROM reconciler.keys WHERE id = named.id LIMIT 1) k
 CROSS JOIN LATERAL (SELECT * FROM reconciler.subscriptions WHERE id = k.subscription_id LIMIT 1) s
  LEFT JOIN LATERAL (SELECT * FROM reconciler.placements
                      WHERE key_id = k.id AND node_id = %(node)s AND ended_at IS NULL LIMIT 1) pl ON true
  LEFT JOIN LATERAL (SELECT * FROM reconciler.promises
                      WHERE key_id = k.id AND node_id = %(node)s AND ended_at IS NULL LIMIT 1) p ON true
"""


_ROWS_OF_KEYS = f"SELECT {_of_keys('%(inbounds)s')}"

# One statement is one instant: first a row for the node, then one for each key.
_OF_NODE, _OF_KEY = 7, 10  # columns
_KEYS_OF_NODE = f"""
WITH n AS MATERIALIZED ({NODE})
SELECT {OF_NODE}, {", ".join(["NULL"] * _OF_KEY)} FROM n
UNION ALL
SELECT {", ".join(["NULL"] * _OF_NODE)}, {_of_keys("(SELECT inbounds FROM n)")}
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
                Node(node_id, name, api, NodeState(state), inbounds_of(inbounds))
                async for node_id, name, api, state, inbounds in cursor
            ]

    async def glance(self, node_id: int) -> Glance:
        """Return what one statement tells of a node: enough, when all rows are quiet."""
        async with store_errors(), self._pool.connection() as connection:
            return await read_glance(connection, node_id)

    async def snapshot(self, node_id: int, seen: Collection[int], glance: Glance | None = None) -> Desired:
        """
        Return what should hold on a node, as of one instant.

        `seen` are the ids of the keys that the node lists; those without a
        row in the answer have none in the database. Unless `glance` tells
        enough, or there is none, all is read anew.
        """
        glance = glance or await self.glance(node_id)
        desired = glance.desired()
        if not glance.unread(desired.rows, seen):
            return desired
        # Keys to be asked for by id need a transaction to share the instant of the first statement.
        async with store_errors(), self._pool.connection() as connection, connection.transaction():
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            glance = await read_glance(connection, node_id)
            rest: dict[int, KeyRow] = {}
            desired = glance.desired(rest)
            key_ids = glance.unread(desired.rows, seen)
            rest.update(await _rows(connection, node_id, key_ids, glance.inbounds_text))
            return desired

    async def keyed(self, node_id: int, key_ids: Collection[int]) -> Desired:
        """Return what should hold of a few keys, and what the node's own rows say, as of one instant."""
        given = {"node": node_id, "keys": [key_id for key_id in key_ids if key_id <= GREATEST_KEY_ID]}
        async with store_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(_KEYS_OF_NODE, given, binary=True)
            node, *found = await cursor.fetchall()
        rows = (_key_row(*row[_OF_NODE:]) for row in found)
        return glance_of(node[:_OF_NODE]).desired({row.key_id: row for row in rows})

    async def telling(self, node_id: int) -> list[int]:
        """Return the keys that rows and promises alone show to need a look."""
        async with store_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(TELLING, {"node": node_id}, binary=True)
            row = await cursor.fetchone()
            return (row and row[0]) or []

    async def desired_again(self, node_id: int, key_ids: Sequence[int]) -> frozenset[int]:
        """Return which of these keys the rows want on the node now; asked right before taking them off."""
        async with store_errors(), self._pool.connection() as connection:
            rows = await _rows(connection, node_id, key_ids, b"")
            return frozenset(key_id for key_id, row in rows.items() if row.desired)


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
