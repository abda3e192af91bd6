"""What the rows say of a fleet, read with the daemon's own rights."""

import asyncio
import time

import pytest

from reconciler.db.pool import open_pool
from reconciler.errors import StoreError
from reconciler.model import NodeState, Outcome
from reconciler.status.board import Board, Sight
from reconciler.status.fleet_rows import read, watch
from reconciler.status.recorder import Counts
from tests.daemons import until
from tests.parts_postgres import Database


@pytest.fixture
async def pool(database: Database):
    pool = await open_pool(database.dsn_as("daemon"), 2)
    yield pool
    await pool.close()


async def enrol(database: Database) -> None:
    async with await database.connect() as sql:
        await sql.execute(
            """
            INSERT INTO reconciler.nodes (name, api, state, pool, capacity) VALUES
              ('held', 'h:1', 'active', 'eu', 500), ('lapsed', 'h:2', 'observed', 'default', NULL),
              ('new', 'h:3', 'active', 'default', NULL), ('off', 'h:4', 'disabled', 'default', NULL)
            """
        )
        await sql.execute(
            """
            INSERT INTO reconciler.node_status (node_id, holder, outcome, active_users, desired_users,
              foreign_users, orphan_users, held_removals, last_attempt_at, last_full_at, last_converged_at,
              error)
            SELECT id, 'vm', CASE name WHEN 'held' THEN 'held' ELSE 'unreachable' END, 5, 4, 3, 2, 1,
                   now() - interval '10 s', CASE name WHEN 'held' THEN now() END,
                   now() - interval '1 h', CASE name WHEN 'lapsed' THEN 'no answer' END
              FROM reconciler.nodes WHERE name IN ('held', 'lapsed')
            """
        )
        await sql.execute(
            """
            INSERT INTO reconciler.leases (node_id, holder, epoch, expires_at)
            SELECT id, 'vm:1', 1, CASE name WHEN 'held' THEN now() + interval '1 h' ELSE '-infinity' END
              FROM reconciler.nodes WHERE name IN ('held', 'lapsed')
            """
        )


async def test_the_rows_are_read_with_the_rights_of_the_daemon(database: Database, pool):
    await enrol(database)

    rows = {row.name: row for row in await read(pool, lambda: 1_000_000.0)}

    assert sorted(rows) == ["held", "lapsed", "new", "off"]
    held, lapsed = rows["held"], rows["lapsed"]
    assert (held.state, held.pool, held.capacity, held.holder) == (NodeState.ACTIVE, "eu", 500, "vm:1")
    assert (held.sight.outcome, held.sight.counts) == (Outcome.HELD, Counts(5, 4, 3, 2, 1))
    assert held.sight.tried_at is not None
    assert held.sight.converged_at is not None
    assert 900 < held.sight.tried_at - 999_000 < 990
    assert 3590 < held.sight.tried_at - held.sight.converged_at + 10 < 3610
    assert (lapsed.holder, lapsed.sight.error, lapsed.sight.counts) == (None, "no answer", None)
    assert (rows["new"].holder, rows["new"].sight) == (None, Sight())
    assert rows["off"].state is NodeState.DISABLED


async def test_rows_that_cannot_be_read_stay_as_they_were_and_tell_their_age(database: Database, pool):
    await enrol(database)
    board = Board(lambda: 1e9)
    watching = asyncio.create_task(watch(pool, board, time.monotonic))

    async def read_once() -> bool:
        return board.glance(time.monotonic()).read_at is not None

    await until(read_once, "the rows are read")
    watching.cancel()
    before = board.glance(time.monotonic())
    async with await database.connect() as sql:
        await sql.execute("ALTER TABLE reconciler.node_status RENAME TO elsewhere")
    with pytest.raises(StoreError):
        await read(pool, time.monotonic)
    watching = asyncio.create_task(watch(pool, board, time.monotonic))
    await asyncio.sleep(0.5)

    assert not watching.done()
    assert board.glance(time.monotonic()).lines == before.lines
    assert board.glance(time.monotonic()).read_at == before.read_at
    watching.cancel()
