"""The one command that costs something: claim."""

import asyncio
import os
import sys
from typing import Any
from urllib.parse import quote

import click

from dumbwaiter.cli.completion import Named, paths_offered
from dumbwaiter.cli.paths import entry_of, tree_path
from dumbwaiter.cli.session import Session, json_option, not_empty
from dumbwaiter.errors import Exit, Failure, NoDaemon
from dumbwaiter.naming import shown


@click.command()
@click.argument("path", callback=not_empty, type=Named(), shell_complete=paths_offered)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_obj
def claim(session: Session, path: str, *, yes: bool) -> None:
    """Fetches Xinhua's picture without watermark, prints its link and lists it beside the original.

    \b
    dumbwaiter claim photos/cat.jpg

    This costs one use of the account, and is never done by anything else. One picture is charged once: when the answer
    was lost, this says so, and the same command asks for the same picture again.
    """
    if not yes:
        _ask(path)
    session.mute_log()
    entry_of(session, path)
    wish = tree_path(session, path)
    try:
        claimed = session.ask("POST", "/claim", {"path": quote(os.fsencode(wish))})
    except NoDaemon:
        claimed = asyncio.run(_claim_alone(session, wish))
    if not claimed["charged"]:
        session.say("it was claimed before; nothing is charged a second time")
    if session.json:
        session.facts(claimed)
    else:
        print(claimed["url"])


def _ask(path: str) -> None:
    if not sys.stdin.isatty():
        raise Failure("a claim costs one use of the account: say --yes", Exit.USAGE)
    if not click.confirm(f"Claim {shown(path)}? It costs one use of the account.", err=True):
        raise click.Abort


async def _claim_alone(session: Session, wish: str) -> dict[str, Any]:
    from dumbwaiter.control.orders import Orders

    async with session.alone() as app:
        return await Orders(app).claim(wish)
