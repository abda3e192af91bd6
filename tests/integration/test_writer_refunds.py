"""Refunds: access ends now, the history stays, and the money on record adds up."""

import asyncio

import pytest

from reconciler.desired import buckets, look
from reconciler.desired.refunds import Money, Refunded
from reconciler.desired.terms import Receipt
from reconciler.desired.writer import Operator, Writer
from reconciler.errors import Invalid, Taken, Unknown
from tests.parts_writer import MONTH, one


def paid(amount: int, currency: str = "EUR", **more: str) -> Receipt:
    return Receipt(kind="payment", amount=amount, currency=currency, **more)


def back(amount: int | None = None, currency: str | None = "EUR", **more: str) -> Receipt:
    return Receipt(
        kind="refund",
        amount=amount,
        currency=currency if amount is not None else None,
        **more,
    )


async def history(connection, subscription_id: int) -> list[tuple[object, ...]]:
    rows = await look.grants(connection, subscription_id)
    return [(row.kind, row.amount, row.currency) for row in rows]


async def test_a_refund_ends_access_now_and_gives_back_what_was_paid(writer, connection, user_id):
    granted = await writer.grant(user_id, MONTH, receipt=paid(499))
    await writer.extend(granted.subscription_id, 30, Receipt(kind="extension", amount=250, currency="EUR"))
    await writer.extend(granted.subscription_id, 30, Receipt(kind="extension", amount=900, currency="RUB"))

    refunded = await writer.refund(granted.subscription_id, back(note="did not work"))

    assert refunded == Refunded(1, (Money(749, "EUR"), Money(900, "RUB")), repeated=False)
    assert await history(connection, 1) == [
        ("payment", 499, "EUR"),
        ("extension", 250, "EUR"),
        ("extension", 900, "RUB"),
        ("refund", -749, "EUR"),
        ("refund", -900, "RUB"),
    ]
    (row,) = await look.subscriptions(connection, user_id)
    last = (await look.grants(connection, 1))[-1]
    assert (row.bucket, row.revoked_at) == ("revoked", last.resulting_expires_at)
    assert (last.actor, last.note) == ("telegram:1", "did not work")
    assert row.expires_at is not None
    assert row.expires_at > last.resulting_expires_at, "what was sold stays to be seen"


async def test_a_refund_again_gives_nothing_again(writer, connection, user_id):
    granted = await writer.grant(user_id, MONTH, receipt=paid(499))
    await writer.refund(granted.subscription_id)
    again = await writer.refund(granted.subscription_id)
    assert again == Refunded(1, (), repeated=True)
    assert await one(connection, "SELECT sum(amount)::int, count(*) FROM reconciler.grants") == (0, 2)


async def test_two_refunds_at_once_give_back_once(database, connection, writer, user_id):
    granted = await writer.grant(user_id, MONTH, receipt=paid(499))

    async def give_back() -> bool:
        async with await database.connect("writer") as mine:
            return (await Writer(mine, "a shop").refund(granted.subscription_id)).repeated

    assert sorted(await asyncio.gather(*(give_back() for _ in range(10)))) == [False] + [True] * 9
    assert await one(connection, "SELECT sum(amount)::int, count(*) FROM reconciler.grants") == (0, 2)


async def test_a_part_is_given_back_by_its_amount_and_never_more_than_was_paid(writer, connection, user_id):
    granted = await writer.grant(user_id, MONTH, receipt=paid(499))
    await writer.refund(granted.subscription_id, back(200))
    for amount, currency in ((300, "EUR"), (1, "USD")):
        with pytest.raises(Invalid, match="at most what was paid and not given back: 299 EUR"):
            await writer.refund(granted.subscription_id, back(amount, currency))
    await writer.refund(granted.subscription_id, back(299))
    with pytest.raises(Invalid, match="not given back: nothing"):
        await writer.refund(granted.subscription_id, back(1))
    assert await one(connection, "SELECT sum(amount)::int, count(*) FROM reconciler.grants") == (0, 3)


async def test_what_was_never_on_record_as_paid_may_be_named(writer, connection, granted):
    assert await writer.refund(granted.subscription_id) == Refunded(1, (), repeated=False)
    assert await writer.refund(granted.subscription_id, back(499)) == Refunded(
        1, (Money(499, "EUR"),), repeated=False
    )
    assert await history(connection, 1) == [
        ("gift", None, None),
        ("refund", None, None),
        ("refund", -499, "EUR"),
    ]


async def test_the_same_external_id_is_the_same_refund_and_no_other_write(writer, connection, user_id):
    granted = await writer.grant(user_id, MONTH, receipt=paid(499, external_id="pay-1"))
    other = await writer.grant(user_id, MONTH)
    with pytest.raises(Taken):
        await writer.refund(granted.subscription_id, back(external_id="pay-1"))
    first = await writer.refund(granted.subscription_id, back(100, external_id="back-1"))
    again = await writer.refund(granted.subscription_id, back(100, external_id="back-1"))
    assert (first.repeated, again.repeated, again.given_back) == (False, True, first.given_back)
    with pytest.raises(Taken):
        await writer.refund(other.subscription_id, back(external_id="back-1"))
    with pytest.raises(Taken):
        await writer.extend(granted.subscription_id, 5, Receipt(kind="extension", external_id="back-1"))
    assert (await one(connection, "SELECT count(*) FROM reconciler.grants")) == (3,)


async def test_a_refund_is_told_from_what_gives_access(writer, user_id, granted):
    with pytest.raises(Invalid, match="kind = 'refund'"):
        await writer.grant(user_id, MONTH, receipt=Receipt(kind="refund"))
    with pytest.raises(Invalid, match="kind = 'refund'"):
        await writer.extend(granted.subscription_id, 5, Receipt(kind="refund"))
    with pytest.raises(Invalid, match="kind = 'gift'"):
        await writer.refund(granted.subscription_id, Receipt())
    for amount in (0, -5, 2**63):
        with pytest.raises(Invalid, match="amount"):
            await writer.refund(granted.subscription_id, back(amount))
    with pytest.raises(Unknown):
        await writer.refund(99)


async def test_a_mass_refund_takes_the_number_and_one_statement_may_end_them(database, writer, user_id):
    ids = [(await writer.grant(user_id, MONTH, receipt=paid(5))).subscription_id for _ in range(12)]
    async with await database.connect("operator") as connection:
        operator = Operator(connection, "root")
        for wrong in (11, 0):
            with pytest.raises(Invalid, match="count"):
                await operator.refund_all(ids, wrong, release=True)
        with pytest.raises(Invalid, match="belong to one subscription"):
            await operator.refund_all(ids, 12, back(5), release=True)
        with pytest.raises(Unknown):
            await operator.refund_all([*ids, 99], 13, release=True)

        done = await operator.refund_all(ids, 12, release=True)

        assert [one.given_back for one in done.refunds] == [(Money(5, "EUR"),)] * 12
        assert {row.bucket for row in await buckets.users(connection)} == {"revoked"}
        assert await one(connection, "SELECT sum(amount)::int, count(*) FROM reconciler.grants") == (0, 24)
