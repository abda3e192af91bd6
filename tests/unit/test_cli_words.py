"""What people write for sizes and times, and what they are shown."""

from datetime import UTC, datetime, timedelta

import pytest

from reconciler.cli import words

NOW = datetime(2027, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0B", 0),
        ("1kB", 1_000),
        ("1KB", 1_000),
        ("1KiB", 1_024),
        ("100GB", 100 * 1000**3),
        ("1.5TiB", 3 * 2**39),
        ("2 PB", 2 * 10**15),
    ],
)
def test_a_size_counts_by_its_unit(text, count):
    assert words.parse_size(text) == count


@pytest.mark.parametrize(
    "text", ["", "100", "100 G", "1iB", "-1GB", "1e3GB", "٣GB", "0.5B", "1.5", "1GB ", "1gb"]
)
def test_a_size_without_a_unit_or_of_part_of_a_byte_is_refused(text):
    with pytest.raises(ValueError, match=r"such as 100GB|whole number"):
        words.parse_size(text)


def test_a_time_is_read_with_its_zone():
    assert words.parse_moment("2027-01-31T13:00:00+01:00") == NOW
    assert words.parse_moment("2027-01-31T12:00:00Z") == NOW


@pytest.mark.parametrize("text", ["2027-01-31T12:00:00", "2027-01-31", "tomorrow", "", "1800000000"])
def test_a_time_without_a_zone_could_be_any_of_26_hours(text):
    with pytest.raises(ValueError, match="with its zone"):
        words.parse_moment(text)


@pytest.mark.parametrize(
    ("away", "said"),
    [
        (timedelta(seconds=-3), "3 s ago"),
        (timedelta(seconds=119), "in 119 s"),
        (timedelta(minutes=-90), "90 min ago"),
        (timedelta(hours=30), "in 30 h"),
        (timedelta(days=12), "in 12 d"),
    ],
)
def test_a_moment_is_told_by_how_far_it_is(away, said):
    assert words.away(NOW + away, NOW) == said


def test_sizes_are_shown_in_their_fitting_unit():
    assert [words.size(count) for count in (None, 999, 1_000, 1_500_000, 100 * 10**9)] == [
        "-",
        "999 B",
        "1 kB",
        "1.5 MB",
        "100 GB",
    ]


def test_what_others_wrote_cannot_steer_the_terminal_and_shows_no_secret():
    shown = words.plain("a\x1b[31mb\n 6ba7b810-9dad-41d1-80b4-00c04fd430c8")

    assert "\x1b" not in shown
    assert "\n" not in shown
    assert "6ba7b810" not in shown
