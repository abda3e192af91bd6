"""Names that share a masked UUID: the last one has it, any that goes empties it, no listing says so."""

import pytest

from reconciler.model import KeyRow, Owner, Standing
from reconciler.plan.diff import Hold, diff
from reconciler.plan.slots import folded
from reconciler.plan.steps import Breach, Phase, Plan
from tests.builders import DAY, NOW, OURS, VISION, actual, credential, desired, kept, key, listed


def phases(plan: Plan) -> list[tuple[Phase, int]]:
    return [(step.phase, step.key_id) for step in plan.steps]


@pytest.mark.parametrize(
    ("name", "owner"), [("\u212a1@ours", OURS), ("k1@sh\u0130p", Owner("ship"))], ids=["kelvin", "dotted-i"]
)
def test_a_foreign_name_that_xray_takes_for_ours_is_a_conflict(name: str, owner: Owner):
    plan = diff(desired(kept(1)), actual(listed(name, opens=5)), owner)

    assert plan.steps == ()
    assert [(it.key_id, it.name, it.desired) for it in plan.conflicts] == [(1, name, True)]


def test_names_are_folded_character_by_character():
    assert folded("\u212aEY@SH\u0130P") == "key@ship"


def test_a_foreign_user_in_the_slot_keeps_a_key_off():
    plan = diff(desired(kept(1)), actual(listed("operator", opens=1, ignored=7)), OURS)

    assert plan.steps == ()
    assert [(it.key_id, it.name, it.desired) for it in plan.conflicts] == [(1, "operator", True)]


@pytest.mark.parametrize("row", [kept(1, Standing.REVOKED), kept(1)], ids=["remove", "replace"])
def test_a_key_does_not_leave_a_slot_with_a_foreign_user(row: KeyRow):
    plan = diff(desired(row), actual(listed(1, opens=3), listed("operator", opens=3)), OURS)

    assert plan.steps == ()
    assert [it.key_id for it in plan.conflicts] == [1]


def test_a_key_does_not_leave_a_slot_with_a_kept_orphan():
    plan = diff(desired(kept(1, Standing.REVOKED)), actual(listed(1), listed(9, opens=1)), OURS)

    assert plan.steps == ()
    assert [(it.key_id, it.name) for it in plan.conflicts] == [(1, "k9@ours")]


def test_an_ordered_orphan_does_not_leave_a_slot_with_a_kept_one():
    there = actual(listed(8, opens=5), listed(9, opens=5))
    plan = diff(desired(), there, OURS, purge=frozenset({8}))

    assert plan.steps == ()
    assert [(it.key_id, it.name) for it in plan.conflicts] == [(8, "k9@ours")]


def test_a_stale_name_leaves_the_slot_before_its_new_key_comes():
    rows = desired(kept(1, Standing.REVOKED), key(2, opens=5))
    plan = diff(rows, actual(listed(1, opens=5)), OURS)

    assert phases(plan) == [(Phase.FREE, 1), (Phase.ADD, 2)]


def test_a_key_that_may_lose_its_slot_is_lifted_first():
    rows = desired(kept(1, Standing.REVOKED), kept(2))
    plan = diff(rows, actual(listed(1, opens=2), listed(2)), OURS)

    assert phases(plan) == [(Phase.LIFT, 2), (Phase.FREE, 1)]


def test_credentials_in_a_ring_are_all_freed_before_any_comes_back():
    rows = desired(key(1, opens=2), key(2, opens=3), key(3, opens=1))
    plan = diff(rows, actual(listed(1), listed(2), listed(3)), OURS)

    assert phases(plan) == [(Phase.FREE, 1), (Phase.FREE, 2), (Phase.FREE, 3)]


def test_another_account_in_the_same_slot_is_replaced_on_the_spot():
    plan = diff(desired(kept(1)), actual(listed(1, ignored=3)), OURS)

    assert phases(plan) == [(Phase.REPLACE, 1)]


def test_a_routine_removal_waits_while_a_held_key_stands_in_its_slot():
    """Removing either of two names that share a slot shuts both out, so the guard would be walked around."""
    rows = desired(kept(1, Standing.REVOKED), kept(2, Standing.EXPIRED, until=NOW - DAY))
    there = actual(listed(1, opens=2), listed(2))

    plan = diff(rows, there, OURS, Hold(frozenset({Breach.EARLY})))

    assert plan.steps == ()
    assert plan.held_keys == {1, 2}


def test_a_key_whose_slot_a_foreign_user_has_left_is_put_in_anew():
    """Removing a user empties the slot, whoever holds it, and the listing goes on showing our key."""
    rows, shared = desired(kept(1)), actual(listed(1), listed("operator", opens=1))
    first = diff(rows, shared, OURS, crowded=frozenset())
    second = diff(rows, actual(listed(1)), OURS, crowded=first.crowded)
    third = diff(rows, actual(listed(1)), OURS, crowded=second.crowded)

    assert (first.steps, first.conflicts != ()) == ((), True)
    assert phases(second) == [(Phase.LIFT, 1)]
    assert third.steps == ()


def test_an_inbound_that_cannot_be_listed_is_remembered_until_it_can():
    rows, shared = desired(kept(1)), actual(listed(1), listed("operator", opens=1))
    first = diff(rows, shared, OURS, crowded=frozenset())
    blind = diff(rows, {}, OURS, crowded=first.crowded)
    third = diff(rows, actual(listed(1)), OURS, crowded=blind.crowded)

    assert phases(third) == [(Phase.LIFT, 1)]


def test_a_key_that_could_not_be_put_in_anew_at_once_is_when_it_can():
    two = [listed("guest", opens=1), listed("operator", opens=1)]
    first = diff(desired(kept(1)), actual(listed(1), *two), OURS, crowded=frozenset())
    second = diff(desired(kept(1, Standing.REVOKED)), actual(listed(1), two[0]), OURS, crowded=first.crowded)
    hold = Hold(frozenset({Breach.EARLY}))
    third = diff(desired(kept(1, Standing.REVOKED)), actual(listed(1)), OURS, hold, crowded=second.crowded)
    fourth = diff(desired(kept(1)), actual(listed(1)), OURS, hold, crowded=third.crowded)

    assert (first.steps, second.steps, third.steps) == ((), (), ())
    assert phases(fourth) == [(Phase.LIFT, 1)]


def test_what_our_own_steps_change_is_no_suspicion():
    rows = desired(kept(1, Standing.REVOKED), kept(2))
    hold = Hold(frozenset({Breach.EARLY}))
    shared = actual(listed(1, opens=2), listed(2))
    held = diff(rows, shared, OURS, hold, crowded=frozenset())
    freed = diff(rows, shared, OURS, crowded=held.crowded)
    after = diff(rows, actual(listed(2)), OURS, crowded=freed.crowded)

    assert phases(freed) == [(Phase.LIFT, 2), (Phase.FREE, 1)]
    assert after.steps == ()


def test_an_orphan_that_came_into_the_slot_of_a_key_does_not_keep_it():
    rows, shared = desired(kept(1)), actual(listed(1), listed(9, opens=1, flow=VISION))
    first = diff(rows, shared, OURS, crowded=frozenset())
    second = diff(rows, shared, OURS, crowded=first.crowded)

    assert phases(first) == [(Phase.LIFT, 1)]
    assert second.steps == ()


def test_a_look_that_remembers_nothing_suspects_nothing():
    assert diff(desired(kept(1)), actual(listed(1), listed(9, opens=1)), OURS).steps == ()


def test_credentials_of_the_builders_differ_in_their_slots():
    assert len({credential(number).slot for number in range(200)}) == 200
