"""Errands in the database: what is to be done on this machine once a job ended, until it is done.

They are ordered in the commit that ends the job, so no crash loses one. A row goes when its errand is done; one that is
given up stays, with its reason, until a person's `retry` or `forget`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Row, and_, case, delete, exists, func, insert, or_, select, update

from dumbwaiter.store.rows import among, path_of, place_of
from dumbwaiter.store.tables import entries, errands, jobs
from dumbwaiter.store.writer import Writer

AFTER = "after"
TAKEN_AWAY = 0  # the inode of a version that AFTER took away
FOLLOW_UP = "follow_up"
ORIGINAL = "original"  # the fact of an entry whose file AFTER deleted


class Order(NamedTuple):
    """An errand that is wanted: "after", or the key of a hook, and what it needs to know.

    With an `error` it is given up from the beginning: only a person can do something. It `waits` so many seconds.
    """

    what: str
    facts: Mapping[str, Any]
    error: str | None = None
    waits: float = 0.0


class Errand(Struct, frozen=True):
    """One row."""

    id: int
    job: int | None
    watch: str
    path: str  # below the watch
    what: str
    facts: dict[str, Any]
    due_at: float | None
    attempts: int
    error: str | None
    created_at: float

    @property
    def mark(self) -> str:
        """The same at every try, and no other errand's: a database gives the number of a row that went to another."""
        return f"{self.id}-{int(self.created_at * 1e6):x}"

    @property
    def pool(self) -> str:
        """Whose slots it takes: files may hang with the folder of their watch; hooks end, and take turns with each other."""
        return self.watch if self.what == AFTER else ""


class Errands:
    """The errands of one installation."""

    def __init__(self, writer: Writer, host: str) -> None:
        self._writer = writer
        self._host = host

    def add(self, connection: Connection, job: Row[Any], orders: Sequence[Order], now: float) -> None:
        """Orders errands for a job, in the transaction that ends it."""
        place = {"job": job.id, "watch": job.watch, "parent": job.parent, "name": job.name}
        self._insert(connection, place, orders, now)

    async def order(self, watch: str, orders: Sequence[Order], now: float) -> None:
        """Orders errands for a watch as a whole."""
        place = {"job": None, "watch": watch, "parent": watch, "name": ""}
        await self._writer.call(lambda connection: self._insert(connection, place, orders, now), durable=True)

    def _insert(self, connection: Connection, place: dict[str, Any], orders: Sequence[Order], now: float) -> None:
        for one in orders:
            values = {"host": self._host, **place, "what": one.what, "facts": dict(one.facts), "attempts": 0}
            values |= {"due_at": now + one.waits if one.error is None else None, "error": one.error}
            connection.execute(insert(errands).values(**values, created_at=now))

    async def due(self, now: float, limit: int, busy: Collection[int], full: Collection[str]) -> list[Errand]:
        """Returns what is to be done now where a pool is not `full`, longest due first.

        A file is left in its place until its hooks have seen it.
        """

        def work(connection: Connection) -> list[Errand]:
            rows = connection.execute(
                select(errands)
                .where(errands.c.host == self._host, errands.c.due_at <= now, *_READY)
                .where(errands.c.id.not_in(list(busy)), _POOL.not_in(list(full)))
                .order_by(errands.c.due_at, errands.c.id)
                .limit(limit)
            )
            return [errand(row) for row in rows]

        return await self._writer.call(work)

    async def next_due(self, busy: Collection[int], full: Collection[str]) -> float | None:
        """Returns when there is something to do next where a pool is not `full`."""

        def work(connection: Connection) -> float | None:
            return connection.execute(
                select(func.min(errands.c.due_at))
                .where(errands.c.host == self._host, *_READY)
                .where(errands.c.id.not_in(list(busy)), _POOL.not_in(list(full)))
            ).scalar()

        return await self._writer.call(work)

    async def done(self, one: Errand, *, taken_away: bool = False, deleted: bool = False) -> None:
        """Takes an errand off the list, and notes of its job that the file is not in its place any more.

        Of one that was `deleted` the entry tells: it stands for the last copy.
        """

        def work(connection: Connection) -> None:
            connection.execute(delete(errands).where(*_is(one)))
            if deleted:
                _mark(connection, one)
            if taken_away:
                # Of a folder that was away and came back with its files, this very version may have been taken before.
                twin = and_(*(jobs.c[name] == _job.c[name] for name in _VERSION))
                same = exists().where(_job.c.id == one.job, twin)
                before = delete(jobs).where(jobs.c.inode == TAKEN_AWAY, jobs.c.id != one.job, same)
                self.forget(connection, connection.execute(before.returning(jobs.c.id)).scalars().all())
                connection.execute(update(jobs).where(*_job_of(one)).values(inode=TAKEN_AWAY))

        await self._writer.call(work, durable=True)

    async def failed(self, one: Errand, *, due_at: float | None, error: str) -> None:
        """Puts an errand off, or with None gives it up."""

        def work(connection: Connection) -> None:
            values = {"due_at": due_at, "error": error, "attempts": errands.c.attempts + 1}
            connection.execute(update(errands).where(*_is(one)).values(values))

        await self._writer.call(work)

    def retry(
        self, connection: Connection, job_ids: Sequence[int] | None, now: float, *, waiting: bool = True
    ) -> set[int | None]:
        """Makes errands that failed due at once: those of some jobs, or all; returns whose.

        Without `waiting` only those that were given up.
        What a provider did not do is told until it is forgotten: nothing here can do it.
        """
        failed = [errands.c.host == self._host, errands.c.error.is_not(None), errands.c.what != FOLLOW_UP]
        chosen = [] if job_ids is None else [among(errands.c.job, job_ids)]
        chosen += [] if waiting else [errands.c.due_at.is_(None)]
        made_due = update(errands).where(*failed, *chosen).values(due_at=now, attempts=0)
        return set(connection.execute(made_due.returning(errands.c.job)).scalars())

    def make_due(self, connection: Connection, watch: str | None, now: float) -> None:
        """Makes the errands that failed and wait due, of a watch or all, and those ordered by a clock that was ahead."""
        ahead = errands.c.created_at > now
        which = [errands.c.host == self._host, errands.c.due_at > now, or_(errands.c.error.is_not(None), ahead)]
        which += [] if watch is None else [errands.c.watch == watch]
        connection.execute(update(errands).where(*which).values(due_at=now))

    def forget(self, connection: Connection, job_ids: Sequence[int], *, given_up: bool = False) -> set[int | None]:
        """Takes the errands of jobs off the list, done or not; returns whose. With `given_up` those that nobody does."""
        which = [errands.c.host == self._host, among(errands.c.job, job_ids)]
        dropped = delete(errands).where(*which, *([errands.c.due_at.is_(None)] if given_up else []))
        return set(connection.execute(dropped.returning(errands.c.job)).scalars())


def _job_of(one: Errand) -> list[ColumnElement[bool]]:
    """Finds an errand's job. The job may be gone, and its number another file's by now."""
    return [jobs.c.id == one.job, *(jobs.c[name] == value for name, value in place_of(one.watch, one.path).items())]


def _mark(connection: Connection, one: Errand) -> None:
    """Notes with the entry of an errand's file that the original is deleted."""
    row = connection.execute(
        select(jobs.c.parent, jobs.c.name, jobs.c.provider, jobs.c.receipt).where(*_job_of(one))
    ).first()
    if row is None or row.receipt is None:
        return
    which = (
        entries.c.provider == row.provider,
        entries.c.key == row.receipt["key"],
        entries.c.parent == row.parent,
        entries.c.name == row.name,
    )
    facts = connection.execute(select(entries.c.facts).where(*which)).scalar()
    if facts is not None:
        told = {**facts, ORIGINAL: "deleted here once it was there"}
        connection.execute(update(entries).where(*which).values(facts=told))


_POOL = case((errands.c.what == AFTER, errands.c.watch), else_="")
_hook = errands.alias("hook")
_job = jobs.alias("job")
_VERSION = ("host", "parent", "name", "provider", "size", "mtime_ns", "ctime_ns")
_READY = (
    or_(
        errands.c.what != AFTER,
        ~exists().where(
            _hook.c.job == errands.c.job, _hook.c.what != AFTER, _hook.c.attempts == 0, _hook.c.due_at.is_not(None)
        ),
    ),
)


def _is(one: Errand) -> tuple[ColumnElement[bool], ...]:
    # SQLite gives the number of one that was forgotten while it was done to the next.
    job = errands.c.job.is_not_distinct_from(one.job)
    return errands.c.id == one.id, job, errands.c.what == one.what, errands.c.created_at == one.created_at


def errand(row: Row[Any]) -> Errand:
    """Reads one row."""
    return Errand(
        id=row.id,
        job=row.job,
        watch=row.watch,
        path=path_of(row),
        what=row.what,
        facts=row.facts,
        due_at=row.due_at,
        attempts=row.attempts,
        error=row.error,
        created_at=row.created_at,
    )
