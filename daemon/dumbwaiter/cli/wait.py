"""wait: returns when everything seen so far is done."""

import contextlib
import time
from collections.abc import Generator, Iterator
from typing import Any

import click

from dumbwaiter.cli.session import Session, json_option, not_empty
from dumbwaiter.cli.words import rests, span
from dumbwaiter.errors import Exit, Failure, NoDaemon
from dumbwaiter.naming import counted


@click.command()
@click.option(
    "--timeout", metavar="TIME", callback=not_empty, help='Give up after this, like "10m"; a number alone is seconds.'
)
@click.option("--inhibit", is_flag=True, help="Keep the machine from sleeping and shutting down meanwhile.")
@json_option
@click.pass_obj
def wait(session: Session, timeout: str | None, *, inhibit: bool) -> None:
    """Returns when everything seen so far is done: 0, or 20 when a file could not be uploaded and needs a person.

    \b
    dumbwaiter wait --inhibit && systemctl poweroff
    dumbwaiter wait --timeout 10m      exit code 5 when that was too short
    """
    end = time.monotonic() + span(timeout) if timeout else None
    with _inhibited(session) if inhibit else contextlib.nullcontext():
        _wait(session, end)


@contextlib.contextmanager
def _inhibited(session: Session) -> Iterator[None]:
    """Holds sleep and shutdown off; where there is no logind, says so and goes on."""
    from dumbwaiter.cli.inhibit import NoLogind, held

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held("files are being uploaded"))
        except NoLogind as reason:
            session.say(f"sleep and shutdown are not held off: {reason}")
        yield


def _wait(session: Session, end: float | None) -> None:
    totals: dict[str, int] = {}
    pauses: list[dict[str, Any]] = []
    with contextlib.closing(_states(session, end)) as states:
        for state in states:
            totals = state["totals"]
            left = totals["pending"] + totals["stored"] + state["settling"]
            if not left and not state["trouble"]:
                if session.json:
                    session.facts(totals)
                if count := totals["in_need"]:
                    told = f"{counted(count, 'file needs', 'files need')} a person: dumbwaiter failed"
                    if totals["rejected"]:
                        raise Failure(told, Exit.ATTENTION)
                    session.say(f"all is at the providers; {told}")
                return
            for pause in state["paused"]:
                if pause not in pauses:  # nothing else may say why it takes so long
                    session.say(rests(pause["name"], pause["until"]))
                    pauses.append(pause)
            stuck = [one for one in state["providers"] if one["state"] == "blocked" and one["pending"]]
            if left and stuck and not state["settling"] and sum(one["pending"] for one in stuck) == left:
                if session.json:
                    session.facts(totals)
                raise Failure(f"provider {stuck[0]['name']}: {stuck[0]['error']}", Exit.ACCOUNT)
    if session.json:
        session.facts(totals)
    if end is None or time.monotonic() < end:
        raise NoDaemon("the daemon has ended")
    raise Failure("not everything is done yet", Exit.TEMPORARY)


def _states(session: Session, end: float | None) -> Generator[dict[str, Any], None, None]:
    """Yields the daemon's states until `end`."""
    with contextlib.closing(session.follow("GET", "/status?jobs=0&follow=1&scan=1", end=end)) as states:
        for state in states:
            yield state
            if end is not None and time.monotonic() > end:
                return
