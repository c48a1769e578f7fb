"""Timetables: which rate holds now, and when the next one begins."""

from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.config.timetable import Timetable, rate
from dumbwaiter.model import KIB, MIB

BERLIN = ZoneInfo("Europe/Berlin")


def clock(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


@pytest.mark.parametrize(
    ("text", "wanted"), [("off", None), ("10M", 10 * MIB), ("512k", 512 * KIB), ("2MiB", 2 * MIB), ("4096", 4096)]
)
def test_a_rate_is_bytes_with_binary_suffixes(text: str, wanted: float | None) -> None:
    assert rate(text) == wanted
    table = Timetable(text)
    assert table.at(clock("2026-06-01T12:00"), BERLIN) == wanted
    assert table.changes_at(clock("2026-06-01T12:00"), BERLIN) is None
    assert Timetable("08:00,1M 19:00,1M").changes_at(clock("2026-06-01T12:00"), BERLIN) is None


@pytest.mark.parametrize(
    "text",
    ["", "0", "fast", "-1M", "08:00,512k 8:00,off", "25:00,1M 08:00,off", "08:00,", "08:00,1M, 19:00,off", "1M 2M"],
)
def test_what_is_no_timetable_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Timetable(text)


def test_the_last_row_of_a_day_holds_until_the_first_of_the_next() -> None:
    table = Timetable("19:00,off 08:00,512k")
    assert table.at(clock("2026-06-01T07:59"), BERLIN) is None
    assert table.at(clock("2026-06-01T08:00"), BERLIN) == 512 * KIB
    assert table.at(clock("2026-06-01T18:59"), BERLIN) == 512 * KIB
    assert table.at(clock("2026-06-01T19:00"), BERLIN) is None
    assert table.changes_at(clock("2026-06-01T12:00"), BERLIN) == clock("2026-06-01T19:00")
    assert table.changes_at(clock("2026-06-01T19:00"), BERLIN) == clock("2026-06-02T08:00")


def test_a_day_of_another_length_changes_at_its_own_hours() -> None:
    table = Timetable("08:00,512k 19:00,off")
    night = clock("2026-03-28T19:00")  # 23 hours until the next evening
    morning = table.changes_at(night, BERLIN)
    assert morning == clock("2026-03-29T08:00") == night + 12 * 3600


@pytest.mark.parametrize(
    ("text", "day", "moments"),
    [
        ("02:59,1M 01:01,2M", "2025-03-30T00:01", [60 * 60, 119 * 60]),  # 01:01, and put forward from 02:00 to 03:00
        ("02:30,1M 08:00,2M", "2025-10-26T00:00", [150 * 60, 180 * 60, 210 * 60]),  # put back from 03:00 to 02:00
        ("02:00,1M 08:00,2M", "2025-10-26T00:00", [120 * 60, 540 * 60]),
        ("02:10,1M 02:50,2M", "2025-03-29T03:00", [2770 * 60]),  # the day after the next: that one leaves out both
    ],
)
def test_a_time_that_a_day_leaves_out_or_has_twice_is_met_as_the_clock_shows_it(
    text: str, day: str, moments: list[int]
) -> None:
    table, now = Timetable(text), clock(day)
    for moment in moments:
        found = table.changes_at(now, BERLIN)
        assert found == clock(day) + moment
        now = found


@given(
    hours=st.sets(st.tuples(st.integers(0, 23), st.integers(0, 59)), min_size=2, max_size=6),
    now=st.floats(1.7e9, 1.9e9, allow_nan=False),
)
def test_between_two_changes_one_rate_holds(hours: set[tuple[int, int]], now: float) -> None:
    table = Timetable(" ".join(f"{hour:02}:{minute:02},{number + 1}M" for number, (hour, minute) in enumerate(hours)))
    edges = [now]
    for _ in range(5):
        edge = table.changes_at(edges[-1], BERLIN)
        assert edge is not None
        assert 0 < edge - edges[-1] <= 48 * 3600  # a day may leave out all of them
        edges.append(edge)
    for start, end in pairwise(edges[1:]):
        assert table.at(start, BERLIN) == table.at((start + end) / 2, BERLIN)
        assert table.at(end, BERLIN) != table.at(start, BERLIN)
