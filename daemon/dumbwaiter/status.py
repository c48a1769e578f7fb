"""What a running daemon tells of itself, as `status --json` shows it."""

import os
import time
from collections.abc import Callable, Mapping
from math import inf
from typing import Any

from dumbwaiter import report
from dumbwaiter.config import Config
from dumbwaiter.errors import JournalTrouble
from dumbwaiter.facts import NO_COUNTS, Counts, provider_facts, watch_facts
from dumbwaiter.jobs.steering import Steering
from dumbwaiter.journal import Journal
from dumbwaiter.providers.list_walks import ListWalks
from dumbwaiter.providers.provider import Provider
from dumbwaiter.watch.intake import Intake
from dumbwaiter.watch.watches import Watches


class Status:
    """The status of one daemon. `trouble` says what keeps the journal from working."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        providers: Mapping[str, Provider],
        *,
        watches: Watches,
        intake: Intake,
        steering: Steering,
        walks: ListWalks,
        trouble: Callable[[], str | None],
    ) -> None:
        self._config = config
        self._journal = journal
        self._providers = providers
        self._watches = watches
        self._intake = intake
        self._steering = steering
        self._walks = walks
        self._trouble = trouble
        self._counted: tuple[int, Counts] | None = None  # and by which commit

    def facts(self, *, listed: bool = True) -> dict[str, Any]:
        """Returns the status, with each job where they are to be `listed`. Reads the journal: not for the loop's thread."""
        trouble = self._trouble()
        # Before the journal: what goes from here to there meanwhile may be counted twice, and is never left out.
        settling = self._intake.waiting
        seen = {name: self._intake.pending(name) for name in self._config.watch}
        try:
            counts = self._counts()
            named = report.work_to_list(self._journal.reader, jobs=listed)
        except JournalTrouble as error:  # what the daemon itself knows is told all the same
            counts, named, trouble = NO_COUNTS, {"jobs": [], "errands": []}, str(error)
        # And after it: a file that changes while it is sent goes back from there to here.
        settling = max(settling, self._intake.waiting)
        return {
            "running": True,
            "pid": os.getpid(),
            "watches": self._watch_list(counts, seen),
            "providers": self._provider_list(counts),
            "paused": self.paused(),
            "bytes_per_second": self._steering.rate,
            "settling": settling,
            "trouble": trouble,
            "totals": counts.totals,
            **named,
        }

    def _watch_list(self, counts: Counts, seen: Mapping[str, int]) -> list[dict[str, Any]]:
        states, closed = self._watches.states(), self._config.closed(time.time())
        return [
            watch_facts(
                name,
                watch,
                counts,
                state=states[name].state if name in states else "off",
                opens_at=closed.get(name),
                seen=seen[name],
                overflows=states[name].overflows if name in states else 0,
                message=(states[name].sentence if name in states else "")
                or self._intake.unread(name)
                or self._intake.held(name),
            )
            for name, watch in self._config.watch.items()
        ]

    def _provider_list(self, counts: Counts) -> list[dict[str, Any]]:
        now = time.time()
        resting = self._steering.providers(now)
        return [
            provider_facts(
                name,
                counts,
                state="paused" if name in resting else provider.health.state(now),
                paused_until=_finite(max(resting.get(name, 0.0), provider.health.paused_until), now),
                grants=provider.grants.spare,
                expires_at=provider.grants.expires_at,
                now=now,
                next_at=_finite(provider.health.next_at, now),
                error=provider.health.trouble,
                listing_error=self._walks.missed(name),
            )
            for name, provider in self._providers.items()
        ]

    def _counts(self) -> Counts:
        """Counts anew only if there was a commit since: who asks again and again must not cost more and more."""
        commits = self._journal.writer.commits  # before the count: one that comes meanwhile is counted the next time
        if self._counted is None or self._counted[0] != commits:
            self._counted = commits, report.count_all(self._journal.reader)
        return self._counted[1]

    def paused(self) -> list[dict[str, Any]]:
        """Returns what a person has paused, and until when."""
        now = time.time()
        return [{"name": name, "until": _finite(until, now)} for name, until in self._steering.paused(now).items()]

    def resting(self) -> dict[str, float | None]:
        """Returns which providers a person has paused, and until when; None stands for until they say otherwise."""
        now = time.time()
        return {name: _finite(until, now) for name, until in self._steering.providers(now).items()}

    def lost(self) -> dict[str, str]:
        """Returns which providers let nothing through, time and again, and why."""
        return {name: one.health.trouble or "" for name, one in self._providers.items() if one.health.is_lost}


def _finite(until: float, now: float) -> float | None:
    return until if now < until < inf else None
