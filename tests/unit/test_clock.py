"""Whether the database's clock is believed."""

import pytest

from reconciler.plan.clock import ClockWatch

STARTED, _ = ClockWatch(60.0).read(1_000.0, 5.0)


def test_the_first_reading_is_believed():
    watch, believed = ClockWatch(60.0).read(1_000.0, 5.0)

    assert believed
    assert watch == ClockWatch(60.0, 1_000.0, 5.0)


@pytest.mark.parametrize("departure", [-60.0, 0.0, 60.0])
def test_clocks_that_agree_within_the_tolerance_are_believed(departure: float):
    watch, believed = STARTED.read(1_030.0 + departure, 35.0)

    assert believed
    assert (watch.database, watch.monotonic) == (1_030.0 + departure, 35.0)


@pytest.mark.parametrize("departure", [-60.001, 60.001, 31_536_000.0])
def test_a_jump_either_way_is_not_believed_and_not_got_used_to(departure: float):
    watch, believed = STARTED.read(1_030.0 + departure, 35.0)
    again, believed_again = watch.read(1_060.0 + departure, 65.0)

    assert not believed
    assert not believed_again
    assert again == STARTED


def test_a_clock_that_comes_back_is_believed_again():
    jumped, _ = STARTED.read(9_000.0, 35.0)

    _, believed = jumped.read(1_060.0, 65.0)

    assert believed


def test_a_long_pause_is_no_jump():
    _, believed = STARTED.read(1_000.0 + 86_400.0, 5.0 + 86_400.0)

    assert believed
