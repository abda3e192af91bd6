from calendar import monthrange
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.plan.periods import month_of

MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - with a zone


def day(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}T12:30:00+00:00")


@pytest.mark.parametrize(
    ("start", "now", "begins", "ends"),
    [
        ("2027-01-31", "2027-02-20", "2027-01-31", "2027-02-28"),
        ("2027-01-31", "2027-02-28", "2027-02-28", "2027-03-31"),
        ("2027-01-31", "2027-04-30", "2027-04-30", "2027-05-31"),
        ("2028-01-31", "2028-02-29", "2028-02-29", "2028-03-31"),
        ("2028-02-29", "2029-02-28", "2029-02-28", "2029-03-29"),
        ("2027-03-15", "2027-03-15", "2027-03-15", "2027-04-15"),
        ("2027-12-31", "2028-01-01", "2027-12-31", "2028-01-31"),
    ],
)
def test_a_month_begins_on_the_day_of_the_start(start: str, now: str, begins: str, ends: str):
    assert month_of(day(start), day(now)) == (day(begins), day(ends))


@given(MOMENTS, st.timedeltas(timedelta(0), timedelta(days=3_000)))
def test_every_moment_lies_in_one_month_which_is_the_same_all_through(start: datetime, passed: timedelta):
    now = start + passed
    month = month_of(start, now)

    assert month.begins <= now < month.ends
    assert month_of(start, month.begins) == month
    assert month_of(start, month.ends - timedelta(microseconds=1)) == month
    assert month_of(start, month.ends).begins == month.ends


@given(MOMENTS, st.timedeltas(timedelta(0), timedelta(days=3_000)))
def test_no_month_loses_the_day_of_the_start(start: datetime, passed: timedelta):
    begins = month_of(start, start + passed).begins

    assert begins.day == min(start.day, monthrange(begins.year, begins.month)[1])
    assert begins.time() == start.time()


@given(MOMENTS, st.timedeltas(timedelta(0), timedelta(days=3_000)), st.integers(-14, 14))
def test_the_time_zone_of_who_asks_changes_nothing(start: datetime, passed: timedelta, hours: int):
    there = timezone(timedelta(hours=hours))
    assert month_of(start.astimezone(there), (start + passed).astimezone(there)) == month_of(
        start, start + passed
    )
