"""From a sighting to a job: the watch's rules, the wait until the file is quiet, and the journal.

Sightings come in bursts and may be wrong; a look at the file decides, and the journal's unique key makes repeating
one harmless. Looking, scanning and digesting happen in threads.
"""

import asyncio
import errno
import os
import time
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from math import ceil
from typing import TypeVar

from dumbwaiter import log
from dumbwaiter.errors import JournalTrouble, Unstorable
from dumbwaiter.files.downloads import Downloads
from dumbwaiter.files.ignore import Rules
from dumbwaiter.files.scan import look
from dumbwaiter.journal import Journal
from dumbwaiter.model import Sighting, Stamp
from dumbwaiter.naming import shown
from dumbwaiter.watch.enqueuer import Enqueuer, again
from dumbwaiter.watch.rescan import Rescan
from dumbwaiter.watch.settle import LONGEST, Ready, Settle
from dumbwaiter.watch.source import Source

BATCH = 512  # files looked at in one trip to a thread
AGAIN = 5.0  # seconds until a journal in trouble is tried again
HANGS = 5.0  # seconds that the looks at one watch may hold up those at the others
BACKLOG = 20_000  # files that settle, from which on a scan waits
CLOSED = 10_000  # versions of which it is known that their writer closed them
EASE = 5.0  # seconds that it waits at most for each few thousand more

T = TypeVar("T")


class Intake:
    """Files on their way from the folders to the journal. All of it runs on the loop, but for `_look_all`."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        journal: Journal,
        *,
        queued: Callable[[], None],
        moved: Callable[[], None],
    ) -> None:
        self._sources = dict(sources)
        self._journal = journal
        self._moved = moved
        self._settle = Settle(
            {name: source.settle for name, source in sources.items()},
            each=[name for name, source in sources.items() if source.after != "keep"],
        )
        self._sighted = asyncio.Event()
        self._eased = asyncio.Event()
        self._turned = asyncio.Event()
        self._patient = 0  # waits that may be long: for the journal, for a large file
        self._expected: set[str] = set()  # watches whose scan is still to begin
        self._scans: dict[str, bool] = {}  # those that are scanned, and whether that gets on
        self._enqueueing = 0
        self._due: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)  # by watch, what is to be looked at
        self._looks: dict[str, asyncio.Task[None]] = {}  # by watch: a folder that hangs holds up no other
        self._slow: set[str] = set()  # watches whose looks nobody waits for
        self._in_part: dict[tuple[str, str], str] = {}  # what is downloaded in part, and the notes that say so
        self._unseen: dict[tuple[str, str], tuple[str, int]] = {}  # why looks at a file failed, and how many in a row
        self._closed: OrderedDict[tuple[str, str], Stamp] = OrderedDict()  # the versions whose close was heard lately
        self.trouble: str | None = None  # what keeps the journal from taking files
        self._enqueuer = Enqueuer(self._sources, journal, self._insist, queued=queued, moved=moved)
        self._task: asyncio.Task[None] | None = None
        self._log = log.get("intake")

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="intake")

    async def close(self) -> None:
        tasks = [task for task in (self._task, *self._looks.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, self._enqueuer.close(), return_exceptions=True)

    # Other threads may ask these four.

    def pending(self, watch: str) -> int:
        """Returns how many files of a watch were seen and are not in the journal yet; at least 1 during a scan."""
        scanning = watch in self._expected or self._scans.get(watch, False)
        return self._settle.pending(watch) + scanning + self._enqueuer.pending(watch)

    @property
    def waiting(self) -> int:
        """How much of what was seen is not in the journal yet."""
        scans = len(self._expected) + sum([*self._scans.values()])
        return len(self._settle) + scans + self._enqueueing + len(self._enqueuer)

    def heard_closed(self, watch: str, path: str, stamp: Stamp) -> bool:
        """Says whether the writer of a version was heard to close it. Of ten thousand versions that is known."""
        return self._closed.get((watch, path)) == stamp

    def outrun(self, watch: str, path: str, seconds: float) -> None:
        """Notes that a file changed while it was sent, which had taken so long and was in vain. For the loop's thread."""
        self._settle.outrun(watch, path, seconds, time.monotonic())

    def held(self, watch: str) -> str:
        """Returns the sentence on files that wait for those who write them, or for their disk; empty when there are none."""
        now = time.monotonic()
        held = [(path, self._in_part.get((watch, path), "")) for path in self._settle.held(watch, now)]
        paths = [path for path, notes in held if not notes]
        if len(paths) > 1:
            return (
                f"{len(paths)} files are open for writing in programs, such as {shown(paths[0])}: each is taken once it is "
                "closed."
            )
        if paths:
            return f"{shown(paths[0])} is open for writing in a program: it is taken once it is closed."
        for path, notes in held:
            return f"{shown(path)} is downloaded in part: it is taken once {shown(notes)} is gone."
        for path, reason in [(path, reason) for (one, path), (reason, _) in [*self._unseen.items()] if one == watch]:
            return f"{shown(path)} cannot be looked at ({reason}): that is tried again within a minute."
        for path, seconds in self._settle.restless(watch, now):
            return f"{shown(path)} changes while it is sent: it is taken once it was quiet for {ceil(seconds / 60)} minutes."
        return ""

    def unread(self, watch: str) -> str:
        """Returns what cannot be read of the watch's own ignore file, empty when all can."""
        return "; ".join(self._sources[watch].rules.unread)

    def rules(self, watch: str) -> Rules:
        return self._sources[watch].rules

    def adopt(self, watch: str, rules: Rules) -> None:
        """Gives a watch other rules, which hold also for what was seen before."""
        self._sources[watch] = self._sources[watch]._replace(rules=rules)

    def sight(self, sightings: Iterable[Sighting]) -> None:
        """Takes what a watcher saw."""
        now = time.monotonic()
        for sighting in sightings:
            source = self._sources.get(sighting.watch)
            if source is not None and source.rules.takes(sighting.path):
                self._settle.sight(sighting, now)
        self._sighted.set()

    def expect(self, watch: str) -> None:
        """Notes that a scan is to come: whoever waits for all files waits for it too."""
        self._expected.add(watch)

    def give_up(self, watch: str) -> None:
        """Notes that it cannot come now, or gets no further."""
        if watch in self._expected or self._scans.get(watch):
            self._expected.discard(watch)
            if watch in self._scans:
                self._scans[watch] = False
            self._moved()

    async def scan(self, watch: str) -> float | None:
        """Sights every file of a watch that the journal does not know as it is; returns the seconds that took.

        None where it broke off and has to begin anew soon. One scan of a watch at a time.
        """
        started = time.monotonic()
        self._expected.discard(watch)
        if watch in self._scans:
            return 0.0
        self._scans[watch] = True
        try:
            await self._scan(watch, self._sources[watch])
        except FileNotFoundError:
            self._log.warning("folder is not there", watch=watch, path=self._sources[watch].root)
        except (OSError, JournalTrouble) as error:
            self._log.warning("scan ended early", watch=watch, reason=str(error))
            if isinstance(error, JournalTrouble):  # of a disk nobody knows whether that ever ends
                self._expected.add(watch)
            return None
        finally:
            del self._scans[watch]
            self._moved()
        return time.monotonic() - started

    async def _scan(self, watch: str, source: Source) -> None:
        started = time.monotonic()
        begin = partial(Rescan, self._journal.folders, watch, source.root, source.rules, source.provider)
        rescan = await self._insist(partial(asyncio.to_thread, begin))
        files = new = 0
        try:
            while (step := await asyncio.to_thread(rescan.step)) is not None:
                files += step.files
                new += len(step.fresh)
                now = time.time()
                self.sight(Sighting(watch, path, old=_old(stamp, source.settle, now)) for path, stamp in step.fresh)
                if step.surveyed:
                    with suppress(Unstorable):  # then they are looked through the next time too
                        await self._journal.notes.survey(watch, step.surveyed)
                await self._ease()
            for page in await asyncio.to_thread(rescan.gone):
                await self._journal.notes.unsurvey(watch, page)
        finally:
            rescan.close()
        self._log.info("scanned", watch=watch, files=files, new=new, seconds=round(time.monotonic() - started, 3))

    async def _ease(self) -> None:
        """Waits while more is settling than need be in memory, unless it does not become less."""
        if len(self._settle) + len(self._enqueuer) > BACKLOG:
            self._eased.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(EASE):
                    await self._eased.wait()

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Asks the journal until it answers."""
        while True:
            try:
                answer = await ask()
            except JournalTrouble as trouble:
                await self._wait_out(trouble)
            else:
                self.trouble = None
                return answer

    async def _wait_out(self, trouble: JournalTrouble) -> None:
        self.trouble = str(trouble)
        self._log.error("journal in trouble", error=self.trouble)
        self._moved()
        with self._taking_time():
            await asyncio.sleep(AGAIN)

    @contextmanager
    def _taking_time(self) -> Iterator[None]:
        self._patient += 1
        try:
            yield
        finally:
            self._patient -= 1

    async def turn(self) -> None:
        """Returns when the intake has gone once through its work, or has a reason to take longer."""
        if self._patient:
            await asyncio.sleep(0)  # who asks again and again must not keep it from going on
            return
        self._turned.clear()
        self._sighted.set()
        await self._turned.wait()

    async def _run(self) -> None:
        while True:
            try:
                await self._pass()
            except Exception:  # noqa: BLE001
                # A fault of ours must not end the intake; a scan sights again what was in hand.
                self._log.exception("intake stumbled")
                await asyncio.sleep(AGAIN)

    async def _pass(self) -> None:
        """Looks at what is due, then waits for more."""
        for name in self._settle.due(time.monotonic()):
            self._due[name[0]].append(name)
        for watch, names in self._due.items():
            if names and watch not in self._looks:
                self._looks[watch] = asyncio.create_task(self._look_through(watch, names), name=f"look {watch}")
        if looks := [look for watch, look in self._looks.items() if watch not in self._slow]:
            await asyncio.wait(looks, timeout=HANGS)
            self._slow = set(self._looks)
        wake = self._settle.next_wake()
        self._sighted.clear()
        self._turned.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(None if wake is None else max(0.0, wake - time.monotonic())):
                await self._sighted.wait()

    async def _look_through(self, watch: str, names: list[tuple[str, str]]) -> None:
        try:
            while batch := names[:BATCH]:
                await self._look(batch)
                del names[: len(batch)]  # more may have come meanwhile
                self._turned.set()
        except Exception:  # noqa: BLE001
            # A fault of ours must not end the intake.
            self._log.exception("intake stumbled", watch=watch)
            for name in names:
                self._settle.put_off(name, time.monotonic() + AGAIN)
            names.clear()
        finally:
            del self._looks[watch]
            self._slow.discard(watch)
            self._sighted.set()  # who did not wait for it has to hear what is due now

    async def _look(self, names: Sequence[tuple[str, str]]) -> None:
        seen = await asyncio.to_thread(self._look_all, names)
        now = time.monotonic()
        before = len(self._settle)
        ready = []
        for name, (stamp, writing) in zip(names, seen, strict=True):
            if name in self._unseen:
                self._settle.put_off(name, now + again(self._unseen[name][1]))
            elif (file := self._settle.observe(*name, stamp, now, writing)) is not None:
                ready.append(file)
        # By the rules as they are now.
        ready = [file for file in ready if self._sources[file.watch].rules.takes(file.path)]
        for file in ready:
            self._note_close(file)
        if ready:
            self._enqueueing += 1
            try:
                await self._enqueuer.enqueue(ready)
            except Exception:
                self.sight(Sighting(file.watch, file.path) for file in ready)
                raise
            finally:
                self._enqueueing -= 1
        if len(self._settle) < before:
            self._moved()
        if len(self._settle) <= BACKLOG:
            self._eased.set()

    def _note_close(self, file: Ready) -> None:
        name = (file.watch, file.path)
        self._closed.pop(name, None)
        if file.closed and self._sources[file.watch].after != "keep":
            self._closed[name] = file.stamp
            if len(self._closed) > CLOSED:
                self._closed.popitem(last=False)

    def _look_all(self, names: Sequence[tuple[str, str]]) -> list[tuple[Stamp | None, bool | None]]:
        downloads = Downloads()
        return [self._look_at(name, downloads) for name in names]

    def _look_at(self, name: tuple[str, str], downloads: Downloads) -> tuple[Stamp | None, bool | None]:
        """Returns what `look` does; of a file that is downloaded in part, that it is written. Where that fails, notes why."""
        watch, path = name
        root = self._sources[watch].root
        notes = ""
        try:
            stamp, writing = look(root, path)
            if stamp is not None and not writing:
                notes = downloads.notes(root, path)
                writing = bool(notes) or (not stamp.size and downloads.is_written_beside(root, path)) or writing
        except OSError as error:  # a disk that fails for a moment, or no descriptor is left
            reason, failures = os.strerror(error.errno or errno.EIO), self._unseen.get(name, ("", -1))[1] + 1
            if not failures:
                self._log.warning("file cannot be looked at", watch=watch, path=path, error=reason)
            self._unseen[name] = reason, failures
            return None, None
        self._unseen.pop(name, None)
        if notes:
            self._in_part[name] = notes
        else:
            self._in_part.pop(name, None)
        return stamp, writing


def _old(stamp: Stamp, settle: float, now: float) -> bool:
    """True for a file whose last change lies so far back that there is nothing to wait for, whoever writes how slowly."""
    changed = max(stamp.mtime_ns, stamp.ctime_ns) / 1e9
    return max(settle, LONGEST) < now - changed
