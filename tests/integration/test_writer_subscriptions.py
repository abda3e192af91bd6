"""Grants, extensions, revocations, with the rights of the bot."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from reconciler.db.pool import Connection
from reconciler.desired import buckets, look
from reconciler.desired.keys import NewKey
from reconciler.desired.subscriptions import Extended, Granted
from reconciler.desired.terms import Receipt, Term
from reconciler.desired.writer import Writer
from reconciler.errors import Invalid, Taken, Unknown
from tests.parts_writer import MONTH, counts, one


async def now(connection: Connection) -> datetime:
    (found,) = await one(connection, "SELECT now()")
    assert isinstance(found, datetime)
    return found


async def test_a_grant_makes_a_subscription_a_key_and_a_line_of_history(writer, connection, user_id):
    before = await now(connection)
    term = Term(days=30, traffic_bytes=10**9, plan="basic")
    receipt = Receipt(kind="payment", external_id="pay-1", amount=499, currency="EUR", note="thanks")
    granted = await writer.grant(user_id, term, NewKey(pool="europe", spread="all"), receipt)

    assert before + timedelta(days=30) <= granted.expires_at <= await now(connection) + timedelta(days=30)
    (subscription,) = await look.subscriptions(connection, user_id)
    assert subscription.subscription_id == granted.subscription_id
    assert (subscription.plan, subscription.traffic_limit_bytes, subscription.bucket) == (
        "basic",
        10**9,
        "active",
    )
    (key,) = await look.keys(connection, user_id)
    assert (key.key_id, key.node, key.revoked) == (granted.key_id, None, False)
    (line,) = await look.grants(connection, granted.subscription_id)
    assert (line.kind, line.days, line.traffic_bytes, line.amount, line.currency, line.actor, line.note) == (
        "payment",
        30,
        10**9,
        499,
        "EUR",
        "telegram:1",
        "thanks",
    )
    assert line.resulting_expires_at == granted.expires_at


async def test_a_grant_may_say_until_when_and_from_when(writer, connection, user_id):
    until = datetime(2035, 5, 1, 12, tzinfo=UTC)
    granted = await writer.grant(user_id, Term(until=until, starts_at=datetime(2034, 1, 1, tzinfo=UTC)))

    assert granted.expires_at == until
    (subscription,) = await look.subscriptions(connection, user_id)
    assert subscription.starts_at == datetime(2034, 1, 1, tzinfo=UTC)


async def test_days_are_24_hours_in_any_time_zone_of_the_session(writer, connection, user_id):
    await connection.execute("SET timezone = 'Europe/Berlin'")
    start = datetime(2031, 3, 29, 12, tzinfo=UTC)
    granted = await writer.grant(user_id, Term(days=2, starts_at=start))

    assert granted.expires_at == start + timedelta(days=2)


@pytest.mark.parametrize(
    ("term", "words"),
    [
        (Term(until=datetime(2001, 1, 1, tzinfo=UTC)), r"until = '2001-01-01 .*after the start"),
        (Term(days=3660, starts_at=datetime(2095, 1, 1, tzinfo=UTC)), "days = 3660: an end before 2100"),
    ],
    ids=["ends before now", "ends after 2100"],
)
async def test_an_end_that_only_the_database_can_judge_is_refused_all_the_same(
    writer, connection, user_id, term, words
):
    with pytest.raises(Invalid, match=words):
        await writer.grant(user_id, term)

    assert await counts(connection) == (0, 0, 0)


async def test_a_grant_for_an_unknown_user_is_refused(writer, connection, user_id):
    for unknown in (user_id + 1, 0, 2**63):
        with pytest.raises(Unknown, match="user"):
            await writer.grant(unknown, MONTH)

    assert await counts(connection) == (0, 0, 0)


async def test_a_repeated_payment_returns_what_the_first_did(writer, connection, user_id):
    receipt = Receipt(kind="payment", external_id="pay-1")
    first = await writer.grant(user_id, MONTH, receipt=receipt)
    await writer.extend(first.subscription_id, 5)
    again = await writer.grant(user_id, Term(days=90), receipt=receipt)
    extended = await writer.extend(first.subscription_id, 30, receipt)

    assert (again.subscription_id, again.key_id, again.expires_at) == (
        first.subscription_id,
        first.key_id,
        first.expires_at,
    )
    assert (first.repeated, again.repeated, extended.repeated) == (False, True, True)
    assert await counts(connection) == (1, 1, 2)


async def test_a_payment_of_somebody_else_is_not_returned(writer, granted, user_id):
    receipt = Receipt(kind="payment", external_id="pay-1")
    await writer.grant(user_id, MONTH, receipt=receipt)
    other = await writer.add_user("Ivan", 4_712)

    with pytest.raises(Taken, match="external_id"):
        await writer.grant(other.user_id, MONTH, receipt=receipt)
    with pytest.raises(Taken, match="external_id"):
        await writer.extend(granted.subscription_id, 30, receipt)


async def test_ten_deliveries_of_one_payment_at_once_are_one_grant(database, connection, user_id):
    async def deliver() -> Granted:
        async with await database.connect("writer") as own:
            return await Writer(own, "shop").grant(user_id, MONTH, receipt=Receipt(external_id="pay-1"))

    granted = await asyncio.gather(*(deliver() for _ in range(10)))

    assert len({(one.subscription_id, one.key_id, one.expires_at) for one in granted}) == 1
    assert sorted(one.repeated for one in granted) == [False] + [True] * 9
    assert await counts(connection) == (1, 1, 1)


async def test_ten_deliveries_of_one_extension_at_once_prolong_once(database, granted):
    async def deliver() -> Extended:
        async with await database.connect("writer") as own:
            return await Writer(own, "shop").extend(granted.subscription_id, 30, Receipt(external_id="pay-2"))

    extended = await asyncio.gather(*(deliver() for _ in range(10)))

    assert {one.expires_at for one in extended} == {granted.expires_at + timedelta(days=30)}
    assert sorted(one.repeated for one in extended) == [False] + [True] * 9


async def test_different_extensions_at_once_add_up(database, granted):
    async def extend() -> Extended:
        async with await database.connect("writer") as own:
            return await Writer(own, "shop").extend(granted.subscription_id, 1, traffic_bytes=0)

    extended = await asyncio.gather(*(extend() for _ in range(10)))

    assert max(one.expires_at for one in extended) == granted.expires_at + timedelta(days=10)


async def test_an_expired_subscription_is_extended_from_now(writer, connection, user_id):
    start = await now(connection) - timedelta(days=100)
    granted = await writer.grant(user_id, Term(days=1, starts_at=start))
    before = await now(connection)
    extended = await writer.extend(granted.subscription_id, 30)

    assert before + timedelta(days=30) <= extended.expires_at <= await now(connection) + timedelta(days=30)


async def test_traffic_adds_to_a_limit_and_leaves_no_limit_alone(writer, connection, user_id, granted):
    limited = await writer.grant(user_id, Term(days=30, traffic_bytes=100))
    extended = await writer.extend(limited.subscription_id, 0, traffic_bytes=50)
    await writer.extend(granted.subscription_id, 1, traffic_bytes=50)

    assert extended.expires_at == limited.expires_at
    rows = {row.subscription_id: row for row in await look.subscriptions(connection, user_id)}
    assert rows[limited.subscription_id].traffic_limit_bytes == 150
    assert rows[granted.subscription_id].traffic_limit_bytes is None


@pytest.mark.parametrize(
    ("days", "traffic_bytes"), [(0, 0), (-1, 0), (3661, 0), (1, -1), (1, 2**61)], ids=range(5)
)
async def test_an_extension_out_of_bounds_is_refused(
    writer, connection, user_id, granted, days, traffic_bytes
):
    with pytest.raises(Invalid):
        await writer.extend(granted.subscription_id, days, traffic_bytes=traffic_bytes)

    (subscription,) = await look.subscriptions(connection, user_id)
    assert subscription.expires_at == granted.expires_at


async def test_extensions_end_before_2100(writer, granted):
    for _ in range(7):
        await writer.extend(granted.subscription_id, 3660)

    with pytest.raises(Invalid, match="days = 3660: an end before 2100"):
        await writer.extend(granted.subscription_id, 3660)


async def test_traffic_that_no_longer_fits_is_refused(writer, user_id):
    granted = await writer.grant(user_id, Term(days=1, traffic_bytes=2**60 - 10))
    await writer.extend(granted.subscription_id, 0, traffic_bytes=10)

    with pytest.raises(Invalid, match=r"traffic_bytes = 1: a limit of at most 1152921504606846976, together"):
        await writer.extend(granted.subscription_id, 0, traffic_bytes=1)


async def test_a_revoked_subscription_is_reopened_before_it_is_extended(writer, connection, user_id, granted):
    assert await writer.revoke(granted.subscription_id)
    (revoked,) = await look.subscriptions(connection, user_id)
    assert not await writer.revoke(granted.subscription_id)
    assert await look.subscriptions(connection, user_id) == [revoked]
    for refused in (writer.extend(granted.subscription_id, 30), writer.add_key(granted.subscription_id)):
        with pytest.raises(Invalid, match="reopen"):
            await refused

    assert await writer.reopen(granted.subscription_id)
    assert not await writer.reopen(granted.subscription_id)
    assert (await writer.extend(granted.subscription_id, 30)).expires_at > granted.expires_at


async def test_what_does_not_exist_is_unknown(writer, granted):
    subscription_id, key_id = granted.subscription_id + 1, granted.key_id + 1
    for refused in (
        writer.extend(subscription_id, 30),
        writer.revoke(subscription_id),
        writer.reopen(subscription_id),
        writer.add_key(subscription_id),
        writer.revoke_key(key_id),
        writer.rotate(key_id),
        writer.revoke(2**64),
    ):
        with pytest.raises(Unknown):
            await refused


async def test_users_are_listed_by_bucket(writer, connection, user_id, granted):
    await writer.add_user("Ivan", 4_712)
    await writer.revoke((await writer.grant(user_id, MONTH)).subscription_id)

    assert [row.bucket for row in await buckets.users(connection)] == ["active", "revoked", "no_subscription"]
    assert [row.user_name for row in await buckets.users(connection, ["no_subscription"])] == ["Ivan"]
    assert [row.bucket for row in await buckets.users(connection, limit=1, offset=1)] == ["revoked"]
    with pytest.raises(Invalid, match="bucket"):
        await buckets.users(connection, ["happy"])
    with pytest.raises(Unknown, match="user"):
        await look.subscriptions(connection, user_id + 100)
    with pytest.raises(Unknown, match="key"):
        await look.key(connection, granted.key_id + 100)
    assert [key.key_id for key in await look.key(connection, granted.key_id)] == [granted.key_id]


async def test_a_limit_is_for_each_month_or_for_the_whole_term(writer, connection, user_id):
    granted = await writer.grant(user_id, Term(days=90, traffic_bytes=5, renewal="monthly"))
    assert await _renewal(connection) == "monthly"

    await writer.set_renewal(granted.subscription_id, None)
    assert await _renewal(connection) is None
    await writer.set_renewal(granted.subscription_id, "monthly")
    assert await _renewal(connection) == "monthly"


async def test_without_a_limit_there_is_nothing_to_renew(writer, user_id):
    with pytest.raises(Invalid, match="renewal = 'monthly': with a limit of traffic only"):
        await writer.grant(user_id, Term(days=90, renewal="monthly"))
    granted = await writer.grant(user_id, Term(days=90))
    with pytest.raises(Invalid, match="renewal = 'monthly': with a limit of traffic only"):
        await writer.set_renewal(granted.subscription_id, "monthly")
    with pytest.raises(Invalid, match="renewal = 'weekly': one of monthly, or none"):
        await writer.set_renewal(granted.subscription_id, "weekly")
    with pytest.raises(Unknown):
        await writer.set_renewal(granted.subscription_id + 1, "monthly")


async def _renewal(connection) -> object:
    cursor = await connection.execute("SELECT traffic_renewal FROM reconciler.subscriptions")
    ((renewal,),) = await cursor.fetchall()
    return renewal
