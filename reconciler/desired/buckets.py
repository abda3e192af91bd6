"""Who is active, ends soon, has ended or has nothing: subscription_state, which the bot may ask as well."""

from collections.abc import Collection
from typing import LiteralString

from reconciler.db.pool import Connection, store_errors
from reconciler.desired import bounds
from reconciler.desired.look import SUBSCRIPTIONS, SubscriptionState, rows
from reconciler.errors import Invalid

BUCKETS = ("active", "expiring_in_7d", "expired", "revoked", "over_quota", "no_subscription")

GREATEST_LIMIT = 1_000_000

# What the bucket says already is said again where an index answers it.
_ENDING: LiteralString = f"""
{SUBSCRIPTIONS}
 WHERE expires_at > now() AND expires_at <= now() + %(days)s * interval '24 hours'
   AND bucket IN ('active', 'expiring_in_7d')
 ORDER BY expires_at, subscription_id LIMIT %(limit)s OFFSET %(offset)s
"""

_LISTED: LiteralString = f"""
{SUBSCRIPTIONS}
 WHERE %(every)s OR bucket = ANY(%(buckets)s)
 ORDER BY user_id, subscription_id LIMIT %(limit)s OFFSET %(offset)s
"""


async def users(
    connection: Connection, buckets: Collection[str] = (), limit: int = 100, offset: int = 0
) -> list[SubscriptionState]:
    """Return users with their subscriptions, by id; of some buckets or of all. Raises Invalid."""
    for bucket in buckets:
        if bucket not in BUCKETS:
            raise Invalid("bucket", bucket, f"one of {', '.join(BUCKETS)}")
    given = {"every": not buckets, "buckets": list(buckets), **_page(limit, offset)}
    return await rows(connection, SubscriptionState, _LISTED, given)


async def ending(
    connection: Connection, days: int, limit: int = 100, offset: int = 0
) -> list[SubscriptionState]:
    """Return the subscriptions in force that end within so many days, the next one first. Raises Invalid."""
    bounds.whole("days", days, 1, bounds.GREATEST_DAYS)
    return await rows(connection, SubscriptionState, _ENDING, {"days": days, **_page(limit, offset)})


async def totals(connection: Connection) -> dict[str, int]:
    """Return how many rows each bucket has, the empty ones included."""
    async with store_errors(), connection.transaction():
        cursor = await connection.execute(
            "SELECT bucket, count(*) FROM reconciler.subscription_state GROUP BY bucket"
        )
        return dict.fromkeys(BUCKETS, 0) | dict(await cursor.fetchall())


def _page(limit: int, offset: int) -> dict[str, object]:
    bounds.whole("limit", limit, 1, GREATEST_LIMIT)
    bounds.whole("offset", offset, 0, bounds.GREATEST_BIGINT)
    return {"limit": limit, "offset": offset}
