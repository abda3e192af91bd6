"""The chapter in which a node is taken out of use, watched from all nodes at once."""

import time

from reconciler.demo.stage import OWNER, City, Stage
from reconciler.demo.telling import Telling, span
from reconciler.demo.watch import until
from reconciler.desired import look
from reconciler.model import NodeState


async def drain(stage: Stage, tell: Telling) -> str:
    """Drain lima, look at where each of its keys is meanwhile, and let one of its customers in elsewhere."""
    lima = stage.cities["lima"]
    others = [city for city in stage.cities.values() if city is not lima]
    keys = await _ours(lima)
    tell.say(f"lima is to be taken out of use: its {len(keys)} keys go to paris and tokyo.")
    missing: set[str] = set()
    looks = 0

    async def empty() -> bool:
        nonlocal looks
        # The node that lets go is looked at first: what it has no more must be on another one by then.
        there = await _ours(lima)
        elsewhere = set().union(*[await _ours(city) for city in others])
        missing.update(keys - there - elsewhere)
        looks += 1
        return not there

    started = time.monotonic()
    await stage.operator.drain(lima.name, 0)
    with tell.waiting("the keys move"):
        await until(empty, "lima has let go of every key", 30)
    took = span(time.monotonic() - started)
    tell.seen(f"all are elsewhere, and off lima, {took} later", good=bool(keys))
    tell.seen(f"in {looks} looks meanwhile, none of them was on no node", good=not missing)
    key_id = OWNER.key_id(min(keys))
    assert key_id is not None, "it is one of ours"
    city = await _new_home(stage, key_id)
    customer = await stage.customer(city, key_id)
    tell.seen(f"the customer with key {key_id} gets in by {city.name} now", good=await customer.opens())
    await stage.operator.set_state(lima.name, NodeState.ACTIVE)
    return f"{len(keys)} keys in {took}"


async def _ours(city: City) -> set[str]:
    return {name for name in await city.users() if OWNER.key_id(name) is not None}


async def _new_home(stage: Stage, key_id: int) -> City:
    (row,) = await look.key(stage.connection, key_id)
    assert row.node is not None, "a key that moved is placed"
    return stage.cities[row.node]
