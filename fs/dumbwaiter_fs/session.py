"""The fast session: the kernel's protocol spoken on the mount's own descriptor, with the same `Operations` behind it.

What it is for: a listing goes out together with its attributes (READDIRPLUS), in a tenth of the time of a question for
each name. One thread at a time holds the descriptor and answers what needs the catalog only, and reads of what is in
memory; one that draws a call which may take long hands the descriptor on first, so a slow read never stops a listing.
Between two calls of a walk the next folder is packed (`packing`); it is given out only if the catalog is still the
same. Files are found again by their number, folders are kept as long as the kernel knows them.
"""

import errno
import os
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import NamedTuple

from dumbwaiter import log
from dumbwaiter_fs import virtual, wire
from dumbwaiter_fs.attributes import PREFIX
from dumbwaiter_fs.errnos import Refused, code_of
from dumbwaiter_fs.inodes import NAMED, TREES, Inode
from dumbwaiter_fs.known import Known, below
from dumbwaiter_fs.operations import Operations, name_of, refuse_foreign, refuse_writing, tell
from dumbwaiter_fs.packing import Freshness, Listing, Packing
from dumbwaiter_fs.trees import Trees
from dumbwaiter_fs.wire import Op

THREADS = 64  # as many as the kernel reads ahead at once, each for as long as an answer takes
SPARE = 3  # threads that stay for the next slow call
BACKGROUND = 64  # reads ahead that the kernel may have waiting; with fewer they would hold up everybody's

_OURS = PREFIX.encode()

_log = log.get(__name__)


class _Call(NamedTuple):
    """A message of the kernel."""

    op: int
    unique: int
    number: int
    body: bytes


class Session:
    """One mount on one descriptor. `run` answers until the mount is taken off."""

    def __init__(self, descriptor: int, operations: Operations, trees: Trees) -> None:
        self._descriptor = descriptor
        self._operations = operations
        self._packer = wire.Packer(os.getuid(), os.getgid())
        self.freshness = Freshness()
        self.known = Known()
        self._packing = Packing(self._packer, trees, self.freshness)
        self._handles = count(1)
        self._listings: dict[int, Listing] = {}
        self._listed: bytes | None = None  # the folder whose first entries have just gone out
        self._lead = threading.Lock()  # who has it reads the descriptor, into this
        self._buffer = bytearray(wire.BUFFER)
        self._guard = threading.Lock()  # of changes to the fields below
        self._over = False
        self._waiting = 0
        self._threads: set[threading.Thread] = set()
        self._backlog: deque[_Call] = deque()
        self._in_progress: dict[int, bool] = {}  # calls that may take long, and whether their caller has given up
        self._quick: dict[int, Callable[[_Call], bytes]] = {
            Op.LOOKUP: self._lookup,
            Op.GETATTR: self._getattr,
            Op.READLINK: self._readlink,
            Op.GETXATTR: self._getxattr,
            Op.LISTXATTR: self._listxattr,
            Op.OPENDIR: self._opendir,
            Op.READDIR: self._readdir,
            Op.READDIRPLUS: self._readdirplus,
            Op.RELEASEDIR: self._releasedir,
            Op.INIT: self._init,
            Op.DESTROY: lambda _call: b"",
        }
        self._slow: dict[int, Callable[[_Call], bytes]] = {
            Op.READ: self._read,
            Op.OPEN: self._open,
            Op.STATFS: self._statfs,
            Op.RELEASE: self._release,  # an original's disk may have to answer to its close
        }

    def run(self) -> None:
        """Answers the kernel until the mount is taken off."""
        self._work(stays=True)
        for thread in list(self._threads):
            thread.join()

    # The loop

    def _work(self, *, stays: bool = False) -> None:
        while True:
            with self._guard:
                call = self._backlog.popleft() if self._backlog else None
                if call is None and self._waiting > SPARE and not stays:
                    self._threads.discard(threading.current_thread())
                    return
                if call is None:
                    self._waiting += 1
            if call is None:
                with self._lead:
                    with self._guard:
                        self._waiting -= 1
                    call = self._serve()
            if call is None:
                return
            self._answer_slow(call)

    def _serve(self) -> _Call | None:
        """Answers quick calls. Returns a slow one, when there is another thread to go on, or None at the end."""
        descriptor, buffer = self._descriptor, self._buffer
        into = [buffer]
        while not self._over:
            try:
                length = os.readv(descriptor, into)
            except OSError as error:
                if error.errno in {errno.ENOENT, errno.EINTR, errno.EAGAIN}:
                    continue  # its caller is gone
                if error.errno not in {errno.ENODEV, errno.ECONNABORTED}:  # taken off, by others perhaps
                    _log.error("the kernel's descriptor fails", errno=errno.errorcode.get(error.errno or 0))
                break
            if not length:
                break
            _, op, unique, number, *_ = wire.IN.unpack_from(buffer)
            if op == Op.READ and self._read_nowait(unique, length):
                continue
            call = _Call(op, unique, number, bytes(buffer[wire.IN.size : length]))
            if op in self._slow or self._takes_long(call):
                if self._hand_on(call):
                    return call
            elif op == Op.FORGET:
                self.known.forget(number, wire.LONG.unpack_from(call.body)[0])
            elif op == Op.BATCH_FORGET:
                for one, times in wire.batch_forget(call.body):
                    self.known.forget(one, times)
            elif op == Op.INTERRUPT:
                self._interrupt(wire.LONG.unpack_from(call.body)[0])
            else:
                self._reply(unique, *self._answer(call, self._quick))
                if (listed := self._listed) is not None:
                    self._listed = None
                    self._packing.walk_on(listed)
        self._over = True
        return None

    def _read_nowait(self, unique: int, length: int) -> bool:
        """Answers a read of what is in memory here or in the kernel: to hand on the descriptor costs more than that."""
        if length < wire.IN.size + wire.READ_IN.size:
            return False
        handle, offset, size = wire.READ_IN.unpack_from(self._buffer, wire.IN.size)
        try:
            pieces = self._operations.read_nowait(handle, size, offset)
        except Exception:  # noqa: BLE001 - whatever it is, the read that may wait meets it too, and says so
            return False
        if pieces is None:
            return False
        self._write(wire.OUT.pack(wire.OUT.size + sum(map(len, pieces)), 0, unique), *pieces)
        with suppress(Exception):
            self._operations.prefetch(handle, offset + size)  # while the reader copies what he got
        return True

    def _takes_long(self, call: _Call) -> bool:
        """True for what looks at a local file, or goes through a whole folder."""
        if call.op == Op.LOOKUP:
            above = self.known.path(call.number)
            return above is not None and (above.startswith(b"outbox") or virtual.may_be(call.body[:-1]))
        if call.op == Op.GETATTR and call.number & NAMED:
            path = self.known.path(call.number)
            return path is not None and virtual.may_be(path.rpartition(b"/")[2])
        if call.op == Op.LISTXATTR or (call.op == Op.GETXATTR and call.body.startswith(_OURS, wire.SIZE_IN.size)):
            return not call.number & NAMED  # whether a file can be read is among its attributes
        return call.op == Op.GETATTR and call.number & 3 == TREES["outbox"].code

    def _hand_on(self, call: _Call) -> bool:
        """True when another thread goes on in this one's place; else the call waits for a thread that is done."""
        with self._guard:
            self._in_progress[call.unique] = False
            if self._waiting:
                return True
            if len(self._threads) == THREADS:
                self._backlog.append(call)
                return False
            thread = threading.Thread(target=self._work, name="fuse-reader", daemon=True)
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # the system lets us have no more
            return self._hand_on_without(thread, call)
        return True

    def _hand_on_without(self, thread: threading.Thread, call: _Call) -> bool:
        """As `_hand_on`, when no thread can be had; where there is no other one either, the call is answered here."""
        with self._guard:
            self._threads.discard(thread)
            if self._waiting:
                return True
            if self._threads:
                self._backlog.append(call)
                return False
        self._answer_slow(call)
        return False

    def _answer_slow(self, call: _Call) -> None:
        error, payload = self._answer(call, self._slow if call.op in self._slow else self._quick)
        with self._guard:
            abandoned = self._in_progress.pop(call.unique, False)
        if not abandoned:
            self._reply(call.unique, error, payload)
        elif call.op == Op.OPEN and not error:
            handle = wire.OPEN_OUT.unpack_from(payload)[0]
            self._operations.release_handle(handle)
        elif call.op == Op.LOOKUP and not error:  # the kernel was not told, and will not forget
            self.known.forget(wire.LONG.unpack_from(payload)[0], 1)

    def _interrupt(self, unique: int) -> None:
        """Lets a caller go that has had a signal; what is under way for it ends by itself."""
        with self._guard:
            if self._in_progress.get(unique) is not False:
                return
            self._in_progress[unique] = True
        self._reply(unique, errno.EINTR, b"")

    def _answer(self, call: _Call, answers: dict[int, Callable[[_Call], bytes]]) -> tuple[int, bytes]:
        """Returns errno and payload, whatever happens."""
        answer = answers.get(call.op)
        if answer is None:
            return (errno.EROFS if call.op in wire.WRITES else errno.ENOSYS), b""
        try:
            return 0, answer(call)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the kernel gets a number that means it
            code = errno.ERANGE if isinstance(error, _TooSmall) else code_of(error)
            if code != errno.ERANGE:
                tell(Op(call.op).name.lower(), self._path_of(call.number), error, code)
            return code, b""

    def _reply(self, unique: int, error: int, payload: bytes) -> None:
        head = wire.OUT.pack(wire.OUT.size + len(payload), -error, unique)
        if len(payload) > 1 << 15:
            self._write(head, payload)
        else:
            self._write(head + payload)

    def _write(self, *pieces: bytes | memoryview) -> None:
        try:
            os.writev(self._descriptor, pieces)
        except OSError as failure:
            # The caller was killed, or the mount is being taken off.
            if failure.errno not in {errno.ENOENT, errno.ENODEV, errno.EBADF, errno.ENOTCONN}:
                _log.error("the kernel refuses an answer", errno=errno.errorcode.get(failure.errno or 0))

    # Numbers

    def _path_of(self, number: int) -> str:
        path = self.known.path(number)
        return name_of(number) if path is None else path.decode("utf-8", "surrogateescape")

    def _folder(self, number: int) -> bytes:
        path = self.known.path(number)
        if path is None:
            raise Refused(errno.ESTALE if number & NAMED else errno.ENOTDIR)
        return path

    def _inode(self, number: int) -> Inode:
        """Returns what has a number. Raises ESTALE: the kernel looks again by name."""
        if (path := self.known.path(number)) is not None:
            return self._operations.find(path)
        return self._operations.by_number(number)

    # Calls

    def _init(self, call: _Call) -> bytes:
        major, minor, _readahead, flags = wire.INIT_IN.unpack_from(call.body)
        if major < wire.MAJOR or (major == wire.MAJOR and minor < wire.OLDEST):
            raise Refused(errno.EIO, "the kernel's protocol is too old for the fast session")
        answer = wire.init(minor, flags, BACKGROUND)
        self._operations("init", "/")
        return answer

    def _lookup(self, call: _Call) -> bytes:
        change = self.freshness.changes
        path = below(self._folder(call.number), call.body[: call.body.index(b"\0")])
        inode = self._operations.find(path)
        if inode.number & NAMED:
            self.known.add(inode.number, path)
        return self._packer.entry(*inode[:5], self._valid_for(inode, path, change))

    def _valid_for(self, inode: Inode, path: bytes, change: int) -> int:
        """Returns how long the kernel may keep an answer: not at all if it may be old already, or soon will be."""
        passing = inode.waiting or path.startswith(b"outbox/") or inode.text is not None
        return 0 if passing or change != self.freshness.changes else self.freshness.valid

    def _getattr(self, call: _Call) -> bytes:
        change = self.freshness.changes
        inode = self._inode(call.number)
        valid = self._valid_for(inode, self.known.path(call.number) or b"", change)
        return self._packer.attributes(*inode[:5], valid)

    def _readlink(self, call: _Call) -> bytes:
        raise Refused(errno.EINVAL)

    def _statfs(self, call: _Call) -> bytes:
        facts = self._operations.statfs("/")
        return wire.STATFS_OUT.pack(
            *(facts[f"f_{name}"] for name in ("blocks", "bfree", "bavail", "files", "ffree", "bsize", "namemax")),
            facts["f_frsize"],
            0,
        )

    def _getxattr(self, call: _Call) -> bytes:
        size = wire.SIZE_IN.unpack_from(call.body)[0]
        name = call.body[wire.SIZE_IN.size : -1].decode("utf-8", "surrogateescape")
        refuse_foreign(name)
        return _sized(self._operations.fact(self._inode(call.number), name), size)

    def _listxattr(self, call: _Call) -> bytes:
        size = wire.SIZE_IN.unpack_from(call.body)[0]
        names = self._operations.facts(self._inode(call.number))
        return _sized(b"".join(name.encode() + b"\0" for name in names), size)

    def _open(self, call: _Call) -> bytes:
        refuse_writing(wire.OPEN_IN.unpack_from(call.body)[0])
        opened = self._operations.open_inode(self._inode(call.number))
        flags = wire.DIRECT_IO if opened.direct_io else wire.KEEP_CACHE if opened.keep_cache else 0
        return wire.OPEN_OUT.pack(opened.handle, flags, 0)

    def _read(self, call: _Call) -> bytes:
        handle, offset, size = wire.READ_IN.unpack_from(call.body)
        return self._operations.read_handle(handle, size, offset)

    def _release(self, call: _Call) -> bytes:
        self._operations.release_handle(wire.LONG.unpack_from(call.body)[0])
        return b""

    # Folders

    def _opendir(self, call: _Call) -> bytes:
        path = self._folder(call.number)
        handle = next(self._handles)
        self._listings[handle] = Listing(lambda: self._packing.pages(path))
        return wire.OPEN_OUT.pack(handle, 0, 0)

    def _releasedir(self, call: _Call) -> bytes:
        self._listings.pop(wire.LONG.unpack_from(call.body)[0], None)
        return b""

    def _readdir(self, call: _Call) -> bytes:
        return self._list(call, plus=False)

    def _readdirplus(self, call: _Call) -> bytes:
        return self._list(call, plus=True)

    def _list(self, call: _Call, *, plus: bool) -> bytes:
        handle, offset, size = wire.READ_IN.unpack_from(call.body)
        listing = self._listings.get(handle)
        if listing is None:
            raise Refused(errno.EBADF)
        page = listing.at(offset)
        if page is None:
            return b""
        if not offset:
            self._listed = self._folder(call.number)
        start = offset - page.first
        before = page.start(start)
        if not plus:
            stop = start
            while stop < len(page.ends) and page.ends[stop] - before - (stop + 1 - start) * wire.HEAD <= size:
                stop += 1
            return b"".join([entry[wire.HEAD :] for entry in page.some(start, stop)])
        stop = bisect_right(page.ends, before + size)
        if page.change != self.freshness.changes:
            return b"".join([wire.without_attributes(entry) for entry in page.some(start, stop)])
        if page.folders:
            above = self._folder(call.number)
            for entry, number in zip(page.some(start, stop), page.folders[start:stop], strict=True):
                if number:
                    self.known.add(number, below(above, wire.name_of(entry)))
        return page.packed[before : page.start(stop)]


class _TooSmall(Exception):
    """The caller's buffer has no room for the value."""


def _sized(value: bytes, size: int) -> bytes:
    """Answers a question for a value, or, with no room given, for its length."""
    if not size:
        return wire.SIZE_IN.pack(len(value), 0)
    if len(value) > size:
        raise _TooSmall
    return value
