"""Steering: what a person's word does to the running daemon, and what a restart leaves of it."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any

import pytest

import journals
from dumbwaiter.config.timetable import Timetable
from dumbwaiter.errors import Failure
from dumbwaiter.jobs.steering import Steering
from dumbwaiter.model import MIB
from dumbwaiter.net.pace import Bandwidth
from journals import Book

sqlite_book = journals.sqlite_book


def steering(book: Book, timetable: str = "off", now: float = 1000.0) -> Steering:
    return Steering(
        book.journal.pauses,
        Bandwidth(),
        Timetable(timetable),
        providers=("vod", "news"),
        watches=("masters",),
        clock=lambda: now,
    )


def run(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(work())


def test_a_pause_ends_by_itself_or_by_word_and_outlives_a_restart(sqlite_book: Book) -> None:
    async def test() -> None:
        one = steering(sqlite_book)
        await one.pause("vod", 60.0)
        await one.pause("masters", None)
        again = steering(sqlite_book)
        await again.load()
        for each in (one, again):
            assert each.providers(1059.0) == {"vod": 1060.0}
            assert each.providers(1060.0) == {}
            assert each.paused(1060.0) == {"masters": inf}
            assert each.watches(1e9) == {"masters": inf}
        await again.resume("masters")
        assert again.watches(1000.0) == {}
        await again.resume(None)
        assert again.paused(1000.0) == {}

    run(test)


def test_a_pause_of_what_has_another_name_by_now_can_be_ended(sqlite_book: Book) -> None:
    async def test() -> None:
        await steering(sqlite_book).pause("masters", None)
        renamed = Steering(
            sqlite_book.journal.pauses, Bandwidth(), Timetable("off"), providers=("vod",), watches=("films",)
        )
        await renamed.load()
        await renamed.resume("masters")
        assert renamed.paused(1000.0) == {}
        with pytest.raises(Failure, match='there is no provider and no watch "masters"'):
            await renamed.resume("masters")

    run(test)


def test_everything_rests_at_once(sqlite_book: Book) -> None:
    async def test() -> None:
        one = steering(sqlite_book)
        await one.pause("", 60.0)
        await one.pause("news", 90.0)
        assert one.providers(1000.0) == {"vod": 1060.0, "news": 1090.0}

    run(test)


def test_a_name_that_is_none_is_said(sqlite_book: Book) -> None:
    one = steering(sqlite_book)
    for work in (lambda: one.pause("vood", None), lambda: one.resume("vood")):
        with pytest.raises(Failure, match='no provider and no watch "vood"'):
            run(work)


def test_an_ordered_rate_holds_until_it_is_taken_back(sqlite_book: Book) -> None:
    noon = datetime(2026, 6, 1, 12).astimezone().timestamp()
    one = steering(sqlite_book, "08:00,1M 19:00,off", noon)
    assert one.keep_time() == datetime(2026, 6, 1, 19).astimezone().timestamp()
    assert one.rate == MIB
    one.order("2M")
    one.keep_time()
    assert one.rate == 2 * MIB
    one.order("off")
    assert one.rate is None
    one.order(None)
    assert one.rate == MIB
    with pytest.raises(Failure, match="is no rate"):
        one.order("fast")
    assert one.rate == MIB


def test_nothing_is_written_outside_of_the_journal(sqlite_book: Book, tmp_path: Path) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    run(lambda: steering(sqlite_book).pause("vod", None))
    assert [name for name in sorted(path.name for path in tmp_path.iterdir()) if name not in before] == []
