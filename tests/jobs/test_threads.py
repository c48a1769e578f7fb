"""Looks at a disk that answers late, or never."""

import asyncio
import gc
import os
import threading
import time
from pathlib import Path

import pytest

from dumbwaiter.files import disks
from dumbwaiter.files.disks import ABREAST
from dumbwaiter.jobs import threads
from dumbwaiter.jobs.threads import OpenFile, Threads
from dumbwaiter.net.abort import Abort

BOUND = 30.0


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Waits for a disk no longer than a moment."""
    for module, limit in ((disks, "ANSWER"), (threads, "ANSWER"), (threads, "PATIENCE")):
        monkeypatch.setattr(module, limit, 0.1)
    return monkeypatch


def test_what_comes_when_nobody_waits_any_more_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "ANSWER", 0.1)
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
    monkeypatch.setattr(disks, "ANSWER", 0.01)
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
            monkeypatch.setattr(disks, "ANSWER", BOUND)
            known = asyncio.create_task(pool.look("/disk", dead, lambda _nothing: None))
            await asyncio.sleep(0)
            assert isinstance(known.exception(), TimeoutError)  # at once
        finally:
            answers.set()
        async with asyncio.timeout(BOUND):
            await until_answered(pool, "/disk")
        pool.close()

    asyncio.run(test())


def test_threads_that_a_disk_keeps_are_replaced_and_its_file_stays_open_as_long_as_they_read_it(
    impatient: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    impatient.setattr(threads, "_ask_disk", lambda fd: fd == dead.fd and answers.wait(BOUND))
    answers = threading.Event()
    (tmp_path / "file").write_bytes(b"content")
    dead, other = (OpenFile(os.open(tmp_path / "file", os.O_RDONLY), place) for place in ("/dead", "/other"))

    def read(file: OpenFile) -> bytes:
        if file is dead:
            assert answers.wait(BOUND)
        return os.pread(file.fd, 100, 0)

    async def test() -> None:
        pool = Threads(2, 1)
        abort = Abort()
        try:
            hung = [asyncio.create_task(pool.run(lambda: read(dead), abort, dead)) for _ in range(2)]
            waits = asyncio.create_task(pool.run(lambda: read(other), Abort(), other))
            told = await asyncio.gather(*hung, return_exceptions=True)
            assert [type(one) for one in told] == [TimeoutError] * 2
            assert abort.called
            async with asyncio.timeout(BOUND):
                assert await waits == b"content"
            pool.let_go(other)
            pool.let_go(dead)
            assert await pool.look("/other", lambda: is_open(other.fd), lambda _told: None) is False
            assert is_open(dead.fd)
        finally:
            answers.set()
        async with asyncio.timeout(BOUND):
            await asyncio.to_thread(until_closed, dead.fd)
        pool.close()

    asyncio.run(test())


def test_a_result_is_not_lost_to_a_disk_that_does_not_even_close(impatient: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = threading.Event()
    for hangs in ("_ask_disk", "_close"):
        impatient.setattr(threads, hangs, lambda _fd: answers.wait(BOUND))
    (tmp_path / "file").touch()

    async def test() -> None:
        pool = Threads(1, 1)
        file = OpenFile(os.open(tmp_path / "file", os.O_RDONLY), "/dead")
        try:
            assert await pool.run(lambda: "receipt", Abort(), file, last=True) == "receipt"
        finally:
            answers.set()
            os.close(file.fd)
        pool.close()

    asyncio.run(test())


def test_who_is_cancelled_twice_leaves_no_others_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers, begun = threading.Event(), threading.Event()
    (tmp_path / "file").touch()

    def hang() -> None:
        begun.set()
        assert answers.wait(BOUND)
        raise OSError("nobody hears this")

    async def test() -> None:
        pool = Threads(1, 1)
        unheard: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, told: unheard.append(told))
        dead, other = (OpenFile(os.open(tmp_path / "file", os.O_RDONLY), place) for place in ("/dead", "/other"))
        try:
            hung = asyncio.create_task(pool.run(hang, Abort(), dead, last=True))
            await asyncio.to_thread(begun.wait, BOUND)
            for _ in range(2):
                hung.cancel()
                await asyncio.sleep(0)
            await asyncio.gather(hung, return_exceptions=True)
            async with asyncio.timeout(BOUND):
                assert await pool.run(lambda: 7, Abort(), other, last=True) == 7
        finally:
            answers.set()
        async with asyncio.timeout(BOUND):
            await asyncio.to_thread(until_closed, dead.fd)
        pool.close()
        gc.collect()
        assert unheard == []

    asyncio.run(test())


async def until_answered(pool: Threads, place: str) -> None:
    try:
        await pool.look(place, lambda: None, lambda _nothing: None)
    except TimeoutError:
        await asyncio.sleep(0.01)
        await until_answered(pool, place)


def until_closed(fd: int) -> None:
    while is_open(fd):
        time.sleep(0.01)


def is_open(fd: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{fd}")
