"""From a finished file to a job, unless the journal knows it: by its stamp, or, of one that was only touched, by its content."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from dumbwaiter import log
from dumbwaiter.errors import Local, Unstorable, Verdict
from dumbwaiter.files.version import digest_of
from dumbwaiter.journal import Journal
from dumbwaiter.naming import split
from dumbwaiter.store.arrivals import Candidate
from dumbwaiter.store.folders import Known
from dumbwaiter.watch.settle import LONGEST, Ready
from dumbwaiter.watch.source import Source

AGAIN = 5.0  # seconds until a file that could not be read is tried again, at first

T = TypeVar("T")


def again(failures: int) -> float:
    """Returns the seconds until a file that could not be looked at is tried again, by how often it failed before."""
    return min(AGAIN * 2.0 ** min(failures, 10), LONGEST)


class Insist(Protocol):
    """Asks the journal until it answers."""

    async def __call__(self, ask: Callable[[], Awaitable[T]]) -> T: ...


class Enqueuer:
    """Files on their way into the journal. All of it runs on the loop; any thread may ask how many they are."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        journal: Journal,
        insist: Insist,
        *,
        queued: Callable[[], None],
        moved: Callable[[], None],
    ) -> None:
        self._sources = sources
        self._journal = journal
        self._insist = insist
        self._queued = queued
        self._moved = moved
        # By watch and path: whose content is to be compared.
        self._touched: dict[str, dict[str, tuple[Ready, Known]]] = {}
        self._comparing: dict[str, asyncio.Task[None]] = {}  # by watch: a disk may hang
        self._log = log.get("intake")

    def __len__(self) -> int:
        return sum(map(len, [*self._touched.values()]))

    def pending(self, watch: str) -> int:
        """Returns how many files of a watch are still to be compared."""
        return len(self._touched.get(watch, ()))

    async def close(self) -> None:
        tasks = [*self._comparing.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def enqueue(self, ready: Sequence[Ready]) -> None:
        """Makes jobs of new versions; whether a file was only touched is found out beside."""
        folders: defaultdict[tuple[str, str], list[Ready]] = defaultdict(list)
        for file in ready:
            folders[file.watch, split(file.path)[0]].append(file)
        candidates = []
        for (watch, folder), files in folders.items():
            names = [split(file.path)[1] for file in files]
            provider = self._sources[watch].provider
            ask = partial(self._journal.folders.known, watch, folder, provider, names)
            known = await self._insist(partial(asyncio.to_thread, ask))
            for file in files:
                there = known.get(split(file.path)[1])
                if there is not None and there.may_be(file.stamp, self._sources[watch].after):
                    self._touched.setdefault(watch, {})[file.path] = (file, there)
                else:
                    candidates.append(self._candidate(file))
        for watch in self._touched.keys() - self._comparing.keys():
            self._comparing[watch] = asyncio.create_task(self._compare(watch), name=f"compare {watch}")
        await self._make(candidates)

    def _candidate(self, file: Ready) -> Candidate:
        return Candidate(file.watch, file.path, self._sources[file.watch].provider, file.stamp)

    async def _make(self, candidates: Sequence[Candidate]) -> None:
        made = await self._insist(lambda: self._enqueued(candidates)) if candidates else []
        if made:
            self._queued()

    async def _enqueued(self, candidates: Sequence[Candidate]) -> list[int]:
        """Makes the jobs that the database takes: one path that it cannot hold must not keep out the others."""
        try:
            return await self._journal.arrivals.enqueue(candidates, time.time(), durable=False)
        except Unstorable as error:
            if len(candidates) == 1:
                (one,) = candidates
                self._log.error("file left out", watch=one.watch, path=one.path, reason=str(error))
                return []
            return [made for one in candidates for made in await self._enqueued([one])]

    async def _compare(self, watch: str) -> None:
        """Reads a watch's files that were touched, one after the other; new ones do not wait for them."""
        touched = self._touched[watch]
        failures = 0
        try:
            while touched:
                path, (file, known) = next(iter(touched.items()))
                try:
                    if not await self._same(file, known):
                        await self._make([self._candidate(file)])
                    failures = 0
                except Local as trouble:  # of its disk: it says nothing of the file, which may be another version
                    if not failures:
                        self._log.warning("file cannot be looked at", watch=watch, path=path, error=str(trouble))
                    touched[path] = touched.pop(path)  # the others come before it
                    await asyncio.sleep(again(failures))
                    failures += 1
                    continue
                except Exception:  # noqa: BLE001 - a fault of ours must not hold up the others
                    self._log.exception("intake stumbled", watch=watch, path=path)
                if touched.get(path) == (file, known):  # it may have been touched again meanwhile
                    del touched[path]
                self._moved()
        finally:
            del self._comparing[watch]
            if not touched:
                del self._touched[watch]

    async def _same(self, file: Ready, known: Known) -> bool:
        """True when the journal has this content already. A file that was only touched gets its new stamp there.

        Raises `Local`.
        """
        try:
            digest = await asyncio.to_thread(digest_of, self._sources[file.watch].root, file.path, file.stamp)
        except Local:
            raise
        except Verdict:
            return True  # it moves on; whatever it becomes is sighted again
        if digest != known.digest:
            return False
        await self._insist(lambda: self._journal.arrivals.touch(known.id, file.stamp, time.time()))
        return True
