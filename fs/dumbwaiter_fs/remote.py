"""Bytes from a provider: one ranged GET read as far as it is needed, then the next.

A reply is believed only after its status, range, length, encoding and version have been checked against what was
asked and what the catalog says. A version's first reply pins its ETag; a reply with another one is never used.
Every read ends by a deadline. An origin that could not be reached is left alone for some seconds.
"""

import contextlib
import errno
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator

import httpcore
import httpx

from dumbwaiter.model import MIB
from dumbwaiter_fs.answers import Refused
from dumbwaiter_fs.deadline import Transport, until

DEADLINE = 30.0  # seconds for one read
CONNECT = 5.0
REST = 5.0  # seconds without a request to an origin that could not be reached
WINDOW, WINDOW_MAX = MIB, 8 * MIB  # length of one request; doubles while reading goes straight on
BEHIND = MIB  # bytes kept for readers that arrive out of order
SKIP = MIB  # reading over a gap is cheaper than a new request
IDLE = 15.0  # seconds after which an open reply is no longer trusted to go on
STREAMS = 48  # replies left open between reads; more would use up the descriptors
ASKED_AGAIN = 3  # requests after replies that broke off, in one read
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


class Version:
    """What is at a url, for as long as somebody has it open: its size, and the ETag of the first reply."""

    def __init__(self, url: str, size: int) -> None:
        self.url = url
        self.size = size
        self.etag = ""
        self.stale = False
        self._mark: tuple[str, str] | None = None
        self._lock = threading.Lock()

    def pin(self, headers: httpx.Headers) -> None:
        """Holds a reply against the first one. Raises ESTALE when it is of another version."""
        etag = headers.get("etag", "")
        mark = (etag, "" if etag else headers.get("last-modified", ""))
        with self._lock:
            if self._mark is None:
                self._mark, self.etag = mark, etag
            same = self._mark == mark
        if not same:
            raise self.changed("the remote has another version now")

    def changed(self, why: str) -> Refused:
        """Notes for every handle that this version is no longer at its url."""
        self.stale = True
        return Refused(errno.ESTALE, why)


class Remote:
    """Connections to all origins. Any thread may call."""

    def __init__(self, deadline: float = DEADLINE) -> None:
        self.deadline = deadline
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._down: dict[tuple[str, int | None], tuple[float, int]] = {}
        self._streams: OrderedDict[Reader, None] = OrderedDict()

    def check(self, url: str) -> None:
        """Raises at once what the last attempt on this origin came to, if that was a moment ago."""
        with self._lock:
            until_, code = self._down.get(_origin(url), (0.0, 0))
        if time.monotonic() < until_:
            raise Refused(code, "the origin did not answer a moment ago")

    def get(self, url: str, headers: dict[str, str]) -> httpx.Response:
        """Sends a request and returns the reply with its body unread. Raises an errno."""
        self.check(url)
        try:
            client = self._opened()
            return client.send(client.build_request("GET", url, headers=headers), stream=True)
        except httpx.InvalidURL:
            raise Refused(errno.ENXIO, "the url cannot be read") from None
        except (httpcore.ConnectError, httpx.ConnectError):
            raise self._tripped(url, errno.EHOSTUNREACH) from None
        except (httpcore.TimeoutException, httpx.TimeoutException):
            raise self.late(url) from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpx.HTTPError) as error:
            raise Refused(errno.EIO, type(error).__name__) from None

    def late(self, url: str) -> Refused:
        return self._tripped(url, errno.ETIMEDOUT)

    def streaming(self, reader: "Reader") -> None:
        """Notes that `reader` holds a reply open, and closes the one that was left alone longest."""
        with self._lock:
            self._streams[reader] = None
            self._streams.move_to_end(reader)
            idle = next(iter(self._streams)) if len(self._streams) > STREAMS else None
        if idle is not None:
            idle.let_go()

    def ended(self, reader: "Reader") -> None:
        with self._lock:
            self._streams.pop(reader, None)

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _opened(self) -> httpx.Client:
        with self._lock:
            if self._client is None:  # its certificates take a while to load, and listing needs none
                self._client = httpx.Client(
                    transport=Transport(),
                    timeout=httpx.Timeout(self.deadline, connect=min(CONNECT, self.deadline)),
                    follow_redirects=False,
                    headers={"Accept-Encoding": "identity", "User-Agent": "dumbwaiter-mount"},
                )
            return self._client

    def _tripped(self, url: str, code: int) -> Refused:
        with self._lock:
            self._down[_origin(url)] = (time.monotonic() + REST, code)
        return Refused(code, "no connection" if code == errno.EHOSTUNREACH else "no answer in time")


def _origin(url: str) -> tuple[str, int | None]:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise Refused(errno.ENXIO, "the url cannot be read") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise Refused(errno.ENXIO, "the url is none of http or https")
    return parsed.host, parsed.port


class _Broken(Exception):
    """The reply ended before its time; what came until then is good."""


class Reader:
    """One open file. Bytes [`_from`, `_at`) are held; the open reply goes on at `_at` up to `_stop`."""

    def __init__(self, remote: Remote, version: Version) -> None:
        self._remote = remote
        self._version = version
        self._lock = threading.Lock()
        self._held = bytearray()
        self._from = self._at = self._stop = 0
        self._window = WINDOW
        self._reply: httpx.Response | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._used = 0.0
        self._over = 0  # bytes of the reply that stand before `_at`

    def read(self, offset: int, size: int) -> bytes:
        """Returns exactly `size` bytes, which the caller has found to lie inside the file, or raises an errno."""
        limit = time.monotonic() + self._remote.deadline
        if not self._lock.acquire(timeout=self._remote.deadline):
            raise Refused(errno.ETIMEDOUT, "another read of this file takes all the time")
        try:
            if self._version.stale:
                raise Refused(errno.ESTALE, "the remote has another version now")
            with until(limit):
                self._fill(offset, offset + size)
            return self._given(offset, size)
        except BaseException:
            self._drop()
            raise
        finally:
            self._lock.release()

    def _given(self, offset: int, size: int) -> bytes:
        """Returns held bytes, and forgets those that lie far behind."""
        start = offset - self._from
        data = bytes(memoryview(self._held)[start : start + size])
        if (extra := self._at - BEHIND - self._from) > 0:
            del self._held[:extra]
            self._from += extra
        return data

    def close(self) -> None:
        with self._lock:
            self._drop()
            self._held.clear()

    def let_go(self) -> None:
        """Closes the open reply if nobody is reading; a later read asks again."""
        if self._lock.acquire(blocking=False):
            try:
                self._drop()
            finally:
                self._lock.release()

    def _fill(self, offset: int, end: int) -> None:
        now = time.monotonic()
        if now - self._used > IDLE:
            self._drop()
        self._used = now
        ahead = SKIP if self._reply is not None else 0
        if not self._from <= offset <= self._at + ahead:
            self._drop()
            self._held.clear()
            self._from = self._at = offset
            self._window = WINDOW
        again, began = 0, self._at
        while self._at < end:
            if self._reply is None:
                began = self._at
                self._ask(end)
            try:
                self._take()
            except _Broken:
                self._drop()
                again += self._at - began < PROGRESS
                if again > ASKED_AGAIN:
                    raise Refused(errno.EIO, "the reply is cut off again and again") from None

    def _take(self) -> None:
        """Adds the next piece of the reply."""
        try:
            piece = next(self._pieces, None)
        except httpcore.TimeoutException:
            raise self._remote.late(self._version.url) from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpx.HTTPError, httpx.StreamError):
            raise _Broken from None
        except Exception as error:  # the HTTP parser raises errors of its own, outside both trees
            raise _Broken from error
        if piece is None:
            raise _Broken
        if self._over:
            passed = min(self._over, len(piece))
            self._over -= passed
            piece = piece[passed:]
        if self._at + len(piece) > self._stop:
            raise Refused(errno.EIO, "the reply is longer than it says")
        self._held += piece
        self._at += len(piece)
        if self._at == self._stop:
            self._finish()

    def _finish(self) -> None:
        """Reads the end of a complete reply, so that its connection can be used again."""
        try:
            more = next(self._pieces, None)
        except Exception:  # noqa: BLE001 - all that was asked for is here
            more = None
        self._drop()
        if more:
            raise Refused(errno.EIO, "the reply is longer than it says")

    def _drop(self) -> None:
        reply, self._reply, self._pieces, self._over = self._reply, None, iter(()), 0
        if reply is not None:
            self._remote.ended(self)
            with contextlib.suppress(Exception):  # a connection that cannot be closed is closed
                reply.close()

    def _ask(self, end: int) -> None:
        """Opens the reply that goes on at `_at`, with a longer window than the last one."""
        version, start = self._version, self._at
        stop = min(version.size, max(end, start + self._window))
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        if version.etag and not version.etag.startswith("W/"):
            headers["If-Range"] = version.etag
        reply = self._remote.get(version.url, headers)
        try:
            self._stop, self._over = self._judge(reply, start, stop)
        except BaseException:
            reply.close()
            raise
        self._reply, self._pieces = reply, reply.iter_raw()
        self._window = min(WINDOW_MAX, self._window * 2)
        self._remote.streaming(self)

    def _judge(self, reply: httpx.Response, start: int, stop: int) -> tuple[int, int]:
        """Returns where the body ends and how much of it comes before `start`. Raises unless these are the bytes."""
        status, version = reply.status_code, self._version
        if status not in {200, 206}:
            code = _MEANING.get(status, errno.EIO)
            raise (version.changed(f"status {status}") if code == errno.ESTALE else Refused(code, f"status {status}"))
        if reply.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refused(errno.EIO, "the reply is encoded")
        version.pin(reply.headers)
        length = reply.headers.get("content-length", "")
        if status == 200:  # the server does not know ranges, or does not want to
            if length and length != str(version.size):
                raise version.changed("the remote has another size now")
            if start > SKIP:
                raise Refused(errno.EIO, "the server ignores ranges")
            return version.size, start
        found = _RANGE.match(reply.headers.get("content-range", ""))
        if found is None or int(found[1]) != start or not start <= int(found[2]) < stop:
            raise Refused(errno.EIO, "the reply is another range")
        if found[3] not in {"*", str(version.size)}:
            raise version.changed("the remote has another size now")
        return int(found[2]) + 1, 0
