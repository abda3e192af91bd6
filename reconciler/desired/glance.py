"""
All that one statement tells of a node, packed: the node itself, and the rows that matter to it.

A row is *quiet* when the key is desired and its promise says so already (see
reconciler.plan.rows). Where every row is quiet and says what it said before,
nothing needs to be unpacked: equal digests tell.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from reconciler.db.pool import Connection
from reconciler.model import (
    GREATEST_KEY_ID,
    Desired,
    Inbound,
    Instant,
    KeyRow,
    NodeState,
    Order,
    OrderKind,
    Protocol,
)
from reconciler.plan.rows import Rows

# reconciler.account_digest and reconciler.used_bytes, written out where they are asked for every row, because
# PostgreSQL inlines neither, and calling them costs more than all the rest.
DIGEST = "substring(sha256(uuid_send(k.credential) || {inbounds}) FROM 1 FOR 16)"


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
            WHEN p.key_id IS NULL AND s.traffic_limit_bytes IS NOT NULL AND {_USED} >= s.traffic_limit_bytes
            THEN 'over'
            WHEN pl.key_id IS NULL OR p.key_id IS NULL
                 OR p.promised_until < s.expires_at OR p.promised_until = 'infinity'
                 OR p.early_at > now() - interval '1 hour'
                 OR p.account_digest <> {DIGEST.format(inbounds="n.inbounds")} THEN 'telling'
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
_ALL_ROWS = f"""
SELECT string_agg({_RECORD}, '') FILTER (WHERE word = 'quiet') AS quiet,
       array_agg(id) FILTER (WHERE word = 'telling') AS telling
  FROM ({_JUDGED}) judged
"""


NODE = """
SELECT id, state, convert_to(reconciler.inbounds_text(id), 'UTF8') AS inbounds
  FROM reconciler.nodes WHERE id = %(node)s OFFSET 0
"""

OF_NODE = """
       date_part('epoch', now()), n.state, n.inbounds,
       (SELECT coalesce(json_agg(json_build_array(i.tag, i.protocol, i.flow) ORDER BY i.tag), '[]')
          FROM reconciler.inbounds i WHERE i.node_id = n.id AND i.ended_at IS NULL),
       (SELECT count(*) FROM reconciler.promises p
         WHERE p.node_id = n.id AND p.early = 'early' AND p.early_at > now() - interval '1 hour'),
       (SELECT count(*) FROM reconciler.promises p
         WHERE p.node_id = n.id AND p.early = 'over_quota' AND p.early_at > now() - interval '1 hour'),
       (SELECT coalesce(json_agg(json_build_array(o.id, o.kind, o.key_ids) ORDER BY o.id), '[]')
          FROM reconciler.orders o
         WHERE o.node_id = n.id AND o.done_at IS NULL AND o.valid_until > now())
"""
"""What the rows say of a node `n` that `NODE` has found, apart from its keys."""

_WHOLE_NODE = f"""
SELECT {OF_NODE}, found.quiet, found.telling FROM ({NODE}) n CROSS JOIN LATERAL ({_ALL_ROWS}) found
"""

TELLING = f"""
SELECT array_agg(id) FILTER (WHERE word = 'telling')
  FROM (SELECT convert_to(reconciler.inbounds_text(%(node)s), 'UTF8') AS inbounds OFFSET 0) n
 CROSS JOIN LATERAL ({_JUDGED}) judged
"""


@dataclass(frozen=True, slots=True)
class Glance:
    """What was read, not unpacked yet; `telling` are the keys whose rows are not quiet."""

    now: Instant
    state: NodeState
    inbounds_text: bytes  # as account digests have it
    inbounds: tuple[Inbound, ...]
    early_spent: int
    quota_spent: int
    orders: tuple[Order, ...]
    quiet: bytes
    telling: tuple[int, ...]

    @property
    def digest(self) -> bytes:
        """The same as long as nothing but the time has changed; rows that are telling are not in it."""
        words = (self.state, self.inbounds, self.early_spent, self.quota_spent, self.orders, self.telling)
        return blake2b(self.quiet, digest_size=16, key=blake2b(repr(words).encode()).digest()).digest()

    def desired(self, rest: Mapping[int, KeyRow] | None = None) -> Desired:
        """Unpack it; `rest` are the rows that are not quiet."""
        return Desired(
            now=self.now,
            state=self.state,
            inbounds=self.inbounds,
            rows=Rows(self.quiet, {} if rest is None else rest),
            early_spent=self.early_spent,
            quota_spent=self.quota_spent,
            orders=self.orders,
        )

    def unread(self, quiet: Collection[int], seen: Collection[int]) -> list[int]:
        """Return the keys to ask for by id: of those that the node lists, and of those that are telling."""
        found = frozenset(seen).difference(quiet).union(self.telling)
        return [key_id for key_id in found if key_id <= GREATEST_KEY_ID]


async def read_glance(connection: Connection, node_id: int) -> Glance:
    """Read a node."""
    cursor = await connection.execute(_WHOLE_NODE, {"node": node_id}, binary=True)
    found = await cursor.fetchone()
    assert found is not None, "nodes are ended by their state, never deleted"
    *node, quiet, telling = found
    return glance_of(node, quiet, telling)


def glance_of(
    node: Sequence[Any], quiet: bytes | None = None, telling: Sequence[int] | None = None
) -> Glance:
    """Return what the columns of `OF_NODE` say, and the rows, where they were read."""
    now, state, text, inbounds, early, quota, orders = node
    return Glance(
        now=now,
        state=NodeState(state),
        inbounds_text=text,
        inbounds=inbounds_of(inbounds),
        early_spent=early,
        quota_spent=quota,
        orders=tuple(Order(each, OrderKind(kind), frozenset(key_ids)) for each, kind, key_ids in orders),
        quiet=quiet or b"",
        telling=tuple(telling or ()),
    )


def inbounds_of(rows: Sequence[tuple[str, str, str]]) -> tuple[Inbound, ...]:
    """Return the inbounds of a node from their tags, protocols and flows."""
    return tuple(Inbound(tag, Protocol(protocol), flow) for tag, protocol, flow in rows)
