"""What all open files of the mount share: blocks in memory and in the cache on disk, origins, and replies left open."""

import threading
from collections import OrderedDict
from collections.abc import Callable

from dumbwaiter.cache_hits import Hits
from dumbwaiter_fs.cache import Cache
from dumbwaiter_fs.hot_blocks import HotBlocks
from dumbwaiter_fs.links import Links
from dumbwaiter_fs.memory_cache import MemoryCache
from dumbwaiter_fs.origins import Origins

DEADLINE = 30.0  # seconds for one read
STREAMS = 48  # replies left open between reads; more would use up the descriptors


class Remote:
    """The way to the remote files, and what came from there. Any thread may call."""

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
        self._open: OrderedDict[Callable[[], None], None] = OrderedDict()

    def opened(self, let_go: Callable[[], None]) -> None:
        """Notes an open reply, and lets go of what was left alone longest of more than `STREAMS`."""
        with self._lock:
            self._open[let_go] = None
            oldest_first = list(self._open)
        for one in oldest_first:
            if len(self._open) <= STREAMS:
                return
            one()  # but for one that is being read

    def ended(self, let_go: Callable[[], None]) -> None:
        """Notes that the reply is closed."""
        with self._lock:
            self._open.pop(let_go, None)

    def close(self) -> None:
        self.origins.close()
        if self.hot is not None:
            self.hot.close()
        if self.hits is not None:
            self.hits.close()
