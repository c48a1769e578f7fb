"""One file on its way: the doors of `doors.Upload` over an open file, the HTTP edge and the journal, for threads."""

import os
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeVar

from msgspec.structs import replace

from dumbwaiter.doors import Hash
from dumbwaiter.errors import Changed, Offline, Retry
from dumbwaiter.files.digest import Digest
from dumbwaiter.files.version import check, check_end
from dumbwaiter.jobs.parts import SideBySide, abort_of_part
from dumbwaiter.jobs.progress import Progress
from dumbwaiter.jobs.threads import Threads, drive
from dumbwaiter.model import MIB, Ask, Receipt, Stamp
from dumbwaiter.net.abort import Abort
from dumbwaiter.net.pace import Abreast
from dumbwaiter.wire.message import FileSlice, Reply, Request

HELD = MIB  # the longest last piece that is read before it is sent
IN_FLIGHT = 4 * MIB  # what may have been on the wire when an earlier attempt ended
T = TypeVar("T")


class Line(Protocol):
    """What the transports of a provider's files share: the way to its upload nodes. Used from any thread."""

    abreast: Abreast

    def exchange(self, request: Request, abort: Abort) -> Reply:
        """Sends a request and returns the reply. Raises `Retry` for trouble on the way."""
        ...

    def order(self, urls: Sequence[str]) -> list[str]:
        """Returns the upload nodes in the order in which they are to be tried."""
        ...

    def better(self, url: str, other: str) -> None:
        """Has `other` tried before `url` from now on."""
        ...

    def now(self, url: str) -> float:
        """Returns the time as the server at `url` has it."""
        ...


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
        progress: Progress,
        rest: Callable[[], None] = lambda: None,
        line: Line,
        confirm: Callable[[], "Future[Receipt | None]"],
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
        self._progress = progress
        self._rest = rest
        self._line = line
        self._confirm = confirm
        self._digest = Digest()

    def run(self, send: Callable[[Any], Coroutine[Any, Any, Receipt]]) -> tuple[Receipt, str]:
        """Sends the file from this thread; returns the receipt and the digest of the whole. Raises what a transport raises.

        However it ends, what was acknowledged is in the journal.
        """
        try:
            receipt = drive(send(self))
            self._progress.drop()  # the receipt says more
            return receipt, self._finish()
        except BaseException:
            self._progress.flush(lambda commit: commit.result())
            raise

    # The doors

    async def read(self, offset: int, length: int) -> FileSlice:
        check(self._fd, self._stamp)
        end = min(offset + length, self.size)
        observers = (self._digest.observe,)
        if end < self.size:
            with suppress(OSError):  # the kernel fetches the next piece while this one is on the wire, if it can
                os.posix_fadvise(self._fd, end, length, os.POSIX_FADV_WILLNEED)
            return FileSlice(self._fd, offset, end - offset, observers=observers)
        if end - offset > HELD:
            guard = partial(check_end, self._fd, self._stamp)
            return FileSlice(self._fd, offset, end - offset, observers=observers, guard=guard)
        data = b""
        while len(data) < end - offset:
            piece = os.pread(self._fd, end - offset - len(data), offset + len(data))
            if not piece:
                raise Changed("the file became shorter")
            data += piece
        check_end(self._fd, self._stamp)
        return FileSlice(self._fd, offset, len(data), data, observers)

    async def call(self, request: Request) -> Reply:
        body = request.body
        if isinstance(body, FileSlice):
            request = replace(request, body=body.observed_by(self._progress.sent.count))
        try:
            return self._line.exchange(request, abort_of_part() or self.abort)
        except Retry as trouble:
            if isinstance(body, FileSlice):
                if isinstance(trouble, Offline):
                    self._line.abreast.broke()
                check(self._fd, self._stamp)  # a file that became shorter breaks the exchange too
            raise

    async def save(self, point: Any, sent: int, *, sure: bool = False) -> None:
        late = self._progress.note(point, sent)
        self._rest()
        if sure:
            self._progress.flush(self.abort.result)
        elif late is not None:
            self.abort.result(late)

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
        SideBySide(self._threads, self._line.abreast, self.abort.child()).run(numbers, send, done)

    async def confirm(self) -> Receipt | None:
        return self.abort.result(self._confirm())

    def now(self, url: str) -> float:
        return self._line.now(url)

    def order(self, urls: tuple[str, ...]) -> list[str]:
        return self._line.order(urls)

    def better(self, url: str, other: str) -> None:
        self._line.better(url, other)

    def _finish(self) -> str:
        digest = self._digest.finish(self._fd, self.size, lambda: self.abort.called)
        check(self._fd, self._stamp)
        return digest
