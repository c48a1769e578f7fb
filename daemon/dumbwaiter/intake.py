"""From a sighting to a job: the watch's rules, the wait until the file is quiet, and the journal.

Sightings come in bursts and may be wrong; a look at the file decides, and the journal's unique key makes repeating
one harmless. Looking, scanning and digesting happen in threads.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from dumbwaiter import log
from dumbwaiter.errors import JournalTrouble, Verdict
from dumbwaiter.ignore import Rules
from dumbwaiter.journal import Candidate, Journal, Known
from dumbwaiter.model import Sighting, Stamp, State
from dumbwaiter.naming import join, split
from dumbwaiter.scan import look, scan
from dumbwaiter.settle import Ready, Settle
from dumbwaiter.upload import digest_of

BATCH = 512  # files looked at in one trip to a thread
AGAIN = 5.0  # seconds until a journal in trouble is tried again


class Source(NamedTuple):
    """Where a watch's files come from and go to."""

    root: str
    provider: str
    rules: Rules
    settle: float


class Intake:
    """Files on their way from the folders to the journal. All of it runs on the loop, but for `_look_all`."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        journal: Journal,
        *,
        queued: Callable[[], None],
        moved: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sources = dict(sources)
        self._journal = journal
        self._queued = queued
        self._moved = moved
        self._clock = clock
        self._settle = Settle({name: source.settle for name, source in sources.items()})
        self._sighted = asyncio.Event()
        self._scans: Counter[str] = Counter()
        self._enqueueing = 0
        self._task: asyncio.Task[None] | None = None
        self._log = log.get("intake")

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="intake")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def pending(self, watch: str) -> int:
        """Returns how many files of a watch were seen and are not in the journal yet; at least 1 during a scan."""
        return self._settle.pending(watch) + self._scans[watch]

    @property
    def waiting(self) -> int:
        """How much of what was seen is not in the journal yet."""
        return len(self._settle) + self._scans.total() + self._enqueueing

    def adopt(self, watch: str, rules: Rules) -> None:
        """Gives a watch other rules."""
        self._sources[watch] = self._sources[watch]._replace(rules=rules)

    def sight(self, sightings: Iterable[Sighting]) -> None:
        """Takes what a watcher saw."""
        now = time.monotonic()
        for sighting in sightings:
            source = self._sources.get(sighting.watch)
            if source is not None and source.rules.takes(sighting.path):
                self._settle.sight(sighting, now)
        self._sighted.set()

    async def scan(self, watch: str) -> None:
        """Sights every file of a watch that the journal does not know as it is. One scan of a watch at a time."""
        if self._scans[watch]:
            return
        self._scans[watch] = 1
        try:
            await self._scan(watch, self._sources[watch])
        except FileNotFoundError:
            self._log.warning("folder is not there", watch=watch, path=self._sources[watch].root)
        finally:
            self._scans[watch] = 0
            self._moved()

    async def _scan(self, watch: str, source: Source) -> None:
        started = time.monotonic()
        folders = scan(source.root, source.rules)
        files = new = 0
        while batch := await asyncio.to_thread(_take, folders):
            for folder, found in batch:
                known = await self._known(watch, folder) if found else {}
                fresh = [
                    Sighting(watch, join(folder, name), closed=_quiet(stamp, source.settle, self._clock()))
                    for name, stamp in found
                    if name not in known or known[name].stamp != stamp
                ]
                files += len(found)
                new += len(fresh)
                if fresh:
                    self.sight(fresh)
        self._log.info("scanned", watch=watch, files=files, new=new, seconds=round(time.monotonic() - started, 3))

    async def _known(self, watch: str, folder: str) -> dict[str, Known]:
        while True:
            try:
                return await self._journal.known(watch, folder)
            except JournalTrouble as trouble:
                self._log.error("journal in trouble", error=str(trouble))
                await asyncio.sleep(AGAIN)

    async def _run(self) -> None:
        while True:
            now = time.monotonic()
            due = self._settle.due(now)
            for start in range(0, len(due), BATCH):
                await self._look(due[start : start + BATCH])
            wake = self._settle.next_wake()
            self._sighted.clear()
            if wake is not None:
                wait = max(0.0, wake - time.monotonic())
                loop = asyncio.get_running_loop()
                handle = loop.call_later(wait, self._sighted.set)
                await self._sighted.wait()
                handle.cancel()
            else:
                await self._sighted.wait()

    async def _look(self, names: Sequence[tuple[str, str]]) -> None:
        seen = await asyncio.to_thread(self._look_all, names)
        now = time.monotonic()
        before = len(self._settle)
        ready = [
            file
            for (watch, path), (stamp, writing) in zip(names, seen, strict=True)
            if (file := self._settle.observe(watch, path, stamp, now, writing)) is not None
        ]
        if ready:
            self._enqueueing += 1
            try:
                await self._enqueue(ready)
            finally:
                self._enqueueing -= 1
        if len(self._settle) < before:
            self._moved()

    def _look_all(self, names: Sequence[tuple[str, str]]) -> list[tuple[Stamp | None, bool | None]]:
        return [self._look_at(watch, path) for watch, path in names]

    def _look_at(self, watch: str, path: str) -> tuple[Stamp | None, bool | None]:
        try:
            return look(self._sources[watch].root, path)
        except OSError as error:
            # The next scan comes by again.
            self._log.warning("file cannot be looked at", watch=watch, path=path, error=error.strerror)
            return None, None

    async def _enqueue(self, ready: Sequence[Ready]) -> None:
        folders: defaultdict[tuple[str, str], list[Ready]] = defaultdict(list)
        for file in ready:
            folders[file.watch, split(file.path)[0]].append(file)
        candidates = []
        for (watch, folder), files in folders.items():
            known = await self._known(watch, folder)
            for file in files:
                if not await self._same(file, known.get(split(file.path)[1])):
                    provider = self._sources[watch].provider
                    candidates.append(Candidate(watch, file.path, provider, file.stamp))
        if not candidates:
            return
        while True:
            try:
                if await self._journal.enqueue(candidates, self._clock()):
                    self._queued()
                return
            except JournalTrouble as trouble:
                self._log.error("journal in trouble", error=str(trouble))
                await asyncio.sleep(AGAIN)

    async def _same(self, file: Ready, known: Known | None) -> bool:
        """True when the journal has this content already. A file that was only touched gets its new stamp there."""
        if known is None or not known.stamp.same_but_touched(file.stamp):
            return False
        if known.state is not State.DONE or known.digest is None:
            return False
        source = self._sources[file.watch]
        try:
            digest = await asyncio.to_thread(digest_of, source.root, file.path, file.stamp)
        except Verdict:
            return True  # it moves on; whatever it becomes is sighted again
        if digest != known.digest:
            return False
        await self._journal.touch(known.id, file.stamp, self._clock())
        return True


def _take(
    folders: Iterable[tuple[str, list[tuple[str, Stamp]]]],
) -> list[tuple[str, list[tuple[str, Stamp]]]]:
    """Takes the next folders of a scan, about a batch of files."""
    batch = []
    files = 0
    for folder, found in folders:
        batch.append((folder, found))
        files += len(found)
        if files >= BATCH or len(batch) >= BATCH:
            break
    return batch


def _quiet(stamp: Stamp, settle: float, now: float) -> bool:
    """True for a file whose last change lies so far back that there is nothing to wait for."""
    changed = max(stamp.mtime_ns, stamp.ctime_ns) / 1e9
    return settle < now - changed
