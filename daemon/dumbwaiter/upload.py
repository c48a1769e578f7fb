"""One file on its way: the doors of `doors.Upload` over an open file, the HTTP edge and the journal."""

import asyncio
import errno
import mimetypes
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import msgspec
import xxhash

from dumbwaiter.doors import Hash
from dumbwaiter.errors import Changed, Gone, Retry
from dumbwaiter.http import Http
from dumbwaiter.model import MIB, Ask, Receipt, Stamp
from dumbwaiter.wire.message import FileSlice, Reply, Request

HELD = 4 * MIB  # the longest last piece that is read before it is sent
IN_FLIGHT = 4 * MIB  # what may have been on the wire when an earlier attempt ended
# Vendors look inside; a picture with another's suffix is what it is.
_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
T = TypeVar("T")
Save = Callable[[str, int, int, int], Awaitable[None]]


class Ranges:
    """Which bytes of a file were ever sent."""

    def __init__(self) -> None:
        self._known: list[tuple[int, int]] = []

    def add(self, start: int, end: int) -> int:
        """Adds a range and returns how much of it was there already."""
        touching = [known for known in self._known if known[0] <= end and start <= known[1]]
        apart = [known for known in self._known if known not in touching]
        whole = (min([start, *(low for low, _ in touching)]), max([end, *(high for _, high in touching)]))
        self._known = [*apart, whole]
        return sum(min(high, end) - max(low, start) for low, high in touching)


class Digest:
    """The digest of a whole file, fed with its bytes as they pass, in any order of pieces.

    XXH3 at 128 bits: faster than the memory it reads, so it may be taken of everything. It tells a touched file from
    a changed one; it proves nothing to anybody who wants to deceive.
    """

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()
        self._position = 0  # all before it is in

    def feed(self, offset: int, data: bytes | memoryview) -> None:
        """Takes a piece; what was seen already, or does not follow on, is passed over."""
        known = self._position - offset
        if 0 <= known < len(data):
            self._hash.update(memoryview(data)[known:])
            self._position = offset + len(data)

    def finish(self, fd: int, size: int) -> str:
        """Reads what was not fed (an earlier attempt sent it) and returns the digest."""
        while self._position < size:
            data = os.pread(fd, min(MIB, size - self._position), self._position)
            if not data:
                raise Changed("the file became shorter")
            self.feed(self._position, data)
        return f"xxh3:{self._hash.hexdigest()}"


def open_version(root: str, path: str, stamp: Stamp) -> int:
    """Opens a file and returns its descriptor if it still is the stamped version.

    Raises `Gone`, `Changed`, or `Retry` when the folder itself is away or the file cannot be read now.
    """
    try:
        # A fifo or device in the file's place must neither block nor be read.
        fd = os.open(os.path.join(root, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        if not os.path.isdir(root):
            raise Retry(f"the folder {root} is not there") from None
        raise Gone("the file is gone") from None
    except OSError as error:
        if os.path.islink(os.path.join(root, path)):
            raise Gone("a link stands in the file's place") from None
        if error.errno == errno.ENXIO:
            raise Gone("a socket stands in the file's place") from None
        raise Retry(f"the file cannot be read: {error.strerror}") from None
    try:
        check(fd, stamp)
    except BaseException:
        os.close(fd)
        raise
    return fd


def check(fd: int, stamp: Stamp) -> None:
    """Raises `Changed` unless the open file is the stamped version."""
    if Stamp.of(os.fstat(fd)) != stamp:
        raise Changed("the file is another version now")


def mime_of(fd: int, name: str) -> str:
    """Returns the type of an open file: by its first bytes where these leave no doubt, else by its name."""
    head = os.pread(fd, 16, 0)
    for magic, mime in _MAGIC:
        if head.startswith(magic):
            return mime
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def digest_of(root: str, path: str, stamp: Stamp) -> str:
    """Reads a whole file and returns its digest. Raises what `open_version` raises."""
    fd = open_version(root, path, stamp)
    try:
        digest = Digest().finish(fd, stamp.size)
        check(fd, stamp)
    finally:
        os.close(fd)
    return digest


class FileUpload:
    """An open file with a ticket; see `doors.Upload` for what each door promises."""

    def __init__(
        self,
        fd: int,
        stamp: Stamp,
        *,
        http: Http,
        ticket: Any,
        key: str | None,
        ask: Ask,
        checkpoint: Any,
        sent: int,
        ever: Ranges,
        parts: int,
        save: Save,
        call: Callable[[Request], Awaitable[Reply]],
        now: Callable[[str], float],
        confirm: Callable[[], Awaitable[Receipt | None]],
    ) -> None:
        self.ticket = ticket
        self.key = key
        self.size = stamp.size
        self.name = ask.name
        self.mime = ask.mime
        self.seed = ask.seed
        self.fresh = ask.fresh
        self.checkpoint = checkpoint
        self.confirm = confirm
        self._fd = fd
        self._stamp = stamp
        self._http = http
        self._save = save
        self._call = call
        self._now = now
        self._parts = parts
        self._digest = Digest()
        self._acknowledged = sent
        self._ever = ever
        self.again = 0  # bytes sent a second time since the last save

    async def read(self, offset: int, length: int) -> FileSlice:
        return await asyncio.to_thread(self._read, offset, length)

    def _read(self, offset: int, length: int) -> FileSlice:
        check(self._fd, self._stamp)
        end = min(offset + length, self.size)
        if end < self.size:
            # The kernel fetches the next piece while this one is on the wire.
            os.posix_fadvise(self._fd, end, length, os.POSIX_FADV_WILLNEED)
            return FileSlice(self._fd, offset, end - offset, tastes=(self._digest.feed,))
        if end - offset > HELD:
            return FileSlice(self._fd, offset, end - offset, tastes=(self._digest.feed, self._guard))
        data = b""
        while len(data) < end - offset:
            piece = os.pread(self._fd, end - offset - len(data), offset + len(data))
            if not piece:
                raise Changed("the file became shorter")
            data += piece
        check(self._fd, self._stamp)
        return FileSlice(self._fd, offset, len(data), data, (self._digest.feed,))

    def _guard(self, offset: int, data: bytes | memoryview) -> None:
        """Lets the last bytes of a long piece go only if the file is the version they belong to."""
        if offset + len(data) == self.size:
            check(self._fd, self._stamp)

    def now(self, url: str) -> float:
        return self._now(url)

    async def call(self, request: Request) -> Reply:
        if isinstance(request.body, FileSlice):
            self.again += self._ever.add(request.body.offset, request.body.end)
        return await self._call(request)

    async def save(self, point: Any, sent: int) -> None:
        more, again = max(0, sent - self._acknowledged), self.again
        await self._save(msgspec.json.encode(point).decode(), sent, more, again)
        self._acknowledged, self.again = sent, 0

    async def finish(self) -> str:
        """Accounts for the last piece and returns the digest of the whole. Raises `Changed`."""
        digest = await asyncio.to_thread(self._digest.finish, self._fd, self.size)
        await asyncio.to_thread(check, self._fd, self._stamp)
        return digest

    @property
    def unsaved(self) -> int:
        """Bytes that the finished upload acknowledged beyond the last save."""
        return self.size - self._acknowledged

    async def digested(self, offset: int, length: int, into: Hash) -> None:
        await asyncio.to_thread(self._digested, offset, length, into)

    def _digested(self, offset: int, length: int, into: Hash) -> None:
        check(self._fd, self._stamp)
        end = min(offset + length, self.size)
        while offset < end:
            data = os.pread(self._fd, min(MIB, end - offset), offset)
            if not data:
                raise Changed("the file became shorter")
            into.update(data)
            offset += len(data)

    async def parts(
        self,
        numbers: Iterable[int],
        send: Callable[[int], Awaitable[T]],
        done: Callable[[int, T], Awaitable[None]],
    ) -> None:
        left = iter(numbers)
        turn = asyncio.Lock()

        async def one_after_another() -> None:
            for number in left:
                result = await send(number)
                async with turn:
                    await done(number, result)

        tasks = [asyncio.create_task(one_after_another()) for _ in range(self._parts)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def order(self, urls: tuple[str, ...]) -> list[str]:
        return self._http.order(urls)
