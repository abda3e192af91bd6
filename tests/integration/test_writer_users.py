"""Users, as bot and operator write them."""

import asyncio

import pytest

from reconciler.desired import buckets
from reconciler.desired.users import User
from reconciler.desired.writer import Operator, Writer
from reconciler.errors import Invalid, RightsMissing, StoreError, Unknown


async def test_the_same_telegram_account_is_the_same_user(writer):
    first = await writer.add_user("  Ольга ", 4_711)
    again = await writer.add_user("Olga", 4_711)

    assert again == first
    assert (first.name, first.telegram_id, first.role) == ("Ольга", 4_711, "user")


async def test_ten_callers_at_once_make_one_user(database):
    async def add() -> User:
        async with await database.connect("writer") as connection:
            return await Writer(connection, "bot").add_user("Olga", 4_711)

    users = await asyncio.gather(*(add() for _ in range(10)))

    assert len(set(users)) == 1


async def test_without_a_telegram_account_names_are_no_identity(writer):
    first = await writer.add_user("Olga")
    second = await writer.add_user("Olga")

    assert first.user_id != second.user_id


@pytest.mark.parametrize(
    ("name", "telegram_id"), [("", None), ("a\x00", None), ("a", 0), ("a", -5), ("a", 2**63)]
)
async def test_a_user_that_makes_no_sense_is_refused(writer, connection, name, telegram_id):
    with pytest.raises(Invalid):
        await writer.add_user(name, telegram_id)

    assert await buckets.users(connection) == []


async def test_a_user_is_found_by_id_telegram_id_or_whole_name(writer):
    user = await writer.add_user("Olga", 4_711)
    await writer.add_user("Olga Petrova", 4_712)

    for text in (
        str(user.user_id),
        "4711",
        "Olga",
        f"id:{user.user_id}",
        f"user:{user.user_id}",
        "telegram:4711",
        "name:Olga",
    ):
        assert await writer.find_user(text) == user


async def test_a_text_that_several_users_answer_to_is_refused_with_their_ids(writer):
    first = await writer.add_user("Olga")
    second = await writer.add_user(str(first.user_id))

    with pytest.raises(Invalid, match=f"user:{first.user_id}, user:{second.user_id}"):
        await writer.find_user(str(first.user_id))
    assert await writer.find_user(f"id:{first.user_id}") == first
    assert await writer.find_user(f"name:{first.user_id}") == second


@pytest.mark.parametrize(
    "text", ["", "Ol", "olga", "99", "99999999999999999999", "id:Olga", "\0", "\N{ARABIC-INDIC DIGIT ONE}"]
)
async def test_a_text_that_nobody_answers_to_is_unknown(writer, text):
    await writer.add_user("Olga", 4_711)

    with pytest.raises(Unknown, match="user"):
        await writer.find_user(text)


async def test_only_an_operator_sets_a_role(database, writer, connection):
    user = await writer.add_user("Olga", 4_711)
    with pytest.raises(RightsMissing):
        await Operator(connection, "bot").set_role(user.user_id, "admin")

    async with await database.connect("operator") as other:
        operator = Operator(other, "root")
        await operator.set_role(user.user_id, "admin")
        with pytest.raises(Invalid, match="role"):
            await operator.set_role(user.user_id, "owner")
        with pytest.raises(Unknown, match="user"):
            await operator.set_role(user.user_id + 1, "admin")

    assert (await writer.find_user("Olga")).role == "admin"


async def test_a_write_inside_a_foreign_transaction_is_refused(writer, connection):
    async with connection.transaction():
        await connection.execute("SELECT 1")
        with pytest.raises(StoreError, match="transaction"):
            await writer.add_user("Olga")


async def test_an_actor_without_a_name_is_refused(connection):
    with pytest.raises(Invalid, match="actor"):
        Writer(connection, " ")
