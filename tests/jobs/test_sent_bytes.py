"""Accounts of what was sent, to the byte."""

from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.errors import JournalTrouble
from dumbwaiter.jobs.progress import Progress
from dumbwaiter.jobs.sent_bytes import Ranges, SentBytes


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted), max_size=15))
def test_what_was_sent_twice_is_counted_to_the_byte(ranges: list[list[int]]) -> None:
    seen: set[int] = set()
    known = Ranges()
    for start, end in ranges:
        wanted = set(range(start, end))
        assert known.add(start, end) == len(wanted & seen)
        seen |= wanted


def test_what_is_known_is_waited_for_also_if_it_came_during_a_commit() -> None:
    commits: list[Future[None]] = []
    saved, waited = [], []

    def save(_checkpoint: str, sent: int, _more: int, _resent: int) -> Future[None]:
        saved.append(sent)
        commits.append(Future())
        return commits[-1]

    def wait(commit: Future[None]) -> None:
        waited.append(commits.index(commit))
        commit.set_result(None)

    progress = Progress(SentBytes(10, 0, Ranges()), save)
    for sent in (2, 5, 9):
        progress.note({}, sent)
    progress.flush(wait)
    assert (saved, waited) == ([2, 9], [0, 1])


def test_trouble_with_a_commit_is_met_by_who_notes_more_and_by_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    commits: list[Future[None]] = []

    def save(*_: object) -> Future[None]:
        commits.append(Future())
        return commits[-1]

    progress = Progress(SentBytes(10, 0, Ranges()), save)
    for sent in (2, 5):
        progress.note({}, sent)
    commits[0].set_exception(JournalTrouble("database is locked"))
    assert caplog.records == []
    with pytest.raises(JournalTrouble):
        progress.note({}, 9)
    assert len(commits) == 1
