"""The way back when the journal is lost or damaged."""

import asyncio
import os

import click

from dumbwaiter.cli.session import Session
from dumbwaiter.errors import Exit, Failure


@click.command()
@click.option("--anew", is_flag=True, help="Begin a new journal: everything is uploaded again.")
@click.pass_obj
def recover(session: Session, *, anew: bool) -> None:
    """Puts the journal's last copy in its place, after it was lost or damaged.

    A copy is made every day. What was uploaded since is found in the watched folders by the next `run` and compared or
    sent again; the damaged journal is kept.

    \b
    dumbwaiter recover                 the last copy
    dumbwaiter recover --anew          a new journal, where there is no copy
    """
    from dumbwaiter.installation import open_lock
    from dumbwaiter.store.backup import recover as put_back
    from dumbwaiter.store.database import journal_url, writing
    from dumbwaiter.store.upgrade import upgrade

    url = journal_url(session.places.state, session.config.journal)
    if url.get_backend_name() != "sqlite" or not url.database:
        raise Failure("the journal is on a server: its own tools bring it back", Exit.USAGE)
    lock = open_lock(session.places)
    try:
        if not asyncio.run(lock.acquire()):
            raise Failure(f"a daemon is running on {session.places.state}: stop it first")
        aside = put_back(url.database, anew=anew)
        engine = writing(url)
        upgrade(engine)
        engine.dispose()
    finally:
        lock.close()
    kept = f"; what was there is {aside} now" if os.path.exists(aside) else ""
    session.say(f"the journal is {'a new one' if anew else 'its last copy again'}{kept}")
    session.say("now: dumbwaiter run, then dumbwaiter verify")
