"""Where the bytes of an open file come from: the contract of all sources, and those on the local disk.

The other one is `version`: what is at a url.
"""

import errno
import os
from contextlib import suppress
from typing import Protocol

from dumbwaiter.model import Stamp
from dumbwaiter_fs.disk import Disk
from dumbwaiter_fs.errnos import Refused


class Source(Protocol):
    """An open file. `read` gives exactly what was asked, or raises an errno.

    `read_nowait` gives the same if it is in memory, ours or the kernel's, else None. It has one caller at a time, and what
    that got is good until its next call; `prefetch`, by the same caller, gets the block after it in the same way.
    """

    def read(self, offset: int, size: int) -> bytes: ...
    def close(self) -> None: ...

    def read_nowait(self, offset: int, size: int) -> list[memoryview] | None:
        return None

    def prefetch(self, offset: int) -> None:
        return


class Original(Source):
    """The local file while it is still the version that was sent. All who have that open share it."""

    def __init__(self, descriptor: int, stamp: Stamp, room: bytearray, disk: Disk) -> None:
        self._descriptor = descriptor
        self._stamp = stamp
        self._room = room
        self._disk = disk

    def read(self, offset: int, size: int) -> bytes:
        with self._disk:
            data = _read(self._descriptor, offset, size)
        # Looked at after reading: bytes that were read before a change are good, later ones are not given out.
        if not self.unchanged():
            raise Refused(errno.ESTALE, "the local file has been changed")
        return data

    def read_nowait(self, offset: int, size: int) -> list[memoryview] | None:
        piece = memoryview(self._room)[:size]
        try:
            if os.preadv(self._descriptor, [piece], offset, os.RWF_NOWAIT) < size:
                return None
        except OSError:  # it is not in memory, or the file system cannot tell
            return None
        return [piece] if self.unchanged() else None

    def unchanged(self) -> bool:
        """Returns whether it still is that version, also where its name is gone; False where nobody can say."""
        try:
            return Stamp.of(os.fstat(self._descriptor)).same_bytes(self._stamp)
        except OSError:
            return False

    def close(self) -> None:
        """Does nothing: others may have it open. Who has it last calls `release`."""

    def release(self) -> None:
        with suppress(OSError):
            os.close(self._descriptor)


class Live(Source):
    """A file that is not uploaded yet, as it is now; it may end early."""

    def __init__(self, descriptor: int, disk: Disk) -> None:
        self._descriptor = descriptor
        self._disk = disk

    def read(self, offset: int, size: int) -> bytes:
        with self._disk:
            return _read(self._descriptor, offset, size)

    def status(self) -> os.stat_result:
        with self._disk:
            return os.fstat(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def _read(descriptor: int, offset: int, size: int) -> bytes:
    data = os.pread(descriptor, size, offset)
    while len(data) < size and (more := os.pread(descriptor, size - len(data), offset + len(data))):
        data += more
    return data
