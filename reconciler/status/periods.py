"""
Renewing quotas: where counting against a monthly limit begins anew.

Counters are never reset. A period says how much had been used when it began,
and only what came since counts against the limit. Any number of daemons may
do it at once: a period that is there keeps what it says.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from reconciler.db.pool import Connection, Pool, store_errors
from reconciler.plan.periods import month_of

BATCH = 1_000
"""Subscriptions that one transaction renews."""

_IN_FORCE = """
    s.traffic_renewal = 'monthly' AND s.traffic_limit_bytes IS NOT NULL AND s.revoked_at IS NULL
    AND s.starts_at <= now() AND now() < s.expires_at
"""

_OVER = (
    "SELECT subscription_id FROM reconciler.usage_periods WHERE next_at <= now() ORDER BY next_at LIMIT %s"
)

# With a limit or a term that came later, there is no period that has ended.
_WITHOUT = f"""
SELECT s.id FROM reconciler.subscriptions s
 WHERE {_IN_FORCE}
   AND NOT EXISTS (SELECT FROM reconciler.usage_periods p
                    WHERE p.subscription_id = s.id AND p.next_at IS NOT NULL)
 LIMIT %s
"""

# As in counting: rows are looked up by their keys, whatever the statistics say.
_BY_KEY = """
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true)
"""

_END = """
UPDATE reconciler.usage_periods SET next_at = NULL WHERE subscription_id = ANY(%s) AND next_at <= now()
"""

_TO_RENEW = f"""
SELECT s.id, s.starts_at, now() FROM reconciler.subscriptions s
 WHERE s.id = ANY(%s) AND {_IN_FORCE} ORDER BY s.id
"""

# What a subscription used before anybody looked belongs to its first month.
_BEGIN = """
WITH renewed AS (
  SELECT s.id, given.begins, given.ends, s.starts_at, s.traffic_limit_bytes, used.bytes,
         used.bytes - coalesce((SELECT base_bytes FROM reconciler.usage_periods
                                 WHERE subscription_id = s.id AND started_at <= now()
                                 ORDER BY started_at DESC LIMIT 1), 0) AS counted
    FROM unnest(%(ids)s::bigint[], %(begins)s::timestamptz[], %(ends)s::timestamptz[])
         AS given (id, begins, ends)
    JOIN reconciler.subscriptions s ON s.id = given.id
   CROSS JOIN LATERAL (SELECT coalesce(sum(g.up_bytes + g.down_bytes), 0)::bigint AS bytes
                         FROM reconciler.keys k JOIN reconciler.usage g ON g.key_id = k.id
                        WHERE k.subscription_id = s.id OFFSET 0) used),
begun AS (
  INSERT INTO reconciler.usage_periods (subscription_id, started_at, base_bytes, next_at)
  SELECT id, begins, CASE WHEN begins = starts_at THEN 0 ELSE bytes END, ends FROM renewed
  ON CONFLICT (subscription_id, started_at) DO UPDATE SET next_at = excluded.next_at
  RETURNING subscription_id, base_bytes)
SELECT r.id FROM renewed r JOIN begun b ON b.subscription_id = r.id
 WHERE r.counted >= r.traffic_limit_bytes AND r.bytes - b.base_bytes < r.traffic_limit_bytes ORDER BY r.id
"""
_RING = "SELECT reconciler.ring_subscriptions(%s::bigint[])"


class Renewed(NamedTuple):
    """How many periods began, and how many subscriptions have their door open again by that."""

    begun: int
    opened: int


class Periods:
    """Begins the months of subscriptions; raises StoreError."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def renew(self, *, everything: bool = False) -> Renewed:
        """
        Begin every month that has come, by the database's clock, and ring for the doors that open.

        Months that follow on another are found cheaply; with `everything`,
        subscriptions are found as well that have none yet.
        """
        begun = opened = 0
        for question in (_OVER, _WITHOUT) if everything else (_OVER,):
            more = True
            while more:
                async with store_errors(), self._pool.connection() as connection, connection.transaction():
                    cursor = await connection.execute(question, (BATCH,))
                    due = [subscription_id for (subscription_id,) in await cursor.fetchall()]
                    renewed = await _renew(connection, due) if due else Renewed(0, 0)
                begun, opened = begun + renewed.begun, opened + renewed.opened
                more = len(due) == BATCH
        return Renewed(begun, opened)


async def _renew(connection: Connection, due: Sequence[int]) -> Renewed:
    await connection.execute(_BY_KEY)
    await connection.execute(_END, (due,))
    cursor = await connection.execute(_TO_RENEW, (due,))
    rows = await cursor.fetchall()
    if not rows:
        return Renewed(0, 0)
    months = [month_of(starts_at, now) for _, starts_at, now in rows]
    given: dict[str, Any] = {
        "ids": [subscription_id for subscription_id, _, _ in rows],
        "begins": [month.begins for month in months],
        "ends": [month.ends for month in months],
    }
    cursor = await connection.execute(_BEGIN, given)
    opened = [subscription_id for (subscription_id,) in await cursor.fetchall()]
    if opened:
        await connection.execute(_RING, (opened,))
    return Renewed(len(rows), len(opened))
