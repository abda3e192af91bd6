"""P5: by how much the cost grows with keys, nodes and changes, and that a long past costs nothing."""

import asyncio
from typing import Any

import psycopg

from tests.bench.figures import Goal, Row, power, ratio, slope, spread
from tests.bench.fleet import Size, add_history, enrol, fleet, free, places
from tests.bench.ground import Daemon, Ground
from tests.bench.lines import contender
from tests.parts_postgres import Database

SAMPLES = 5
FULL = (Size(1, 1_000), Size(10, 1_000), Size(100, 1_000), Size(10, 10_000), Size(1_000, 1_000))
QUICK = (Size(1, 1_000), Size(10, 1_000))

PAST = 10
"""So many ended placements and promises for each live one are a long past."""

_GRANT = """
WITH person AS (INSERT INTO reconciler.users (name) VALUES ('somebody') RETURNING id),
access AS (INSERT INTO reconciler.subscriptions (user_id, expires_at)
  SELECT id, now() + interval '30 days' FROM person RETURNING id)
INSERT INTO reconciler.keys (subscription_id, credential) SELECT id, gen_random_uuid() FROM access
"""


async def changes(ground: Ground, database: Database) -> None:
    """Grant keys at several rates, and see what each costs the daemon."""
    window = ground.several(5, 2)
    cost: dict[float, float] = {}
    await free(database.dsn)
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


async def past(ground: Ground) -> None:
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


def slopes(ground: Ground, cpu: dict[Size, dict[str, float]]) -> None:
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
