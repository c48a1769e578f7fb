"""What changes in a running daemon, as events for whoever follows: the page, a script, another program.

The journal names the jobs that each commit moved, the app's pulse says that a watch or a provider changed; then, and
only then, the facts are looked at, once for all followers and at most for a tenth of the time. What happened between
two looks is one event. Nobody follows: nothing is looked at.
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from dumbwaiter import log, report
from dumbwaiter.app import App
from dumbwaiter.errors import JournalTrouble
from dumbwaiter.facts import job_facts
from dumbwaiter.pulse import Pulse, wait_for_beat
from dumbwaiter.store.queue import UNNAMED

PACE = 0.2  # seconds between two looks, at least
SHARE = 10  # a look takes one part in so many of the time
KEPT = 1024  # events for those who come back
LINGER = 60.0  # seconds in which somebody who came back finds them
SILENCE = 15.0  # seconds after which a follower is told that nothing happened
AGAIN = 5.0  # seconds until it is tried again, should a look have failed
STATE = ("totals", "settling", "trouble", "paused", "bytes_per_second")


class Event(NamedTuple):
    """One thing that changed. The facts are the whole of it, not the difference."""

    id: str
    kind: str
    facts: Any


class Feed:
    """The events of one app. Belongs to its loop."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._count = 0  # of all events; the latest one's number
        self._name = ""  # what the ids of this run of the feed begin with
        self._news = Pulse()
        self._moved: set[int] = set()
        self._active: dict[int, dict[str, Any]] = {}  # jobs somebody works on, as they were told
        self._followers = 0
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._end: asyncio.TimerHandle | None = None

    async def aclose(self) -> None:
        """Ends the looking, and what is told to those who follow."""
        self._closed = True
        self._news.beat()
        self._app.pulse.end()
        if self._end is not None:
            self._end.cancel()
        self._stop()

    async def follow(self, last: str = "") -> AsyncIterator[Event | None]:
        """Yields what changes, after the event with the id `last` if that is still known, else after a `snapshot`.

        None now and then when nothing does, so that the caller meets an end that is gone.
        """
        with self._followed():
            at = self._number(last)
            while not self._closed:
                news = self._news.next()
                if at is None or at < self._count - len(self._events):
                    at = self._count
                    yield Event(self._id(at), "snapshot", await asyncio.to_thread(self._app.status.facts))
                missed = self._count - at
                for event in list(self._events)[-missed:] if missed else ():
                    yield event
                    at += 1
                if at < self._count:
                    continue
                try:
                    async with asyncio.timeout(SILENCE):
                        await news.wait()
                except TimeoutError:
                    yield None

    @contextmanager
    def _followed(self) -> Iterator[None]:
        self._followers += 1
        if self._end is not None:
            self._end.cancel()
            self._end = None
        if self._task is None:
            self._name = secrets.token_hex(4)
            self._loop = asyncio.get_running_loop()
            self._app.journal.listen(self._hear)
            self._task = asyncio.create_task(self._run(), name="events")
        try:
            yield
        finally:
            self._followers -= 1
            if not self._followers:
                self._end = asyncio.get_running_loop().call_later(LINGER, self._stop)

    def _stop(self) -> None:
        if self._task is None:
            return
        self._app.journal.listen(None)
        self._task.cancel()
        self._task = None
        self._events.clear()
        self._active.clear()

    def _id(self, number: int) -> str:
        return f"{self._name}-{number}"

    def _number(self, id_: str) -> int | None:
        """Returns which event of this run has the id."""
        name, _, number = id_.partition("-")
        known = name == self._name and number.isascii() and number.isdigit() and len(number) < 16
        return int(number) if known and int(number) <= self._count else None

    def _hear(self, moved: set[int]) -> None:
        """Called in the journal's thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody follows
            self._loop.call_soon_threadsafe(self._take, moved)

    def _take(self, moved: set[int]) -> None:
        self._moved |= moved
        self._app.pulse.beat()

    async def _run(self) -> None:
        before: dict[str, Any] = {}
        while True:
            beat = self._app.pulse.next()
            moved, self._moved = self._moved, set()
            started = time.monotonic()
            try:
                status, jobs = await asyncio.to_thread(self._look, moved)
            except Exception:  # noqa: BLE001 - a fault of ours must not leave all who follow without news
                log.get("events").exception("nothing could be told")
                self._moved.add(UNNAMED)
                await asyncio.sleep(AGAIN)
                continue
            if status["trouble"]:
                self._moved.add(UNNAMED)  # what cannot be read now is told when it can
            if jobs is None:
                self._tell("snapshot", status)
            else:
                self._compare(before, status, jobs)
            before = status
            self._news.beat()
            await asyncio.sleep(max(PACE, SHARE * (time.monotonic() - started)))
            await wait_for_beat(beat, _by_the_clock(status))

    def _look(self, moved: set[int]) -> tuple[dict[str, Any], list[dict[str, Any]] | None]:
        """Returns the status, and the jobs that moved; with too many of them the whole status and None."""
        if UNNAMED in moved or len(moved) > report.LISTED:
            return self._app.status.facts(), None
        try:
            jobs = report.jobs_by_id(self._app.reader, sorted(moved)[: report.LISTED]) if moved else []
        except JournalTrouble:
            return self._app.status.facts(), None
        return self._app.status.facts(listed=False), [job_facts(job) for job in jobs]

    def _compare(self, before: Mapping[str, Any], status: Mapping[str, Any], jobs: Iterable[dict[str, Any]]) -> None:
        for plural, kind in (("watches", "watch"), ("providers", "provider")):
            known = {one["name"]: _lasting(one) for one in before.get(plural, ())}
            for one in status[plural]:
                if known.get(one["name"]) != _lasting(one):
                    self._tell(kind, one)
        for one in jobs:
            earlier = self._active.pop(one["id"], None)
            if one["active"]:
                self._active[one["id"]] = one
            if earlier is not None and earlier | _amounts(one) == one:
                self._tell("bytes", {"id": one["id"], **_amounts(one)})
            else:
                self._tell("job", one)
        if before.get("errands") != status["errands"]:
            self._tell("errands", status["errands"])
        state = {name: status[name] for name in STATE}
        if state != {name: before.get(name) for name in STATE}:
            self._tell("state", state)

    def _tell(self, kind: str, facts: Any) -> None:
        self._count += 1
        if kind == "snapshot":
            self._events.clear()  # it is all that they told
        if kind == "errands":  # a thousand of them, every time: the latest stand for those before
            for at, one in enumerate(self._events):
                if one.kind == kind:
                    self._events[at] = one._replace(facts=facts)
        self._events.append(Event(self._id(self._count), kind, facts))


def _lasting(provider_or_watch: Mapping[str, Any]) -> dict[str, Any]:
    """What does not change with each second."""
    return {name: value for name, value in provider_or_watch.items() if name != "expires_in"}


def _amounts(job: Mapping[str, Any]) -> dict[str, Any]:
    return {"sent": job["sent"], "resent": job["resent"]}


def _by_the_clock(status: Mapping[str, Any]) -> float | None:
    """Returns the seconds until a pause or a closed hour ends, which nothing else tells."""
    ends = [one["until"] for one in status["paused"]]
    ends += [one["paused_until"] for one in status["providers"]]
    ends += [one["opens_at"] for one in status["watches"]]
    left = [until - time.time() for until in ends if until is not None]
    return max(0.0, min(left)) if left else None
