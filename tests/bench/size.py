"""P3, P4 and P5: what keys, nodes, changes and a long past cost, in CPU and in memory."""

import asyncio
import time
from typing import Any

import psutil
import psycopg

from tests.bench import storm
from tests.bench.figures import Goal, Row, difference, ratio, spread
from tests.bench.fleet import Size, enrol, fleet, free, places
from tests.bench.ground import Daemon, Ground, until
from tests.bench.growth import FULL, QUICK, SAMPLES, changes, past, slopes
from tests.bench.lines import contender
from tests.parts_postgres import Database

MEBIBYTE = 1024 * 1024
POSTGRES_FROM_KEYS = 100_000
"""Below, a pass is shorter than what the kernel's accounts of another program can tell."""

GREATEST = 1_000_000
GREATEST_NEEDS_BYTES = 9 * 1024 * MEBIBYTE
GREATEST_NEEDS_SECONDS = 190.0
_ALL_CONVERGED = """
SELECT count(*) = (SELECT count(*) FROM reconciler.nodes)
  FROM reconciler.node_status WHERE outcome = 'converged'
"""


async def measure(ground: Ground) -> None:
    """Go through the sizes, the greatest last, as far as time and memory go."""
    cpu: dict[Size, dict[str, float]] = {}
    if "P5" in ground.wanted:
        await past(ground)
    sizes = QUICK if ground.quick else FULL
    try:
        for size in sizes:
            await _measure_size(ground, size, cpu, last=size == sizes[-1])
    finally:  # what the greatest size leaves no time for is no reason to lose the rest
        if "P5" in ground.wanted:
            slopes(ground, cpu)


async def _measure_size(ground: Ground, size: Size, cpu: dict[Size, dict[str, float]], *, last: bool) -> None:
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
                await changes(ground, database)
            if "P5" in ground.wanted and last:
                await storm.measure(ground, database, size, where)


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
    await free(database.dsn)
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
    await free(database.dsn)
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
    weighed = {
        "nodes": size.nodes,
        "keys": size.keys,
        "resident_mib": resident,
        "most_resident_mib": most,
        "bare_mib": alone / MEBIBYTE,
        "idle_cores": idle,
        "postgres_idle_cores": server_idle,
    }
    ground.findings.series.setdefault("daemon", []).append(weighed)
    _resident_rows(ground, size, weighed)


def _resident_rows(ground: Ground, size: Size, weighed: dict[str, Any]) -> None:
    rows = ground.findings.rows
    if "P5" in ground.wanted:
        what = f"the daemon at rest, {size.words}: own CPU"
        idle, server = spread([weighed["idle_cores"]]), spread([weighed["postgres_idle_cores"]])
        rows.append(Row("P5", what, "cores", idle, "PostgreSQL's", server))
    if "P4" not in ground.wanted:
        return
    goal = Goal(150.0, at_most=True, words="<= + 150 MiB")
    reference = [weighed["bare_mib"]] * SAMPLES
    most = [weighed["most_resident_mib"]] * SAMPLES
    for what, values in (("resident", weighed["resident_mib"]), ("greatest resident", most)):
        more = difference(values, reference)
        name = f"{what}, {size.words}"
        bare = spread(reference)
        rows.append(Row("P4", name, "MiB", spread(values), "bare channels", bare, more, "MiB", goal=goal))
