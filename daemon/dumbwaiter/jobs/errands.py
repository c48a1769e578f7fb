"""What was ordered with the end of a job: the file's disposal, hooks.

Errands are in the journal by the commit that ended the job (`endings`) and run here, a few at a time and never in an
upload's way; a watch whose disk hangs keeps no other one waiting. What fails is put off, at last given up, and told in
`status` and `history`.
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Callable

from dumbwaiter import log
from dumbwaiter.config import Config
from dumbwaiter.errors import Changed, JournalTrouble, Undone
from dumbwaiter.files.digest import Digest
from dumbwaiter.files.disposal import dispose
from dumbwaiter.files.roots import mounted_at
from dumbwaiter.jobs.hooks import Teller
from dumbwaiter.journal import Journal
from dumbwaiter.model import Job, Stamp
from dumbwaiter.naming import shown
from dumbwaiter.net.http import Http
from dumbwaiter.policy import ceiling
from dumbwaiter.pool import NoThread, Pool
from dumbwaiter.store.errands import AFTER, Errand

AGAIN = 5.0  # seconds until a journal in trouble is asked again
SLOTS = 4  # hooks at once, and files of one watch
TRIES = 20  # within an hour


class _Away(Undone):
    """The folder of the watch, or the disk that the file is to go to, is not there, and may come back."""


class ErrandRunner:
    """Does the errands that are due. All of it runs on the loop."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        http: Http,
        *,
        wake_at: Callable[[float], None],
        sighted: Callable[[str, str], None],
        moved: Callable[[], None],
        away: Callable[[str], str] = lambda _watch: "",
        closed: Callable[[str, str, Stamp], bool] = lambda _watch, _path, _stamp: False,
    ) -> None:
        """`closed` says whether the writer of a version was heard to close it."""
        self._config = config
        self._journal = journal
        self._wake_at = wake_at
        self._sighted = sighted
        self._moved = moved
        self._away = away
        self._closed = closed
        places = [source.place for _, source in config.secrets()]
        self._teller = Teller(http, {name for kind, name in places if kind == "env"})
        self._running: dict[int, asyncio.Task[None]] = {}
        self._slots_taken: Counter[str] = Counter()  # by pool
        self._executors: dict[str, Pool] = {}  # by watch: a disk that hangs keeps them for good
        self._round: asyncio.Task[None] | None = None
        self._asked = self._closing = False
        self._log = log.get("errands")

    def kick(self) -> None:
        """Looks at once for something to do."""
        self._asked = True
        if (self._round is None or self._round.done()) and not self._closing:
            self._round = asyncio.create_task(self._rounds(), name="errands")

    async def wake(self) -> None:
        """`kick` for the scheduler."""
        self.kick()

    async def _rounds(self) -> None:
        while self._asked and not self._closing:
            self._asked = False
            now = time.time()
            try:
                more = True
                while more:
                    found = await self._journal.errands.due(now, SLOTS, self._running, self._full())
                    for errand in found:
                        self._start(errand)
                    more = len(found) == SLOTS
                due = await self._journal.errands.next_due(self._running, self._full())
            except JournalTrouble as trouble:
                self._log.error("journal in trouble", error=str(trouble))
                due = now + AGAIN
            if due is not None and due > now:
                self._wake_at(due)

    def _full(self) -> list[str]:
        return [pool for pool, taken in self._slots_taken.items() if taken >= SLOTS]

    def _start(self, errand: Errand) -> None:
        if self._slots_taken[errand.pool] < SLOTS:
            self._slots_taken[errand.pool] += 1
            self._running[errand.id] = asyncio.create_task(self._do(errand), name=f"errand {errand.id}")

    async def drain(self) -> None:
        """Waits until nothing is left that could be done now."""
        self.kick()
        while self._round is not None and (not self._round.done() or self._running):
            await asyncio.gather(self._round, *self._running.values(), return_exceptions=True)

    async def close(self) -> None:
        """Ends what is under way; it is done again at the next start."""
        self._closing = True
        tasks = [task for task in (self._round, *self._running.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for executor in self._executors.values():
            executor.shutdown(wait=False, cancel_futures=True)

    async def _do(self, errand: Errand) -> None:
        try:
            await self._try(errand)
        except JournalTrouble as trouble:
            self._log.error("journal in trouble", error=str(trouble))
            await asyncio.sleep(AGAIN)  # what could not be noted is done once more
        finally:
            del self._running[errand.id]
            self._slots_taken[errand.pool] -= 1
            self._moved()
            self.kick()

    async def _try(self, errand: Errand) -> None:
        """Does an errand, and notes in the journal what came of it. Raises `JournalTrouble`."""
        done = ""
        try:
            if errand.what == AFTER:
                done = await self._after(errand)
            else:
                await self._tell(errand)
        except Undone as trouble:
            await self._put_off(errand, trouble)
        except JournalTrouble:
            raise
        except Exception as error:  # noqa: BLE001 - a fault in one errand must not stop the others
            self._log.exception("errand failed", what=errand.what)
            sentence = f"an error in dumbwaiter itself: {type(error).__name__}"
            await self._journal.errands.failed(errand, due_at=None, error=sentence)
        else:
            self._log.info("errand done", what=errand.what, watch=errand.watch, path=errand.path)
            await self._journal.errands.done(errand, taken_away=bool(done), deleted=done == "delete")

    async def _put_off(self, errand: Errand, trouble: Undone) -> None:
        """Notes when to try again, or that this was the last try."""
        more = errand.attempts + 1 < TRIES or isinstance(trouble, _Away)
        wait = random.random() * ceiling(errand.attempts) if trouble.after is None else trouble.after
        when = time.time() + wait if more and not trouble.hopeless else None
        tell = self._log.warning if trouble.after is None else self._log.info
        tell("errand failed", what=errand.what, watch=errand.watch, path=errand.path, error=str(trouble))
        await self._journal.errands.failed(errand, due_at=when, error=str(trouble))

    async def _after(self, errand: Errand) -> str:
        """Disposes of an uploaded file. Returns the action, also where the file was gone already; empty where it stays."""
        root = self._config.folder_of(errand.watch)
        jobs = await self._journal.ended([errand.job or 0])
        if not jobs:
            return ""
        if root is None:  # a kill may have left the file under its private name
            raise Undone(f'no watch named "{errand.watch}" is configured')
        (job,) = jobs
        watch = self._config.watch.get(errand.watch)
        action = errand.facts["action"] if watch is None else watch.after  # as it is wanted today
        if errand.watch not in self._executors:
            self._executors[errand.watch] = Pool(SLOTS, "after")
        executor = self._executors[errand.watch]
        try:
            if disk := await asyncio.get_running_loop().run_in_executor(
                executor, self._dispose, errand, job, root, action
            ):
                await self._journal.notes.mount(disk, is_mounted=True)
        except NoThread as error:
            raise _Away(str(error)) from None
        except Changed:
            self._sighted(job.watch, job.path)
            return ""
        return "" if action == "keep" else action

    def _dispose(self, errand: Errand, job: Job, root: str, action: str) -> str:
        """Does it, in a thread. Returns where a disk is mounted that got a file for the first time, else nothing.

        Raises `Changed` and `Undone`.
        """
        if self._journal.out_of_place():
            raise _Away("the journal was removed or moved, and would not know of it")
        if away := self._away(errand.watch):
            raise _Away(away)
        target = action.removeprefix("move:") if action.startswith("move:") else ""
        noted = self._journal.folders.mounted() if target else set()
        for disk in noted:
            if f"{target}/".startswith(f"{disk}/") and not os.path.ismount(disk):
                raise _Away(
                    f"nothing is mounted at {shown(disk)}; mount it, or say that the folder is right as it is with "
                    f"`dumbwaiter rescan {errand.watch}`"
                )

        def same(fd: int) -> bool:
            return Digest().finish(fd, os.fstat(fd).st_size) == job.digest

        mark = f"{self._journal.host}-{errand.mark}"
        closed = job.by_hand or self._closed(job.watch, job.path, job.stamp)
        there = dispose(root, job.path, job.stamp, same, action, mark, known_since=job.created_at, closed=closed)
        if not there and (away := self._away(errand.watch)):  # it went meanwhile
            raise _Away(away)
        disk = mounted_at(target) if target else "/"
        return "" if disk in {"/", *noted} else disk

    async def _tell(self, errand: Errand) -> None:
        watch = self._config.watch.get(errand.watch)
        hook = watch.hook(errand.what) if watch is not None else None
        root = self._config.folder_of(errand.watch)
        if hook is None or root is None:
            return
        path = os.path.join(root, errand.path) if errand.path else root
        facts = {"event": errand.what.removeprefix("on_"), "path": path, "name": os.path.basename(path), **errand.facts}
        await self._teller.tell(hook, facts, f"{self._journal.host}-{errand.mark}", time.time())
