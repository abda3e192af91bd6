"""
What may happen to a small world, for histories that hypothesis writes.

Rows change, people alter the node by hand, the clock goes on, cycles break
off at any call. Small numbers of keys and credentials make clashes common.
"""

from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from typing import TypeAlias

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from reconciler.errors import NameMissing
from reconciler.model import Account, Standing
from tests.builders import HOUR, NOW, OURS, SECOND, VISION, VLESS, credential, limits
from tests.cycles import Facts, Fault, World, cycle
from tests.models import UserMap, folded

settings.register_profile(
    "plan",
    deadline=None,
    max_examples=150,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
PLAN = settings.get_profile("plan")

KEYS = (1, 2, 3, 4, 5)
ORPHANS = (7, 8)
FOREIGN = ("operator", "k1@elsewhere", "\u212a1@ours", "k01@ours", "K٢@ours")

Change: TypeAlias = Callable[[World], None]
Event: TypeAlias = Change | Fault | None
"""What happens next: a change, or a cycle, with its fault if it has one."""

# ---------------------------------------------------------------- what may happen to a world

key_ids = st.sampled_from(KEYS)
credentials = st.builds(
    lambda number, ignored: credential(number, ignored=ignored),
    st.sampled_from([1, 1, 2, 2, 3, 4, 5, 6]),
    st.sampled_from([0, 9]),
)
tags = st.sampled_from([VLESS.tag, SECOND.tag])
standings = st.sampled_from(
    [
        *[Standing.DESIRED] * 4,
        Standing.WAITING,
        Standing.NOT_STARTED,
        Standing.REVOKED,
        Standing.OVER_QUOTA,
        Standing.MOVED,
        Standing.UNPLACED,
        Standing.STRAY,
    ]
)


def _swap_credentials(one: int, other: int) -> Change:
    def change(world: World) -> None:
        if one in world.facts and other in world.facts:
            first, second = world.facts[one], world.facts[other]
            first.credential, second.credential = second.credential, first.credential

    return change


def set_row(key_id: int, standing: Standing, days: float) -> Change:
    def change(world: World) -> None:
        facts = world.facts.get(key_id)
        if facts is None:
            facts = world.facts[key_id] = Facts(key_id, credential(key_id), world.now)
        facts.standing, facts.until = standing, world.now + days * 86_400

    return change


def rotate(key_id: int, ignored: int) -> Change:
    """Give a key a credential that no key has, or the same one with other ignored bytes."""

    def change(world: World) -> None:
        if key_id not in world.facts:
            return
        others = {facts.credential.slot for facts in world.facts.values() if facts.key_id != key_id}
        free = (credential(number, ignored=ignored) for number in (6, key_id, 1, 2, 3, 4, 5))
        world.facts[key_id].credential = next(opens for opens in free if opens.slot not in others)

    return change


def set_flow(flow: str) -> Change:
    def change(world: World) -> None:
        world.inbounds = (replace(world.inbounds[0], flow=flow), *world.inbounds[1:])

    return change


def pass_time(seconds: float) -> Change:
    def change(world: World) -> None:
        world.now += seconds

    return change


def _put_by_hand(tag: str, name: str, opens: Account) -> Change:
    def change(node: UserMap) -> None:
        with suppress(NameMissing):
            node.remove(name)
        node.add(name, opens)

    return _seen(tag, change)


def _take_by_hand(tag: str, name: str) -> Change:
    def change(node: UserMap) -> None:
        with suppress(NameMissing):
            node.remove(name)

    return _seen(tag, change)


def _seen(tag: str, change: Callable[[UserMap], None]) -> Change:
    """Leave out what no listing can tell: a clash that came and went between two looks."""

    def changed(world: World) -> None:
        if tag not in world.nodes:
            return
        node = deepcopy(world.nodes[tag])
        change(node)
        remembered = {OURS.name(it.key_id) for it in world.crowded if it.inbound == tag}
        news = node.shut_out() - world.nodes[tag].shut_out()
        same = sorted(node.listing()) == sorted(world.nodes[tag].listing())
        if not same and all(OURS.key_id(name) is None or folded(name) in remembered for name in news):
            world.nodes[tag] = node

    return changed


def _restart(world: World) -> None:
    for node in world.nodes.values():
        node.by_name.clear()
        node.slots.clear()


def _set_unlisted(names: frozenset[str]) -> Change:
    def change(world: World) -> None:
        world.unlisted = names & world.nodes.keys()

    return change


def _set_purge(ordered: frozenset[int]) -> Change:
    def change(world: World) -> None:
        world.purge = ordered

    return change


def _turn_freeze(world: World) -> None:
    world.removals_frozen = not world.removals_frozen


rows_change = st.one_of(
    st.builds(set_row, key_ids, standings, st.sampled_from([-1.0, 0.01, 1.0, 30.0])),
    st.builds(_swap_credentials, key_ids, key_ids),
    st.builds(rotate, key_ids, st.sampled_from([0, 9])),
)
names = st.one_of(st.sampled_from([*KEYS, *ORPHANS]).map(OURS.name), st.sampled_from(FOREIGN))
accounts = st.builds(Account, credentials, st.sampled_from(["", "", VISION]))
hands = st.one_of(
    st.builds(_put_by_hand, tags, names, accounts),
    st.builds(_take_by_hand, tags, names),
    st.just(_restart),
)
surroundings = st.one_of(
    st.builds(pass_time, st.sampled_from([1.0, 600.0, 1_700.0, HOUR, 86_400.0])),
    st.builds(set_flow, st.sampled_from(["", VISION])),
    st.builds(_set_unlisted, st.frozensets(tags, max_size=1)),
    st.builds(_set_purge, st.frozensets(st.sampled_from(ORPHANS))),
    st.just(_turn_freeze),
)
faults = st.one_of(
    st.none(), st.builds(Fault, call=st.integers(1, 8), effect=st.booleans(), dies=st.booleans())
)


@st.composite
def worlds(draw: st.DrawFn, *, budget: int | None = None) -> World:
    inbounds = (VLESS, SECOND) if draw(st.booleans()) else (VLESS,)
    floor = draw(st.integers(0, 3)) if budget is None else budget
    share = draw(st.sampled_from([0.0, 0.3])) if budget is None else 0.0
    world = World(inbounds, NOW, limits=limits(floor, floor, share))
    some = st.frozensets(key_ids, min_size=1)
    for key_id in draw(st.one_of(st.just(frozenset(KEYS)), st.just(frozenset(KEYS[:3])), some)):
        world.facts[key_id] = Facts(key_id, credential(key_id), NOW + 30 * 86_400)
    if not draw(st.sampled_from([False, False, False, True])):
        cycle(world)
    return world
