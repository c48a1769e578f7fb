"""What the engine counts for /metrics beside the journal's own counters; it begins anew with each daemon."""

from prometheus_client import Counter, Histogram

FOUND = 300.0  # seconds; a file that had lain there for longer when it was found counts as dropped so long before
BUCKETS = (0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 6 * 3600, 86400)


class Tally:
    """Counters of one engine."""

    def __init__(self) -> None:
        self._errors = Counter(
            "dumbwaiter_errors",
            "Attempts that ended early, by what that means.",
            ["provider", "verdict"],
            registry=None,
        )
        self._waits = Histogram(
            "dumbwaiter_drop_to_done_seconds",
            "From a file's last change to its place in the catalog.",
            buckets=BUCKETS,
            registry=None,
        )
        self.metrics = (self._errors, self._waits)

    def failed(self, provider: str, verdict: str) -> None:
        """Counts an attempt that ended early."""
        self._errors.labels(provider, verdict).inc()

    def done(self, changed_at: float, found_at: float, now: float) -> None:
        """Counts a file that is catalogued, by its times in epoch seconds."""
        self._waits.observe(max(0.0, now - max(changed_at, found_at - FOUND)))
