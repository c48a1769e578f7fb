"""The story of one file, for `status PATH`: where it is, by which rule, what was tried, and what happens next."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from dumbwaiter import report
from dumbwaiter.cli.paths import entry_at, folder_at, out_of_reach, placed, spellings, tree_path, watch_of
from dumbwaiter.cli.quick_status import then
from dumbwaiter.cli.session import Session
from dumbwaiter.cli.words import hour, rests, size, when
from dumbwaiter.config import RESERVED
from dumbwaiter.errors import Failure
from dumbwaiter.facts import job_facts
from dumbwaiter.files.downloads import notes_of_download
from dumbwaiter.files.scan import look
from dumbwaiter.model import Entry, Job, State, stamp_of_regular
from dumbwaiter.naming import counted, join, legible, shown


def tell(session: Session, path: str) -> None:
    """Prints the story of the file that `path` means. Raises `Failure` when nothing is known of it."""
    jobs, entry = [], None
    for text in spellings(path):
        tree, _, inner = tree_path(session, text).partition("/")
        entry = entry_at(session, text)
        watch, _, inner = (join(entry.watch, entry.path) if entry and tree == "keys" else inner).partition("/")
        if jobs := report.jobs_of(session.reader, watch, inner):
            break
    if not jobs and entry is None and (former := _former(session, path)) is not None:
        watch, inner = former
        jobs = report.jobs_of(session.reader, watch, inner)
    if not jobs and entry is None:
        raise folder_at(session, path) or Failure(f"{shown(path)} was never seen: {_why_not(session, path)}")
    if session.json:
        session.facts([job_facts(job) | _outlook(session, job) for job in jobs])
    elif jobs:
        _print(session, watch, inner, jobs)
    elif entry is not None:
        made = "made by" if entry.stamp.inode == 0 else "uploaded by another machine, to"
        if not entry.watch:
            made = "not uploaded from here; listed by"
        print(f"{shown(entry.place)}: {made} {entry.provider}")
        _print_lines(_of_entry(entry))


def _former(session: Session, path: str) -> tuple[str, str] | None:
    """Returns watch and inner path of a file, or of a place in the catalog, whose watch is no longer configured."""
    watches = {*session.config.watch, RESERVED}
    for text in spellings(path):
        watch, _, inner = os.path.normpath(text).removeprefix("files/").partition("/")
        if watch not in watches and report.jobs_of(session.reader, watch, inner):
            return watch, inner
        absolute = placed(session.config, text)
        if watch_of(session.config, text)[0] != RESERVED:
            continue
        with suppress(OSError):
            if (stamp := stamp_of_regular(os.lstat(absolute))) is not None:
                found = report.former_place(session.reader, absolute, stamp, watches)
                if found is not None:
                    return found
    return None


def _print(session: Session, watch: str, inner: str, jobs: list[Job]) -> None:
    print(shown(join(watch, inner)))
    _print_lines(_of_file(session, watch, inner, jobs[0]))
    for job in jobs:
        print(f"job {job.id}: {job.state.value}, {size(job.size)}, to {job.provider}")
        _print_lines(_of_job(session, job))
    for one in report.errands_of(session.reader, watch, inner):
        print(f"  {one['what']}: {one['error']} ({then(one)})")


def _print_lines(lines: Iterator[tuple[str, str | None]]) -> None:
    for name, value in lines:
        if value:
            print(f"  {name}: {legible(value)}")


def _of_file(session: Session, watch: str, inner: str, latest: Job) -> Iterator[tuple[str, str | None]]:
    from dumbwaiter.files.ignore import rules

    root = session.config.folder_of(watch)
    if root is None:
        yield "watch", f"{watch} is no longer configured"
        return
    local, one = _local(root, inner, latest), session.config.watch.get(watch)
    if one and local == "gone" and latest.state is State.DONE and one.after != "keep":
        local = f'gone, as after = "{shown(one.after)}" will have it'
    yield "local file", f"{shown(os.path.join(root, inner))}, {local}"
    if one:
        why = rules(one.path, one.include, one.exclude).why(inner)
        yield "rule", f"watch {watch} takes it" if why == "taken" else f"watch {watch} leaves it out by now: {why}"
    else:
        yield "rule", "named on the command line"


def _local(root: str, inner: str, job: Job) -> str:
    try:
        stamp = stamp_of_regular(os.lstat(os.path.join(root, inner)))
    except OSError:
        return "gone"
    if stamp is None:
        return "no regular file any more"
    if stamp.same_bytes(job.stamp):
        return "as it was"
    return "changed since, and open for writing in a program" if look(root, inner)[1] else "changed since"


def _of_job(session: Session, job: Job) -> Iterator[tuple[str, str | None]]:
    outlook = _outlook(session, job)
    yield "key", shown(job.key or job.proposed or "")
    yield "link", job.receipt.url if job.receipt else None
    yield "verified", job.receipt.verified if job.receipt else None
    yield "acknowledged", f"{job.sent} of {job.size} bytes, {job.resent} sent again"
    yield "failures", f"{job.attempts} in a row" if job.attempts else None
    yield "reason", job.error
    yield "next", outlook["next"]
    yield "made", when(job.created_at)
    yield "changed", when(job.updated_at)


def _of_entry(entry: Entry) -> Iterator[tuple[str, str | None]]:
    yield "key", shown(entry.key)
    yield "size", size(entry.size)
    yield "link", entry.url
    yield "since", when(entry.stored_at)


def _outlook(session: Session, job: Job) -> dict[str, Any]:
    """Returns what happens next, and at what time if that is known."""
    now = time.time()
    match job.state:
        case State.DONE:
            return {"next": None, "next_at": None}
        case State.SUPERSEDED:
            return {"next": "nothing: it was dropped, or another version took its place", "next_at": None}
        case State.REJECTED:
            return {"next": f"a person acts, then: dumbwaiter retry {job.id}, or forget {job.id}", "next_at": None}
    if job.leased and session.daemon_facts is not None:
        return {"next": "it is being worked on now", "next_at": now}
    if (reason := _held_up(session, job)) is not None:
        return {"next": reason, "next_at": None}
    opens = None if job.by_hand else session.config.closed(now).get(job.watch)
    if opens is not None and job.state is State.PENDING:
        return {"next": f"waits for {hour(opens)}", "next_at": opens}
    provider = _provider(session, job)
    error, tried_at = provider.get("error"), provider.get("next_at") or 0.0
    if error and tried_at > max(now, job.due_at):
        return {"next": f"provider {job.provider} is tried again {when(tried_at)}: {error}", "next_at": tried_at}
    if job.due_at > now:
        return {"next": f"next try {when(job.due_at)}", "next_at": job.due_at}
    told = f", and once provider {job.provider} takes it, whose latest answer was: {error}" if error else ""
    return {"next": f"it is sent as soon as a place is free{told}", "next_at": now}


def _held_up(session: Session, job: Job) -> str | None:
    """Returns what a job waits for that has no time, None when there is nothing."""
    facts = session.daemon_facts
    if facts is None:
        return "it waits for the daemon: dumbwaiter run"
    for pause in facts["paused"]:
        if pause["name"] in {"", job.provider} or (pause["name"] == job.watch and not job.by_hand):
            return rests(pause["name"], pause["until"])
    provider = _provider(session, job)
    if provider.get("state") == "blocked":
        return f"provider {job.provider} is blocked: {provider['error']}"
    if any(one["name"] == job.watch and one["state"] == "away" for one in facts["watches"]):
        return "its folder is away; it goes on when the folder is back"
    return facts["trouble"] or None


def _provider(session: Session, job: Job) -> dict[str, Any]:
    """Returns what the daemon says of a job's provider: nothing where it knows none of that name."""
    facts = session.daemon_facts or {"providers": ()}
    return next((one for one in facts["providers"] if one["name"] == job.provider), {})


def _why_not(session: Session, path: str) -> str:
    """Says why a file that no job knows was not taken."""
    from dumbwaiter.files.ignore import rules

    tree, _, place = tree_path(session, path).partition("/")
    named, _, below = place.partition("/")
    if tree != "keys" and named in session.config.watch:
        path = os.path.join(session.config.watch[named].path, below)
    watch, inner = watch_of(session.config, path)
    try:
        status = os.lstat(path)
    except OSError:
        return "there is no such file"
    one = session.config.watch.get(watch)
    if not stat.S_ISDIR(status.st_mode) and stamp_of_regular(status) is None:
        return "no regular file"
    if stat.S_ISDIR(status.st_mode):
        return f"it is a folder; dumbwaiter ls {shown(path)} lists what was uploaded of it"
    if one is None:
        return "it lies in no watched folder; dumbwaiter put uploads it"
    why = rules(one.path, one.include, one.exclude).why(inner)
    if why != "taken":
        return f"watch {watch} leaves it out: {why}"
    if why := out_of_reach(one.path, inner):
        return why
    if session.daemon_facts is None:
        return "the daemon is not running, dumbwaiter run takes it up"
    if notes := notes_of_download(one.path, inner):
        return f"watch {watch} takes it once all of it is downloaded and {shown(notes)} is gone"
    if look(one.path, inner)[1]:
        return f"watch {watch} takes it once the program that has it open for writing closes it"
    settling = session.daemon_facts["settling"]
    return f"watch {watch} takes it once it is quiet ({counted(settling, 'file')} being looked at)"
