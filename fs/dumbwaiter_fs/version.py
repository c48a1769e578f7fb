"""The bytes of one version of a remote file, block by block: from memory, from the cache on disk, else by a ranged GET.

Its first reply pins its validator (RFC 9110: the ETag, else Last-Modified); a reply with another one is never used. A
block is fetched once, however many wait for it. Nothing is asked for in advance beyond as much as was read sequentially
before, 64 MiB at most. Every read ends by a deadline.
"""

import contextlib
import errno
import threading
import time
from collections import OrderedDict

import httpx

from dumbwaiter.model import MIB, Entry
from dumbwaiter.wire.address import expires_at
from dumbwaiter_fs.cache import BLOCK, Block, View
from dumbwaiter_fs.deadline import until
from dumbwaiter_fs.errnos import Refused
from dumbwaiter_fs.origins import origin
from dumbwaiter_fs.remote import Remote
from dumbwaiter_fs.stream import SKIP, Stream

FIRST = 4  # blocks of a file that is fetched whole at once
WINDOW_MAX = 64 * MIB // BLOCK  # blocks of one request; doubles while reading is sequential
STREAMS_OF_ONE = 8  # replies of one version left open: as many readers at places of their own


class Version:
    """What is at a url, for as long as somebody has it open: a `sources.Source` that all of them share."""

    def __init__(self, remote: Remote, name: str, entry: Entry) -> None:
        self.name = name
        self.size = entry.size
        self.stale = ""  # why it is no longer at its url
        self.etag = ""  # of the first reply
        self._holders = 0  # paths under which it is open
        self._remote = remote
        self._entry = entry
        self._url = entry.url
        self.validator: str | None = None  # ETag or date; None: nothing has been read yet
        self._blocks = -(-entry.size // BLOCK)
        self._disk = threading.Lock()
        self._changed = threading.Condition()
        self._streams: list[Stream] = []
        self._nowait_end = -1  # where the last `read_nowait` ended, and whether it went on from the one before
        self._sequential = False
        self._ends: OrderedDict[int, int] = OrderedDict()  # where requests ended, and how many blocks they brought

    def read(self, offset: int, size: int) -> bytes:
        """Returns exactly `size` bytes, which the caller has found to lie inside. Raises an errno."""
        limit = time.monotonic() + self._remote.deadline
        at, end, last = offset, offset + size, -(-(offset + size) // BLOCK)
        pieces = []
        with until(limit):
            while at < end:
                index, start = divmod(at, BLOCK)
                stop = min(BLOCK, start + end - at)
                pieces.append(memoryview(self._block(index, stop, last, limit))[start:stop])
                at += stop - start
        return b"".join(pieces)

    def read_nowait(self, offset: int, size: int) -> list[memoryview] | None:
        """Returns the same in pieces if all of it is in memory, here or in the kernel's; see `sources.Source`."""
        pieces = []
        end = offset + size
        self._sequential = offset == self._nowait_end
        self._nowait_end = end
        while offset < end:
            index, start = divmod(offset, BLOCK)
            block = self._block_nowait(index)
            if block is None or len(block.data) != self.length(index):
                return None
            if block.validator != self.validator and not self.matches(block.validator):
                return None
            piece = memoryview(block.data)[start : start + end - offset]
            pieces.append(piece)
            offset += len(piece)
        return pieces

    def prefetch(self, offset: int) -> None:
        """Reads the block that begins at `offset`, when reading is sequential, if it is in memory."""
        index, start = divmod(offset, BLOCK)
        if not start and self._sequential and index < self._blocks:
            self._block_nowait(index)

    def _block_nowait(self, index: int) -> Block | View | None:
        """Returns a block that is in memory, here or in the kernel's."""
        block = self._remote.memory.get(self.name, index)
        if block is not None or (hot := self._remote.hot) is None:
            return block
        view = hot.get(self.name, index)
        if self.stale:
            hot.drop(self.name)
            return None
        return view

    def hold(self) -> None:
        """Keeps it open until `release`."""
        with self._changed:
            self._holders += 1

    def close(self) -> None:
        """Does nothing: others may have it open. The last one's `release` closes it."""

    def release(self) -> None:
        """Closes its replies after the last holder; a later read asks again for what had not come."""
        with self._changed:
            self._holders -= 1
            if self._holders:
                return
            idle = [one for one in self._streams if one.lock.acquire(blocking=False)]
            self._streams = [*idle]  # who opens it meanwhile waits for these
        for stream in idle:
            stream.complete()
            self._done(stream, well=False)
        if not self.validator:  # the next reader could not tell whether it still is the same
            self._remote.memory.drop(self.name)

    def address(self) -> str:
        """Returns the url that is good as far as known: the catalog's, else the daemon's. Raises an errno."""
        url, links, now = self._url, self._remote.links, time.time()
        if links is not None and (url is None or (expires_at(url) or now) < now):
            url = links.get(self._entry, url)
        if url is None:
            raise Refused(errno.ENXIO, "the original is gone, and the provider gives no link")
        origin(url)
        self._url = url
        return url

    def renewed(self, refused: str) -> bool:
        """Gets another address from the daemon for one that the provider refused; False when there is none."""
        links = self._remote.links
        if links is None:
            return False
        with contextlib.suppress(Refused):
            self._url = links.get(self._entry, refused)
        return self._url != refused

    def pin(self, headers: httpx.Headers) -> None:
        """Holds a reply against the first one. Raises ESTALE when it is of another version."""
        etag = headers.get("etag", "")
        if not self.matches(etag or headers.get("last-modified", "")):
            raise self.changed("the remote has another version now")
        self.etag = etag

    def changed(self, why: str) -> Refused:
        """Notes for every handle that this version is no longer at its url, and forgets its bytes."""
        self.stale = why
        self._remote.memory.drop(self.name)
        if self._remote.cache is not None:
            self._remote.cache.drop(self.name)
        if self._remote.hot is not None:
            self._remote.hot.drop(self.name)
        return Refused(errno.ESTALE, why)

    def matches(self, validator: str) -> bool:
        """Returns whether bytes with this validator are of this version; the first one decides which one it is."""
        with self._changed:
            if self.validator is None:
                self.validator = validator
            return self.validator == validator

    def _block(self, index: int, length: int, wanted: int, limit: float) -> bytes:
        """Returns a block, or at least `length` bytes of it; the reader wants blocks up to `wanted`."""
        while True:
            if self.stale:
                raise Refused(errno.ESTALE, self.stale)
            if (data := self._at_hand(index)) is not None:
                return data
            with self._changed:
                if (data := self._in_memory(index)) is not None:
                    return data
                stream = self._turn(index, wanted)
                if stream is None:
                    if (left := limit - time.monotonic()) <= 0:
                        raise Refused(errno.ETIMEDOUT, "another read of this file takes all the time")
                    self._changed.wait(min(left, 1.0))  # a stream that is being let go tells nobody
                    continue
            well = False
            try:
                data = stream.bring(index, length)
                well = True
                return data
            finally:
                self._done(stream, well)

    def _has(self, index: int) -> bool:
        block = self._remote.memory.get(self.name, index)
        return block is not None and block.validator == self.validator

    def _in_memory(self, index: int) -> bytes | None:
        block = self._remote.memory.get(self.name, index)
        return block.data if block is not None and self.matches(block.validator) else None

    def _at_hand(self, index: int) -> bytes | None:
        cache = self._remote.cache
        data = self._in_memory(index)
        if data is not None or cache is None:
            return data
        with self._disk:  # whoever waited finds it in memory
            if (data := self._in_memory(index)) is not None:
                return data
            block = cache.get(self.name, index)
            if block is None or len(block.data) != self.length(index) or not self.matches(block.validator):
                return None
            self._remote.memory.put(self.name, index, block)
            if self._remote.hits is not None:
                self._remote.hits.add(hits=1)
            return block.data

    def length(self, index: int) -> int:
        """Returns the bytes of a block."""
        return min(BLOCK, self.size - index * BLOCK)

    def keep(self, index: int, data: bytes) -> None:
        """Takes a block that has come."""
        block = Block(self.validator or "", data)
        with self._changed:
            self._remote.memory.put(self.name, index, block)
            self._changed.notify_all()
        if self._remote.hits is not None:
            self._remote.hits.add(misses=1)
        if self._remote.cache is not None and block.validator and not self.stale:
            self._remote.cache.put(self.name, index, block)

    def _turn(self, index: int, wanted: int) -> Stream | None:
        """Returns the stream that the caller has to move on, None when somebody else is bringing the block."""
        for stream in self._streams:
            if stream.at <= index < stream.stop and index - stream.at <= stream.reach:
                return stream if stream.lock.acquire(blocking=False) else None
        if self._blocks <= FIRST:
            start = next((one for one in range(index) if not self._has(one)), index)
            count = self._blocks - start
        else:
            start = index
            count = min(WINDOW_MAX, max(wanted - index, 2 * self._read_before(index)), self._limit(index) - index)
        if len(self._streams) >= STREAMS_OF_ONE:
            for idle in self._streams:
                if not idle.lock.locked():
                    self._streams.remove(idle)
                    idle.let_go()
                    break
        stream = Stream(self._remote, self, start, start + count)
        stream.lock.acquire()
        self._streams.append(stream)
        return stream

    def _read_before(self, index: int) -> int:
        """Returns how many blocks the request brought, or brings, that ends here: then reading is sequential."""
        ends = [*self._ends.items(), *((one.stop, one.stop - one.start) for one in self._streams)]
        return max((count for end, count in ends if 0 <= index - end <= SKIP), default=0)

    def _limit(self, index: int) -> int:
        """Returns where somebody else goes on, or the file ends."""
        return min((one.at for one in self._streams if one.at > index), default=self._blocks)

    def _done(self, stream: Stream, well: bool) -> None:
        with self._changed:
            if (not well or stream.at >= stream.stop) and stream in self._streams:
                self._streams.remove(stream)
            if stream.at >= stream.stop:
                self._ends[stream.stop] = stream.stop - stream.start
                while len(self._ends) > STREAMS_OF_ONE:
                    self._ends.popitem(last=False)
            if not well:
                stream.drop()
            stream.lock.release()
            self._changed.notify_all()
