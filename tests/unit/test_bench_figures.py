"""What a benchmark makes of its figures: spreads, ratios, percentiles, slopes, goals, and the table."""

import io
import json
import math

import pytest
from rich.console import Console

from tests.bench.figures import (
    Goal,
    Row,
    blocks,
    difference,
    percentile,
    power,
    ratio,
    slope,
    spread,
)
from tests.bench.report import Findings, document, number, shown, table

AT_MOST_TWICE = Goal(2.0, at_most=True, words="<= 2 x")
AT_LEAST_HALF = Goal(0.5, at_most=False, words=">= 0.5 x")


def row(score: float, goal: Goal | None = AT_MOST_TWICE) -> Row:
    figure = spread([score])
    return Row("P3", "one full pass", "s CPU", figure, "bare reads", spread([1.0]), figure, goal=goal)


def drawn(*rows: Row) -> str:
    screen = io.StringIO()
    Console(file=screen, width=200).print(table(rows))
    return screen.getvalue()


def test_a_spread_has_the_middle_and_both_ends():
    found = spread([3.0, 1.0, 8.0, 2.0, 4.0])

    assert (found.median, found.low, found.high, found.runs) == (3.0, 1.0, 8.0, 5)
    assert found.width == pytest.approx(7 / 3)


def test_a_ratio_is_taken_round_by_round():
    """A round in which the whole machine was slow says nothing about the contenders."""
    found = ratio([10.0, 100.0, 10.0], [5.0, 50.0, 5.0])

    assert (found.low, found.median, found.high) == (2.0, 2.0, 2.0)


def test_a_ratio_to_nothing_is_infinite():
    assert ratio([1.0], [0.0]).median == math.inf


def test_rounds_that_do_not_pair_up_are_an_error():
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0, 2.0], [1.0])


def test_a_difference_is_taken_round_by_round():
    found = difference([15.0, 25.0], [5.0, 10.0])

    assert (found.low, found.high) == (10.0, 15.0)


@pytest.mark.parametrize(("share", "value"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.0, 1.0)])
def test_a_percentile_is_a_value_that_was_measured(share: float, value: float):
    assert percentile([float(each) for each in range(100, 0, -1)], share) == value


def test_blocks_keep_the_order_and_lose_nothing():
    parts = [list(part) for part in blocks([1.0, 2.0, 3.0, 4.0, 5.0], 2)]

    assert parts == [[1.0, 2.0], [3.0, 4.0, 5.0]]


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_a_power_law_gives_its_exponent_back(exponent: float):
    points = {size: 3.0 * size**exponent for size in (1_000.0, 10_000.0, 1_000_000.0)}

    assert power(points) == pytest.approx(exponent)


def test_a_line_gives_its_slope_back():
    assert slope({0.0: 7.0, 10.0: 12.0, 20.0: 17.0}) == pytest.approx(0.5)


def test_one_size_has_no_slope():
    with pytest.raises(ValueError, match="two sizes"):
        power({1_000.0: 1.0})


@pytest.mark.parametrize(
    ("goal", "score", "held"),
    [
        (AT_MOST_TWICE, 2.0, True),
        (AT_MOST_TWICE, 2.01, False),
        (AT_LEAST_HALF, 0.5, True),
        (AT_LEAST_HALF, 0.49, False),
        (AT_MOST_TWICE, math.nan, False),
        (None, 1.0, None),
    ],
)
def test_a_goal_is_met_at_its_bound(goal: Goal | None, score: float, held: bool | None):  # noqa: FBT001 - a case's answer
    assert row(score, goal).held is held


def test_the_median_is_judged_not_the_best_run():
    figure = spread([1.0, 3.0, 3.0])

    assert not Row("P3", "a pass", "s", figure, score=figure, goal=AT_MOST_TWICE).held


@pytest.mark.parametrize(
    ("runs", "sure"), [([1.0, 1.5, 1.9], True), ([1.0, 1.5, 3.4], False), ([3.0, 4.0], True)]
)
def test_runs_that_disagree_about_a_goal_make_its_verdict_unsure(runs: list[float], sure: bool):  # noqa: FBT001 - a case's answer
    told = Row("P3", "a pass", "s", spread(runs), score=spread(runs), goal=AT_MOST_TWICE)

    assert told.sure is sure
    assert ("unsure" in drawn(told)) is not sure


def test_the_table_shows_what_was_missed():
    good, bad = drawn(row(1.5)), drawn(row(3.4))

    assert "yes" in good
    assert "NO" not in good
    assert "3.4 x" in bad
    assert "NO" in bad
    assert "<= 2 x" in bad


def test_the_table_keeps_square_brackets():
    figure = spread([1.0, 2.0, 3.0])

    assert "2 [1..3]" in drawn(Row("P1", "steps", "steps/s", figure))


@pytest.mark.parametrize(("value", "words"), [(12_345.6, "12,346"), (12.345, "12.3"), (0.001234, "0.00123")])
def test_numbers_keep_what_means_something(value: float, words: str):
    assert number(value) == words


def test_a_single_run_has_no_spread_to_show():
    assert shown(spread([2.0])) == "2"


def test_the_document_is_json_and_says_what_held():
    findings = Findings(rows=[row(3.4)], notes={"P3": "a note"}, noise={"P3": 0.5})

    told = json.loads(json.dumps(document(findings, {"cores": 2})))

    assert told["rows"][0]["held"] is False
    assert told["rows"][0]["score"]["median"] == 3.4
    assert told["machine"] == {"cores": 2}
