"""Keys leave a silent node by themselves only when the node is silent, and not we are deaf."""

from hypothesis import given
from hypothesis import strategies as st

from reconciler.plan.lost import Silence, allowance, lost

silent = st.dictionaries(st.integers(1, 50), st.floats(0, 1e6, allow_nan=False), max_size=20)
silences = st.builds(Silence, st.integers(0, 100), st.integers(0, 100))


@given(silent, st.integers(0, 100_000), st.lists(silences, max_size=2))
def test_a_node_is_lost_only_after_its_time_and_never_while_half_of_them_are(seconds, after, seen):
    gone = lost(seconds, after, *seen)

    assert set(gone) <= seconds.keys()
    assert all(seconds[node_id] >= after > 0 for node_id in gone)
    if any(2 * it.silent >= it.nodes for it in seen):
        assert gone == []
    elif after:
        assert set(gone) == {node_id for node_id, number in seconds.items() if number >= after}
    assert [seconds[node_id] for node_id in gone] == sorted(map(seconds.__getitem__, gone), reverse=True)


def test_one_of_two_is_half():
    assert lost({1: 900.0}, 300, Silence(2, 1)) == []
    assert lost({1: 900.0}, 300, Silence(3, 1)) == [1]
    assert lost({1: 900.0}, 300, Silence(3, 1), Silence(30, 15)) == []
    assert lost({1: 900.0}, 300, Silence(0, 0)) == []


@given(st.integers(0, 10**7), st.floats(0, 1), st.lists(st.integers(0, 10**6), max_size=10))
def test_an_hour_moves_no_more_than_its_share_in_however_many_goes(keys, share, asked):
    moved = 0
    for wish in asked:
        moved += min(wish, allowance(keys, share, moved))

    assert moved <= keys * share
    assert allowance(keys, share, keys) == 0
