"""What the diff and the settlement promise, over histories that nobody would think of writing down."""

from copy import deepcopy

from hypothesis import event, given, settings
from hypothesis import strategies as st

from reconciler.model import Account, Promise, StepKind
from reconciler.plan.diff import diff
from reconciler.plan.settle import Settling, settle
from tests.builders import OURS, VLESS
from tests.cycles import Fault, World, cycle
from tests.histories import KEYS, PLAN, Change, Event, faults, hands, rows_change, surroundings, worlds
from tests.invariants import check_doors, converge, live_through, run, wanted


@settings(PLAN)
@given(worlds(), st.lists(rows_change, max_size=6))
def test_equal_states_plan_nothing(world: World, changes: list[Change]):
    for change in changes:
        change(world)
    for inbound in world.inbounds:
        world.nodes[inbound.tag].by_name.clear()
        for key_id, facts in wanted(world).items():
            world.nodes[inbound.tag].add(OURS.name(key_id), Account(facts.credential, inbound.flow))

    plan = diff(world.desired(), world.actual(), OURS)

    assert [step for step in plan.steps if step.kind is not StepKind.EXTEND] == []
    assert plan.held == ()
    assert plan.conflicts == ()


@settings(PLAN, max_examples=800)
@given(worlds(), st.lists(st.one_of(rows_change, hands, hands, surroundings, faults, faults), max_size=25))
def test_any_history_converges_and_locks_nobody_out(world: World, events: list[Event]):
    live_through(world, events)
    world.unlisted, world.removals_frozen = frozenset(), False

    plan = converge(world)

    event(f"held: {bool(plan.held)}, conflicts: {bool(plan.conflicts)}")
    check_doors(world, plan)


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
                run(broken, Fault(call, effect, dies))
                broken.now += later
                check_doors(broken, converge(broken))


def _calls(world: World) -> int:
    whole = deepcopy(world)
    cycle(whole)
    return whole.calls - world.calls


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

    report = run(world)

    assert all(step.inbound != VLESS.tag for step in report.plan.steps)
    for key_id, promise in live.items():
        now = world.promises.of(key_id, world.now)
        if promise is not None and now is not None:
            assert (now.digest, now.live) == (promise.digest, promise.live)


@settings(PLAN)
@given(worlds(), st.lists(st.one_of(rows_change, hands, surroundings), max_size=15), st.data())
def test_settling_while_steps_go_on_writes_what_settling_afterwards_does(
    world: World, changes: list[Change], data: st.DataObject
):
    for change in changes:
        change(world)
    plan, desired = world.decide(), world.desired()
    done = data.draw(st.permutations(plan.steps), label="acknowledged")
    done = done[: data.draw(st.integers(0, len(done)), label="of them")]
    settling, parts = Settling(desired, plan), []
    for step in done:
        if step.kind is not StepKind.EXTEND:
            settling.done(step)
        if data.draw(st.booleans(), label="write"):
            parts.append(settling.take())

    whole = settle(desired, plan, done)
    parts.append(settle(desired, plan, done, settling.settled))

    assert sorted(it.key_id for part in parts for it in part.made) == sorted(it.key_id for it in whole.made)
    assert {it for part in parts for it in part.made} == set(whole.made)
    assert sorted(it.key_id for part in parts for it in part.ended) == sorted(it.key_id for it in whole.ended)
    assert {it for part in parts for it in part.ended} == set(whole.ended)
    assert {it for part in parts for it in part.extended} == set(whole.extended)
    assert parts[-1].active_users == whole.active_users
