"""EDGE watchdog: hears what happens in the watched folders and says so to the loop.

Events are hints. The reader thread turns them into sightings and decides nothing; whatever makes hearing doubtful (an
overflow, a folder that could not be watched, a root that was away) ends in `doubt`, which a scan answers.

Each folder is listened to (`hearing`) before it is listed, so nothing can slip in between.
The reader touches no disk. What a watch needs besides hearing is done by a thread of its own, because a dead network
folder may stop whoever asks.
"""

import asyncio
import errno
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress

from watchdog.observers.inotify_c import CallbackId, InotifyEvent, InotifyFD, Mask, WatchDescriptor

from dumbwaiter import canary
from dumbwaiter.canary import Canary
from dumbwaiter.handover import Handover
from dumbwaiter.hearing import CLOSE_WRITE, CREATE, IS_FOLDER, MOVED_FROM, MOVED_TO, Hearing, Top
from dumbwaiter.ignore import IGNORE_FILE, Rules
from dumbwaiter.kernel import limit
from dumbwaiter.model import Sighting
from dumbwaiter.naming import shown
from dumbwaiter.roots import Astray, Root, RootState, Stand, stand
from dumbwaiter.scan import Branch, names, walk

RETRY = 60.0  # seconds until folders that could not be watched are tried again
START = 2.0  # seconds that the start waits for roots to answer, twice at most
LEAST = 0.1  # and for each of them
PATIENCE = 10.0  # seconds without an answer, then a root counts as away
BOUND = 5.0  # seconds that closing waits for a thread


class _Tree:
    """What is known of one root."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.top = Top(root.path)
        self.identity: tuple[int, int] | None = None  # device and inode of the folder that is heard
        self.known: set[tuple[int, int]] = set()
        self.mounted = root.mounted  # the root is where a file system is mounted
        self.accepted = False  # whatever stands there is the root: a person said so
        self.remote = ""  # its kind, if other machines can write there
        self.away = ""  # why it cannot be heard
        self.reason = ""  # why all of it has to be gone through again
        self.refused: Counter[int] = Counter()  # folders not heard, by errno
        self.unread = ""  # the latest of them that this user may not read
        self.foreign = ""  # the latest folder that was left out because another file system is mounted there
        self.overflows = 0
        self.retry_at = 0.0
        self.asked_at: float | None = None
        self.began_at: float | None = None  # what is done for it now
        self.entered: deque[tuple[str, bool]] = deque()  # new folders, to be heard and listed; True: or one that left
        self.due = True  # the root is to be looked at
        self.awaited: deque[threading.Event] = deque()  # set when both have been seen to
        self.wake = threading.Event()  # one of the three
        self.begun = threading.Event()  # it was looked at once


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
        bird: Canary | None = None,
    ) -> None:
        self._trees = [_Tree(root) for root in roots]
        self._rules = {root.name: root.rules for root in roots}
        self._handover = Handover(loop, self._rules, seen, ruled)
        self._doubt = doubt
        self._changed = changed
        self._canary = bird
        self._chirps = False  # the canary is listened to
        self._deaf = ""
        self._revive_at = 0.0
        self._started = False
        self._closing = threading.Event()
        self._tree_of = {tree.top: tree for tree in self._trees}
        self._hearing = Hearing(self, list(self._tree_of), self._closing.is_set)
        self._lock = self._hearing.lock
        self._reviving = threading.Lock()
        self._tenders = [
            threading.Thread(target=self._tend_on, args=(tree,), name=f"watch {tree.root.name}", daemon=True)
            for tree in self._trees
        ]

    # --- for the owner ---

    def start(self) -> None:
        """Listens to all that is there. What happens from now on is seen; what was there before, a scan finds.

        A root that does not answer is not waited for long; `doubt` follows once it is heard.
        """
        # In turn: of two for one folder, the first has it.
        end = time.monotonic() + START
        for tree, tender in zip(self._trees, self._tenders, strict=True):
            tender.start()
            tree.begun.wait(max(LEAST, end - time.monotonic()))
        now = time.monotonic()
        for tree in self._trees:  # those that came behind one that hangs; one that answers may be large
            limit = PATIENCE if tree.asked_at is None else START
            tree.begun.wait(max(0.0, now + limit - time.monotonic()))
        self._started = True

    def check(self) -> None:
        """Has the roots and the reader looked at. May block for a moment, on the disk of the canary."""
        if self._canary is not None and self._chirps:
            with suppress(OSError):
                self._canary.sing()
        self._ask()

    async def catch_up(self, seconds: float) -> None:
        """Returns when all that happened before has been told, or after so many seconds. For the loop's thread."""
        end = time.monotonic() + seconds
        await asyncio.to_thread(self._read_on, seconds)
        self._handover.hurry()
        while self._handover.pending and time.monotonic() < end:  # noqa: ASYNC110 - in each turn some is handed over
            await asyncio.sleep(0)

    def _read_on(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        if self._canary is not None and self._chirps:
            with suppress(OSError):
                self._canary.call(seconds)
        passes: list[tuple[_Tree, threading.Event]] = []
        for tree in self._trees:
            if tree.begun.is_set() and not (_goes_on(tree.asked_at) or _goes_on(tree.began_at)):
                passes.append((tree, threading.Event()))
                tree.awaited.append(passes[-1][1])
                tree.wake.set()
        for tree, over in passes:
            if not over.wait(max(0.0, end - time.monotonic())):
                with suppress(ValueError):
                    tree.awaited.remove(over)

    @property
    def deaf_for(self) -> float:
        """For how many seconds nothing was heard although something happened."""
        return self._canary.silent_for() if self._canary is not None and self._chirps else 0.0

    def adopt(self, name: str, rules: Rules) -> None:
        """Gives a watch other rules; `doubt` follows when its folders are heard by them."""
        for tree in self._trees:
            if tree.root.name == name:
                self._rules[name] = rules
                tree.root = tree.root._replace(rules=rules)
                tree.reason = "its rules have changed"
                self._ask(tree)

    def accept(self, name: str) -> None:
        """Takes the folder that stands there for the root, even where something was mounted before.

        Folders that could not be heard are tried at once.
        """
        for tree in self._trees:
            if tree.root.name == name:
                tree.accepted = tree.accepted or bool(tree.away)
                tree.retry_at = 0.0
        self._ask()

    def away(self, name: str) -> str:
        """Looks now; returns why what stands there is not the root that was watched, empty if it is."""
        for tree in self._trees:
            if tree.root.name == name:
                with suppress(OSError):
                    if stand(tree.root.path).identity == tree.identity:
                        return ""
                self._ask(tree)
                return f"the folder {tree.root.path} is away"
        return ""

    def mounted(self) -> dict[str, bool]:
        """Returns for each watch that is heard or scanned whether a file system is mounted at its folder."""
        return {tree.root.name: tree.mounted for tree in self._trees if tree.identity is not None}

    def close(self) -> None:
        """Stops hearing. Nothing is called afterwards; a second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._handover.close()
        self._ask()
        end = time.monotonic() + BOUND
        if self._lock.acquire(timeout=BOUND):  # else a dead disk is asked, and whoever asks holds watchdog's lock too
            try:
                if self._hearing.reader is not None:
                    self._hearing.reader.stop()
            finally:
                self._lock.release()
        for thread in (*self._tenders, self._hearing.reader):
            if thread is not None and thread.is_alive() and thread is not threading.current_thread():
                thread.join(max(0.0, end - time.monotonic()))

    def states(self) -> dict[str, RootState]:
        """Returns how well each watch hears."""
        return {tree.root.name: self._state(tree) for tree in self._trees}

    # --- called by watchdog's reader thread ---

    def on_event(self, event: InotifyEvent) -> None:
        try:
            self._translate(event)
        except Exception as error:  # noqa: BLE001 - whatever it is, the reader has to live on
            self._suspect(f"an event could not be understood ({type(error).__name__})")

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        if self._closing.is_set():
            return
        with self._lock:
            folder = self._hearing.ended(wd)
            if folder is not None and folder.above is None:
                tree = self._tree_of[folder.top]
                tree.reason = "the folder was away"
                self._ask(tree)

    def on_queue_overflow(self) -> None:
        for tree in self._trees:
            tree.overflows += 1
        self._suspect("more happened at once than the kernel keeps")

    def _translate(self, event: InotifyEvent) -> None:
        mask = event.mask
        with self._lock:
            folder = self._hearing.at(event.wd)
            if folder is None:
                return
            tree = self._tree_of[folder.top]
            if not event.name:  # of the folder itself; what happened to a root is found out by looking
                if folder.above is None:
                    self._ask(tree)
                return
            name = os.fsdecode(event.name)
            path = f"{folder.path}/{name}" if folder.path else name
            if mask & IS_FOLDER:
                if mask & MOVED_FROM and folder.below and name in folder.below:
                    self._hearing.drop(folder.below[name])
                if mask & (CREATE | MOVED_TO | MOVED_FROM):  # where two change places, one stands there already
                    tree.entered.append((path, bool(mask & MOVED_FROM)))
                    tree.wake.set()
            elif mask & (CLOSE_WRITE | MOVED_TO | CREATE) or path == IGNORE_FILE:
                self._handover.note(tree.root.name, path, closed=not mask & CREATE)

    # --- the tending threads, one a root ---

    def _suspect(self, reason: str) -> None:
        for tree in self._trees:
            tree.reason = reason
        self._ask()

    def _ask(self, *trees: _Tree) -> None:
        """Has roots looked at, all of them unless some are named."""
        for tree in trees or self._trees:
            tree.due = True
            tree.wake.set()

    def _tend_on(self, tree: _Tree) -> None:
        while not self._closing.is_set():
            tree.wake.clear()
            tree.began_at = time.monotonic()
            due, tree.due = tree.due, False
            awaited = [tree.awaited.popleft() for _ in range(len(tree.awaited))]
            try:
                while tree.entered:
                    self._enter(tree, *tree.entered.popleft())
                if due:
                    self._tend(tree)
            except Exception as error:  # noqa: BLE001 - as for the reader
                tree.reason = f"tending failed ({type(error).__name__})"  # not at once again: it may fail for ever
            tree.begun.set()
            for over in awaited:
                over.set()
            tree.began_at = None
            tree.wake.wait()

    def _enter(self, tree: _Tree, path: str, left: bool) -> None:
        """Listens to a new folder and all below it, and reports what is already there; no longer to one that `left`."""
        if left:  # while it was looked at, it may be
            self._forget(tree, path)
        missing = self._state(tree).missing
        for here, files in self._walk(tree, path, again=False):
            for name in files:
                self._handover.note(tree.root.name, f"{here}/{name}", closed=False)
        if self._state(tree).missing > missing:
            self._handover.post(self._changed, tree.root.name)
            if not missing:
                self._handover.post(self._doubt, tree.root.name, "a new folder cannot be heard")

    def _tend(self, tree: _Tree) -> None:
        now = time.monotonic()
        with self._reviving:
            for other in self._trees if self._revive(now) else ():
                if other is not tree:
                    self._ask(other)
        before = self._state(tree)
        reason = self._tend_tree(tree, now)
        if self._started and reason:
            self._handover.post(self._doubt, tree.root.name, reason)
        after = self._state(tree)
        if self._started and (before.state, before.missing) != (after.state, after.missing):
            self._handover.post(self._changed, tree.root.name)

    def _revive(self, now: float) -> bool:
        """Puts a new reader in the place of a dead one, or of the first that could not be had; True when it did."""
        old = self._hearing.reader
        hears = old is not None and old.is_alive() and self.deaf_for < canary.PATIENCE
        if self._closing.is_set() or hears or now < self._revive_at:
            return False
        if all(tree.root.polling for tree in self._trees):
            return False
        if old is not None:
            old.stop()  # before there is another, as the numbers of their watches are the same
            self._chirps = False
        try:
            reader = InotifyFD()
        except OSError as error:
            most = limit("instances")
            self._deaf = f"the kernel gives no inotify instance ({_text(error)}; {most.setting} is {most.shown})"
            self._revive_at = now + RETRY
            return False
        with self._lock:
            if self._closing.is_set():
                return False
            reader.start()
            self._hearing.begin(reader)
            self._listen_to_canary(reader)
            self._deaf = ""
            for tree in self._trees:
                tree.reason = "the watcher had stopped hearing" if self._started else "the watcher has begun to hear"
        return True

    def _listen_to_canary(self, reader: InotifyFD) -> None:
        if self._canary is None:
            return
        self._canary.rest()
        with suppress(OSError):  # no watch is left even for it: nothing can be proved then
            place = os.fsencode(self._canary.folder)
            self._chirps = reader.add_callback(place, Mask(CLOSE_WRITE), self._canary, CallbackId(0)) != -1

    def _tend_tree(self, tree: _Tree, now: float) -> str:
        """Looks at the root and does what is needed; returns why a scan is needed, if it is."""
        before = tree.identity
        here = self._identify(tree)
        if here is None:
            with self._lock:
                tree.identity = None
                self._hearing.drop(tree.top)
                tree.refused.clear()
            tree.entered.clear()
            return ""
        reason, tree.reason = tree.reason, ""
        if here.identity != before:
            reason = "another folder stands there" if before else "the folder is there"
            with self._lock:
                self._hearing.drop(tree.top)
                tree.mounted = here.mounted
                tree.known.add(here.identity)
                tree.remote = here.remote
        if not self._hears(tree):
            return reason
        if reason or (tree.refused and now >= tree.retry_at):
            self._listen_to_all(tree)
            tree.retry_at = now + RETRY
            if tree.top.gained and not reason:
                reason = "folders are heard that were not"
        return reason

    def _identify(self, tree: _Tree) -> Stand | None:
        """Returns what stands at the root, and is the root's from now on; None if that is not what was watched."""
        tree.asked_at = time.monotonic()
        try:
            here = stand(tree.root.path)
        except Astray as error:
            tree.away = error.sentence
            return None
        except OSError as error:
            tree.away = "that is not a folder" if error.errno == errno.ENOTDIR else _text(error)
            return None
        finally:
            tree.asked_at = None
        tree.away = here.trouble
        if tree.mounted and not here.mounted and here.identity not in tree.known and not tree.accepted:
            tree.away = (
                "nothing is mounted there; mount it, or say that the folder is right as it is with "
                f"`dumbwaiter rescan {tree.root.name}`"
            )
        tree.accepted = False
        with self._lock:
            for other in self._trees:
                if other is not tree and other.identity == here.identity:
                    tree.away = (
                        f"that is the folder of watch {other.root.name} as well, and a file would belong to both"
                    )
            if tree.away:
                return None
            tree.identity = here.identity
        return here

    def _hears(self, tree: _Tree) -> bool:
        return not tree.root.polling and self._hearing.reader is not None

    def _listen_to_all(self, tree: _Tree) -> None:
        """Listens to every folder of a root, and no longer to those that are not there."""
        with self._lock:
            self._hearing.begin_round(tree.top)
            tree.foreign = ""
            tree.refused.clear()
        for _ in self._walk(tree, "", again=True):
            pass
        if self._closing.is_set():
            return
        with self._lock:
            self._hearing.end_round(tree.top)

    # --- listening to folders ---

    def _walk(self, tree: _Tree, path: str, *, again: bool) -> Iterator[tuple[str, list[str]]]:
        """Listens to a folder and all below, and yields their files. `again`: also below those already heard."""

        def skipped(folder: str, error: OSError) -> None:
            if error.errno == errno.EXDEV:  # not ours to hear
                tree.foreign = folder
            else:
                self._refuse(tree, folder, error)

        def opened(folder: str, descriptor: int) -> bool:
            # Some may be listed and not entered: their names can be read, and nothing of their files.
            if not os.access(".", os.X_OK, dir_fd=descriptor, effective_ids=True):
                self._refuse(tree, folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
            return self._listen(tree, folder, descriptor) or again

        try:
            for here, files, _ in walk(
                tree.root.path,
                tree.root.rules.enters,
                path,
                read=names,
                opened=opened,
                skipped=skipped,
                stop=self._closing.is_set,
            ):
                yield here, files
        except PermissionError as error:
            self._refuse(tree, "", error)
        except OSError:  # no root; looking at it will say why
            self._ask(tree)

    def _listen(self, tree: _Tree, path: str, descriptor: int) -> bool:
        """Listens to an open folder; returns False if it was heard before."""
        try:
            return self._hearing.listen(tree.top, path, descriptor)
        except OSError as error:
            self._refuse(tree, path, error)
            return True

    def _refuse(self, tree: _Tree, path: str, error: OSError) -> None:
        with self._lock:
            tree.refused[error.errno or errno.EIO] += 1
            tree.unread = path

    def _forget(self, tree: _Tree, path: str) -> None:
        """Listens no longer to a folder that is not there any more."""
        with self._lock:
            folder = self._hearing.find(tree.top, path)
        if folder is None:
            return
        try:
            with closing(Branch(tree.root.path)) as branch:
                branch.open(path)
        except (FileNotFoundError, NotADirectoryError):
            with self._lock:
                self._hearing.drop(folder)
        except OSError:  # looking at all of it will say
            self._ask(tree)

    # --- states ---

    def _state(self, tree: _Tree) -> RootState:
        # Without the lock, which whoever asks a dead disk to be heard may hold.
        state, sentence = self._sentence(tree)
        return RootState(state, tree.top.heard, tree.refused.total(), tree.overflows, sentence)

    def _sentence(self, tree: _Tree) -> tuple[str, str]:
        path = tree.root.path
        if _goes_on(tree.asked_at) or _goes_on(tree.top.added_at):
            return "away", f"{path} does not answer; its files wait."
        if tree.away:
            return "away", f"{path}: {tree.away}; its files wait."
        if tree.root.polling:
            return "polling", "Scans only, as configured."
        if self._deaf:
            return "polling", f"Scans only: {self._deaf}."
        if tree.remote and tree.root.polling is None:
            return "polling", f"Scans also: {tree.remote} does not tell what other machines write."
        return "watching", self._missing(tree)

    def _missing(self, tree: _Tree) -> str:
        total, path = tree.refused.total(), tree.root.path
        if tree.refused[errno.ENOSPC]:
            most = limit("watches")
            return (
                f"{total} folders are not heard, only scanned: {self._needed} watches are needed, the limit for all "
                f"programs is {most.shown}; raise {most.setting}."
            )
        if not total and tree.foreign:
            one = shown(os.path.join(path, tree.foreign))
            return f"{one} is another file system and left out: mount or bind it outside of this folder, and give that place a watch."
        if not total:
            return ""
        one = shown(os.path.join(path, tree.unread) if tree.unread else path)
        if total == 1:
            return f"{one} cannot be read: give this user the right to."
        return f"{total} folders cannot be read, such as {one}: give this user the right to."

    @property
    def _needed(self) -> int:
        """How many watches all roots want together, and the canary."""
        return sum(tree.top.heard + tree.refused[errno.ENOSPC] for tree in self._trees) + (self._canary is not None)


def _goes_on(since: float | None) -> bool:
    """True of what began longer ago than anybody waits for, and has not ended."""
    return since is not None and time.monotonic() - since > PATIENCE


def _text(error: OSError) -> str:
    return os.strerror(error.errno or errno.EIO).lower()
