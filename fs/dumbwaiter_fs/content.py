"""The bytes of a file: from the local original while it is unchanged, else from the provider.

An open file is one version. As long as anybody has a path open, that path stands for the version which the first of
them found there: the kernel keeps one cache and one size for a path, so two versions at once would be mixed.
"""

import errno
import itertools
import os
import stat
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from dumbwaiter.catalog import Waiting
from dumbwaiter.config import RESERVED
from dumbwaiter.files.roots import network_at, open_root, resolved
from dumbwaiter.model import MIB, Entry, Stamp
from dumbwaiter_fs.disk import Disk
from dumbwaiter_fs.errnos import Refused
from dumbwaiter_fs.openat2 import anywhere, below
from dumbwaiter_fs.origins import origin
from dumbwaiter_fs.remote import Remote
from dumbwaiter_fs.sources import Live, Original, Source
from dumbwaiter_fs.version import Version
from dumbwaiter_fs.versions import Versions

ROOM = MIB  # the kernel asks for no more at a time
MOUNTED = 10.0  # seconds for which what is mounted is not looked up again
PATHS = 10_000  # whose page cache we know, or whose last trouble

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class _Shared:
    """A version that is open, and by how many."""

    def __init__(self, entry: Entry, remote: Version) -> None:
        self.entry = entry
        self.remote = remote
        self.originals: list[Original] = []  # one, or more where several began at the same moment
        self.count = 0
        self.cached: type[Source] | None = None  # whose bytes the kernel's page cache holds


class _Pages(NamedTuple):
    """What the kernel's page cache holds of a path."""

    name: str  # of the version
    kind: type[Source] | None
    validator: str = ""  # once the last reader has closed it


class _Handle:
    def __init__(self, source: Source, path: str, size: int | None, *, keeps: bool = False) -> None:
        self.source = source
        self.path = path
        self.size = size  # None: ends where reading ends
        self.keeps = keeps


class Contents:
    """All open files. Any thread may call."""

    def __init__(self, folder_of: Callable[[str], str | None], remote: Remote) -> None:
        self._folder_of = folder_of
        self._remote = remote
        self._versions = Versions(remote)
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._handles: dict[int, _Handle] = {}
        self._shared: dict[str, _Shared] = {}
        self._troubles: dict[str, str] = {}
        self._room = bytearray(ROOM)  # for what is given without a wait
        self._disks: defaultdict[str, Disk] = defaultdict(Disk)  # by watch
        self._hanging: dict[str, tuple[float, bool]] = {}  # by watch: until when it is known, and whether its disk may
        self._page_cache: OrderedDict[str, _Pages] = OrderedDict()  # the kernel's, by path

    def held(self, path: str) -> Entry | None:
        """Returns the version that `path` stands for because somebody has it open."""
        shared = self._shared.get(path)
        return shared.entry if shared else None

    def opened(self) -> dict[str, Entry]:
        """Returns the versions that somebody has open, by the paths that stand for them."""
        with self._lock:
            return {path: shared.entry for path, shared in self._shared.items()}

    def live(self, path: str) -> os.stat_result | None:
        """Returns what a file is like that somebody opened when it was not done yet, whatever became of its name."""
        with self._lock:
            handles = [handle for handle in self._handles.values() if handle.path == path]
        for source in (handle.source for handle in handles):
            if isinstance(source, Live):
                with suppress(OSError):
                    return source.status()
        return None

    def now(self, waiting: Waiting) -> os.stat_result | None:
        """Returns what the local file is like, None when it cannot be found."""
        try:
            with self._disks[waiting.watch]:
                descriptor, status = self._local(waiting.watch, waiting.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        os.close(descriptor)
        return status if stat.S_ISREG(status.st_mode) else None

    def open(self, path: str, file: Entry | Waiting) -> tuple[int, bool]:
        """Returns a handle, and whether its reads must go past the page cache (direct_io). Raises an errno."""
        if isinstance(file, Waiting):
            return self._number(_Handle(self._live(file), path, None)), True
        with self._lock:
            shared = self._shared.get(path)
            if shared is None:
                shared = self._shared[path] = _Shared(file, self._versions.hold(file))
            shared.count += 1
        try:
            source = self._source(shared)
        except BaseException as error:
            self._leave(path)
            self._note(path, error)
            raise
        with self._lock:
            shared.cached = shared.cached or type(source)
            direct_io = shared.cached is not type(source)
            keeps = not direct_io and self._keeps_pages(path, shared)
        return self._number(_Handle(source, path, shared.entry.size, keeps=keeps)), direct_io

    def keeps(self, number: int) -> bool:
        """True when what the kernel still has of this path is of the version that was opened."""
        handle = self._handles.get(number)
        return handle is not None and handle.keeps

    def size(self, number: int) -> int | None:
        """Returns the size of the version that was opened, None of a file that is not done."""
        handle = self._handles.get(number)
        return None if handle is None else handle.size

    def read(self, number: int, size: int, offset: int) -> bytes:
        """Returns `size` bytes, fewer only at the end of the file. Raises an errno."""
        handle = self._handles.get(number)
        if handle is None:
            raise Refused(errno.EBADF)
        wanted = size if handle.size is None else min(size, max(0, handle.size - offset))
        if wanted <= 0:
            return b""
        try:
            data = handle.source.read(offset, wanted)
        except OSError as error:
            self._page_cache.pop(handle.path, None)  # what it has may be of a version that is no more
            self._note(handle.path, error)
            raise
        self._troubles.pop(handle.path, None)
        # The kernel takes a short answer for the end of the file and cuts it there.
        if len(data) > wanted or (len(data) < wanted and handle.size is not None):
            raise Refused(errno.EIO, "the source gave another length")
        return data

    def read_nowait(self, number: int, size: int, offset: int) -> list[memoryview] | None:
        """Returns what `read` would, in pieces, if all of it is in memory; None if not, and where `read` would fail.

        One caller at a time; the pieces are good until its next call.
        """
        handle = self._handles.get(number)
        if handle is None or handle.size is None or offset >= handle.size:
            return None
        pieces = handle.source.read_nowait(offset, min(size, handle.size - offset))
        if pieces is not None:
            self._troubles.pop(handle.path, None)
        return pieces

    def prefetch(self, number: int, offset: int) -> None:
        """Gets the block at `offset` if that is in memory: after `read_nowait`, by its caller, who has time now."""
        if (handle := self._handles.get(number)) is not None:
            handle.source.prefetch(offset)

    def trouble(self, path: str, entry: Entry) -> str | None:
        """Returns why the last open or read of `path` failed, or why the next one will; None as far as all is well."""
        if (why := self._troubles.get(path)) is not None or entry.url is not None:
            return why
        try:
            with self._disks[entry.watch]:
                original = self._original(entry)
        except Refused as error:
            if error.errno != errno.ETIMEDOUT:
                raise
            return error.why
        if original is None:
            return "the original is gone, and the catalog has no link"
        original.release()
        return None

    def _note(self, path: str, error: BaseException) -> None:
        if isinstance(error, Refused) and error.why:
            self._troubles[path] = error.why
            if len(self._troubles) > PATHS:
                del self._troubles[next(iter(self._troubles))]

    def release(self, number: int) -> None:
        with self._lock:
            handle = self._handles.pop(number, None)
        if handle is None:
            return
        if handle.size is not None:
            self._leave(handle.path)
        handle.source.close()

    def close(self) -> None:
        """Closes what is still open; connections too."""
        for number in list(self._handles):
            self.release(number)
        self._remote.close()

    def _keeps_pages(self, path: str, shared: _Shared) -> bool:
        """Notes what the page cache will hold of a path from now on; returns whether what it holds is of that already."""
        now, before = _Pages(shared.remote.name, shared.cached), self._page_cache.pop(path, None)
        same = before is not None and before[:2] == now[:2]
        if same and shared.cached is Version and shared.count == 1:
            # What comes next has to be of the version that the kernel has a part of.
            same = before is not None and bool(before.validator) and shared.remote.matches(before.validator)
        self._page_cache[path] = now  # behind all others; a read that fails meanwhile may take it out again
        if len(self._page_cache) > PATHS:
            self._page_cache.popitem(last=False)
        return same

    def _number(self, handle: _Handle) -> int:
        with self._lock:
            number = next(self._numbers)
            self._handles[number] = handle
        return number

    def _leave(self, path: str) -> None:
        with self._lock:
            shared = self._shared[path]
            shared.count -= 1
            if shared.count:
                return
            del self._shared[path]
            if (pages := self._page_cache.get(path)) is not None and pages.name == shared.remote.name:
                self._page_cache[path] = pages._replace(validator=shared.remote.validator or "")
        shared.remote.release()
        for original in shared.originals:
            original.release()

    def _source(self, shared: _Shared) -> Source:
        if (original := self._here(shared)) is not None:
            return original
        if shared.remote.stale:
            raise Refused(errno.ESTALE, shared.remote.stale)
        if shared.entry.url is None:
            shared.remote.address()  # nothing else says whether there is a way
        elif shared.entry.size:
            origin(shared.entry.url)
        return shared.remote

    def _here(self, shared: _Shared) -> Original | None:
        """Returns the local original, None where there is none, or where its disk does not answer in time."""
        entry = shared.entry
        folder = self._folder_of(entry.watch)
        if folder is None:
            return None
        disk = self._disks[entry.watch]

        def look() -> Original | None:
            opened = (original for original in shared.originals if original.unchanged())
            return next(opened, None) or self._original(entry)

        def drop(original: Original | None) -> None:
            if original is not None and original not in shared.originals:
                original.release()

        try:
            if entry.url is not None and self._may_hang(entry.watch, folder):
                original = disk.soon(look, drop)
            else:
                with disk:
                    original = look()
        except Refused as error:
            if error.errno != errno.ETIMEDOUT or entry.url is None:
                raise
            return None
        if original is not None and original not in shared.originals:
            shared.originals.append(original)
        return original

    def _may_hang(self, watch: str, folder: str) -> bool:
        """Returns whether a watch's folder is on another machine's disk: one of our own answers, or fails."""
        until, may = self._hanging.get(watch, (0.0, True))
        if folder != "/" and until < (now := time.monotonic()):
            may = bool(network_at(resolved(folder)))
            self._hanging[watch] = now + MOUNTED, may
        return may

    def _original(self, entry: Entry) -> Original | None:
        try:
            descriptor, status = self._local(entry.watch, entry.path, _FLAGS)
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
                raise Refused(error.errno, "the local file") from None  # it may be there
            return None
        if stat.S_ISREG(status.st_mode) and Stamp.of(status).same_bytes(entry.stamp):
            return Original(descriptor, entry.stamp, self._room, self._disks[entry.watch])
        os.close(descriptor)
        return None

    def _live(self, waiting: Waiting) -> Live:
        try:
            with self._disks[waiting.watch]:
                descriptor, status = self._local(waiting.watch, waiting.path, _FLAGS)
        except OSError as error:
            known = {errno.ENOENT, errno.EACCES, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT}
            raise Refused(error.errno if error.errno in known else errno.ENXIO, "the local file") from None
        # Links lead to what was named on the command line, and by now they may lead to something else.
        if stat.S_ISREG(status.st_mode) and (waiting.watch != RESERVED or Stamp.of(status).same_bytes(waiting.stamp)):
            return Live(descriptor, self._disks[waiting.watch])
        os.close(descriptor)
        raise Refused(errno.ENXIO, "the local file is none")

    def _local(self, watch: str, path: str, flags: int) -> tuple[int, os.stat_result]:
        """Opens a file of a watch, by a caller who is at its disk. Returns what it is like too."""
        folder = self._folder_of(watch)
        if folder is None:
            raise FileNotFoundError(errno.ENOENT, "the watch is not configured here")
        if folder == "/":  # named on the command line, by whatever links the person used
            descriptor = anywhere(f"/{path}", flags)
        else:
            base = open_root(folder, os.O_PATH)
            try:
                descriptor = below(base, path, flags)
            finally:
                os.close(base)
        try:
            return descriptor, os.fstat(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
