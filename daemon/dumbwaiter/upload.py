"""One file on its way: the doors of `doors.Upload` over an open file, the HTTP edge and the journal, for threads."""

import errno
import mimetypes
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import closing
from functools import lru_cache, partial
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from dumbwaiter.bulk import Abort
from dumbwaiter.digest import Digest
from dumbwaiter.doors import Hash
from dumbwaiter.errors import Changed, Gone, Local, Offline, Reject, Retry, Stopped
from dumbwaiter.model import MIB, UNKNOWN, Ask, Receipt, Stamp
from dumbwaiter.naming import split
from dumbwaiter.pace import Abreast
from dumbwaiter.scan import Branch
from dumbwaiter.threads import Threads, drive
from dumbwaiter.wire.message import FileSlice, Reply, Request

DEEP = 1000  # characters; the kernel takes no path of more than 4,096 bytes in one piece
HELD = MIB  # the longest last piece that is read before it is sent
IN_FLIGHT = 4 * MIB  # what may have been on the wire when an earlier attempt ended
LAG = 0.1  # seconds of sending that a crash may cost, at most, while the journal is slow
# Vendors look inside; a picture with another's suffix is what it is.
_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_here = threading.local()  # `abort` ends the part that this thread sends
T = TypeVar("T")
Save = Callable[[str, int, int, int], "Future[None]"]


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


def _check_end(fd: int, stamp: Stamp) -> None:
    """Raises `Changed` as `check` does, and `Reject` where the file goes on behind its end."""
    more = os.pread(fd, 1, stamp.size)
    check(fd, stamp)
    if more:
        raise Reject(
            "the file holds more than its file system says (it may be made as it is read): upload a copy of it"
        )


def mime_of(fd: int, name: str) -> str:
    """Returns the type of an open file: by its first bytes where these leave no doubt, else by its name."""
    return mime_by_head(os.pread(fd, 16, 0)) or mime_by_name(name)


def mime_by_head(head: bytes) -> str | None:
    """Returns the type of pictures that their first bytes leave no doubt of, whatever their name says."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((mime for magic, mime in _MAGIC if head.startswith(magic)), None)


def mime_by_name(name: str) -> str:
    """Returns the type that the last suffixes of a name, or of a path, stand for."""
    return _mime_by_suffix(*name.rpartition("/")[2].lstrip(".").rsplit(".", 2)[1:])


@lru_cache(maxsize=256)
def _mime_by_suffix(*suffixes: str) -> str:
    return mimetypes.guess_type(".".join(("name", *suffixes)))[0] or UNKNOWN


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


class FileUpload:
    """An open file with a ticket; see `doors.Upload` for what each door promises.

    Its doors block: the transport runs in a thread (`run`), its parts in more of them.
    """

    def __init__(
        self,
        fd: int,
        stamp: Stamp,
        *,
        threads: Threads,
        ticket: Any,
        key: str | None,
        ask: Ask,
        checkpoint: Any,
        sent: int,
        ever: Ranges,
        save: Save,
        rest: Callable[[], None] = lambda: None,
        exchange: Callable[[Request, Abort], Reply],
        order: Callable[[Sequence[str]], list[str]],
        better: Callable[[str, str], None],
        now: Callable[[str], float],
        confirm: Callable[[], "Future[Receipt | None]"],
        abreast: Abreast | None = None,
    ) -> None:
        self.ticket = ticket
        self.key = key
        self.size = stamp.size
        self.name = ask.name
        self.mime = ask.mime
        self.seed = ask.seed
        self.fresh = ask.fresh
        self.checkpoint = checkpoint
        self.abort = Abort()
        self._fd = fd
        self._stamp = stamp
        self._threads = threads
        self._save = save
        self._rest = rest
        self._exchange = exchange
        self._order = order
        self._better = better
        self._now = now
        self._confirm = confirm
        self._abreast = abreast or Abreast()
        self._digest = Digest()
        self._acknowledged = sent
        self._ever = ever
        self._counting = threading.Lock()
        self.resent = 0  # bytes sent a second time since the last save
        self._pieces = 0  # bytes that this attempt sent, each counted once
        self._here_before = Ranges()
        self._begun = sent
        self._noting = threading.RLock()  # of the fields below
        self._point: tuple[Any, int] | None = None  # acknowledged, and not on its way to the journal yet
        self._commit: Future[None] | None = None
        self._committed_at = 0.0

    def run(self, send: Callable[[Any], Coroutine[Any, Any, Receipt]]) -> tuple[Receipt, str]:
        """Sends the file from this thread; returns the receipt and the digest of the whole. Raises what a transport raises.

        However it ends, what was acknowledged is in the journal.
        """
        try:
            receipt = drive(send(self))
            with self._noting:
                self._point = None  # the receipt says more
            return receipt, self._finish()
        except BaseException:
            self._flush(lambda commit: commit.result())
            raise

    # The doors

    async def read(self, offset: int, length: int) -> FileSlice:
        check(self._fd, self._stamp)
        end = min(offset + length, self.size)
        observers = (self._digest.observe,)
        if end < self.size:
            # The kernel fetches the next piece while this one is on the wire.
            os.posix_fadvise(self._fd, end, length, os.POSIX_FADV_WILLNEED)
            return FileSlice(self._fd, offset, end - offset, observers=observers)
        if end - offset > HELD:
            guard = partial(_check_end, self._fd, self._stamp)
            return FileSlice(self._fd, offset, end - offset, observers=observers, guard=guard)
        data = b""
        while len(data) < end - offset:
            piece = os.pread(self._fd, end - offset - len(data), offset + len(data))
            if not piece:
                raise Changed("the file became shorter")
            data += piece
        _check_end(self._fd, self._stamp)
        return FileSlice(self._fd, offset, len(data), data, observers)

    async def call(self, request: Request) -> Reply:
        body = request.body
        if isinstance(body, FileSlice):
            request = replace(request, body=body.observed_by(self._count))
        try:
            return self._exchange(request, getattr(_here, "abort", self.abort))
        except Retry as trouble:
            if isinstance(body, FileSlice):
                if isinstance(trouble, Offline):
                    self._abreast.broke()
                check(self._fd, self._stamp)  # a file that became shorter breaks the exchange too
            raise

    async def save(self, point: Any, sent: int, *, sure: bool = False) -> None:
        with self._noting:
            self._point = (point, sent)
            self._push()
            commit, since = self._commit, time.monotonic() - self._committed_at
        self._rest()
        if sure:
            self._flush(self.abort.result)
        elif commit is not None and since > LAG:
            self.abort.result(commit)

    async def whole(self) -> None:
        # What an earlier attempt sent is not in the digest; later, an end of this one would cost the receipt.
        self._digest.finish(self._fd, self.size, lambda: self.abort.called)
        check(self._fd, self._stamp)

    async def digested(self, offset: int, length: int, into: Hash) -> None:
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
        numbers: Sequence[int],
        send: Callable[[int], Coroutine[Any, Any, T]],
        done: Callable[[int, T], Coroutine[Any, Any, None]],
    ) -> None:
        left = deque(numbers)
        abort = self.abort.child()
        picking, noting = threading.Lock(), threading.Lock()
        failures: list[BaseException] = []
        beside: list[Future[None]] = []  # threads that were begun
        at_work = 1

        def pick(helps: bool) -> int | None:
            """Returns what a thread is to send next; None where it is one too many, or nothing is left."""
            nonlocal at_work
            with picking:
                if left and not (helps and at_work > self._abreast.most):
                    return left.popleft()
                at_work -= 1
                return None

        def fill() -> None:
            """Begins as many threads as may be at work."""
            nonlocal at_work
            with picking:
                most = min(self._threads.parts, self._abreast.most)
                for _ in range(int(min(most - at_work, len(left) - 1))):  # whoever calls takes one of them
                    beside.append(self._threads.part(partial(one_after_another, helps=True)))
                    at_work += 1

        def one_after_another(helps: bool) -> None:
            _here.abort = abort
            try:
                while not abort.called and (number := pick(helps)) is not None:
                    began, together = time.monotonic(), at_work
                    result = drive(send(number))
                    self._abreast.took(time.monotonic() - began, together)
                    with noting:
                        drive(done(number, result))
                    fill()
            except BaseException as failure:  # noqa: BLE001 - raised again below
                failures.append(failure)
                abort()
            finally:
                del _here.abort

        try:
            fill()
        except RuntimeError as failure:  # there are no threads any more
            failures.append(failure)
            abort()
        one_after_another(helps=False)
        for other in beside:
            if not other.cancel():  # what has not begun by now has nothing left to do
                other.result()
        if failures:
            raise failures[0]
        if abort.called:
            raise Stopped

    async def confirm(self) -> Receipt | None:
        return self.abort.result(self._confirm())

    def now(self, url: str) -> float:
        return self._now(url)

    def order(self, urls: tuple[str, ...]) -> list[str]:
        return self._order(urls)

    def better(self, url: str, other: str) -> None:
        self._better(url, other)

    # Accounts

    def _count(self, offset: int, data: bytes | memoryview) -> None:
        """Notes what leaves: of a piece that breaks off, no more than that was sent."""
        end = offset + len(data)
        with self._counting:
            self.resent += self._ever.add(offset, end)
            self._pieces += len(data) - self._here_before.add(offset, end)

    @property
    def wasted(self) -> int:
        """Bytes that were sent and not acknowledged: whoever goes on sends them again."""
        return max(0, self._pieces - max(0, self._acknowledged - self._begun)) + self.resent

    @property
    def unsaved(self) -> int:
        """Bytes that the finished upload acknowledged beyond the last save."""
        return self.size - self._acknowledged

    def _push(self) -> None:
        """Sends what is known of the server's progress to the journal, unless an earlier commit is under way.

        One commit may stand for several parts, so that no part has to wait for a disk. Raises what the last one met.
        """
        if self._point is None or (self._commit is not None and not self._commit.done()):
            return
        if self._commit is not None:
            self._commit.result()
        (point, sent), self._point = self._point, None
        with self._counting:
            resent, self.resent = self.resent, 0
        more, self._acknowledged = max(0, sent - self._acknowledged), sent
        self._committed_at = time.monotonic()
        self._commit = self._save(msgspec.json.encode(point).decode(), sent, more, resent)
        self._commit.add_done_callback(self._pushed)

    def _pushed(self, commit: "Future[None]") -> None:
        """Sends on what came while a commit was under way; in the journal's thread."""
        if not commit.cancelled() and commit.exception() is None:
            with self._noting:
                self._push()

    def _flush(self, wait: "Callable[[Future[None]], None]") -> None:
        """Waits until all that is known is in the journal."""
        while True:
            with self._noting:
                self._push()
                commit, more = self._commit, self._point is not None
            if commit is None:
                return
            wait(commit)
            if not more:
                return

    def _finish(self) -> str:
        digest = self._digest.finish(self._fd, self.size, lambda: self.abort.called)
        check(self._fd, self._stamp)
        return digest
