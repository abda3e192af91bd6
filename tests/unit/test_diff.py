"""Two states in, one plan out: the rules of the diff, one by one."""

import pytest

from reconciler.model import Inbound, Listed, Promise, Protocol, Standing, StepKind
from reconciler.plan.diff import diff
from reconciler.plan.steps import Breach, Phase, Plan
from tests.builders import (
    DAY,
    LATER,
    NOW,
    OURS,
    SECOND,
    VISION,
    VLESS,
    account,
    actual,
    desired,
    kept,
    key,
    listed,
    promise,
)

GONE = [
    Standing.NOT_STARTED,
    Standing.EXPIRED,
    Standing.REVOKED,
    Standing.OVER_QUOTA,
    Standing.MOVED,
    Standing.UNPLACED,
]


def phases(plan: Plan) -> list[tuple[Phase, int]]:
    return [(step.phase, step.key_id) for step in plan.steps]


# ---------------------------------------------------------------- add, replace, remove, extend


def test_a_key_that_waits_for_another_node_is_kept_and_put_back():
    waiting = desired(kept(1, Standing.WAITING), kept(2, Standing.WAITING))

    plan = diff(waiting, actual(listed(1)), OURS)

    assert [(step.kind, step.key_id) for step in plan.steps] == [(StepKind.ADD, 2)]


def test_equal_states_plan_nothing():
    plan = diff(desired(kept(1), kept(2)), actual(listed(1), listed(2)), OURS)

    assert plan.steps == ()
    assert plan.present == {VLESS.tag: frozenset({1, 2})}


def test_a_desired_key_that_is_missing_is_added():
    (step,) = diff(desired(key(1)), actual(), OURS).steps

    assert (step.kind, step.key_id, step.account) == (StepKind.ADD, 1, account(1))
    assert step.breach is None
    assert not step.drift


def test_a_missing_key_that_was_promised_this_account_is_drift():
    (step,) = diff(desired(kept(1)), actual(), OURS).steps

    assert (step.kind, step.drift) == (StepKind.ADD, True)


@pytest.mark.parametrize(
    "there", [listed(1, opens=2), listed(1, flow=VISION), listed(1, ignored=7)], ids=["uuid", "flow", "bytes"]
)
def test_another_account_under_its_name_is_replaced(there: Listed):
    (step,) = diff(desired(kept(1)), actual(there), OURS).steps

    assert (step.kind, step.account, step.drift) == (StepKind.REPLACE, account(1), True)


@pytest.mark.parametrize("standing", GONE)
def test_a_key_that_a_row_takes_away_is_removed(standing: Standing):
    (step,) = diff(desired(kept(1, standing)), actual(listed(1)), OURS).steps

    assert (step.kind, step.key_id, step.cause) == (StepKind.REMOVE, 1, standing)


def test_a_key_without_a_row_is_kept_as_an_orphan():
    plan = diff(desired(), actual(listed(9)), OURS)

    assert plan.steps == ()
    assert plan.orphans == {9}
    assert plan.strays == frozenset()


def test_a_key_that_was_never_placed_here_is_kept():
    plan = diff(desired(kept(9, Standing.STRAY)), actual(listed(9)), OURS)

    assert plan.steps == ()
    assert plan.orphans == plan.strays == {9}


def test_an_ordered_orphan_is_removed_and_no_other():
    (step,) = diff(desired(), actual(listed(8), listed(9)), OURS, purge=frozenset({8})).steps

    assert (step.kind, step.key_id, step.breach) == (StepKind.REMOVE, 8, None)


def test_an_order_for_orphans_takes_no_key_that_has_become_desired():
    assert diff(desired(kept(8)), actual(listed(8)), OURS, purge=frozenset({8})).steps == ()


def test_a_longer_subscription_extends_the_promise_and_leaves_the_node():
    row = key(1, until=LATER + DAY, promised=promise(1, LATER))
    (step,) = diff(desired(row), actual(listed(1)), OURS).steps

    assert (step.kind, step.until, step.inbound) == (StepKind.EXTEND, LATER + DAY, "")


def test_a_shorter_subscription_shortens_no_promise():
    row = key(1, until=NOW + DAY, promised=promise(1, LATER))

    assert diff(desired(row), actual(listed(1)), OURS).steps == ()


@pytest.mark.parametrize("promised", [promise(2), promise(1, live=False)], ids=["other", "ended"])
def test_only_a_live_promise_of_its_account_is_extended(promised: Promise):
    row = key(1, until=LATER + DAY, promised=promised)

    assert diff(desired(row), actual(listed(1)), OURS).steps == ()


# ---------------------------------------------------------------- early or routine


def only_breach(row_promise: Promise | None, standing: Standing = Standing.EXPIRED) -> Breach | None:
    (step,) = diff(desired(key(1, standing, promised=row_promise)), actual(listed(1)), OURS).steps
    return step.breach


def test_a_removal_is_routine_from_the_promised_instant_on():
    assert only_breach(promise(1, NOW)) is None
    assert only_breach(promise(1, NOW + 0.000001)) is Breach.EARLY


def test_a_removal_after_the_promise_has_ended_is_routine():
    assert only_breach(promise(1, LATER, live=False), Standing.REVOKED) is None


def test_a_removal_without_a_promise_on_record_is_early():
    assert only_breach(None) is Breach.EARLY


@pytest.mark.parametrize(
    ("standing", "breach"),
    [
        (Standing.EXPIRED, Breach.EARLY),
        (Standing.NOT_STARTED, Breach.EARLY),
        (Standing.REVOKED, Breach.EARLY),
        (Standing.UNPLACED, Breach.EARLY),
        (Standing.OVER_QUOTA, Breach.OVER_QUOTA),
        (Standing.MOVED, None),
    ],
)
def test_taking_away_what_is_promised_is_early_unless_it_has_moved(standing: Standing, breach: Breach | None):
    assert only_breach(promise(1), standing) is breach


@pytest.mark.parametrize(
    ("promised", "breach"),
    [
        (promise(1), None),  # towards the promised account: repair
        (promise(2), Breach.EARLY),  # away from it
        (promise(2, live=False), None),  # nothing is promised any more
        (None, Breach.EARLY),  # no promise on record
    ],
    ids=["towards", "away", "ended", "none"],
)
def test_a_replace_is_early_when_it_leaves_the_promised_account(
    promised: Promise | None, breach: Breach | None
):
    (step,) = diff(desired(key(1, promised=promised)), actual(listed(1, opens=2)), OURS).steps

    assert step.breach is breach


# ---------------------------------------------------------------- ours and foreign


@pytest.mark.parametrize(
    "name",
    [
        "operator",
        "k1@elsewhere",
        "k01@ours",
        "k0@ours",
        "k-1@ours",
        "k1@ours@ours",
        "k1@ours ",
        "1@ours",
        "k٢@ours",
        "\u212a2@ours",
    ],
)
def test_a_user_without_our_mark_is_left_alone(name: str):
    plan = diff(desired(kept(1, Standing.REVOKED)), actual(listed(name, opens=5)), OURS)

    assert (plan.steps, plan.held, plan.orphans) == ((), (), frozenset())
    assert plan.foreign == 1


def test_our_mark_is_known_in_capitals():
    (step,) = diff(desired(kept(1, Standing.REVOKED)), actual(listed("K1@OURS", opens=1)), OURS).steps

    assert (step.kind, step.key_id) == (StepKind.REMOVE, 1)


def test_foreign_names_are_counted_once_over_all_inbounds():
    both = {VLESS.tag: (listed("operator"),), SECOND.tag: (listed("operator"), listed("guest"))}

    assert diff(desired(inbounds=(VLESS, SECOND)), both, OURS).foreign == 2


# ---------------------------------------------------------------- several inbounds, one order


def test_each_inbound_gets_its_own_steps_and_flow():
    vision = Inbound("vision", Protocol.VLESS, VISION)
    there = {VLESS.tag: (listed(1),), vision.tag: (listed(1),)}
    (step,) = diff(desired(kept(1), inbounds=(VLESS, vision)), there, OURS).steps

    assert (step.inbound, step.kind, step.account) == (vision.tag, StepKind.REPLACE, account(1, VISION))


def test_an_inbound_that_was_not_listed_gets_no_step():
    plan = diff(desired(kept(1), inbounds=(VLESS, SECOND)), actual(), OURS)

    assert [step.inbound for step in plan.steps] == [VLESS.tag]
    assert plan.unlisted == (SECOND.tag,)


def test_one_difference_reads_as_one_plan():
    rows = [kept(5), kept(3, Standing.REVOKED), key(1, promised=promise(1, NOW)), kept(4), kept(2)]
    there = [listed(3), listed(1, opens=7), listed("x", opens=4), listed("b", opens=2), listed("a", opens=2)]

    plan = diff(desired(*rows), actual(*there), OURS)

    assert diff(desired(*rows[::-1]), actual(*there[::-1]), OURS) == plan
    assert [it.key_id for it in plan.conflicts] == [2, 4]
    assert phases(plan) == [(Phase.EXTEND, 1), (Phase.ADD, 5), (Phase.REPLACE, 1), (Phase.REMOVE, 3)]
