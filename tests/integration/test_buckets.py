"""Who is active, ends soon, has ended, is over quota or has nothing, among 100,000."""

import pytest

from reconciler.desired import buckets
from reconciler.errors import Invalid
from tests.rows import Connection

USERS = 100_000

FILL = """
INSERT INTO reconciler.users (name) SELECT 'user ' || g FROM generate_series(0, 99999) g;
INSERT INTO reconciler.subscriptions (user_id, starts_at, expires_at, traffic_limit_bytes, revoked_at)
  SELECT id, now() - interval '400 days',
         now() + CASE WHEN n < 50 THEN interval '90 days' WHEN n < 60 THEN interval '36 hours'
                      WHEN n < 70 THEN interval '5 days' WHEN n < 80 THEN interval '-3 days'
                      ELSE interval '20 days' END + n * interval '1 second',
         CASE WHEN n BETWEEN 80 AND 84 THEN 100 WHEN n < 5 THEN 1000 END,
         CASE WHEN n BETWEEN 85 AND 89 THEN now() END
    FROM (SELECT id, (id - 1) % 100 AS n FROM reconciler.users) u WHERE n < 95;
INSERT INTO reconciler.keys (subscription_id, credential)
  SELECT id, gen_random_uuid() FROM reconciler.subscriptions ORDER BY id;
INSERT INTO reconciler.usage (key_id, up_bytes, down_bytes) SELECT id, 60, 60 FROM reconciler.keys;
ANALYZE reconciler.users, reconciler.subscriptions, reconciler.keys, reconciler.usage;
"""
EXPECTED = {
    "active": 55_000,
    "expiring_in_7d": 20_000,
    "expired": 10_000,
    "revoked": 5_000,
    "over_quota": 5_000,
    "no_subscription": 5_000,
}


async def whole_reads(connection: Connection) -> int:
    """Count how often this transaction has read all subscriptions."""
    cursor = await connection.execute(
        "SELECT seq_scan FROM pg_stat_xact_user_tables"
        " WHERE schemaname = 'reconciler' AND relname = 'subscriptions'"
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def test_every_question_of_the_day_is_answered_among_100_000(database, cli):
    async with await database.connect() as root:
        await root.execute(FILL.encode())

    async with await database.connect("writer") as shop:
        assert await buckets.totals(shop) == EXPECTED
        for bucket, number in EXPECTED.items():
            found = await buckets.users(shop, [bucket], limit=USERS)
            assert (len(found), {row.bucket for row in found}) == (number, {bucket})
        assert len(await buckets.users(shop, limit=USERS)) == USERS

        async with shop.transaction():
            soon = await buckets.ending(shop, 3, limit=USERS)
            first = await buckets.ending(shop, 3, limit=100, offset=200)
            assert await whole_reads(shop) == 0
        assert len(soon) == 10_000
        assert soon == sorted(soon, key=lambda row: (row.expires_at, row.subscription_id))
        assert first == soon[200:300]
        assert len(await buckets.ending(shop, 7, limit=USERS)) == 20_000

    said = await cli(
        "user", "list", "--bucket", "active", "--bucket", "expiring_in_7d", "--limit", "100000", "--json"
    )
    assert len(said.document["subscriptions"]) == 75_000
    page = await cli("user", "list", "--within", "3", "--limit", "2", "--offset", "4")
    assert "there may be more: --offset 6" in page.out
    counted = await cli("user", "totals", "--json")
    assert counted.document == {"totals": EXPECTED}
    assert "55,000" in (await cli("user", "totals")).out


async def test_what_cannot_be_asked_is_told_with_its_bound(cli, database):
    for words, said in (
        (("--within", "0"), "days = 0: a whole number from 1 to 3660"),
        (("--within", "-3"), "days = -3"),
        (("--within", str(2**70)), "a whole number from 1 to 3660"),
        (("--limit", "0"), "limit = 0: a whole number from 1"),
        (("--offset", "-1"), "offset = -1: a whole number from 0"),
        (("--offset", str(2**63)), "a whole number from 0"),
    ):
        refused = await cli("user", "list", *words)
        assert (refused.code, said in refused.err) == (1, True), refused.err
    for usage in (("--bucket", "happy"), ("--within", "x"), ("--within", "3", "--bucket", "active")):
        assert (await cli("user", "list", *usage)).code == 64
    assert (await cli("user", "list", "--within", "3")).out == "there is none\n"
    async with await database.connect("reader") as reader:
        assert set((await buckets.totals(reader)).values()) == {0}
        with pytest.raises(Invalid, match="bucket = 'happy': one of active, "):
            await buckets.users(reader, ["happy"])
