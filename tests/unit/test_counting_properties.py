"""G7: counted is what the last committed reading of each run has said, never more, whatever goes wrong."""

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.accounting import EPOCH, KINDS, Event, History, Model


def play(history: History, model: Model, events: Iterable[Event]) -> None:
    process = history.process
    for event in events:
        for taken in history.play(event):
            now = EPOCH + process.now + process.database_ahead
            boot = model.commit(taken, now, process.now - taken.at, history.last)
            history.committed(taken, boot)


def started(*, baseline: bool = False, apart: bool = True) -> tuple[History, Model]:
    return History(apart, baseline), Model(EPOCH + 10_000 if baseline else EPOCH - 10_000)


def without(events: Iterable[Event], *kinds: str) -> list[Event]:
    return [event for event in events if event.kind not in kinds]


EVENTS = st.lists(
    st.builds(
        Event,
        kind=st.sampled_from(KINDS),
        seconds=st.floats(0.01, 90),
        key_id=st.integers(1, 3),
        amount=st.integers(0, 10**6),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(EVENTS, st.booleans())
def test_bytes_are_counted_exactly_where_runs_can_be_told_apart(events: list[Event], baseline: bool):  # noqa: FBT001 - drawn
    history, model = started(baseline=baseline)

    play(history, model, without(events, "sleep"))

    assert model.totals() == history.truth.totals()


@settings(max_examples=300, deadline=None)
@given(EVENTS, st.booleans())
def test_never_more_is_counted_however_often_it_restarts(events: list[Event], baseline: bool):  # noqa: FBT001 - drawn
    history, model = started(baseline=baseline, apart=False)

    play(history, model, without(events, "sleep"))

    owed = history.truth.totals()
    assert all(up <= owed[key_id][0] for key_id, (up, _) in model.totals().items())
    assert all(down <= owed[key_id][1] for key_id, (_, down) in model.totals().items())


@settings(max_examples=200, deadline=None)
@given(EVENTS, st.booleans(), st.floats(-7_200, 7_200))
def test_one_clock_that_jumps_makes_no_new_run(events: list[Event], of_host: bool, jump: float):  # noqa: FBT001 - drawn
    history, model = started()
    history.process.started = -5.0
    events = without(events, "sleep", "restart", "late", "repeat")

    play(history, model, events[: len(events) // 2])
    if of_host:
        history.process.host_ahead = jump
    else:
        history.process.database_ahead = jump
    play(history, model, events[len(events) // 2 :])

    assert len(model.boots) <= 1
    assert model.totals() == history.truth.totals()


@settings(max_examples=200, deadline=None)
@given(EVENTS)
def test_a_node_whose_host_sleeps_between_readings_is_billed_once(events: list[Event]):
    history, model = started(baseline=True)
    history.process.started = -1_000_000.0

    play(history, model, without(events, "restart", "late", "repeat"))

    assert model.totals() == history.truth.totals()
