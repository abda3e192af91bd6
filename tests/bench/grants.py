"""P2: from a commit to a usable key, through the real daemon, beside the least program that does it."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from reconciler.demo.xray import free_port
from tests.bench.figures import Goal, Row, blocks, percentile, ratio, spread
from tests.bench.fleet import TAG, Place, address, enrol, one_node, users
from tests.bench.ground import Daemon, Ground
from tests.bench.lines import contender

PRESENT = 1_000
BLOCKS = 5
RATE = 40.0


async def measure(ground: Ground) -> None:
    """Grant keys in turn to the daemon's shop and to the prototype's."""
    number = ground.several(600, 100)
    ours, theirs = address(), address()
    async with ground.database() as database:
        await enrol(database.dsn, [Place(ours, TAG)], PRESENT)
        present = (await users(database.dsn))[1]
        async with (
            ground.copy(database) as copied,
            one_node(ground.directory, ours, free_port(), present),
            one_node(ground.directory, theirs, free_port(), present),
            Daemon(ground.directory, database.dsn_as("daemon")) as daemon,
            contender("prototype") as prototype,
            contender("granter") as granter,
        ):
            await daemon.ready()
            await prototype.ask(do="start", dsn=copied.dsn, api=theirs, tag=TAG)
            ground.tell(f"P2 granting {number} keys to each")
            targets = [
                {"dsn": database.dsn, "api": ours, "tag": TAG},
                {"dsn": copied.dsn, "api": theirs, "tag": TAG},
            ]
            ran = await granter.ask(do="grants", targets=targets, number=number, rate=RATE)
    _rows(ground, ran)


def _rows(ground: Ground, ran: dict[str, Any]) -> None:
    goal = Goal(1.5, at_most=True, words="<= 1.5 x")
    ours, theirs = ran["commit"]
    for share, what in ((0.5, "commit to usable, p50"), (0.99, "commit to usable, p99")):
        mine, other = _by_block(ours, share), _by_block(theirs, share)
        whole = ratio([percentile(ours, share)], [percentile(theirs, share)])
        by_block = ratio(mine, other)
        score = spread([by_block.low, whole.median, by_block.high])
        row = Row("P2", what, "ms", spread(mine), "prototype", spread(other), score, goal=goal)
        ground.findings.rows.append(row)
    gap = 1000 * median(ran["gaps"][0] + ran["gaps"][1])
    ground.findings.notes["P2"] = (
        f"{len(ours)} grants each; seen by asking every {gap:.2f} ms, which a figure is too late by at most;"
        f" score over all grants, [..] the {BLOCKS} blocks of them"
    )
    ground.findings.series["grants"] = ran


def _by_block(seconds: Sequence[float], share: float) -> list[float]:
    return [1000 * percentile(block, share) for block in blocks(seconds, BLOCKS)]
