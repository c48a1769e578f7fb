"""The sandbox's clock.

Every expiry, registration delay and Date header is reckoned by it, so that a test passes an hour in no time.
Latency, throttling and rates are real time and do not ask it.
"""

import time


class Clock:
    """Wall time plus a shift that a test sets."""

    def __init__(self) -> None:
        self.shift = 0.0

    def now(self) -> float:
        """Epoch seconds, shifted."""
        return time.time() + self.shift
