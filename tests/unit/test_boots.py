from reconciler.model import Vitals
from reconciler.plan.boots import Boot, Recognised, Sighting, is_baseline, recognise, went_on


def seen(uptime: int, at: float, allocations: int = 0, host_at: float | None = None) -> Sighting:
    return Sighting(Vitals(uptime, 10 * allocations, allocations), at, at if host_at is None else host_at)


OLD = Boot(1, seen(1_000, at=5_000, allocations=100))


def test_the_same_run_goes_on():
    assert recognise([OLD], seen(1_030, at=5_030, allocations=110)) == Recognised(OLD, sure=True)


def test_an_uptime_that_fell_is_another_run():
    assert recognise([OLD], seen(20, at=5_030, allocations=200)) is None


def test_less_allocated_is_another_run_whatever_the_uptime():
    assert recognise([OLD], seen(1_030, at=5_030, allocations=99)) is None


def test_a_start_that_moved_on_both_clocks_is_another_run_though_everything_has_overtaken():
    day = 86_400.0
    assert recognise([OLD], seen(40_000, at=5_000 + day, allocations=900)) is None


def test_a_start_that_moved_on_one_clock_is_the_same_run():
    day = 86_400
    after = seen(1_000 + day, at=5_000 + day + 3_600, host_at=5_000.0 + day, allocations=900)
    assert recognise([OLD], after) == Recognised(OLD, sure=True)
    after = seen(1_000 + day, at=5_000.0 + day, host_at=5_000 + day - 3_600, allocations=900)
    assert recognise([OLD], after) == Recognised(OLD, sure=True)


def test_a_host_that_slept_has_not_restarted():
    assert recognise([OLD], seen(1_010, at=5_600, allocations=110)) == Recognised(OLD, sure=True)


def test_two_runs_that_began_at_once_are_told_apart_by_their_counters_only():
    young = Boot(1, seen(3, at=5_000, allocations=10))
    assert recognise([young], seen(29, at=5_030, allocations=50)) == Recognised(young, sure=False)


def test_two_processes_behind_one_address_are_two_runs_each_time():
    first, second = Boot(1, seen(1_000, at=5_000, allocations=100)), seen(5_010, at=5_010, allocations=900)
    assert recognise([first], second) is None

    other = Boot(2, second)
    assert recognise([other, first], seen(1_020, at=5_020, allocations=120)) == Recognised(first, sure=True)
    assert recognise([other, first], seen(5_040, at=5_040, allocations=950)) == Recognised(other, sure=True)


def test_a_late_reading_is_of_the_run_that_it_was_taken_of():
    new = Boot(2, seen(20, at=5_050, allocations=10))
    assert recognise([new, OLD], seen(990, at=4_990, allocations=90)) == Recognised(OLD, sure=True)
    assert recognise([new, OLD], seen(5, at=5_035, allocations=5)) == Recognised(new, sure=True)


def test_a_reading_with_a_restart_in_its_middle_is_seen():
    assert went_on(seen(50, at=100), seen(50, at=100.4, allocations=1))
    assert not went_on(seen(50, at=100), seen(0, at=101, allocations=1))


def test_the_first_reading_of_a_node_counts_only_what_began_after_it_was_registered():
    assert is_baseline(seen(1_000, at=5_000), registered_at=4_500)
    assert is_baseline(seen(1_000, at=5_000), registered_at=4_000)
    assert not is_baseline(seen(1_000, at=5_000), registered_at=3_000)
