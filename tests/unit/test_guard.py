"""The guard: a few broken promises are the day's work, many at once are held whole."""

import pytest

from reconciler.model import KeyRow, Promise, Standing, StepKind
from reconciler.plan.guard import Budget, decide
from reconciler.plan.steps import Breach, Plan
from tests.builders import (
    LATER,
    NOW,
    OURS,
    SECOND,
    VLESS,
    actual,
    desired,
    kept,
    key,
    limits,
    listed,
    promise,
)


def judged(
    *rows: KeyRow,
    early: int = 2,
    quota: int = 2,
    share: float = 0.0,
    early_spent: int = 0,
    quota_spent: int = 0,
) -> Plan:
    there = actual(*(listed(row.key_id) for row in rows))
    return decide(
        desired(*rows, early_spent=early_spent, quota_spent=quota_spent),
        there,
        OURS,
        limits(early, quota, share),
    )


def revoked(*key_ids: int) -> list[KeyRow]:
    return [kept(key_id, Standing.REVOKED) for key_id in key_ids]


def exhausted(*key_ids: int) -> list[KeyRow]:
    return [kept(key_id, Standing.OVER_QUOTA) for key_id in key_ids]


def test_early_steps_within_the_budget_are_let_through():
    plan = judged(*revoked(1, 2))

    assert [step.key_id for step in plan.steps] == [1, 2]
    assert plan.held == ()


def test_one_early_step_too_many_holds_all_of_them():
    plan = judged(*revoked(1, 2, 3))

    assert plan.steps == ()
    assert plan.held_keys == {1, 2, 3}


def test_what_the_last_hour_has_spent_counts():
    assert judged(*revoked(1), early_spent=1).held == ()
    assert judged(*revoked(1), early_spent=2).held_keys == {1}


def test_a_step_that_is_counted_already_is_not_counted_twice():
    spent = key(1, Standing.REVOKED, promised=promise(1, spent=True))

    assert judged(spent, *revoked(2), early_spent=1).held == ()
    assert judged(spent, *revoked(2, 3), early_spent=1).held_keys == {1, 2, 3}


def test_a_promise_made_anew_is_paid_for_anew():
    again = key(1, Standing.REVOKED, promised=promise(1, live=True, spent=False))

    assert judged(again, early_spent=2).held_keys == {1}


def test_a_share_of_the_live_promises_raises_the_budget():
    rows = [*revoked(1, 2, 3), *(kept(key_id) for key_id in range(4, 13))]

    assert judged(*rows, early=0, share=0.25).held == ()
    assert judged(*rows[:-1], early=0, share=0.25).held_keys == {1, 2, 3}


def test_ended_promises_do_not_raise_the_budget():
    ended = [key(number, promised=promise(number, live=False)) for number in range(4, 50)]

    assert judged(*revoked(1, 2, 3), *ended, early=0, share=0.5).held_keys == {1, 2, 3}


def test_the_greater_of_floor_and_share_holds():
    assert Budget(5, 0.1).limit(10) == 5
    assert Budget(5, 0.1).limit(100) == 10


def test_keys_over_their_quota_have_a_budget_of_their_own():
    plan = judged(*exhausted(1, 2, 3), *revoked(4, 5), early_spent=0, quota_spent=0)

    assert plan.held_keys == {1, 2, 3}
    assert [step.key_id for step in plan.steps] == [4, 5]


@pytest.mark.parametrize(("early", "quota", "held"), [(0, 2, {1}), (2, 0, set[int]())], ids=["own", "other"])
def test_a_budget_is_spent_by_its_own_kind_alone(early: int, quota: int, held: set[int]):
    assert judged(*exhausted(1), early_spent=early, quota_spent=quota).held_keys == held


def test_a_key_counts_once_however_many_inbounds_it_leaves():
    both = {VLESS.tag: (listed(1), listed(2)), SECOND.tag: (listed(1), listed(2))}
    plan = decide(desired(*revoked(1, 2), inbounds=(VLESS, SECOND)), both, OURS, limits(2))

    assert len(plan.steps) == 4


def test_routine_removals_repairs_adds_and_extends_go_on():
    rows = desired(
        *revoked(1, 2, 3),
        kept(4, Standing.EXPIRED, until=NOW),
        kept(5, Standing.MOVED),
        kept(6),
        key(7),
        key(8, until=LATER + 1, promised=promise(8)),
    )
    there = actual(listed(1), listed(2), listed(3), listed(4), listed(5), listed(6, opens=60), listed(8))

    plan = decide(rows, there, OURS, limits(2))

    assert plan.held_keys == {1, 2, 3}
    assert [(step.kind, step.key_id) for step in plan.steps] == [
        (StepKind.EXTEND, 8),
        (StepKind.ADD, 7),
        (StepKind.REPLACE, 6),
        (StepKind.REMOVE, 4),
        (StepKind.REMOVE, 5),
    ]


def test_repairs_never_touch_the_budget():
    rows = [kept(number) for number in range(1, 9)]
    there = actual(*(listed(number, opens=number + 50) for number in range(1, 9)))

    plan = decide(desired(*rows, early_spent=2), there, OURS, limits(2))

    assert len(plan.steps) == 8
    assert plan.held == ()


def test_replaces_away_from_the_promised_account_are_held_whole():
    rows = [key(number, opens=number + 50, promised=promise(number)) for number in (1, 2, 3)]

    assert judged(*rows).held_keys == {1, 2, 3}
    assert judged(*rows[:2]).held == ()


def test_while_removals_are_frozen_nothing_is_taken_away():
    rows = desired(
        kept(1, Standing.EXPIRED, until=NOW),
        kept(2, Standing.MOVED),
        key(3, opens=30, promised=promise(3)),
        kept(4),
        key(5),
    )
    there = actual(listed(1), listed(2), listed(3), listed(4, opens=40), listed(9))

    plan = decide(rows, there, OURS, limits(9), removals_frozen=True, purge=frozenset({9}))

    assert plan.held_keys == {1, 2, 3, 9}
    assert [(step.kind, step.key_id) for step in plan.steps] == [(StepKind.ADD, 5), (StepKind.REPLACE, 4)]


def test_a_budget_that_is_overdrawn_holds_nothing_when_there_is_nothing_to_hold():
    plan = judged(kept(1), early_spent=50)

    assert (plan.steps, plan.held) == ((), ())


@pytest.mark.parametrize("breach", Breach)
def test_a_zero_budget_lets_nothing_through(breach: Breach):
    standing = Standing.REVOKED if breach is Breach.EARLY else Standing.OVER_QUOTA
    row = key(1, standing, promised=Promise(b"", float("inf"), live=True))

    assert judged(row, early=0, quota=0).held_keys == {1}
