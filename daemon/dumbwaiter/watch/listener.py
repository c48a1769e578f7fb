"""Listening to the folders of a root: to those that are there, by its rules, and to no others.

Each folder is listened to before it is listed, so nothing can slip in between.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing

from dumbwaiter.files.scan import Branch, names, walk
from dumbwaiter.watch.inotify_watches import InotifyWatches
from dumbwaiter.watch.watched_root import WatchedRoot


class Listener:
    """Has `inotify` hear folders. For the thread of the root that is given, which a dead network folder may block."""

    def __init__(self, inotify: InotifyWatches, stop: Callable[[], bool]) -> None:
        self._inotify = inotify
        self._lock = inotify.lock
        self._stop = stop

    def listen_to_all(self, root: WatchedRoot) -> None:
        """Listens to every folder of a root, and no longer to those that are not there."""
        with self._lock:
            self._inotify.begin_round(root.top)
            root.foreign = ""
            root.refused.clear()
        for _ in self.walk(root, "", again=True):
            pass
        if self._stop():
            return
        with self._lock:
            self._inotify.end_round(root.top)

    def walk(self, root: WatchedRoot, path: str, *, again: bool) -> Iterator[tuple[str, list[str]]]:
        """Listens to a folder and all below, and yields their files. `again`: also below those already heard."""

        def skipped(folder: str, error: OSError) -> None:
            if error.errno == errno.EXDEV:  # not ours to hear
                root.foreign = folder
            else:
                self._refuse(root, folder, error)

        def opened(folder: str, descriptor: int) -> bool:
            # Some may be listed and not entered: their names can be read, and nothing of their files.
            if not os.access(".", os.X_OK, dir_fd=descriptor, effective_ids=True):
                self._refuse(root, folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
            return self._listen(root, folder, descriptor) or again

        try:
            for here, files, _ in walk(
                root.path, root.rules.enters, path, read=names, opened=opened, skipped=skipped, stop=self._stop
            ):
                yield here, files
        except PermissionError as error:
            self._refuse(root, "", error)
        except OSError:  # no root; looking at it will say why, and goes through all of one that is there
            root.walk_reason = root.walk_reason or "a folder could not be looked at"
            root.request_check()

    def forget(self, root: WatchedRoot, path: str) -> None:
        """Listens no longer to a folder that is not there any more."""
        with self._lock:
            folder = self._inotify.find(root.top, path)
        if folder is None:
            return
        try:
            with closing(Branch(root.path)) as branch:
                branch.open(path)
        except (FileNotFoundError, NotADirectoryError):
            with self._lock:
                self._inotify.drop(folder)
        except OSError:  # looking at all of it will say
            root.request_check()

    def _listen(self, root: WatchedRoot, path: str, descriptor: int) -> bool:
        """Listens to an open folder; returns False if it was heard before."""
        try:
            return self._inotify.listen(root.top, path, descriptor)
        except OSError as error:
            self._refuse(root, path, error)
            return True

    def _refuse(self, root: WatchedRoot, path: str, error: OSError) -> None:
        with self._lock:
            root.refused[error.errno or errno.EIO] += 1
            root.unread = path
