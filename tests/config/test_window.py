"""The window follows the clock on the wall, in every zone and on the days when that clock is set."""

import time
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.config.window import Window

BERLIN = ZoneInfo("Europe/Berlin")
SHANGHAI = ZoneInfo("Asia/Shanghai")


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


@pytest.mark.parametrize(
    ("window", "now", "opens"),
    [
        ("19:00-07:00", "2026-05-04 12:00", "2026-05-04 19:00"),
        ("19:00-07:00", "2026-05-04 18:59:59", "2026-05-04 19:00"),
        ("19:00-07:00", "2026-05-04 19:00", None),
        ("19:00-07:00", "2026-05-04 00:30", None),
        ("19:00-07:00", "2026-05-04 06:59:59", None),
        ("19:00-07:00", "2026-05-04 07:00", "2026-05-04 19:00"),
        ("9:30-17:00", "2026-05-04 17:00", "2026-05-05 09:30"),
        ("09:30 - 17:00", "2026-05-04 12:00", None),
        ("00:00-06:00", "2026-05-04 23:00", "2026-05-05 00:00"),
        ("22:00-00:00", "2026-05-04 00:00", "2026-05-04 22:00"),
        # the night of 29 March 2026 has no hour from two to three, that of 25 October has it twice
        ("02:30-05:00", "2026-03-29 00:00", "2026-03-29 03:30"),
        ("22:00-02:30", "2026-03-29 03:29", None),
        ("02:15-02:45", "2026-03-29 03:20", None),
        ("02:15-02:45", "2026-03-29 03:45", "2026-03-30 02:15"),
        ("02:30-03:15", "2026-03-29 00:00", "2026-03-30 02:30"),
        ("19:00-07:00", "2026-03-28 12:00", "2026-03-28 19:00"),
        ("19:00-07:00", "2026-10-25 07:00", "2026-10-25 19:00"),
        ("01:00-02:30", "2026-10-25 02:29", None),
    ],
)
@pytest.mark.parametrize("machine", ["Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3"])
def test_a_window_opens_when_the_wall_says_so(
    window: str, now: str, opens: str | None, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = None if opens is None else at(opens)
    assert Window(window).opens_at(at(now), BERLIN) == wanted
    with monkeypatch.context() as here:
        here.setenv("TZ", machine)
        time.tzset()
        assert Window(window).opens_at(at(now)) == wanted
    time.tzset()


def test_an_hour_that_comes_twice_is_all_inside() -> None:
    window = Window("01:00-02:30")
    assert window.opens_at(at("2026-10-25 02:29", fold=1), BERLIN) is None
    assert window.opens_at(at("2026-10-25 02:30", fold=1), BERLIN) == at("2026-10-26 01:00")


@given(
    st.integers(1_600_000_000, 2_000_000_000),
    st.integers(0, 1439),
    st.integers(0, 1439),
    st.sampled_from([BERLIN, SHANGHAI, ZoneInfo("America/New_York"), ZoneInfo("Australia/Lord_Howe")]),
)
def test_it_is_closed_until_it_opens_and_open_then(now: int, start: int, end: int, zone: ZoneInfo) -> None:
    if start == end:
        return
    window = Window(f"{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}")
    opens = window.opens_at(now, zone)
    if opens is None:
        return
    assert now < opens <= now + 2 * 86400
    assert window.opens_at(opens, zone) is None
    assert window.opens_at(opens - 1, zone) is not None or opens - 1 < now


@pytest.mark.parametrize("text", ["", "19:00", "19-07", "24:00-07:00", "19:60-20:00", "07:00-07:00", "a-b"])
def test_what_is_no_window_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="is no window"):
        Window(text)
