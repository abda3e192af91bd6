"""When to come back."""

import pytest

from reconciler.plan.pace import Backoff, counting_interval, listing_interval, next_due, reading_interval


def test_the_cadence_is_fixed():
    assert next_due(100.0, 30.0, now=104.0) == 130.0


def test_an_overrun_is_followed_at_once_and_not_made_up_for():
    assert next_due(100.0, 30.0, now=250.0) == 250.0


@pytest.mark.parametrize(("jitter", "due"), [(-0.1, 127.0), (0.1, 133.0)])
def test_jitter_is_a_share_of_the_interval(jitter: float, due: float):
    assert next_due(100.0, 30.0, now=100.0, jitter=jitter) == pytest.approx(due)


def test_the_backoff_doubles_up_to_its_cap():
    backoff = Backoff(1.0, 10.0)

    assert [backoff.delay(failures) for failures in range(7)] == [0.0, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_the_cap_holds_with_jitter_and_for_ever():
    backoff = Backoff(1.0, 10.0)

    assert backoff.delay(2, jitter=0.5) == 3.0
    assert backoff.delay(2, jitter=-0.5) == 1.0
    assert backoff.delay(5, jitter=0.5) == 10.0
    assert backoff.delay(10**9, jitter=1.0) == 10.0


def test_a_cycle_that_was_rung_early_does_not_put_the_next_one_off():
    due = 100.0
    for rung_at in (71.0, 72.0, 73.0, 74.0):
        due = next_due(due, 30.0, rung_at)

    assert due == 104.0


def test_a_huge_node_is_listed_less_often():
    assert listing_interval(30.0, users=100_000, took_seconds=0.32) == pytest.approx(80.0)


def test_a_node_of_common_size_is_listed_at_the_interval():
    assert listing_interval(30.0, users=10_000, took_seconds=0.032) == 30.0


def test_a_long_way_is_no_reason_to_list_seldom():
    assert listing_interval(30.0, users=1_000, took_seconds=2.0) == 30.0


def test_a_quick_node_is_listed_more_often_than_a_slow_one_of_its_size():
    quick, slow = (listing_interval(30.0, 300_000, took_seconds=seconds) for seconds in (0.3, 1.2))
    assert quick < slow


def test_a_longer_interval_than_needed_stays():
    assert listing_interval(300.0, users=100_000, took_seconds=0.32) == 300.0


def test_only_a_huge_node_is_counted_less_often():
    assert counting_interval(1.0, users=20_000) == 1.0
    assert counting_interval(1.0, users=100_000) == pytest.approx(5.0)


def test_only_a_node_with_very_many_counters_is_read_less_often():
    assert reading_interval(30.0, counters=20_000) == 30.0
    assert reading_interval(30.0, counters=200_000) == pytest.approx(40.0)
    assert reading_interval(60.0, counters=200_000) == 60.0
