"""EDGE watchdog: the inotify watches that are set, by path below each root and by watch descriptor.

Of watchdog only the reader of the kernel's queue is used: the observers above it lose events and keep silent about it.
Folders are listened to by descriptor, so that no link is followed. Only `listen` touches a disk.
"""

import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress

from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyFD,
    Mask,
    WatchCallback,
    WatchDescriptor,
)

from dumbwaiter.files.scan import Branch

CLOSE_WRITE = int(InotifyConstants.IN_CLOSE_WRITE)
CREATE = int(InotifyConstants.IN_CREATE)
DELETE = int(InotifyConstants.IN_DELETE)
MOVED_FROM = int(InotifyConstants.IN_MOVED_FROM)
MOVED_TO = int(InotifyConstants.IN_MOVED_TO)
IS_FOLDER = int(InotifyConstants.IN_ISDIR)
_MASK = CLOSE_WRITE | CREATE | MOVED_FROM | MOVED_TO | int(InotifyConstants.IN_ONLYDIR)
_ROOT_MASK = _MASK | int(InotifyConstants.IN_MOVE_SELF) | DELETE  # the ignore file may be taken away


class Folder:
    """One folder below a root. Without a number it has no watch, and stands here for the sake of its children."""

    __slots__ = ("children", "number", "parent", "path", "round", "serial", "top")

    def __init__(self, path: str, parent: "Folder | None", top: "RootFolder") -> None:
        self.path = path
        self.parent = parent
        self.top = top
        self.children: dict[str, Folder] | None = None
        self.number: WatchDescriptor | None = None  # the kernel's
        self.serial = CallbackId(0)
        self.round = 0

    @property
    def name(self) -> str:
        return self.path[self.path.rfind("/") + 1 :]


class RootFolder(Folder):
    """The folder of a root."""

    __slots__ = ("added_at", "gained", "heard", "root", "rounds")

    def __init__(self, root: str) -> None:
        super().__init__("", None, self)
        self.root = root  # its path
        self.heard = 0  # folders, this one too
        self.gained = 0  # of them, in this round
        self.rounds = 0
        self.added_at: float | None = None  # when the kernel was asked for a folder, and has not answered


class InotifyWatches:
    """The watches of all roots, and the reader of the kernel's queue that they belong to.

    Every method is called with `lock` held, except `listen`, which may wait for a disk.
    """

    def __init__(self, callback: WatchCallback, tops: Sequence[RootFolder], stopped: Callable[[], bool]) -> None:
        self.lock = threading.RLock()
        self.reader: InotifyFD | None = None
        self._callback = callback
        self._tops = tops
        self._stopped = stopped
        self._by_number: dict[WatchDescriptor, Folder] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._by_number)

    def use(self, reader: InotifyFD) -> None:
        """Takes another reader; the watches of the one before are gone with it."""
        self.reader = reader
        for folder in self._by_number.values():  # whoever still has one must not take the number for the new reader's
            folder.number = None
        self._by_number.clear()
        for top in self._tops:
            top.children = top.number = None
            top.heard = 0

    def at(self, number: WatchDescriptor) -> Folder | None:
        return self._by_number.get(number)

    def find(self, top: RootFolder, path: str) -> Folder | None:
        """Returns the folder at a path, None where neither it nor anything below is heard."""
        folder: Folder | None = top
        for name in path.split("/"):
            folder = (folder.children or {}).get(name) if folder is not None else None
        return folder

    def removed(self, number: WatchDescriptor) -> Folder | None:
        """Notes that the kernel has removed a watch (IN_IGNORED), and returns its folder."""
        folder = self._by_number.pop(number, None)
        if folder is not None:
            folder.number = None
            folder.top.heard -= 1
            if not folder.children:
                _detach(folder)
        return folder

    def listen(self, top: RootFolder, path: str, descriptor: int) -> bool:
        """Listens to an open folder; returns False if it was heard before. Raises OSError."""
        stays: Folder | None = None
        while True:
            with self.lock:
                if self._stopped() or self.reader is None:
                    return False
                self._serial += 1
                serial = CallbackId(self._serial)  # a second callback under one id would be a warning
                top.added_at = time.monotonic()
                try:
                    number = self._add(self.reader, descriptor, serial, _MASK if path else _ROOT_MASK)
                finally:
                    top.added_at = None
                heard = self._by_number.get(number)
                if heard is None or heard is stays:
                    if heard is not None:  # it was moved here, and nobody heard that
                        self.drop(heard)
                    self._put(top, path, number, serial)
                    return True
                self.reader.remove_callbacks([(number, serial)])
                if heard.top is top and heard.path == path:
                    heard.round = top.rounds
                    return False
            if not _leads_to(top, path, descriptor) or _leads_to(heard.top, heard.path, descriptor):
                return False  # it was moved on while it was looked at, and the event tells where to; or is bound to two places
            stays = heard

    def begin_round(self, top: RootFolder) -> None:
        """Begins to listen to all folders of a root once more."""
        top.rounds += 1
        top.gained = 0

    def end_round(self, top: RootFolder) -> None:
        """Listens no longer to those that were not found in this round."""
        for folder in [folder for folder in self._by_number.values() if folder.top is top]:
            if folder.round != top.rounds and folder.number is not None:
                self.drop(folder)

    def drop(self, folder: Folder) -> None:
        """Listens no longer to a folder and all below it."""
        callbacks: list[tuple[WatchDescriptor, CallbackId]] = []
        ahead = [folder]
        while ahead:
            each = ahead.pop()
            ahead.extend((each.children or {}).values())
            if each.number is not None:
                callbacks.append((each.number, each.serial))
                self._by_number.pop(each.number, None)
                each.number = None
        folder.children = None
        folder.top.heard -= len(callbacks)
        _detach(folder)
        if self.reader is not None:
            for callback in callbacks:
                with suppress(OSError):
                    self.reader.remove_callbacks([callback])

    def _add(self, reader: InotifyFD, descriptor: int, serial: CallbackId, mask: int) -> WatchDescriptor:
        number = reader.add_callback(b"/proc/self/fd/%d" % descriptor, Mask(mask), self._callback, serial)
        if number == -1:  # watchdog says nothing of a missing right, and keeps an entry for it
            reader.remove_callbacks([(number, serial)])
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return number

    def _put(self, top: RootFolder, path: str, number: WatchDescriptor, serial: CallbackId) -> None:
        folder = _place(top, path)
        if folder.number is not None or folder.children:  # another one stood here
            self.drop(folder)
            folder = _place(top, path)
        folder.number, folder.serial, folder.round = number, serial, top.rounds
        self._by_number[number] = folder
        top.heard += 1
        top.gained += 1


def _place(top: RootFolder, path: str) -> Folder:
    """Returns the folder at a path; it and those on the way are made where they are missing."""
    folder: Folder = top
    at = ""
    for name in path.split("/") if path else ():
        at = f"{at}/{name}" if at else name
        if folder.children is None:
            folder.children = {}
        child = folder.children.get(name)
        if child is None:
            child = folder.children[name] = Folder(at, folder, top)
        folder = child
    return folder


def _detach(folder: Folder) -> None:
    """Takes a folder out of the tree, and those above it that only held it."""
    while (parent := folder.parent) is not None:
        if parent.children:
            parent.children.pop(folder.name, None)
        if parent.number is not None or parent.children:
            return
        folder = parent


def _leads_to(top: RootFolder, path: str, descriptor: int) -> bool:
    """True while the folder at a path is the open one."""
    try:
        with closing(Branch(top.root)) as branch:
            return os.path.samestat(os.fstat(branch.open(path)), os.fstat(descriptor))
    except OSError:
        return False
