"""Looks at a disk that answers late, or never."""

import asyncio
import threading

import pytest

from dumbwaiter import threads
from dumbwaiter.threads import ABREAST, Threads

BOUND = 30.0


def test_what_comes_when_nobody_waits_any_more_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "ANSWER", 0.1)
    answers, all_undone = threading.Event(), threading.Event()
    undone: list[int] = []

    def undo(number: int) -> None:
        undone.append(number)
        if len(undone) == 3:
            all_undone.set()

    def late(number: int) -> int:
        assert answers.wait(BOUND)
        return number

    async def test() -> None:
        pool = Threads(1, 1)
        waiting = [pool.look("/disk", lambda number=number: late(number), undo) for number in range(3)]  # type: ignore[misc]
        told = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(one) for one in told] == [TimeoutError] * 3
        answers.set()
        assert await asyncio.to_thread(all_undone.wait, BOUND)
        assert sorted(undone) == [0, 1, 2]
        assert await pool.look("/disk", lambda: 7, undo) == 7
        assert len(undone) == 3
        pool.close()

    asyncio.run(test())


def test_a_dead_disk_keeps_few_threads_and_nothing_of_those_who_gave_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "ANSWER", 0.01)
    answers = threading.Event()
    begun: list[int] = []

    def dead() -> None:
        begun.append(1)
        assert answers.wait(BOUND)

    async def test() -> None:
        pool = Threads(1, 1)
        try:
            for _ in range(50):
                with pytest.raises(TimeoutError):
                    await pool.look("/disk", dead, lambda _nothing: None)
            assert len(begun) == ABREAST
            assert len(pool._looks["/disk"]) == 1
        finally:
            answers.set()
        pool.close()

    asyncio.run(test())
