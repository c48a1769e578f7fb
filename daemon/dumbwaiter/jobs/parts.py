"""Parts of one file on their way at once, in as many threads as the line bears."""

import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from dumbwaiter.errors import Stopped
from dumbwaiter.jobs.threads import Threads, drive
from dumbwaiter.net.abort import Abort
from dumbwaiter.net.pace import Abreast
from dumbwaiter.pool import NoThread

_here = threading.local()
T = TypeVar("T")


class SideBySide:
    """The parts of one file: the thread that calls takes parts, and others help as far as the line bears it."""

    def __init__(self, threads: Threads, abreast: Abreast, abort: Abort) -> None:
        self._threads = threads
        self._abreast = abreast
        self._abort = abort
        self._picking, self._noting = threading.Lock(), threading.Lock()
        self._left: deque[int] = deque()
        self._at_work = 1
        self._failures: list[BaseException] = []
        self._helpers: list[Future[None]] = []

    def run(
        self,
        numbers: Sequence[int],
        send: Callable[[int], Coroutine[Any, Any, T]],
        done: Callable[[int, T], Coroutine[Any, Any, None]],
    ) -> None:
        """Sends all parts; `done` is told of one at a time. Raises the first failure, which ends the others."""
        self._left.extend(numbers)

        def take_parts(helps: bool) -> None:
            _here.abort = self._abort
            try:
                while not self._abort.called and (number := self._pick(helps)) is not None:
                    began, together = time.monotonic(), self._at_work
                    result = drive(send(number))
                    self._abreast.took(time.monotonic() - began, together)
                    with self._noting:
                        drive(done(number, result))
                    self._call_helpers(help_out)
            except BaseException as failure:  # noqa: BLE001 - raised again below
                self._fail(failure)
            finally:
                del _here.abort

        help_out = partial(take_parts, helps=True)
        try:
            self._call_helpers(help_out)
        except RuntimeError as failure:  # there are no threads any more
            self._fail(failure)
        take_parts(helps=False)
        for helper in self._helpers:
            if not helper.cancel():  # what has not begun by now has nothing left to do
                helper.result()
        if self._failures:
            raise self._failures[0]
        if self._abort.called:
            raise Stopped

    def _pick(self, helps: bool) -> int | None:
        """Returns what a thread is to send next; None where it is one too many, or nothing is left."""
        with self._picking:
            if self._left and not (helps and self._at_work > self._abreast.most):
                return self._left.popleft()
            self._at_work -= 1
            return None

    def _call_helpers(self, help_out: Callable[[], None]) -> None:
        """Begins as many threads as may be at work."""
        with self._picking:
            most = min(self._threads.parts, self._abreast.most)
            for _ in range(int(min(most - self._at_work, len(self._left) - 1))):  # whoever calls takes one of them
                try:
                    self._helpers.append(self._threads.part(help_out))
                except NoThread:  # who calls sends them all
                    return
                self._at_work += 1

    def _fail(self, failure: BaseException) -> None:
        self._failures.append(failure)
        self._abort()


def abort_of_part() -> Abort | None:
    """Returns what ends the part that this thread sends; None where it sends none."""
    abort: Abort | None = getattr(_here, "abort", None)
    return abort
