"""The daemon in Prometheus' text format.

Totals are the journal's, so they outlive a restart and nothing is counted twice; the rest is asked of the parts when
somebody looks.
"""

import time
from collections.abc import Iterator
from math import inf

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from dumbwaiter import cache_hits, report
from dumbwaiter.app import App
from dumbwaiter.model import State

TYPE = CONTENT_TYPE_LATEST
_TOTALS = {
    "grants_requested": "Calls that asked a broker for permission to upload.",
    "bytes_sent": "Bytes that providers acknowledged.",
    "bytes_resent": "Bytes that were sent in vain or a second time.",
}


def text(app: App) -> bytes:
    """Returns what there is to measure. Reads the journal: not for the loop's thread. Raises `JournalTrouble`."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Daemon(app))
    return generate_latest(registry)


class _Daemon(Collector):
    """One look at a running app."""

    def __init__(self, app: App) -> None:
        self._app = app

    def describe(self) -> list[Metric]:
        return []  # else registering would look, too

    def collect(self) -> Iterator[Metric]:
        yield from self._journal()
        yield from self._providers()
        yield from self._watches()
        yield GaugeMetricFamily("dumbwaiter_transfers", "Files on their way now.", self._app.engine.busy)
        yield GaugeMetricFamily("dumbwaiter_settling", "Files seen that are no jobs yet.", self._app.intake.waiting)
        yield GaugeMetricFamily(
            "dumbwaiter_journal_trouble",
            "1 while the journal cannot be written.",
            float(self._app.trouble is not None),
        )
        had, fetched = cache_hits.read(self._app.places.cache)
        blocks = CounterMetricFamily("dumbwaiter_cache_blocks", "Blocks that mounts read.", labels=["from"])
        blocks.add_metric(["cache"], had)
        blocks.add_metric(["provider"], fetched)
        yield blocks
        yield from self._attempts()

    def _journal(self) -> Iterator[Metric]:
        totals = report.totals(self._app.reader)
        jobs = GaugeMetricFamily("dumbwaiter_jobs", "Jobs by state.", labels=["state"])
        for state in State:
            jobs.add_metric([state.value], totals[state.value])
        yield jobs
        for name, what in _TOTALS.items():
            yield CounterMetricFamily(f"dumbwaiter_{name}", what, totals[name])

    def _attempts(self) -> Iterator[Metric]:
        tally = self._app.engine.context.tally
        errors = CounterMetricFamily(
            "dumbwaiter_errors", "Attempts that ended early, by what that means.", labels=["provider", "verdict"]
        )
        for labels, count in tally.errors.copy().items():
            errors.add_metric(labels, count)
        yield errors
        yield HistogramMetricFamily(
            "dumbwaiter_drop_to_done_seconds",
            "From a file's last change to its place in the catalog.",
            buckets=[("+Inf" if limit == inf else str(limit), count) for limit, count in tally.waits],
            sum_value=tally.waited,
        )

    def _providers(self) -> Iterator[Metric]:
        now = time.time()
        life = GaugeMetricFamily("dumbwaiter_grant_life_seconds", "Life left of the latest grant.", labels=["provider"])
        refreshes = CounterMetricFamily(
            "dumbwaiter_refreshes", "Sessions and the like fetched from a broker.", labels=["provider"]
        )
        ready = GaugeMetricFamily("dumbwaiter_provider_ready", "0 while a provider is paused.", labels=["provider"])
        for name, one in self._app.providers.items():
            if one.grants.expires_at is not None:
                life.add_metric([name], max(0.0, one.grants.expires_at - now))
            refreshes.add_metric([name], one.refreshes)
            ready.add_metric([name], float(one.health.state(now) == "ready"))
        yield from (life, refreshes, ready)

    def _watches(self) -> Iterator[Metric]:
        overflows = CounterMetricFamily(
            "dumbwaiter_watch_overflows", "Times that more happened at once than the kernel keeps.", labels=["watch"]
        )
        heard = GaugeMetricFamily("dumbwaiter_watch_folders", "Folders heard.", labels=["watch"])
        missing = GaugeMetricFamily("dumbwaiter_watch_missing", "Folders that are only scanned.", labels=["watch"])
        there = GaugeMetricFamily("dumbwaiter_watch_there", "0 while a watched folder is away.", labels=["watch"])
        for name, state in self._app.watches.states().items():
            overflows.add_metric([name], state.overflows)
            heard.add_metric([name], state.folders)
            missing.add_metric([name], state.missing)
            there.add_metric([name], float(state.state != "away"))
        yield from (overflows, heard, missing, there)
