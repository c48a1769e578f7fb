"""Looks at the disk: all files of a folder tree, or one file and whether somebody still writes to it.

Everything is judged on open descriptors, each opened from its parent's. So no link is followed, no other file system
is entered, and a path may be longer than the kernel takes in one piece. One folder at a time is in memory.
"""

import errno
import fcntl
import marshal
import os
import signal
import stat
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from operator import attrgetter
from typing import Any, TypeVar

import xxhash

from dumbwaiter.files.ignore import Rules
from dumbwaiter.files.roots import is_remote, open_root
from dumbwaiter.model import Stamp, stamp_of_regular

FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}  # the last two: something else stands there now
_HELD = 16  # descriptors; a tree may be deeper than a process may have files open

Skipped = Callable[[str, OSError], None]
Rows = list[Any]  # name, facts, name, facts ...: flat, because every tuple costs
T = TypeVar("T")

_FACTS = attrgetter("st_mode", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")


class Branch:
    """Descriptors of a root and of the folders on the way to the one opened last. Raises what `open_root` raises."""

    def __init__(self, root: str) -> None:
        self._root = open_root(root)
        self._way: deque[tuple[str, int]] = deque()

    def open(self, folder: str) -> int:
        """Returns a descriptor that stays valid until the next call. Raises OSError."""
        while self._way and not folder.startswith(self._way[-1][0] + "/"):
            os.close(self._way.pop()[1])
        at, descriptor = self._way[-1] if self._way else ("", self._root)
        for name in folder[len(at) :].split("/"):
            if name:
                at = f"{at}/{name}" if at else name
                descriptor = os.open(name, _FOLDER, dir_fd=descriptor)
                self._way.append((at, descriptor))
                if len(self._way) > _HELD:
                    os.close(self._way.popleft()[1])
        return descriptor

    def close(self) -> None:
        while self._way:
            os.close(self._way.pop()[1])
        os.close(self._root)


def walk(
    root: str,
    enters: Callable[[str], bool],
    folder: str = "",
    *,
    read: Callable[[int], tuple[T, list[str]]],
    opened: Callable[[str, int], bool] = lambda _folder, _descriptor: True,
    skipped: Skipped = lambda _folder, _error: None,
    stop: Callable[[], bool] = lambda: False,
    deep: bool = True,
) -> Iterator[tuple[str, T, list[str]]]:
    """Yields each folder with what `read` makes of its descriptor, and the folders in it that are entered.

    `opened` gets each folder and its descriptor before it is read, and may refuse it. Unless `deep`, only `folder`
    itself is opened. Raises FileNotFoundError without a root; a folder that went away meanwhile is none; one that
    cannot be read, or is another file system's (EXDEV), is told to `skipped`.
    """
    with closing(Branch(root)) as branch:
        device = os.fstat(branch.open("")).st_dev
        ahead = [folder] if enters(folder) else []
        while ahead and not stop():
            here = ahead.pop()
            try:
                descriptor = branch.open(here)
                if os.fstat(descriptor).st_dev != device:
                    skipped(here, OSError(errno.EXDEV, "another file system is mounted there"))
                    continue
                if not opened(here, descriptor):
                    continue
                os.lseek(descriptor, 0, os.SEEK_SET)  # btrfs lists what there was when it was opened, or began anew
                found, names = read(descriptor)
            except OSError as error:
                if error.errno not in _GONE:
                    skipped(here, error)
                continue
            paths = (f"{here}/{name}" if here else name for name in names)
            folders = [path for path in paths if enters(path)]
            if deep:
                ahead.extend(folders)
            yield here, found, folders


def names(descriptor: int) -> tuple[list[str], list[str]]:
    """Reads a folder: the names of what is no folder in it, and those of its folders."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(descriptor) as listing:
        for entry in listing:
            (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
    return files, folders


def rows(descriptor: int) -> tuple[Rows, list[str]]:
    """Reads a folder: name and facts, in turn, of what is no folder in it; and the names of its folders."""
    found: Rows = []
    folders: list[str] = []
    add = found.append
    with os.scandir(descriptor) as listing:
        for entry in listing:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
                continue
            try:
                facts = _FACTS(entry.stat(follow_symlinks=False))
            except PermissionError:  # the folder may be listed and not entered: its files are not gone
                raise
            except OSError:  # gone since it was listed
                continue
            add(entry.name)
            add(facts)
    return found, folders


def digest(found: Rows, rules: Rules) -> bytes:
    """Names what a folder held, and the rules that judge it. The order is the file system's own, as it is cheapest."""
    return xxhash.xxh3_128_digest(marshal.dumps(found, 2), rules.fingerprint)  # version 2 writes equal values equally


def wanted(folder: str, found: Rows, rules: Rules) -> Iterator[tuple[str, Stamp]]:
    """Yields name and stamp of the regular files that the rules take."""
    prefix = f"{folder}/" if folder else ""
    for name, (mode, *stamp) in zip(found[::2], found[1::2], strict=True):
        if stat.S_ISREG(mode) and rules.takes(prefix + name):
            yield name, Stamp.numbered(*stamp)


def look(root: str, path: str) -> tuple[Stamp | None, bool | None]:
    """Returns the stamp of a regular file and whether somebody has it open for writing; None where that is unknown.

    False as well for a file that this user may not read. No stamp: nothing there, or nothing that is a file, or no way
    to it. Raises OSError when that could not be found out; asking again later may help.
    """
    folder, _, name = path.rpartition("/")
    try:
        with closing(Branch(root)) as branch:
            return _look(branch.open(folder), name)
    except PermissionError:
        return None, None
    except OSError as error:
        if error.errno in _GONE:
            return None, None
        raise


def _look(folder: int, name: str) -> tuple[Stamp | None, bool | None]:
    stamp = stamp_of_regular(os.stat(name, dir_fd=folder, follow_symlinks=False))
    if stamp is None:  # opening a device can have effects
        return None, None
    try:
        descriptor = os.open(name, FILE, dir_fd=folder)
    except BlockingIOError:  # another program holds a lease and may be writing under it
        return stamp, True
    except PermissionError:
        return stamp, False  # nor can it be sent half-written, and that it cannot be read is told soon
    try:
        writing = _writing(descriptor)
        return stamp_of_regular(os.fstat(descriptor)), writing
    finally:
        os.close(descriptor)


def _writing(descriptor: int) -> bool | None:
    given = lease(descriptor)
    if given:
        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return None if given is None else not given


def lease(descriptor: int) -> bool | None:
    """Keeps writers out while the descriptor is open; False where one is in, be it through a mapping, None if unknown.

    Only a file's owner may ask, and only a local file system knows: behind another one others may write to it.
    """
    try:
        # A writer that comes now is announced by SIGIO unless told otherwise, and that would end the process.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return None if is_remote(descriptor) else False  # some of those give no lease to anybody
    except OSError:
        return None
    return None if is_remote(descriptor) else True
