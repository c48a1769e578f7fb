"""Blocks in order, by one reply to a ranged GET, or by several where they break off.

A reply is believed only after its status, range, length, encoding and version have been checked against what was
asked and what the catalog says. Its bytes come only as fast as somebody reads them.
"""

import contextlib
import errno
import re
import threading
import time
from collections.abc import Iterator
from typing import Protocol

import httpcore
import httpx

from dumbwaiter.model import MIB
from dumbwaiter_fs.cache import BLOCK
from dumbwaiter_fs.deadline import until
from dumbwaiter_fs.errnos import Refused
from dumbwaiter_fs.remote import Remote

SKIP = 4  # blocks: reading over them is cheaper than a new request
OVER = 8 * MIB // BLOCK  # blocks that are read over (and kept) where a server ignores ranges
IDLE = 15.0  # seconds after which an open reply is no longer trusted to go on
ASKED_AGAIN = 3  # requests after replies that broke off, in one read
MOMENT = 0.1  # seconds for the rest of a block to come whose last reader has gone
PROGRESS = 65536  # a reply that brought so much before it broke off is not counted

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)\Z")
_MEANING = {
    401: errno.EACCES,
    403: errno.EACCES,
    404: errno.ESTALE,
    408: errno.ETIMEDOUT,
    410: errno.ESTALE,
    412: errno.ESTALE,
    416: errno.ESTALE,
    504: errno.ETIMEDOUT,
}
_SENTENCES = {
    errno.EACCES: "the provider does not let it be read",
    errno.ESTALE: "the file is not at its address any more",
    errno.ETIMEDOUT: "the provider takes too long",
}


class _Broken(Exception):
    """The reply ended before its time; what came until then is good."""


class Taker(Protocol):
    """Whose blocks they are: one version of a file."""

    size: int
    stale: str  # why it is no longer at its url
    etag: str  # of the first reply
    validator: str | None  # of what has been read

    def length(self, index: int) -> int:
        """Returns the bytes of a block."""
        ...

    def keep(self, index: int, data: bytes) -> None:
        """Takes a block that has come."""
        ...

    def address(self) -> str:
        """Returns the url that is good as far as known. Raises an errno."""
        ...

    def renewed(self, refused: str) -> bool:
        """Gets another address for one that was refused; False when there is none."""
        ...

    def pin(self, headers: httpx.Headers) -> None:
        """Holds a reply against the first one. Raises ESTALE when it is of another version."""
        ...

    def changed(self, why: str) -> Refused:
        """Notes that this version is no longer at its url; returns what to raise."""
        ...


class Stream:
    """Blocks from `at` up to `stop`, by one reply, or several where they break off. Whoever holds `lock` moves it on."""

    def __init__(self, remote: Remote, version: Taker, start: int, stop: int) -> None:
        self.start = self.at = start
        self.stop = stop
        self.reach = SKIP
        self.lock = threading.Lock()
        self._remote = remote
        self._version = version
        self._held = bytearray()  # of the block `at`
        self._left = 0  # bytes of the reply still to come
        self._over = 0  # of these, bytes that are known already
        self._reply: httpx.Response | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._used = 0.0
        self._url = ""

    def bring(self, index: int, length: int) -> bytes:
        """Moves on into block `index` and returns it, or at least its first `length` bytes. Raises an errno."""
        now = time.monotonic()
        if now - self._used > IDLE:
            self.drop()
        self._used = now
        again = 0
        while True:
            before = self._position()
            try:
                if self._reply is None and (index - self.at) * BLOCK + length > len(self._held):
                    self._ask()  # may begin the whole file anew
                while self.at < index:
                    self._next()
                while len(self._held) < length:
                    self._take()
                # A slow line must not keep a reader waiting for what he did not ask for.
                return self._next() if len(self._held) >= self._version.length(index) else bytes(self._held)
            except _Broken:
                self.drop()
                again += self._position() - before < PROGRESS
                if again > ASKED_AGAIN:
                    raise Refused(errno.EIO, "the reply is cut off again and again") from None

    def complete(self) -> None:
        """Keeps the block that was begun if the rest of it, asked for already, comes in a moment. The caller holds `lock`."""
        if self._reply is None or not self._held or not self._version.validator or self._version.stale:
            return  # without a validator the next reader could not use it
        # A line that is slower than that is no trouble of the origin's, and what is wrong with a reply its next reader is told.
        with contextlib.suppress(Exception), until(time.monotonic() + MOMENT):
            while len(self._held) < self._version.length(self.at):
                self._add(next(self._pieces))
            self._next()

    def let_go(self) -> None:
        """Closes the open reply if nobody is reading."""
        if self.lock.acquire(blocking=False):
            try:
                self.drop()
            finally:
                self.lock.release()

    def drop(self) -> None:
        """Closes the open reply. The caller holds `lock`."""
        reply, self._reply, self._pieces, self._left, self._over = self._reply, None, iter(()), 0, 0
        if reply is not None:
            self._remote.ended(self.let_go)
            with contextlib.suppress(Exception):  # a connection that cannot be closed is closed
                reply.close()

    def _position(self) -> int:
        return self.at * BLOCK + len(self._held)

    def _next(self) -> bytes:
        """Returns the block `at` when it is whole, and hands it to the version."""
        length = self._version.length(self.at)
        while len(self._held) < length:
            self._take()
        if not self._left:
            self._finish()
        data = bytes(memoryview(self._held)[:length])
        del self._held[:length]
        self._version.keep(self.at, data)
        self.at += 1
        return data

    def _take(self) -> None:
        """Adds the next piece of the reply."""
        try:
            piece = next(self._pieces, None)
        except httpcore.TimeoutException:
            raise self._remote.origins.late(self._url) from None
        except Exception as error:  # the network's, or the HTTP parser's, which has errors of its own
            raise _Broken from error
        if piece is None:
            raise _Broken
        self._add(piece)

    def _add(self, piece: bytes) -> None:
        if len(piece) > self._left:
            raise Refused(errno.EIO, "the reply is longer than it says")
        self._left -= len(piece)
        if self._over:
            passed = min(self._over, len(piece))
            self._over -= passed
            piece = piece[passed:]
        self._held += piece

    def _finish(self) -> None:
        """Reads the end of a complete reply, so that its connection can be used again."""
        if self._reply is None:
            return
        try:
            more = next(self._pieces, None)
        except Exception:  # noqa: BLE001 - all that was asked for is here
            more = None
        self.drop()
        if more:
            raise Refused(errno.EIO, "the reply is longer than it says")

    def _ask(self) -> None:
        """Opens the reply that goes on where this stream is."""
        version, start = self._version, self._position()
        stop = min(version.size, self.stop * BLOCK)
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        if version.etag and not version.etag.startswith("W/"):
            headers["If-Range"] = version.etag
        self._url = version.address()
        reply = self._remote.origins.get(self._url, headers)
        if reply.status_code in {401, 403} and version.renewed(self._url):
            reply.close()
            self._url = version.address()
            reply = self._remote.origins.get(self._url, headers)
        try:
            self._judge(reply, start, stop)
        except BaseException:
            reply.close()
            raise
        self._reply, self._pieces = reply, reply.iter_raw()
        self._remote.opened(self.let_go)

    def _judge(self, reply: httpx.Response, start: int, stop: int) -> None:
        """Notes how much of the body is to come, and what of it is known. Raises unless these are the bytes."""
        status, version = reply.status_code, self._version
        if status not in {200, 206}:
            code = _MEANING.get(status, errno.EIO)
            why = f"{_SENTENCES.get(code, 'the provider answers with an error')} (status {status})"
            raise (version.changed(why) if code == errno.ESTALE else Refused(code, why))
        if reply.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(errno.EIO, "the reply is encoded")
        version.pin(reply.headers)
        length = reply.headers.get("content-length", "")
        if status == 200:  # the server does not know ranges, or does not want to
            if length and length != str(version.size):
                raise version.changed("the remote has another size now")
            if start > OVER * BLOCK:
                raise Refused(errno.EIO, "the server ignores ranges")
            self._whole(start)
            return
        found = _RANGE.match(reply.headers.get("content-range", ""))
        if found is None or int(found[1]) != start or not start <= int(found[2]) < stop:
            raise Refused(errno.EIO, "the reply is another range")
        if found[3] not in {"*", str(version.size)}:
            raise version.changed("the remote has another size now")
        self._left = int(found[2]) + 1 - start

    def _whole(self, start: int) -> None:
        """Takes the reply as one for the whole file: what comes before is kept too, and reading on needs no other."""
        version = self._version
        self.stop = -(-version.size // BLOCK)
        self.reach = OVER
        self._left = version.size
        if start == self.start * BLOCK:
            self.start = self.at = 0
        else:
            self._over = start
