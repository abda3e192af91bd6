"""When a key may leave its old node: never before another one surely has it, and the grace is over."""

from hypothesis import given
from hypothesis import strategies as st

from reconciler.plan.leave import Elsewhere, Leaving, confirmed_at, leaves_at

NOW = 1_000.0
instants = st.floats(0, 2_000, allow_nan=False)
elsewheres = st.builds(Elsewhere, instants, st.one_of(st.none(), instants), st.one_of(st.none(), instants))
leavings = st.builds(Leaving, st.just(True), st.integers(0, 500), st.lists(elsewheres, max_size=4))


@given(leavings)
def test_a_wanted_key_leaves_only_a_node_that_another_one_has_confirmed_for_the_grace(leaving):
    at = leaves_at(leaving, NOW)

    sure = [
        it
        for it in leaving.elsewhere
        if it.promised_at is not None
        and it.converged_at is not None
        and it.converged_at >= it.placed_at
        and it.converged_at >= it.promised_at
    ]
    if not sure:
        assert at is None
    else:
        first = min(max(it.placed_at, it.promised_at or 0) for it in sure)
        assert at == first + leaving.grace_seconds


@given(leavings, elsewheres)
def test_one_more_node_never_makes_it_later(leaving, more):
    before = leaves_at(leaving, NOW)
    after = leaves_at(leaving._replace(elsewhere=[*leaving.elsewhere, more]), NOW)

    assert before is None or (after is not None and after <= before)


@given(leavings)
def test_a_key_that_opens_no_door_leaves_at_once(leaving):
    assert leaves_at(leaving._replace(wanted=False), NOW) == NOW


def test_a_node_that_was_last_seen_before_the_key_came_has_confirmed_nothing():
    assert confirmed_at(Leaving(True, 0, [Elsewhere(10, 5, 9)])) is None
    assert confirmed_at(Leaving(True, 0, [Elsewhere(10, 5, 10)])) == 10
    assert confirmed_at(Leaving(True, 0, [Elsewhere(5, 10, 9)])) is None
    assert confirmed_at(Leaving(True, 0, [Elsewhere(10, None, 20)])) is None
    assert confirmed_at(Leaving(True, 0, [Elsewhere(10, 10, None)])) is None
