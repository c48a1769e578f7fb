"""EDGE watchdog: hears what happens in the watched folders and says so to the loop.

Events are hints. The reader's thread (`inotify_reader`) turns them into sightings and decides nothing; whatever makes hearing doubtful (an
overflow, a folder that could not be watched, a root that was away) ends in `doubt`, which a scan answers.

The reader touches no disk. What a root needs besides (looking whether it is there, listening to its folders by `listener`) is
done by a thread of its own, because a dead network folder may stop whoever asks.
"""

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from watchdog.observers.inotify_c import InotifyEvent, WatchDescriptor

from dumbwaiter.errors import LACKING
from dumbwaiter.files.ignore import IGNORE_FILE, Rules
from dumbwaiter.files.roots import FolderFacts, ForeignLink, Root, RootState, inspect_folder
from dumbwaiter.model import Sighting
from dumbwaiter.watch import watched_root
from dumbwaiter.watch.canary import Canary
from dumbwaiter.watch.handover import Handover
from dumbwaiter.watch.inotify_reader import Reader
from dumbwaiter.watch.inotify_watches import CLOSE_WRITE, CREATE, IS_FOLDER, MOVED_FROM, MOVED_TO, InotifyWatches
from dumbwaiter.watch.listener import Listener
from dumbwaiter.watch.watched_root import WatchedRoot

RETRY = 60.0  # seconds until folders that could not be watched are tried again
START = 2.0  # seconds that the start waits for roots to answer, twice at most
LEAST = 0.1  # and for each of them
BOUND = 5.0  # seconds that closing waits for a thread


class Watcher:
    """Hears all roots. `seen`, `doubt` and the others are called in the loop's thread, every other method in any.

    `doubt` gets the name of a watch and the reason why it should be scanned; `changed` the name of one that went
    away, came back, or hears more or less than before; `ruled` the name of one whose own ignore file was written.
    """

    def __init__(
        self,
        roots: Sequence[Root],
        seen: Callable[[list[Sighting]], None],
        doubt: Callable[[str, str], None],
        loop: asyncio.AbstractEventLoop,
        changed: Callable[[str], None] = lambda _name: None,
        ruled: Callable[[str], None] = lambda _name: None,
        canary: Canary | None = None,
    ) -> None:
        self._roots = [WatchedRoot(root) for root in roots]
        self._named = {root.name: root for root in self._roots}
        self._rules = {root.name: root.rules for root in roots}
        self._handover = Handover(loop, self._rules, seen, ruled)
        self._doubt = doubt
        self._changed = changed
        self._started = False
        self._closing = threading.Event()
        self._root_of = {root.top: root for root in self._roots}
        self._inotify = InotifyWatches(self, list(self._root_of), self._closing.is_set)
        self._lock = self._inotify.lock
        self._listener = Listener(self._inotify, self._closing.is_set)
        self._canaries = int(canary is not None)
        self._reader = Reader(self._inotify, canary, self._closing.is_set)
        self._renewing = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(root,), name=f"watch {root.name}", daemon=True)
            for root in self._roots
        ]

    # --- for the owner ---

    def start(self) -> None:
        """Listens to all that is there. What happens from now on is seen; what was there before, a scan finds.

        A root that does not answer is not waited for long; `doubt` follows once it is heard.
        """
        # In turn: of two for one folder, the first has it.
        end = time.monotonic() + START
        for root, thread in zip(self._roots, self._threads, strict=True):
            thread.start()
            root.checked.wait(max(LEAST, end - time.monotonic()))
        now = time.monotonic()
        for root in self._roots:  # those that came behind one that hangs; one that answers may be large
            patience = watched_root.PATIENCE if root.asked_at is None else START
            root.checked.wait(max(0.0, now + patience - time.monotonic()))
        self._started = True

    def check(self) -> None:
        """Has the roots and the reader looked at. May block for a moment, on the disk of the canary."""
        self._reader.prove()
        self._check_all()

    async def catch_up(self, seconds: float) -> None:
        """Returns when all that happened before has been told, or after so many seconds. For the loop's thread."""
        end = time.monotonic() + seconds
        await asyncio.to_thread(self._read_on, seconds)
        self._handover.hurry()
        while self._handover.pending and time.monotonic() < end:  # noqa: ASYNC110 - in each turn some is handed over
            await asyncio.sleep(0)

    def _read_on(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self._reader.catch_up(seconds)
        passes: list[tuple[WatchedRoot, threading.Event]] = []
        for root in self._roots:
            if root.is_free:
                passes.append((root, threading.Event()))
                root.waiters.append(passes[-1][1])
                root.wake.set()
        for root, over in passes:
            if not over.wait(max(0.0, end - time.monotonic())):
                with suppress(ValueError):
                    root.waiters.remove(over)

    @property
    def deaf_for(self) -> float:
        """For how many seconds nothing was heard although something happened."""
        return self._reader.deaf_for

    def adopt(self, name: str, rules: Rules) -> None:
        """Gives a watch other rules; `doubt` follows when its folders are heard by them."""
        if (root := self._named.get(name)) is not None:
            self._rules[name] = root.rules = rules
            root.walk_reason = "its rules have changed"
            root.request_check()

    def accept(self, name: str) -> None:
        """Takes the folder that stands there for the root, even where something was mounted before.

        Folders that could not be heard are tried at once.
        """
        if (root := self._named.get(name)) is not None:
            root.accepted = root.accepted or bool(root.away)
            root.retry_at = 0.0
        self._check_all()

    def away(self, name: str) -> str:
        """Looks now; returns why what stands there is not the root that was watched, empty if it is."""
        if (root := self._named.get(name)) is None:
            return ""
        with suppress(OSError):
            if inspect_folder(root.path).identity == root.identity:
                return ""
        root.request_check()
        return f"the folder {root.path} is away"

    def mounted(self) -> dict[str, bool]:
        """Returns for each watch that is heard or scanned whether a file system is mounted at its folder."""
        return {root.name: root.mounted for root in self._roots if root.identity is not None}

    def close(self) -> None:
        """Stops hearing. Nothing is called afterwards; a second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._handover.close()
        self._check_all()
        end = time.monotonic() + BOUND
        if self._lock.acquire(timeout=BOUND):  # else a dead disk is asked, and whoever asks holds watchdog's lock too
            try:
                if self._inotify.reader is not None:
                    self._inotify.reader.stop()
            finally:
                self._lock.release()
        for thread in (*self._threads, self._inotify.reader):
            if thread is not None and thread.is_alive() and thread is not threading.current_thread():
                thread.join(max(0.0, end - time.monotonic()))

    def states(self) -> dict[str, RootState]:
        """Returns how well each watch hears."""
        return {root.name: self._state(root) for root in self._roots}

    # --- called by watchdog's reader thread ---

    def on_event(self, event: InotifyEvent) -> None:
        try:
            self._translate(event)
        except Exception as error:  # noqa: BLE001 - whatever it is, the reader has to live on
            self._walk_all(f"an event could not be understood ({type(error).__name__})")

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        if self._closing.is_set():
            return
        with self._lock:
            folder = self._inotify.removed(wd)
            if folder is not None and folder.parent is None:
                root = self._root_of[folder.top]
                root.walk_reason = "the folder was away"
                root.request_check()

    def on_queue_overflow(self) -> None:
        for root in self._roots:
            root.overflows += 1
        self._walk_all("more happened at once than the kernel keeps")

    def _translate(self, event: InotifyEvent) -> None:
        mask = event.mask
        with self._lock:
            folder = self._inotify.at(event.wd)
            if folder is None:
                return
            root = self._root_of[folder.top]
            if not event.name:  # of the folder itself; what happened to a root is found out by looking
                if folder.parent is None:
                    root.request_check()
                return
            name = os.fsdecode(event.name)
            path = f"{folder.path}/{name}" if folder.path else name
            if mask & IS_FOLDER:
                if mask & MOVED_FROM and folder.children and name in folder.children:
                    self._inotify.drop(folder.children[name])
                if mask & (CREATE | MOVED_TO | MOVED_FROM):  # where two change places, one stands there already
                    root.changed_folders.append((path, bool(mask & MOVED_FROM)))
                    root.wake.set()
            elif mask & (CLOSE_WRITE | MOVED_TO | CREATE) or path == IGNORE_FILE:
                self._handover.note(root.name, path, closed=not mask & CREATE)

    # --- the threads, one a root ---

    def _walk_all(self, reason: str) -> None:
        """Has all roots gone through again: something may have been missed."""
        for root in self._roots:
            root.walk_reason = reason
        self._check_all()

    def _check_all(self) -> None:
        for root in self._roots:
            root.request_check()

    def _run(self, root: WatchedRoot) -> None:
        while not self._closing.is_set():
            root.wake.clear()
            root.busy_since = time.monotonic()
            due, root.check_due = root.check_due, False
            waiters = [root.waiters.popleft() for _ in range(len(root.waiters))]
            try:
                while root.changed_folders:
                    self._listen_to_changed(root, *root.changed_folders.popleft())
                if due:
                    self._check(root)
            except Exception as error:  # noqa: BLE001 - as for the reader
                root.walk_reason = f"tending failed ({type(error).__name__})"  # not at once again: it may fail for ever
            root.checked.set()
            for waiter in waiters:
                waiter.set()
            root.busy_since = None
            root.wake.wait()

    def _listen_to_changed(self, root: WatchedRoot, path: str, left: bool) -> None:
        """Listens to a new folder and all below it, and reports what is already there; no longer to one that `left`."""
        if left:  # while it was looked at, it may be
            self._listener.forget(root, path)
        missing = self._state(root).missing
        for here, files in self._listener.walk(root, path, again=False):
            for name in files:
                self._handover.note(root.name, f"{here}/{name}", closed=False)
        if self._state(root).missing > missing:
            self._handover.post(self._changed, root.name)
            if not missing:
                self._handover.post(self._doubt, root.name, "a new folder cannot be heard")

    def _check(self, root: WatchedRoot) -> None:
        now = time.monotonic()
        with self._renewing:  # one thread does
            if not all(one.polling for one in self._roots) and self._reader.renew(now):
                for one in self._roots:
                    one.walk_reason = (
                        "the watcher had stopped hearing" if self._started else "the watcher has begun to hear"
                    )
                    if one is not root:
                        one.request_check()
        before = self._state(root)
        reason = self._check_root(root, now)
        if self._started and reason:
            self._handover.post(self._doubt, root.name, reason)
        after = self._state(root)
        if self._started and (before.state, before.missing) != (after.state, after.missing):
            self._handover.post(self._changed, root.name)

    def _check_root(self, root: WatchedRoot, now: float) -> str:
        """Looks at the root and does what is needed; returns why a scan is needed, if it is."""
        before = root.identity
        try:
            here = self._identify(root)
        except OSError:
            return ""  # the next check looks again
        if here is None:
            with self._lock:
                root.identity = None
                self._inotify.drop(root.top)
                root.refused.clear()
            root.changed_folders.clear()
            return ""
        reason, root.walk_reason = root.walk_reason, ""
        if here.identity != before:
            reason = "another folder stands there" if before else "the folder is there"
            with self._lock:
                self._inotify.drop(root.top)
                root.mounted = here.mounted
                root.known.add(here.identity)
                root.remote = here.remote
        if not self._hears(root):
            return reason
        if reason or (root.refused and now >= root.retry_at):
            self._listener.listen_to_all(root)
            root.retry_at = now + RETRY
            if root.top.gained and not reason:
                reason = "folders are heard that were not"
        return reason

    def _identify(self, root: WatchedRoot) -> FolderFacts | None:
        """Returns what stands at the root, and is the root's from now on; None if that is not what was watched.

        Raises OSError where that cannot be found out and nothing says that it is another than before.
        """
        root.asked_at = time.monotonic()
        try:
            here = inspect_folder(root.path)
        except ForeignLink as error:
            root.away = error.sentence
            return None
        except OSError as error:
            if error.errno in LACKING and root.identity is not None:
                raise
            root.away = "that is not a folder" if error.errno == errno.ENOTDIR else _text(error)
            return None
        finally:
            root.asked_at = None
        root.away = here.trouble
        if root.mounted and not here.mounted and here.identity not in root.known and not root.accepted:
            root.away = (
                "nothing is mounted there; mount it, or say that the folder is right as it is with "
                f"`dumbwaiter rescan {root.name}`"
            )
        root.accepted = False
        with self._lock:
            for other in self._roots:
                if other is not root and other.identity == here.identity:
                    root.away = f"that is the folder of watch {other.name} as well, and a file would belong to both"
            if root.away:
                return None
            root.identity = here.identity
        return here

    def _hears(self, root: WatchedRoot) -> bool:
        return not root.polling and self._inotify.reader is not None

    # --- states ---

    def _state(self, root: WatchedRoot) -> RootState:
        return root.state(self._reader.deaf, self._wanted)

    @property
    def _wanted(self) -> int:
        """How many inotify watches all roots want together, and the canary."""
        return sum(root.top.heard + root.refused[errno.ENOSPC] for root in self._roots) + self._canaries


def _text(error: OSError) -> str:
    return os.strerror(error.errno or errno.EIO).lower()
