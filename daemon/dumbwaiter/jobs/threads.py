"""The threads that move bytes. The loop keeps the order of things; what blocks is done here.

A transport is a coroutine that waits for nothing but its doors, and the doors block: so one thread runs it from end
to end, and between two requests of a file no other thread has to wake up.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from dumbwaiter.errors import Local
from dumbwaiter.files.disks import ANSWER, Disks
from dumbwaiter.net.abort import Abort
from dumbwaiter.pool import NoThread, Pool

T = TypeVar("T")

PATIENCE = 2.0  # seconds for a thread to notice that its work is over


class OpenFile:
    """A file of some place, which the last of those who use it closes: one opened it, threads read it."""

    def __init__(self, fd: int, place: str) -> None:
        self.fd = fd
        self.place = place
        self._users = 1
        self._lock = threading.Lock()

    def join(self) -> None:
        with self._lock:
            self._users += 1

    def leave(self) -> bool:
        """Returns True for the last one."""
        with self._lock:
            self._users -= 1
            return not self._users


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine that never gives up its turn, and returns its result."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError("a transport waits for something that is no door")


class Threads:
    """Threads for so many files at once, each in so many parts."""

    def __init__(self, transfers: int, parts: int) -> None:
        self.parts = parts
        self._transfers = transfers
        self._replacing = threading.Lock()
        self._begin()
        self._disks = Disks()

    def _begin(self) -> None:
        self._files = Pool(self._transfers, "file")
        self._parts = Pool(max(1, self._transfers * (self.parts - 1)), "part")

    async def run(self, work: Callable[[], T], abort: Abort, file: OpenFile, *, last: bool = False) -> T:
        """Does `work`, which reads the file, in a thread. Cancelled, it calls `abort` and waits a little for the thread.

        Where this is its `last` use, the caller has no more to do with the file. Raises TimeoutError where the file's disk
        answers no more, and `Local` where there is no thread for it. Threads that a dead disk keeps are replaced.
        """
        if not last:
            file.join()
        results: list[T] = []

        def use() -> T:
            try:
                results.append(work())
            finally:
                if file.leave():
                    _close(file.fd)  # a dead disk keeps a thread here as well, and no result
            return results[0]

        try:
            files, future, task = self._submit(use)
        except NoThread as error:
            self.let_go(file)
            raise Local(str(error)) from None
        try:
            while not (await asyncio.wait([task], timeout=ANSWER))[0]:
                await self.look(file.place, partial(_ask_disk, file.fd), lambda _nothing: None)
                if files is not self._files and future.cancel():  # those before it may never end
                    files, future, task = self._submit(use)
            return task.result()
        except (asyncio.CancelledError, TimeoutError) as end:
            dead = isinstance(end, TimeoutError)
            if dead and task.done():
                return task.result()
            abort()
            if future.cancel():
                self.let_go(file)
            try:
                await asyncio.wait([task], timeout=PATIENCE)
            finally:  # who is cancelled twice leaves a thread behind as well
                if not task.done() and files is self._files:
                    self._replace()
            if dead and results:
                return results[0]
            raise

    async def read(self, file: OpenFile, work: Callable[[Callable[[], bool]], T]) -> T:
        """Does `work`, which reads the file and stops when its argument says so, as `run` does."""
        abort = Abort()
        return await self.run(lambda: work(lambda: abort.called), abort, file)

    def _submit(self, use: Callable[[], T]) -> tuple[Pool, "Future[T]", "asyncio.Future[T]"]:
        future = self._files.submit(use)
        task = asyncio.wrap_future(future)
        task.add_done_callback(_heard)
        return self._files, future, task

    def _replace(self) -> None:
        """Gives the place of threads that a disk keeps to others; what waits for the old ones is still done by the rest."""
        with self._replacing:
            old = self._files, self._parts
            self._begin()
        for pool in old:
            pool.shutdown(wait=False)

    def let_go(self, file: OpenFile) -> None:
        """Closes the file if nobody else uses it, beside the loop: a disk may have to answer to that."""
        if file.leave():
            self._disks.later(file.place, partial(_close, file.fd))

    async def look(self, place: str, work: Callable[[], T], undo: Callable[[T], None]) -> T:
        """Does short work at a disk, as `Disks.look` does."""
        return await self._disks.look(place, work, undo)

    def part(self, work: Callable[[], T]) -> "Future[T]":
        """Does `work` beside the thread of its file. Raises `NoThread`."""
        with self._replacing:
            return self._parts.submit(work)

    def close(self) -> None:
        for pool in (self._files, self._parts):
            pool.shutdown(wait=False, cancel_futures=True)


def _heard(task: "asyncio.Future[Any]") -> None:
    if not task.cancelled():
        task.exception()


def _ask_disk(fd: int) -> None:
    with suppress(OSError):  # an answer too
        os.fstat(fd)


def _close(fd: int) -> None:
    with suppress(OSError):
        os.close(fd)
