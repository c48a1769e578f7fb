"""What is at a provider and was not put there by us: sync --remote."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import click

from dumbwaiter.cli.completion import providers_offered
from dumbwaiter.cli.session import Session, json_option, not_empty
from dumbwaiter.errors import Exit, Failure, NoDaemon


@click.command()
@click.option("--remote", is_flag=True, help="From the provider's own list; nothing is uploaded or deleted.")
@click.argument("provider", required=False, callback=not_empty, shell_complete=providers_offered)
@json_option
@click.pass_obj
def sync(session: Session, provider: str | None, *, remote: bool) -> None:
    """Reads what is at PROVIDER into the catalog, by the provider's own list; with no name, of all that give one.

    \b
    dumbwaiter sync --remote shop

    The mount then shows below keys/PROVIDER what others put there too. A reading that broke off goes on where it was.
    """
    if not remote:
        raise Failure("say --remote: watched folders are looked through by `dumbwaiter rescan`", Exit.USAGE)
    session.mute_log()
    ends = asyncio.run(_sync(session, provider))
    if session.json:
        session.facts(ends)
    for one in ends:
        if not session.json and "done" in one:
            print(_sentence(one))
    for one in ends:
        if "error" in one:
            raise Failure(f"{one['provider']}: {one['error']}", Exit(one["code"]))


async def _sync(session: Session, provider: str | None) -> list[dict[str, Any]]:
    """Returns how each walk ended; through the daemon, or in its place when none runs."""
    try:
        with contextlib.closing(session.follow("POST", "/sync", {"provider": provider})) as answers:
            return [one for one in answers if _told(session, one)]
    except NoDaemon:
        return [one async for one in _alone(session, provider) if _told(session, one)]


async def _alone(session: Session, provider: str | None) -> AsyncIterator[dict[str, Any]]:
    from dumbwaiter.control.following import follow_walks

    async with session.alone() as app:
        async for one in follow_walks(app, app.walks.of(provider)):
            yield one


def _told(session: Session, one: dict[str, Any]) -> bool:
    """Says how far a walk is; true for the last word of one."""
    if "done" in one or "error" in one:
        return True
    if session.verbose:
        session.say(f"{one['provider']}: {one['listed']} so far")
    return False


def _sentence(one: dict[str, Any]) -> str:
    text = f"{one['provider']}: {one['listed']} listed, {one['new']} new, {one['gone']} gone"
    if one["unlisted"]:
        text += f", {one['unlisted']} of ours no longer listed"
    return text if one["whole"] else f"{text}; it changed meanwhile, so nothing was taken for gone"
