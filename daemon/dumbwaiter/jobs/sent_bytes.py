"""Accounts of one file on its way: which of its bytes were sent, how often, and what of that was acknowledged."""

import threading


class Ranges:
    """Which bytes of a file were ever sent."""

    def __init__(self) -> None:
        self._known: list[tuple[int, int]] = []

    def add(self, start: int, end: int) -> int:
        """Adds a range and returns how much of it was there already."""
        touching = [known for known in self._known if known[0] <= end and start <= known[1]]
        apart = [known for known in self._known if known not in touching]
        whole = (min([start, *(low for low, _ in touching)]), max([end, *(high for _, high in touching)]))
        self._known = [*apart, whole]
        return sum(min(high, end) - max(low, start) for low, high in touching)


class SentBytes:
    """What one attempt sends of a file of `size` bytes. `ever`: what was sent before, too. Any thread may call."""

    def __init__(self, size: int, acknowledged: int, ever: Ranges) -> None:
        self.resent = 0  # bytes sent a second time since they were last acknowledged
        self._size = size
        self._begun = self._acknowledged = acknowledged
        self._ever = ever
        self._lock = threading.Lock()
        self._once = 0  # bytes that this attempt sent, each counted once
        self._here_before = Ranges()

    def count(self, offset: int, data: bytes | memoryview) -> None:
        """Notes what leaves: of a piece that breaks off, no more than that was sent."""
        end = offset + len(data)
        with self._lock:
            self.resent += self._ever.add(offset, end)
            self._once += len(data) - self._here_before.add(offset, end)

    def acknowledge(self, sent: int) -> tuple[int, int]:
        """Notes how much is there in all; returns how much of it is new, and what was sent a second time since the last call."""
        with self._lock:
            resent, self.resent = self.resent, 0
        more, self._acknowledged = max(0, sent - self._acknowledged), sent
        return more, resent

    @property
    def wasted(self) -> int:
        """Bytes that were sent and not acknowledged: whoever goes on sends them again."""
        return max(0, self._once - max(0, self._acknowledged - self._begun)) + self.resent

    @property
    def unsaved(self) -> int:
        """Bytes that the finished upload has beyond those acknowledged."""
        return self._size - self._acknowledged
