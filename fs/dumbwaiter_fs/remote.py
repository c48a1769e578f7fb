"""Bytes from a provider, block by block: from memory, from the cache on disk, else by a ranged GET.

A version's first reply pins its validator (RFC 9110: the ETag, else Last-Modified); a reply with another one is never
used. A block is fetched once, however many wait for it. Nothing is asked for in advance beyond as much as was read
sequentially before, 64 MiB at most. Every read ends by a deadline. An origin that could not be reached is left alone for
some seconds.
"""

import contextlib
import errno
import threading
import time
from collections import OrderedDict
from hashlib import blake2b
from weakref import WeakValueDictionary

import httpcore
import httpx

from dumbwaiter.cache_hits import Hits
from dumbwaiter.model import MIB, Entry
from dumbwaiter.wire.address import expires_at
from dumbwaiter_fs.cache import BLOCK, Block, Cache, View
from dumbwaiter_fs.deadline import Transport, until
from dumbwaiter_fs.errnos import Refused
from dumbwaiter_fs.hot_blocks import HotBlocks
from dumbwaiter_fs.links import Links
from dumbwaiter_fs.memory_cache import MemoryCache
from dumbwaiter_fs.stream import SKIP, Stream

DEADLINE = 30.0  # seconds for one read
SILENCE = 10.0  # seconds without a byte
CONNECT = 5.0
REST = 5.0  # seconds without a request to an origin that could not be reached
FIRST = 4  # blocks of a file that is fetched whole at once
WINDOW_MAX = 64 * MIB // BLOCK  # blocks of one request; doubles while reading is sequential
STREAMS = 48  # replies left open between reads; more would use up the descriptors
STREAMS_OF_ONE = 8  # of one version: as many readers at places of their own


class Remote:
    """Connections to all origins, the blocks at hand, and the versions that are open. Any thread may call."""

    def __init__(
        self,
        deadline: float = DEADLINE,
        cache: Cache | None = None,
        links: Links | None = None,
        hits: Hits | None = None,
    ) -> None:
        self.deadline = deadline
        self.cache = cache
        self.hits = hits
        self.links = links
        self.memory = MemoryCache()
        self.hot = HotBlocks(cache, hits) if cache else None
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._down: dict[tuple[str, int | None], tuple[float, int]] = {}
        self._streams: OrderedDict[Stream, None] = OrderedDict()
        self._versions: WeakValueDictionary[str, Version] = WeakValueDictionary()

    def version(self, entry: Entry) -> "Version":
        """Returns the one version that all who have this entry open share. Each calls its `release` in the end."""
        name = named(entry)
        with self._lock:
            version = self._versions.get(name)
            if version is None or version.stale:
                version = self._versions[name] = Version(self, name, entry)
            version.holders += 1
            return version

    def release(self, version: "Version") -> bool:
        """Returns True when that was the last holder of this version."""
        with self._lock:
            version.holders -= 1
            return not version.holders

    def check(self, url: str) -> None:
        """Raises at once what the last attempt on this origin came to, if that was a moment ago."""
        with self._lock:
            until_, code = self._down.get(origin(url), (0.0, 0))
        if time.monotonic() < until_:
            raise Refused(code, "the origin did not answer a moment ago")

    def get(self, url: str, headers: dict[str, str]) -> httpx.Response:
        """Sends a request and returns the reply with its body unread. Raises an errno."""
        self.check(url)
        try:
            client = self._opened()
            return client.send(client.build_request("GET", url, headers=headers), stream=True)
        except (httpx.InvalidURL, UnicodeError):  # the last of a host like a..b
            raise Refused(errno.ENXIO, "the url cannot be read") from None
        except (httpcore.ConnectError, httpx.ConnectError):
            raise self._tripped(url, errno.EHOSTUNREACH) from None
        except (httpcore.TimeoutException, httpx.TimeoutException):
            raise self.late(url) from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpx.HTTPError) as error:
            raise Refused(errno.EIO, type(error).__name__) from None

    def late(self, url: str) -> Refused:
        return self._tripped(url, errno.ETIMEDOUT)

    def streaming(self, stream: Stream) -> None:
        """Notes that `stream` holds a reply open, and closes the one that was left alone longest."""
        with self._lock:
            self._streams[stream] = None
            self._streams.move_to_end(stream)
            idle = next(iter(self._streams)) if len(self._streams) > STREAMS else None
        if idle is not None:
            idle.let_go()

    def ended(self, stream: Stream) -> None:
        with self._lock:
            self._streams.pop(stream, None)

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()
        if self.hot is not None:
            self.hot.close()
        if self.hits is not None:
            self.hits.close()

    def _opened(self) -> httpx.Client:
        with self._lock:
            if self._client is None:  # its certificates take a while to load, and listing needs none
                self._client = httpx.Client(
                    transport=Transport(),
                    timeout=httpx.Timeout(min(SILENCE, self.deadline), connect=min(CONNECT, self.deadline)),
                    follow_redirects=False,
                    headers={"Accept-Encoding": "identity", "User-Agent": "dumbwaiter-mount"},
                )
            return self._client

    def _tripped(self, url: str, code: int) -> Refused:
        with self._lock:
            self._down[origin(url)] = (time.monotonic() + REST, code)
        return Refused(code, "no connection" if code == errno.EHOSTUNREACH else "no answer in time")


def named(entry: Entry) -> str:
    """Returns a name for the bytes of an entry that no other entry has, in no journal."""
    facts = (entry.provider, entry.key, entry.size, entry.stored_at)
    return blake2b(repr(facts).encode("utf-8", "surrogateescape"), digest_size=20).hexdigest()


def origin(url: str) -> tuple[str, int | None]:
    """Returns host and port of a url. Raises ENXIO for one that nothing can be read from."""
    try:
        parsed = httpx.URL(url)
        host = parsed.host
    except (httpx.InvalidURL, UnicodeError):
        raise Refused(errno.ENXIO, "the url cannot be read") from None
    if parsed.scheme not in {"http", "https"} or not host:
        raise Refused(errno.ENXIO, "the url is none of http or https")
    return host, parsed.port


class Version:
    """What is at a url, for as long as somebody has it open: a `content.Source` that all of them share."""

    def __init__(self, remote: Remote, name: str, entry: Entry) -> None:
        self.name = name
        self.size = entry.size
        self.stale = ""  # why it is no longer at its url
        self.etag = ""  # of the first reply
        self.holders = 0  # paths under which it is open
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
        """Returns the same in pieces if all of it is in memory, here or in the kernel's; see `content.Source`."""
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

    def close(self) -> None:
        """Does nothing: others may have it open. The last one's `release` closes it."""

    def release(self) -> None:
        """Closes its replies after the last holder; a later read asks again for what had not come."""
        if not self._remote.release(self):
            return
        with self._changed:
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
