"""Settling, with stamps and a clock made by hand."""

from collections.abc import Iterator
from itertools import pairwise
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dumbwaiter.model import Sighting, Stamp
from dumbwaiter.watch.settle import CALM, COARSE, LONGEST, MOMENT, OFTEN, OUTRUN_FOR, OUTRUN_MAX, RECHECK, Ready, Settle

OPEN = Sighting("w", "a")
CLOSED = Sighting("w", "a", closed=True)


def stamp(version: int) -> Stamp:
    return Stamp(1, 100, version, version)


def quiet(settle: Settle, version: int, start: float, *, writing: bool | None = False) -> tuple[float, Ready]:
    """Looks whenever asked to at a file that no longer changes; returns when it was ready."""
    for _ in range(20):
        wake = settle.next_wake()
        assert wake is not None
        now = max(start, wake)
        for watch, path in settle.due(now):
            if (ready := settle.observe(watch, path, stamp(version), now, writing)) is not None:
                return now, ready
    raise AssertionError("never ready")


@pytest.fixture
def settle() -> Settle:
    return Settle({"w": 2.0})


def test_a_closed_file_is_ready_after_two_looks(settle: Settle) -> None:
    settle.sight(CLOSED, 10.0)
    assert settle.due(10.0) == [("w", "a")]
    assert settle.observe("w", "a", stamp(1), 10.0) is None
    assert settle.due(10.0) == []
    assert settle.next_wake() == 10.0 + RECHECK
    assert settle.due(10.0 + RECHECK) == [("w", "a")]
    assert settle.observe("w", "a", stamp(1), 10.0 + RECHECK) == Ready("w", "a", stamp(1), closed=True)
    assert len(settle) == 0
    assert settle.next_wake() is None


def test_a_write_that_a_file_system_of_whole_seconds_does_not_date_is_in_what_is_taken(settle: Settle) -> None:
    second = 1_000_000_000
    written = Stamp(1, 100, 8 * second, 8 * second)  # by FAT's clock; also what it says of a write at 8.9

    def look(now: float, stamp: Stamp = written) -> Ready | None:
        settle.due(now)
        return settle.observe("w", "a", stamp, now, writing=False)

    settle.sight(CLOSED, 8.1)
    for now in (8.1, 8.1 + RECHECK, 8.9):
        assert look(now) is None
    assert settle.next_wake() == 8.1 + COARSE
    settle.sight(CLOSED, 8.9)  # that write was heard: it begins anew
    assert look(8.9) is None
    assert look(8.1 + COARSE) is None
    assert look(8.9 + COARSE) == Ready("w", "a", written, closed=True)
    dated = Stamp(1, 100, 8 * second, 8 * second + 1)  # by whoever unpacked it; the file system's own clock is finer
    settle.sight(CLOSED, 20.0)
    assert look(20.0, dated) is None
    assert look(20.0 + RECHECK, dated) == Ready("w", "a", dated, closed=True)


def test_without_a_close_the_whole_settle_time_must_be_quiet(settle: Settle) -> None:
    settle.sight(OPEN, 0.0)
    when, ready = quiet(settle, 1, 0.0)
    assert ready.stamp == stamp(1)
    assert when == pytest.approx(2.0 + RECHECK)


def test_what_a_program_keeps_open_for_writing_is_told_once_it_has_been_quiet_for_long(settle: Settle) -> None:
    def look(now: float, version: int, *, writing: bool) -> Ready | None:
        settle.due(now)
        return settle.observe("w", "a", stamp(version), now, writing)

    settle.sight(OPEN, 0.0)
    assert look(0.2, 1, writing=True) is None
    assert look(50.0, 2, writing=True) is None
    assert look(50.0 + LONGEST, 2, writing=True) is None
    assert settle.held("w", 50.0 + LONGEST) == []
    assert settle.held("w", 51.0 + LONGEST) == ["a"]
    assert settle.held("other", 51.0 + LONGEST) == []
    assert look(52.0 + LONGEST, 3, writing=True) is None
    assert settle.held("w", 53.0 + LONGEST) == []  # it goes on
    settle.sight(CLOSED, 200.0)
    assert settle.held("w", 200.0) == ["a"]
    assert look(200.0, 3, writing=False) is None
    assert settle.held("w", 200.0) == []


def test_an_empty_file_that_is_open_is_told_of_by_nobody(settle: Settle) -> None:
    """A lock of a program at work, say: there is nothing to take."""
    settle.sight(OPEN, 0.0)
    settle.due(0.2)
    assert settle.observe("w", "a", Stamp(1, 0, 1, 1), 0.2, writing=True) is None
    assert settle.held("w", 1.0 + LONGEST) == []


def test_what_is_gone_is_held_by_nobody(settle: Settle) -> None:
    settle.sight(OPEN, 0.0)
    settle.due(0.2)
    settle.observe("w", "a", stamp(1), 0.2, writing=True)
    settle.due(100.0)
    settle.observe("w", "a", None, 100.0)
    assert settle.held("w", 200.0) == []


def test_an_empty_file_waits_for_what_is_to_be_in_it_which_then_does_not_wait(settle: Settle) -> None:
    empty = Stamp(1, 0, 1, 1)
    settle.sight(CLOSED, 0.0)
    for now in (0.0, CALM * 2.0 - 0.1):
        settle.due(now)
        assert settle.observe("w", "a", empty, now, writing=False) is None
    settle.sight(CLOSED, 9.95)
    when, ready = quiet(settle, 1, 9.95)
    assert when == pytest.approx(9.95 + RECHECK)
    assert ready.closed
    settle.sight(CLOSED, 20.0)
    settle.due(20.0)
    assert settle.observe("w", "a", empty, 20.0, writing=False) is None
    assert settle.next_wake() == 20.0 + CALM * 2.0
    settle.due(20.0 + CALM * 2.0)
    assert settle.observe("w", "a", empty, 20.0 + CALM * 2.0, writing=False) == Ready("w", "a", empty, closed=True)


def test_an_empty_file_whose_close_was_not_seen_waits_as_long(settle: Settle) -> None:
    settle.sight(OPEN, 0.0)
    empty, now = Stamp(1, 0, 1, 1), 0.0
    while (now := settle.next_wake() or 0.0) < CALM * 2.0:
        settle.due(now)
        assert settle.observe("w", "a", empty, now, writing=False) is None


def test_how_long_a_file_was_empty_is_no_pause_of_its_writer(settle: Settle) -> None:
    settle.sight(OPEN, 0.0)
    settle.due(0.2)
    assert settle.observe("w", "a", Stamp(1, 0, 1, 1), 0.2, writing=False) is None
    assert quiet(settle, 1, 9.0)[0] == pytest.approx(12.2)


def test_what_is_put_off_is_not_looked_at_before(settle: Settle) -> None:
    settle.sight(CLOSED, 0.0)
    settle.put_off(("w", "a"), 5.0)
    assert settle.due(4.9) == []
    assert settle.due(5.0) == [("w", "a")]


def test_a_close_that_follows_makes_the_wait_short(settle: Settle) -> None:
    settle.sight(OPEN, 0.0)
    settle.sight(CLOSED, 0.1)
    assert quiet(settle, 1, 0.1)[0] == pytest.approx(0.1 + RECHECK)


def test_a_file_that_changed_between_the_looks_waits_again(settle: Settle) -> None:
    settle.sight(CLOSED, 0.0)
    settle.due(0.0)
    settle.observe("w", "a", stamp(1), 0.0, writing=False)
    settle.due(RECHECK)
    assert settle.observe("w", "a", stamp(2), RECHECK, writing=False) is None
    assert quiet(settle, 2, 0.0)[0] == pytest.approx(RECHECK + 2.0)


def test_a_second_close_starts_the_wait_again(settle: Settle) -> None:
    settle.sight(CLOSED, 0.0)
    settle.due(0.0)
    settle.observe("w", "a", stamp(1), 0.0)
    settle.sight(CLOSED, RECHECK)
    settle.due(RECHECK)
    assert settle.observe("w", "a", stamp(1), RECHECK) is None


def rewritten(settle: Settle, every: float, until: float) -> list[float]:
    """Returns when versions of a file were ready that is opened, changed and closed every so many seconds."""
    ready, version, now = [], 0, 0.0
    while True:
        change = version * every
        wake = settle.next_wake()
        now = change if wake is None or (change < until and change <= wake) else max(now, wake)
        if change < until and now == change:
            version += 1
            settle.sight(CLOSED, now)
        elif wake is None or wake == inf:
            return ready
        for watch, path in settle.due(now):
            if settle.observe(watch, path, stamp(version), now, writing=False) is not None:
                ready.append(now)


def test_a_log_that_is_closed_after_each_line_is_let_through_less_and_less_often(settle: Settle) -> None:
    times = rewritten(settle, every=1.0, until=600.0)
    assert times[:OFTEN] == pytest.approx([RECHECK + second for second in range(OFTEN)])
    waits = [later - earlier for earlier, later in pairwise(times)][OFTEN - 1 :]
    assert waits[:5] == pytest.approx([2, 4, 8, 16, 32], abs=1 + RECHECK)
    assert waits[5:] == pytest.approx([LONGEST] * (len(waits) - 5), abs=1 + RECHECK)
    assert times[-1] + LONGEST >= 600.0  # the last version too, and in time


@pytest.mark.parametrize(("seconds", "longest"), [(0.2, LONGEST / 10), (100.0, 100.0)])
def test_how_seldom_a_log_is_let_through_is_up_to_the_patience_of_its_watch(seconds: float, longest: float) -> None:
    times = rewritten(Settle({"w": seconds}), every=1.0, until=900.0)
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits[-3:] == pytest.approx([longest] * 3, abs=1 + RECHECK)


def test_a_version_that_is_held_back_is_so_also_where_its_close_is_not_heard(settle: Settle) -> None:
    free = rewritten(settle, every=1.0, until=OFTEN)[-1] + 2.0
    settle.sight(OPEN, free - 1.0)
    assert settle.next_wake() == pytest.approx(free)


def test_who_goes_on_after_a_version_was_held_back_is_waited_for_as_at_first(settle: Settle) -> None:
    free = rewritten(settle, every=1.0, until=OFTEN)[-1] + 2.0
    for now in (free - 1.0, free, free + 1.0):  # the first of them is held back
        settle.sight(CLOSED, now)
        settle.due(now)
        assert settle.observe("w", "a", stamp(99), now, writing=False) is None
    assert quiet(settle, 99, free + 1.0)[0] == pytest.approx(free + 3.0)  # it paused for a second


def test_of_many_files_those_are_remembered_that_came_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dumbwaiter.watch.settle.REMEMBERED", 2)
    settle = Settle({"w": 2.0, "others": 2.0})
    for path in "bcd":
        settle.sight(Sighting("others", path, old=True), 0.0)
        for now in (0.0, RECHECK):
            settle.due(now)
            settle.observe("others", path, stamp(1), now, writing=False)
        settle.outrun("others", path, 100.0, 0.0)
    waits = [later - earlier for earlier, later in pairwise(rewritten(settle, every=1.0, until=30.0))]
    assert waits[OFTEN + 1 :] == pytest.approx([8, 16], abs=1 + RECHECK)
    for path in ("a", "b", "a", "c"):
        settle.outrun("w", path, 100.0, 30.0)
    settle.sight(CLOSED, 60.0)
    assert settle.restless("w", 60.0) == [("a", 200.0)]


def test_the_last_version_of_a_file_that_was_finished_often_is_let_through(settle: Settle) -> None:
    assert rewritten(settle, every=1.0, until=30.5)[-1] > 30.0


def test_versions_that_lie_apart_are_let_through_at_once(settle: Settle) -> None:
    times = rewritten(settle, every=2 * LONGEST, until=20 * LONGEST)
    assert times == pytest.approx([2 * LONGEST * one + RECHECK for one in range(10)], abs=RECHECK)
    for now in (30 * LONGEST, 30 * LONGEST + 1):  # nor does it count against those that come after
        settle.sight(CLOSED, now)
        assert quiet(settle, int(now), now)[0] == pytest.approx(now + RECHECK)


def test_where_each_version_counts_all_of_them_are_let_through() -> None:
    assert len(rewritten(Settle({"w": 2.0}, each=["w"]), every=1.0, until=60.0)) == 60


def test_a_person_who_saves_now_and_then_waits_for_nothing_at_first(settle: Settle) -> None:
    assert rewritten(settle, every=30.0, until=150.0) == pytest.approx([30 * one + RECHECK for one in range(5)])


def test_a_file_whose_changes_outran_its_uploads_has_to_be_quiet_for_as_long_as_these_took(settle: Settle) -> None:
    assert settle.restless("w", 0.0) == []
    settle.outrun("w", "a", 50.0, 0.0)
    settle.outrun("w", "a", 70.0, 100.0)
    settle.sight(CLOSED, 100.0)
    assert settle.restless("w", 100.0) == [("a", 120.0)]
    assert settle.restless("other", 100.0) == []
    assert quiet(settle, 1, 100.0)[0] == pytest.approx(220.0)
    assert settle.restless("w", 220.0) == []  # it is taken
    settle.sight(Sighting("w", "b", closed=True), 300.0)
    assert settle.observe("w", "b", stamp(1), 300.0) is None
    assert settle.observe("w", "b", stamp(1), 300.0 + RECHECK) is not None


def test_a_file_that_outran_its_uploads_is_taken_in_an_hour_at_most_and_some_day_as_any_other(settle: Settle) -> None:
    settle.outrun("w", "a", 1e9, 0.0)
    settle.sight(CLOSED, 10.0)
    assert quiet(settle, 1, 10.0)[0] == pytest.approx(10.0 + OUTRUN_MAX)
    settle.sight(CLOSED, OUTRUN_FOR)
    assert quiet(settle, 2, OUTRUN_FOR)[0] == pytest.approx(OUTRUN_FOR + RECHECK)


def test_a_new_file_under_the_same_name_needs_its_own_close(settle: Settle) -> None:
    settle.sight(CLOSED, 0.0)
    settle.due(0.0)
    settle.observe("w", "a", stamp(1), 0.0)
    settle.sight(OPEN, 0.1)
    assert quiet(settle, 2, 0.1)[0] > 2.0


def test_scans_that_repeat_do_not_prolong_the_wait() -> None:
    settle = Settle({"w": 100.0})
    ready = None
    for second in range(120):
        settle.sight(OPEN, float(second))
        for watch, path in settle.due(float(second)):
            ready = ready or settle.observe(watch, path, stamp(1), float(second))
    assert ready is not None


def test_a_file_that_is_gone_is_forgotten(settle: Settle) -> None:
    settle.sight(CLOSED, 0.0)
    settle.due(0.0)
    assert settle.observe("w", "a", None, 0.0) is None
    assert len(settle) == 0
    assert settle.next_wake() is None
    assert settle.observe("w", "a", stamp(1), 9.0) is None


def test_a_file_open_for_writing_is_not_ready(settle: Settle) -> None:
    settle.sight(CLOSED, 0.0)
    now = 0.0
    for _ in range(50):
        now = max(now, settle.next_wake() or 0.0)
        assert settle.due(now) == [("w", "a")]
        assert settle.observe("w", "a", stamp(1), now, writing=True) is None
    assert 50 <= now <= 150
    assert quiet(settle, 1, now, writing=False)[0] <= now + 2.0


def test_the_close_of_a_long_copy_is_answered_at_once(settle: Settle) -> None:
    settle.sight(OPEN, 0.0)
    for version in range(8):
        wake = settle.next_wake()
        assert wake is not None
        settle.due(wake)
        settle.observe("w", "a", stamp(version), wake, writing=True)
    settle.sight(CLOSED, 500.0)
    assert quiet(settle, 9, 500.0, writing=False)[0] == pytest.approx(500.0 + RECHECK)


def test_a_slow_copy_with_pauses_is_not_taken_half_way(settle: Settle) -> None:
    """Nobody can say whether it is open. It changes every 5 seconds after a steady beginning; settle is 2."""
    settle.sight(OPEN, 0.0)

    def version(now: float) -> int:
        return int(now * 10) if now < 5 else 50 + int(now // 5) if now < 300 else 1000

    while True:
        now = settle.next_wake()
        assert now is not None
        for watch, path in settle.due(now):
            if (ready := settle.observe(watch, path, stamp(version(now)), now)) is not None:
                assert ready.stamp == stamp(1000)
                assert now <= 300 + 2 * LONGEST
                return


def test_after_the_longest_pause_a_file_has_to_be_quiet_for_a_minute_and_not_more(settle: Settle) -> None:
    settle.sight(OPEN, 0.0)
    for now, version in ((0.2, 1), (100.0, 2)):
        settle.due(now)
        assert settle.observe("w", "a", stamp(version), now, writing=False) is None
    assert quiet(settle, 2, 100.0)[0] == pytest.approx(100.0 + LONGEST)


def test_a_watch_without_patience_still_looks_twice() -> None:
    settle = Settle({"w": 0.0})
    settle.sight(OPEN, 0.0)
    assert quiet(settle, 1, 0.0)[0] == pytest.approx(2 * MOMENT)


def test_a_sighting_during_a_look_is_not_lost(settle: Settle) -> None:
    settle.sight(CLOSED, 0.0)
    assert settle.due(0.0) == [("w", "a")]
    settle.sight(CLOSED, 0.1)
    assert settle.observe("w", "a", stamp(1), 0.15) is None
    assert quiet(settle, 2, 0.15)[1].stamp == stamp(2)


def test_a_file_that_comes_while_nothing_was_found_is_looked_at_again(settle: Settle) -> None:
    """An editor between two renames."""
    settle.sight(CLOSED, 0.0)
    assert settle.due(0.0) == [("w", "a")]
    settle.sight(CLOSED, 0.1)
    assert settle.observe("w", "a", None, 0.15) is None
    assert quiet(settle, 2, 0.15)[1].stamp == stamp(2)


def test_watches_are_counted_one_by_one(settle: Settle) -> None:
    for watch in ("w", "v"):
        for number in range(3):
            settle.sight(Sighting(watch, str(number)), 0.0)
    assert (settle.pending("w"), settle.pending("v"), settle.pending("x"), len(settle)) == (3, 3, 0, 6)
    for watch, path in settle.due(9.0):
        if watch == "w":
            settle.observe(watch, path, None, 9.0)
    assert (settle.pending("w"), settle.pending("v"), len(settle)) == (0, 3, 3)


def test_many_files_cost_little_each(settle: Settle) -> None:
    count = 100_000
    for number in range(count):
        settle.sight(Sighting("w", f"{number}"), number / 1e4)
        settle.sight(Sighting("w", f"{number}", closed=True), number / 1e4)
        assert settle.next_wake() == 0.0
    out = settle.due(20.0)
    assert len(out) == count
    for watch, path in out:
        settle.observe(watch, path, stamp(1), 20.0)
    assert settle.due(20.0) == []
    assert sum(1 for name in settle.due(20.0 + RECHECK) if settle.observe(*name, stamp(1), 20.0 + RECHECK)) == count
    assert len(settle) == 0


def test_sightings_that_repeat_do_not_lengthen_the_queue(settle: Settle) -> None:
    for number in range(5000):
        settle.sight(Sighting("w", f"{number % 10}", closed=number % 3 == 0), number / 1000)
        if number % 100 == 0:
            for name in settle.due(number / 1000):
                settle.observe(*name, stamp(number), number / 1000)
    assert len(settle._queue) <= 4 * len(settle)


Event = tuple[float, str, str]
events = st.lists(
    st.tuples(
        st.floats(0.001, 8.0),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["sight", "close", "write", "write and close", "remove", "open", "stop"]),
    ),
    max_size=30,
)


class Disk:
    """Two files, changed by a random story, and their writers."""

    def __init__(self) -> None:
        self.version = {"a": 1, "b": 1}
        self.exists = {"a": True, "b": True}
        self.open: set[str] = set()
        self.changed = {"a": -1000.0, "b": -1000.0}

    def act(self, path: str, what: str, now: float) -> Iterator[Sighting]:
        if what in {"open", "stop"}:
            (self.open.add if what == "open" else self.open.discard)(path)
        elif what == "remove":
            self.exists[path] = False
        else:
            if not self.exists[path]:
                yield Sighting("w", path)
            if what.startswith("write") or not self.exists[path]:
                self.version[path] += 1
                self.changed[path] = now
                self.exists[path] = True
            if what != "write":
                yield Sighting("w", path, closed=what != "sight")

    def look(self, path: str) -> tuple[Stamp | None, bool]:
        return (stamp(self.version[path]) if self.exists[path] else None), path in self.open


def run(settle: Settle, disk: Disk, until: float) -> Iterator[tuple[float, Ready]]:
    """Serves the settle until a moment; at most so many wake-ups as time allows."""
    for _ in range(2000):
        wake = settle.next_wake()
        if wake is None or wake > until:
            return
        names = settle.due(wake)
        assert names, "woken for nothing"
        for name in names:
            found, writing = disk.look(name[1])
            if (ready := settle.observe(*name, found, wake, writing)) is not None:
                yield wake, ready
    raise AssertionError("wakes without end")


@given(events, st.sampled_from([0.0, 0.1, 2.0, 5.0]))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_only_quiet_files_are_ready_and_all_of_them(story: list[Event], seconds: float) -> None:
    settle, disk = Settle({"w": seconds}), Disk()
    least = max(MOMENT, min(seconds, RECHECK))
    waiting: set[str] = set()
    now = 0.0

    def serve(until: float) -> None:
        for when, ready in run(settle, disk, until):
            assert ready.stamp == stamp(disk.version[ready.path])
            assert when - disk.changed[ready.path] >= least - 1e-9
            assert ready.path not in disk.open
            waiting.discard(ready.path)

    for pause, path, what in story:
        serve(now + pause)
        now += pause
        for sighting in disk.act(path, what, now):
            settle.sight(sighting, now)
            waiting.add(path)
    disk.open.clear()
    serve(now + 4 * LONGEST)
    assert not {path for path in waiting if disk.exists[path]}
    assert len(settle) == settle.pending("w") == 0


def test_a_scan_that_finds_a_file_old_shortens_no_wait_that_has_begun() -> None:
    stamp = Stamp(1, 300 << 20, 1, 1)
    settle = Settle({"w": 2.0})
    settle.sight(Sighting("w", "a"), 0.0)
    assert settle.observe("w", "a", stamp, 0.0, None) is None
    settle.sight(Sighting("w", "a", old=True), 3.0)
    for now in (3.5, 3.5 + RECHECK):
        assert settle.observe("w", "a", stamp, now, None) is None
    settle.sight(Sighting("w", "b", old=True), 3.0)  # nobody has seen that one before
    assert settle.observe("w", "b", stamp, 3.0, None) is None
    assert settle.observe("w", "b", stamp, 3.0 + RECHECK, None) == Ready("w", "b", stamp, closed=False)


@pytest.mark.parametrize(("writing", "quiet"), [(None, LONGEST), (False, 2.0)])
def test_a_file_that_nobody_closed_is_waited_for_longer_where_no_writer_can_be_seen(
    writing: bool | None, quiet: float
) -> None:
    """Another user's recorder may pause for longer than `settle`; its close will be heard."""
    settle = Settle({"w": 2.0})
    settle.sight(Sighting("w", "a"), 0.0)
    stamp = Stamp(1, 5, 1, 1)
    assert settle.observe("w", "a", stamp, 0.0, writing) is None
    assert settle.observe("w", "a", stamp, quiet - 0.1, writing) is None
    assert settle.observe("w", "a", stamp, quiet, writing) is not None
