"""Keys and their credentials, with the rights of the bot."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from reconciler.desired import look
from reconciler.desired.keys import NewKey
from reconciler.desired.terms import Term
from reconciler.desired.writer import Operator, Writer
from reconciler.errors import Invalid, Taken
from tests.parts_writer import CLASH, FIRST, MONTH, OTHER, counts


async def test_a_credential_that_clashes_when_masked_is_taken_and_nothing_is_left_behind(
    writer, connection, user_id
):
    await writer.grant(user_id, MONTH, NewKey(credential=FIRST))
    for clash in (FIRST, CLASH):
        with pytest.raises(Taken) as caught:
            await writer.grant(user_id, MONTH, NewKey(credential=clash))
        assert clash[:8] not in str(caught.value)
        assert caught.value.__cause__ is None
    await writer.grant(user_id, MONTH, NewKey(credential=OTHER))

    assert await counts(connection) == (2, 2, 2)


async def test_a_key_is_added_rotated_and_ended(writer, connection, user_id, granted):
    added = await writer.add_key(granted.subscription_id, NewKey(credential=FIRST))
    assert (await look.credential(connection, added)).text() == FIRST
    await writer.rotate(added, OTHER)
    await writer.rotate(added, OTHER)
    assert (await look.credential(connection, added)).text() == OTHER
    await writer.rotate(added)
    assert (await look.credential(connection, added)).text() != OTHER

    assert await writer.revoke_key(added)
    assert not await writer.revoke_key(added)
    with pytest.raises(Invalid, match="revoked"):
        await writer.rotate(added)
    assert [key.revoked for key in await look.keys(connection, user_id)] == [False, True]


async def test_a_rotation_to_a_credential_that_clashes_is_taken(writer, connection, user_id, granted):
    await writer.grant(user_id, MONTH, NewKey(credential=FIRST))
    before = await look.credential(connection, granted.key_id)

    with pytest.raises(Taken) as caught:
        await writer.rotate(granted.key_id, CLASH)

    assert CLASH[:8] not in str(caught.value)
    assert await look.credential(connection, granted.key_id) == before


async def test_the_credentials_of_chance_come_from_the_given_source(connection, user_id):
    writer = Writer(connection, "test", new_credential=lambda: UUID(FIRST))
    granted = await writer.grant(user_id, MONTH)

    assert (await look.credential(connection, granted.key_id)).text() == FIRST
    with pytest.raises(Taken):
        await writer.grant(user_id, MONTH)


async def test_a_constraint_speaks_in_our_words_and_without_the_row(database, writer, user_id):
    """Another shop's own constraint stands for every one that the checks in Python do not know."""
    async with await database.connect() as superuser:
        await superuser.execute("ALTER TABLE reconciler.keys ADD CONSTRAINT theirs CHECK (pool <> 'theirs')")
    with pytest.raises(Invalid, match="theirs") as caught:
        await writer.grant(user_id, MONTH, NewKey(credential=FIRST, pool="theirs"))

    assert FIRST[:8] not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_an_import_that_broke_off_is_run_again(database, user_id):
    until = Term(until=datetime(2035, 5, 1, tzinfo=UTC))
    async with await database.connect("operator") as connection:
        operator = Operator(connection, "root")
        first = await operator.import_key(user_id, NewKey(credential=FIRST), until)
        again = await operator.import_key(user_id, NewKey(credential=FIRST), until)
        assert (again.key_id, first.repeated, again.repeated) == (first.key_id, False, True)
        assert await counts(connection) == (1, 1, 1)
        (line,) = await look.grants(connection, first.subscription_id)
        assert line.kind == "import"

        other = await operator.add_user("Ivan", 4_712)
        for user, credential in ((user_id, CLASH), (other.user_id, FIRST)):
            with pytest.raises(Taken, match="credential"):
                await operator.import_key(user, NewKey(credential=credential), until)
        with pytest.raises(Invalid, match="credential"):
            await operator.import_key(user_id, NewKey(), until)
