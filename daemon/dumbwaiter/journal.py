"""The jobs of one installation in the database: who works on which, and what else is noted beside them.

What a worker does with a job that it holds is `store.lease`, what a person changes `store.queue`, what comes in `store.arrivals`.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from math import inf
from typing import Any

from sqlalchemy import Connection, Engine, Row, select, update

from dumbwaiter.lifecycle import REPLACED, UNSENT
from dumbwaiter.model import Job
from dumbwaiter.store.arrivals import Arrivals
from dumbwaiter.store.counters import Counters
from dumbwaiter.store.due_jobs import DUE, LARGEST, NEXT_DUE
from dumbwaiter.store.entries import Entries
from dumbwaiter.store.errands import Errands
from dumbwaiter.store.folders import Folders, Notes
from dumbwaiter.store.lease import LEASE, Books, Lease
from dumbwaiter.store.pauses import Pauses
from dumbwaiter.store.presence import Presence
from dumbwaiter.store.queue import Queue
from dumbwaiter.store.rows import among, job
from dumbwaiter.store.tables import IS_OPEN, IS_SUPERSEDED, jobs
from dumbwaiter.store.writer import Writer

DAY = 86400.0
OUTLIVED = 30 * DAY  # seconds that a job is kept which came to nothing
SWEEP = 1000  # of them that are dropped in one commit, so that no upload waits for it


class Journal:
    """The jobs of one installation. `host` names it, so that many can share a database.

    `out_of_place` says of files that are not where they were opened any more, or nothing: what is noted elsewhere is lost.
    It may block.
    """

    def __init__(self, writer: Writer, host: str, reader: Engine, out_of_place: Callable[[], str] = str) -> None:
        self.out_of_place = out_of_place
        self.writer = writer
        self.host = host
        self.reader = reader
        self.folders = Folders(reader, host)
        self.notes = Notes(writer, host)
        self.pauses = Pauses(writer, host)
        self.presence = Presence(writer, host)
        self.errands = Errands(writer, host)
        self.entries = Entries(writer, host)
        self.counters = Counters(writer, host)
        self.arrivals = Arrivals(writer, host, self.errands, self.counters, self._tell)
        self.queue = Queue(writer, host, self.errands, self.counters, self._tell)
        self._books = Books(writer, host, self.entries, self.errands, self.counters, self._tell)
        self._moved: set[int] = set()  # jobs that the next commit moves; the journal's thread alone has it
        self._heard: Callable[[set[int]], None] | None = None
        self._swept_at = -inf

    def listen(self, heard: Callable[[set[int]], None] | None) -> None:
        """Tells `heard`, after each commit, which jobs it moved; `queue.UNNAMED` stands for more than are named.

        Called in the journal's thread. What was rolled back may be named too. With None nobody is told.
        """
        self._heard = heard
        self.writer.after_commit = None if heard is None else self._committed

    def _tell(self, ids: Iterable[int]) -> None:
        if self._heard is not None:
            self._moved.update(ids)

    def _committed(self) -> None:
        moved, self._moved = self._moved, set()
        if moved and (heard := self._heard) is not None:
            heard(moved)

    async def claim(
        self,
        worker: str,
        now: float,
        limit: int,
        paused: Collection[str] = (),
        closed: Collection[str] = (),
        *,
        size_max: int | None = None,
        only: Collection[int] | None = None,
    ) -> list[Job]:
        """Leases up to `limit` due jobs to `worker`, none of a paused provider, with `only` none but these.

        First what a person ordered, then uploads whose permission ends, the earliest first, then the longest due. In a
        watch whose window is `closed` nothing is begun but what a person ordered.
        """
        asked = {
            "of_host": self.host,
            "worker": worker,
            "now": now,
            "paused": list(paused),
            "closed": list(closed),
            "largest": LARGEST if size_max is None else size_max,
        }

        def work(connection: Connection) -> list[Job]:
            rows: list[Row[Any]] = []
            for query in DUE:
                if len(rows) == limit:
                    break
                if only is not None:
                    query = query.where(among(jobs.c.id, only))
                found = connection.execute(query, {**asked, "most": limit - len(rows)}).all()
                if found:
                    mine = update(jobs).where(jobs.c.id.in_([row.id for row in found]))
                    connection.execute(mine.values(lease=worker, lease_until=now + LEASE))
                rows += found
            self._tell(row.id for row in rows)
            return [job(row) for row in rows]

        return await self.writer.call(work)

    def lease(self, worker: str, id_: int) -> Lease:
        """Returns what may be done with a job that `worker` has claimed."""
        return Lease(self._books, worker, id_)

    async def release_all(self) -> int:
        """Ends every lease on this installation's jobs. Only for one who holds its lock: no other worker can live."""

        def work(connection: Connection) -> int:
            return connection.execute(
                update(jobs)
                .where(IS_OPEN, jobs.c.host == self.host, jobs.c.lease.is_not(None))
                .values(lease=None)  # the rest of it tells that the job was cut off
            ).rowcount

        count = await self.writer.call(work)
        self.writer.needs_scrub = self.writer.needs_scrub or count > 0
        return count

    async def release(self, worker: str, *ids: int, resent: int = 0) -> None:
        """Gives jobs back unchanged: the daemon stops, or has something better to do.

        `resent`: bytes that were sent in vain and will be sent a second time.
        """

        def work(connection: Connection) -> None:
            connection.execute(
                update(jobs)
                .where(jobs.c.id.in_(ids), jobs.c.lease == worker)
                .values(lease=None, lease_until=None, resent=jobs.c.resent + resent)
            )
            self.counters.add(connection, bytes_resent=resent)
            self._tell(ids)

        await self.writer.call(work)

    async def release_others(self, worker: str, ids: Collection[int]) -> None:
        """Gives back what the worker has but these: whatever it does not know of, nobody works on."""

        def work(connection: Connection) -> None:
            known = jobs.c.id.not_in(list(ids))
            mine = (IS_OPEN, jobs.c.lease == worker, known)
            connection.execute(update(jobs).where(*mine).values(lease=None, lease_until=None))

        await self.writer.call(work)

    async def next_due(
        self, paused: Collection[str] = (), closed: Collection[str] = (), *, only: Collection[int] | None = None
    ) -> float | None:
        """Returns when the next job that nobody works on is due, with `only` the next of these."""

        asked = {"of_host": self.host, "paused": list(paused), "closed": list(closed)}
        query = NEXT_DUE if only is None else NEXT_DUE.where(among(jobs.c.id, only))
        return await self.writer.call(lambda connection: connection.execute(query, asked).scalar())

    async def tidy(self, now: float) -> None:
        """Empties the write-ahead log when no upload is open, so that nothing cleared lingers in it.

        Once a day it drops the jobs of versions that came to nothing a month ago: nobody asks about these any more,
        and should one of them come back, it is as new.
        """
        outlived = (
            select(jobs.c.id)
            .where(
                IS_SUPERSEDED,
                jobs.c.host == self.host,
                jobs.c.error.in_((*UNSENT, REPLACED)),
                jobs.c.updated_at < now - OUTLIVED,
            )
            .limit(SWEEP)
        )

        def work(connection: Connection) -> bool:
            if abs(now - self._swept_at) >= DAY:
                dropped = self.arrivals.drop(connection, jobs.c.id.in_(outlived))
                self._swept_at = now if dropped < SWEEP else self._swept_at
            return connection.execute(select(jobs.c.id).where(IS_OPEN).limit(1)).first() is None

        if await self.writer.call(work):
            await self.writer.checkpoint()

    async def ended(self, ids: Sequence[int]) -> list[Job]:
        """Returns those of the jobs that need no more work."""

        def work(connection: Connection) -> list[Job]:
            rows = connection.execute(select(jobs).where(among(jobs.c.id, ids), ~IS_OPEN))
            return [job(row) for row in rows]

        return await self.writer.call(work)
