"""What the engine counts for /metrics beside the journal's own counters; it begins anew with each daemon."""

from bisect import bisect_left
from collections import Counter
from itertools import accumulate
from math import inf

FOUND = 300.0  # seconds; a file that had lain there for longer when it was found counts as dropped so long before
BUCKETS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 6 * 3600.0, 86400.0, inf)


class Tally:
    """Counters of one engine. Plain ones: what writes them for Prometheus is a large thing to load, and seldom asked."""

    def __init__(self) -> None:
        self.errors: Counter[tuple[str, str]] = Counter()  # attempts that ended early, by provider and verdict
        self.waited = 0.0  # seconds from a file's last change to its place in the catalog, of all files
        self._waits = [0] * len(BUCKETS)

    @property
    def waits(self) -> list[tuple[float, int]]:
        """How many files took so many seconds at most, for each of `BUCKETS`."""
        return list(zip(BUCKETS, accumulate(self._waits), strict=True))

    def failed(self, provider: str, verdict: str) -> None:
        """Counts an attempt that ended early."""
        self.errors[provider, verdict] += 1

    def done(self, changed_at: float, found_at: float, now: float) -> None:
        """Counts a file that is catalogued, by its times in epoch seconds."""
        waited = max(0.0, now - max(changed_at, found_at - FOUND))
        self.waited += waited
        self._waits[bisect_left(BUCKETS, waited)] += 1
