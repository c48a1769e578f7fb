"""One root as its watcher knows it, and what people are told of it."""

import errno
import os
import threading
import time
from collections import Counter, deque

from dumbwaiter.files.roots import Root, RootState
from dumbwaiter.kernel_limits import limit
from dumbwaiter.naming import shown
from dumbwaiter.watch.inotify_watches import RootFolder

PATIENCE = 10.0  # seconds without an answer, then a root counts as away


class WatchedRoot:
    """What is known of one root, and what is to be done for it."""

    def __init__(self, root: Root) -> None:
        self.name = root.name  # of the watch
        self.path = root.path
        self.rules = root.rules
        self.polling = root.polling
        self.top = RootFolder(root.path)
        self.identity: tuple[int, int] | None = None  # device and inode of the folder that is heard
        self.known: set[tuple[int, int]] = set()  # identities that it had
        self.mounted = root.mounted  # the root is where a file system is mounted
        self.accepted = False  # whatever stands there is the root: a person said so
        self.remote = ""  # its kind, if other machines can write there
        self.away = ""  # why it cannot be heard
        self.refused: Counter[int] = Counter()  # folders not heard, by errno
        self.unread = ""  # the latest of them that this user may not read
        self.foreign = ""  # the latest folder that was left out because another file system is mounted there
        self.overflows = 0
        self.retry_at = 0.0  # when folders that are not heard are tried again
        self.asked_at: float | None = None  # when its disk was asked for it, and has not answered
        # Work for its thread: folders that came or (True) left, a check of the root, and a walk through all of it.
        self.changed_folders: deque[tuple[str, bool]] = deque()
        self.check_due = True
        self.walk_reason = ""  # empty: none is needed
        self.waiters: deque[threading.Event] = deque()  # set when all of that is done
        self.wake = threading.Event()  # there is some of it
        self.busy_since: float | None = None
        self.checked = threading.Event()  # once at least

    @property
    def is_free(self) -> bool:
        """Whether its thread can be waited for: the root was checked, and nothing hangs."""
        return self.checked.is_set() and not (_goes_on(self.asked_at) or _goes_on(self.busy_since))

    def request_check(self) -> None:
        """Has its thread look at the root."""
        self.check_due = True
        self.wake.set()

    def state(self, deaf: str, wanted: int) -> RootState:
        """Returns how well it is heard.

        `deaf`: why nothing is heard at all. `wanted`: inotify watches that all roots want together.
        """
        # Without the watcher's lock, which whoever asks a dead disk to be heard may hold.
        state, sentence = self._sentence(deaf, wanted)
        return RootState(state, self.top.heard, self.refused.total(), self.overflows, sentence)

    def _sentence(self, deaf: str, wanted: int) -> tuple[str, str]:
        path = self.path
        if _goes_on(self.asked_at) or _goes_on(self.top.added_at):
            return "away", f"{path} does not answer; its files wait."
        if self.away:
            return "away", f"{path}: {self.away}; its files wait."
        if self.polling:
            return "polling", "Scans only, as configured."
        if deaf:
            return "polling", f"Scans only: {deaf}."
        if self.remote and self.polling is None:
            return "polling", f"Scans also: {self.remote} does not tell what other machines write."
        return "watching", self._missing(wanted)

    def _missing(self, wanted: int) -> str:
        """Returns which folders are not heard, and what to do."""
        total, path = self.refused.total(), self.path
        if self.refused[errno.ENOSPC]:
            most = limit("watches")
            return (
                f"{total} folders are not heard, only scanned: {wanted} watches are needed, the limit for all "
                f"programs is {most.shown}; raise {most.setting}."
            )
        if not total and self.foreign:
            one = shown(os.path.join(path, self.foreign))
            return f"{one} is another file system and left out: mount or bind it outside of this folder, and give that place a watch."
        if not total:
            return ""
        one = shown(os.path.join(path, self.unread) if self.unread else path)
        if total == 1:
            return f"{one} cannot be read: give this user the right to."
        return f"{total} folders cannot be read, such as {one}: give this user the right to."


def _goes_on(since: float | None) -> bool:
    """True of what began longer ago than anybody waits for, and has not ended."""
    return since is not None and time.monotonic() - since > PATIENCE
