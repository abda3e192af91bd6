"""Many nodes and many keys: what a pass does, what it leaves behind, and what a bad node does to others."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest

from reconciler.config import Config
from reconciler.config.sections import CycleConfig
from reconciler.db.pool import Pool, open_pool
from reconciler.demo.xray import Listener, XrayProcess, client, free_port
from reconciler.desired.reader import DesiredReader
from reconciler.logs import Repeats
from reconciler.loop.cadence import NodeLoop
from reconciler.loop.cycle import Cycles
from reconciler.loop.outcome import CycleReport
from reconciler.loop.report import Reporter
from reconciler.loop.trust import ClockTrust
from reconciler.model import Account, Credential, Outcome, Protocol, StepKind
from reconciler.node.port import list_users
from reconciler.node.xray import XrayNode
from reconciler.plan.rows import Rows
from reconciler.plan.users import Users
from reconciler.status.lease import Leases
from reconciler.status.metrics import Metrics
from reconciler.status.recorder import Recorder
from tests.parts_postgres import Database
from tests.parts_xray import StartXray
from tests.world import CALL_SECONDS, OWNER, VLESS, make_world

PROCESSES = 3
NODES_PER_PROCESS = 16
KEYS_PER_NODE = 100

_ENROL = """
WITH node AS (INSERT INTO reconciler.nodes (name, api, state) VALUES (%s, %s, 'active') RETURNING id)
INSERT INTO reconciler.inbounds (node_id, tag, protocol) SELECT id, %s, 'vless' FROM node
"""
_FILL = """
WITH person AS (INSERT INTO reconciler.users (name) VALUES ('somebody') RETURNING id),
access AS (INSERT INTO reconciler.subscriptions (user_id, starts_at, expires_at)
  SELECT person.id, now() - interval '1 day', now() + interval '30 days'
    FROM person, generate_series(1, %s) RETURNING id),
doors AS (INSERT INTO reconciler.keys (subscription_id, credential)
  SELECT id, gen_random_uuid() FROM access RETURNING id)
INSERT INTO reconciler.placements (key_id, node_id, reason)
SELECT doors.id, nodes.id, 'a test'
  FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM doors) doors
  JOIN (SELECT id, row_number() OVER (ORDER BY id) AS place, count(*) OVER () AS number
          FROM reconciler.nodes) nodes
    ON doors.place %% nodes.number = nodes.place - 1
"""


@dataclass
class Site:
    """Many nodes in few processes: each node is one inbound, reached by a loopback address of its own."""

    sql: psycopg.AsyncConnection[tuple[Any, ...]]
    cycles: list[Cycles]
    processes: Sequence[XrayProcess]

    async def execute(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        cursor = await self.sql.execute(query, values)
        return await cursor.fetchall() if cursor.description else []

    async def sweep(self) -> list[CycleReport]:
        """Run a cycle of every node."""
        return await asyncio.gather(*(cycles.run() for cycles in self.cycles))

    async def converge(self) -> None:
        assert {report.outcome for report in await self.sweep()} == {Outcome.CHANGED}
        await self.execute("ANALYZE")

    async def list_users(self) -> set[tuple[int, int | None]]:
        """Every node and key that stands on it."""
        found = set()
        for cycles in self.cycles:
            users = await list_users(cycles.port, cycles.node.inbounds[0], CALL_SECONDS)
            found |= {(cycles.node.node_id, OWNER.key_id(user.name)) for user in users}
        return found

    async def wanted(self) -> set[tuple[int, int | None]]:
        rows = await self.execute(
            """SELECT p.node_id, k.id FROM reconciler.placements p JOIN reconciler.keys k ON k.id = p.key_id
                 JOIN reconciler.subscriptions s ON s.id = k.subscription_id
                WHERE p.ended_at IS NULL AND k.revoked_at IS NULL AND s.expires_at > now()"""
        )
        return {(node_id, key_id) for node_id, key_id in rows}


@pytest.fixture
async def site(database: Database, start_xray: StartXray) -> AsyncIterator[Site]:
    processes = [await _many_inbounds(start_xray) for _ in range(PROCESSES)]
    sql = await database.connect()
    pool = await open_pool(database.dsn_as("daemon"), 8)
    for at, process in enumerate(processes):
        port = process.api.rpartition(":")[2]
        for place, listener in enumerate(process.listeners):
            await sql.execute(_ENROL, (f"n{at}-{place}", f"127.0.{at + 1}.{place + 1}:{port}", listener.tag))
    await sql.execute(_FILL, (PROCESSES * NODES_PER_PROCESS * KEYS_PER_NODE,))
    await sql.execute("ANALYZE")
    cycles = [it async for it in _all_cycles(pool)]
    yield Site(sql, cycles, processes)
    for each in cycles:
        await each.port.close()
    await pool.close()
    await sql.close()


async def _many_inbounds(start_xray: StartXray) -> XrayProcess:
    listeners = (Listener(f"in-{place}", Protocol.VLESS, free_port()) for place in range(NODES_PER_PROCESS))
    return await start_xray(*listeners, api=f"0.0.0.0:{free_port()}")


async def _all_cycles(pool: Pool) -> AsyncIterator[Cycles]:
    reader = DesiredReader(pool)
    nodes = await reader.fleet()
    leases = Leases(pool, "scale", time.monotonic, ttl_seconds=60, margin_seconds=1)
    await leases.keep({node.node_id: node.name for node in nodes})
    config, trust, slots = Config(), ClockTrust(60), asyncio.Semaphore(16)
    for node in nodes:
        yield Cycles(
            node=node,
            lease=leases.held[node.node_id],
            port=XrayNode(node.name, node.api),
            reader=reader,
            recorder=Recorder(pool),
            owner=OWNER,
            config=lambda: config,
            clock=time.monotonic,
            stopping=lambda: False,
            progressed=lambda: None,
            trust=trust,
            slots=slots,
        )


async def test_a_pass_over_many_nodes_with_nothing_to_do_plans_nothing_and_keeps_nothing(site: Site):
    await site.converge()

    reports = await site.sweep()

    assert {report.outcome for report in reports} == {Outcome.CONVERGED}
    assert sum(report.counts.active for report in reports if report.counts) == len(await site.wanted())
    assert await site.list_users() == await site.wanted()
    assert len(_alive()) >= 2 * len(reports)
    del reports
    assert _alive() == []


def _alive() -> list[object]:
    """What was read of nodes and of the database, and is still held by somebody."""
    gc.collect()
    return [it for it in gc.get_objects() if isinstance(it, Rows | Users)]


async def test_a_change_to_one_key_in_a_hundred_lands_everywhere_and_nowhere_else(site: Site):
    await site.converge()
    before = await site.wanted()
    await site.execute(
        """UPDATE reconciler.keys SET revoked_at = now()
            WHERE id IN (SELECT min(key_id) FROM reconciler.placements GROUP BY node_id)"""
    )
    await site.execute(
        """UPDATE reconciler.keys SET credential = gen_random_uuid()
            WHERE id IN (SELECT max(key_id) FROM reconciler.placements GROUP BY node_id)"""
    )

    reports = await site.sweep()

    assert len(before - await site.wanted()) == len(site.cycles)
    assert await site.list_users() == await site.wanted()
    for report in reports:
        assert sorted(step.kind for step in report.applied.done) == [StepKind.REMOVE, StepKind.REPLACE]
    assert {report.outcome for report in await site.sweep()} == {Outcome.CONVERGED}


async def test_a_node_that_hangs_leaves_the_others_turning(site: Site):
    await site.converge()
    hanging, *others = sorted(site.cycles, key=lambda cycles: cycles.node.name)[:: NODES_PER_PROCESS // 2]
    stuck = site.processes[0]
    others = [cycles for cycles in others if cycles.node.api.rpartition(":")[2] not in stuck.api]
    assert others
    async with _turning([hanging, *others], slots=1) as turns:
        await _until(lambda: min(turns.values()) >= 2)
        stuck.freeze()
        name, at = hanging.node.name, dict(turns)
        await _until(lambda: all(turns[it.node.name] >= at[it.node.name] + 5 for it in others))
        stuck.thaw()
        assert turns[name] < at[name] + 5, "it was to hang meanwhile"
        await _until(lambda: turns[name] >= at[name] + 3)


@asynccontextmanager
async def _turning(all_cycles: Iterable[Cycles], slots: int) -> AsyncIterator[dict[str, int]]:
    """Run the loops of these nodes; count their cycles by the nodes' names."""
    config = Config(cycle=CycleConfig(full_interval_seconds=1, probe_interval_seconds=3600, jitter_share=0))
    metrics, stopping, shared = Metrics(), asyncio.Event(), asyncio.Semaphore(slots)
    turns: dict[str, int] = {}

    class Counting(Reporter):
        def cycle_ended(self, outcome: Outcome, seconds: float) -> None:
            turns[self.node] += 1
            super().cycle_ended(outcome, seconds)

    tasks = []
    for each in all_cycles:
        turns[each.node.name] = 0
        metrics.add_node(each.node.name)
        cycles = replace(each, config=lambda: config, slots=shared)
        reporter = Counting(each.node.name, metrics, Repeats(), time.monotonic, time.time)
        loop = NodeLoop(cycles, reporter, lambda: 0.0, lambda: None, stopping)
        tasks.append(asyncio.create_task(loop.run()))
    yield turns
    stopping.set()
    await asyncio.gather(*tasks)


async def _until(reached: Callable[[], bool]) -> None:
    while not reached():
        await asyncio.sleep(0.02)


async def test_a_pass_with_nothing_to_do_costs_about_what_the_bare_reads_cost(
    database: Database, start_xray: StartXray
):
    number = 20_000
    keys = {key_id: Account(Credential(key_id.to_bytes(16, "big"))) for key_id in range(1, number + 1)}
    users = [client(Protocol.VLESS, OWNER.name(key_id), opens) for key_id, opens in keys.items()]
    node = await start_xray(Listener(VLESS.tag, Protocol.VLESS, free_port(), users))
    async with make_world(database, XrayNode(node.name, node.api), api=node.api) as world:
        given = await world.keys(number)
        await world.execute("UPDATE reconciler.keys SET credential = lpad(to_hex(id), 32, '0')::uuid")
        assert given == [*keys]
        assert (await world.cycle()).outcome is Outcome.CONVERGED
        await world.execute("VACUUM ANALYZE")

        async def bare() -> None:
            users = await list_users(world.port, VLESS, CALL_SECONDS)
            rows = await world.execute(
                """SELECT k.id, uuid_send(k.credential), s.expires_at FROM reconciler.placements p
                     JOIN reconciler.keys k ON k.id = p.key_id
                     JOIN reconciler.subscriptions s ON s.id = k.subscription_id WHERE p.node_id = %s""",
                world.node_id,
            )
            assert len(users) == len(rows) == number

        async def whole() -> None:
            assert (await world.cycle()).outcome is Outcome.CONVERGED

        reads = [await _cpu_seconds(bare) for _ in range(3)]
        passes = [await _cpu_seconds(whole) for _ in range(3)]
        assert min(passes) <= 2 * min(reads)


async def _cpu_seconds(work: Callable[[], Any]) -> float:
    before = time.process_time()
    await work()
    return time.process_time() - before
