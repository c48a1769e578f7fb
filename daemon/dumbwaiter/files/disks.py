"""Short work at disks that may never answer: a dead one keeps a few threads and no more, and nobody waits for it long."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

ANSWER = 10.0  # seconds for a disk to answer
ABREAST = 4  # threads at one place


class _Look(NamedTuple):
    """Work that waits for a place."""

    work: Callable[[], Any]
    undo: Callable[[Any], None]
    done: asyncio.Future[Any]


class Disks:
    """The threads at each place. All of it runs on the loop."""

    def __init__(self) -> None:
        self._looks: dict[str, list[_Look]] = {}  # by place, to begin
        self._busy: Counter[str] = Counter()  # threads that look at a place
        self._silent: set[str] = set()  # places that somebody waited for in vain, and that have not answered since

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

    def later(self, place: str, work: Callable[[], None]) -> None:
        """Does work that nobody waits for."""
        done = asyncio.get_running_loop().create_future()
        self._ask(place, _Look(work, lambda _nothing: None, done))

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


def _outcome(look: _Look) -> tuple[Any, BaseException | None]:
    try:
        result = look.work()
        if look.done.done():  # too late: undone here, for that may have to wait for the disk as well
            look.undo(result)
            return None, TimeoutError()
        return result, None
    except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
        return None, error
