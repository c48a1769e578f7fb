"""The one thread that writes to the journal's database, in group commits."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine, event

from dumbwaiter.errors import JournalTrouble
from dumbwaiter.store.database import BUSY, driver_of, trouble

T = TypeVar("T")

GROUP = 256  # pieces of work in one commit: bounds what a crash takes back and how long a waiter waits
LAST = 10.0  # seconds for the last commits, each
READ_ONLY = "25006"  # PostgreSQL's code of a standby: behind another connection may be the server that writes
SCRUBBED = 8192  # pages of a database that is written anew in a moment: 32 MiB


class _Work(NamedTuple):
    """Something to do in a transaction, and who waits for it."""

    work: Callable[[Connection], Any]
    durable: bool
    done: "Future[Any] | asyncio.Future[Any]"


class _Command(NamedTuple):
    """Something to do between transactions."""

    close: bool
    done: Future[None]


def _scrub(driver: Any) -> None:
    """Writes a small database anew: a row that moved may have left a copy in the unused part of its page."""
    (pages,) = driver.execute("PRAGMA page_count").fetchone()
    if pages > SCRUBBED:
        return
    with suppress(sqlite3.Error):  # somebody else writes, or there is no room
        for command in ("PRAGMA temp_store=MEMORY", "PRAGMA busy_timeout=1000", "VACUUM"):
            driver.execute(command)


class Writer:
    """The journal's own thread. What is queued while a commit runs shares the next one.

    `submit` is for other threads, `call` for coroutines. A function that raises takes nothing with it: the group is
    rolled back and each member runs alone, so a function must not have effects outside the database.
    """

    def __init__(self, engine: Engine) -> None:
        self.after_commit: Callable[[], None] | None = None  # called in this thread
        self.before_commit: Callable[[Connection], None] | None = None  # likewise, as the last part of each transaction
        self.commits = 0
        self.connections = 0  # made so far; behind a new one may be another server, which lacks the latest commits
        self._engine = engine
        self._level = "NORMAL"
        event.listen(engine, "connect", self._connected)
        self._sqlite = engine.dialect.name == "sqlite"
        self._queue: SimpleQueue[_Work | _Command] = SimpleQueue()
        self._reached = True  # the database, by the last transaction; one that another program has is not
        self.needs_scrub = False  # a secret was in the database, and may have left a copy in its file
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def _connected(self, *_: object) -> None:
        self.connections += 1
        self._level = "NORMAL"

    def submit(self, work: Callable[[Connection], T], *, durable: bool = False) -> Future[T]:
        """Queues `work`. With `durable` its commit survives a power cut, otherwise a crash of the process only."""
        done: Future[T] = Future()
        self._queue.put(_Work(work, durable, done))
        return done

    async def call(self, work: Callable[[Connection], T], *, durable: bool = False) -> T:
        """Runs `work` in a committed transaction and returns its result, or raises what it raised.

        Trouble with the database itself is raised as `JournalTrouble`. A waiter that is cancelled stops no commit.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(_Work(work, durable, done))
        return await done

    async def checkpoint(self) -> None:
        """Empties SQLite's write-ahead log into the database: what was cleared is in no file any more.

        Trouble with the database is raised as `JournalTrouble`.
        """
        # Shielded as in `call`: the thread must not find its command cancelled.
        try:
            await asyncio.shield(asyncio.wrap_future(self._command(close=False)))
        except sqlite3.Error as error:
            raise trouble(error, "written") from error

    def close(self) -> None:
        """Commits what is queued, then ends the thread and its connections; scrubs the file if it needs that."""
        with suppress(TimeoutError):  # a server that does not answer must not keep the daemon from its end
            self._command(close=True).exception(LAST)  # a log that could not be emptied is emptied by the next one
            self._thread.join(LAST)
        self._engine.dispose()

    def _command(self, *, close: bool) -> "Future[None]":
        command = _Command(close, Future())
        self._queue.put(command)
        return command.done

    def _run(self) -> None:
        while True:
            group, command = self._gather()
            if group:
                self._commit(group)
            if command is not None:
                self._execute(command)
                if command.close:
                    return

    def _gather(self) -> tuple[list[_Work], _Command | None]:
        group: list[_Work] = []
        item = self._queue.get()
        while isinstance(item, _Work):
            group.append(item)
            if len(group) == GROUP:
                return group, None
            try:
                item = self._queue.get_nowait()
            except Empty:
                return group, None
        return group, item

    def _execute(self, command: _Command) -> None:
        try:
            if self._sqlite:
                with self._engine.connect() as connection:
                    driver = driver_of(connection)
                    if command.close and self.needs_scrub:
                        _scrub(driver)
                    driver.execute("PRAGMA busy_timeout=0")  # a reader that stands still must not stop all others
                    try:
                        driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    finally:
                        driver.execute(f"PRAGMA busy_timeout={BUSY * 1000}")
        except Exception as error:  # noqa: BLE001 - the waiter is told, whatever it is
            command.done.set_exception(error)
        else:
            command.done.set_result(None)

    def _commit(self, group: list[_Work]) -> bool:
        """Tells all of the group what came of it; returns False where the database was not reached."""
        try:
            results = self._transaction(group)
        except BaseException as error:  # noqa: BLE001 - the waiters are told, whatever it is
            if len(group) == 1 or not self._reached:  # each would wait for the database anew
                _tell(group, [error] * len(group), failed=True)
                return self._reached
            for number, item in enumerate(group, 1):
                if not self._commit([item]):
                    _tell(group[number:], [error] * (len(group) - number), failed=True)
                    return False
            return True
        self.commits += 1
        _tell(group, results, failed=False)
        if (tell := self.after_commit) is not None:  # it may be let go of just now
            tell()
        return True

    def _transaction(self, group: list[_Work]) -> list[Any]:
        self._reached = False
        with self._engine.connect() as connection:
            self._set_level(connection, "FULL" if any(item.durable for item in group) else "NORMAL")
            try:
                with connection.begin():  # which waits for whoever else writes to a SQLite file
                    self._reached = True
                    results = [item.work(connection) for item in group]
                    if self.before_commit is not None:
                        self.before_commit(connection)
                    return results
            except JournalTrouble as trouble:
                if getattr(trouble.__cause__, "sqlstate", None) == READ_ONLY:
                    connection.invalidate()
                raise

    def _set_level(self, connection: Connection, level: str) -> None:
        if self._sqlite and level != self._level:
            driver_of(connection).execute(f"PRAGMA synchronous={level}")
            self._level = level


def _tell(group: Sequence[_Work], results: Sequence[Any], *, failed: bool) -> None:
    """Tells all who wait; those of one loop in one go, because waking it costs more than telling."""
    waiting: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for item, result in zip(group, results, strict=True):
        if isinstance(item.done, Future):
            _resolve([(item.done, result)], failed=failed)
        else:
            waiting.setdefault(item.done.get_loop(), []).append((item.done, result))
    for loop, told in waiting.items():
        with suppress(RuntimeError):  # it has ended, and nobody waits
            loop.call_soon_threadsafe(partial(_resolve, told, failed=failed))


def _resolve(told: "Sequence[tuple[Future[Any] | asyncio.Future[Any], Any]]", *, failed: bool) -> None:
    for done, result in told:
        if done.cancelled():
            continue
        if failed:
            done.set_exception(result)
        else:
            done.set_result(result)
