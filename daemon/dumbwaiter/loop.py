"""The event loop of the program, and its threads for what may have to wait. Nothing that hangs keeps it from its end."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from dumbwaiter.pool import Pool

T = TypeVar("T")

ASIDE = 32  # threads at most for what may have to wait


class _Aside(Pool):
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


async def apart(work: Callable[[], None]) -> None:
    """Does `work` in a thread of its own: those for what may have to wait may all be waiting."""
    done: Future[None] = Future()

    def work_on() -> None:
        try:
            work()
            done.set_result(None)
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            done.set_exception(error)

    try:
        threading.Thread(target=work_on, daemon=True).start()
    except RuntimeError:  # no further one can be started
        await asyncio.to_thread(work_on)
    await asyncio.wrap_future(done)
