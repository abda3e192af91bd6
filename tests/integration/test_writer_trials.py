"""A trial, which a person can have only once, whoever writes it."""

import asyncio

import psycopg
import pytest

from reconciler.db import migrate as migrations
from reconciler.desired.terms import Receipt, Term
from reconciler.desired.writer import Writer
from reconciler.errors import Taken
from tests.parts_writer import MONTH, counts

DAY = Term(days=1)
TRIAL = Receipt(kind="trial")
ALREADY = "trial 'of this person, who has one in a life,' exists already"


async def test_a_second_trial_is_refused_and_nothing_is_left_of_it(writer, connection, user_id):
    first = await writer.grant(user_id, DAY, receipt=TRIAL)
    with pytest.raises(Taken) as caught:
        await writer.grant(user_id, DAY, receipt=TRIAL)
    with pytest.raises(Taken):
        await writer.extend(first.subscription_id, 1, TRIAL)
    assert str(caught.value) == ALREADY
    assert await counts(connection) == (1, 1, 1)

    await writer.grant(user_id, MONTH)
    other = await writer.add_user("Boris", 4_712)
    await writer.grant(other.user_id, DAY, receipt=TRIAL)
    assert await counts(connection) == (3, 3, 3)


async def test_the_same_write_again_is_no_second_trial(writer, user_id):
    receipt = Receipt(kind="trial", external_id="trial-4711")
    first = await writer.grant(user_id, DAY, receipt=receipt)
    again = await writer.grant(user_id, DAY, receipt=receipt)
    assert (again.subscription_id, again.repeated) == (first.subscription_id, True)


@pytest.mark.parametrize("role", ["writer", "operator", None])
async def test_raw_sql_gets_no_second_trial_either(database, writer, user_id, role):
    granted = await writer.grant(user_id, MONTH)
    async with await database.connect(role) as connection:
        trial = (
            "INSERT INTO reconciler.grants (subscription_id, kind, actor, resulting_expires_at{})"
            " VALUES (%s, 'trial', 'psql', now(){})"
        )
        await connection.execute(trial.format("", "").encode(), (granted.subscription_id,))
        refused = [trial.format("", "")]
        if role != "writer":  # who may name the column is not believed
            refused += [trial.format(", trial_user_id", ", NULL"), trial.format(", trial_user_id", ", 99")]
        for statement in refused:
            with pytest.raises(psycopg.errors.UniqueViolation, match="grants_one_trial"):
                await connection.execute(statement.encode(), (granted.subscription_id,))


async def test_a_thousand_tries_at_once_give_one(database, connection, user_id):
    tries = asyncio.Queue[int]()
    for number in range(1_000):
        tries.put_nowait(number)
    given: list[int] = []

    async def insist() -> None:
        async with await database.connect("writer") as mine:
            shop = Writer(mine, "a shop")
            while not tries.empty():
                number = tries.get_nowait()
                try:
                    given.append((await shop.grant(user_id, DAY, receipt=TRIAL)).subscription_id)
                except Taken as error:
                    assert str(error) == ALREADY, number  # noqa: PT017 - most of them end here

    await asyncio.gather(*(insist() for _ in range(50)))

    assert len(given) == 1
    assert await counts(connection) == (1, 1, 1)


async def test_of_the_trials_that_a_person_has_had_before_the_first_counts(empty_database, monkeypatch):
    (trials,) = (each for each in migrations.MIGRATIONS if each.name == "trials")
    with monkeypatch.context() as patch:
        before = tuple(each for each in migrations.MIGRATIONS if each.number < trials.number)
        patch.setattr(migrations, "MIGRATIONS", before)
        await migrations.migrate(empty_database.dsn, "test", lambda _: None)
    async with await empty_database.connect() as root:
        await root.execute("""
            INSERT INTO reconciler.users (name) VALUES ('Anna'), ('Boris');
            INSERT INTO reconciler.subscriptions (user_id, expires_at)
              SELECT id, now() + interval '1 day' FROM (VALUES (1), (1), (2)) AS had (id);
            INSERT INTO reconciler.grants (subscription_id, kind, actor, resulting_expires_at)
              VALUES (1, 'gift', 'a', now()), (1, 'trial', 'a', now()), (2, 'trial', 'a', now()),
                     (3, 'trial', 'a', now());
        """)
        await migrations.migrate(empty_database.dsn, "test", lambda _: None)
        cursor = await root.execute("SELECT id, trial_user_id FROM reconciler.grants ORDER BY id")
        assert await cursor.fetchall() == [(1, None), (2, 1), (3, None), (4, 2)]
        with pytest.raises(psycopg.errors.RaiseException, match="history stays"):
            await root.execute("UPDATE reconciler.grants SET note = 'other'")
