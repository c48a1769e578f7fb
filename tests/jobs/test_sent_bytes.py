"""Accounts of what was sent, to the byte."""

from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.jobs.sent_bytes import Ranges


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted), max_size=15))
def test_what_was_sent_twice_is_counted_to_the_byte(ranges: list[list[int]]) -> None:
    seen: set[int] = set()
    known = Ranges()
    for start, end in ranges:
        wanted = set(range(start, end))
        assert known.add(start, end) == len(wanted & seen)
        seen |= wanted
