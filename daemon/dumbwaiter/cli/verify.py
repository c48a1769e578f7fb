"""Is it still there as it was sent? Looks at each catalogued file at its provider; writes nothing, and costs nothing.

What a look can prove is the provider's doing: the size, and a tag where it is of the kind that the catalog has. Only
`--deep` reads the bytes back.
"""

import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from dumbwaiter.cli.completion import Named, paths_offered
from dumbwaiter.cli.paths import files_below
from dumbwaiter.cli.session import Session, json_option, not_empty
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.model import Entry
from dumbwaiter.naming import shown

if TYPE_CHECKING:
    from dumbwaiter.cli.fetch import Reader, Seen

OK, DIFFERS, GONE, UNKNOWN = "ok", "differs", "gone", "cannot tell"
SIDE_BY_SIDE = 8
UNASKED = {
    Exit.TEMPORARY: "some files cannot be asked for now: try again",
    Exit.NO_DAEMON: "some links have to come from the daemon: start it with `dumbwaiter run`",
}
TAGS = {
    "MD5": r"[0-9A-Fa-f]{32}",
    "MD5 of parts": r"[0-9A-Fa-f]{32}-[0-9]+",
    "SHA-1": r"[0-9A-Fa-f]{40}",
    "Qiniu's": r"[Fl][0-9A-Za-z_-]{27}",
}


class Finding(NamedTuple):
    """What was found out of one file; `code` is what not knowing ends the command with."""

    result: str
    why: str
    code: Exit = Exit.DONE


@click.command()
@click.argument("path", required=False, callback=not_empty, type=Named(), shell_complete=paths_offered)
@click.option("--deep", is_flag=True, help="Read every byte back and compare its digest.")
@json_option
@click.pass_obj
def verify(session: Session, path: str | None, *, deep: bool) -> None:
    """Compares what is at the providers with what was sent: each file is ok, differs, is gone, or nobody can tell.

    \b
    dumbwaiter verify                  everything that files/ shows
    dumbwaiter verify masters --deep   read back, byte for byte
    dumbwaiter --json verify | jq 'select(.result != "ok")'

    Exit code 0 when nothing is amiss, 20 when something differs or is gone, 5 when a provider cannot be asked now, 23 when
    a link has to come from the daemon and none is running.
    """
    from dumbwaiter.cli.fetch import Reader

    counts: Counter[str] = Counter()
    codes = {Exit.DONE}
    silent: set[str] = set()  # providers that let somebody wait in vain: one after the other each file would
    with closing(Reader()) as reader, ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        found = (file for _, file in files_below(session, path) if isinstance(file, Entry))
        for entry, finding in _ahead(pool, lambda one: _judge(session, reader, one, silent, deep=deep), found):
            counts[finding.result] += 1
            codes.add(Exit.ATTENTION if finding.result in {DIFFERS, GONE} else finding.code)
            _print(session, entry, finding)
    if path and not counts:
        raise Failure(f"nothing is known under {shown(path)}")
    session.say(", ".join(f"{count} {result}" for result, count in counts.items()) or "nothing was uploaded yet")
    if counts[GONE] or counts[DIFFERS]:
        session.say("where the original is still here, dumbwaiter put --again FILE sends it again")
    worst = next(code for code in (Exit.ATTENTION, Exit.TEMPORARY, Exit.NO_DAEMON, Exit.DONE) if code in codes)
    if worst in UNASKED:
        raise Failure(UNASKED[worst], worst)
    raise click.exceptions.Exit(worst)


def _ahead(
    pool: ThreadPoolExecutor, look: Callable[[Entry], Finding], entries: Iterable[Entry]
) -> Iterator[tuple[Entry, Finding]]:
    """Yields what `look` finds, in order, a few entries ahead of the reader."""
    under_way: deque[tuple[Entry, Future[Finding]]] = deque()
    for entry in entries:
        under_way.append((entry, pool.submit(look, entry)))
        if len(under_way) > 2 * SIDE_BY_SIDE:
            first, future = under_way.popleft()
            yield first, future.result()
    for entry, future in under_way:
        yield entry, future.result()


def _print(session: Session, entry: Entry, finding: Finding) -> None:
    place = shown(entry.place)
    why = finding.why.removeprefix(f"{place}: ")
    if session.json:
        facts: dict[str, Any] = {
            "provider": entry.provider,
            "key": entry.key,
            "watch": entry.watch or None,
            "path": shown(entry.path) or None,
            "size": entry.size,
            "result": finding.result,
            "why": why,
        }
        session.facts(facts)
    else:
        print(f"{finding.result:<11}  {place}: {why}")


def _judge(session: Session, reader: "Reader", entry: Entry, silent: set[str], *, deep: bool) -> Finding:
    from dumbwaiter.cli.fetch import SILENT, Refused, Silent

    if entry.provider in silent:
        return Finding(UNKNOWN, SILENT, Exit.TEMPORARY)

    try:
        url = session.address(entry)
        try:
            return _look(reader, entry, url, deep=deep)
        except Refused:
            return _look(reader, entry, session.address(entry, url), deep=deep)
    except Refused:
        return _ask(session, entry, Finding(UNKNOWN, "the provider does not let it be read"))
    except Silent as failure:
        silent.add(entry.provider)
        return Finding(UNKNOWN, str(failure), Exit.TEMPORARY)
    except Failure as failure:
        code = failure.code if failure.code in {Exit.TEMPORARY, Exit.NO_DAEMON} else Exit.DONE
        return _ask(session, entry, Finding(UNKNOWN, str(failure), code))


def _look(reader: "Reader", entry: Entry, url: str, *, deep: bool) -> Finding:
    seen = reader.read_back(url, entry.size) if deep else reader.glance(url)
    return compare(entry, seen)


def compare(entry: Entry, seen: "Seen | None") -> Finding:
    """Returns what a look at a file says of it; None: the provider has no such file."""
    if seen is None:
        return Finding(GONE, "the provider has no such file")
    if seen.size is None:
        return Finding(UNKNOWN, "the provider does not say how large it is")
    if seen.size != entry.size:
        return Finding(DIFFERS, f"{seen.size} bytes are there, {entry.size} were sent")
    if seen.digest is not None:
        if entry.digest is None:
            return Finding(UNKNOWN, "its size is right; no digest was kept of what was made by the provider")
        if seen.digest.partition(":")[0] != entry.digest.partition(":")[0]:
            return Finding(UNKNOWN, "its size is right; an older version kept another kind of digest")
        same = seen.digest == entry.digest
        return Finding(OK, "every byte is as it was sent") if same else Finding(DIFFERS, "its bytes are not those sent")
    there, sent = _tag(seen.etag), _tag(entry.etag)
    if there is None or sent is None or there[0] != sent[0]:
        return Finding(OK, "its size is right")
    if there != sent:
        return Finding(DIFFERS, f"its tag is {seen.etag}, and was {entry.etag}")
    return Finding(OK, "size and tag are right")


def _tag(text: str) -> tuple[str, str] | None:
    """Returns kind and value of a tag that is made of the content, None for any other."""
    plain = text.strip('"')
    kind = next((one for one, form in TAGS.items() if re.fullmatch(form, plain)), None)
    return None if kind is None else (kind, plain if kind == "Qiniu's" else plain.lower())


def _ask(session: Session, entry: Entry, otherwise: Finding) -> Finding:
    """Has the daemon ask the vendor for a file that cannot be looked at, where the vendor tells."""
    try:
        there = session.ask("POST", "/still", {"id": entry.id})["there"]
    except Failure as failure:
        return Finding(UNKNOWN, str(failure), failure.code) if failure.code is Exit.TEMPORARY else otherwise
    if there is not None:
        return Finding(OK, "the provider lists it") if there else Finding(GONE, "the provider no longer lists it")
    if entry.unlisted_at is not None:
        day = datetime.fromtimestamp(entry.unlisted_at).astimezone().date()
        return Finding(GONE, f"the provider's list is without it since {day}")
    return otherwise
