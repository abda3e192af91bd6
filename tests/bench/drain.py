"""P8: how soon a drained node has lost its keys to another, none of them ever on neither, among a million."""

import time

import psycopg

from reconciler.desired.placement import place
from reconciler.desired.writer import Operator
from reconciler.model import Inbound, NodeState, Protocol
from reconciler.node.port import list_users
from reconciler.node.xray import XrayNode
from tests.bench.figures import Goal, Row, spread
from tests.bench.fleet import Place, enrol, fleet, places
from tests.bench.ground import Daemon, Ground, until
from tests.parts_postgres import Database

GOAL = Goal(10.0, at_most=True, words="<= 10 s")
LISTING_SECONDS = 10.0
LOOK_SECONDS = 0.3  # listing 20,000 users again and again would take a core from who moves them
LEAST_SECONDS, GREATEST_SECONDS = 40.0, 400.0
"""What the small size needs at most, and the great one."""

# All that is neither on the first node nor on the second is on nodes that are left alone.
_ASIDE = """
INSERT INTO reconciler.nodes (name, api, state)
SELECT 'aside-' || number, 'aside-' || number || ':1', 'disabled' FROM generate_series(1, 30) AS number;
INSERT INTO reconciler.inbounds (node_id, tag, protocol)
SELECT id, 'in', 'vless' FROM reconciler.nodes WHERE id > 2;
UPDATE reconciler.placements SET node_id = CASE WHEN key_id <= {keys} THEN 1 ELSE 3 + key_id % 30 END;
UPDATE reconciler.promises SET node_id = CASE WHEN key_id <= {keys} THEN 1 ELSE 3 + key_id % 30 END;
TRUNCATE reconciler.placement_counts;
INSERT INTO reconciler.placement_counts (node_id, live)
SELECT node_id, count(*) FROM reconciler.placements WHERE ended_at IS NULL GROUP BY node_id;
"""
_UNPLACED = "UPDATE reconciler.placements SET ended_at = now(); TRUNCATE reconciler.placement_counts"


async def measure(ground: Ground) -> None:
    """Drain one of two nodes, then the other, and so on; then place all keys anew, beside no node at all."""
    if ground.left_seconds < LEAST_SECONDS:
        ground.findings.notes["P8"] = "left out: no time is left; `--only P8` measures it by itself"
        return
    keys = ground.several(10_000, 2_000)
    every = 1_000_000 if not ground.quick and ground.left_seconds > GREATEST_SECONDS else 50_000
    where = places(2)
    ground.tell(f"P8: writing {every:,} keys")
    async with ground.database() as database:
        await enrol(database.dsn, where, every)
        await _write(database, _ASIDE.format(keys=keys))
        async with (
            fleet(ground.directory, database.dsn, where),
            Daemon(ground.directory, database.dsn) as daemon,
        ):
            await daemon.ready()
            took = [await _drained(ground, database, where, turn) for turn in range(ground.several(6, 2))]
        what = f"{keys:,} keys off a drained node, of {every:,}"
        ground.findings.rows.append(
            Row("P8", what, "s", spread(took), score=spread(took), score_unit="s", goal=GOAL)
        )
        ground.tell(f"P8: placing {every:,} keys")
        await _place(ground, database, every)


async def _drained(ground: Ground, database: Database, where: list[Place], turn: int) -> float:
    """Drain the first node in even turns, the second in odd ones; return the seconds until it is empty."""
    old, new = (0, 1) if turn % 2 == 0 else (1, 0)
    ground.tell(f"P8: draining n{old + 1}")
    ports = [XrayNode(f"n{node + 1}", where[node].api) for node in (old, new)]
    inbounds = [Inbound(where[node].tag, Protocol.VLESS) for node in (old, new)]

    async def names() -> list[set[str]]:
        pairs = zip(ports, inbounds, strict=True)
        return [{user.name for user in await list_users(*pair, LISTING_SECONDS)} for pair in pairs]

    keys, _ = await names()
    lost: set[str] = set()

    async def empty() -> bool:
        left, there = await names()
        lost.update(keys - left - there)
        return not left

    async with await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as own:
        operator = Operator(own, "bench")
        await operator.set_state(f"n{new + 1}", NodeState.ACTIVE)
        began = time.perf_counter()
        await operator.drain(f"n{old + 1}", 0)
        await until(empty, "the drained node is empty", LOOK_SECONDS)
    took = time.perf_counter() - began
    for port in ports:
        await port.close()
    if lost or not keys:
        raise RuntimeError(f"{len(lost):,} of {len(keys):,} keys were on no node")
    return took


async def _place(ground: Ground, database: Database, keys: int) -> None:
    """Place every key anew, as one daemon does it, on nodes that are there as rows only."""
    await _write(database, "UPDATE reconciler.nodes SET state = 'active'; " + _UNPLACED)
    async with await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as own:
        began = time.perf_counter()
        placed = await place(own)
        took = time.perf_counter() - began
    assert placed.placements == keys, placed.unplaced
    ground.findings.rows.append(Row("P8", f"{keys:,} keys placed on 32 nodes", "s", spread([took])))


async def _write(database: Database, statements: str) -> None:
    async with await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as own:
        await own.execute("SET session_replication_role = replica")
        await own.execute("SET synchronous_commit = off")
        for statement in statements.split(";"):
            if statement.strip():
                await own.execute(statement.encode())
        await own.execute("VACUUM ANALYZE")
