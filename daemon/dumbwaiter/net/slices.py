"""A slice of a file as the body of a request: read into one buffer, digested, and given out as fast as it may leave."""

import os
from collections.abc import Callable, Iterator

import httpx

from dumbwaiter.model import KIB
from dumbwaiter.wire.message import FileSlice

GATHER = 64 * KIB  # a body up to this is one write with its head

Pace = Callable[[int], int]  # of so many bytes, how many may leave now; it may wait


class SliceStream(httpx.SyncByteStream):
    """A file slice as the body of an httpx request; transports that do not know it can iterate it.

    `pace` is asked before any of it leaves, and may raise.
    """

    def __init__(self, piece: FileSlice, pace: Pace | None = None) -> None:
        self.piece = piece
        self.pace = pace or _freely

    def __len__(self) -> int:
        return self.piece.body_length

    def __iter__(self) -> Iterator[bytes]:
        if self.piece.before:
            yield self.piece.before
        # Stock httpx has a limit for each piece, and a slow line takes long for a large one.
        buffer = memoryview(bytearray(min(GATHER, self.piece.length)))
        for view in paced(self.piece, buffer, self.pace):
            yield bytes(view)
        if self.piece.after:
            yield self.piece.after


class Unreadable(Exception):
    """The file of a slice cannot be read: no trouble of the network's."""


class _Short(httpx.WriteError):
    """The file ended before the slice did: the rest of the body will never come, so no answer is to be waited for."""


def _views(piece: FileSlice, buffer: memoryview) -> Iterator[memoryview]:
    """Yields the bytes of a slice, each piece valid until the next one is asked for."""
    if piece.data is not None:
        for observe in piece.observers:
            observe(piece.offset, piece.data)
        yield memoryview(piece.data)
        return
    position = piece.offset
    while position < piece.end:
        try:
            count = os.preadv(piece.fd, [buffer[: min(len(buffer), piece.end - position)]], position)
        except OSError as error:
            raise Unreadable(error.strerror) from None
        if count == 0:
            raise _Short("the file became shorter while it was sent")
        for observe in piece.observers:
            observe(position, buffer[:count])
        position += count
        if piece.guard and position == piece.end:
            try:
                piece.guard()
            except OSError as error:
                raise Unreadable(error.strerror) from None
        yield buffer[:count]


def paced(piece: FileSlice, buffer: memoryview, pace: Pace) -> Iterator[memoryview]:
    """Yields the same in pieces that may leave now."""
    for view in _views(piece, buffer):
        position = 0
        while position < len(view):
            count = pace(len(view) - position)
            yield view[position : position + count]
            position += count


def _freely(count: int) -> int:
    return count
