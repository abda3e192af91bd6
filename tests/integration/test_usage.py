"""G7 on real PostgreSQL: what is counted, whatever happens between the node and the commit."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from reconciler.db.pool import Pool, open_pool
from reconciler.errors import LeaseLost, StoreError
from reconciler.model import Vitals
from reconciler.plan.counting import GREATEST_BYTES, Counts
from reconciler.status.lease import Lease, Leases
from reconciler.status.usage import Added, Taken, Usage
from tests.accounting import KINDS, OURS, Event, History, Totals
from tests.accounting import Taken as Read
from tests.parts_postgres import Database
from tests.rows import Connection, add_key, add_node, add_subscription, one, place

DAY = 86_400.0


@dataclass
class Books:
    """The daemon's side of one node's accounts, beside a superuser who looks into them."""

    sql: Connection
    pool: Pool
    leases: Leases
    node_id: int
    keys: list[int]

    @property
    def lease(self) -> Lease:
        return self.leases.held[self.node_id]

    async def totals(self) -> Totals:
        cursor = await self.sql.execute("SELECT key_id, up_bytes, down_bytes FROM reconciler.usage")
        return {key_id: (up, down) async for key_id, up, down in cursor if up or down}

    async def checkpoints(self, column: str = "last_bytes") -> list[int]:
        cursor = await self.sql.execute(
            f"SELECT {column} FROM reconciler.usage_checkpoints ORDER BY node_id, boot, key_id, direction"
        )
        return [value for (value,) in await cursor.fetchall()]

    async def add(self, up: dict[int, int], uptime: int = 1_000, allocations: int = 1_000) -> Added:
        """Count a reading taken just now, of nothing but uploads."""
        taken = Taken(Counts(OURS, up), Vitals(uptime, allocations, allocations), time.time(), time.time())
        return await Usage(self.pool, time.time).add(self.lease, taken, None)


@pytest.fixture
async def books(database: Database) -> AsyncIterator[Books]:
    async with await database.connect() as sql:
        node_id = await add_node(sql, "fra-1")
        await sql.execute("UPDATE reconciler.nodes SET created_at = now() - interval '300 days'")
        keys = [await add_key(sql) for _ in range(3)]
        for key_id in keys:
            await place(sql, key_id, node_id)
        pool = await open_pool(database.dsn_as("daemon"), 4)
        leases = Leases(pool, "test", time.monotonic, ttl_seconds=60, margin_seconds=1)
        await leases.keep({node_id: "fra-1"})
        yield Books(sql, pool, leases, node_id, keys)
        await pool.close()


def drawn(seed: int) -> list[Event]:
    chance = random.Random(seed)
    kinds = [kind for kind in KINDS if kind != "sleep"]
    return [
        Event(chance.choice(kinds), chance.uniform(0.01, 90), chance.randint(1, 3), chance.randrange(10**6))
        for _ in range(40)
    ]


@pytest.mark.parametrize("seed", range(12))
async def test_every_byte_is_counted_once_whatever_goes_wrong(books: Books, seed: int):
    """The history takes place in the last ten days; what it says of its clocks is said to the transaction."""
    began = time.time() - 10 * DAY
    history, usage = History(apart=True, baseline=False), Usage(books.pool, time.time)

    async def commit(taken: Read) -> None:
        at = began + taken.at
        # Two at once, as when a daemon that was thought dead goes on: one of them waits, and adds nothing.
        reading = Taken(taken.counts, taken.vitals, at, at)
        first, _ = await asyncio.gather(*(usage.add(books.lease, reading, history.last) for _ in range(2)))
        history.committed(taken, first.boot)

    for event in drawn(seed):
        for taken in history.play(event):
            await commit(taken)

    assert history.truth.totals()
    assert await books.totals() == history.truth.totals()


async def test_a_reading_that_breaks_off_before_its_commit_has_counted_nothing(books: Books):
    key_id = books.keys[0]
    await books.add({key_id: 100})
    await books.sql.execute("ALTER TABLE reconciler.node_usage ADD CONSTRAINT broken CHECK (up_bytes < 150)")

    with pytest.raises(StoreError):
        await books.add({key_id: 400})

    assert await books.totals() == {key_id: (100, 0)}
    assert await books.checkpoints() == [100]
    await books.sql.execute("ALTER TABLE reconciler.node_usage DROP CONSTRAINT broken")
    await books.add({key_id: 400})
    assert await books.totals() == {key_id: (400, 0)}


async def test_a_holder_that_lost_its_lease_counts_nothing(books: Books):
    await books.sql.execute("UPDATE reconciler.leases SET epoch = epoch + 1")

    with pytest.raises(LeaseLost):
        await books.add({books.keys[0]: 100})

    assert await books.totals() == {}


async def test_the_first_reading_of_a_node_that_ran_before_it_was_registered_counts_nothing(books: Books):
    key_id, other = books.keys[:2]
    await books.sql.execute("UPDATE reconciler.nodes SET created_at = now()")

    await books.add({key_id: 5_000})
    assert (await books.totals(), await books.checkpoints()) == ({}, [5_000])

    await books.add({key_id: 5_300, other: 7}, allocations=1_001)
    assert await books.totals() == {key_id: (300, 0), other: (7, 0)}


async def test_a_counter_that_goes_backwards_adds_nothing_until_it_is_beyond_where_it_was(books: Books):
    key_id = books.keys[0]
    await books.add({key_id: 500})

    assert (await books.add({key_id: 100})).fallen == 1
    assert await books.totals() == {key_id: (500, 0)}
    await books.add({key_id: 550})
    assert await books.totals() == {key_id: (550, 0)}


async def test_a_counter_that_fell_tells_of_a_restart_that_nothing_else_shows(books: Books):
    key_id = books.keys[0]
    await books.sql.execute("UPDATE reconciler.nodes SET created_at = now() - interval '1 hour'")
    taken = Taken(Counts(OURS, {key_id: 500}), Vitals(2, 10, 10), time.time() - 4, time.time() - 4)
    await Usage(books.pool, time.time).add(books.lease, taken, None)

    added = await books.add({key_id: 40}, uptime=3, allocations=11)

    assert (added.boot, added.new_boot, added.fallen) == (2, True, 0)
    assert await books.totals() == {key_id: (540, 0)}


async def test_a_restarted_node_counts_anew(books: Books):
    key_id = books.keys[0]
    await books.add({key_id: 500})

    assert (await books.add({key_id: 40}, uptime=3)).new_boot
    assert await books.totals() == {key_id: (540, 0)}
    ((up, down),) = await (
        await books.sql.execute("SELECT up_bytes, down_bytes FROM reconciler.node_usage")
    ).fetchall()
    assert (up, down) == (540, 0)


async def test_names_without_a_row_and_keys_of_other_nodes_are_not_counted(books: Books):
    stray = await add_key(books.sql)

    added = await books.add({stray: 100, 999_999: 100, books.keys[0]: 1})

    assert added.unexplained == 2
    assert await books.totals() == {books.keys[0]: (1, 0)}


async def test_a_key_that_was_moved_away_is_counted_on_both_nodes(books: Books):
    key_id = books.keys[0]
    await books.sql.execute("UPDATE reconciler.placements SET ended_at = now()")
    other = await add_node(books.sql, "ams-1")
    await books.sql.execute("UPDATE reconciler.nodes SET created_at = now() - interval '300 days'")
    await place(books.sql, key_id, other)
    await books.leases.keep({books.node_id: "fra-1", other: "ams-1"})

    await books.add({key_id: 100})
    taken = Taken(Counts(OURS, {key_id: 30}), Vitals(50, 50, 50), time.time(), time.time())
    await Usage(books.pool, time.time).add(books.leases.held[other], taken, None)

    assert await books.totals() == {key_id: (130, 0)}


async def test_a_sum_beyond_all_bounds_stays_at_the_bound(books: Books):
    key_id = books.keys[0]
    for uptime in (3_000, 2_000, 1_000):
        await books.add({key_id: GREATEST_BYTES - 1}, uptime=uptime)

    assert await books.totals() == {key_id: (GREATEST_BYTES, 0)}
    assert await one(books.sql, "SELECT reconciler.used_bytes(1)") == GREATEST_BYTES


async def test_old_runs_are_forgotten_but_for_the_two_newest(books: Books):
    key_id = books.keys[0]
    for uptime in (9_000, 8_000, 7_000, 6_000):
        await books.add({key_id: 10}, uptime=uptime)
    usage = Usage(books.pool, time.time)
    await usage.forget(books.node_id)
    assert await books.checkpoints("boot") == [1, 2, 3, 4]

    await books.sql.execute("UPDATE reconciler.node_boots SET read_at = now() - interval '8 days'")
    await usage.forget(books.node_id)

    assert await books.checkpoints("boot") == [3, 4]
    assert await books.totals() == {key_id: (40, 0)}


async def limited(books: Books, limit: int, **values: object) -> tuple[int, int]:
    """A subscription with that limit, and a key of it on the node."""
    subscription_id = await add_subscription(books.sql, "30 days", traffic_limit_bytes=limit, **values)
    key_id = await add_key(books.sql, subscription_id)
    await place(books.sql, key_id, books.node_id)
    return subscription_id, key_id


async def test_who_reaches_his_limit_is_told_once(books: Books):
    subscription_id, key_id = await limited(books, 1_000)

    crossed = [[*(await books.add({key_id: used})).crossed] for used in (999, 1_000, 1_001, 5_000)]

    assert crossed == [[], [subscription_id], [], []]


async def test_all_keys_of_a_subscription_count_and_ended_ones_too(books: Books):
    subscription_id, first = await limited(books, 1_000)
    second = await add_key(books.sql, subscription_id)
    await place(books.sql, second, books.node_id)
    await books.add({first: 600})
    await books.sql.execute("UPDATE reconciler.keys SET revoked_at = now() WHERE id = %s", (first,))

    assert (await books.add({first: 700, second: 299})).crossed == {}
    assert (await books.add({first: 700, second: 300})).crossed == {subscription_id: [second]}


async def test_the_limit_is_that_of_the_period(books: Books):
    subscription_id, key_id = await limited(books, 1_000)
    await books.add({key_id: 5_000})
    await books.sql.execute(
        "INSERT INTO reconciler.usage_periods VALUES (%s, now() - interval '1 day', 5000)", (subscription_id,)
    )

    assert (await books.add({key_id: 5_999})).crossed == {}
    assert (await books.add({key_id: 6_000})).crossed == {subscription_id: [key_id]}


async def test_reaching_a_limit_rings_for_the_keys_of_that_subscription_only(
    books: Books, database: Database
):
    subscription_id, key_id = await limited(books, 1_000)
    other = await add_key(books.sql, subscription_id)
    elsewhere = await add_node(books.sql, "ams-1")
    await place(books.sql, other, elsewhere)
    async with await database.connect("daemon") as listening:
        await listening.execute("LISTEN reconciler")
        await books.add({key_id: 999, books.keys[0]: 10**9})
        await books.add({key_id: 1_000})
        await books.add({key_id: 1_001})
        await books.sql.execute("NOTIFY reconciler, 'end'")
        heard = []
        async for bell in listening.notifies(timeout=20):
            heard.append(bell.payload)
            if bell.payload == "end":
                break

    assert heard == [f"1 k {books.node_id}:{key_id},{elsewhere}:{other}", "end"]
