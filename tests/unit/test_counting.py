from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.plan.counting import (
    GREATEST_BYTES,
    Change,
    Counted,
    Counts,
    Reading,
    Remembered,
    count,
    present,
)
from tests.builders import OURS


def told(*counters: tuple[str, int]) -> Counts:
    counts = Counts(OURS)
    counts.take([name for name, _ in counters], [value for _, value in counters])
    return counts


def named(user: str, way: str = "up") -> str:
    return f"user>>>{user}>>>traffic>>>{way}link"


@pytest.mark.parametrize("name", ["k1@ours", "K1@OURS", "k1@Ours"])
def test_ours_in_any_case_is_counted(name: str):
    counts = told((named(name), 5), (named(name, "down"), 7))
    assert (counts.up, counts.down, counts.number) == ({1: 5}, {1: 7}, 2)


@pytest.mark.parametrize(
    "name", ["k1@other", "k01@ours", "k0@ours", "", "k1@ours@ours", "\N{KELVIN SIGN}1@ours", f"k{2**63}@ours"]
)
def test_whoever_else_is_foreign(name: str):
    counts = told((named(name), 5))
    assert (counts.up, counts.foreign, counts.malformed) == ({}, 1, 0)


@pytest.mark.parametrize(
    "name", ["", "user>>>k1@ours", "user>>>k1@ours>>>traffic>>>up", "x" + named("k1@ours")]
)
def test_what_is_no_users_traffic_is_malformed(name: str):
    counts = told((name, 5), (named("k2@ours"), 1))
    assert (counts.up, counts.foreign, counts.malformed) == ({2: 1}, 0, 1)


@pytest.mark.parametrize("value", [-1, -(2**63), GREATEST_BYTES + 1, 2**63 - 1])
def test_a_value_that_no_traffic_has_is_left_out(value: int):
    counts = told((named("k1@ours"), value), (named("k1@ours", "down"), 3))
    assert (counts.up, counts.down, counts.refused) == ({}, {1: 3}, 1)


def test_spellings_of_one_key_add_up_and_never_beyond_the_bound():
    names = ("k1@ours", "K1@ours", "k1@OURS")
    assert told(*((named(name), 10) for name in names)).up == {1: 30}
    assert told(*((named(name), GREATEST_BYTES) for name in names)).up == {1: GREATEST_BYTES}


@given(
    st.dictionaries(st.integers(1, 10**7), st.integers(0, 100), max_size=300),
    st.dictionaries(st.integers(1, 10**7), st.integers(0, 100), max_size=300),
)
def test_readings_are_all_there_is_by_key_and_nothing_changed_where_it_is_remembered(
    up: dict[int, int], down: dict[int, int]
):
    counts = Counts(OURS, up, down)
    readings = [reading for piece in counts.readings() for reading in piece]
    remembered = Remembered(1)
    remembered.extend(readings)

    assert [reading.key_id for reading in readings] == sorted(up.keys() | down.keys())
    assert all((up.get(key), down.get(key)) == (high, low) for key, high, low in readings)
    assert [reading for piece in remembered.changed(counts) for reading in piece] == []


@given(
    st.dictionaries(st.integers(1, 50), st.integers(0, 3)),
    st.dictionaries(st.integers(1, 50), st.integers(0, 3)),
)
def test_exactly_what_differs_from_what_is_remembered_is_changed(
    before: dict[int, int], after: dict[int, int]
):
    remembered = Remembered(1)
    for piece in Counts(OURS, before).readings():
        remembered.extend(piece)

    changed = [reading.key_id for piece in remembered.changed(Counts(OURS, after)) for reading in piece]

    assert changed == sorted(key for key, value in after.items() if before.get(key) != value)


@pytest.mark.parametrize(
    ("reading", "last", "counted"),
    [
        (Reading(1, 5, 7), (None, None), Counted([Change(1, 5, 7, 5, 7)])),
        (Reading(1, 5, 7), (5, 7), Counted([])),
        (Reading(1, 9, 7), (5, 7), Counted([Change(1, 9, None, 4, 0)])),
        (Reading(1, None, 7), (5, None), Counted([Change(1, None, 7, 0, 7)])),
        (Reading(1, 3, 9), (5, 7), Counted([Change(1, None, 9, 0, 2)], fallen=1)),
        (Reading(1, 0, None), (None, None), Counted([])),
    ],
)
def test_what_exceeds_the_checkpoint_is_new(
    reading: Reading, last: tuple[int | None, int | None], counted: Counted
):
    assert count([reading], {1: last}) == counted


def test_a_baseline_moves_checkpoints_and_counts_nothing():
    assert count([Reading(1, 5, 7)], {1: (None, None)}, baseline=True) == Counted([Change(1, 5, 7, 0, 0)])


def test_a_key_that_has_nothing_to_do_with_the_node_is_left_out():
    assert count([Reading(1, 5, 7)], {2: (None, None)}) == Counted([], unexplained=1)


def test_counters_that_are_known_and_there_are_present():
    readings: Sequence[Reading] = [Reading(1, 5, None), Reading(2, 1, 1), Reading(3, 1, 1)]
    assert present(readings, {1: (5, 5), 2: (None, 1)}) == 2
