"""What tells the content of one file from another's: XXH3 of 128 bits, of each 4 MiB, and once more over these.

It is faster than memory, so it is taken of everything that is sent, while it is sent, in whatever order the parts go.
It tells a touched file from a changed one; it proves nothing to anybody who wants to deceive.
"""

import os
import threading
from collections.abc import Callable

import xxhash

from dumbwaiter.errors import Changed, Stopped
from dumbwaiter.model import MIB

BLOCK = 4 * MIB
READ = MIB  # at a time; it stays in the processor's cache

_WHOLE, _BLOCKS = "xxh3:", "xxh3-4m:"


class _Block:
    __slots__ = ("hash", "lock", "position")

    def __init__(self, position: int) -> None:
        self.hash = xxhash.xxh3_128()
        self.lock = threading.Lock()
        self.position = position  # in the file; what stands before it is in


class Digest:
    """The digest of one file. Any thread may show it bytes."""

    def __init__(self, block: int = BLOCK) -> None:
        self._size = block
        self._lock = threading.Lock()
        self._open: dict[int, _Block] = {}
        self._full: dict[int, bytes] = {}

    def observe(self, offset: int, data: bytes | memoryview) -> None:
        """Takes in what stands at an offset, if all before it in its block is in; what is in already is passed over."""
        view = memoryview(data)
        while view:
            number = offset // self._size
            count = min(len(view), (number + 1) * self._size - offset)
            self._take(number, offset, view[:count])
            offset += count
            view = view[count:]

    def _take(self, number: int, offset: int, view: memoryview) -> None:
        with self._lock:
            if number in self._full:
                return
            block = self._open.get(number)
            if block is None:
                block = self._open[number] = _Block(number * self._size)
        with block.lock:
            if offset <= block.position < offset + len(view):
                block.hash.update(view[block.position - offset :])
                block.position = offset + len(view)
                if block.position == (number + 1) * self._size:
                    with self._lock:
                        self._full[number] = block.hash.digest()
                        self._open.pop(number, None)

    def finish(self, fd: int, size: int, stopped: Callable[[], bool] = lambda: False) -> str:
        """Reads from a file what was not shown, and returns the digest.

        Raises `Changed` for one that ends before `size`, `Stopped` once `stopped` says so.
        """
        buffer: memoryview | None = None
        for number in range(-(-size // self._size)):
            if number in self._full:
                continue
            end = min(size, (number + 1) * self._size)
            block = self._open.get(number)
            position = block.position if block else number * self._size
            while position < end:
                if stopped():
                    raise Stopped
                buffer = buffer or memoryview(bytearray(READ))
                count = os.preadv(fd, [buffer[: end - position]], position)
                if not count:
                    raise Changed("the file became shorter")
                self.observe(position, buffer[:count])
                position += count
        return self.text(size)

    def text(self, size: int) -> str:
        """Returns the digest of a file of which everything was shown."""
        numbers = range(-(-size // self._size))
        digests = [self._full.get(number) or self._open[number].hash.digest() for number in numbers]
        if len(digests) > 1:
            return f"{_BLOCKS}{xxhash.xxh3_128_hexdigest(b''.join(digests))}"
        return f"{_WHOLE}{digests[0].hex() if digests else xxhash.xxh3_128_hexdigest(b'')}"
