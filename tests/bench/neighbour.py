"""P7: what the daemon's work on a busy node costs a customer of that node."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import psutil

from reconciler.demo.vless import VlessClient
from reconciler.demo.xray import free_port
from reconciler.model import Credential, Inbound, Protocol
from reconciler.node.xray import XrayNode
from tests.bench import trade
from tests.bench.figures import Goal, Row, difference, percentile, spread
from tests.bench.fleet import TAG, Place, User, address, enrol, one_node, users
from tests.bench.ground import Daemon, Ground, pinned, until
from tests.bench.lines import Child, contender

SLICE_SECONDS = 5
MARGIN_MS = 10.0
_INBOUND = Inbound(TAG, Protocol.VLESS)
_CORES = sorted(os.sched_getaffinity(0))


async def measure(ground: Ground) -> None:
    """Measure while nobody calls the node, then while a tenth of its keys are restored, then alone again."""
    if len(_CORES) < 2:
        ground.findings.notes["P7"] = "left out: the node needs a core to itself"
        return
    keys, lost = 100_000, 10_000
    loaded, idle = ground.several(60, 15), ground.several(20, 3)
    ground.tell(f"P7 a node with {keys:,} users on one core")
    api, door = address(), free_port()
    async with ground.database() as database:
        await enrol(database.dsn, [Place(api, TAG)], keys)
        known = (await users(database.dsn))[1]
        with pinned(_CORES[-1]):
            node = one_node(ground.directory, api, door, known[:-lost])
            await node.start()
        try:
            with pinned(*_CORES[:-1]):
                async with _customer(ground, door, known[0]) as (customer, first):
                    ran = await _windows(ground, database.dsn_as("daemon"), customer, loaded, idle)
                    await _restored(api, keys)
                    _rows(ground, ran, loaded, first=first)
                    await trade.measure(ground, api, customer)
        finally:
            node.kill()


async def _windows(
    ground: Ground, dsn: str, customer: Child, loaded: int, idle: int
) -> dict[str, dict[str, Any]]:
    ran = {}
    ground.tell(f"P7 {idle} s alone")
    ran["before"] = await customer.ask(do="measure", seconds=idle)
    ground.tell(f"P7 {loaded} s with the daemon")
    async with Daemon(ground.directory, dsn) as daemon:
        ran["loaded"] = await customer.ask(do="measure", seconds=loaded)
        ground.findings.series["neighbour_daemon_cpu"] = daemon.cpu
    ground.tell(f"P7 {idle} s alone")
    ran["after"] = await customer.ask(do="measure", seconds=idle)
    return ran


@asynccontextmanager
async def _customer(ground: Ground, door: int, user: User) -> AsyncIterator[tuple[Child, bool]]:
    """A client of the node, and whoever measures through it; they come before all others of their core."""
    client = VlessClient(ground.directory, door, Credential(UUID(user.credential).bytes))
    async with client, contender("customer") as customer:
        socks = int(client.proxy.rpartition(":")[2])
        first = bool((await customer.ask(do="connect", socks=socks))["first"])
        for process in psutil.process_iter():
            with suppress(psutil.Error, PermissionError):
                if f"client-{socks}" in " ".join(process.cmdline()):
                    for thread in process.threads():
                        os.sched_setscheduler(thread.id, os.SCHED_RR, os.sched_param(1))
        yield customer, first


async def _restored(api: str, keys: int) -> None:
    """Raise when the keys were not put back while the customer measured."""
    port = XrayNode("node", api)

    async def there() -> bool:
        return (await port.probe((_INBOUND,), 10)).users[TAG] == keys

    try:
        async with asyncio.timeout(5):
            await until(there, "the lost keys are back")
    finally:
        await port.close()


def _rows(ground: Ground, ran: dict[str, dict[str, Any]], loaded: int, *, first: bool) -> None:
    quiet, other = sorted((ran.pop("before"), ran.pop("after")), key=_p99)
    ran["idle"] = quiet
    steady = _p99(other) - _p99(quiet) < MARGIN_MS
    goal = Goal(MARGIN_MS, at_most=True, words="<= idle + 10 ms")
    for share, name in ((0.99, "p99"), (0.5, "p50"), (1.0, "greatest")):
        ours, alone = (1000 * percentile(ran[which]["trips"], share) for which in ("loaded", "idle"))
        ground.findings.rows.append(
            Row(
                "P7",
                f"round trip over {loaded} s, {name}",
                "ms",
                spread([ours]),
                "idle",
                spread([alone]),
                difference([ours], [alone]),
                "ms",
                goal=goal if name == "p99" and steady else None,
            )
        )
    if not steady:
        words = f"not judged: alone, p99 was {_p99(quiet):.1f} ms once, and {_p99(other):.1f} ms once"
        ground.findings.notes["P7 idle"] = words
    slices = [1000 * percentile(part, 0.99) for part in _slices(ran["loaded"])]
    words = ", ".join(f"{p99:.1f}" for p99 in slices)
    alone_too = "" if first else "; the customer had to share its core with the daemon on equal terms"
    ground.findings.notes["P7"] = f"p99 of each {SLICE_SECONDS} s: {words} ms{alone_too}"
    ground.findings.series["neighbour"] = ran


def _p99(ran: dict[str, Any]) -> float:
    return 1000 * percentile(ran["trips"], 0.99)


def _slices(ran: dict[str, Any]) -> Sequence[Sequence[float]]:
    found: dict[int, list[float]] = {}
    for moment, trip in zip(ran["moments"], ran["trips"], strict=True):
        found.setdefault(int(moment // SLICE_SECONDS), []).append(trip)
    return [found[number] for number in sorted(found)]
