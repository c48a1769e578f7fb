"""Files that were found, in the database: each version of one that is not known yet becomes a pending job."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, select, update

from dumbwaiter.lifecycle import UNSENT
from dumbwaiter.model import Stamp, State
from dumbwaiter.store.counters import Counters
from dumbwaiter.store.errands import Errands
from dumbwaiter.store.rows import place_of
from dumbwaiter.store.statements import DROP_OUTLIVED, ENQUEUE, OLDER, SUPERSEDE_OLDER
from dumbwaiter.store.tables import entries, jobs
from dumbwaiter.store.writer import Writer


class Candidate(NamedTuple):
    """A settled file that should be at its provider."""

    watch: str
    path: str
    provider: str
    stamp: Stamp


class Arrivals:
    """The versions that one installation knows. `tell` hears, within the commit, which jobs were moved."""

    def __init__(
        self, writer: Writer, host: str, errands: Errands, counters: Counters, tell: Callable[[Iterable[int]], None]
    ) -> None:
        self._writer = writer
        self._host = host
        self._errands = errands
        self._counters = counters
        self._tell = tell

    async def enqueue(
        self, candidates: Sequence[Candidate], now: float, *, durable: bool = True, again: bool = False
    ) -> list[int]:
        """Makes a pending job of every version that is not known, or is back after another one; returns their ids.

        `again`: of those too whose job has ended, whichever way but a refusal. Older versions of the same path that
        nobody is working on are superseded. What a scan would find again need not be `durable`.
        """

        def work(connection: Connection) -> list[int]:
            for one in candidates if again else ():
                ended = delete(jobs).where(*self._version(one), jobs.c.state.in_((State.DONE, State.SUPERSEDED)))
                self._errands.forget(connection, connection.execute(ended.returning(jobs.c.id)).scalars().all())
            made = [row for one in candidates if (row := self._make(connection, self._first(one, now)))]
            if made:
                newest = {(row.of_parent, row.of_name, row.of_provider): row for row in made}
                files = [{**row._asdict(), "now": now} for row in newest.values()]
                older = SUPERSEDE_OLDER.many(connection, files)
                self._tell(row.made for row in made)
                for file in files if older else ():
                    lost = connection.execute(OLDER, file).all()
                    self._counters.add(connection, bytes_resent=sum(job.sent for job in lost))
                    self._tell(job.id for job in lost)
            return [row.made for row in made]

        return await self._writer.call(work, durable=durable)

    def _make(self, connection: Connection, first: Mapping[str, Any]) -> Any:
        row = ENQUEUE.first(connection, first)
        if row is None:
            outlived = DROP_OUTLIVED.first(connection, {f"of_{name}": value for name, value in first.items()})
            if outlived is not None:
                self._errands.forget(connection, [outlived.id], given_up=True)
                row = ENQUEUE.first(connection, first)
        return row

    def drop(self, connection: Connection, *which: ColumnElement[bool]) -> int:
        """Drops jobs that nobody asks about any more, and what failed of what was ordered with them; returns how many."""
        dropped = connection.execute(delete(jobs).where(*which).returning(jobs.c.id)).scalars().all()
        self._errands.forget(connection, dropped, given_up=True)
        return len(dropped)

    def _first(self, one: Candidate, now: float) -> dict[str, Any]:
        """Returns the row of a job that nobody has worked on."""
        return {
            "host": self._host,
            "watch": one.watch,
            **place_of(one.watch, one.path),
            "provider": one.provider,
            **one.stamp._asdict(),
            "due_at": now,
            "created_at": now,
            "updated_at": now,
        }

    async def ids(self, candidates: Sequence[Candidate]) -> list[int]:
        """Returns the jobs of these very versions, in their order."""

        def work(connection: Connection) -> list[int]:
            return [connection.execute(select(jobs.c.id).where(*self._version(one))).scalar_one() for one in candidates]

        return await self._writer.call(work)

    async def touch(self, id_: int, stamp: Stamp, now: float) -> None:
        """Notes that a file's content is the same under a new stamp (chmod, rename within the folder).

        Does nothing if there is a job for that stamp, unless it came to nothing.
        """

        def work(connection: Connection) -> None:
            row = connection.execute(select(jobs).where(jobs.c.id == id_)).one()
            version = {name: getattr(row, name) for name in ("host", "parent", "name", "provider")} | stamp._asdict()
            there = [jobs.c[name] == value for name, value in version.items()]
            unsent = (jobs.c.state == State.SUPERSEDED) & jobs.c.error.in_(UNSENT)
            self.drop(connection, *there, unsent)
            if connection.execute(select(jobs.c.id).where(*there)).first() is not None:
                return
            connection.execute(update(jobs).where(jobs.c.id == id_).values(**stamp._asdict(), updated_at=now))
            connection.execute(
                update(entries)
                .where(
                    entries.c.provider == row.provider,
                    entries.c.key == row.key,
                    entries.c.parent == row.parent,
                    entries.c.name == row.name,
                )
                .values(**stamp._asdict())
            )

        await self._writer.call(work)

    def _version(self, one: Candidate) -> list[Any]:
        version = {"host": self._host, **place_of(one.watch, one.path), "provider": one.provider, **one.stamp._asdict()}
        return [jobs.c[name] == value for name, value in version.items()]
