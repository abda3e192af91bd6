async def test_a_fresh_database_carries_the_given_mark(database):
    async with await database.connect() as connection:
        cursor = await connection.execute("SELECT owner FROM reconciler.source")
        assert await cursor.fetchall() == [("test",)]
