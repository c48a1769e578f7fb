"""The clock: work runs when it is due, once at a time, and a jump of time is noticed."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dumbwaiter import schedule as module
from dumbwaiter.config.window import Window
from dumbwaiter.schedule import Every, Schedule

PATIENCE = 20.0
NOON_UTC = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()


class Work:
    """Counts its runs; a test can wait for one and hold one up."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, ...]] = []
        self.ran = asyncio.Event()
        self.hold = asyncio.Event()
        self.hold.set()

    async def run(self, *arguments: str) -> None:
        self.runs.append(arguments)
        self.ran.set()
        await self.hold.wait()

    async def next(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.ran.wait()
        self.ran.clear()


class Clock:
    """Wall time with a hand to turn."""

    shift = 0.0

    def __call__(self) -> float:
        return time.time() + self.shift


class Jumps:
    """What was told of time that was left out."""

    def __init__(self) -> None:
        self._told: asyncio.Queue[str] = asyncio.Queue()

    def __call__(self, reason: str) -> None:
        self._told.put_nowait(reason)

    async def next(self) -> str:
        async with asyncio.timeout(PATIENCE):
            return await self._told.get()


def run(test: Callable[[Schedule, Clock, Jumps], Awaitable[None]]) -> None:
    async def closed() -> None:
        clock, jumps = Clock(), Jumps()
        made = Schedule(clock)
        made.start(jumps)
        try:
            await test(made, clock, jumps)
        finally:
            await made.close()
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "clock"]

    asyncio.run(closed())


def next_run(made: Schedule, name: str) -> float:
    moment: Any = made._scheduler.get_job(name).next_run_time
    return float(moment.timestamp())


def test_work_waits_for_its_interval_and_repeats() -> None:
    async def test(made: Schedule, clock: Clock, jumps: Jumps) -> None:
        work, often = Work(), Work()
        made.every("scan", 3600, work.run, "films")
        assert next_run(made, "scan") == pytest.approx(time.time() + 3600, abs=10)
        made.every("often", 0.01, often.run)
        await often.next()
        await often.next()
        assert work.runs == []

    run(test)


def test_work_runs_at_once_when_told_with_what_it_was_given() -> None:
    async def test(made: Schedule, clock: Clock, jumps: Jumps) -> None:
        work = Work()
        made.every("scan", 3600, work.run, "films", "again")
        made.now("scan")
        await work.next()
        assert work.runs == [("films", "again")]
        assert next_run(made, "scan") == pytest.approx(time.time() + 3600, abs=10)

    run(test)


def test_a_run_is_brought_forward_and_never_put_off() -> None:
    async def test(made: Schedule, clock: Clock, jumps: Jumps) -> None:
        made.every("dispatch", 3600, Work().run)
        soon = time.time() + 100
        made.at("dispatch", soon)
        assert next_run(made, "dispatch") == pytest.approx(soon)
        made.at("dispatch", soon + 50)
        assert next_run(made, "dispatch") == pytest.approx(soon)
        made.at("dispatch", soon - 50)
        assert next_run(made, "dispatch") == pytest.approx(soon - 50)

    run(test)


def test_work_says_itself_when_it_is_to_run_again() -> None:
    """At once, say: the scheduler itself would pass over what is due while a run goes on."""

    async def test(made: Schedule, clock: Clock, jumps: Jumps) -> None:
        work = Work()

        async def run() -> None:
            await work.run()
            if len(work.runs) < 20:
                made.at("list", clock())
                await asyncio.sleep(0.01)

        made.every("list", 3600, run)
        made.now("list")
        while len(work.runs) < 20:
            await work.next()
        assert next_run(made, "list") == pytest.approx(time.time() + 3600, abs=10)

    run(test)


def test_what_is_asked_for_during_a_run_that_fails_is_done_all_the_same() -> None:
    async def test(made: Schedule, clock: Clock, jumps: Jumps) -> None:
        work, failing = Work(), [OSError("the journal is away")]

        async def run() -> None:
            await work.run()
            if failing:
                raise failing.pop()

        work.hold.clear()
        made.every("scan", 3600, run)
        made.now("scan")
        await work.next()
        made.now("scan")
        work.hold.set()
        await work.next()
        assert len(work.runs) == 2

    run(test)


def test_what_is_long_overdue_runs_all_the_same() -> None:
    """A late run is late, not dropped, and runs that were missed are one."""

    async def test(made: Schedule, clock: Clock, jumps: Jumps) -> None:
        work = Work()
        made.every("tidy", 60, work.run)
        made.at("tidy", time.time() - 1_000_000)
        await work.next()
        assert len(work.runs) == 1

    run(test)


def test_what_was_missed_in_years_is_passed_over_in_one_step() -> None:
    """A machine that began in 1970, and has asked what time it is."""
    began, now = datetime.fromtimestamp(0, UTC), datetime.now(UTC)
    every = Every(5)
    following = every.get_next_fire_time(began, now)
    assert now < following <= now + timedelta(seconds=5)
    assert every.get_next_fire_time(now, now) == now + timedelta(seconds=5)


def test_a_name_that_is_not_known_is_nothing_to_do() -> None:
    async def test(made: Schedule, clock: Clock, jumps: Jumps) -> None:
        made.now("nothing")
        made.at("nothing", time.time())

    run(test)


@pytest.mark.parametrize("seconds", [3600.0, -3600.0, 86_400.0 * 365])
def test_when_the_clock_is_set_everything_runs(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(module, "BEAT", 0.05)

    async def test(made: Schedule, clock: Clock, jumps: Jumps) -> None:
        one, other = Work(), Work()
        made.every("one", 1e6, one.run)
        made.every("other", 1e6, other.run)
        await asyncio.sleep(0)  # it has looked at the clock once
        clock.shift = seconds
        assert await jumps.next() == "the clock was set"
        # The scheduler itself asks the system, so what is due by a clock set forward is not run here.
        if seconds < 0:
            await one.next()
            await other.next()
        else:
            assert next_run(made, "one") == pytest.approx(clock(), abs=10)

    run(test)


def test_the_clock_on_the_wall_is_that_of_the_machine_s_zone_when_it_is_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BEAT", 0.05)
    monkeypatch.setenv("TZ", "EAST-8")
    time.tzset()

    async def test(made: Schedule, clock: Clock, jumps: Jumps) -> None:
        await asyncio.sleep(0)  # it has looked at the zone once
        window = Window("19:00-07:00")
        assert window.opens_at(NOON_UTC) is None  # it is eight in the evening
        os.environ["TZ"] = "WEST5"
        assert await jumps.next() == module.ZONE_SET
        assert window.opens_at(NOON_UTC + 3600) == NOON_UTC + 12 * 3600

    try:
        run(test)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_program_that_was_held_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0.05)
    monkeypatch.setattr(module, "JUMP", 0.3)

    async def test(made: Schedule, clock: Clock, jumps: Jumps) -> None:
        work = Work()
        made.every("scan", 1e6, work.run)
        await asyncio.sleep(0)  # it has looked at the clock once
        time.sleep(0.6)  # noqa: ASYNC251 - the loop stands still, as in a program that is stopped
        assert await jumps.next() == "the program was held"
        await work.next()

    run(test)


@pytest.mark.parametrize(
    ("asleep", "left_out", "late", "reason"),
    [
        (600.0, 0.0, 0.0, "the machine slept"),
        (600.0, -3600.0, 0.0, "the machine slept"),
        (0.0, 3600.0, 0.0, "the clock was set"),
        (0.0, -86_400.0, 0.0, "the clock was set"),
        (0.0, 0.0, 600.0, "the program was held"),
        (0.0, 0.5, 0.5, ""),
    ],
)
def test_sleep_a_new_time_and_being_held_are_told_apart(
    asleep: float, left_out: float, late: float, reason: str
) -> None:
    assert module._reason(asleep, left_out, late) == reason


def test_closing_before_the_start_is_no_trouble() -> None:
    async def test() -> None:
        await Schedule().close()

    asyncio.run(test())


@pytest.mark.parametrize("steps", range(8))
def test_what_is_asked_for_at_the_very_end_is_no_error(steps: int, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        work, schedule = Work(), Schedule()
        work.hold.clear()
        schedule.every("work", 1000.0, work.run)
        schedule.start(Jumps())
        await asyncio.sleep(0)
        closing = asyncio.create_task(schedule.close())
        for _ in range(steps):
            await asyncio.sleep(0)
        schedule.now("work")
        await closing
        await asyncio.sleep(0.01)

    asyncio.run(test())
    assert [record for record in caplog.records if record.exc_info] == []


def test_what_is_asked_for_while_it_runs_runs_once_more_and_no_oftener() -> None:
    async def test(schedule: Schedule, _clock: Clock, _jumps: Jumps) -> None:
        work = Work()
        schedule.every("scan", 3600.0, work.run, "films")
        work.hold.clear()
        schedule.now("scan")
        await work.next()
        for _ in range(3):
            schedule.now("scan")
        assert work.runs == [("films",)]
        work.hold.set()
        await work.next()
        await asyncio.sleep(0)
        assert work.runs == [("films",)] * 2
        schedule.now("scan")
        await work.next()
        assert work.runs == [("films",)] * 3

    run(test)


def test_a_run_that_was_just_asked_for_outlasts_a_new_interval() -> None:
    async def test(made: Schedule, clock: Clock, jumps: Jumps) -> None:
        work = Work()
        made.every("work", 10.0, work.run)
        made.now("work")
        made.pace("work", 900.0)
        await work.next()
        assert next_run(made, "work") > clock() + 800.0

    run(test)
