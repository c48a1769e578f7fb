"""One version of a file: opened, checked and read by its stamp."""

import errno
import os
from contextlib import closing

from dumbwaiter.errors import Changed, Gone, Local, Reject
from dumbwaiter.files.digest import Digest
from dumbwaiter.files.scan import Branch
from dumbwaiter.model import Stamp
from dumbwaiter.naming import split

DEEP = 1000  # characters; the kernel takes no path of more than 4,096 bytes in one piece


def open_version(root: str, path: str, stamp: Stamp) -> int:
    """Opens a file and returns its descriptor if it still is the stamped version.

    Raises `Gone`, `Changed`, or `Local` when the folder itself is away or the file cannot be read now.
    """
    try:
        fd = _open(root, path)
    except (FileNotFoundError, NotADirectoryError):
        if not os.path.isdir(root):
            raise Local(f"the folder {root} is not there") from None
        raise Gone("the file is gone") from None
    except OSError as error:
        if os.path.islink(os.path.join(root, path)):
            raise Gone("a link stands in the file's place") from None
        if error.errno == errno.ENXIO:
            raise Gone("a socket stands in the file's place") from None
        raise Local(f"the file cannot be read: {error.strerror}") from None
    try:
        check(fd, stamp)
    except OSError as error:  # a file server may have forgotten it since
        os.close(fd)
        raise Local(f"the file cannot be read: {error.strerror}") from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open(root: str, path: str) -> int:
    # A fifo or device in the file's place must neither block nor be read.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    whole = os.path.join(root, path)
    if len(whole) < DEEP:
        return os.open(whole, flags)
    folder, name = split(path)
    with closing(Branch(root)) as branch:
        return os.open(name, flags, dir_fd=branch.open(folder))


def check(fd: int, stamp: Stamp) -> None:
    """Raises `Changed` unless the open file is the stamped version."""
    if Stamp.of(os.fstat(fd)) != stamp:
        raise Changed("the file is another version now")


def check_end(fd: int, stamp: Stamp) -> None:
    """Raises `Changed` as `check` does, and `Reject` where the file goes on behind its end."""
    more = os.pread(fd, 1, stamp.size)
    check(fd, stamp)
    if more:
        raise Reject(
            "the file holds more than its file system says (it may be made as it is read): upload a copy of it"
        )


def digest_of(root: str, path: str, stamp: Stamp) -> str:
    """Reads a whole file and returns its digest. Raises what `open_version` raises."""
    fd = open_version(root, path, stamp)
    try:
        digest = Digest().finish(fd, stamp.size)
        check(fd, stamp)
    except OSError as error:
        raise Local(f"the file cannot be read: {error.strerror}") from None
    finally:
        os.close(fd)
    return digest
