"""Commands that only look: status, ls, cat, link, history, failed."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from dumbwaiter.cli.session import Session, json_option
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.model import Entry, Job, State
from dumbwaiter.naming import join, shown

if TYPE_CHECKING:
    from dumbwaiter.catalog import Catalog


@click.command()
@click.argument("path", required=False, type=click.Path())
@click.option("--watch", "live", is_flag=True, help="Go on showing it.")
@json_option
@click.pass_obj
def status(session: Session, path: str | None, *, live: bool) -> None:
    """Tells what is going on; with PATH, where that file is and why."""
    if path is not None:
        _story(session, path)
    elif live:
        _live(session)
    else:
        facts = _status(session)
        if session.json:
            session.facts(facts)
        else:
            _print_status(facts)


def _status(session: Session) -> dict[str, Any]:
    """Asks the daemon, else the journal."""
    try:
        facts: dict[str, Any] = session.ask("GET", "/status")
    except Failure as failure:
        if failure.code is not Exit.NO_DAEMON:
            raise
        return _status_without_daemon(session)
    return facts


def _status_without_daemon(session: Session) -> dict[str, Any]:
    from dumbwaiter import report

    config = session.config
    closed = config.closed(time.time())
    try:
        left = report.waiting(session.reader)
        files = report.files_by_watch(session.reader)
        jobs = report.snapshot(session.reader)
    except Failure:  # no journal: nothing was uploaded yet
        left, files, jobs = report.NONE_WAITING, {}, report.nothing()
    return {
        "running": False,
        "watches": [
            {
                "name": name,
                "path": shown(watch.path),
                "provider": watch.provider,
                "state": "off",
                "opens_at": closed.get(name),
                "files": files.get(name, 0),
                "pending": left.by_watch[name],
            }
            for name, watch in config.watch.items()
        ],
        "providers": [
            {
                "name": name,
                "state": "off",
                "pending": left.by_provider[name],
                "grants": 0,
                "expires_in": None,
                "error": None,
            }
            for name in config.provider
        ],
        **jobs,
    }


def _print_status(facts: dict[str, Any]) -> None:
    totals = facts["totals"]
    print("running" if facts["running"] else "not running")
    if facts.get("trouble"):
        print(f"! {facts['trouble']}")
    for watch in facts["watches"]:
        waits = f", waits for {_hour(watch['opens_at'])}" if watch.get("opens_at") else ""
        print(
            f"{watch['name']}: {watch['state']}{waits}, {watch['files']} files uploaded, {watch['pending']} to go"
            f"  {watch['path']} → {watch['provider']}"
        )
        if watch.get("message"):
            print(f"  ! {watch['message']}")
    for provider in facts["providers"]:
        if provider["error"]:
            print(f"! {provider['name']} {provider['state']}: {provider['error']}")
    _print_errands(facts["errands"])
    for job in facts["jobs"]:
        print(f"{job['id']:>6}  {_stage(job):<24}  {_place(job)}{'  ' + job['error'] if job['error'] else ''}")
    print(
        f"{totals['done']} done, {totals['pending'] + totals['stored']} to go, {totals['rejected']} need a person; "
        f"{size(totals['bytes_sent'])} sent, {size(totals['bytes_resent'])} of it again"
    )


def _print_errands(errands: Sequence[dict[str, Any]]) -> None:
    for one in errands:
        then = (
            f"next try {_when(one['due_at'])}"
            if one["due_at"]
            else f"given up: dumbwaiter retry {one['job'] or '--all'}"
        )
        print(f"! {one['what']} of {_place(one)}: {one['error']} ({then})")


def _stage(job: dict[str, Any]) -> str:
    if job["state"] == "pending" and job["sent"]:
        return f"{job['sent'] * 100 // max(job['size'], 1)} % of {size(job['size'])}"
    return f"{job['state']} {size(job['size'])}"


def _place(job: dict[str, Any]) -> str:
    return join(job["watch"], job["path"])


def size(count: int) -> str:
    """Returns bytes as people read them, in binary units."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def _live(session: Session) -> None:
    """Shows the daemon's state as it changes, until Ctrl-C."""
    states = session.follow("GET", "/status?follow=1")
    if session.json or not sys.stdout.isatty():
        for facts in states:
            session.facts(facts)
        return
    from dumbwaiter.cli.progress import live

    live(states)


def _story(session: Session, path: str) -> None:
    from dumbwaiter import report

    watch, inner = _watch_of(session, path)
    jobs = report.jobs_of(session.reader, watch, inner)
    if session.json:
        session.facts([report.job_facts(job) for job in jobs])
        return
    if not jobs and (entry := _unheard_of(session, path)) is not None:
        print(f"not uploaded from here; {entry.provider} lists it: {size(entry.size)}, since {_when(entry.stored_at)}")
        return
    if not jobs:
        raise Failure(f"{shown(path)} was never seen: dumbwaiter check {shown(path)}")
    closed = session.config.closed(time.time())

    def held(job: Job) -> bool:
        return watch in closed and job.state is State.PENDING and not job.by_hand

    for job in jobs:
        print(f"job {job.id}: {job.state.value}, {size(job.size)}, to {job.provider}")
        for name, value in (
            ("key", job.key),
            ("link", job.receipt.url if job.receipt else None),
            ("acknowledged", f"{job.sent} of {job.size} bytes, {job.resent} sent again"),
            ("reason", job.error),
            ("waits for", _hour(closed[watch]) if held(job) else None),
            ("next try", _when(job.due_at) if job.due_at > time.time() else None),
            ("made", _when(job.created_at)),
            ("changed", _when(job.updated_at)),
        ):
            if value:
                print(f"  {name}: {value}")


def _hour(seconds: float) -> str:
    """Returns the time of day that a window opens at, with the day if it is not today's."""
    moment = datetime.fromtimestamp(seconds).astimezone()
    today = moment.date() == datetime.now().astimezone().date()
    return moment.strftime("%H:%M" if today else "%a %H:%M")


def _unheard_of(session: Session, path: str) -> Entry | None:
    """Returns what the provider's own list alone shows at a path."""
    node = session.catalog.find(tree_path(session, path))
    return node.file if node is not None and isinstance(node.file, Entry) and not node.file.watch else None


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")


def _watch_of(session: Session, path: str) -> tuple[str, str]:
    """Returns watch and inner path of a local file; "put" for one outside of all watches."""
    absolute = os.path.abspath(path)
    for name, watch in session.config.watch.items():
        if absolute.startswith(f"{watch.path}/"):
            return name, absolute[len(watch.path) + 1 :]
    return "put", absolute.lstrip("/")


@click.command()
@click.argument("path", required=False, type=click.Path())
@click.option("-l", "long", is_flag=True, help="With size, time and link.")
@json_option
@click.pass_obj
def ls(session: Session, path: str | None, *, long: bool) -> None:
    """Lists what is at the providers, as a tree.

    PATH is WATCH/PATH, as in the mount's files/; or begins with keys/, files/ or outbox/; or is a local path.
    """
    from dumbwaiter.report import entry_facts

    top = tree_path(session, path) if path else "files"
    found = list(_entries(session.catalog, top))
    if path and not found:
        raise Failure(f"nothing is known under {shown(path)}")
    if session.json:
        session.facts([entry_facts(entry) for _, entry in found])
        return
    for name, entry in found:
        name = shown(name.partition("/")[2])
        if long:
            print(f"{entry.size:>14}  {_when(entry.stored_at)}  {name}  {entry.url or ''}".rstrip())
        else:
            print(name)


def _entries(catalog: "Catalog", top: str) -> Iterator[tuple[str, Entry]]:
    """Yields every catalogued file at or below a path, with its path."""
    node = catalog.find(top)
    if node is not None and isinstance(node.file, Entry):
        yield top, node.file
        return
    for child in catalog.children(top):
        inner = join(top, child.name)
        if child.folder:
            yield from _entries(catalog, inner)
        elif isinstance(child.file, Entry):
            yield inner, child.file


def tree_path(session: Session, path: str) -> str:
    """Returns the path in the catalog's trees that a person means."""
    from dumbwaiter.catalog import TREES  # the database's library is slow to load, and `status` asks the daemon

    plain = path.strip("/")
    if plain.partition("/")[0] in TREES:
        return plain
    if not path.startswith("/") and session.catalog.find(f"files/{plain}") is not None:
        return f"files/{plain}"
    mount = session.config.mount.path
    absolute = os.path.abspath(path)
    if mount and absolute.startswith(f"{mount}/"):
        return absolute[len(mount) + 1 :]
    return join("files", *_watch_of(session, path))


def _entry(session: Session, path: str) -> Entry:
    node = session.catalog.find(tree_path(session, path))
    if node is None or not isinstance(node.file, Entry):
        raise Failure(f"{shown(path)} is not at any provider: dumbwaiter status {shown(path)}")
    return node.file


@click.command()
@click.argument("path", type=click.Path())
@click.pass_obj
def cat(session: Session, path: str) -> None:
    """Writes a file to stdout: the local original while it is unchanged, else what the provider has."""
    from dumbwaiter.cli.fetch import fetch

    fetch(session.config, _entry(session, path), session.address, sys.stdout.buffer)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path())
@click.option("--format", "form", default="url", help='url, markdown, html, or a template like "{name}: {url}".')
@json_option
@click.pass_obj
def link(session: Session, paths: Sequence[str], form: str) -> None:
    """Prints the link of each file."""
    from msgspec.structs import replace

    from dumbwaiter.links import filled, template

    chosen = template(form)
    for path in paths:
        entry = _entry(session, path)
        entry = replace(entry, url=session.address(entry))
        if session.json:
            session.facts({"path": shown(path), "url": entry.url})
        else:
            print(filled(entry, chosen))


@click.command()
@click.option("-n", "limit", default=50, show_default=True, help="How many.")
@json_option
@click.pass_obj
def history(session: Session, limit: int) -> None:
    """Lists what was uploaded, the latest first."""
    from dumbwaiter.report import entry_facts, errand_facts

    entries = session.catalog.history(limit)
    failed = [one for one in errand_facts(session.reader) if one["path"]]
    if session.json:
        errors = {(one["watch"], one["path"]): one for one in failed}
        facts = [entry_facts(entry) for entry in entries]
        for fact in facts:
            one = errors.get((fact["watch"], fact["path"]))
            fact["errand"] = one and f"{one['what']}: {one['error']}"
        session.facts(facts)
        return
    _print_errands(failed)
    for entry in entries:
        print(
            f"{_when(entry.stored_at)}  {size(entry.size):>10}  {shown(join(entry.watch, entry.path))}  "
            f"{entry.url or entry.key}"
        )


@click.command()
@json_option
@click.pass_obj
def failed(session: Session) -> None:
    """Lists what needs a person, and why. Exit code 20 when there is something."""
    from dumbwaiter.report import job_facts, rejected

    facts = [job_facts(job) for job in rejected(session.reader)]
    if session.json:
        session.facts(facts)
    else:
        for job in facts:
            print(f"{job['id']:>6}  {_place(job)}: {job['error']}")
    if facts:
        session.say("after you acted: dumbwaiter retry ID, or dumbwaiter forget ID")
        raise click.exceptions.Exit(Exit.ATTENTION)
