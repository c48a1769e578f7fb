"""The sandbox's clock.

Every expiry, registration delay and Date header is reckoned by it, so that a test passes an hour in no time.
Latency, throttling and rates are real time and do not ask it.
"""

import time
from collections.abc import Callable


class Clock:
    """Wall time plus a shift that a test sets."""

    def __init__(self, source: Callable[[], float] = time.time) -> None:
        self._source = source
        self.shift = 0.0

    def now(self) -> float:
        """Epoch seconds, shifted."""
        return self._source() + self.shift
