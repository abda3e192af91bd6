"""Traffic and quotas, as operators write and read them."""

import pytest

from tests.parts_postgres import Database
from tests.rows import one

GB = 10**9


@pytest.fixture
async def anna(cli):
    """A user with one key and 100 GB a month."""
    await cli("user", "add", "Anna")
    granted = await cli("grant", "Anna", "--days", "365", "--traffic", "100GB", "--renew", "monthly")
    assert granted.code == 0
    return "user:1"


async def limit(cli) -> int:
    shown = await cli("user", "show", "user:1", "--json")
    (subscription,) = shown.document["subscriptions"]
    return int(subscription["traffic_limit_bytes"])


@pytest.mark.usefixtures("anna")
@pytest.mark.parametrize("who", ["Anna", "k1", "sub:1"])
async def test_more_traffic_is_granted_to_the_subscription_there_is(cli, who):
    given = await cli("grant", who, "--traffic", "+50GB", "--amount", "100", "--currency", "EUR")

    assert given.code == 0
    assert await limit(cli) == 150 * GB
    history = (await cli("explain", "k1", "--json")).document["history"]["1"]
    assert [(line["kind"], line["traffic_bytes"], line["days"]) for line in history] == [
        ("gift", 100 * GB, 365),
        ("payment", 50 * GB, 0),
    ]


async def test_the_same_payment_for_traffic_again_changes_nothing(cli, anna):
    words = ("grant", anna, "--traffic", "+50GB", "--external-id", "pay-7")
    for _ in range(2):
        assert (await cli(*words)).code == 0

    assert await limit(cli) == 150 * GB


async def test_without_a_plus_and_a_term_nothing_is_granted(cli, anna):
    said = await cli("grant", anna, "--traffic", "50GB")

    assert said.code == 64
    assert "--traffic with a plus" in said.err
    assert await limit(cli) == 100 * GB


@pytest.mark.parametrize("size", ["+-5GB", "-5GB", "+5", "+1.0000000001B", "+99999999999EB"])
async def test_what_is_no_size_or_too_much_is_refused_and_nothing_is_written(cli, anna, size):
    said = await cli("grant", anna, f"--traffic={size}")

    assert said.code in (1, 64)
    assert size.lstrip("+-") in said.err or "traffic_bytes" in said.err
    assert await limit(cli) == 100 * GB


async def test_a_limit_is_made_monthly_and_not_monthly_again(cli, anna, database: Database):
    renewal = "SELECT traffic_renewal FROM reconciler.subscriptions"
    async with await database.connect() as sql:
        assert await one(sql, renewal) == "monthly"
        assert "whole term" in (await cli("extend", anna, "--renew", "never")).out
        assert await one(sql, renewal) is None
        both = await cli("extend", anna, "--renew", "monthly", "--traffic", "1GB", "--json")
        assert (both.code, both.document["repeated"]) == (0, False)
        assert await one(sql, renewal) == "monthly"
    assert await limit(cli) == 101 * GB


async def test_only_a_limit_can_be_monthly(cli):
    await cli("user", "add", "Anna")

    said = await cli("grant", "Anna", "--days", "3", "--renew", "monthly")

    assert said.code == 1
    assert "with a limit of traffic only" in said.err


@pytest.mark.usefixtures("anna")
async def test_explain_tells_what_a_key_has_carried_and_when_its_month_ends(cli, database: Database):
    before = (await cli("explain", "k1")).out
    assert "It has carried nothing yet" in before
    assert "for each month" not in before
    async with await database.connect() as sql:
        await sql.execute("INSERT INTO reconciler.usage VALUES (1, 3000000000, 120000000000)")
        await sql.execute(
            "INSERT INTO reconciler.usage_periods VALUES"
            " (1, '2026-10-31T10:00Z', 0, NULL), (1, '2026-11-30T10:00Z', 70000000000, '2026-12-31T10:00Z')"
        )

    told = await cli("explain", "k1")
    document = (await cli("explain", "k1", "--json")).document["keys"][0]["traffic"]

    assert "It has carried 3 GB up and 120 GB down, the last of it counted 0 s ago." in told.out
    assert "this one began at 2026-11-30 10:00 UTC" in told.out
    assert "the next begins at 2026-12-31 10:00 UTC" in told.out
    assert (document["up_bytes"], document["down_bytes"]) == (3 * GB, 120 * GB)
    assert document["renewal"] == "monthly"


async def test_status_tells_what_a_node_has_carried(cli, database: Database):
    await cli("node", "add", "n1", "--api", "127.0.0.1:1", "--inbound", "in:vless")
    assert (await cli("status", "--json")).document["nodes"][0]["up_bytes"] is None
    async with await database.connect() as sql:
        await sql.execute("INSERT INTO reconciler.node_usage VALUES (1, 2000000000, 5000000000, now())")

    (node,) = (await cli("status", "--json")).document["nodes"]

    assert (node["up_bytes"], node["down_bytes"]) == (2 * GB, 5 * GB)
    assert node["traffic_read_at"] is not None
