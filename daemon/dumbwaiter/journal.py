"""Jobs in the database: every transition of `lifecycle` that a worker makes is one method here and one commit.

It holds only for the worker whose lease is on the job; anything else raises `LostLease` and changes nothing. What a
person changes asks for no lease, and stands in `queue`. What cannot be rebuilt (a key before the first byte, a receipt)
is on the disk when the call returns; a checkpoint may be lost with the power, which costs one chunk.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from math import inf
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, select, update

from dumbwaiter.lifecycle import GONE, REPLACED, TRANSITIONS, UNSENT, Event, sources
from dumbwaiter.model import Job, Receipt
from dumbwaiter.store.arrivals import Arrivals
from dumbwaiter.store.counters import Counters
from dumbwaiter.store.due_jobs import DUE, LARGEST, NEXT_DUE
from dumbwaiter.store.entries import Entries
from dumbwaiter.store.errands import Errands, Order
from dumbwaiter.store.folders import Folders, Notes
from dumbwaiter.store.key_holders import Holder, holder, other_holder
from dumbwaiter.store.pauses import Pauses
from dumbwaiter.store.prepared import Prepared
from dumbwaiter.store.presence import Presence
from dumbwaiter.store.queue import Queue
from dumbwaiter.store.rows import among, job
from dumbwaiter.store.statements import (
    ADVANCE,
    FINISH,
    NAME,
    NEWER,
    NEWER_DONE,
    PROPOSE,
    STORE,
)
from dumbwaiter.store.tables import IS_OPEN, IS_SUPERSEDED, jobs, surveyed
from dumbwaiter.store.writer import Writer

LEASE = 60.0  # seconds; renewed by every transition
DAY = 86400.0
OUTLIVED = 30 * DAY  # seconds that a job is kept which came to nothing
SWEEP = 1000  # of them that are dropped in one commit, so that no upload waits for it


class LostLease(Exception):
    """Another worker has the job, or a person ended it. What was in hand is to be dropped."""


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

    # Work

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

    async def name(
        self,
        worker: str,
        id_: int,
        now: float,
        *,
        key: str | None,
        grant: str | None,
        grant_until: float | None = None,
        given: str | None = None,
        digest: str | None = None,
    ) -> Holder | None:
        """Settles the key, with the session ticket if the upload needs one to be resumed.

        Under another key than before, the upload begins anew: the checkpoint was the other object's. `given`: the key,
        where it is the provider's choice; returns which other file has it, and changes nothing then. `digest`: of the
        file's content, where it is known: what has the same may share the key.
        """

        def work(connection: Connection) -> Holder | None:
            if given is not None:
                held = other_holder(connection, given, id_)
                if held is not None and (digest is None or held.digest != digest):
                    return held
            self._step(connection, NAME, worker, id_, now, values)
            return None

        self.writer.needs_scrub = self.writer.needs_scrub or grant is not None
        values = {"key": key, "grant": grant, "grant_until": grant_until, "given": given, "lease_until": now + LEASE}
        return await self.writer.call(work, durable=True)

    async def propose(
        self, worker: str, id_: int, now: float, *, provider: str, key: str, digest: str | None, anyway: bool = False
    ) -> Holder | None:
        """Settles on a key that no other content has; returns who has it otherwise, and changes nothing.

        `anyway`: also on one that is done for another file. `digest`: of the file's content, where it is known. What an
        earlier key had counts for nothing.
        """

        def work(connection: Connection) -> Holder | None:
            held = holder(connection, provider, key, id_)
            if held is None or (anyway and held.done) or (digest is not None and held.digest == digest):
                self._step(connection, PROPOSE, worker, id_, now, {"proposed": key, "lease_until": now + LEASE})
                return None
            return held

        return await self.writer.call(work)

    def advance(
        self, worker: str, id_: int, now: float, *, checkpoint: str, sent: int, more: int, resent: int
    ) -> "Future[None]":
        """Notes what the server acknowledged: `sent` in all, `more` of it new, `resent` bytes sent a second time.

        Any thread may call; the future has a result once it is committed.
        """

        values = {"checkpoint": checkpoint, "sent": sent, "more_resent": resent, "lease_until": now + LEASE}

        def work(connection: Connection) -> None:
            self._step(connection, ADVANCE, worker, id_, now, values)
            self.counters.add(connection, bytes_sent=more, bytes_resent=resent)

        return self.writer.submit(work)

    async def delay(
        self,
        worker: str,
        id_: int,
        now: float,
        *,
        due_at: float,
        error: str,
        attempts: int,
        new_grant: bool = False,
        from_start: bool = False,
        resent: int = 0,
    ) -> None:
        """Puts a job off. With `new_grant` its session ticket goes, with `from_start` its checkpoint.

        `resent`: bytes that were sent in vain and will be sent a second time.
        """

        def work(connection: Connection) -> None:
            values: dict[str, Any] = {"due_at": due_at, "error": error, "attempts": attempts, **_FREE}
            more = resent
            if new_grant:
                values["grant"] = None
            if from_start:
                values |= {"checkpoint": None, "sent": 0}
                more += connection.execute(select(jobs.c.sent).where(jobs.c.id == id_)).scalar() or 0
            if more:
                values["resent"] = jobs.c.resent + more
                self.counters.add(connection, bytes_resent=more)
            self._apply(connection, Event.DELAY, worker, id_, now, values)

        await self.writer.call(work)

    def store(
        self,
        worker: str,
        id_: int,
        now: float,
        *,
        receipt: Receipt,
        digest: str,
        more: int,
        resent: int,
        given: str | None = None,
    ) -> "Future[Holder | None]":
        """Notes that the remote has the file whole; `more` and `resent` as for `advance`.

        The future has a result once that is on the disk. What is asked for meanwhile comes after it. `given`: the key,
        where the answer to the upload chose it; the result says which other content has it, and then no more is noted
        than what was sent.
        """

        values = {
            "receipt": receipt,
            "key": receipt.key,
            "digest": digest,
            "given": given,
            "more_resent": resent,
            "lease_until": now + LEASE,
        }

        def work(connection: Connection) -> Holder | None:
            held = None if given is None else other_holder(connection, given, id_)
            if held is None or held.digest == digest:
                self._step(connection, STORE, worker, id_, now, values)
                held = None
            self.counters.add(connection, bytes_sent=more, bytes_resent=resent)
            return held

        return self.writer.submit(work, durable=True)

    async def note(
        self, worker: str, id_: int, now: float, *, receipt: Receipt, due_at: float, error: str | None
    ) -> None:
        """Notes how far a follow-up came, and when it goes on."""
        values = {"receipt": receipt, "due_at": due_at, "error": error, "attempts": jobs.c.attempts + 1, **_FREE}

        def work(connection: Connection) -> None:
            self._apply(connection, Event.NOTE, worker, id_, now, values)

        # What was asked of the vendor may cost, and is not to be asked again.
        await self.writer.call(work, durable=True)

    async def resend(self, worker: str, id_: int, now: float, *, due_at: float, error: str) -> None:
        """Begins anew with a stored file of which the remote can make no use any more: its bytes went for nothing."""

        def work(connection: Connection) -> None:
            row = self._apply(
                connection,
                Event.RESEND,
                worker,
                id_,
                now,
                {
                    "key": None,
                    "grant": None,
                    "checkpoint": None,
                    "receipt": None,
                    "digest": None,
                    "sent": 0,
                    "resent": jobs.c.resent + jobs.c.size,
                    "attempts": 0,
                    "due_at": due_at,
                    "error": error,
                    **_FREE,
                },
            )
            self.counters.add(connection, bytes_resent=row.size)

        await self.writer.call(work, durable=True)

    async def finish(
        self,
        worker: str,
        id_: int,
        now: float,
        *,
        receipt: Receipt,
        results: Sequence[Receipt] = (),
        orders: Sequence[Order] = (),
    ) -> None:
        """Ends a job, catalogues its file and what the provider made of it, and orders errands, in one commit.

        Where a newer version of the file is done already, nothing is ordered, and that one keeps its place.
        """

        def work(connection: Connection) -> None:
            row = self._step(connection, FINISH, worker, id_, now, {"receipt": receipt})
            newest = NEWER_DONE.first(connection, {"than": id_}) is None
            for one in (receipt, *results):
                self.entries.add(connection, row, one, now, current=newest)
            if newest:
                self.errands.add(connection, row, orders, now)

        await self.writer.call(work, durable=True)

    async def is_outdone(self, id_: int) -> bool:
        """True when a newer version of the same file is done."""
        return await self.writer.call(lambda connection: NEWER_DONE.first(connection, {"than": id_}) is not None)

    async def supersede(self, worker: str, id_: int, now: float, *, reason: str, resent: int = 0) -> None:
        """Ends a job whose version of the file is no more: what was acknowledged of it was sent in vain, and `resent` more."""

        def work(connection: Connection) -> None:
            values = {"grant": None, "checkpoint": None, "error": reason, **_FREE}
            row = self._apply(connection, Event.SUPERSEDE, worker, id_, now, values)
            self.counters.add(connection, bytes_resent=row.sent + resent)
            if reason == GONE:  # no scan may pass by its folder, should it come back
                connection.execute(
                    delete(surveyed).where(surveyed.c.host == self.host, surveyed.c.parent == row.parent)
                )

        await self.writer.call(work)

    async def reject(self, worker: str, id_: int, now: float, *, error: str, orders: Sequence[Order] = ()) -> bool:
        """Ends a job that the provider will never accept, or never show; a person's `retry` begins it anew.

        False, and nothing is ordered, where nobody has to act, since there is a newer version of the file.
        """

        def work(connection: Connection) -> bool:
            values = {"grant": None, "checkpoint": None, "receipt": None, "digest": None, "error": error}
            if NEWER.first(connection, {"than": id_}) is not None:
                self._apply(connection, Event.REJECT, worker, id_, now, values)
                self._apply(connection, Event.SUPERSEDE, worker, id_, now, {"error": REPLACED, **_FREE})
                return False
            row = self._apply(connection, Event.REJECT, worker, id_, now, {**values, **_FREE})
            self.errands.add(connection, row, orders, now)
            return True

        return await self.writer.call(work)

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

    def _apply(
        self,
        connection: Connection,
        event: Event,
        worker: str,
        id_: int,
        now: float,
        values: dict[str, Any],
    ) -> Row[Any]:
        """Makes any transition: built anew each time, for what is seldom."""
        statement = update(jobs).where(jobs.c.id == id_, jobs.c.lease == worker).returning(jobs)
        for state in sources(event):
            changed = {**values, "updated_at": now, "state": TRANSITIONS[state, event]}
            row = connection.execute(statement.where(jobs.c.state == state).values(changed)).first()
            if row is not None:
                self._tell([id_])
                return row
        raise LostLease(f"job {id_} is no longer held by {worker}")

    def _step(
        self, connection: Connection, step: Prepared, worker: str, id_: int, now: float, values: dict[str, Any]
    ) -> Any:
        """Makes a transition of every day; returns what its statement does."""
        row = step.first(connection, {**values, "job": id_, "worker": worker, "updated_at": now})
        if row is None:
            raise LostLease(f"job {id_} is no longer held by {worker}")
        self._tell([id_])
        return row


_FREE: dict[str, Any] = {"lease": None, "lease_until": None}
