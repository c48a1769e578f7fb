"""Commands that only look: status, ls, cat, link, history, failed."""

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import click

from dumbwaiter.cli.answers import in_use
from dumbwaiter.cli.completion import Named, paths_offered
from dumbwaiter.cli.paths import file_at, files_below, linked
from dumbwaiter.cli.quick_status import errand_lines, print_status
from dumbwaiter.cli.session import Session, json_option, not_empty
from dumbwaiter.cli.words import moment, place, size, when
from dumbwaiter.errors import Exit, Failure, NoDaemon
from dumbwaiter.model import Entry
from dumbwaiter.naming import counted, shown
from dumbwaiter.places import daemon_runtime


@click.command()
@click.argument("path", required=False, callback=not_empty, type=Named(), shell_complete=paths_offered)
@click.option("--watch", "live", is_flag=True, help="Go on showing it.")
@json_option
@click.pass_obj
def status(session: Session, path: str | None, *, live: bool) -> None:
    """Tells what is going on; with PATH, where that file is and why.

    \b
    dumbwaiter status
    dumbwaiter status --watch          live, until Ctrl-C
    dumbwaiter status ~/Drop/film.mov  by which rule, what was tried, what happens next
    """
    if path is not None:
        if live:
            raise Failure("`status --watch` shows everything as it goes: leave PATH out, or --watch", Exit.USAGE)
        from dumbwaiter.cli.story import tell

        tell(session, path)
    elif live:
        _live(session)
    else:
        facts = _status(session)
        if session.json:
            session.facts(facts)
        else:
            print_status(facts)


def _status(session: Session) -> dict[str, Any]:
    """Asks the daemon, else the journal."""
    try:
        facts: dict[str, Any] = session.ask("GET", "/status")
    except NoDaemon:
        return _status_without_daemon(session)
    return facts


def _status_without_daemon(session: Session) -> dict[str, Any]:
    from dumbwaiter import report
    from dumbwaiter.facts import NO_COUNTS, provider_facts, watch_facts

    config = session.config
    closed = config.closed(time.time())
    counts = report.count_all(session.reader) if session.has_journal else NO_COUNTS
    named = report.work_to_list(session.reader) if session.has_journal else {"jobs": [], "errands": []}
    return {
        "running": False,
        "pid": None,
        "watches": [
            watch_facts(name, watch, counts, opens_at=closed.get(name)) for name, watch in config.watch.items()
        ],
        "providers": [provider_facts(name, counts) for name in config.provider],
        "paused": [],
        "bytes_per_second": None,
        "settling": 0,
        "trouble": in_use(session.places, by_daemon=True) if daemon_runtime(session.places.state) is not None else None,
        "totals": counts.totals,
        **named,
    }


def _live(session: Session) -> None:
    """Shows the daemon's state as it changes, until Ctrl-C."""
    states = session.follow("GET", "/status?follow=1")
    with suppress(KeyboardInterrupt):  # the way to end it
        if session.json or not sys.stdout.isatty():
            for facts in states:
                session.facts(facts)
        else:
            from dumbwaiter.cli.progress import live

            live(states)
        raise NoDaemon("the daemon has ended")


@click.command()
@click.argument("path", required=False, callback=not_empty, type=Named(), shell_complete=paths_offered)
@click.option("-l", "long", is_flag=True, help="With size, time and link.")
@json_option
@click.pass_obj
def ls(session: Session, path: str | None, *, long: bool) -> None:
    """Lists what is at the providers, as a tree.

    \b
    dumbwaiter ls -l masters/2026
    dumbwaiter ls keys/vod             as the provider names them

    PATH is WATCH/PATH, as in the mount's files/; or begins with keys/, files/ or outbox/; or is a local path.
    """
    from dumbwaiter.facts import entry_facts, waiting_facts

    found = files_below(session, path or None)
    if session.json:
        session.list_facts(entry_facts(file) if isinstance(file, Entry) else waiting_facts(file) for _, file in found)
        return
    for name, file in found:
        name = shown(name.removeprefix("files/"))
        if not long:
            print(name)
        elif isinstance(file, Entry):
            print(f"{file.size:>14}  {when(file.stored_at)}  {name}  {file.url or ''}".rstrip())
        else:
            print(f"{file.size:>14}  {file.state.value:<25}  {name}  {file.error or ''}".rstrip())


@click.command()
@click.argument("path", callback=not_empty, type=Named(), shell_complete=paths_offered)
@click.pass_obj
def cat(session: Session, path: str) -> None:
    """Writes a file to stdout: the local original while it is unchanged, else what the provider has.

    \b
    dumbwaiter cat masters/film.mov | ffprobe -
    """
    from dumbwaiter.cli.fetch import fetch, original

    file = file_at(session, path)
    if file is not None and not isinstance(file, Entry) and original(session.config, file, sys.stdout.buffer):
        return
    fetch(session.config, linked(session, path), session.address, sys.stdout.buffer)


@click.command()
@click.argument("paths", nargs=-1, required=True, callback=not_empty, type=Named(), shell_complete=paths_offered)
@click.option(
    "--format",
    "form",
    default="url",
    callback=not_empty,
    help='url, markdown, html, bbcode, or a template like "{name}: {url}".',
)
@click.option("--copy", "copied", is_flag=True, help="Put it into the clipboard too.")
@json_option
@click.pass_obj
def link(session: Session, paths: Sequence[str], form: str, *, copied: bool) -> None:
    """Prints the link of each file, one a line.

    \b
    dumbwaiter link photos/cat.jpg --format markdown --copy
    dumbwaiter link ~/Drop/film.mov --format "{name}\t{url}"

    A picture becomes one in markdown, html and bbcode, another file a link. A link that has to be signed comes from
    the daemon.
    """
    from msgspec.structs import replace

    from dumbwaiter.cli.clipboard import copy
    from dumbwaiter.links import filled, template

    chosen, code, lines = template(form), Exit.DONE, []
    for path in paths:
        try:
            entry = linked(session, path)
            entry = replace(entry, url=session.address(entry))
        except Failure as failure:
            print(f"dumbwaiter: {failure}", file=sys.stderr)
            code = failure.code
            continue
        lines.append(filled(entry, chosen))
        if session.json:
            session.facts({"path": shown(path), "url": entry.url, "text": lines[-1]})
        else:
            print(lines[-1])
    if copied and lines:
        session.say(f"copied by {copy(chr(10).join(lines))}")
    raise click.exceptions.Exit(code)


@click.command()
@click.option("-n", "--limit", default=50, show_default=True, type=click.IntRange(0, 10**9), help="How many.")
@click.option(
    "--since", metavar="TIME", callback=not_empty, help='Not older than "2h" or "7d", or since "2026-03-04 12:00".'
)
@json_option
@click.pass_obj
def history(session: Session, limit: int, since: str | None) -> None:
    """Lists what was uploaded, the latest first.

    \b
    dumbwaiter history --since 7d --limit 1000
    dumbwaiter history --json | jq -r '.[].url'
    """
    from dumbwaiter.facts import entry_facts
    from dumbwaiter.report import failed_errands, latest_errands

    wanted = 0.0 if since is None else moment(since, time.time())
    pages = session.catalog.history_in_pages(limit, wanted) if session.has_journal else iter(())
    if session.json:

        def facts() -> Iterator[dict[str, Any]]:
            for page in pages:
                failed = latest_errands(session.reader, {(entry.watch, entry.path) for entry in page})
                for entry in page:
                    one = failed.get((entry.watch, entry.path))
                    yield {**entry_facts(entry), "errand": one and f"{one.what}: {one.error}"}

        session.list_facts(facts())
        return
    listed = failed_errands(session.reader) if session.has_journal else []
    for line in errand_lines([one for one in listed if one["path"]]):
        print(line)
    told = 0
    for told, entry in enumerate(chain.from_iterable(pages), 1):  # noqa: B007 - how many there were
        print(f"{when(entry.stored_at)}  {size(entry.size):>10}  {shown(entry.place)}  {entry.url or shown(entry.key)}")
    if told == limit > 0:
        so_far = f" --since {shlex.quote(since)}" if since else ""
        session.say(f"the latest {limit}; more: dumbwaiter history{so_far} -n {10 * limit}")


@click.command()
@json_option
@click.pass_obj
def failed(session: Session) -> None:
    """Lists what needs a person, and why: files, and accounts that files wait for. Exit code 20 when there is something.

    \b
    dumbwaiter failed || dumbwaiter retry --all
    """
    from dumbwaiter.report import LISTED, count_needy, needy

    facts = needy(session.reader) if session.has_journal else []
    if not session.json:
        for job in facts:
            print(f"{job['id']:>6}  {place(job)}: {job['error']}", flush=True)
    accounts = [
        {"id": None, "provider": one["name"], "watch": None, "path": None}
        | {name: one[name] for name in ("pending", "error")}
        for one in (session.daemon_facts or {"providers": ()})["providers"]
        if one["state"] == "blocked" and one["pending"]
    ]
    if session.json:
        session.facts(facts + accounts)
    for account in () if session.json else accounts:
        print(f"        {account['provider']}, for {counted(account['pending'], 'file')}: {account['error']}")
    if len(facts) >= LISTED and (more := count_needy(session.reader) - len(facts)) > 0:
        session.say(
            f"these are the latest {len(facts)}; {more} more need a person: dumbwaiter retry --all tries all again"
        )
    lacking = [one for one in facts if (one["error"] or "").startswith("follow_up: ")]
    if len(facts) > len(lacking):
        session.say("after you acted: dumbwaiter retry ID, or dumbwaiter forget ID")
    if lacking:
        session.say(
            "what a provider did not do once it had the file: dumbwaiter forget ID when you have seen to it, "
            "or send the file again: dumbwaiter put --again FILE"
        )
    if facts or accounts:
        raise click.exceptions.Exit(Exit.ATTENTION)
