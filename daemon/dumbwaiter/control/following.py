"""Answers that go on: the status, jobs, and walks through providers' lists, told when they change.

There is no HTTP in it: `routes` sends these answers, and a command that takes the daemon's place reads them itself.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from dumbwaiter import report
from dumbwaiter.app import App
from dumbwaiter.errors import Blocked, Exit, JournalTrouble, Verdict
from dumbwaiter.facts import job_facts
from dumbwaiter.lifecycle import OPEN
from dumbwaiter.pulse import wait_for_beat

PACE = 0.2  # seconds between two parts of an answer
SILENT = (
    10.0  # seconds without a change until one is told all the same: a client that is gone is noticed by writing to it
)


async def follow_status(app: App, *, listed: bool, scan: bool) -> AsyncIterator[dict[str, Any]]:
    """Yields the status, whenever it changes, until the daemon ends; with `scan` folders that are not heard are scanned."""
    await app.watches.catch_up()  # whoever waits for all files has just written one, often
    if scan:
        app.watches.scan_unheard()
    while not app.pulse.ended:
        beat = app.pulse.next()
        yield await asyncio.to_thread(app.status.facts, listed=listed)
        await asyncio.gather(wait_for_beat(beat, SILENT), asyncio.sleep(PACE))


async def follow_jobs(app: App, ids: Sequence[int]) -> AsyncIterator[dict[str, Any]]:
    """Yields how jobs stand whenever that changes, who is refused, rests or is not reached, what the journal does not take.

    Ends when none has work left, or with the daemon.
    """
    while not app.pulse.ended:
        beat = app.pulse.next()
        jobs = await asyncio.to_thread(report.jobs_by_id, app.reader, ids)
        now, resting = time.time(), app.status.resting()
        yield {
            "jobs": [job_facts(job) for job in jobs],
            "blocked": {  # where it rests, no other try is made
                name: one.health.trouble
                for name, one in app.providers.items()
                if one.health.state(now) == "blocked" or (one.health.blocked and name in resting)
            },
            "resting": resting,
            "lost": app.status.lost(),
            "unnoted": {str(id_): app.trouble or "" for id_ in app.engine.unnoted(ids)},
        }
        if all(job.state not in OPEN for job in jobs):
            return
        # Many jobs change often; telling of each change would cost more than the work itself.
        await asyncio.gather(wait_for_beat(beat, SILENT), asyncio.sleep(min(PACE, len(ids) * PACE / 100)))


async def follow_walks(app: App, providers: Sequence[str]) -> AsyncIterator[dict[str, Any]]:
    """Yields how far the reading of each list is, one after the other; with `done`, or `error` and `code`, at its end."""
    for name in providers:
        outcome, task = app.walks.begin(name)
        while not task.done():
            yield msgspec.structs.asdict(outcome)
            await asyncio.wait({task}, timeout=1.0)
        yield msgspec.structs.asdict(outcome) | _end_of(task)


def _end_of(task: "asyncio.Task[None]") -> dict[str, Any]:
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    match error:
        case None:
            return {"done": True}
        case Blocked():
            return {"error": str(error), "code": Exit.ACCOUNT}
        case Verdict() | JournalTrouble():
            return {"error": f"{error}; the same command goes on where this one came to", "code": Exit.TEMPORARY}
        case asyncio.CancelledError():
            return {"error": "the daemon stops; the same command goes on there", "code": Exit.TEMPORARY}
    raise error
