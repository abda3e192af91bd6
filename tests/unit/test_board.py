"""What the fleet page shows of a fleet, and in which order."""

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from reconciler.model import NodeState, Outcome
from reconciler.status.board import STALE, UNTRIED, Board, Glance, NodeRow, Sight, Tone, stale_after_seconds
from reconciler.status.recorder import Counts
from tests.fleets import COUNTS, NOW, row, sight, taken_on

BOUND_SECONDS = 120.0


def board(*rows: NodeRow) -> Board:
    made = Board(lambda: BOUND_SECONDS)
    made.rows_read(rows, NOW)
    return made


def named(glance: Glance) -> dict[str, str]:
    return {line.name: line.word for line in glance.lines}


def test_what_is_gravest_comes_first():
    glance = board(
        row("converged"),
        row("changed", seen=sight(Outcome.CHANGED)),
        row("untried", seen=Sight()),
        row("stale", seen=sight(tried_at=NOW - BOUND_SECONDS - 1)),
        row("held", seen=sight(Outcome.HELD)),
        row("disabled", state=NodeState.DISABLED, seen=sight(Outcome.FAILED)),
        row("rejected", seen=sight(Outcome.REJECTED)),
        row("b-unreachable", seen=sight(Outcome.UNREACHABLE)),
        row("a-unreachable", seen=sight(Outcome.UNREACHABLE)),
        row("failed", seen=sight(Outcome.FAILED)),
    ).glance(NOW)

    assert named(glance) == {
        "failed": "failed",
        "a-unreachable": "unreachable",
        "b-unreachable": "unreachable",
        "rejected": "rejected",
        "held": "held",
        "stale": STALE,
        "untried": UNTRIED,
        "changed": "changed",
        "converged": "converged",
        "disabled": "disabled",
    }
    assert [line.name for line in glance.lines] == list(named(glance))
    assert glance.words[:3] == [
        ("failed", Tone.BAD, 1),
        ("unreachable", Tone.BAD, 2),
        ("rejected", Tone.BAD, 1),
    ]
    assert (glance.awake, glance.well) == (9, 2)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(NodeState),
            st.none() | st.sampled_from(Outcome),
            st.none() | st.floats(-300, 0),
            st.booleans(),
        ),
        max_size=30,
    )
)
def test_every_node_is_shown_once_whatever_is_known_of_it(nodes):
    rows, held = [], board()
    for number, (state, outcome, ago, ours) in enumerate(nodes):
        seen = sight(outcome, tried_at=None if ago is None else NOW + ago)
        rows.append(row(f"n{number}", state=state, seen=seen))
        if ours:
            taken_on(held, f"n{number}")
    held.rows_read(rows, NOW)

    glance = held.glance(NOW)

    ranks = [list(Tone).index(line.tone) for line in glance.lines]
    assert sorted(named(glance)) == sorted(f"n{number}" for number in range(len(nodes)))
    assert sum(number for _, _, number in glance.words) == len(nodes)
    assert glance.awake == sum(state is not NodeState.DISABLED for state, *_ in nodes)
    assert all(one <= other for one, other in pairwise(rank for rank in ranks if rank > 1)), "good before off"


def test_what_our_loop_saw_is_newer_than_the_row():
    ours = board(row("n1", seen=sight(Outcome.FAILED, error="long ago", counts=replace(COUNTS, held=9))))
    taken_on(ours, "n1", Sight(Outcome.HELD, None, COUNTS, NOW, None, 0.01, 0.002))

    (line,) = ours.glance(NOW).lines

    assert line.held_here
    assert line.sight == Sight(Outcome.HELD, None, COUNTS, NOW, NOW - 3, 0.01, 0.002)


def test_what_our_loop_has_not_seen_yet_is_as_the_row_says():
    ours = board(row("n1", seen=sight(error="as before")))
    seen = taken_on(ours, "n1")

    (line,) = ours.glance(NOW).lines
    assert line.sight == sight(error="as before")

    seen.outcome, seen.error, seen.tried_at = Outcome.UNREACHABLE, "no answer", NOW

    (line,) = ours.glance(NOW).lines
    assert (line.word, line.sight.error, line.sight.counts) == ("unreachable", "no answer", COUNTS)


def test_a_node_of_ours_is_shown_before_any_row_was_read_and_gone_when_dropped():
    ours = Board(lambda: BOUND_SECONDS)
    taken_on(ours, "n1", sight(Outcome.UNREACHABLE))

    assert named(ours.glance(NOW)) == {"n1": "unreachable"}
    assert ours.glance(NOW).read_at is None

    ours.drop("n1")
    ours.drop("n1")

    assert named(ours.glance(NOW)) == {}


def test_disabled_nodes_count_for_nothing():
    glance = board(row("a"), row("b"), row("c", state=NodeState.DISABLED)).glance(NOW)

    assert glance.totals == Counts(active=1624, desired=1624, foreign=4, orphans=0, held=0)
    assert glance.awake == glance.well == 2


def test_it_is_told_whether_others_hold_nodes():
    ours = board(row("a"), row("b", state=NodeState.DISABLED))
    assert ours.glance(NOW).shared

    taken_on(ours, "a")

    assert not ours.glance(NOW).shared


def test_a_status_is_believed_for_some_intervals_and_two_minutes_at_least():
    assert stale_after_seconds(5) == 120
    assert stale_after_seconds(600) == 1800
