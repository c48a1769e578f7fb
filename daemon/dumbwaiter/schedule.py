"""The clock: APScheduler runs dispatch, refresh, rescan and tidy.

Due times live in the journal and in the journal only; the scheduler wakes. It reckons by the wall clock, so a
heartbeat on the monotonic one looks whether the wall clock jumped, or the machine slept, and then runs everything.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from dumbwaiter import log

BEAT = 5.0
JUMP = 3.0  # seconds between the two clocks that are no drift any more

# What may have left out some time.
SLEPT, SET, HELD = "the machine slept", "the clock was set", "the program was held"
ZONE_SET = "the time zone was set"


class Every(IntervalTrigger):  # type: ignore[misc]
    """Runs every so many seconds, and once for all runs that were missed.

    The library's own names each of these: when a machine without a clock learns that it is not 1970, a thousand million.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds=seconds, timezone=UTC)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """Returns when it runs after `previous_fire_time`, None for a beginning: later than now."""
        following: datetime = super().get_next_fire_time(previous_fire_time, now)
        return following if following > now else now + self.interval


class Schedule:
    """Repeating work by name; each runs once at a time, and is never skipped for being late."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._scheduler: Any = AsyncIOScheduler(
            timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        )
        self._running: set[str] = set()
        self._again: set[str] = set()  # those that run and are wanted once more
        self._next: dict[str, float] = {}  # when those that run are wanted again
        self._beat: asyncio.Task[None] | None = None
        self._log = log.get("schedule")

    def every(self, name: str, seconds: float, work: Callable[..., Awaitable[None]], *args: str) -> None:
        """Runs `work` every so often, the first time after one interval."""
        self._scheduler.add_job(self._run, Every(seconds), (name, work, *args), id=name, name=name)

    async def _run(self, name: str, work: Callable[..., Awaitable[None]], *args: str) -> None:
        """Works, and once more if that was asked for meanwhile: what began before the asking may have missed its reason."""
        self._running.add(name)
        try:
            again = True
            while again:
                self._again.discard(name)
                try:
                    await work(*args)
                except asyncio.CancelledError:  # the program ends
                    return
                except Exception:
                    if name not in self._again:
                        raise
                    self._log.exception("work failed", work=name)
                again = name in self._again
        finally:
            self._running.discard(name)
            self._again.discard(name)
            if (when := self._next.pop(name, None)) is not None:
                # Once this run is over for the scheduler too: it passes over what is due while one goes on.
                asyncio.get_running_loop().call_soon(self.at, name, when)

    def pace(self, name: str, seconds: float) -> None:
        """Runs `name` so often from now on."""
        job = self._scheduler.get_job(name)
        if job is not None and job.trigger.interval.total_seconds() != seconds:
            asked = job.next_run_time
            job.reschedule(Every(seconds))
            if asked is not None and asked < job.next_run_time:  # it may just have been told to run now
                job.modify(next_run_time=asked)

    def now(self, name: str) -> None:
        """Runs `name` as soon as possible; while it runs, once more after that."""
        if name in self._running:
            self._again.add(name)
        else:
            self.at(name, self._clock())

    def at(self, name: str, when: float) -> None:
        """Brings the next run of `name` forward to `when`; a nearer one stays. The work itself may say so."""
        if name in self._running:
            self._next[name] = min(when, self._next.get(name, when))
            return
        job = self._scheduler.get_job(name)
        moment = datetime.fromtimestamp(when, UTC)
        if job is not None and (job.next_run_time is None or moment < job.next_run_time):
            job.modify(next_run_time=moment)

    def start(self, jumped: Callable[[str], None]) -> None:
        """Starts; `jumped` is told when the clock or the machine left out some time, or has another time zone."""
        self._scheduler.start()
        self._beat = asyncio.create_task(self._watch_clock(jumped), name="clock")

    async def close(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
            await asyncio.gather(self._beat, return_exceptions=True)
            self._scheduler.pause()
            await asyncio.sleep(
                0
            )  # what it has just started begins: cancelled before that, it would be logged as an error
            self._scheduler.shutdown(wait=False)

    async def _watch_clock(self, jumped: Callable[[str], None]) -> None:
        before, slept_before = self._clock() - time.monotonic(), _slept()
        zone = time.tzname, time.timezone
        while True:
            started = time.monotonic()
            await asyncio.sleep(BEAT)
            time.tzset()  # else a process keeps the zone that it began in
            if (time.tzname, time.timezone) != zone:
                zone = time.tzname, time.timezone
                jumped(ZONE_SET)
            now, slept = self._clock() - time.monotonic(), _slept()
            asleep = slept - slept_before  # the wall clock went on in that time, the monotonic one did not
            left_out = now - before
            late = time.monotonic() - started - BEAT
            if reason := _reason(asleep, left_out - asleep, late):
                self._log.info("time jumped", reason=reason, seconds=round(left_out + max(late, 0.0), 1))
                for job in self._scheduler.get_jobs():
                    job.modify(next_run_time=datetime.fromtimestamp(self._clock(), UTC))
                jumped(reason)
            before, slept_before = now, slept


def _slept() -> float:
    """Returns how many seconds the machine has slept since it was started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()


def _reason(asleep: float, left_out: float, late: float) -> str:
    """Says what happened to the time, in seconds; nothing when it just passed."""
    if asleep > JUMP:
        return SLEPT
    if abs(left_out) > JUMP:
        return SET
    return HELD if late > JUMP else ""
