"""How often a call may come: a bucket that holds one second's worth, in real time."""

import time


class Rate:
    """The calls of one kind, by whoever shares their allowance."""

    def __init__(self) -> None:
        self._seconds = 1.0  # of the allowance that are left
        self._drawn = time.monotonic()

    def takes(self, per_second: float) -> bool:
        """Counts a call in and returns True, unless it is one too many; 0 is no limit."""
        if not per_second:
            return True
        now = time.monotonic()
        self._seconds, self._drawn = min(1.0, self._seconds + now - self._drawn), now
        if self._seconds < 1 / per_second:
            return False
        self._seconds -= 1 / per_second
        return True
