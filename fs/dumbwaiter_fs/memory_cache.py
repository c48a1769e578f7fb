"""The blocks used last, of all versions that are read, in memory: several readers of a file want the same ones."""

import threading
from collections import OrderedDict

from dumbwaiter.model import MIB
from dumbwaiter_fs.cache import Block

LIMIT = 16 * MIB  # bytes


class MemoryCache:
    """Blocks by version and index. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[str, int], Block] = OrderedDict()
        self._size = 0

    def get(self, name: str, index: int) -> Block | None:
        with self._lock:
            block = self._blocks.get((name, index))
            if block is not None:
                self._blocks.move_to_end((name, index))
            return block

    def put(self, name: str, index: int, block: Block) -> None:
        with self._lock:
            if (old := self._blocks.pop((name, index), None)) is not None:
                self._size -= len(old.data)
            self._blocks[name, index] = block
            self._size += len(block.data)
            while self._size > LIMIT:
                self._size -= len(self._blocks.popitem(last=False)[1].data)

    def drop(self, name: str) -> None:
        with self._lock:
            for key in [key for key in self._blocks if key[0] == name]:
                self._size -= len(self._blocks.pop(key).data)
