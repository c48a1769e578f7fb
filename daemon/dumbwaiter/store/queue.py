"""What changes many jobs at once, whoever has their leases: a person's order, a network that is back, a clock that was set."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from sqlalchemy import Connection, and_, delete, func, not_, or_, select, true, update

from dumbwaiter.config import RESERVED
from dumbwaiter.lifecycle import FORGOTTEN, TRANSITIONS, UNASKED, Event, sources
from dumbwaiter.model import State
from dumbwaiter.store.counters import Counters
from dumbwaiter.store.errands import Errands
from dumbwaiter.store.rows import among
from dumbwaiter.store.tables import IS_OPEN, IS_SHOWN, errands, jobs, surveyed
from dumbwaiter.store.writer import Writer

UNNAMED = 0  # no job's id: stands for jobs that were moved and are not named


class Queue:
    """The jobs of one installation. `tell` hears, within the commit, which of them were moved."""

    def __init__(
        self, writer: Writer, host: str, errands: Errands, counters: Counters, tell: Callable[[Iterable[int]], None]
    ) -> None:
        self._writer = writer
        self._host = host
        self._errands = errands
        self._counters = counters
        self._tell = tell

    async def retry(self, ids: Sequence[int] | None, now: float, *, waiting: bool = True) -> int:
        """Makes rejected and waiting jobs due at once; all of them with None. Returns how many.

        Without `waiting` only what needs a person: rejected jobs, and errands that were given up.
        A rejected one begins anew, under a key that is free now. What is stored has been asked about as often as before:
        a person who orders it every minute must not keep it from its end.
        """

        def work(connection: Connection) -> int:
            self._tell([UNNAMED] if ids is None else ids)
            found = self._errands.retry(connection, ids, now, waiting=waiting)
            chosen = among(jobs.c.id, ids) if ids is not None else true()
            for state in sources(Event.RETRY) if waiting else [State.REJECTED]:
                which = (jobs.c.host == self._host, jobs.c.state == state, chosen, jobs.c.lease.is_(None))
                values = {
                    "state": TRANSITIONS[state, Event.RETRY],
                    "due_at": now,
                    "by_hand": True,
                    "error": None,
                    "updated_at": now,
                }
                if state is not State.STORED:
                    values["attempts"] = 0
                if state is State.REJECTED:
                    sent = connection.execute(
                        select(func.coalesce(func.sum(jobs.c.sent), 0)).where(*which)
                    ).scalar_one()
                    self._counters.add(connection, bytes_resent=int(sent))
                    values |= {"key": None, "proposed": None, "sent": 0, "resent": jobs.c.resent + jobs.c.sent}
                again = update(jobs).where(*which).values(values)
                found.update(connection.execute(again.returning(jobs.c.id)).scalars())
            if ids is not None:  # what is under way goes on by the same order, should it have to rest
                under_way = (jobs.c.host == self._host, IS_OPEN, chosen, jobs.c.lease.is_not(None))
                connection.execute(update(jobs).where(*under_way).values(by_hand=True))
            return len(found)

        return await self._writer.call(work, durable=True)

    async def make_failed_due(self, providers: Collection[str], now: float) -> int:
        """Makes the waiting jobs of these providers due at once, as if nothing had gone wrong; returns how many."""

        def work(connection: Connection) -> int:
            self._tell([UNNAMED])
            return connection.execute(
                update(jobs)
                .where(
                    IS_OPEN,  # so that its index is taken
                    jobs.c.host == self._host,
                    jobs.c.state == State.PENDING,
                    jobs.c.provider.in_(list(providers)),
                    jobs.c.due_at > now,
                    jobs.c.attempts > 0,
                    jobs.c.lease.is_(None),
                )
                .values(due_at=now, attempts=0, updated_at=now)
            ).rowcount

        return await self._writer.call(work) if providers else 0

    async def forget(self, ids: Sequence[int], now: float) -> int:
        """Ends jobs for good, whoever works on them; the same version of the file makes no new one."""

        def work(connection: Connection) -> int:
            self._tell(ids)
            found = self._errands.forget(connection, ids)
            dropped = (
                update(jobs)
                .where(
                    jobs.c.host == self._host,
                    among(jobs.c.id, ids),
                    jobs.c.state.in_(sources(Event.SUPERSEDE)),
                )
                .values(
                    state=State.SUPERSEDED,
                    grant=None,
                    checkpoint=None,
                    error=FORGOTTEN,
                    updated_at=now,
                    lease=None,
                    lease_until=None,
                )
            )
            rows = connection.execute(dropped.returning(jobs.c.id, jobs.c.sent)).all()
            self._counters.add(connection, bytes_resent=sum(row.sent for row in rows))
            found.update(row.id for row in rows)
            return len(found)

        return await self._writer.call(work, durable=True)

    async def end_unwanted(self, watches: Mapping[str, str], providers: Collection[str], now: float) -> int:
        """Ends the jobs of watches that are none of these any more, or have another provider; returns how many.

        `watches`: the provider of each. What is at a provider already is seen to its end, and so is what a person named;
        of one that is none of `providers`, at once. Should it be asked for again, a scan finds the file as new. Nobody may
        be at work.
        """

        def work(connection: Connection) -> int:
            asked = or_(
                jobs.c.watch == RESERVED,
                *(and_(jobs.c.watch == watch, jobs.c.provider == provider) for watch, provider in watches.items()),
            )
            which = (IS_SHOWN, jobs.c.host == self._host, jobs.c.state.in_(sources(Event.SUPERSEDE)), not_(asked))
            folders = select(jobs.c.parent).where(*which)
            connection.execute(delete(surveyed).where(surveyed.c.host == self._host, surveyed.c.parent.in_(folders)))
            ended = {"state": State.SUPERSEDED, "grant": None, "checkpoint": None, "error": UNASKED, "updated_at": now}
            sent = connection.execute(update(jobs).where(*which).values(ended).returning(jobs.c.sent)).scalars().all()
            self._counters.add(connection, bytes_resent=sum(sent))
            lost = (IS_OPEN, jobs.c.host == self._host, jobs.c.provider.not_in(list(providers)))
            connection.execute(update(jobs).where(*lost).values(due_at=now))
            return len(sent)

        return await self._writer.call(work)

    async def make_due(self, watch: str | None, now: float) -> None:
        """Makes the waiting jobs and errands of a watch due, or all: what they waited for has come."""

        def work(connection: Connection) -> None:
            connection.execute(
                update(jobs)
                .where(IS_OPEN, jobs.c.host == self._host, jobs.c.lease.is_(None))
                .where(true() if watch is None else jobs.c.watch == watch)
                .where(jobs.c.due_at > now)
                .values(due_at=now)
            )
            self._errands.make_due(connection, watch, now)
            self._tell([UNNAMED])

        await self._writer.call(work)

    async def bring_forward(self, now: float, latest: float) -> None:
        """Makes due what waits for a time after `latest`, which nobody sets: the clock was another one then."""

        def work(connection: Connection) -> None:
            for table, waits in ((jobs, IS_OPEN), (errands, true())):
                late = (waits, table.c.host == self._host, table.c.due_at > latest)
                connection.execute(update(table).where(*late).values(due_at=now))

        await self._writer.call(work)
