"""100,000 users with counters on one node: what a reading writes, and that others get their turn."""

import asyncio
import time

from reconciler.db.pool import open_pool
from reconciler.model import Vitals
from reconciler.plan.counting import Counts, Remembered
from reconciler.status.lease import Leases
from reconciler.status.usage import BATCH, Added, Taken, Usage
from tests.accounting import OURS, remember
from tests.parts_postgres import Database
from tests.rows import Connection, add, add_node, one

KEYS = 100_000
LIMIT = 1_000


async def fill(sql: Connection) -> int:
    """A node with so many keys, each of a subscription of its own with a limit."""
    node_id = await add_node(sql, "fra-1")
    user_id = await add(sql, "users", name="somebody")
    await sql.execute("UPDATE reconciler.nodes SET created_at = now() - interval '9 days'")
    await sql.execute(
        "WITH sold AS (INSERT INTO reconciler.subscriptions (user_id, expires_at, traffic_limit_bytes)"
        " SELECT %s, now() + interval '9 days', %s FROM generate_series(1, %s) RETURNING id)"
        " INSERT INTO reconciler.keys (subscription_id, credential) SELECT id, gen_random_uuid() FROM sold",
        (user_id, LIMIT, KEYS),
    )
    await sql.execute(
        "INSERT INTO reconciler.placements (key_id, node_id, reason)"
        " SELECT id, %s, 'a test' FROM reconciler.keys",
        (node_id,),
    )
    return node_id


async def written(sql: Connection, table: str, since: object) -> object:
    """How many rows were written by transactions from this one on."""
    return await one(
        sql, f"SELECT count(*) FROM reconciler.{table} WHERE xmin::text::bigint >= %s::text::bigint", since
    )


async def test_only_what_changed_is_written_and_others_get_their_turn(database: Database):
    async with await database.connect() as sql:
        node_id = await fill(sql)
        pool = await open_pool(database.dsn_as("daemon"), 2)
        leases = Leases(pool, "test", time.monotonic, ttl_seconds=300, margin_seconds=1)
        await leases.keep({node_id: "fra-1"})
        first = await one(sql, "SELECT min(id) FROM reconciler.keys")
        assert isinstance(first, int)
        keys = range(first, first + KEYS)
        counts = Counts(OURS, dict.fromkeys(keys, 100), dict.fromkeys(keys, 200))
        turns = 0

        async def other_work() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.001)

        async def read(last: Remembered | None) -> Added:
            taken = Taken(counts, Vitals(50, 50, 50), time.time(), time.monotonic())
            return await Usage(pool, time.monotonic).add(leases.held[node_id], taken, last)

        other = asyncio.create_task(other_work())
        added = await read(None)
        assert (added.up_bytes, added.down_bytes, added.crossed) == (100 * KEYS, 200 * KEYS, {})
        assert turns > KEYS // BATCH
        last = remember(added.boot, counts)

        now = await one(sql, "SELECT pg_current_xact_id()")
        await read(last)
        assert await written(sql, "usage_checkpoints", now) == 0
        assert await written(sql, "usage", now) == 0

        for key_id in keys[::100]:
            counts.up[key_id] += 700
        now = await one(sql, "SELECT pg_current_xact_id()")
        added = await read(last)
        other.cancel()
        assert added.up_bytes == 700 * KEYS // 100
        assert len(added.crossed) == KEYS // 100
        assert await written(sql, "usage_checkpoints", now) == KEYS // 100
        assert await written(sql, "usage", now) == KEYS // 100
        await pool.close()
