"""What a worker may do with a job that it holds: each transition of `lifecycle` is one method here, and one commit.

It holds only while the worker's lease is on the job; anything else raises `LostLease` and changes nothing. What a
person changes asks for no lease, and stands in `queue`. What cannot be rebuilt (a key before the first byte, a receipt)
is on the disk when the call returns; a checkpoint may be lost with the power, which costs one chunk.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, delete, select, update

from dumbwaiter.lifecycle import GONE, REPLACED, TRANSITIONS, Event, sources
from dumbwaiter.model import Receipt
from dumbwaiter.store.counters import Counters
from dumbwaiter.store.entries import Entries
from dumbwaiter.store.errands import Errands, Order
from dumbwaiter.store.key_holders import Holder, holder, other_holder
from dumbwaiter.store.prepared import Prepared
from dumbwaiter.store.statements import ADVANCE, FINISH, NAME, NEWER, NEWER_DONE, PROPOSE, STORE
from dumbwaiter.store.tables import jobs, surveyed
from dumbwaiter.store.writer import Writer

LEASE = 60.0  # seconds; renewed by every transition


class LostLease(Exception):
    """Another worker has the job, or a person ended it. What was in hand is to be dropped."""


class Books(NamedTuple):
    """Where a transition is written, and what changes with it in the same commit."""

    writer: Writer
    host: str
    entries: Entries
    errands: Errands
    counters: Counters
    tell: Callable[[Iterable[int]], None]  # hears, within the commit, which jobs were moved


class Lease:
    """One job in the hands of one worker."""

    def __init__(self, books: Books, worker: str, id_: int) -> None:
        self._books = books
        self._writer = books.writer
        self._worker = worker
        self._id = id_

    async def name(
        self,
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
                held = other_holder(connection, given, self._id)
                if held is not None and (digest is None or held.digest != digest):
                    return held
            self._step(connection, NAME, now, values)
            return None

        self._writer.needs_scrub = self._writer.needs_scrub or grant is not None
        values = {"key": key, "grant": grant, "grant_until": grant_until, "given": given, "lease_until": now + LEASE}
        return await self._writer.call(work, durable=True)

    async def propose(
        self, now: float, *, provider: str, key: str, digest: str | None, anyway: bool = False
    ) -> Holder | None:
        """Settles on a key that no other content has; returns who has it otherwise, and changes nothing.

        `anyway`: also on one that is done for another file. `digest`: of the file's content, where it is known. What an
        earlier key had counts for nothing.
        """

        def work(connection: Connection) -> Holder | None:
            held = holder(connection, provider, key, self._id)
            if held is None or (anyway and held.done) or (digest is not None and held.digest == digest):
                self._step(connection, PROPOSE, now, {"proposed": key, "lease_until": now + LEASE})
                return None
            return held

        return await self._writer.call(work)

    def advance(self, now: float, *, checkpoint: str, sent: int, more: int, resent: int) -> "Future[None]":
        """Notes what the server acknowledged: `sent` in all, `more` of it new, `resent` bytes sent a second time.

        Any thread may call; the future has a result once it is committed.
        """

        values = {"checkpoint": checkpoint, "sent": sent, "more_resent": resent, "lease_until": now + LEASE}

        def work(connection: Connection) -> None:
            self._step(connection, ADVANCE, now, values)
            self._books.counters.add(connection, bytes_sent=more, bytes_resent=resent)

        return self._writer.submit(work)

    async def delay(
        self,
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
                more += connection.execute(select(jobs.c.sent).where(jobs.c.id == self._id)).scalar() or 0
            if more:
                values["resent"] = jobs.c.resent + more
                self._books.counters.add(connection, bytes_resent=more)
            self._apply(connection, Event.DELAY, now, values)

        await self._writer.call(work)

    def store(
        self, now: float, *, receipt: Receipt, digest: str, more: int, resent: int, given: str | None = None
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
            held = None if given is None else other_holder(connection, given, self._id)
            if held is None or held.digest == digest:
                self._step(connection, STORE, now, values)
                held = None
            self._books.counters.add(connection, bytes_sent=more, bytes_resent=resent)
            return held

        return self._writer.submit(work, durable=True)

    async def note(self, now: float, *, receipt: Receipt, due_at: float, error: str | None) -> None:
        """Notes how far a follow-up came, and when it goes on."""
        values = {"receipt": receipt, "due_at": due_at, "error": error, "attempts": jobs.c.attempts + 1, **_FREE}

        def work(connection: Connection) -> None:
            self._apply(connection, Event.NOTE, now, values)

        # What was asked of the vendor may cost, and is not to be asked again.
        await self._writer.call(work, durable=True)

    async def resend(self, now: float, *, due_at: float, error: str) -> None:
        """Begins anew with a stored file of which the remote can make no use any more: its bytes went for nothing."""

        def work(connection: Connection) -> None:
            row = self._apply(
                connection,
                Event.RESEND,
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
            self._books.counters.add(connection, bytes_resent=row.size)

        await self._writer.call(work, durable=True)

    async def finish(
        self, now: float, *, receipt: Receipt, results: Sequence[Receipt] = (), orders: Sequence[Order] = ()
    ) -> None:
        """Ends a job, catalogues its file and what the provider made of it, and orders errands, in one commit.

        Where a newer version of the file is done already, nothing is ordered, and that one keeps its place.
        """

        def work(connection: Connection) -> None:
            row = self._step(connection, FINISH, now, {"receipt": receipt})
            newest = NEWER_DONE.first(connection, {"than": self._id}) is None
            for one in (receipt, *results):
                self._books.entries.add(connection, row, one, now, current=newest)
            if newest:
                self._books.errands.add(connection, row, orders, now)

        await self._writer.call(work, durable=True)

    async def is_outdone(self) -> bool:
        """True when a newer version of the same file is done."""
        return await self._writer.call(lambda connection: NEWER_DONE.first(connection, {"than": self._id}) is not None)

    async def supersede(self, now: float, *, reason: str, resent: int = 0) -> None:
        """Ends a job whose version of the file is no more: what was acknowledged of it was sent in vain, and `resent` more."""

        def work(connection: Connection) -> None:
            values = {"grant": None, "checkpoint": None, "error": reason, **_FREE}
            row = self._apply(connection, Event.SUPERSEDE, now, values)
            self._books.counters.add(connection, bytes_resent=row.sent + resent)
            if reason == GONE:  # no scan may pass by its folder, should it come back
                connection.execute(
                    delete(surveyed).where(surveyed.c.host == self._books.host, surveyed.c.parent == row.parent)
                )

        await self._writer.call(work)

    async def reject(self, now: float, *, error: str, orders: Sequence[Order] = ()) -> bool:
        """Ends a job that the provider will never accept, or never show; a person's `retry` begins it anew.

        False, and nothing is ordered, where nobody has to act, since there is a newer version of the file.
        """

        def work(connection: Connection) -> bool:
            values = {"grant": None, "checkpoint": None, "receipt": None, "digest": None, "error": error}
            if NEWER.first(connection, {"than": self._id}) is not None:
                self._apply(connection, Event.REJECT, now, values)
                self._apply(connection, Event.SUPERSEDE, now, {"error": REPLACED, **_FREE})
                return False
            row = self._apply(connection, Event.REJECT, now, {**values, **_FREE})
            self._books.errands.add(connection, row, orders, now)
            return True

        return await self._writer.call(work)

    def _apply(self, connection: Connection, event: Event, now: float, values: dict[str, Any]) -> Row[Any]:
        """Makes any transition: built anew each time, for what is seldom."""
        statement = update(jobs).where(jobs.c.id == self._id, jobs.c.lease == self._worker).returning(jobs)
        for state in sources(event):
            changed = {**values, "updated_at": now, "state": TRANSITIONS[state, event]}
            row = connection.execute(statement.where(jobs.c.state == state).values(changed)).first()
            if row is not None:
                self._books.tell([self._id])
                return row
        raise LostLease(f"job {self._id} is no longer held by {self._worker}")

    def _step(self, connection: Connection, step: Prepared, now: float, values: dict[str, Any]) -> Any:
        """Makes a transition of every day; returns what its statement does."""
        row = step.first(connection, {**values, "job": self._id, "worker": self._worker, "updated_at": now})
        if row is None:
            raise LostLease(f"job {self._id} is no longer held by {self._worker}")
        self._books.tell([self._id])
        return row


_FREE: dict[str, Any] = {"lease": None, "lease_until": None}
