"""Monthly limits on real PostgreSQL: when they begin anew, what still counts, and for whom it rings."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from reconciler.db.pool import open_pool
from reconciler.status.periods import BATCH, Periods, Renewed
from tests.parts_postgres import Database
from tests.rows import Connection, add_key, add_node, add_subscription, one, place

LIMIT = 1_000


@dataclass
class Months:
    """Monthly subscriptions and their usage, by a superuser; the periods are the daemon's."""

    sql: Connection
    periods: Periods
    node_id: int

    async def subscribe(self, started_ago: str, used: int = 0, **values: object) -> int:
        given = {"traffic_limit_bytes": LIMIT, "traffic_renewal": "monthly"} | values
        subscription_id = await add_subscription(self.sql, "300 days", **given)
        await self.sql.execute(
            "UPDATE reconciler.subscriptions SET starts_at = now() - %s::interval WHERE id = %s",
            (started_ago, subscription_id),
        )
        key_id = await add_key(self.sql, subscription_id)
        await place(self.sql, key_id, self.node_id)
        await self.sql.execute(
            "INSERT INTO reconciler.usage (key_id, down_bytes) VALUES (%s, %s)", (key_id, used)
        )
        return subscription_id

    async def use(self, subscription_id: int, more: int) -> None:
        await self.sql.execute(
            "UPDATE reconciler.usage u SET down_bytes = down_bytes + %s FROM reconciler.keys k"
            " WHERE k.id = u.key_id AND k.subscription_id = %s",
            (more, subscription_id),
        )

    async def used(self, subscription_id: int) -> object:
        return await one(self.sql, "SELECT reconciler.used_bytes(%s)", subscription_id)

    async def a_month_passes(self) -> None:
        """As far as the rows know."""
        await self.sql.execute(
            "UPDATE reconciler.subscriptions SET starts_at = starts_at - interval '32 days';"
            "UPDATE reconciler.usage_periods SET started_at = started_at - interval '32 days',"
            " next_at = next_at - interval '32 days'"
        )


@pytest.fixture
async def months(database: Database) -> AsyncIterator[Months]:
    async with await database.connect() as sql:
        pool = await open_pool(database.dsn_as("daemon"), 4)
        yield Months(sql, Periods(pool), await add_node(sql, "fra-1"))
        await pool.close()


async def test_what_was_used_since_the_start_counts_in_the_first_month(months: Months):
    subscription_id = await months.subscribe("3 days", used=400)

    assert await months.periods.renew(everything=True) == Renewed(1, 0)

    assert await months.used(subscription_id) == 400
    assert await months.periods.renew(everything=True) == Renewed(0, 0)


async def test_a_month_that_begins_opens_the_door_again_and_rings_for_it_alone(
    months: Months, database: Database
):
    over = await months.subscribe("3 days")
    within = await months.subscribe("3 days")
    await months.periods.renew(everything=True)
    await months.use(over, 5_000)
    await months.use(within, 999)
    await months.a_month_passes()

    async with await database.connect("daemon") as listening:
        await listening.execute("LISTEN reconciler")
        assert await months.periods.renew() == Renewed(2, 1)
        await months.sql.execute("NOTIFY reconciler, 'end'")
        heard = []
        async for bell in listening.notifies(timeout=20):
            heard.append(bell.payload)
            if bell.payload == "end":
                break

    assert (await months.used(over), await months.used(within)) == (0, 0)
    key_id = await one(months.sql, "SELECT id FROM reconciler.keys WHERE subscription_id = %s", over)
    assert heard == [f"1 k {months.node_id}:{key_id}", "end"]
    await months.use(over, 7)
    assert await months.used(over) == 7
    assert await months.periods.renew(everything=True) == Renewed(0, 0)


async def test_a_daemon_that_was_away_for_months_begins_the_present_one(months: Months):
    subscription_id = await months.subscribe("3 days")
    await months.periods.renew(everything=True)
    for _ in range(3):
        await months.use(subscription_id, 100)
        await months.a_month_passes()

    assert await months.periods.renew() == Renewed(1, 0)

    assert await months.used(subscription_id) == 0
    begun = "SELECT count(*) FROM reconciler.usage_periods"
    assert await one(months.sql, begun) == 2
    assert await one(months.sql, begun + " WHERE next_at > now() AND started_at <= now()") == 1


async def test_a_subscription_that_ends_and_goes_on_in_the_same_month_gets_no_second_quota(months: Months):
    subscription_id = await months.subscribe("3 days", used=900)
    await months.periods.renew(everything=True)
    await months.sql.execute("UPDATE reconciler.usage_periods SET next_at = NULL")

    assert await months.periods.renew(everything=True) == Renewed(1, 0)

    assert await months.used(subscription_id) == 900


@pytest.mark.parametrize(
    "change",
    [
        "traffic_renewal = NULL",
        "traffic_limit_bytes = NULL",
        "revoked_at = now()",
        "starts_at = now() - interval '70 days', expires_at = now() - interval '1 hour'",
        "starts_at = now() + interval '1 hour'",
    ],
)
async def test_only_what_is_in_force_with_a_monthly_limit_is_renewed_and_no_other_is_asked_for_again(
    months: Months, change: str
):
    await months.subscribe("3 days", used=900)
    await months.periods.renew(everything=True)
    await months.a_month_passes()
    await months.sql.execute(f"UPDATE reconciler.subscriptions SET {change}")

    assert await months.periods.renew(everything=True) == Renewed(0, 0)

    assert await one(months.sql, "SELECT count(*) FROM reconciler.usage_periods WHERE next_at <= now()") == 0


async def test_more_than_fit_in_a_transaction_are_renewed_all_at_once_and_once_only(months: Months):
    number = BATCH + 200
    user_id = await one(months.sql, "INSERT INTO reconciler.users (name) VALUES ('x') RETURNING id")
    await months.sql.execute(
        "INSERT INTO reconciler.subscriptions"
        " (user_id, starts_at, expires_at, traffic_limit_bytes, traffic_renewal)"
        " SELECT %s, now() - interval '40 days', now() + interval '40 days', 5, 'monthly'"
        " FROM generate_series(1, %s)",
        (user_id, number),
    )

    assert await months.periods.renew(everything=True) == Renewed(number, 0)

    assert await one(months.sql, "SELECT count(*) FROM reconciler.usage_periods") == number
