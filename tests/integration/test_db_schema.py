import psycopg

from tests.schema_dump import SCHEMA, dump


async def test_the_reference_equals_what_all_migrations_add_up_to(database, empty_database):
    async with await psycopg.AsyncConnection.connect(empty_database.dsn) as connection:
        await connection.execute(SCHEMA.read_bytes())

    assert dump(empty_database.dsn) == dump(database.dsn)


async def test_a_difference_of_one_right_would_show(database):
    before = dump(database.dsn)
    async with await database.connect() as connection:
        await connection.execute("GRANT DELETE ON reconciler.keys TO reconciler_writer")

    assert dump(database.dsn) != before
