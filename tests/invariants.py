"""What must hold of a node all along its history, and once it has converged."""

from collections.abc import Sequence
from copy import deepcopy

from reconciler.model import Account, Listed
from reconciler.plan.steps import Breach, Phase, Plan
from tests.builders import OURS
from tests.cycles import Facts, Fault, Report, World, broken_in_last_hour, cycle
from tests.histories import Event
from tests.models import folded


def wanted(world: World) -> dict[int, Facts]:
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


def run(world: World, fault: Fault | None = None) -> Report:
    _check_plan(world, world.decide())
    before = deepcopy(world)
    report = cycle(world, fault)
    _check_cycle(before, world, report)
    if report.settlement is None:
        for tag, node in before.nodes.items():
            for name in node.shut_out():  # what only the dead daemon remembered is nobody's to mend
                world.nodes[tag].let_in(name)
    return report


def converge(world: World) -> Plan:
    """Run cycles until one has nothing to do, and check that the one after it is silent as well."""
    for _ in range(4):
        report = run(world)
        settled = report.settlement
        assert settled is not None
        if not (report.plan.steps or settled.made or settled.extended or settled.ended):
            calls = world.calls
            assert run(world).plan == report.plan
            assert world.calls == calls
            return report.plan
    raise AssertionError("four cycles were not enough")


def check_doors(world: World, plan: Plan) -> None:
    """Every desired key opens the door as itself, every other has gone, but for held ones and conflicts."""
    assert not plan.unlisted
    excused = plan.held_keys
    for inbound in world.inbounds:
        node = world.nodes[inbound.tag]
        clashing = {it.key_id for it in plan.conflicts if it.inbound == inbound.tag}
        due = wanted(world)
        for key_id, facts in world.facts.items():
            name = OURS.name(key_id)
            if key_id in excused | clashing:
                continue
            if key_id in due:
                assert node.opened_by(Account(facts.credential, inbound.flow)) == name, (
                    f"{name} is locked out"
                )
            elif key_id not in plan.orphans:
                assert key_id not in {OURS.key_id(user.name) for user in node.listing()}, f"{name} stayed"


def live_through(world: World, events: Sequence[Event]) -> None:
    for what in events:
        if what is None or isinstance(what, Fault):
            report = run(world, what)
            if not report.finished and any(step.phase is Phase.LIFT for step in report.plan.steps):
                # A key lifted for a stale name, and their credentials swapped before the next look:
                # the stale name is right then, and its slot is empty. Nobody could tell.
                run(world)
        else:
            what(world)
