"""P7: the trade between the speed of a refill and the patience of a customer, step by step."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from reconciler.loop.apply import Means, apply
from reconciler.model import Account, Credential, Inbound, Owner, Protocol, Standing, StepKind
from reconciler.node.port import list_users
from reconciler.node.xray import XrayNode
from reconciler.plan.steps import Phase, Plan, Step
from tests.bench.figures import Row, percentile, spread
from tests.bench.fleet import TAG
from tests.bench.ground import Ground
from tests.bench.lines import Child

CEILINGS = (4, 16, 128)
STEPS = 20_000
FIRST_KEY = 10_000_000
CALL_SECONDS = 10.0
SETTLE_SECONDS = 0.3
_INBOUND = Inbound(TAG, Protocol.VLESS)
_OWNER = Owner("test")


async def measure(ground: Ground, api: str, customer: Child) -> None:
    """Put keys on a node at several paces, and list it, while a customer measures round trips."""
    port = XrayNode("node", api)
    ways: dict[str, Callable[[], Awaitable[float]]] = {"one listing of all users": partial(_list, port)}
    for ceiling in CEILINGS:
        ways[f"at most {ceiling} steps at once, paced"] = partial(_paced, port, ceiling)
    ways["128 steps at once, not paced"] = partial(_unpaced, port, 128)
    try:
        for words, work in ways.items():
            ground.tell(f"P7 {words}")
            seconds, trips = await _beside(customer, work)
            rate = "" if words.startswith("one") else f"{STEPS / seconds:,.0f} steps/s"
            ground.findings.rows.append(
                Row(
                    "P7",
                    f"while it lasts, p99: {words}",
                    "ms",
                    spread([1000 * percentile(trips, 0.99)]),
                    rate or f"it takes {seconds:.2f} s",
                )
            )
            await _clear(port)
    finally:
        await port.close()


async def _beside(customer: Child, work: Callable[[], Awaitable[float]]) -> tuple[float, list[float]]:
    """Return how long `work` took, and the round trips that the customer made meanwhile."""
    measuring = asyncio.create_task(customer.ask(do="measure", seconds=6))
    await asyncio.sleep(SETTLE_SECONDS)
    began = SETTLE_SECONDS
    seconds = await work()
    ran: dict[str, Any] = await measuring
    trips = zip(ran["moments"], ran["trips"], strict=True)
    return seconds, [trip for moment, trip in trips if began <= moment <= began + seconds]


async def _list(port: XrayNode) -> float:
    began = time.perf_counter()
    await list_users(port, _INBOUND, CALL_SECONDS)
    return time.perf_counter() - began


async def _paced(port: XrayNode, ceiling: int) -> float:
    async def nobody(_: object) -> frozenset[int]:
        return frozenset()

    means = Means(
        port=port,
        owner=_OWNER,
        desired_again=nobody,
        timeout=lambda: CALL_SECONDS,
        clock=time.monotonic,
        stopping=lambda: False,
        progressed=lambda: None,
        acknowledged=lambda _: None,
        in_flight=ceiling,
        batch=500,
    )
    steps = tuple(
        Step(Phase.ADD, TAG, FIRST_KEY + number, StepKind.ADD, Standing.DESIRED, _account(number))
        for number in range(STEPS)
    )
    began = time.perf_counter()
    applied = await apply(Plan(steps=steps), (_INBOUND,), means)
    assert len(applied.done) == STEPS
    return time.perf_counter() - began


async def _unpaced(port: XrayNode, at_once: int) -> float:
    numbers = iter(range(STEPS))

    async def work() -> None:
        for number in numbers:
            await port.add(_INBOUND, _OWNER.name(FIRST_KEY + number), _account(number), CALL_SECONDS)

    return await _all(work, at_once)


async def _clear(port: XrayNode) -> None:
    """Take off what was put on, when the customer does not measure."""
    users = await list_users(port, _INBOUND, CALL_SECONDS)
    names = iter([user.name for user in users if (_OWNER.key_id(user.name) or 0) >= FIRST_KEY])

    async def work() -> None:
        for name in names:
            await port.remove(_INBOUND, name, CALL_SECONDS)

    await _all(work, 32)


async def _all(work: Callable[[], Awaitable[None]], at_once: int) -> float:
    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(at_once)))
    return time.perf_counter() - began


def _account(number: int) -> Account:
    return Account(Credential((FIRST_KEY + number).to_bytes(16)))
