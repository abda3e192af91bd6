"""How many keys each node holds a place for: kept by the database, whoever writes, however many at once."""

import asyncio
import random

import psycopg
import pytest

from reconciler.desired.writer import Operator
from tests.placing import grant, node, place_rows


@pytest.fixture
async def keys(root):
    """Two hundred keys, and three nodes of which none has any."""
    for name in ("fra-1", "fra-2", "fra-3"):
        await node(Operator(root, "root"), name)
    return await grant(root, 200)


async def counted(root) -> dict[int, int]:
    cursor = await root.execute(
        "SELECT node_id, sum(live) FROM reconciler.placement_counts GROUP BY 1 HAVING sum(live) <> 0"
    )
    return dict(await cursor.fetchall())


async def true(root) -> dict[int, int]:
    cursor = await root.execute(
        "SELECT node_id, count(*) FROM reconciler.placements WHERE ended_at IS NULL GROUP BY 1"
    )
    return dict(await cursor.fetchall())


async def place_by_hand(connection, node_id: int, keys: list[int]) -> None:
    await connection.execute(
        "INSERT INTO reconciler.placements (key_id, node_id, reason)"
        " SELECT unnest(%s::bigint[]), %s, 'a test' ON CONFLICT DO NOTHING",
        (keys, node_id),
    )


async def test_what_operators_write_is_counted(root, keys, database):
    async with await database.connect("operator") as operator:
        await place_by_hand(operator, 1, keys)
        await place_by_hand(operator, 2, keys[:50])
        await operator.execute(
            "INSERT INTO reconciler.placements (key_id, node_id, reason, ended_at)"
            " VALUES (%s, 3, 'a test', now())",
            (keys[0],),
        )
        assert await counted(root) == {1: 200, 2: 50}
        await operator.execute(
            "UPDATE reconciler.placements SET ended_at = now() WHERE key_id = %s", (keys[0],)
        )
        await operator.execute("UPDATE reconciler.placements SET reason = 'another'")
        await operator.execute("UPDATE reconciler.placements SET ended_at = now() WHERE ended_at IS NOT NULL")
        assert await counted(root) == {1: 199, 2: 49}
        await operator.execute(
            "UPDATE reconciler.placements SET node_id = 3 WHERE node_id = 2 AND ended_at IS NULL"
        )
        await operator.execute("UPDATE reconciler.placements SET ended_at = NULL WHERE node_id = 1")

    assert await counted(root) == await true(root) == {1: 200, 3: 49}


async def test_what_is_rolled_back_is_not_counted(root, keys):
    async with root.transaction(force_rollback=True):
        await place_by_hand(root, 1, keys)
        assert await counted(root) == {1: 200}

    assert await counted(root) == {}


async def test_a_writer_that_holds_its_transaction_open_holds_up_no_new_key(root, keys, database):
    async with await database.connect("operator") as operator, await database.connect("daemon") as daemon:
        await place_by_hand(operator, 1, keys[:1])
        async with operator.transaction():
            for node_id in (1, 2, 3):
                await place_by_hand(operator, node_id, keys[1:3])

            async with asyncio.timeout(10):
                assert await place_rows(daemon, keys[3:]) == (197, {})

    assert await counted(root) == await true(root)
    assert sum((await true(root)).values()) == 204


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
async def test_many_writers_at_once_lose_no_count(root, keys, database, level):
    chance = random.Random(7)

    async def writer(own: list[int]) -> None:
        async with await database.connect("operator") as operator:
            await operator.execute(f"SET default_transaction_isolation = '{level}'".encode())
            for key in own:
                while True:
                    try:
                        await place_by_hand(operator, chance.randint(1, 3), [key])
                        if chance.random() < 0.3:
                            await operator.execute(
                                "UPDATE reconciler.placements SET ended_at = now() WHERE key_id = %s", (key,)
                            )
                    except psycopg.errors.SerializationFailure:
                        continue
                    break

    async def daemon() -> None:
        async with await database.connect("daemon") as connection:
            await place_rows(connection, keys[100:])

    await asyncio.gather(*(writer(keys[start:100:8]) for start in range(8)), daemon(), daemon())

    assert await counted(root) == await true(root)
    ((rows,),) = await (await root.execute("SELECT count(*) FROM reconciler.placement_counts")).fetchall()
    if level == "read committed":
        assert rows <= 3 * 10


async def test_what_was_loaded_with_triggers_off_is_counted_when_asked_once_and_while_others_write(
    root, keys, database
):
    await place_by_hand(root, 1, keys[:20])
    await root.execute("SET session_replication_role = replica")
    await place_by_hand(root, 2, keys[:90])
    await root.execute(
        "UPDATE reconciler.placements SET ended_at = now() WHERE key_id = ANY(%s)", (keys[:5],)
    )
    await root.execute("RESET session_replication_role")
    assert await counted(root) == {1: 20}

    async def recount() -> int:
        async with await database.connect("operator") as operator:
            cursor = await operator.execute("SELECT reconciler.recount_placements()")
            ((wrong,),) = await cursor.fetchall()
            return int(wrong)

    async def place_one_by_one() -> None:
        async with await database.connect("operator") as operator:
            for key in keys[100:]:
                await place_by_hand(operator, 2, [key])

    writing = asyncio.create_task(place_one_by_one())
    found = await asyncio.gather(*(recount() for _ in range(4)))
    await writing

    assert sorted(found) == [0, 0, 0, 90]
    assert await counted(root) == await true(root) == {1: 15, 2: 185}


async def test_a_recount_that_could_not_see_another_one_is_refused(root):
    async with root.transaction(force_rollback=True):
        await root.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with pytest.raises(psycopg.errors.RaiseException, match="READ COMMITTED"):
            await root.execute("SELECT reconciler.recount_placements()")
