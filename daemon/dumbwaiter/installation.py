"""One installation: the lock of its state folder, its name in a shared journal, and the journal opened to write."""

import asyncio
import fcntl
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dumbwaiter.config import Config
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.journal import Journal
from dumbwaiter.store.database import Writer, journal_url, reading, writing
from dumbwaiter.store.upgrade import upgrade
from dumbwaiter.where import Places, private_folder


class Lock:
    """One daemon a state folder. The file is never removed: whoever holds the lock on it is the one."""

    def __init__(self, state: str) -> None:
        self._fd = os.open(os.path.join(state, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self) -> bool:
        """Takes the lock if nobody holds it."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def wait(self) -> None:
        """Takes the lock as soon as nobody else holds it."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def close(self) -> None:
        os.close(self._fd)


def lock(places: Places) -> Lock:
    """Prepares the state folder and returns its lock, not yet taken."""
    private_folder(places.state)
    return Lock(places.state)


@asynccontextmanager
async def open_journal(config: Config, places: Places) -> AsyncIterator[Journal]:
    """Opens the journal to write, at today's schema. The caller holds the lock of the state folder."""
    url = journal_url(places.state, config.journal)
    host = _host_id(places.state, url.database if url.get_backend_name() == "sqlite" else None)
    engine = writing(url)
    await asyncio.to_thread(upgrade, engine)
    writer = Writer(engine)
    reader = reading(url)
    try:
        yield Journal(writer, host, reader)
    finally:
        reader.dispose()
        await asyncio.to_thread(writer.close)


def _host_id(state: str, database: str | None) -> str:
    """Returns the name of this installation, made at its first start.

    It also remembers that there was a journal: one that has vanished is told of, never quietly begun anew.
    """
    path = os.path.join(state, "host")
    try:
        with open(path, encoding="ascii") as file:
            host = file.read().strip()
    except FileNotFoundError:
        host = secrets.token_hex(8)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "w", encoding="ascii") as file:
            file.write(host)
        return host
    if database is not None and (not os.path.exists(database) or os.path.getsize(database) == 0):
        raise Failure(
            f"the journal {database} is missing or empty, but there was one: put its backup back, or remove {path} "
            "to begin a new one (everything in the watched folders is then uploaded again)",
            Exit.USAGE,
        )
    return host
