"""Refunds, trials and the history of a subscription, on the command line and on a real node."""

from reconciler.model import StepKind
from tests.world import kinds


async def test_a_refund_ends_access_gives_back_and_is_in_the_history(cli):
    await cli("user", "add", "Anna")
    await cli(
        "grant", "Anna", "--days", "30", "--amount", "499", "--currency", "EUR", "--external-id", "pay-1"
    )
    await cli("extend", "k1", "--days", "5", "--note", "a bad\u202e week")

    said = await cli("refund", "sub:1", "--external-id", "back-1", "--note", "as asked")
    again = await cli("refund", "sub:1", "--external-id", "back-1")
    third = await cli("refund", "1", "--json")
    told = await cli("history", "Anna")

    assert said.out == "sub:1 ended; 499 EUR (minor unit) to give back\n"
    assert again.out == "sub:1 was refunded or revoked before; nothing is left to give back\n"
    assert third.document["refunds"] == [{"subscription_id": 1, "given_back": [], "repeated": True}]
    first, bought, extended, refunded = told.out.splitlines()
    assert first == "History of sub:1:"
    assert "payment by cli:" in bought
    assert "30 days" in bought
    assert "for 499 EUR (minor unit), as pay-1" in bought
    assert extended.endswith("a bad\ufffd week")
    assert "refund by cli:" in refunded
    assert "for -499 EUR (minor unit), as back-1, as asked" in refunded
    for what in ("sub:1", "k1", "user:1"):
        assert (await cli("history", what)).out == told.out
    (row,) = (await cli("history", "k1", "--json")).document["subscriptions"]
    assert (row["subscription_id"], row["bucket"]) == (1, "revoked")
    assert [grant["kind"] for grant in row["grants"]] == ["payment", "extension", "refund"]


async def test_what_makes_no_sense_is_refused_with_its_bound(cli):
    await cli("user", "add", "Anna")
    await cli("grant", "Anna", "--days", "30", "--amount", "499", "--currency", "EUR")
    for words, said in (
        (("refund", "sub:1", "--amount", "500", "--currency", "EUR"), "not given back: 499 EUR"),
        (("refund", "sub:1", "--amount", "-5", "--currency", "EUR"), "amount = -5: a whole number from 1"),
        (("refund", "sub:1", "--amount", str(2**63), "--currency", "EUR"), "a whole number from 1"),
        (("refund", "sub:1", "--amount", "5"), "an amount and a currency, or neither"),
        (("refund", "sub:9"), "there is no subscription 9"),
        (("refund", "nonsense"), "a subscription is written 5 or sub:5"),
        (("refund", "--user", "nobody"), "there is no key, subscription or user 'nobody'"),
        (("history", "nobody"), "there is no key, subscription or user 'nobody'"),
        (("history", "k9"), "there is no key 9"),
    ):
        refused = await cli(*words)
        assert (refused.code, said in refused.err) == (1, True), (words, refused.err)
    assert (await cli("refund", "sub:1", "--user", "Anna")).code == 64
    assert (await cli("refund")).code == 64
    assert (await cli("grant", "Anna", "--days", "3", "--kind", "refund")).code == 64
    assert (await cli("user", "list", "--json")).document["subscriptions"][0]["bucket"] == "active"


async def test_a_trial_is_given_once(cli):
    await cli("user", "add", "Anna")
    assert (await cli("grant", "Anna", "--days", "3", "--kind", "trial")).code == 0
    again = await cli("grant", "Anna", "--days", "3", "--kind", "trial", "--json")
    assert again.code == 1
    assert "who has one in a life" in again.document["error"]["messages"][0]


async def test_a_mass_refund_asks_for_its_number_and_orders_the_guard(cli, world):
    await world.keys(12)
    await world.cycle()

    unasked = await cli("refund", "--user", "user:1", typed="\n")
    held = await cli("refund", "--user", "user:1", "--count", "12", "--no-release")
    assert kinds(await world.cycle()) == []
    assert "n1: 12 early removals asked in the last hour, 2 let through" in held.err

    await world.execute("UPDATE reconciler.subscriptions SET revoked_at = NULL")
    said = await cli("refund", "--user", "user:1", typed="12\n")
    assert (unasked.code, held.code, said.code) == (1, 0, 0)
    assert "sub:12 ended; nothing on record as paid to give back" in said.out
    assert kinds(await world.cycle()) == [StepKind.REMOVE] * 12
