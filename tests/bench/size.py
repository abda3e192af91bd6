"""P3, P4 and P5: what keys, nodes, changes and a long past cost, in CPU and in memory."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import psutil
import psycopg

from tests.bench.figures import Goal, Row, difference, power, ratio, slope, spread
from tests.bench.fleet import add_history, enrol, fleet, places
from tests.bench.ground import Daemon, Ground, until
from tests.bench.lines import contender
from tests.parts_postgres import Database

MEBIBYTE = 1024 * 1024
SAMPLES = 5
POSTGRES_FROM_KEYS = 100_000
"""Below, a pass is shorter than what the kernel's accounts of another program can tell."""

GREATEST = 1_000_000
GREATEST_NEEDS_BYTES = 9 * 1024 * MEBIBYTE
GREATEST_NEEDS_SECONDS = 190.0
PAST = 10
"""So many ended placements and promises for each live one are a long past."""

_ALL_CONVERGED = """
SELECT count(*) = (SELECT count(*) FROM reconciler.nodes)
  FROM reconciler.node_status WHERE outcome = 'converged'
"""
_GRANT = """
WITH person AS (INSERT INTO reconciler.users (name) VALUES ('somebody') RETURNING id),
access AS (INSERT INTO reconciler.subscriptions (user_id, expires_at)
  SELECT id, now() + interval '30 days' FROM person RETURNING id)
INSERT INTO reconciler.keys (subscription_id, credential) SELECT id, gen_random_uuid() FROM access
"""


@dataclass(frozen=True, slots=True)
class Size:
    """So many nodes with so many keys each."""

    nodes: int
    keys_each: int

    @property
    def keys(self) -> int:
        """All keys."""
        return self.nodes * self.keys_each

    @property
    def words(self) -> str:
        """Say it as people do."""
        return f"{self.keys:,} keys on {self.nodes:,} node{'s' if self.nodes > 1 else ''}"


FULL = (Size(1, 1_000), Size(10, 1_000), Size(100, 1_000), Size(10, 10_000), Size(1_000, 1_000))
QUICK = (Size(1, 1_000), Size(10, 1_000))


async def measure(ground: Ground) -> None:
    """Go through the sizes, the greatest last, as far as time and memory go."""
    cpu: dict[Size, dict[str, float]] = {}
    if "P5" in ground.wanted:
        await _past(ground)
    sizes = QUICK if ground.quick else FULL
    try:
        for size in sizes:
            await _measure_size(ground, size, cpu)
    finally:  # what the greatest size leaves no time for is no reason to lose the rest
        if "P5" in ground.wanted:
            _slopes(ground, cpu)


async def _measure_size(ground: Ground, size: Size, cpu: dict[Size, dict[str, float]]) -> None:
    """Make so many nodes and keys, and measure them in all ways that are wanted."""
    if size.keys >= GREATEST and (why := _too_much(ground)):
        ground.findings.notes["P3"] = f"{size.words}: left out, {why}"
        return
    where = places(size.nodes)
    ground.tell(f"{size.words}: writing rows, starting nodes")
    async with ground.database() as database:
        await enrol(database.dsn, where, size.keys)
        async with fleet(ground.directory, database.dsn, where):
            if ground.wanted & {"P4", "P5"}:
                await _resident(ground, database, size, [place.api for place in where])
            if ground.wanted & {"P3", "P5"}:
                cpu[size] = await _passes(ground, database, size)
            if "P5" in ground.wanted and size == QUICK[-1]:
                await _changes(ground, database)


def _too_much(ground: Ground) -> str | None:
    if ground.left_seconds < GREATEST_NEEDS_SECONDS:
        return f"only {ground.left_seconds:.0f} s were left"
    if psutil.virtual_memory().available < GREATEST_NEEDS_BYTES:
        return "it needs 9 GiB of free memory"
    return None


async def _passes(ground: Ground, database: Database, size: Size) -> dict[str, float]:
    """Take turns: a full pass of cycles, the bare reads of the same nodes."""
    runs: dict[str, list[dict[str, Any]]] = {"cycles": [], "bare": []}
    server = []
    began = 0.0
    await _free(database)
    async with contender("passes") as passes:
        await passes.ask(do="open", dsn=database.dsn_as("daemon"))
        for kind in runs:
            await passes.ask(do=kind)  # connects, prepares, and settles what the first look finds
        for turn in range(SAMPLES):
            if turn and ground.left_seconds < 1.5 * (time.monotonic() - began):
                break
            began = time.monotonic()
            ground.tell(f"P3 {size.words}: round {turn + 1} of {SAMPLES}")
            for kind, ran in runs.items():
                before = ground.postgres_cpu()
                ran.append(await passes.ask(do=kind))
                server.append((kind, ground.postgres_cpu() - before))
                assert ran[-1]["keys"] == size.keys, f"{ran[-1]['keys']} of {size.keys} keys were read"
    ground.findings.series.setdefault("passes", []).append(
        {"nodes": size.nodes, "keys": size.keys, **runs, "postgres_cpu": server}
    )
    cpu = {kind: [run["cpu"] for run in ran] for kind, ran in runs.items()}
    if "P3" in ground.wanted:
        _pass_rows(ground, size, cpu, runs, server)
    return {kind: spread(values).median for kind, values in cpu.items()}


def _pass_rows(
    ground: Ground,
    size: Size,
    cpu: dict[str, list[float]],
    runs: dict[str, list[dict[str, Any]]],
    server: list[tuple[str, float]],
) -> None:
    goal = Goal(2.0, at_most=True, words="<= 2 x")
    wall = {kind: [run["seconds"] for run in ran] for kind, ran in runs.items()}
    postgres = {kind: [spent for each, spent in server if each == kind] for kind in runs}
    for what, unit, values, judged in (
        ("own CPU", "s CPU", cpu, goal),
        ("wall", "s", wall, None),
        ("PostgreSQL's CPU", "s CPU", postgres, None),
    ):
        ours, bare = values["cycles"], values["bare"]
        if values is postgres and size.keys < POSTGRES_FROM_KEYS:
            continue
        ground.findings.rows.append(
            Row(
                "P3",
                f"full pass, {size.words}: {what}",
                unit,
                spread(ours),
                "bare reads",
                spread(bare),
                ratio(ours, bare),
                goal=judged,
            )
        )


async def _resident(ground: Ground, database: Database, size: Size, apis: list[str]) -> None:
    """Start the real daemon, let it look at everything, and weigh it; see what idling costs."""
    ground.tell(f"P4 {size.words}: the daemon looks at everything once")
    window = 3 if ground.quick else 10 if size.keys >= GREATEST else 6
    await _free(database)
    async with (
        contender("bare") as bare,
        Daemon(ground.directory, database.dsn_as("daemon")) as daemon,
        await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as sql,
    ):
        alone = float((await bare.ask(do="channels", apis=apis))["resident"])

        async def seen() -> bool:
            row = await (await sql.execute(_ALL_CONVERGED)).fetchone()
            return row is not None and bool(row[0])

        await until(seen, "every node converged", 0.2)
        resident, spent, server = [], daemon.cpu, ground.postgres_cpu()
        for _ in range(SAMPLES):
            await asyncio.sleep(window / SAMPLES)
            resident.append(daemon.resident / MEBIBYTE)
        idle, server_idle = (daemon.cpu - spent) / window, (ground.postgres_cpu() - server) / window
        most = daemon.most_resident / MEBIBYTE
    reference = [alone / MEBIBYTE] * SAMPLES
    goal = Goal(150.0, at_most=True, words="<= + 150 MiB")
    ground.findings.series.setdefault("daemon", []).append(
        {
            "nodes": size.nodes,
            "keys": size.keys,
            "resident_mib": resident,
            "most_resident_mib": most,
            "bare_mib": reference[0],
            "idle_cores": idle,
            "postgres_idle_cores": server_idle,
        }
    )
    if "P5" in ground.wanted:
        what = f"the daemon at rest, {size.words}: own CPU"
        ground.findings.rows.append(
            Row("P5", what, "cores", spread([idle]), "PostgreSQL's", spread([server_idle]))
        )
    if "P4" not in ground.wanted:
        return
    for what, values in (("resident", resident), ("greatest resident", [most] * SAMPLES)):
        ground.findings.rows.append(
            Row(
                "P4",
                f"{what}, {size.words}",
                "MiB",
                spread(values),
                "bare channels",
                spread(reference),
                difference(values, reference),
                "MiB",
                goal=goal,
            )
        )


async def _free(database: Database) -> None:
    """Let go of the leases of whoever held the nodes before, and forget what it said of them."""
    async with await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as sql:
        await sql.execute("DELETE FROM reconciler.leases")
        await sql.execute("DELETE FROM reconciler.node_status")


async def _changes(ground: Ground, database: Database) -> None:
    """Grant keys at several rates, and see what each costs the daemon."""
    window = ground.several(5, 2)
    cost: dict[float, float] = {}
    await _free(database)
    async with (
        Daemon(ground.directory, database.dsn_as("daemon")) as daemon,
        await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as sql,
    ):
        await daemon.ready()
        for rate in (0, 40, 160) if ground.quick else (0, 20, 40, 80, 160):
            ground.tell(f"P5 {rate} grants a second")
            spent = daemon.cpu
            began = asyncio.get_running_loop().time()
            for number in range(rate * window):
                await sql.execute(_GRANT, prepare=True)
                due = began + (number + 1) / rate
                await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            left = began + window + 0.5 - asyncio.get_running_loop().time()
            await asyncio.sleep(max(0.0, left))
            took = asyncio.get_running_loop().time() - began
            cost[rate * window / took] = (daemon.cpu - spent) / took
    idle = cost.pop(0.0)
    each = {rate: 1000 * (spent - idle) / rate for rate, spent in cost.items()}
    rates = sorted(each)
    ground.findings.series["changes"] = {"idle_cores": idle, "cores_by_rate": cost}
    growth = spread([each[rates[-1]] / each[rates[0]]])
    goal = Goal(1.1, at_most=True, words="<= 1.1 x: linear")
    ground.findings.rows.append(
        Row(
            "P5",
            f"own CPU of a grant at {rates[-1]:.0f}/s",
            "ms CPU",
            spread([each[rates[-1]]]),
            f"at {rates[0]:.0f}/s",
            spread([each[rates[0]]]),
            growth,
            goal=goal,
        )
    )
    ground.findings.notes["P5"] = (
        f"a grant costs the daemon {1000 * slope({0.0: idle, **cost}):.2f} ms of CPU (line through all rates)"
    )


async def _past(ground: Ground) -> None:
    """Take turns on two databases of the same keys, of which one has a long past."""
    where = places(QUICK[-1].nodes)
    size = QUICK[-1]
    ground.tell("P5 writing a long past")
    runs: list[list[dict[str, Any]]] = [[], []]
    async with ground.database() as fresh:
        await enrol(fresh.dsn, where, size.keys)
        async with (
            ground.copy(fresh) as old,
            fleet(ground.directory, fresh.dsn, where),
            contender("passes") as ours,
            contender("passes") as theirs,
        ):
            await add_history(old.dsn, PAST)
            for database, passes in ((old, ours), (fresh, theirs)):
                await passes.ask(do="open", dsn=database.dsn_as("daemon"))
                await passes.ask(do="cycles")
            for turn in range(SAMPLES):
                ground.tell(f"P5 a long past: round {turn + 1} of {SAMPLES}")
                for ran, passes in zip(runs, (ours, theirs), strict=True):
                    ran.append(await passes.ask(do="cycles"))
    goal = Goal(1.1, at_most=True, words="<= 1.1 x")
    for what, name, unit, judged in (("own CPU", "cpu", "s CPU", goal), ("wall", "seconds", "s", None)):
        mine, other = ([run[name] for run in ran] for ran in runs)
        ground.findings.rows.append(
            Row(
                "P5",
                f"full pass, {PAST} past changes a key: {what}",
                unit,
                spread(mine),
                "none",
                spread(other),
                ratio(mine, other),
                goal=judged,
            )
        )
    ground.findings.series["past"] = runs


def _slopes(ground: Ground, cpu: dict[Size, dict[str, float]]) -> None:
    """Fit power laws through what passes cost."""
    goal = Goal(1.05, at_most=True, words="<= 1.05: linear")
    by_keys = {float(size.keys): spent for size, spent in cpu.items() if size.keys_each == QUICK[0].keys_each}
    if len(by_keys) > 1:
        ours = spread([power({keys: spent["cycles"] for keys, spent in by_keys.items()})])
        bare = spread([power({keys: spent["bare"] for keys, spent in by_keys.items()})])
        ground.findings.rows.append(
            Row(
                "P5",
                f"exponent of cost against keys and nodes, to {max(by_keys):,.0f}",
                "exponent",
                ours,
                "bare reads",
                bare,
                ours,
                "",
                goal=goal,
            )
        )
    many, few = cpu.get(Size(100, 1_000)), cpu.get(Size(10, 10_000))
    if many and few:
        score = ratio([few["cycles"]], [many["cycles"]])
        what = "100,000 keys on 10 nodes, not 100: own CPU of a pass"
        on_few, on_many = spread([few["cycles"]]), spread([many["cycles"]])
        ground.findings.rows.append(Row("P5", what, "s CPU", on_few, "on 100 nodes", on_many, score))
