"""The watches at work: what the watcher hears goes to the intake, and each folder is scanned as often as it needs."""

import asyncio
import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

from dumbwaiter import log
from dumbwaiter.config import Config, Watch
from dumbwaiter.errors import Exit, Failure, JournalTrouble
from dumbwaiter.files.ignore import IGNORE_FILE, Rules, rules, unknown
from dumbwaiter.files.roots import Root, RootState, inspect_folder
from dumbwaiter.files.scan import look
from dumbwaiter.journal import Journal
from dumbwaiter.loop import apart
from dumbwaiter.net.monitor import CHANGED
from dumbwaiter.schedule import Schedule
from dumbwaiter.watch.canary import Canary
from dumbwaiter.watch.intake import Intake
from dumbwaiter.watch.watcher import Watcher

ANSWER = 2.0  # seconds that the start waits for folders
CHECK = 5.0  # seconds between looks at the watched roots
POLL = 10.0  # between scans of a folder that cannot be watched, or not all of it
SHARE = 20  # a scan that repeats so often may take one part in so many of the time
ANEW = 1.0  # seconds in which an editor that took an ignore file away has begun to write the next
BEHIND = 5.0  # seconds that somebody waits for the watcher to have read what has happened
BROKEN = 10.0  # seconds, at least, after which a scan that broke off begins anew, and an unreadable ignore file is read
DEAF = 60.0  # seconds in which the watcher should have mended itself


class Watches:
    """The watches of one daemon; until `start` none of them is heard, and nothing is said of any."""

    def __init__(
        self,
        config: Config,
        runtime: str,
        journal: Journal,
        intake: Intake,
        schedule: Schedule,
        *,
        changed: Callable[[], None],
        back: Callable[[], None],
    ) -> None:
        """`changed` is called when what is said of a watch changes, `back` when a folder's jobs need wait no longer."""
        self._config = config
        self._runtime = runtime
        self._journal = journal
        self._intake = intake
        self._schedule = schedule
        self._changed = changed
        self._back = back
        self._watcher: Watcher | None = None
        self._took: dict[str, float] = defaultdict(float)  # seconds, for the latest scan of a watch
        self._states: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = log.get("watching")

    async def start(self) -> None:
        """Starts watching, then scans: what changes during the scan is seen twice rather than not at all."""
        mounted = await asyncio.to_thread(self._journal.folders.mounted)
        reads = {name: asyncio.create_task(self._read_rules(name)) for name in self._config.watch}
        await asyncio.wait(reads.values(), timeout=ANSWER)
        roots = []
        for name, one in self._config.watch.items():
            if reads[name].done():
                reads[name].result()
            else:
                self._intake.adopt(name, unknown(one.include, one.exclude, "its folder does not answer"))
                self._keep(reads[name])
            polling = None if one.polling == "auto" else one.polling
            roots.append(Root(name, one.path, self._intake.rules(name), polling, one.path in mounted))
        self._watcher = Watcher(
            roots,
            self._intake.sight,
            self.doubt,
            asyncio.get_running_loop(),
            changed=self._state_changed,
            ruled=lambda watch: self._begin(self._read_rules(watch)),
            canary=await asyncio.to_thread(Canary, os.path.join(self._runtime, "canary")),
        )
        await asyncio.to_thread(self._watcher.start)
        self._states = {name: state.state for name, state in self.states().items()}
        for name in self._config.watch:
            self._schedule.every(f"rescan {name}", self._period(name), self._rescan, name)
            self._scan(name)
        self._schedule.every("roots", CHECK, self._check)

    async def close(self) -> None:
        for task in self._tasks:  # one may wait for a disk that never answers
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._watcher is not None:
            await apart(self._watcher.close)

    def states(self) -> dict[str, RootState]:
        """Returns how well each watch hears."""
        return {} if self._watcher is None else self._watcher.states()

    def lost(self) -> list[str]:
        """Returns the watches whose folder is not there, as far as was last seen; asks no disk."""
        return [name for name, state in self._states.items() if state == "away"]

    def away(self, watch: str) -> str:
        """Looks now; returns why a watch's folder is not there, empty when it is. May block."""
        if self._watcher is not None:
            return self._watcher.away(watch)
        if watch not in self._config.watch:
            return ""
        path = self._config.watch[watch].path
        with contextlib.suppress(OSError):
            if inspect_folder(path).mounted or path not in self._journal.folders.mounted():
                return ""
        return f"the folder {path} is away"

    async def catch_up(self) -> None:
        """Returns when the intake knows of what has happened in the folders that are heard; at once if there is no watcher."""
        if self._watcher is not None:
            await self._watcher.catch_up(BEHIND)

    def scan_unheard(self) -> None:
        """Starts a scan of each watch whose folders are not all heard: of what was just written there nobody has told."""
        for name, state in self.states().items():
            if state.state == "polling" or (state.state == "watching" and state.missing):
                self._scan(name)

    @property
    def deaf(self) -> bool:
        """Whether the watcher has heard nothing for too long, although something happened."""
        return self._watcher is not None and self._watcher.deaf_for > DEAF

    def rescan(self, watch: str | None) -> list[str]:
        """Starts a scan of one watch or of all, at a person's word, and returns which. Raises `Failure`."""
        names = [watch] if watch else list(self._config.watch)
        for name in names:
            if name not in self._config.watch:
                raise Failure(f'there is no watch "{name}"', Exit.USAGE)
            if self._watcher is not None:
                self._watcher.accept(name)
            self._scan(name)
        if watch:
            self._begin(self._accept_target(watch))
        return names

    def doubt(self, watch: str, reason: str) -> None:
        """Scans a watch, since something in it may have been missed."""
        self._log.warning("scanning again", watch=watch, reason=reason)
        self._scan(watch)

    def recheck(self, reason: str) -> None:
        """Scans what may have changed unheard: while the machine slept, say, or on another network (`CHANGED`)."""
        for name, state in self.states().items():
            if reason != CHANGED or state.state != "watching":  # another network says nothing of this machine's disks
                self.doubt(name, reason)
        self._schedule.now("roots")

    async def _read_rules(self, watch: str) -> None:
        """Reads the watch's own ignore file; nobody may have heard that it was written, or that another folder came.

        One that is being written is left for its close, but for the first time, and one that is gone may come again.
        """
        one, first = self._config.watch[watch], self._watcher is None
        found = await asyncio.to_thread(_found_rules, one, first=first)
        if found is not None and not found.of_file and self._intake.rules(watch).of_file:
            await asyncio.sleep(ANEW)
            found = await asyncio.to_thread(_found_rules, one, first=first)
        if found is not None and found.fingerprint != self._intake.rules(watch).fingerprint:
            self._intake.adopt(watch, found)
            if self._watcher is not None:
                self._watcher.adopt(watch, found)
            if found.unknown:
                self._begin(self._read_rules_again(watch))

    async def _read_rules_again(self, watch: str) -> None:
        """Reads an ignore file until it can be read: of a disk that works again nobody tells."""
        while self._intake.rules(watch).unknown:
            await asyncio.sleep(BROKEN)
            await self._read_rules(watch)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._keep(asyncio.create_task(work))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _period(self, watch: str) -> float:
        """Returns how often a watch is scanned: as configured, or as often as its files would be missed otherwise."""
        state = self.states()[watch]
        if state.state != "polling" and not state.missing:
            return self._config.watch[watch].rescan
        return min(max(POLL, SHARE * self._took[watch]), max(POLL, self._config.watch[watch].rescan))

    async def _rescan(self, watch: str) -> None:
        """Scans a watch whose folder is there. Without it all of its files would be missing, which they are not."""
        if self.states()[watch].state != "away":
            await self._read_rules(watch)
            began = time.monotonic()
            took = await self._intake.scan(watch)
            if took is None:
                again = max(BROKEN, SHARE * (time.monotonic() - began))
                self._schedule.at(f"rescan {watch}", time.time() + again)
            else:
                self._took[watch] = took
            with contextlib.suppress(JournalTrouble):  # the next scan notes it
                await self._note_mounts()
        else:
            self._intake.give_up(watch)
        self._schedule.pace(f"rescan {watch}", self._period(watch))

    def _scan(self, watch: str) -> None:
        self._intake.expect(watch)
        self._schedule.now(f"rescan {watch}")

    async def _note_mounts(self) -> None:
        assert self._watcher is not None
        noted = await asyncio.to_thread(self._journal.folders.mounted)
        for name, mounted in self._watcher.mounted().items():
            path = self._config.watch[name].path
            if mounted != (path in noted):
                await self._journal.notes.mount(path, mounted)

    def _state_changed(self, watch: str) -> None:
        """Notes that a watch hears more or less than before, or that its folder went or came back."""
        before, self._states[watch] = self._states.get(watch, ""), self.states()[watch].state
        self._schedule.pace(f"rescan {watch}", self._period(watch))
        if before == "away" != self._states[watch]:
            self._begin(self._folder_is_back(watch))
        self._changed()

    async def _accept_target(self, watch: str) -> None:
        """Takes the folder for right to which files are moved, even where a disk was mounted before."""
        target = self._config.watch[watch].after.removeprefix("move:")
        with contextlib.suppress(JournalTrouble):
            for disk in await asyncio.to_thread(self._journal.folders.mounted):
                if f"{target}/".startswith(f"{disk}/") and not await asyncio.to_thread(os.path.ismount, disk):
                    await self._journal.notes.mount(disk, is_mounted=False)
                    await self._folder_is_back(watch)

    async def _folder_is_back(self, watch: str) -> None:
        """Makes due what waited for the folder."""
        with contextlib.suppress(JournalTrouble):
            await self._journal.queue.make_due(watch, time.time())
        self._back()

    async def _check(self) -> None:
        assert self._watcher is not None
        await asyncio.to_thread(self._watcher.check)
        for name, state in (await asyncio.to_thread(self.states)).items():
            if state.state != self._states.get(name):  # one that does not answer can say nothing itself
                self._state_changed(name)
            if state.state == "away":
                self._intake.give_up(name)


def _found_rules(one: Watch, *, first: bool) -> Rules | None:
    """Returns what a watch takes; None while somebody writes its own ignore file, but for the `first` time."""
    if not first and _is_written(one.path):
        return None
    found = rules(one.path, one.include, one.exclude)
    return None if not first and _is_written(one.path) else found


def _is_written(folder: str) -> bool:
    """Returns whether somebody writes a folder's ignore file now."""
    try:
        return bool(look(folder, IGNORE_FILE)[1])
    except OSError:
        return False
