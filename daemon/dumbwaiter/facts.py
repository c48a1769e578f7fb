"""Jobs, errands, entries, watches and providers as JSON shows them to people and programs. Pure."""

from collections import Counter
from typing import Any, NamedTuple

from dumbwaiter.catalog import Waiting
from dumbwaiter.config import Watch
from dumbwaiter.model import Entry, Job, State
from dumbwaiter.naming import shown
from dumbwaiter.store.errands import Errand

COUNTERS = ("bytes_sent", "bytes_resent", "grants_requested")
IN_NEED, AFTER = "in_need", "after"  # of the totals: jobs that need a person, and files still to be put away
LEFT = "bytes_left"  # of the totals: of pending jobs, what no server acknowledged


class OpenCounts(NamedTuple):
    """Jobs that have work left, counted."""

    by_watch: Counter[str]
    by_provider: Counter[str]
    bytes_left: int = 0


class Counts(NamedTuple):
    """What is known by counting job by job, which takes a while where there are a million."""

    open: OpenCounts
    files: dict[str, int]
    totals: dict[str, int]


NO_COUNTS = Counts(
    OpenCounts(Counter(), Counter()),
    {},
    dict.fromkeys((*(state.value for state in State), IN_NEED, AFTER, LEFT, *COUNTERS), 0),
)


def errand_facts(one: Errand) -> dict[str, Any]:
    """Returns an errand as JSON shows it."""
    return {
        "id": one.id,
        "job": one.job,
        "watch": one.watch,
        "path": shown(one.path),
        "what": one.what,
        "attempts": one.attempts,
        "due_at": one.due_at,
        "error": one.error,
    }


def job_facts(one: Job) -> dict[str, Any]:
    """Returns a job as JSON shows it."""
    return {
        "id": one.id,
        "watch": one.watch,
        "path": shown(one.path),
        "provider": one.provider,
        "key": one.key,
        "state": one.state.value,
        "size": one.size,
        "sent": one.sent,
        "resent": one.resent,
        "attempts": one.attempts,
        "due_at": one.due_at,
        "active": one.leased,
        "error": one.error,
        "url": one.receipt.url if one.receipt else None,
        "lacks": one.receipt.lacks or None if one.receipt else None,
    }


def entry_facts(one: Entry) -> dict[str, Any]:
    """Returns an entry as JSON shows it."""
    return {
        "provider": one.provider,
        "key": one.key,
        "watch": one.watch or None,
        "path": shown(one.path) or None,
        "size": one.size,
        "stored_at": one.stored_at,
        "unlisted_at": one.unlisted_at,
        "url": one.url,
        "etag": one.etag,
        "verified": one.verified,
        "facts": dict(one.facts),
    }


def waiting_facts(one: Waiting) -> dict[str, Any]:
    """Returns a file of the outbox as JSON shows it: as an entry, of which most is still to come."""
    return {
        "provider": one.provider,
        "key": one.key,
        "watch": one.watch,
        "path": shown(one.path),
        "size": one.size,
        "stored_at": None,
        "unlisted_at": None,
        "url": None,
        "etag": "",
        "verified": "",
        "facts": {},
        "state": one.state.value,
        "error": one.error,
    }


def watch_facts(
    name: str,
    watch: Watch,
    counts: Counts,
    *,
    state: str = "off",
    opens_at: float | None = None,
    seen: int = 0,
    overflows: int = 0,
    message: str = "",
) -> dict[str, Any]:
    """Returns a watch as `status --json` shows it; `seen` files are not in the journal yet."""
    return {
        "name": name,
        "path": shown(watch.path),
        "provider": watch.provider,
        "state": state,
        "opens_at": opens_at,
        "files": counts.files.get(name, 0),
        "pending": counts.open.by_watch[name] + seen,
        "overflows": overflows,
        "message": message,
    }


def provider_facts(
    name: str,
    counts: Counts,
    *,
    state: str = "off",
    paused_until: float | None = None,
    grants: int = 0,
    expires_at: float | None = None,
    now: float = 0.0,
    next_at: float | None = None,
    error: str | None = None,
    listing_error: str | None = None,
) -> dict[str, Any]:
    """Returns a provider likewise."""
    return {
        "name": name,
        "state": state,
        "paused_until": paused_until,
        "pending": counts.open.by_provider[name],
        "grants": grants,
        "expires_in": None if expires_at is None else round(expires_at - now),
        "expires_at": expires_at,
        "next_at": next_at,
        "error": error,
        "listing_error": listing_error,
    }
