"""Threads that do one piece of work after another, on a machine that may not allow for all of them."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty

NO_THREAD = "no more threads can be started here: raise the limit of processes (`ulimit -u`, TasksMax, a container's) or of memory"


class NoThread(RuntimeError):
    """Not one thread can be had, and the work is not going to be done."""

    def __init__(self) -> None:
        super().__init__(NO_THREAD)


class Pool(ThreadPoolExecutor):
    """An executor whose work waits for the threads that there are when no further one can be started.

    The standard library's raises RuntimeError then and does the work all the same, so that a caller who tries again
    has it done twice. `submit` raises `NoThread` when there is no thread at all.
    """

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError:
            if self._threads:
                return
            with suppress(Empty):
                self._work_queue.get_nowait()
            raise NoThread from None
