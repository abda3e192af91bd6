"""
What plan/ promises, over histories that nobody would think of writing down.

A history is a list of events on a small world: rows change, people alter the
node by hand, the clock goes on, cycles run and break off at any call. Small
numbers of keys and credentials make clashes common.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from typing import TypeAlias

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from reconciler.errors import NameMissing
from reconciler.model import Account, Inbound, Listed, Promise, Standing, StepKind
from reconciler.plan.diff import diff
from reconciler.plan.settle import settle
from reconciler.plan.steps import Breach, Phase, Plan
from tests.builders import HOUR, NOW, OURS, SECOND, VISION, VLESS, credential, limits
from tests.models import Facts, Fault, Report, UserMap, World, broken_in_last_hour, cycle, folded

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

# ---------------------------------------------------------------- what may happen to a world

key_ids = st.sampled_from(KEYS)
credentials = st.builds(
    lambda number, ignored: credential(number, ignored=ignored), st.integers(1, 6), st.sampled_from([0, 9])
)
tags = st.sampled_from([VLESS.tag, SECOND.tag])
standings = st.sampled_from(
    [
        *[Standing.DESIRED] * 4,
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


def _set_row(key_id: int, standing: Standing, days: float) -> Change:
    def change(world: World) -> None:
        facts = world.facts.get(key_id)
        if facts is None:
            facts = world.facts[key_id] = Facts(key_id, credential(key_id), world.now)
        facts.standing, facts.until = standing, world.now + days * 86_400

    return change


def _rotate(key_id: int, ignored: int) -> Change:
    """Give a key a credential that no key has, or the same one with other ignored bytes."""

    def change(world: World) -> None:
        if key_id not in world.facts:
            return
        others = {facts.credential.slot for facts in world.facts.values() if facts.key_id != key_id}
        free = (credential(number, ignored=ignored) for number in (6, key_id, 1, 2, 3, 4, 5))
        world.facts[key_id].credential = next(opens for opens in free if opens.slot not in others)

    return change


def _set_flow(flow: str) -> Change:
    def change(world: World) -> None:
        world.inbounds = (replace(world.inbounds[0], flow=flow), *world.inbounds[1:])

    return change


def _pass_time(seconds: float) -> Change:
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
    st.builds(_set_row, key_ids, standings, st.sampled_from([-1.0, 0.01, 1.0, 30.0])),
    st.builds(_swap_credentials, key_ids, key_ids),
    st.builds(_rotate, key_ids, st.sampled_from([0, 9])),
)
names = st.one_of(st.sampled_from([*KEYS, *ORPHANS]).map(OURS.name), st.sampled_from(FOREIGN))
accounts = st.builds(Account, credentials, st.sampled_from(["", "", VISION]))
hands = st.one_of(
    st.builds(_put_by_hand, tags, names, accounts),
    st.builds(_take_by_hand, tags, names),
    st.just(_restart),
)
surroundings = st.one_of(
    st.builds(_pass_time, st.sampled_from([1.0, 600.0, 1_700.0, HOUR, 86_400.0])),
    st.builds(_set_flow, st.sampled_from(["", VISION])),
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
    for key_id in draw(st.frozensets(key_ids, min_size=1)):
        world.facts[key_id] = Facts(key_id, credential(key_id), NOW + 30 * 86_400)
    if draw(st.booleans()):
        cycle(world)
    return world


# ---------------------------------------------------------------- what must hold


def _wanted(world: World) -> dict[int, Facts]:
    rows = world.desired().rows
    return {key_id: facts for key_id, facts in world.facts.items() if rows[key_id].desired}


def _foreign(world: World) -> dict[str, tuple[list[Listed], list[bytes]]]:
    return {
        tag: (
            sorted(user for user in node.listing() if OURS.key_id(user.name) is None),
            sorted(slot for slot, user in node.slots.items() if OURS.key_id(user.name) is None),
        )
        for tag, node in world.nodes.items()
    }


def _check_plan(world: World, plan: Plan) -> None:
    mirror = deepcopy(world)
    mirror.facts = dict(reversed(world.facts.items()))
    for node in mirror.nodes.values():
        node.by_name = dict(reversed(node.by_name.items()))
    assert mirror.decide() == plan
    assert list(plan.steps) == sorted(plan.steps, key=lambda step: step.sort_key)
    touched = {step.key_id for step in (*plan.steps, *plan.held)}
    assert touched - world.facts.keys() <= world.purge
    for breach in Breach:
        if _over_budget(world, plan, breach):
            assert not [step for step in plan.steps if step.breach is breach], "held whole"


def _over_budget(world: World, plan: Plan, breach: Breach) -> bool:
    broken = {step.key_id for step in plan.breaching(breach)}
    rows = [world.promises.live(key_id) for key_id in broken]
    news = [row for row in rows if row is None or not row.spent(world.now)]
    live = sum(1 for row in world.promises.rows if row.ended is None)
    spent = world.promises.spent(breach, world.now)
    return bool(broken) and spent + len(news) > world.limits[breach].limit(live)


def _check_cycle(before: World, after: World, report: Report) -> None:
    assert _foreign(before) == _foreign(after), "a foreign user was touched, or lost its slot"
    if report.finished:
        _check_orphans(before, after, report.plan.orphans - before.purge)
    for breach in Breach:
        live = len([row for row in before.promises.rows if row.ended is None])
        if any(step.breach is breach for step in report.plan.steps):
            assert broken_in_last_hour(after, breach) <= after.limits[breach].limit(live)
    for key_id in before.facts:
        old, new = before.promises.live(key_id), after.promises.live(key_id)
        if old and new and old.digest:
            assert new.until >= old.until, "a promise was shortened"
    if before.unlisted and report.settlement:
        assert not report.settlement.made
        assert not report.settlement.ended


def _check_orphans(before: World, after: World, kept: frozenset[int]) -> None:
    for tag, node in before.nodes.items():
        for user in node.listing():
            if OURS.key_id(user.name) in kept:
                assert after.nodes[tag].by_name[folded(user.name)] is not None, "a kept orphan has gone"
                slot = user.account.credential.slot
                assert (slot in after.nodes[tag].slots) >= (slot in node.slots), "an orphan lost its slot"


def _run(world: World, fault: Fault | None = None) -> Report:
    _check_plan(world, world.decide())
    before = deepcopy(world)
    report = cycle(world, fault)
    _check_cycle(before, world, report)
    if report.settlement is None:
        for tag, node in before.nodes.items():
            for name in node.shut_out():  # what only the dead daemon remembered is nobody's to mend
                world.nodes[tag].let_in(name)
    return report


def _converge(world: World) -> Plan:
    """Run cycles until one has nothing to do, and check that the one after it is silent as well."""
    for _ in range(4):
        report = _run(world)
        settled = report.settlement
        assert settled is not None
        if not (report.plan.steps or settled.made or settled.extended or settled.ended):
            calls = world.calls
            assert _run(world).plan == report.plan
            assert world.calls == calls
            return report.plan
    raise AssertionError("four cycles were not enough")


def _check_doors(world: World, plan: Plan) -> None:
    """Every desired key opens the door as itself, every other has gone, but for held ones and conflicts."""
    assert not plan.unlisted
    excused = plan.held_keys
    for inbound in world.inbounds:
        node = world.nodes[inbound.tag]
        clashing = {it.key_id for it in plan.conflicts if it.inbound == inbound.tag}
        wanted = _wanted(world)
        for key_id, facts in world.facts.items():
            name = OURS.name(key_id)
            if key_id in excused | clashing:
                continue
            if key_id in wanted:
                assert node.opened_by(Account(facts.credential, inbound.flow)) == name, (
                    f"{name} is locked out"
                )
            elif key_id not in plan.orphans:
                assert key_id not in {OURS.key_id(user.name) for user in node.listing()}, f"{name} stayed"


# ---------------------------------------------------------------- properties


@settings(PLAN)
@given(worlds(), st.lists(rows_change, max_size=6))
def test_equal_states_plan_nothing(world: World, changes: list[Change]):
    for change in changes:
        change(world)
    for inbound in world.inbounds:
        world.nodes[inbound.tag].by_name.clear()
        for key_id, facts in _wanted(world).items():
            world.nodes[inbound.tag].add(OURS.name(key_id), Account(facts.credential, inbound.flow))

    plan = diff(world.desired(), world.actual(), OURS)

    assert [step for step in plan.steps if step.kind is not StepKind.EXTEND] == []
    assert plan.held == ()
    assert plan.conflicts == ()


@settings(PLAN, max_examples=400)
@given(worlds(), st.lists(st.one_of(rows_change, hands, surroundings, faults), max_size=25))
def test_any_history_converges_and_locks_nobody_out(world: World, events: list[Change | Fault | None]):
    _live_through(world, events)
    world.unlisted, world.removals_frozen = frozenset(), False

    plan = _converge(world)

    event(f"held: {bool(plan.held)}, conflicts: {bool(plan.conflicts)}")
    _check_doors(world, plan)


def _live_through(world: World, events: Sequence[Change | Fault | None]) -> None:
    for what in events:
        if what is None or isinstance(what, Fault):
            report = _run(world, what)
            if not report.finished and any(step.phase is Phase.LIFT for step in report.plan.steps):
                # A key lifted for a stale name, and their credentials swapped before the next look:
                # the stale name is right then, and its slot is empty. Nobody could tell.
                _run(world)
        else:
            what(world)


@settings(PLAN, max_examples=120)
@given(
    worlds(), st.lists(st.one_of(rows_change, rows_change, hands), max_size=5), st.sampled_from([0.0, 60.0])
)
def test_a_plan_broken_off_at_any_call_is_mended(world: World, changes: list[Change], later: float):
    for change in changes:
        change(world)
    for call in range(1, _calls(world) + 1):
        for effect in (False, True):
            for dies in (False, True):
                broken = deepcopy(world)
                _run(broken, Fault(call, effect, dies))
                broken.now += later
                _check_doors(broken, _converge(broken))


def _calls(world: World) -> int:
    whole = deepcopy(world)
    cycle(whole)
    return whole.calls - world.calls


breaking = st.one_of(
    st.builds(
        _set_row,
        key_ids,
        st.sampled_from([Standing.DESIRED, Standing.REVOKED, Standing.OVER_QUOTA, Standing.UNPLACED]),
        st.sampled_from([-1.0, 30.0]),
    ),
    st.builds(_rotate, key_ids, st.just(0)),
    st.builds(_set_flow, st.sampled_from(["", VISION])),
)
passing = st.builds(_pass_time, st.sampled_from([1.0, 900.0, 1_700.0, HOUR - 1.0, HOUR]))


@settings(PLAN, max_examples=300)
@given(worlds(budget=2), st.lists(st.one_of(breaking, breaking, faults, faults, passing), max_size=40))
def test_broken_promises_stay_within_the_budget_of_any_hour(
    world: World, events: list[Change | Fault | None]
):
    for what in events:
        _live_through(world, [what])
        assert broken_in_last_hour(world, Breach.EARLY) <= 2
        assert broken_in_last_hour(world, Breach.OVER_QUOTA) <= 2
    event(f"broken: {min(len(world.broken), 4)}")


# ---------------------------------------------------------------- a wrong UPDATE, and its correction


def _expire(world: World, hit: frozenset[int]) -> None:
    for key_id in hit:
        world.facts[key_id].until = world.now - 1.0


def _expire_sooner(world: World, hit: frozenset[int]) -> None:
    for key_id in hit:
        world.facts[key_id].until = world.now + 60.0
    for _ in range(2):
        _run(world)
        world.now += 61.0


def _revoke(world: World, hit: frozenset[int]) -> None:
    for key_id in hit:
        world.facts[key_id].standing = Standing.REVOKED


def _exhaust(world: World, hit: frozenset[int]) -> None:
    for key_id in hit:
        world.facts[key_id].standing = Standing.OVER_QUOTA


def _give_new_credentials(world: World, hit: frozenset[int]) -> None:
    for key_id in hit:
        world.facts[key_id].credential = credential(key_id + 100)


def _give_each_others_credentials(world: World, hit: frozenset[int]) -> None:
    ring = sorted(hit)
    passed_on = [world.facts[key_id].credential for key_id in ring[1:] + ring[:1]]
    for key_id, opens in zip(ring, passed_on, strict=True):
        world.facts[key_id].credential = opens


def _change_the_flow(world: World, _: frozenset[int]) -> None:
    _set_flow(VISION)(world)


EXTENDED, NEW, ENDED, MISSING, RIGHT = 11, 12, 13, 14, (1, 2, 3, 4, 5)

mistakes = st.sampled_from(
    [
        _expire,
        _expire_sooner,
        _revoke,
        _exhaust,
        _give_new_credentials,
        _give_each_others_credentials,
        _change_the_flow,
    ]
)


def _settled(*inbounds: Inbound) -> World:
    world = World(inbounds, NOW, limits=limits(2, 2))
    for key_id in (*RIGHT, EXTENDED, ENDED, MISSING):
        world.facts[key_id] = Facts(key_id, credential(key_id), NOW + 30 * 86_400)
    world.facts[ENDED].until = NOW + 10.0
    world.nodes[VLESS.tag].add("operator", Account(credential(50)))
    _converge(world)
    world.now += 20.0
    return world


def _on_node(world: World) -> dict[str, list[Listed]]:
    return {tag: sorted(node.listing()) for tag, node in world.nodes.items()}


@settings(PLAN, max_examples=100)
@given(
    mistakes,
    st.frozensets(st.sampled_from(RIGHT), min_size=3),
    st.sampled_from([(VLESS,), (VLESS, SECOND)]),
    st.integers(1, 4),
)
def test_a_mass_mistake_is_held_whole_and_its_correction_needs_no_order(
    mistake: Callable[[World, frozenset[int]], None],
    hit: frozenset[int],
    inbounds: tuple[Inbound, ...],
    cycles: int,
):
    world = _settled(*inbounds)
    hit = frozenset(RIGHT) if mistake is _change_the_flow else hit
    doors = {key_id: Account(world.facts[key_id].credential) for key_id in RIGHT}
    rows, flows = deepcopy(world.facts), world.inbounds

    mistake(world, hit)
    for _ in range(cycles):
        report = _run(world)
        assert hit <= report.plan.held_keys
        world.now += 30.0
    for node in world.nodes.values():
        assert {key_id: node.opened_by(opens) for key_id, opens in doors.items()} == {
            key_id: OURS.name(key_id) for key_id in RIGHT
        }

    world.facts, world.inbounds = rows, flows
    del world.facts[ENDED]
    before = _on_node(world)
    plan = _run(world).plan
    _converge(world)

    assert plan.held == ()
    assert {step.kind for step in plan.steps} <= {StepKind.EXTEND}
    assert _on_node(world) == before


@settings(PLAN, max_examples=60)
@given(
    st.sampled_from([_expire, _revoke, _exhaust, _give_new_credentials, _give_each_others_credentials]),
    st.frozensets(st.sampled_from(RIGHT), min_size=3),
)
def test_while_some_steps_are_held_everything_else_goes_on(
    mistake: Callable[[World, frozenset[int]], None], hit: frozenset[int]
):
    world = _settled(VLESS)
    mistake(world, hit)
    node = world.nodes[VLESS.tag]
    node.remove(OURS.name(MISSING))
    world.facts[NEW] = Facts(NEW, credential(NEW), NOW + 86_400)
    world.facts[EXTENDED].until += 86_400

    report = _run(world)

    assert report.plan.held_keys == hit
    done = {(step.kind, step.key_id) for step in report.done}
    assert done == {
        (StepKind.EXTEND, EXTENDED),
        (StepKind.ADD, NEW),
        (StepKind.ADD, MISSING),
        (StepKind.REMOVE, ENDED),
    }


@settings(PLAN, max_examples=80)
@given(
    mistakes,
    st.frozensets(st.sampled_from(RIGHT), min_size=3),
    st.frozensets(st.sampled_from([*RIGHT, EXTENDED, 99])),
)
def test_an_order_lets_exactly_its_keys_go(
    mistake: Callable[[World, frozenset[int]], None], hit: frozenset[int], ordered: frozenset[int]
):
    world = _settled(VLESS)
    mistake(world, hit)
    _run(world)
    held = world.decide().held_keys
    promised = {key_id: world.promises.of(key_id, world.now) for key_id in held - ordered}

    report = cycle(world, release=ordered)

    gone = {step.key_id for step in report.done}
    left = held - ordered
    within = len(left) <= 2
    assert gone & held == (held if within else ordered & held)
    assert report.plan.held_keys == (frozenset() if within else left)
    if not within:
        assert {key_id: world.promises.of(key_id, world.now) for key_id in left} == promised


@settings(PLAN)
@given(worlds(), st.lists(st.one_of(rows_change, hands, surroundings), max_size=15))
def test_deciding_twice_is_deciding_once(world: World, changes: list[Change]):
    for change in changes:
        change(world)
    first = world.decide()

    assert world.decide() == first
    assert settle(world.desired(), first, set()) == settle(world.desired(), first, set())


@settings(PLAN)
@given(worlds(), st.lists(st.one_of(rows_change, hands), max_size=10))
def test_an_unlisted_inbound_makes_and_ends_no_promise(world: World, changes: list[Change]):
    for change in changes:
        change(world)
    world.unlisted = frozenset({VLESS.tag})
    live: dict[int, Promise | None] = {key_id: world.promises.of(key_id, world.now) for key_id in KEYS}

    report = _run(world)

    assert all(step.inbound != VLESS.tag for step in report.plan.steps)
    for key_id, promise in live.items():
        now = world.promises.of(key_id, world.now)
        if promise is not None and now is not None:
            assert (now.digest, now.live) == (promise.digest, promise.live)
