"""P6: how soon a restarted node has all its keys back, beside what adding them takes at P1's own rate."""

import asyncio
import time

import psutil

from reconciler.model import Inbound, Protocol
from reconciler.node.xray import XrayNode
from tests.bench.figures import Goal, Row, ratio, spread
from tests.bench.fleet import TAG
from tests.bench.ground import Ground, until
from tests.bench.steps import shop

POLL_SECONDS = 0.02
_INBOUND = Inbound(TAG, Protocol.VLESS)


async def measure(ground: Ground) -> None:
    """Take turns: all keys granted anew, as P1 does it, and the node restarted under them."""
    keys = ground.several(10_000, 4_000)
    rounds = ground.several(5, 3)
    back: list[float] = []
    noticed: list[float] = []
    reference: list[float] = []
    async with shop(ground, keys) as (rows, node, _):
        for turn in range(rounds + 1):
            ground.tell(f"P6 round {turn} of {rounds}")
            added, _cpu = await rows.grant()
            node.kill()
            await asyncio.sleep(0.2 * turn)  # not in step with the probes
            await node.start()
            began = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                settled = group.create_task(rows.settled())
                first, last = await _watched(node.api, keys, began)
            await settled
            if turn:  # the first round is for warming up
                reference.append(added)
                noticed.append(first)
                back.append(last)
            await rows.expire()
    goal = Goal(1.3, at_most=True, words="<= 1.3 x")
    what = f"{keys:,} keys back after a restart"
    score = ratio(back, reference)
    ground.findings.rows.append(
        Row("P6", what, "s", spread(back), "at P1's rate", spread(reference), score, goal=goal)
    )
    filling = [whole - start for whole, start in zip(back, noticed, strict=True)]
    ground.findings.rows.append(
        Row("P6", "of it, until the first key", "s", spread(noticed), "then", spread(filling))
    )
    ground.findings.notes["P6"] = f"counted on the node every {1000 * POLL_SECONDS:.0f} ms"
    ground.findings.series["restart"] = {
        "keys": keys,
        "back": back,
        "until_first": noticed,
        "granted": reference,
        "cores": psutil.cpu_count(),
    }


async def _watched(api: str, keys: int, began: float) -> tuple[float, float]:
    """Return the seconds until the first key was on the node, and until all were."""
    port = XrayNode("watched", api)
    first: list[float] = []

    async def all_there() -> bool:
        count = (await port.probe((_INBOUND,), 10)).users[TAG]
        if count and not first:
            first.append(time.perf_counter() - began)
        return count >= keys

    try:
        await until(all_there, "all keys are back", POLL_SECONDS)
    finally:
        await port.close()
    return first[0], time.perf_counter() - began
