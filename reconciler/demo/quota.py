"""The chapter in which a customer uses up what he has bought, and buys more."""

import time

from reconciler.demo.acts import placed_customer
from reconciler.demo.stage import CYCLE_SECONDS, Stage
from reconciler.demo.telling import Telling, span
from reconciler.demo.vless import KNOCK_BYTES, VlessClient
from reconciler.demo.watch import until
from reconciler.desired import look
from reconciler.desired.terms import Term

LIMIT_BYTES = 1_000_000
OUT_SECONDS = 2 * CYCLE_SECONDS
"""A reading's interval at most, and then what the reading and the removal take."""


async def use_up(stage: Stage, tell: Telling) -> str:
    """Carry bytes until the limit is reached, be refused, and get in again for more."""
    user = await stage.operator.add_user("customer with a limit")
    granted = await stage.operator.grant(user.user_id, Term(days=30, traffic_bytes=LIMIT_BYTES))
    tell.say(f"A customer has bought {LIMIT_BYTES:,} bytes. Each node's counters are read every second.")
    customer = await placed_customer(stage, granted.key_id)
    with tell.waiting("the door opens"):
        await until(customer.opens, "the new key opens the door")
    exact = "exact" if await _carry(stage, tell, customer, granted.key_id) else "not exact"
    carried = await customer.transfer(LIMIT_BYTES // 2)
    started = time.monotonic()

    async def refused() -> bool:
        return not await customer.opens()

    with tell.waiting("the limit is noticed"):
        await until(refused, "who has used up his traffic is refused")
    out = time.monotonic() - started
    words = f"{carried:,} more each way, and a new connection is refused {span(out)} later"
    tell.seen(words, good=out <= OUT_SECONDS)
    (row,) = await look.subscriptions(stage.connection, user.user_id)
    tell.seen(f"his subscription is {row.bucket}", good=row.bucket == "over_quota")
    started = time.monotonic()
    await stage.operator.extend(granted.subscription_id, 0, traffic_bytes=LIMIT_BYTES)
    with tell.waiting("the door opens again"):
        await until(customer.opens, "who has bought more gets in")
    again = span(time.monotonic() - started)
    tell.seen(f"he buys as much again, and is in {again} later")
    return f"{exact}, out in {span(out)}"


async def _carry(stage: Stage, tell: Telling, customer: VlessClient, key_id: int) -> bool:
    """Carry a part of it; return whether just that is counted."""
    knock = await customer.transfer(KNOCK_BYTES)  # as much as the one that found the door open
    carried = await customer.transfer(LIMIT_BYTES // 5)
    expected = 2 * (2 * knock + carried)

    async def total() -> int:
        (row,) = await look.key(stage.connection, key_id)
        return row.up_bytes + row.down_bytes

    async def counted() -> bool:
        return await total() >= expected

    with tell.waiting("it is counted"):
        took = await until(counted, "what was carried is counted")
    found = await total()
    words = (
        f"he carries {carried:,} bytes each way: with two knocks, {found:,} are counted {span(took)} later"
    )
    tell.seen(words, good=found == expected)
    return found == expected
