"""Blocks of the cache that the kernel has in memory: read, checked and given out without a wait for the disk.

For the one thread that answers the kernel and must not wait. The buffers are few and are used again: they stay in the
processor's own cache, and no memory has to be found and cleared for each block.
"""

import threading
from collections import OrderedDict
from contextlib import suppress

from dumbwaiter.cache_hits import Hits
from dumbwaiter_fs.cache import LONGEST, Cache, View

SLOTS = 6  # an answer of 1 MiB needs five
LATER = 1.0  # seconds until uses are noted on disk

_Key = tuple[str, int]


class HotBlocks:
    """Has one reader at a time: a block is good until five others were got. Any thread may `drop`."""

    def __init__(self, cache: Cache, hits: Hits | None) -> None:
        self._cache = cache
        self._hits = hits
        self._lock = threading.Lock()
        self._ready: OrderedDict[_Key, tuple[View, bytearray]] = OrderedDict()
        self._free = [bytearray(LONGEST) for _ in range(SLOTS)]
        self._used: dict[_Key, None] = {}
        self._count = 0
        self._noting: threading.Timer | None = None

    def get(self, name: str, index: int) -> View | None:
        """Returns block `index` of the version called `name`, None when that needs the disk, or when it is not here whole."""
        key = name, index
        with self._lock:
            if (ready := self._ready.get(key)) is not None:
                self._ready.move_to_end(key)
                return ready[0]
            buffer = self._free.pop() if self._free else self._ready.popitem(last=False)[1][1]
        view = self._cache.get_nowait(name, index, buffer)
        with self._lock:
            if view is None:
                self._free.append(buffer)
                return None
            self._ready[key] = view, buffer
            self._used[key] = None
            self._count += 1
            if self._noting is None:
                noting = threading.Timer(LATER, self._note)
                noting.daemon = True
                with suppress(RuntimeError):  # no further thread can be had: the next block tries again
                    noting.start()
                    self._noting = noting
        return view

    def drop(self, name: str) -> None:
        """Forgets a version."""
        with self._lock:
            for key in [key for key in self._ready if key[0] == name]:
                del self._ready[key]
                self._free.append(bytearray(LONGEST))  # somebody may still be reading the other one

    def close(self) -> None:
        """Notes what is left."""
        with self._lock:
            noting = self._noting
        if noting is not None:
            noting.cancel()
            self._note()

    def _note(self) -> None:
        with self._lock:
            used, count, self._noting = self._used, self._count, None
            self._used, self._count = {}, 0
        self._cache.touch(used)
        if self._hits is not None:
            self._hits.add(hits=count)
