"""Which jobs run now: due ones, as many at once as there are slots; each that ends makes room for the next."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from math import inf

from dumbwaiter.errors import JournalTrouble, Unstorable
from dumbwaiter.jobs.attempt import Attempt
from dumbwaiter.jobs.context import Context
from dumbwaiter.model import MIB, Job
from dumbwaiter.policy import ceiling
from dumbwaiter.store.lease import LostLease

SMALL = MIB  # bytes up to which a file is over in no time
AHEAD = 64  # small files that may be under way beyond the slots, so that they share requests and commits
LARGE = 64 * MIB  # bytes from which a file counts as one that takes its time
LARGE_PROBES = 10  # of that many files, one, whatever its size, tries whether a provider lets something through
AGAIN = 2  # outcomes of a job in a row that the journal did not take, which are no accident any more
LOOK = 0.2  # seconds, at least, between two looks for a file of a provider that has none on its way


class Engine:
    """The attempts under way. All of it runs on the loop."""

    def __init__(self, context: Context, *, transfers: int, wake_at: Callable[[float], None]) -> None:
        self.context = context
        self.journal = context.journal
        self.worker = context.worker
        self.clock = context.clock
        self.trouble: str | None = None  # what keeps the journal from working
        self._slots = transfers
        self._wake_at = wake_at
        self.only: Collection[int] | None = None  # jobs to work on, where not on all
        self._running: dict[int, asyncio.Task[None]] = {}
        self._jobs: dict[int, Job] = {}  # those that run
        self._ends: deque[float] = deque(maxlen=AHEAD)  # when small files ended lately
        self._left: dict[int, float] = {}  # jobs whose lease is to be given back, and when, by the monotonic clock
        self._unnoted: Counter[int] = Counter()  # attempts in a row whose outcome the journal did not take, by job
        self._held: Counter[int] = Counter()  # jobs that are to get no further: for how many orders
        self._look_at = 0.0  # when a provider that has nothing on its way is asked about again
        self._looks_again = False  # that was ordered
        self._doubtful = False  # there may be leases of ours that we do not know of
        self._connections = self.journal.writer.connections  # when there were none
        self._dispatch: asyncio.Task[None] | None = None
        self._asked = False
        self._closing = False
        self.log = context.log

    @property
    def busy(self) -> int:
        """How many files are on their way."""
        return len(self._running)

    def unnoted(self, ids: Iterable[int]) -> list[int]:
        """Returns which of these jobs the journal took no outcome of, time and again."""
        return [id_ for id_ in ids if self._unnoted.get(id_, 0) >= AGAIN]

    def kick(self) -> None:
        """Starts a dispatch, unless one runs that will see the same."""
        self._asked = True
        if self._dispatch is None or self._dispatch.done():
            self._dispatch = asyncio.create_task(self.dispatch(), name="dispatch")

    async def wake(self) -> None:
        """`kick` for the scheduler, which would skip a run while the last one goes on."""
        self.kick()

    async def turn(self) -> None:
        """Returns when due jobs have been looked for once."""
        self.kick()
        assert self._dispatch is not None
        await asyncio.shield(self._dispatch)

    async def dispatch(self) -> None:
        """Starts due jobs while there is room, and says when the next one is due."""
        while self._asked and not self._closing:
            self._asked = False
            try:
                await self._fill()
            except JournalTrouble as trouble:
                self._doubtful = True
                self._stumble(trouble)

    async def _fill(self) -> None:
        now = self.clock()
        closed = self.context.closed(now)
        rests = self._rests(now)
        await self._give_back(now)
        healths = {name: one.health for name, one in self.context.providers.items() if name not in rests}
        probes = {name: one.probe_at for name, one in healths.items() if one.is_probed}
        looked = await self._look(now, {*rests, *probes}, closed)
        room = await self._claim(now, {*rests, *probes}, closed)
        if not self._left:
            self.trouble = None
        if not (room or self._shares):
            return  # there may be more; the end of one that runs asks again
        rests |= await self._probe(now, probes, closed)
        wakes = [*rests.values(), *closed.values()]
        if room:
            due = await self.journal.next_due({*rests, *(probes.keys() & self._at_work())}, closed, only=self.only)
            # What is due and was not taken waits for the end of another, which asks again.
            wakes += [due] if due is not None and due > now else []
        elif not (looked or self._looks_again) and self.context.providers.keys() - rests.keys() - self._at_work():
            self._looks_again = True  # only who waits for no slot has to be thought of
            wakes.append(now + LOOK)
        if (first := min(wakes, default=inf)) < inf:
            self._wake_at(first)

    def _rests(self, now: float) -> dict[str, float]:
        """Returns the providers of which no file is tried now, and until when."""
        rests = {name: until for name, one in self.context.providers.items() if (until := one.health.rests_until) > now}
        for name, until in self.context.resting(now).items():
            rests[name] = max(until, rests.get(name, 0.0))
        return rests

    async def _give_back(self, now: float) -> None:
        """Ends the leases that nobody works on."""
        connections = self.journal.writer.connections
        # A claim may have been committed, and its answer lost; a standby server may have missed the end of a job.
        if self._doubtful or connections != self._connections:
            known = self._running.keys() | self._held.keys() | self._left.keys()
            await self.journal.release_others(self.worker, known)
            self._doubtful, self._connections = False, connections
        for id_ in self._left.keys() & self._running.keys():
            del self._left[id_]
        if left := [id_ for id_, when in self._left.items() if when <= time.monotonic()]:
            await self.journal.release(self.worker, *left)
            for id_ in left:
                self._left.pop(id_, None)
        if self._left:
            self._wake_at(now + min(self._left.values()) - time.monotonic())

    async def _probe(self, now: float, probes: Mapping[str, float], closed: Collection[str]) -> dict[str, float]:
        """Starts one file of each provider that may be probed now; returns when the others may.

        One at a time until something succeeds: whoever does not answer must not hold all slots.
        """
        later = {name: probe_at for name, probe_at in probes.items() if probe_at > now}
        for name in probes.keys() - later.keys() - self._at_work():
            others = self.context.providers.keys() - {name}
            probe = partial(self.journal.claim, self.worker, now, 1, others, closed, only=self.only)
            # A small file tells as much, and costs less in vain; but large ones may be what does get through.
            small = self.context.providers[name].health.failures % LARGE_PROBES != 0
            for job in (small and await probe(size_max=SMALL)) or await probe():
                self._start(job)
        return later

    def _at_work(self) -> set[str]:
        """Returns the providers that have a file on its way."""
        return {job.provider for job in self._jobs.values()}

    async def _claim(self, now: float, paused: Collection[str], closed: Collection[str]) -> bool:
        """Starts due jobs; returns whether there was room for more.

        Large files never take the last slot, so that a small one need not wait for them. Small ones may be under way
        before a slot is free: as many as ended within the last second, so that none waits longer.
        """
        ahead = sum(end > time.monotonic() - 1.0 for end in self._ends)
        slots = self._slots_now
        if len(self._running) >= slots + ahead // 2:
            return False
        most = max(1, slots - 1)

        async def start(limit: int, size_max: int | None = None) -> int:
            """Starts so many of a size at most; returns how many more there is room for."""
            room = slots + ahead - len(self._running)
            if (limit := min(limit, room)) > 0:
                for job in await self.journal.claim(
                    self.worker, now, limit, paused, closed, size_max=size_max, only=self.only
                ):
                    self._start(job)
                    limit -= 1
            return limit

        large = sum(job.size > LARGE for job in self._jobs.values())
        heavy = sum(job.size > SMALL for job in self._jobs.values())
        left = await start(min(most - large, (most if heavy < len(self._running) else slots) - heavy))
        if left > 0:
            return True
        await start(slots - len(self._running), LARGE)
        return await start(ahead + slots, SMALL) > 0

    @property
    def _shares(self) -> bool:
        """True where a provider need not wait for another's files; with one slot a person wants one at a time."""
        return self._slots > 1 and len(self.context.providers) > 1

    @property
    def _slots_now(self) -> int:
        """How many files may be on their way: for each further provider one more, for one that is slow has no end."""
        return self._slots + (max(0, len(self._at_work()) - 1) if self._shares else 0)

    async def _look(self, now: float, paused: Collection[str], closed: Collection[str]) -> bool:
        """Starts a file of each provider that has none on its way, where others have some; returns whether it was time to.

        It is so only now and then: to pass over the files of the others takes a while.
        """
        begun = time.monotonic()
        if not self._shares or not self._running or begun <= self._look_at:
            return False
        self._looks_again = False
        while self.context.providers.keys() - (busy := {*paused, *self._at_work()}):
            found = await self.journal.claim(self.worker, now, 1, busy, closed, only=self.only)
            for job in found:
                self._start(job)
            if not found:
                due = await self.journal.next_due(busy, closed, only=self.only)
                if due is not None and due > now:
                    self._wake_at(due)
                break
        self._look_at = time.monotonic() + max(LOOK, 20 * (time.monotonic() - begun))
        return True

    def _start(self, job: Job) -> None:
        if job.id in self._held:
            self._left[job.id] = 0.0
            return
        self._jobs[job.id] = job
        task = self._running[job.id] = asyncio.create_task(self._attempt(job), name=f"job {job.id}")
        task.add_done_callback(partial(self._ended, job))  # it may be cancelled before its first step

    @asynccontextmanager
    async def without(self, ids: Iterable[int]) -> AsyncIterator[None]:
        """Ends the attempts of these jobs and begins none of them before the block ends."""
        held = Counter(set(ids))
        self._held += held
        running = self._running.keys() & held.keys()
        attempts = [self._running[id_] for id_ in running]
        for attempt in attempts:
            attempt.cancel()
        try:
            await asyncio.gather(*attempts, return_exceptions=True)
            yield
        finally:
            self._held -= held
            self._left |= dict.fromkeys(running, 0.0)
            self.kick()

    async def close(self) -> None:
        """Ends all attempts; what was acknowledged is kept, and no lease is left."""
        self._closing = True
        if self._dispatch is not None:
            await asyncio.gather(self._dispatch, return_exceptions=True)
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self.context.threads.close()

    async def _attempt(self, job: Job) -> None:
        attempt = Attempt(self.context, job)
        try:
            await attempt.run()
            self._unnoted.pop(job.id, None)
        except LostLease:
            self._left[job.id] = 0.0  # where a commit's answer was lost, it is one's own still
            self.log.info("job taken away", job=job.id)
        except Unstorable as error:  # of this job alone; others go on
            await self._survive(job, str(error))
        except JournalTrouble as trouble:
            self._set_aside(job, trouble)
        except asyncio.CancelledError:
            if job.id not in self._held:  # else nobody may take it, and the lease stays
                await asyncio.shield(attempt.give_back())
            raise
        except Exception as error:
            if self._closing:  # a library's way to be cancelled
                await attempt.give_back()
            else:
                # A fault of ours in one job must not stop the others.
                self.log.exception("attempt failed", job=job.id)
                await self._survive(job, f"an error in dumbwaiter itself: {type(error).__name__}")

    def _ended(self, job: Job, task: "asyncio.Task[None]") -> None:
        """Makes room for the next; where the same job is at work again already, it has the slot."""
        if self._running.get(job.id) is not task:
            return
        del self._running[job.id], self._jobs[job.id]
        if job.size <= SMALL:
            self._ends.append(time.monotonic())
        self.context.moved()
        if not self._closing:
            self.kick()

    async def _survive(self, job: Job, error: str) -> None:
        now = self.clock()
        try:
            await self.context.lease(job).delay(
                now,
                due_at=now + ceiling(job.attempts),
                error=error,
                attempts=job.attempts + 1,
            )
        except LostLease:
            self.log.info("job taken away", job=job.id)
        except JournalTrouble as trouble:
            self._set_aside(job, trouble)

    def _set_aside(self, job: Job, trouble: JournalTrouble) -> None:
        """Keeps the lease on a job of which the journal takes no outcome, each time for longer: others go on meanwhile.

        Else its file would be sent again and again without a pause.
        """
        failures = self._unnoted[job.id]
        self._unnoted[job.id] += 1
        self._left[job.id] = time.monotonic() + (ceiling(failures) if failures else 0.0)
        self._stumble(trouble)

    def _stumble(self, trouble: JournalTrouble) -> None:
        self.trouble = str(trouble)
        self.log.error("journal in trouble", error=self.trouble)
        self.context.moved()
        self._wake_at(self.clock() + 5.0)
