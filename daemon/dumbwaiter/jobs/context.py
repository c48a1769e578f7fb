"""What the attempts of a daemon share."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dumbwaiter import log
from dumbwaiter.config import Watch
from dumbwaiter.jobs.endings import Endings
from dumbwaiter.jobs.tally import Tally
from dumbwaiter.jobs.threads import Threads
from dumbwaiter.jobs.unnoted import Unnoted
from dumbwaiter.journal import Journal
from dumbwaiter.model import Job
from dumbwaiter.providers.provider import Provider
from dumbwaiter.store.lease import Lease


@dataclass(frozen=True)
class Context:
    """Everything an attempt needs; `app` creates the single instance."""

    journal: Journal
    worker: str  # who holds the leases
    providers: Mapping[str, Provider]
    threads: Threads
    endings: Endings
    folder_of: Callable[[str], str | None]
    watch_of: Callable[[str], Watch | None]
    resting: Callable[[float], Mapping[str, float]]  # providers that a person paused, until when
    closed: Callable[[float], Mapping[str, float]]  # watches that begin nothing now, until when
    changed: Callable[[Job, float], None]  # is told of a file that changed, and for how long it was sent in vain
    moved: Callable[[], None]  # is told of every step
    away: Callable[[str], str] = lambda _watch: ""  # why a watch's folder cannot be looked at
    clock: Callable[[], float] = time.time
    tally: Tally = field(default_factory=Tally)
    unnoted: Unnoted = field(default_factory=Unnoted)
    log: Any = field(default_factory=lambda: log.get("engine"))

    def lease(self, job: Job) -> Lease:
        """Returns what may be done in the journal with a job of this daemon's."""
        return self.journal.lease(self.worker, job.id)
