"""How fast: token buckets for requests and for bytes, for threads and coroutines alike, and how much side by side.

Nobody waits in here but `Bandwidth`.
"""

import threading
import time
from concurrent.futures import Future
from math import inf

from dumbwaiter.model import KIB, MIB
from dumbwaiter.net.abort import Abort

STEP = 4 * MIB  # bytes that may leave at once while there is no limit: how soon a new one is felt
SHARE = 0.1  # seconds' worth of bytes that one transfer takes in its turn
SHARE_MIN = 4 * KIB
PIECE = 4 * MIB  # what most vendors' parts have
QUICK, SLOW = 10.0, 30.0  # seconds of a part: after less, twice as many may go side by side; after more, one less


class Bucket:
    """So many a second, and a second's worth at once after a rest."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = 0.0  # when all that was taken is paid for

    def take(self, amount: float = 1.0) -> float:
        """Takes and returns the seconds to wait before it may be used; those who ask later wait longer."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - 1.0) + amount / self._rate
            return max(0.0, self._free_at - now)


class Bandwidth:
    """Bytes a second that all uploads share, in turns as long as each other; changed while they run."""

    def __init__(self, rate: float | None = None) -> None:
        self._limit = _Limit(rate)

    @property
    def rate(self) -> float | None:
        return self._limit.rate

    def set(self, rate: float | None) -> None:
        """Limits to `rate` bytes a second from now on, for those who wait too; None is no limit."""
        before, self._limit = self._limit, _Limit(rate)
        before.over.set_result(None)

    def take(self, count: int, abort: Abort) -> int:
        """Waits for this thread's turn and returns how many of `count` bytes may leave. Raises `Stopped`."""
        while (limit := self._limit).rate is not None:
            share = min(count, max(SHARE_MIN, int(limit.rate * SHARE)))
            abort.wait(limit.bucket.take(share), limit.over)
            if limit is self._limit:
                return share
        return min(count, STEP)


class _Limit:
    """One rate, from when it is set until it is `over`."""

    def __init__(self, rate: float | None) -> None:
        self.rate = rate
        self.bucket = Bucket(rate or 1.0)
        self.over: Future[None] = Future()


class Abreast:
    """How many parts of a file may go side by side at a provider: few on a line that is slow or breaks, which costs all of them."""

    def __init__(self, bandwidth: Bandwidth | None = None) -> None:
        self._most = inf
        self._bandwidth = bandwidth

    @property
    def most(self) -> float:
        """How many; where a person limits the bandwidth, no more than that brings home in time."""
        rate = self._bandwidth and self._bandwidth.rate
        return min(self._most, max(1, rate * SLOW // PIECE)) if rate else self._most

    def broke(self) -> None:
        """Notes that the network broke a piece off."""
        self._most = 1

    def took(self, seconds: float, beside: int) -> None:
        """Learns from a part that went with others, so many in all."""
        if seconds < QUICK:
            self._most *= 2
        elif seconds > SLOW:
            self._most = max(1, min(self._most, beside) - 1)
