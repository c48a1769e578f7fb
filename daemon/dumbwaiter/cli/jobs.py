"""Commands that change jobs by their numbers: retry, forget."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import click

from dumbwaiter.cli.session import Session, json_option
from dumbwaiter.errors import Exit, Failure, NoDaemon
from dumbwaiter.naming import counted

if TYPE_CHECKING:
    from dumbwaiter.journal import Journal

NUMBER = click.IntRange(1, (1 << 63) - 1)  # of a job
NUMBER.name = "number"  # what click says that a word is none of


@click.command()
@click.argument("ids", nargs=-1, type=NUMBER)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@json_option
@click.pass_obj
def retry(session: Session, ids: Sequence[int], *, everything: bool) -> None:
    """Tries jobs again that needed a person, or that wait for their next try.

    \b
    dumbwaiter retry 12 13             by the numbers that `failed` and `status` show
    dumbwaiter retry --all
    """
    if bool(ids) == everything:
        raise Failure("say which: dumbwaiter retry ID…, or --all", Exit.USAGE)
    chosen = None if everything else ids
    count = _change(session, "/retry", chosen, lambda journal, now: journal.queue.retry(chosen, now))
    if count == 0 and not everything:
        raise Failure(f"no such job is waiting or rejected: {', '.join(map(str, ids))}")
    _tell(session, count, ids, "due again")


@click.command()
@click.argument("ids", nargs=-1, type=NUMBER, required=True)
@json_option
@click.pass_obj
def forget(session: Session, ids: Sequence[int]) -> None:
    """Drops jobs for good; the files stay where they are.

    \b
    dumbwaiter forget 12               that version of the file is not taken again, a newer one is
    """
    count = _change(session, "/forget", ids, lambda journal, now: journal.queue.forget(ids, now))
    if count == 0:
        raise Failure(f"no such job is waiting or rejected: {', '.join(map(str, ids))}")
    _tell(session, count, ids, "forgotten")


def _tell(session: Session, count: int, ids: Sequence[int], what: str) -> None:
    others = len(set(ids)) - count
    if session.json:
        session.facts({"count": count})
    else:
        session.say(f"{counted(count, 'job')} {what}")
    if others > 0:
        session.say(f"{counted(others, 'number is', 'numbers are')} of no job that waits or was rejected")


def _change(
    session: Session, path: str, ids: Sequence[int] | None, change: "Callable[[Journal, float], Awaitable[int]]"
) -> int:
    """Changes jobs through the daemon, or by `change` in the journal when none runs; returns how many."""
    try:
        return int(session.ask("POST", path, {"ids": ids})["count"])
    except NoDaemon:
        return asyncio.run(_change_journal(session, change))


async def _change_journal(session: Session, change: "Callable[[Journal, float], Awaitable[int]]") -> int:
    from dumbwaiter.installation import open_journal

    async with session.locked():
        if not session.has_journal:
            return 0
        async with open_journal(session.config, session.places) as journal:
            return await change(journal, time.time())
