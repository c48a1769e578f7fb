"""Times as vendors write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.model import LATEST
from dumbwaiter.wire.times import BEIJING, moment


@pytest.mark.parametrize("text", ["2018-05-28T14:49:21Z", "2018-05-28T14:49:21", "2018-05-28T22:49:21+08:00"])
def test_a_time_is_read_with_its_zone(text: str) -> None:
    assert moment(text) == 1527518961.0


def test_a_time_without_a_zone_is_of_the_one_that_the_vendor_means() -> None:
    assert moment("2018-05-28 22:49:21", BEIJING) == moment("2018-05-28T14:49:21Z", BEIJING) == 1527518961.0


@pytest.mark.parametrize("text", [None, "", "soon", "1969-12-31T00:00:00Z", "9999-12-31T23:59:59"])
def test_what_is_no_time_that_a_database_can_hold_is_none(text: str | None) -> None:
    assert moment(text) is None


@given(st.text() | st.datetimes().map(str))
def test_no_text_breaks_the_reader(text: str) -> None:
    assert (found := moment(text)) is None or 0 <= found < LATEST
