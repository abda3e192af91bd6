"""
What each chapter does to the stage; it returns what it measured.

What somebody does "by hand" goes straight to the node; everything else is a
row in PostgreSQL, and nobody tells the daemon.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from uuid import uuid4

from reconciler.db.pool import store_errors
from reconciler.demo.stage import CALL_SECONDS, CITIES, CYCLE_SECONDS, DOOR, OWNER, City, Stage
from reconciler.demo.telling import Telling, span
from reconciler.demo.vless import VlessClient
from reconciler.demo.watch import Missed, until
from reconciler.desired import look
from reconciler.desired.terms import Term
from reconciler.errors import NameMissing, NameTaken
from reconciler.model import Account, Credential, Outcome

KEYS = 1_000
TRIAL_SECONDS = 4.0
HEAL_SECONDS = 3.0
REPAIR_SECONDS = 2 * CYCLE_SECONDS
"""What waits for a full cycle waits an interval at most, and then for the cycle to do it."""


async def converge(stage: Stage, tell: Telling) -> str:
    """Grant 1,000 keys while no node may act, then switch the nodes on."""
    started = time.monotonic()
    with tell.progress("granting", KEYS) as bar:
        for number in range(1, KEYS + 1):
            user = await stage.operator.add_user(f"customer {number}")
            granted = await stage.operator.grant(user.user_id, Term(days=30))
            stage.keys[granted.key_id] = granted
            bar.at(number)
    tell.seen(
        f"{KEYS:,} customers, each with a key, written to PostgreSQL in {span(time.monotonic() - started)}"
    )
    tell.say("The three nodes, only observed until now, are switched on.")
    with tell.progress("on their nodes", KEYS) as bar:
        began, ended = await _switch_on(stage, bar.at)
    counts = {city.name: await city.count() for city in stage.cities.values()}
    spread = ", ".join(f"{name} {count}" for name, count in counts.items())
    rate = f"{KEYS / (ended - began):,.0f} keys/s"
    tell.seen(f"{span(ended)} later every key is on its node, at {rate}", good=sum(counts.values()) == KEYS)
    tell.seen(f"spread evenly: {spread}", good=max(counts.values()) - min(counts.values()) <= 1)
    return f"{span(ended)}, {rate}"


async def knock(stage: Stage, tell: Telling) -> str:
    """Let a real client through with its key, and nobody without."""
    paris, key_id = await _favourite(stage)
    with tell.waiting("starting two VLESS clients"):
        customer = await stage.customer(paris, key_id)
        stranger = await stage.stranger(paris, _any_credential())
    started = time.monotonic()
    through = await customer.opens()
    took = span(time.monotonic() - started)
    tell.seen(f"a VLESS client with key {key_id} reaches a server through paris, in {took}", good=through)
    tell.seen("the same with a key that nobody granted is refused", good=not await stranger.opens())
    return f"through in {took}"


async def crash(stage: Stage, tell: Telling) -> str:
    """Kill a node and start it again: Xray forgets its users, and gets them back."""
    paris, key_id = await _favourite(stage)
    customer = await stage.customer(paris, key_id)
    before = await paris.users()
    tell.say(f"paris is killed. Xray keeps its {len(before)} users in memory only.")
    paris.xray.kill()

    async def noticed() -> bool:
        return (await stage.status(paris)).outcome == Outcome.UNREACHABLE

    with tell.waiting("the daemon notices"):
        took = await until(noticed, "the outage is noticed")
    others = [await stage.status(stage.cities[name]) for name in CITIES[1:]]
    tell.seen(f"reported as unreachable {span(took)} later")
    well = all(row.outcome in (Outcome.CONVERGED, Outcome.CHANGED) for row in others)
    tell.seen("tokyo and lima go on", good=well)
    await paris.xray.start()

    async def back() -> bool:
        return await paris.count() >= len(before)

    with tell.waiting("the keys come back"):
        healed = await until(back, "all keys are back")
    words = f"all {len(before)} keys are back {span(healed)} after it takes calls again"
    tell.seen(words, good=healed <= HEAL_SECONDS)
    tell.seen("with the same accounts", good=await paris.users() == before)
    tell.seen("the customer gets through again", good=await customer.opens())
    return f"{len(before)} keys in {span(healed)}"


async def meddle(stage: Stage, tell: Telling) -> str:
    """Remove a user by hand, then give its name to another credential by hand."""
    paris, key_id = await _favourite(stage)
    name, before = OWNER.name(key_id), await paris.users()
    customer = await stage.customer(paris, key_id)
    tell.say("The daemon reads every node back each second, and puts right what it finds.")

    async def repaired() -> bool:
        return (await paris.users()).get(name) == before[name]

    await paris.hand.remove(DOOR, name, CALL_SECONDS)
    with tell.waiting("it is put back"):
        removed = await until(repaired, "the removed user is back")
    words = f"somebody removes {name} on the node: back after {span(removed)}"
    tell.seen(words, good=removed <= REPAIR_SECONDS)
    other = _any_credential()
    await _alter(paris, name, Account(other))
    with tell.waiting("it is put right"):
        altered = await until(repaired, "the altered user is put right")
    words = f"somebody changes its UUID: put right after {span(altered)}"
    tell.seen(words, good=altered <= REPAIR_SECONDS)
    tell.seen("the customer gets through", good=await customer.opens())
    tell.seen("the other UUID is refused", good=not await (await stage.stranger(paris, other)).opens())
    return f"{span(removed)} and {span(altered)}"


async def visit(stage: Stage, tell: Telling) -> str:
    """Add users whose names are not ours, one of them nearly, and see them left alone."""
    paris = stage.cities["paris"]
    names = ("guest@somebody", f"k007@{OWNER.mark}")
    for name in names:
        await paris.hand.add(DOOR, name, Account(_any_credential()), CALL_SECONDS)
    before, figures = await paris.users(), await stage.daemon.figures("paris")
    tell.say(f"Somebody adds {' and '.join(names)} to paris. Our names have no zeros in front.")
    with tell.waiting("three full cycles go by"):
        await stage.await_cycles(paris, 3)
    steps = (await stage.daemon.figures("paris")).since(figures)
    counted = (await stage.status(paris)).foreign_users
    tell.seen("three full cycles later they are as they were", good=await paris.users() == before)
    nothing = not steps and counted == len(names)
    tell.seen(f"and no step was taken; status counts {counted} foreign users", good=nothing)
    return f"{sum(steps.values())} steps in 3 cycles"


async def extend(stage: Stage, tell: Telling) -> str:
    """Prolong a key, and see that only its promise changes."""
    paris, key_id = await _favourite(stage)
    before, figures = await paris.users(), await stage.daemon.figures("paris")
    extended = await stage.operator.extend(stage.keys[key_id].subscription_id, days=30)

    async def promised() -> bool:
        (row,) = await look.key(stage.connection, key_id)
        return row.promised_until == extended.expires_at

    with tell.waiting("the promise is prolonged"):
        took = await until(promised, "the promise is prolonged")
        await stage.await_cycles(paris, 2)
    steps = (await stage.daemon.figures("paris")).since(figures)
    counted = ", ".join(f"{count} {kind} {fate}" for (kind, fate), count in sorted(steps.items()))
    tell.seen(f"key {key_id} gets 30 days more: promised on its node {span(took)} later")
    tell.seen(f"all that the daemon did for it: {counted}", good=steps == {("extend", "done"): 1})
    tell.seen("the node was not touched: the same users before and after", good=await paris.users() == before)
    return f"{counted}, no other"


async def expire(stage: Stage, tell: Telling) -> str:
    """Grant a key for a few seconds, and knock until it is refused."""
    user = await stage.operator.add_user("trial customer")
    end = await stage.now() + timedelta(seconds=TRIAL_SECONDS)
    granted = await stage.operator.grant(user.user_id, Term(until=end))
    tell.say(f"A customer gets a trial of {TRIAL_SECONDS:.0f} s, and knocks again and again.")
    with tell.waiting("the key expires"):
        trial = await placed_customer(stage, granted.key_id)
        await until(trial.opens, "the trial key opens the door")
        opened_at = await stage.now()

        async def refused() -> bool:
            return not await trial.opens()

        await until(refused, "the expired key is refused")
        late = (await stage.now() - end).total_seconds()
    tell.seen("it got through", good=opened_at < end)
    words = f"a new connection is refused {span(late)} after its end by the database's clock"
    tell.seen(words, good=0 <= late <= REPAIR_SECONDS)
    tell.seen("and five more are", good=not any([await trial.opens() for _ in range(5)]))
    return f"{span(late)} after its end"


async def revoke(stage: Stage, tell: Telling) -> str:
    """Revoke half a node at once: the guard holds it."""
    paris, key_id = await _favourite(stage)
    placed = [key for key in await stage.placed_on(paris) if key in stage.keys and key != key_id]
    half = placed[: len(placed) // 2]
    before, loser = await paris.users(), await stage.customer(paris, half[0])
    ended = [stage.keys[key].subscription_id for key in half]
    await stage.operator.revoke_all(ended, len(ended), release=False)
    tell.say(f"A slip of the hand revokes {len(half)} of the {len(placed) + 1} keys on paris.")
    with tell.waiting("the guard decides"):
        await _held(stage, paris, len(half))
        await stage.await_cycles(paris, 2)
    row = await stage.status(paris)
    tell.seen(f"status: paris {row.outcome}, {row.active_users} users, {row.held_removals} removals held")
    tell.seen("two full cycles later no user of the node is gone", good=await paris.users() == before)
    tell.seen("a revoked customer still gets through", good=await loser.opens())
    return f"{len(half)} held, {await _release(stage, tell, half)}"


async def _release(stage: Stage, tell: Telling, half: list[int]) -> str:
    """Let the held removals go by an order, as `reconciler release` writes it."""
    paris, key_id = await _favourite(stage)
    before, gone = await paris.users(), {OWNER.name(key) for key in half}
    tell.say(f"It was meant after all: the operator releases these {len(half)}, as `release paris` does.")
    await stage.operator.release("paris", half)

    async def are_gone() -> bool:
        return not gone & (await paris.users()).keys()

    with tell.waiting("they are removed"):
        took = await until(are_gone, "the released keys are gone")
        await _held(stage, paris, 0)
    rest = {name: user for name, user in before.items() if name not in gone}
    loser, kept = await stage.customer(paris, half[0]), await stage.customer(paris, key_id)
    tell.seen(f"gone {span(took)} later, exactly these", good=await paris.users() == rest)
    tell.seen("the revoked customer is refused", good=not await loser.opens())
    tell.seen("the others get through", good=await kept.opens())
    return f"gone in {span(took)}"


async def _switch_on(stage: Stage, tell_done: Callable[[int], None]) -> tuple[float, float]:
    """Activate every node; return the seconds until the last look at no key, and until all were there."""
    started = time.monotonic()
    # In one statement: keys are placed within milliseconds of the first node that takes some.
    async with store_errors():
        await stage.connection.execute("UPDATE reconciler.nodes SET state = 'active'")
    empty_at = 0.0

    async def all_there() -> bool:
        nonlocal empty_at
        looked_at = time.monotonic() - started
        count = sum([await city.count() for city in stage.cities.values()])
        if not count:
            empty_at = looked_at
        tell_done(count)
        return count >= KEYS

    ended = await until(all_there, f"{KEYS:,} keys are on their nodes", 30)
    return empty_at, ended


async def _favourite(stage: Stage) -> tuple[City, int]:
    """Return the node that most chapters play on, and the first key on it."""
    paris = stage.cities["paris"]
    keys = await stage.placed_on(paris)
    if not keys:
        raise Missed("there is no key on paris")
    return paris, keys[0]


async def _alter(city: City, name: str, account: Account) -> None:
    """Put another account under a name; the daemon may put the right one back in between."""

    async def altered() -> bool:
        with suppress(NameMissing):
            await city.hand.remove(DOOR, name, CALL_SECONDS)
        try:
            await city.hand.add(DOOR, name, account, CALL_SECONDS)
        except NameTaken:
            return False
        return True

    await until(altered, "the user is altered")


async def placed_customer(stage: Stage, key_id: int) -> VlessClient:
    """Return the client of a new key, once it is known which node it belongs on."""

    async def placed() -> bool:
        (row,) = await look.key(stage.connection, key_id)
        return row.node is not None

    await until(placed, "the new key is placed")
    (row,) = await look.key(stage.connection, key_id)
    assert row.node is not None, "a key that lives stays placed"
    return await stage.customer(stage.cities[row.node], key_id)


async def _held(stage: Stage, city: City, number: int) -> None:
    """Wait until the status of a node says that so many removals are held."""

    async def are_held() -> bool:
        return (await stage.status(city)).held_removals == number

    await until(are_held, f"status says that {number} removals are held")


def _any_credential() -> Credential:
    return Credential(uuid4().bytes)
