"""What the clock alone changes: subscriptions that end or begin without anybody writing a row."""

from dataclasses import dataclass

from reconciler.db.pool import Pool, store_errors
from reconciler.desired.bells import NOWHERE, Bell
from reconciler.model import Instant

_DUE = f"""
SELECT carrier.node_id, k.id
  FROM reconciler.subscriptions s
  JOIN reconciler.keys k ON k.subscription_id = s.id AND k.revoked_at IS NULL
  JOIN reconciler.promises carrier ON carrier.key_id = k.id AND carrier.ended_at IS NULL
 WHERE s.expires_at > to_timestamp(%(since)s) AND s.expires_at <= to_timestamp(%(now)s)
UNION ALL
SELECT coalesce(carrier.node_id, {NOWHERE}), k.id
  FROM reconciler.subscriptions s
  JOIN reconciler.keys k ON k.subscription_id = s.id AND k.revoked_at IS NULL
  LEFT JOIN reconciler.placements carrier ON carrier.key_id = k.id AND carrier.ended_at IS NULL
 WHERE s.starts_at > to_timestamp(%(since)s) AND s.starts_at <= to_timestamp(%(now)s) AND s.revoked_at IS NULL
"""

_NEXT = """
SELECT date_part('epoch', now()), date_part('epoch', least(
  (SELECT min(expires_at) FROM reconciler.subscriptions WHERE expires_at > now()),
  (SELECT min(starts_at) FROM reconciler.subscriptions WHERE starts_at > now())))
"""


@dataclass(frozen=True, slots=True)
class Due:
    """What fell due up to `now` by the database's clock, and when the next will; None if nothing will."""

    now: Instant
    next: Instant | None
    bell: Bell


class Timer:
    """Asks what has fallen due since it was last asked; the first time, nothing has."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._since: Instant | None = None

    async def due(self) -> Due:
        """Return what fell due; raises StoreError, and then the next answer has it."""
        async with store_errors(), self._pool.connection() as connection:
            cursor = await connection.execute(_NEXT, binary=True)
            ((now, following),) = await cursor.fetchall()
            keys: dict[int, set[int]] = {}
            if self._since is not None:
                cursor = await connection.execute(_DUE, {"since": self._since, "now": now}, binary=True)
                for node_id, key_id in await cursor.fetchall():
                    keys.setdefault(node_id, set()).add(key_id)
        self._since = now
        return Due(now, following, Bell(keys={node: frozenset(ids) for node, ids in keys.items()}))
