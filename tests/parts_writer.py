"""A shop for tests: a writer with the rights of the bot, one customer, and what is counted of them."""

from typing import Any, LiteralString

import pytest

from reconciler.db.pool import Connection
from reconciler.desired.terms import Term
from reconciler.desired.writer import Writer

FIRST = "5ec2e7aa-0c1d-4b2e-9f3a-0123456789ab"
CLASH = "5ec2e7aa-0c1d-ffff-9f3a-0123456789ab"
OTHER = "5ec2e7aa-0c1d-4b2e-9f3a-0123456789ac"
MONTH = Term(days=30)


@pytest.fixture
async def connection(database):
    """A connection with the rights of the bot."""
    async with await database.connect("writer") as connection:
        yield connection


@pytest.fixture
def writer(connection):
    return Writer(connection, "telegram:1")


@pytest.fixture
async def user_id(writer):
    return (await writer.add_user("Olga", 4_711)).user_id


@pytest.fixture
async def granted(writer, user_id):
    return await writer.grant(user_id, MONTH)


async def one(connection: Connection, query: LiteralString) -> tuple[Any, ...]:
    """Return the first row, which there is."""
    row = await (await connection.execute(query)).fetchone()
    assert row is not None
    return row


async def counts(connection: Connection) -> tuple[Any, ...]:
    """Count subscriptions, keys and grants."""
    return await one(
        connection,
        "SELECT (SELECT count(*) FROM reconciler.subscriptions), (SELECT count(*) FROM reconciler.keys),"
        " (SELECT count(*) FROM reconciler.grants)",
    )
