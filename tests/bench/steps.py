"""Durable steps: what `Journal.advance` writes for a part, awaited (`Writer.call`) by 8 tasks at once, beside one commit each.

The peers write a row as long into a database of the same settings: the `sqlite3` module from its own thread, a commit a
row; aiosqlite, awaited. FULL is `Writer.call` with `durable`, of the same statement.
"""

import asyncio
import itertools
import os
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from sqlalchemy import Connection
from tests.bench import machine, turns

from dumbwaiter.journal import Journal
from dumbwaiter.model import Stamp
from dumbwaiter.store.arrivals import Candidate
from dumbwaiter.store.database import journal_url, reading, writing
from dumbwaiter.store.statements import ADVANCE
from dumbwaiter.store.upgrade import upgrade
from dumbwaiter.store.writer import Writer

TASKS = 8
POINT = "p" * 120  # as long as a checkpoint is
OURS, PLAIN, AIO, OURS_FULL, PLAIN_FULL = (
    "dumbwaiter, NORMAL",
    "sqlite3, NORMAL",
    "aiosqlite, NORMAL",
    "dumbwaiter, FULL",
    "sqlite3, FULL",
)
TABLE = (
    "CREATE TABLE steps (job INTEGER PRIMARY KEY, checkpoint TEXT, sent INTEGER, resent INTEGER, lease REAL, at REAL)"
)
ROW = (
    "INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (job) DO UPDATE SET "
    "checkpoint = excluded.checkpoint, sent = excluded.sent, lease = excluded.lease, at = excluded.at"
)


def run(steps: int, rounds: int) -> dict[str, Any]:
    """Measures and returns every round, the medians and the ratios."""
    machine.require_module("aiosqlite")
    full = max(TASKS, steps // 10)
    cases: dict[str, Callable[[], turns.Figures]] = {
        OURS: lambda: asyncio.run(_ours(steps, durable=False)),
        PLAIN: lambda: _plain(steps, "NORMAL"),
        AIO: lambda: asyncio.run(_aio(steps)),
        OURS_FULL: lambda: asyncio.run(_ours(full, durable=True)),
        PLAIN_FULL: lambda: _plain(full, "FULL"),
    }
    return {"steps": steps, "tasks": TASKS, **turns.summed(turns.taken(cases, rounds, "steps/s"), "steps/s")}


def table(outcome: dict[str, Any]) -> str:
    """Returns the medians as a table."""
    lines = ["", "| | steps/s | of sqlite3, NORMAL | of sqlite3, FULL | loop held, ms |", "|---|---|---|---|---|"]
    for name, one in outcome["medians"].items():
        ratios = outcome["ratios"][name]
        held = f"{one['held_ms']:.1f}" if "held_ms" in one else ""
        lines.append(f"| {name} | {one['steps/s']:.0f} | {ratios[PLAIN]:.2f} | {ratios[PLAIN_FULL]:.2f} | {held} |")
    return "\n".join(lines)


async def _ours(steps: int, *, durable: bool) -> turns.Figures:
    with ExitStack() as stack:
        journal, writer = stack.enter_context(_journal())
        candidates = [Candidate("w", f"f{number}", "p", Stamp(number, 1 << 40, 0, 0)) for number in range(TASKS)]
        ids = await journal.arrivals.enqueue(candidates, 1.0)
        await journal.claim("worker", 2.0, TASKS)

        async def one(id_: int, sent: int) -> None:
            values = {"checkpoint": POINT, "sent": sent, "more_resent": 0, "lease_until": 63.0}

            def work(connection: Connection) -> None:
                journal._step(connection, ADVANCE, "worker", id_, 3.0, values)
                journal.counters.add(connection, bytes_sent=1, bytes_resent=0)

            await writer.call(work, durable=durable)

        return await _awaited(steps, one, ids)


@contextmanager
def _journal() -> Iterator[tuple[Journal, Writer]]:
    with tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-") as folder:
        url = journal_url(folder)
        engine = writing(url)
        upgrade(engine)
        writer, reader = Writer(engine), reading(url)
        try:
            yield Journal(writer, "bench", reader), writer
        finally:
            writer.close()
            reader.dispose()


async def _aio(steps: int) -> turns.Figures:
    import aiosqlite

    with tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-") as folder:
        async with aiosqlite.connect(os.path.join(folder, "steps.db"), isolation_level=None) as journal:
            for statement in _settings("NORMAL"):
                await journal.execute(statement)

            async def one(id_: int, sent: int) -> None:
                await journal.execute(ROW, (id_, POINT, sent, 0, 63.0, 3.0))

            return await _awaited(steps, one, list(range(TASKS)))


async def _awaited(steps: int, one: Callable[[int, int], Awaitable[None]], ids: list[int]) -> turns.Figures:
    count = itertools.count(1)

    async def work(id_: int) -> None:
        while (sent := next(count)) <= steps:
            await one(id_, sent)

    watcher = asyncio.create_task(_held())
    began = time.monotonic()
    await asyncio.gather(*map(work, ids))
    seconds = time.monotonic() - began
    watcher.cancel()
    (held,) = await asyncio.gather(watcher, return_exceptions=False)
    return {"steps/s": steps / seconds, "held_ms": held * 1e3}


async def _held() -> float:
    """Returns, once cancelled, the longest time that the loop came late."""
    longest = 0.0
    try:
        while True:
            asked = time.monotonic()
            await asyncio.sleep(0.002)
            longest = max(longest, time.monotonic() - asked - 0.002)
    except asyncio.CancelledError:
        return longest


def _plain(steps: int, level: str) -> turns.Figures:
    with tempfile.TemporaryDirectory(prefix="dumbwaiter-bench-") as folder:
        journal = sqlite3.connect(os.path.join(folder, "steps.db"), isolation_level=None)
        for statement in _settings(level):
            journal.execute(statement)
        began = time.monotonic()
        for sent in range(steps):
            journal.execute(ROW, (sent % TASKS, POINT, sent, 0, 63.0, 3.0))
        seconds = time.monotonic() - began
        journal.close()
    return {"steps/s": steps / seconds}


def _settings(level: str) -> list[str]:
    return ["PRAGMA journal_mode=WAL", f"PRAGMA synchronous={level}", "PRAGMA wal_autocheckpoint=1000", TABLE]
