"""What all open files of the mount share: blocks in memory and in the cache on disk, and one `Version` for each entry."""

import threading
from collections import OrderedDict
from hashlib import blake2b
from weakref import WeakValueDictionary

from dumbwaiter.cache_hits import Hits
from dumbwaiter.model import Entry
from dumbwaiter_fs.cache import Cache
from dumbwaiter_fs.hot_blocks import HotBlocks
from dumbwaiter_fs.links import Links
from dumbwaiter_fs.memory_cache import MemoryCache
from dumbwaiter_fs.origins import Origins
from dumbwaiter_fs.stream import Stream
from dumbwaiter_fs.version import Version

DEADLINE = 30.0  # seconds for one read
STREAMS = 48  # replies left open between reads; more would use up the descriptors


class Remote:
    """The blocks at hand, and the versions that are open with the replies they read from. Any thread may call."""

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
        self.origins = Origins(deadline)
        self.memory = MemoryCache()
        self.hot = HotBlocks(cache, hits) if cache else None
        self._lock = threading.Lock()
        self._streams: OrderedDict[Stream, None] = OrderedDict()
        self._versions: WeakValueDictionary[str, Version] = WeakValueDictionary()

    def version(self, entry: Entry) -> Version:
        """Returns the one version that all who have this entry open share. Each calls its `release` in the end."""
        name = named(entry)
        with self._lock:
            version = self._versions.get(name)
            if version is None or version.stale:
                version = self._versions[name] = Version(self, name, entry)
            version.holders += 1
            return version

    def release(self, version: Version) -> bool:
        """Returns True when that was the last holder of this version."""
        with self._lock:
            version.holders -= 1
            return not version.holders

    def streaming(self, stream: Stream) -> None:
        """Notes that `stream` holds a reply open, and closes what was left alone longest of more than `STREAMS`."""
        with self._lock:
            self._streams[stream] = None
            oldest_first = list(self._streams)
        for one in oldest_first:
            if len(self._streams) <= STREAMS:
                return
            one.let_go()  # but for one that is being read

    def ended(self, stream: Stream) -> None:
        with self._lock:
            self._streams.pop(stream, None)

    def close(self) -> None:
        self.origins.close()
        if self.hot is not None:
            self.hot.close()
        if self.hits is not None:
            self.hits.close()


def named(entry: Entry) -> str:
    """Returns a name for the bytes of an entry that no other entry has, in no journal."""
    facts = (entry.provider, entry.key, entry.size, entry.stored_at)
    return blake2b(repr(facts).encode("utf-8", "surrogateescape"), digest_size=20).hexdigest()
