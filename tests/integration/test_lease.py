"""Leases: who holds which node, on a real database."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from reconciler.db.pool import Pool, open_pool
from reconciler.errors import LeaseLost
from reconciler.status.lease import Leases, fence
from tests.parts_postgres import Database


@dataclass
class Fleet:
    """Two nodes that daemons share."""

    pool: Pool
    nodes: dict[int, str]

    @property
    def first(self) -> int:
        return min(self.nodes)

    def daemon(self, holder: str) -> Leases:
        return Leases(self.pool, holder, time.monotonic, ttl_seconds=60, margin_seconds=1)

    async def end(self, node_id: int) -> None:
        """Let a lease run out, whoever holds it."""
        async with self.pool.connection() as connection:
            await connection.execute(
                "UPDATE reconciler.leases SET expires_at = '-infinity' WHERE node_id = %s", (node_id,)
            )


@pytest.fixture
async def fleet(database: Database) -> AsyncIterator[Fleet]:
    async with await database.connect() as sql:
        cursor = await sql.execute(
            "INSERT INTO reconciler.nodes (name, api) VALUES ('n1', '127.0.0.1:1'), ('n2', '127.0.0.1:2')"
            " RETURNING id, name"
        )
        nodes: dict[int, str] = dict(await cursor.fetchall())
    pool = await open_pool(database.dsn_as("daemon"), 4)
    yield Fleet(pool, nodes)
    await pool.close()


async def test_a_node_has_one_holder_until_it_lets_go(fleet: Fleet):
    one, other = fleet.daemon("one"), fleet.daemon("other")
    await one.keep(fleet.nodes)
    await other.keep(fleet.nodes)
    assert one.held.keys() == fleet.nodes.keys()
    assert not other.held

    await one.release([fleet.first])
    await other.keep(fleet.nodes)

    assert other.held.keys() == {fleet.first}
    assert other.held[fleet.first].epoch == 2


async def test_a_renewed_lease_stays_the_same_for_whoever_works_under_it(fleet: Fleet):
    daemon = fleet.daemon("one")
    await daemon.keep(fleet.nodes)
    lease = daemon.held[fleet.first]
    trusted_until = lease.trusted_until

    await daemon.keep(fleet.nodes)

    assert daemon.held[fleet.first] is lease
    assert lease.trusted_until > trusted_until


async def test_a_long_write_keeps_no_daemon_from_renewing(fleet: Fleet):
    one, other = fleet.daemon("one"), fleet.daemon("other")
    await one.keep({fleet.first: "n1"})
    await other.keep(fleet.nodes)
    before = one.held[fleet.first].trusted_until, other.held[fleet.first + 1].trusted_until

    async with fleet.pool.connection() as connection, connection.transaction():
        await fence(connection, one.held[fleet.first])
        await one.keep({fleet.first: "n1"})
        await other.keep(fleet.nodes)

    assert one.held[fleet.first].trusted_until > before[0]
    assert other.held[fleet.first + 1].trusted_until > before[1]


async def test_a_node_is_not_taken_while_its_former_holder_still_writes(fleet: Fleet):
    one, other = fleet.daemon("one"), fleet.daemon("other")
    await one.keep(fleet.nodes)

    async with fleet.pool.connection() as connection, connection.transaction():
        await fence(connection, one.held[fleet.first])
        await fleet.end(fleet.first)
        await other.keep(fleet.nodes)
        assert not other.held

    await other.keep(fleet.nodes)
    assert other.held.keys() == {fleet.first}


async def test_a_former_holder_writes_nothing(fleet: Fleet):
    one, other = fleet.daemon("one"), fleet.daemon("other")
    await one.keep(fleet.nodes)
    await fleet.end(fleet.first)
    await other.keep(fleet.nodes)

    with pytest.raises(LeaseLost):
        async with fleet.pool.connection() as connection, connection.transaction():
            await fence(connection, one.held[fleet.first])


async def test_a_daemon_that_wakes_up_does_not_release_what_its_namesake_took(fleet: Fleet):
    frozen, successor = fleet.daemon("same"), fleet.daemon("same")
    await frozen.keep({fleet.first: "n1"})
    await fleet.end(fleet.first)
    await successor.keep({fleet.first: "n1"})

    await frozen.release([fleet.first])
    await successor.keep({fleet.first: "n1"})

    assert successor.held[fleet.first].epoch == 2


async def test_a_daemon_that_wakes_up_does_not_renew_what_its_namesake_took(fleet: Fleet):
    frozen, successor = fleet.daemon("same"), fleet.daemon("same")
    await frozen.keep({fleet.first: "n1"})
    await fleet.end(fleet.first)
    await successor.keep({fleet.first: "n1"})

    await frozen.keep({fleet.first: "n1"})

    assert not frozen.held
