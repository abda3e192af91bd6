"""One statement ends no more than a tenth of what is in force, unless its transaction says how many."""

import psycopg
import pytest

from tests.parts_postgres import Database
from tests.rows import Connection, one

ENDS = {
    "revoked": "UPDATE reconciler.subscriptions SET revoked_at = now() WHERE id <= {}",
    "ended now": "UPDATE reconciler.subscriptions SET expires_at = now() WHERE id <= {}",
    "shortened": "UPDATE reconciler.subscriptions SET expires_at = expires_at - interval '1h' WHERE id <= {}",
    "put off": "UPDATE reconciler.subscriptions SET starts_at = now() + interval '1 hour' WHERE id <= {}",
    "over a new limit": "UPDATE reconciler.subscriptions SET traffic_limit_bytes = 100 WHERE id <= {}",
    "keys revoked": "UPDATE reconciler.keys SET revoked_at = now() WHERE id <= {}",
    "by an upsert": (
        "INSERT INTO reconciler.subscriptions (id, user_id, starts_at, expires_at) OVERRIDING SYSTEM VALUE"
        " SELECT id, user_id, starts_at, now() FROM reconciler.subscriptions WHERE id <= {}"
        " ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at"
    ),
}
MEANT = {
    "extended": "UPDATE reconciler.subscriptions SET expires_at = expires_at + interval '1 day'",
    "limit above what is used": "UPDATE reconciler.subscriptions SET traffic_limit_bytes = 1000",
    "limit taken away": "UPDATE reconciler.subscriptions SET traffic_limit_bytes = NULL",
    "renamed": "UPDATE reconciler.subscriptions SET plan = 'gold'",
    "other credentials": "UPDATE reconciler.keys SET credential = gen_random_uuid()",
}


async def fill(connection: Connection, number: int) -> None:
    """Write so many keys with a subscription each that is in force and has used 100 bytes."""
    await connection.execute("INSERT INTO reconciler.users (name) VALUES ('somebody')")
    await connection.execute(
        "INSERT INTO reconciler.subscriptions (user_id, starts_at, expires_at)"
        " SELECT 1, now() - interval '9 days', now() + interval '9 days' FROM generate_series(1, %s)",
        (number,),
    )
    await connection.execute(
        "INSERT INTO reconciler.keys (subscription_id, credential)"
        " SELECT id, gen_random_uuid() FROM reconciler.subscriptions ORDER BY id"
    )
    await connection.execute(
        "INSERT INTO reconciler.usage (key_id, up_bytes) SELECT id, 100 FROM reconciler.keys"
    )


async def dead(connection: Connection) -> int:
    """Count what is not in force."""
    found: int = await one(
        connection,
        "SELECT count(*) FROM reconciler.keys k JOIN reconciler.subscription_state s USING (subscription_id)"
        " WHERE k.revoked_at IS NOT NULL OR s.bucket NOT IN ('active', 'expiring_in_7d')"
        " OR s.starts_at > now() OR s.expires_at < now() + interval '9 days' - interval '59 min'",
    )
    return found


async def refused(connection: Connection, statement: str) -> str:
    with pytest.raises(psycopg.errors.RaiseException) as caught:
        await connection.execute(statement.encode())
    return caught.value.diag.message_primary or ""


async def as_root(database: Database) -> Connection:
    """A superuser's connection that says nothing by itself, as psql's."""
    root = await database.connect()
    await root.execute("SET reconciler.may_end = ''")
    return root


@pytest.mark.parametrize("case", ENDS)
async def test_more_than_a_tenth_in_one_statement_is_refused_and_a_tenth_is_not(database, case):
    async with await as_root(database) as root:
        await fill(root, 200)

        said = await refused(root, ENDS[case].format(21))
        assert await dead(root) == 0
        await root.execute(ENDS[case].format(20).encode())

        what = "keys" if case == "keys revoked" else "subscriptions"
        assert said == (
            f"one statement would end 21 of 200 {what} in force, and 20 are let through; if that is meant,"
            " say so in its transaction: BEGIN; SET LOCAL reconciler.may_end = 21; …; COMMIT;"
        )
        assert await dead(root) == 20


@pytest.mark.parametrize("case", MEANT)
async def test_what_ends_nothing_may_touch_all(database, case):
    async with await as_root(database) as root:
        await fill(root, 30)
        await root.execute(MEANT[case].encode())


async def test_ten_are_always_let_through(database):
    async with await as_root(database) as root:
        await fill(root, 12)
        assert "would end 11 of 12" in await refused(root, ENDS["revoked"].format(11))
        await root.execute(ENDS["revoked"].format(10).encode())


async def test_what_was_over_before_does_not_count(database):
    async with await as_root(database) as root:
        await fill(root, 200)
        for start in range(0, 100, 10):
            await root.execute(
                "UPDATE reconciler.subscriptions SET expires_at = now() WHERE id > %s AND id <= %s",
                (start, start + 10),
            )
        await root.execute("UPDATE reconciler.subscriptions SET revoked_at = now() WHERE id <= 110")
        assert "would end 11 of 90" in await refused(root, ENDS["revoked"].format(121))
        assert "would end 90 of 90 keys" in await refused(root, ENDS["keys revoked"].format(200))


async def test_reopening_as_many_hides_no_ends(database):
    async with await as_root(database) as root:
        await fill(root, 60)
        for start in (0, 10, 20):
            await root.execute(
                "UPDATE reconciler.subscriptions SET revoked_at = now() WHERE id > %s AND id <= %s",
                (start, start + 10),
            )
        swap = "UPDATE reconciler.subscriptions SET revoked_at = CASE WHEN revoked_at IS NULL THEN now() END"
        assert "would end 30 of 30" in await refused(root, swap)


@pytest.mark.parametrize("role", ["writer", "operator"])
async def test_no_role_ends_many_by_accident_and_each_may_say_so(database, role):
    async with await as_root(database) as root:
        await fill(root, 40)
        async with await database.connect(role) as connection:
            for case in ("revoked", "ended now", "over a new limit", "keys revoked"):
                assert "would end 40 of 40" in await refused(connection, ENDS[case].format(40))
            async with connection.transaction():
                await connection.execute("SET LOCAL reconciler.may_end = 40")
                await connection.execute(ENDS["keys revoked"].format(40).encode())
            assert await dead(root) == 40
            assert "would end 40 of 40" in await refused(connection, ENDS["revoked"].format(40))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("39", "would end 40 of 40"),
        ("0", "would end 40 of 40"),
        ("-1", "reconciler.may_end = -1: a whole number"),
        ("on", "reconciler.may_end = on: a whole number"),
        ("9" * 30, "a whole number"),
    ],
)
async def test_a_word_that_does_not_cover_it_is_refused_as_well(database, word, said):
    async with await as_root(database) as root:
        await fill(root, 40)
        await root.execute("SELECT set_config('reconciler.may_end', %s, false)", (word,))
        assert said in await refused(root, ENDS["revoked"].format(40))
        assert await dead(root) == 0
