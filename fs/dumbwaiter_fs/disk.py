"""A disk that may never answer: it holds up a few threads at most, and whoever can do without it does not wait long."""

import errno
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

from dumbwaiter_fs.errnos import Refused

T = TypeVar("T")

ABREAST = 4  # threads at one disk
PATIENCE = 5.0  # seconds for one of these to be done, and for an answer where there is another way
SPARE = 4  # threads that stay for the next question, whatever disk it is for


class Disk:
    """The disk of a watch's files. `with disk:` lets few threads in at once, and raises ETIMEDOUT where all of those hang."""

    def __init__(self) -> None:
        self._free = threading.BoundedSemaphore(ABREAST)
        self._silent = False  # somebody waited in vain, and nothing has been answered since

    def __enter__(self) -> None:
        self._enter(PATIENCE)

    def __exit__(self, *_error: object) -> None:
        self._leave()

    def soon(self, work: Callable[[], T], undo: Callable[[T], None]) -> T:
        """Does `work` in another thread. Raises ETIMEDOUT when the disk does not answer in time, at once when it is known to hang.

        `undo` gets a result that came too late.
        """
        self._enter(0.0 if self._silent else PATIENCE)
        answer: Future[T] = Future()

        def do() -> None:
            try:
                try:
                    result = work()
                finally:
                    self._leave()
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                if answer.set_running_or_notify_cancel():
                    answer.set_exception(error)
            else:
                if answer.set_running_or_notify_cancel():
                    answer.set_result(result)
                else:
                    undo(result)

        _threads.do(do)
        try:
            return answer.result(PATIENCE)
        except TimeoutError:
            if answer.cancel():
                self._silent = True
                raise _silence() from None
            return answer.result()

    def _enter(self, patience: float) -> None:
        if not self._free.acquire(timeout=patience):
            raise _silence()

    def _leave(self) -> None:
        self._silent = False
        self._free.release()


def _silence() -> Refused:
    return Refused(errno.ETIMEDOUT, "the local disk does not answer")


class _Threads:
    """Threads that may wait for good; the process does not wait for them at its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle = 0
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def do(self, work: Callable[[], None]) -> None:
        """Does `work`, which raises nothing, in one of them; in the caller's where the system gives us no more."""
        with self._lock:
            begin = not self._idle
            self._idle -= not begin
        if begin:
            try:
                threading.Thread(target=self._run, name="disk", daemon=True).start()
            except RuntimeError:
                work()
                return
        self._work.put(work)

    def _run(self) -> None:
        while True:
            self._work.get()()
            with self._lock:
                if self._idle >= SPARE:
                    return
                self._idle += 1


_threads = _Threads()
