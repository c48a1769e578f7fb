"""What becomes of a local file that is safely at its provider: trash, deletion, or another folder.

Nobody may lose a byte by it. The file first gets a private name beside its own; then it is looked at again, under a
lease that keeps writers out where the file system has such; only then something is done, and otherwise it gets its name
back. A kill anywhere in between leaves either name, and the next attempt goes on from there. Everything happens on
descriptors of the folders, no link is followed, nothing is ever replaced.
"""

import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from urllib.parse import quote

from dumbwaiter.errors import Changed
from dumbwaiter.ignore import PRIVATE
from dumbwaiter.model import MIB, Stamp
from dumbwaiter.naming import split
from dumbwaiter.places import trash
from dumbwaiter.scan import FILE, Branch, lease

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
QUIET = 60.0  # seconds that a file must not have changed in where its writers cannot be seen
UNHEARD = 900.0  # the same where its close was not heard either: a server waits for minutes for the rest of a file
UNSEEN = "nobody can see whether it is still written to: it stays until it was quiet for a minute"
UNSEEN_LONG = "nobody can see whether it is still written to: it stays until it was quiet for a quarter of an hour"
TAKEN = "every name is taken there"
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}

Same = Callable[[int], bool]


class Undone(Exception):
    """It could not be done now; the file is where it was. A sentence, and the seconds until it can be, where known."""

    def __init__(self, sentence: str, *, after: float | None = None) -> None:
        super().__init__(sentence)
        self.after = after


def dispose(
    root: str,
    path: str,
    stamp: Stamp,
    same: Same,
    action: str,
    mark: str,
    *,
    known_since: float = 0.0,
    closed: bool = True,
) -> bool:
    """Does `action` ("trash", "delete", "move:DIR", "keep") to the stamped version of a file; done is done already.

    Returns False where no such file was found. "keep" gives it back the name that an attempt cut off took from it.
    `mark` names the private name, the same at every attempt; `same` tells whether an open file has the very content
    that was uploaded; `known_since` when the version was first known, and `closed` whether its writer closed it. Raises
    `Changed` when the file is another version (it is in its place), and `Undone`.
    """
    folder, name = split(path)
    private = PRIVATE + mark
    try:
        with closing(Branch(root)) as branch:
            place = branch.open(folder)
            try:
                if action == "keep":
                    with suppress(FileNotFoundError):
                        _give_back(place, private, name)
                    return True
                with _taken(place, name, private, stamp, same, known_since, closed) as fd:
                    if fd is not None:
                        _act(place, private, fd, action, root, path, same)
                    return fd is not None
            except Exception as error:
                with suppress(FileNotFoundError):  # it has its name
                    _give_back(place, private, name)
                if not isinstance(error, OSError):
                    raise
                raise Undone(f"{action} failed: {error.strerror}") from None
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:  # the last two: its folder is no folder now
            raise Undone(f"{action} failed: {error.strerror}") from None
        if not os.path.isdir(root):
            raise Undone(f"the folder {root} is not there") from None
        return False


@contextmanager
def _taken(
    place: int, name: str, private: str, stamp: Stamp, same: Same, known_since: float, closed: bool
) -> Iterator[int | None]:
    """Holds the file under its private name, whole as it was uploaded; None when there is nothing left to do."""
    found = _open(place, private)
    left = found is not None  # by an attempt that was cut off
    fd = found if found is not None else _open(place, name)
    if fd is None:
        yield None
        return
    try:
        now = Stamp.of(os.fstat(fd))
        if not left and now != stamp and not (stamp.same_but_touched(now) and same(fd)):
            raise Changed("the file is another version now")
        leased = _lease(fd)
        wait = known_since - time.time() + (QUIET if closed else UNHEARD)  # a file server's clock may be another one
        if wait > 0 and not (leased or left):
            raise Undone(UNSEEN if closed else UNSEEN_LONG, after=wait)
        if not left:
            os.rename(name, private, src_dir_fd=place, dst_dir_fd=place)
        if not (_is_it(place, private, fd, stamp, leased=leased) and (not left or same(fd))):
            _give_back(place, private, name)
            raise Changed("the file was written to")
        yield fd
    finally:
        os.close(fd)  # the lease ends with it


def _open(place: int, name: str) -> int | None:
    try:
        fd = os.open(name, FILE, dir_fd=place)
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


def _lease(fd: int) -> bool:
    """Keeps writers out while the descriptor is open, where that can be had. Raises `Undone` when one is in."""
    given = lease(fd)
    if given is False:
        raise Undone("another program is writing to the file")
    return bool(given)


def _is_it(place: int, private: str, fd: int, stamp: Stamp, *, leased: bool) -> bool:
    """True when the private name is the open file, unwritten since it was stamped. (A rename moves the ctime.)"""
    by_name, opened = os.stat(private, dir_fd=place, follow_symlinks=False), Stamp.of(os.fstat(fd))
    if leased and fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
        return False  # a writer waits for us
    return Stamp.of(by_name) == opened and opened.same_size_and_mtime(stamp)


def _give_back(place: int, private: str, name: str) -> None:
    """Gives the file its name again; beside it, should the name be somebody else's by now. Raises OSError."""
    if not any(_rename_new(place, private, place, candidate) for candidate in _candidates(name)):
        raise OSError(errno.EEXIST, TAKEN)


def _candidates(name: str, longest: int = 255) -> Iterator[str]:
    """Yields a name, and others like it, of so many bytes at most."""
    stem, dot, suffix = name.rpartition(".")
    if not stem or len(os.fsencode(suffix)) > longest // 2:
        stem, dot, suffix = name, "", ""
    for number in range(10_000):
        end = f"{f'-{number}' if number else ''}{dot}{suffix}"
        yield _cut(stem, longest - len(os.fsencode(end))) + end


def _cut(text: str, longest: int) -> str:
    """Returns what fits into so many bytes, without half a character."""
    data = os.fsencode(text)
    end = min(longest, len(data))
    while 0 < end < len(data) and data[end] & 0xC0 == 0x80:
        end -= 1
    return os.fsdecode(data[:end])


def _rename_new(source: int, old: str, target: int, new: str) -> bool:
    """Renames without replacing anything; False when the new name is taken. Raises OSError."""
    try:
        os.link(old, new, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except FileExistsError:
        if not _one_file(source, old, target, new):
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


def _one_file(source: int, old: str, target: int, new: str) -> bool:
    one, other = (os.stat(name, dir_fd=place, follow_symlinks=False) for place, name in ((source, old), (target, new)))
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _act(place: int, private: str, fd: int, action: str, root: str, path: str, same: Same) -> None:
    if action == "delete":
        os.unlink(private, dir_fd=place)
    elif action == "trash":
        _trash(place, private, fd, os.path.join(root, path), same)
    else:
        _move(place, private, fd, action.removeprefix("move:"), path, same)


# Moving


def _move(place: int, private: str, fd: int, target: str, path: str, same: Same) -> None:
    folder, name = split(path)
    os.makedirs(target, exist_ok=True)
    there = os.open(target, _FOLDER)
    for below in folder.split("/") if folder else ():
        there = _below(there, below)
    try:
        if os.fstat(there).st_dev == os.fstat(fd).st_dev:
            with suppress(OSError):
                if any(_rename_new(place, private, there, one) for one in _candidates(name)):
                    return
        _copy(place, private, fd, there, name, same)
    finally:
        os.close(there)


def _below(folder: int, name: str, mode: int = 0o777) -> int:
    """Opens what lies in an open folder, which is closed, and makes it if need be. Raises OSError, for a link too."""
    try:
        with suppress(FileExistsError):
            os.mkdir(name, mode, dir_fd=folder)
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(folder)


def _copy(place: int, private: str, fd: int, there: int, name: str, same: Same) -> None:
    """Brings a file to another file system: copied, on the disk, read back, and only then taken away here."""
    with _copied(private, fd, there, same) as copy:
        _name_copy(there, private, copy, name, same)
        os.fsync(there)
    os.unlink(private, dir_fd=place)


@contextmanager
def _copied(aside: str, fd: int, there: int, same: Same) -> Iterator[int]:
    """Holds a copy of an open file under the name `aside` until it has another; it is on the disk, and was read back."""
    with suppress(FileNotFoundError):
        os.unlink(aside, dir_fd=there)
    copy = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=there)
    try:
        offset = 0
        while data := os.pread(fd, MIB, offset):
            view = memoryview(data)
            while view:
                view = view[os.write(copy, view) :]
            offset += len(data)
        before = os.fstat(fd)
        os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
        if os.fstat(copy).st_uid == before.st_uid:
            with suppress(OSError):
                shutil.copystat(f"/proc/self/fd/{fd}", f"/proc/self/fd/{copy}")
            try:
                os.fchmod(copy, stat.S_IMODE(before.st_mode))
            except PermissionError:  # a service may make nothing set-uid
                os.fchmod(copy, before.st_mode & 0o777)
        else:  # what another user's program may do must not be done in this one's name
            os.fchmod(copy, before.st_mode & 0o777)
            with suppress(OSError):
                for name in os.listxattr(fd):
                    if name.startswith("user."):
                        os.setxattr(copy, name, os.getxattr(fd, name))
        os.fsync(copy)
        os.posix_fadvise(copy, 0, 0, os.POSIX_FADV_DONTNEED)
        if os.fstat(copy).st_size != before.st_size or not same(copy):
            raise OSError(errno.EIO, "the copy differs")
        yield copy
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(aside, dir_fd=there)
        raise
    finally:
        os.close(copy)


def _name_copy(there: int, aside: str, copy: int, name: str, same: Same) -> None:
    """Gives the copy its name, unless an attempt that was cut off has brought the file there already."""
    for candidate in _candidates(name):
        if _rename_new(there, aside, there, candidate):
            return
        other = _open(there, candidate)
        if other is None:
            continue
        try:
            if Stamp.of(os.fstat(other)).same_size_and_mtime(Stamp.of(os.fstat(copy))) and same(other):
                os.unlink(aside, dir_fd=there)
                return
        finally:
            os.close(other)
    raise OSError(errno.EEXIST, TAKEN)


# The trash: freedesktop.org, "The FreeDesktop.org Trash specification" 1.0. Libraries for it take a path and note that
# path as the file's origin, which here would be the private name.
NOTE = ".trashinfo"


def _trash(place: int, private: str, fd: int, path: str, same: Same) -> None:
    device = os.fstat(place).st_dev  # of an overlay, a file's is another one
    there, origin = _trash_of(device, path)
    with ExitStack() as opened:
        opened.callback(os.close, there)
        files = _below(os.dup(there), "files", 0o700)
        opened.callback(os.close, files)
        info = _below(os.dup(there), "info", 0o700)
        opened.callback(os.close, info)
        try:
            _trash_from(place, private, files, info, path, origin)
        except OSError as error:
            if error.errno != errno.EXDEV:  # one file system that is mounted at both, as in a service of the system
                raise
            with _copied(private, fd, files, same):
                _trash_from(files, private, files, info, path, origin)
                os.fsync(files)
            os.unlink(private, dir_fd=place)


def _trash_from(place: int, private: str, files: int, info: int, path: str, origin: str) -> None:
    """Trashes a file under the first name that is free. Raises OSError."""
    for candidate in _candidates(split(path)[1], 255 - len(NOTE)):
        if _trash_as(place, private, files, info, candidate, f"{candidate}{NOTE}", origin):
            return
    raise OSError(errno.EEXIST, TAKEN)


def _trash_as(place: int, private: str, files: int, info: int, name: str, note: str, origin: str) -> bool:
    """Trashes under one name; False when that is taken. The note comes first, as the specification wants it."""
    try:
        noted = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=info)
    except FileExistsError:
        with suppress(FileNotFoundError):
            if _one_file(place, private, files, name):  # an attempt was cut off right after it
                os.unlink(private, dir_fd=place)
                return True
        return False
    try:
        now = time.strftime("%Y-%m-%dT%H:%M:%S")
        os.write(noted, f"[Trash Info]\nPath={quote(os.fsencode(origin))}\nDeletionDate={now}\n".encode())
        if _rename_new(place, private, files, name):
            return True
    except OSError:
        os.unlink(note, dir_fd=info)
        raise
    finally:
        os.close(noted)
    os.unlink(note, dir_fd=info)
    return False


def _trash_of(device: int, path: str) -> tuple[int, str]:
    """Opens the trash for a file; returns it, and how it notes where the file was. Raises OSError."""
    home = trash()
    with suppress(OSError):
        os.makedirs(home, mode=0o700, exist_ok=True)
        if os.stat(home).st_dev == device:
            return os.open(home, _FOLDER), path
    top = _top(path)
    with suppress(OSError):
        if _is_shared(shared := os.path.join(top, ".Trash")):
            return _own(shared, str(os.getuid())), os.path.relpath(path, top)
    return _own(top, f".Trash-{os.getuid()}"), os.path.relpath(path, top)


def trash_for(folder: str, home: str, user: int) -> str:
    """Returns the trash folder that a user's files in a folder go to, where `home` is that of the home's."""
    top = _top(os.path.join(folder, "file"))
    if top == _top(home):
        return home
    with suppress(OSError):
        if _is_shared(shared := os.path.join(top, ".Trash")):
            return os.path.join(shared, str(user))
    return os.path.join(top, f".Trash-{user}")


def _top(path: str) -> str:
    """Returns the folder at which the file system of a path is mounted."""
    while not os.path.ismount(path := os.path.dirname(path)):
        pass
    return path


def _is_shared(folder: str) -> bool:
    """Says whether a folder can be the trash that all users of a disk share. Raises OSError."""
    status = os.lstat(folder)
    return stat.S_ISDIR(status.st_mode) and bool(status.st_mode & stat.S_ISVTX)


def _own(folder: str, name: str) -> int:
    """Opens this user's trash in a folder that others have too. Raises OSError, for what somebody else put there too."""
    own = _below(os.open(folder, _FOLDER), name, 0o700)
    if os.fstat(own).st_uid != os.getuid():
        os.close(own)
        raise OSError(errno.EPERM, f"{os.path.join(folder, name)} is not this user's")
    return own
