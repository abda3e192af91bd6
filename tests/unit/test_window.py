"""How many steps are under way at once, against nodes that are small models of real ones."""

import heapq
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.plan.window import FIRST, PATIENCE_SECONDS, ROUTE_SECONDS, Window

CEILING = 128


class Wide(Window):
    """A window that heeds no answer."""

    def __post_init__(self) -> None:
        self.limit = self.ceiling

    def answered(self, seconds: float, now: float) -> None:
        pass


@dataclass
class Line:
    """A node that takes one step at a time, `way_seconds` off, and is given all that the window lets."""

    window: Window
    step_seconds: float
    way_seconds: float = 0.0
    now: float = 0.0
    free_at: float = 0.0
    answered: int = 0
    under_way: list[tuple[float, float]] = field(default_factory=list)  # when answered, when sent
    limits: list[int] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            while len(self.under_way) < self.window.limit:
                arrives = self.now + self.way_seconds / 2
                self.free_at = max(self.free_at, arrives) + self.step_seconds
                heapq.heappush(self.under_way, (self.free_at + self.way_seconds / 2, self.now))
            self.now, sent_at = heapq.heappop(self.under_way)
            self.window.answered(self.now - sent_at, self.now)
            self.answered += 1
            self.limits.append(self.window.limit)

    @property
    def wait_seconds(self) -> float:
        """How long a customer stands in line behind what is under way."""
        return max(0.0, self.free_at - self.now)


@given(
    st.integers(1, 512),
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 20)), max_size=400),
)
def test_the_window_stays_between_one_and_its_ceiling(ceiling: int, answers: list[tuple[float, float]]):
    window = Window(ceiling)
    now = 0.0
    for seconds, pause in answers:
        now += pause
        window.answered(seconds, now)
        assert min(FIRST, ceiling) <= window.limit <= ceiling


@settings(deadline=None, max_examples=30)
@given(st.floats(0.00005, 0.0005))
def test_a_near_node_settles_where_a_step_waits_as_long_as_is_allowed(step_seconds: float):
    line = Line(Window(100_000), step_seconds)

    line.run(2.0)

    settled = PATIENCE_SECONDS / step_seconds
    later = line.limits[len(line.limits) // 2 :]
    assert 0.7 * settled <= sum(later) / len(later) <= 1.4 * settled + FIRST


@settings(deadline=None)
@given(st.floats(0.01, 0.3))
def test_a_distant_node_is_given_all_that_is_allowed(way_seconds: float):
    line = Line(Window(CEILING), 0.00005, way_seconds)

    line.run(8 * way_seconds)

    assert line.window.limit == CEILING


@settings(deadline=None)
@given(st.floats(0.05, 0.3), st.integers(0, 2**32))
def test_a_distant_node_with_an_uneven_way_is_not_starved(way_seconds: float, seed: int):
    window = Window(CEILING)
    uneven = Line(window, 0.00005, way_seconds)
    drawn = seed
    for _ in range(60):
        drawn = (drawn * 1_103_515_245 + 12_345) % 2**31
        uneven.way_seconds = way_seconds * (1 + 0.2 * drawn / 2**31)
        uneven.run(way_seconds / 4)

    assert window.limit == CEILING


def test_a_slow_node_is_given_few():
    line = Line(Window(CEILING), 0.005)

    line.run(5.0)

    assert line.window.limit == FIRST


def test_what_customers_wait_behind_is_bounded_where_a_fixed_window_is_not():
    paced = Line(Window(CEILING), 0.0002)
    paced.run(5.0)
    fixed = Line(Wide(CEILING), 0.0002)
    fixed.run(5.0)

    assert paced.wait_seconds < fixed.wait_seconds / 3
    assert paced.answered > 0.99 * fixed.answered


def test_the_window_shrinks_when_the_node_gets_slow_and_recovers_after_it():
    line = Line(Window(CEILING), 0.00005)
    line.run(1.0)
    before = line.window.limit
    line.step_seconds *= 20
    line.run(1.0)
    during = line.window.limit
    line.step_seconds /= 20
    line.run(1.0)

    assert during <= before / 4
    assert line.window.limit >= before / 2


def test_one_late_answer_among_many_changes_little():
    line = Line(Window(CEILING), 0.00005)
    line.run(1.0)
    before = line.window.limit
    line.free_at += 0.01
    line.run(0.05)

    assert line.window.limit >= before / 2


def test_a_way_that_has_become_longer_is_found_out():
    line = Line(Window(CEILING), 0.00005, way_seconds=0.01)
    line.run(1.0)
    line.way_seconds = 0.2
    line.run(5.0)
    starved = line.window.limit
    line.run(ROUTE_SECONDS + 3.0)

    assert starved == FIRST
    assert line.window.limit == CEILING


@pytest.mark.parametrize("ceiling", [1, 2, 3])
def test_a_ceiling_below_the_start_holds_from_the_start(ceiling: int):
    assert Window(ceiling).limit == ceiling
