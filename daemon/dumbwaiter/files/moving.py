"""A file that goes to another folder, here or on another disk: nothing is ever replaced, and no link is followed.

Everything happens on descriptors of the folders. A kill in between leaves the file under either name, and the next
attempt goes on from there.
"""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from dumbwaiter.errors import Changed, Undone
from dumbwaiter.files.roots import open_root
from dumbwaiter.files.scan import FILE
from dumbwaiter.model import MIB, Stamp
from dumbwaiter.naming import shown, split, split_suffix

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
TAKEN = "every name is taken there"
DIFFERS = "the copy differs"
WRITTEN = "the file was written to"
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EIO}  # the last is rclone's word

Same = Callable[[int], bool]


class Held(NamedTuple):
    """An open file under a private name in an open folder."""

    folder: int
    private: str
    fd: int
    same: Same  # tells whether an open file has the very content
    unwritten: Callable[[], bool]  # tells whether nobody has written to the file, or waits to


def move(held: Held, target: str, root: str, path: str) -> None:
    """Brings a file of a watched folder below `target`, to its own path. Raises `Changed`, `Undone`, and OSError."""
    folder, name = split(path)
    there = _open_target(target)
    if _is_inside(there, os.stat(root)):
        os.close(there)
        raise Undone(
            f"{shown(target)} is in the watched folder, by another name: what is moved there would be uploaded again"
        )
    for below in folder.split("/") if folder else ():
        there = open_below(there, below)
    try:
        if os.fstat(there).st_dev == os.fstat(held.fd).st_dev:
            with suppress(OSError):
                if any(rename_new(held.folder, held.private, there, one) for one in names_like(name)):
                    return
        with copied(held, there) as copy:
            _name_copy(copy, name)
            os.fsync(there)
        remove(held)
    finally:
        os.close(there)


def _open_target(path: str) -> int:
    """Opens a folder by its absolute path, and makes it if need be. Raises OSError, for another user's link on the way too."""
    missing: list[str] = []
    while True:
        try:
            here = open_root(path)
        except FileNotFoundError:
            path, name = os.path.split(path)
            missing.append(name)
        else:
            break
    while missing:
        here = open_below(here, missing.pop())
    return here


def _is_inside(folder: int, root: os.stat_result) -> bool:
    """Says whether an open folder is another or lies in it: by a bind mount, or in capitals where those are the same."""
    here = os.dup(folder)
    try:
        while not os.path.samestat(found := os.fstat(here), root):
            above = os.open("..", os.O_PATH | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = above
            if os.path.samestat(os.fstat(here), found):
                return False
    finally:
        os.close(here)
    return True


def remove(held: Held) -> None:
    """Removes the file for good: what somebody wrote to it by now would be lost. Raises `Changed`, and OSError."""
    if not held.unwritten():
        raise Changed(WRITTEN)
    os.unlink(held.private, dir_fd=held.folder)


def open_below(folder: int, name: str, mode: int = 0o777) -> int:
    """Opens what lies in an open folder, which is closed, and makes it if need be. Raises OSError, for a link too."""
    try:
        with suppress(FileExistsError):
            os.mkdir(name, mode, dir_fd=folder)
        return os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(folder)


@contextmanager
def copied(held: Held, there: int) -> Iterator[Held]:
    """Holds a copy in another folder under the private name until it has another; it is on the disk, and was read back."""
    aside, fd = held.private, held.fd
    with suppress(FileNotFoundError):
        os.unlink(aside, dir_fd=there)
    try:
        copy = _copy(fd, there, aside)
        try:
            before = os.fstat(fd)
            _dress(copy, fd, before)
            os.fsync(copy)
            with suppress(OSError):  # a hint
                os.posix_fadvise(copy, 0, 0, os.POSIX_FADV_DONTNEED)
            if os.fstat(copy).st_size != before.st_size or not held.same(copy):
                raise OSError(errno.EIO, DIFFERS)
            yield held._replace(folder=there, fd=copy)
        finally:
            os.close(copy)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(aside, dir_fd=there)
        raise


def _copy(fd: int, there: int, name: str) -> int:
    """Writes a copy of a file and returns it opened anew, as davfs2 knows a size only once the writer has closed. Raises OSError."""
    copy = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=there)
    try:
        offset = 0
        while data := os.pread(fd, MIB, offset):
            view = memoryview(data)
            while view:
                view = view[os.write(copy, view) :]
            offset += len(data)
        written = os.fstat(copy)
    finally:
        os.close(copy)
    copy = os.open(name, FILE, dir_fd=there)
    if not os.path.samestat(os.fstat(copy), written):  # somebody else's, which must not get rights
        os.close(copy)
        raise OSError(errno.EIO, DIFFERS)
    return copy


def _dress(copy: int, fd: int, before: os.stat_result) -> None:
    """Gives a copy its original's times, rights and attributes; gvfs and others have no such, and do without."""
    with suppress(OSError):
        os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    modes = [before.st_mode & 0o777]
    if os.fstat(copy).st_uid == before.st_uid:
        with suppress(OSError):
            shutil.copystat(f"/proc/self/fd/{fd}", f"/proc/self/fd/{copy}")
        modes.insert(0, stat.S_IMODE(before.st_mode))  # a service may make nothing set-uid
    else:  # what another user's program may do must not be done in this one's name
        with suppress(OSError):
            for name in os.listxattr(fd):
                if name.startswith("user."):
                    os.setxattr(copy, name, os.getxattr(fd, name))
    for mode in modes:
        with suppress(OSError):
            os.fchmod(copy, mode)
            break


def _name_copy(copy: Held, name: str) -> None:
    """Gives the copy its name, unless an attempt that was cut off has brought the file there already."""
    for candidate in names_like(name):
        if rename_new(copy.folder, copy.private, copy.folder, candidate):
            return
        other = open_regular(copy.folder, candidate)
        if other is None:
            continue
        try:
            if Stamp.of(os.fstat(other)).same_size_and_mtime(Stamp.of(os.fstat(copy.fd))) and copy.same(other):
                os.unlink(copy.private, dir_fd=copy.folder)
                return
        finally:
            os.close(other)
    raise OSError(errno.EEXIST, TAKEN)


def open_regular(here: int, name: str) -> int | None:
    """Opens a regular file; None when there is none. Raises `Undone` when another program has it, and OSError."""
    try:
        fd = os.open(name, FILE, dir_fd=here)
    except BlockingIOError:
        raise Undone("another program has the file") from None
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}:
            return None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return fd


def names_like(name: str, longest: int = 255) -> Iterator[str]:
    """Yields a name, and others like it, of so many bytes at most."""
    stem, suffix = split_suffix(name)
    if len(os.fsencode(suffix)) > longest // 2 + 1:
        stem, suffix = name, ""
    for number in range(10_000):
        end = f"{f'-{number}' if number else ''}{suffix}"
        yield _cut(stem, longest - len(os.fsencode(end))) + end


def _cut(text: str, longest: int) -> str:
    """Returns what fits into so many bytes, without half a character."""
    data = os.fsencode(text)
    end = min(longest, len(data))
    while 0 < end < len(data) and data[end] & 0xC0 == 0x80:
        end -= 1
    return os.fsdecode(data[:end])


def rename_new(source: int, old: str, target: int, new: str) -> bool:
    """Renames without replacing anything; False when the new name is taken. Raises OSError."""
    try:
        os.link(old, new, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except FileExistsError:
        if not is_same_file(source, old, target, new):
            return False  # else an earlier attempt was cut off between the two
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with suppress(FileNotFoundError):  # no hard links here: as good as it gets
            os.stat(new, dir_fd=target, follow_symlinks=False)
            return False
        os.rename(old, new, src_dir_fd=source, dst_dir_fd=target)
        return True
    os.unlink(old, dir_fd=source)
    return True


def is_same_file(source: int, old: str, target: int, new: str) -> bool:
    """Says whether two names are of one file. Raises OSError."""
    one, other = (os.stat(name, dir_fd=here, follow_symlinks=False) for here, name in ((source, old), (target, new)))
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
