"""The trash: freedesktop.org, "The FreeDesktop.org Trash specification" 1.0.

Libraries for it take a path and note that path as the file's origin, which here would be the private name.
"""

import errno
import os
import stat
import time
from contextlib import ExitStack, suppress
from typing import NamedTuple
from urllib.parse import quote

from dumbwaiter import places
from dumbwaiter.files.moving import (
    FOLDER,
    TAKEN,
    Held,
    copied,
    is_same_file,
    names_like,
    open_below,
    remove,
    rename_new,
)
from dumbwaiter.files.roots import mounted_at
from dumbwaiter.naming import split

NOTE = ".trashinfo"


class _Trash(NamedTuple):
    """A trash's two open folders."""

    files: int
    info: int


def to_trash(held: Held, path: str) -> None:
    """Puts a file into the trash, as from `path`. Raises `Changed`, and OSError."""
    device = os.fstat(held.folder).st_dev  # of an overlay, a file's is another one
    there, origin = _trash_of(device, path, _real(held.folder, path))
    with ExitStack() as opened:
        opened.callback(os.close, there)
        files = open_below(os.dup(there), "files", 0o700)
        opened.callback(os.close, files)
        info = open_below(os.dup(there), "info", 0o700)
        opened.callback(os.close, info)
        trash = _Trash(files, info)
        try:
            _put(held, trash, path, origin)
        except OSError as error:
            if error.errno != errno.EXDEV:  # one file system that is mounted at both, as in a service of the system
                raise
            with copied(held, files) as copy:
                _put(copy, trash, path, origin)
                os.fsync(files)
            remove(held)


def _put(held: Held, trash: _Trash, path: str, origin: str) -> None:
    """Trashes a file under the first name that is free. Raises OSError."""
    for candidate in names_like(split(path)[1], 255 - len(NOTE)):
        if _put_as(held, trash, candidate, origin):
            return
    raise OSError(errno.EEXIST, TAKEN)


def _put_as(held: Held, trash: _Trash, name: str, origin: str) -> bool:
    """Trashes under one name; False when that is taken. The note comes first, as the specification wants it."""
    note = f"{name}{NOTE}"
    try:
        noted = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=trash.info)
    except FileExistsError:
        with suppress(FileNotFoundError):
            if is_same_file(held.folder, held.private, trash.files, name):  # an attempt was cut off right after it
                os.unlink(held.private, dir_fd=held.folder)
                return True
        return False
    try:
        now = time.strftime("%Y-%m-%dT%H:%M:%S")
        os.write(noted, f"[Trash Info]\nPath={quote(os.fsencode(origin))}\nDeletionDate={now}\n".encode())
        if rename_new(held.folder, held.private, trash.files, name):
            return True
    except OSError:
        os.unlink(note, dir_fd=trash.info)
        raise
    finally:
        os.close(noted)
    os.unlink(note, dir_fd=trash.info)
    return False


def _real(folder: int, path: str) -> str:
    """Returns the path of a file by its open folder, clear of links: by those of `path` its disk would be another one."""
    try:
        return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), split(path)[1])
    except OSError:  # it is longer than the kernel can say
        return path


def _trash_of(device: int, path: str, real: str) -> tuple[int, str]:
    """Opens the trash for a file; returns it, and how it notes where the file was. Raises OSError."""
    home = places.trash()
    with suppress(OSError):
        os.makedirs(home, mode=0o700, exist_ok=True)
        if os.stat(home).st_dev == device:
            return os.open(home, FOLDER), path
    top = mounted_at(os.path.dirname(real))
    origin = os.path.relpath(real, top)
    with suppress(OSError):
        if _is_shared(shared := os.path.join(top, ".Trash")):
            return _own(shared, str(os.getuid())), origin
    return _own(top, f".Trash-{os.getuid()}"), origin


def trash_for(folder: str, home: str, user: int) -> str:
    """Returns the trash folder that a user's files in a folder go to, where `home` is that of the home's."""
    top = mounted_at(os.path.realpath(folder))
    if top == mounted_at(os.path.realpath(os.path.dirname(home))):
        return home
    with suppress(OSError):
        if _is_shared(shared := os.path.join(top, ".Trash")):
            return os.path.join(shared, str(user))
    return os.path.join(top, f".Trash-{user}")


def _is_shared(folder: str) -> bool:
    """Says whether a folder can be the trash that all users of a disk share. Raises OSError."""
    status = os.lstat(folder)
    return stat.S_ISDIR(status.st_mode) and bool(status.st_mode & stat.S_ISVTX)


def _own(folder: str, name: str) -> int:
    """Opens this user's trash in a folder that others have too. Raises OSError, for what somebody else put there too."""
    own = open_below(os.open(folder, FOLDER), name, 0o700)
    if os.fstat(own).st_uid != os.getuid():
        os.close(own)
        raise OSError(errno.EPERM, f"{os.path.join(folder, name)} is not this user's")
    return own
