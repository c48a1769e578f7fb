"""What becomes of a local file that is safely at its provider: trash, deletion, or another folder.

Nobody may lose a byte by it. The file first gets a private name beside its own; then it is looked at again, under a
lease that keeps writers out where the file system has such; only then something is done, and otherwise it gets its name
back. A kill anywhere in between leaves either name, and the next attempt goes on from there. Everything happens on
descriptors of the folders, no link is followed, nothing is ever replaced.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial

from dumbwaiter.errors import Changed, Undone
from dumbwaiter.files.ignore import PRIVATE
from dumbwaiter.files.moving import (
    TAKEN,
    WRITTEN,
    Held,
    Same,
    is_same_file,
    move,
    names_like,
    open_regular,
    remove,
    rename_new,
)
from dumbwaiter.files.scan import Branch, lease
from dumbwaiter.files.trash import to_trash
from dumbwaiter.model import Stamp
from dumbwaiter.naming import split

QUIET = 60.0  # seconds that a file must not have changed in where its writers cannot be seen
UNHEARD = 900.0  # the same where its close was not heard either: a server waits for minutes for the rest of a file
UNSEEN = "nobody can see whether it is still written to: it stays until it was quiet for a minute"
UNSEEN_LONG = "nobody can see whether it is still written to: it stays until it was quiet for a quarter of an hour"


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
            here = branch.open(folder)
            try:
                if action == "keep":
                    with suppress(FileNotFoundError):
                        _give_back(here, private, name)
                    return True
                with _held(here, name, private, stamp, same, known_since, closed) as held:
                    if held is not None:
                        _act(held, action, root, path)
                    return held is not None
            except Exception as error:
                with suppress(FileNotFoundError):  # it has its name
                    _give_back(here, private, name)
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
def _held(
    here: int, name: str, private: str, stamp: Stamp, same: Same, known_since: float, closed: bool
) -> Iterator[Held | None]:
    """Holds the file under its private name, whole as it was uploaded; None when there is nothing left to do."""
    found = open_regular(here, private)
    left = found is not None  # by an attempt that was cut off
    fd = found if found is not None else open_regular(here, name)
    if fd is None:
        yield None
        return
    try:
        with suppress(FileNotFoundError):
            if left and is_same_file(here, private, here, name):  # while it gave the name back: the file has both
                os.unlink(private, dir_fd=here)
                left = False
        now = Stamp.of(os.fstat(fd))
        if not left and now != stamp and not (stamp.same_but_touched(now) and same(fd)):
            raise Changed("the file is another version now")
        leased = _lease(fd)
        wait = known_since - time.time() + (QUIET if closed else UNHEARD)  # a file server's clock may be another one
        if wait > 0 and not (leased or left):
            raise Undone(UNSEEN if closed else UNSEEN_LONG, after=wait)
        if not left:
            os.rename(name, private, src_dir_fd=here, dst_dir_fd=here)
        renamed = Stamp.of(os.fstat(fd))  # some file systems date a file by its rename
        unwritten = partial(_is_unwritten, here, private, fd, renamed, leased=leased)
        as_known = not left and renamed.same_size_and_mtime(stamp) and not stamp.coarse
        if not ((as_known or same(fd)) and unwritten()):
            _give_back(here, private, name)
            raise Changed(WRITTEN)
        yield Held(here, private, fd, same, unwritten)
    finally:
        os.close(fd)  # the lease ends with it


def _lease(fd: int) -> bool:
    """Keeps writers out while the descriptor is open, where that can be had. Raises `Undone` when one is in."""
    given = lease(fd)
    if given is False:
        raise Undone("another program is writing to the file")
    return bool(given)


def _is_unwritten(here: int, private: str, fd: int, stamp: Stamp, *, leased: bool) -> bool:
    """True when the private name is the open file, unwritten since it was stamped. (A rename moves the ctime.)"""
    by_name, opened = os.stat(private, dir_fd=here, follow_symlinks=False), Stamp.of(os.fstat(fd))
    if leased and fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
        return False  # a writer waits for us
    return Stamp.of(by_name) == opened and opened.same_size_and_mtime(stamp)


def _give_back(here: int, private: str, name: str) -> None:
    """Gives the file its name again; beside it, should the name be somebody else's by now. Raises OSError."""
    if not any(rename_new(here, private, here, candidate) for candidate in names_like(name)):
        raise OSError(errno.EEXIST, TAKEN)


def _act(held: Held, action: str, root: str, path: str) -> None:
    if action == "delete":
        remove(held)
    elif action == "trash":
        to_trash(held, os.path.join(root, path))
    else:
        move(held, action.removeprefix("move:"), root, path)
