"""The threads that move bytes. The loop keeps the order of things; what blocks is done here.

A transport is a coroutine that waits for nothing but its doors, and the doors block: so one thread runs it from end
to end, and between two requests of a file no other thread has to wake up.
"""

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

from dumbwaiter.bulk import Abort

T = TypeVar("T")

ASIDE = 32  # threads at most for what may have to wait
ANSWER = 10.0  # seconds for a disk to answer, and between two questions whether it still does
ABREAST = 4  # threads that look at one place
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


class _Look(NamedTuple):
    """Work that waits for a place."""

    work: Callable[[], Any]
    undo: Callable[[Any], None]
    done: asyncio.Future[Any]


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine that never gives up its turn, and returns its result."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError("a transport waits for something that is no door")


class _Aside(ThreadPoolExecutor):
    """Threads for what may have to wait. Nobody waits for them at the end: a folder that hangs keeps some for good."""

    def __init__(self, most: int) -> None:
        super().__init__(most, "aside")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=cancel_futures)


def run_loop(work: Coroutine[Any, Any, T], aside: int = ASIDE) -> T:
    """Runs `work` in a loop of its own, with so many threads for what may have to wait; does not wait for those."""

    async def main() -> T:
        asyncio.get_running_loop().set_default_executor(_Aside(aside))
        return await work

    return asyncio.run(main())


class Threads:
    """Threads for so many files at once, each in so many parts."""

    def __init__(self, transfers: int, parts: int) -> None:
        self.parts = parts
        self._transfers = transfers
        self._replacing = threading.Lock()
        self._begin()
        self._looks: dict[str, list[_Look]] = {}  # by place, to begin
        self._busy: Counter[str] = Counter()  # threads that look at a place
        self._silent: set[str] = set()  # places that somebody waited for in vain, and that have not answered since

    def _begin(self) -> None:
        self._files = ThreadPoolExecutor(self._transfers, "file")
        self._parts = ThreadPoolExecutor(max(1, self._transfers * (self.parts - 1)), "part")

    async def run(self, work: Callable[[], T], abort: Abort, file: OpenFile, *, last: bool = False) -> T:
        """Does `work`, which reads the file, in a thread. Cancelled, it calls `abort` and waits a little for the thread.

        Where this is its `last` use, the caller has no more to do with the file. Raises TimeoutError where the file's disk
        answers no more. Threads that it keeps are replaced.
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

        files, future, task = self._submit(use)
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

    def _submit(self, use: Callable[[], T]) -> tuple[ThreadPoolExecutor, "Future[T]", "asyncio.Future[T]"]:
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
            done = asyncio.get_running_loop().create_future()
            self._ask(file.place, _Look(partial(_close, file.fd), lambda _nothing: None, done))

    async def look(self, place: str, work: Callable[[], T], undo: Callable[[T], None]) -> T:
        """Does short work that may have to wait for a disk; what is asked for one place in one turn shares a thread.

        Raises TimeoutError where the disk does not answer, at once when it is known to be dead; it keeps a few threads,
        and no more. `undo` gets what came when nobody waited for it any more.
        """
        if place in self._silent and self._busy[place] == ABREAST:
            raise TimeoutError
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._ask(place, _Look(work, undo, done))
        try:
            async with asyncio.timeout(ANSWER):
                return await done
        except (asyncio.CancelledError, TimeoutError) as end:
            answered = done.done() and not done.cancelled()
            if answered and done.exception() is None:
                asyncio.get_running_loop().run_in_executor(None, undo, done.result())
            elif not answered and isinstance(end, TimeoutError):
                self._silent.add(place)
            raise

    def _ask(self, place: str, look: _Look) -> None:
        looks = self._looks.setdefault(place, [])
        if self._busy[place] == ABREAST:
            looks[:] = [one for one in looks if not one.done.done()]
        looks.append(look)
        if len(looks) == 1:
            asyncio.get_running_loop().call_soon(self._look, place)

    def _look(self, place: str) -> None:
        looks = [one for one in self._looks.pop(place, ()) if not one.done.done()]  # the others have given up
        if not looks:
            return
        if self._busy[place] == ABREAST:
            self._looks[place] = looks
            return
        self._busy[place] += 1

        def tell(ended: "asyncio.Future[list[tuple[Any, BaseException | None]]]") -> None:
            self._busy[place] -= 1
            self._silent.discard(place)
            if place in self._looks:
                self._look(place)
            for look, (result, error) in zip(looks, ended.result(), strict=True):
                if error is not None:
                    if not look.done.done():
                        look.done.set_exception(error)
                elif look.done.done():
                    asyncio.get_running_loop().run_in_executor(None, look.undo, result)
                else:
                    look.done.set_result(result)

        asyncio.get_running_loop().run_in_executor(None, lambda: [*map(_outcome, looks)]).add_done_callback(tell)

    def part(self, work: Callable[[], T]) -> "Future[T]":
        """Does `work` beside the thread of its file."""
        with self._replacing:
            return self._parts.submit(work)

    def close(self) -> None:
        for pool in (self._files, self._parts):
            pool.shutdown(wait=False, cancel_futures=True)


async def apart(work: Callable[[], None]) -> None:
    """Does `work` in a thread of its own: those for what may have to wait may all be waiting."""
    done: Future[None] = Future()

    def work_on() -> None:
        try:
            work()
            done.set_result(None)
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            done.set_exception(error)

    threading.Thread(target=work_on, daemon=True).start()
    await asyncio.wrap_future(done)


def _heard(task: "asyncio.Future[Any]") -> None:
    if not task.cancelled():
        task.exception()


def _ask_disk(fd: int) -> None:
    with suppress(OSError):  # an answer too
        os.fstat(fd)


def _close(fd: int) -> None:
    with suppress(OSError):
        os.close(fd)


def _outcome(look: _Look) -> tuple[Any, BaseException | None]:
    try:
        result = look.work()
        if look.done.done():  # too late: undone here, for that may have to wait for the disk as well
            look.undo(result)
            return None, TimeoutError()
        return result, None
    except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
        return None, error
