"""Which jobs run now: due ones, as many at once as there are places; each that ends makes room for the next."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping
from math import inf

from dumbwaiter.attempt import Attempt, Means
from dumbwaiter.errors import JournalTrouble
from dumbwaiter.journal import LEASE, LostLease
from dumbwaiter.model import MIB, Job
from dumbwaiter.policy import ceiling

SMALL = MIB  # bytes up to which a file is over in no time
AHEAD = 32  # small files that are leased in one go
LARGE = 64 * MIB  # bytes from which a file counts as one that takes its time


class Engine:
    """The attempts under way. All of it runs on the loop."""

    def __init__(self, means: Means, *, transfers: int, wake_at: Callable[[float], None]) -> None:
        self.means = means
        self.journal = means.journal
        self.worker = means.worker
        self.clock = means.clock
        self.trouble: str | None = None  # what keeps the journal from working
        self._places = transfers
        self._wake_at = wake_at
        self.only: Collection[int] | None = None  # jobs to work on, where not on all
        self._running: dict[int, asyncio.Task[None]] = {}
        self._sizes: dict[int, int] = {}  # of their files
        self._ahead: deque[Job] = deque()  # small files that are leased and wait for a place
        self._ahead_since = 0.0
        self._left: set[int] = set()  # jobs whose lease could not be given back
        self._dispatch: asyncio.Task[None] | None = None
        self._asked = False
        self._closing = False
        self.log = means.log

    @property
    def busy(self) -> int:
        """How many files are on their way."""
        return len(self._running)

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
                self._stumble(trouble)

    async def _fill(self) -> None:
        now = self.clock()
        ends = {name: one.paused_until for name, one in self.means.providers.items() if one.paused_until > now}
        for name, until in self.means.resting(now).items():
            ends[name] = max(until, ends.get(name, 0.0))
        closed = self.means.closed(now)
        await self._give_back(now, ends, closed)
        free = self._places - len(self._running)
        if free > 0:
            await self._claim(now, free, ends, closed)
            if len(self._running) == self._places:
                return  # there may be more; the end of one of these asks again
        due = await self.journal.next_due(ends, closed)
        self.trouble = None
        wakes = [*ends.values(), *closed.values(), *([] if due is None else [due])]
        if wakes and (first := min(wakes)) < inf:
            self._wake_at(first)

    async def _give_back(self, now: float, ends: Mapping[str, float], closed: Mapping[str, float]) -> None:
        """Ends leases that are of no use: jobs that could not be let go, and small files that have to wait after all."""
        held_up = [
            job
            for job in self._ahead
            if job.provider in ends or (job.watch in closed and not job.by_hand) or now - self._ahead_since > LEASE / 2
        ]
        self._left.update(job.id for job in held_up)
        self._ahead = deque(job for job in self._ahead if job not in held_up)
        if left := list(self._left):
            await self.journal.release(self.worker, *left)
            self._left.difference_update(left)

    def _start(self, job: Job) -> None:
        self._sizes[job.id] = job.size
        self._running[job.id] = asyncio.create_task(self._attempt(job), name=f"job {job.id}")

    async def _claim(self, now: float, free: int, ends: Mapping[str, float], closed: Mapping[str, float]) -> None:
        """Starts due jobs. Large files never take the last place, so that a small one need not wait for them."""
        while free and self._ahead:
            self._start(self._ahead.popleft())
            free -= 1
        if not free:
            return
        found: list[Job] = []
        large = sum(size > LARGE for size in self._sizes.values())
        room = free if self._places == 1 else min(free, self._places - 1 - large)
        for limit, size_max in ((room, None), (free, LARGE)):
            if limit > len(found):
                some = await self.journal.claim(
                    self.worker, now, limit - len(found), ends, closed, size_max=size_max, only=self.only
                )
                for job in some:
                    self._start(job)
                found += some
        if len(found) == free and all(job.size <= SMALL for job in found):
            # Each is over in no time, and would cost a claim of its own.
            self._ahead_since = now
            self._ahead.extend(
                await self.journal.claim(self.worker, now, AHEAD, ends, closed, size_max=SMALL, only=self.only)
            )

    async def close(self) -> None:
        """Ends all attempts; what was acknowledged is kept, and no lease is left."""
        self._closing = True
        if self._dispatch is not None:
            await asyncio.gather(self._dispatch, return_exceptions=True)
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._ahead:
            await self.journal.release(self.worker, *(job.id for job in self._ahead))
        self.means.threads.close()

    async def _attempt(self, job: Job) -> None:
        attempt = Attempt(self.means, job)
        try:
            await attempt.run()
        except LostLease:
            self.log.info("job taken away", job=job.id)
        except JournalTrouble as trouble:
            self._left.add(job.id)
            self._stumble(trouble)
        except asyncio.CancelledError:
            await asyncio.shield(attempt.give_back())
            raise
        except Exception as error:
            if self._closing:  # a library's way to be cancelled
                await attempt.give_back()
            else:
                # A fault of ours in one job must not stop the others.
                self.log.exception("attempt failed", job=job.id)
                await self._survive(job, error)
        finally:
            del self._running[job.id], self._sizes[job.id]
            self.means.moved()
            if not self._closing:
                self.kick()

    async def _survive(self, job: Job, error: Exception) -> None:
        now = self.clock()
        try:
            await self.journal.delay(
                self.worker,
                job.id,
                now,
                due_at=now + ceiling(job.attempts),
                error=f"an error in dumbwaiter itself: {type(error).__name__}",
                attempts=job.attempts + 1,
            )
        except (LostLease, JournalTrouble) as more:
            self.log.error("job left to its lease", job=job.id, error=str(more))

    def _stumble(self, trouble: JournalTrouble) -> None:
        self.trouble = str(trouble)
        self.log.error("journal in trouble", error=self.trouble)
        self.means.moved()
        self._wake_at(self.clock() + 5.0)
