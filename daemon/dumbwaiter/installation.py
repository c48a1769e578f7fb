"""One installation: the lock of its state folder, its name in a shared journal, and the journal opened to write."""

import asyncio
import errno
import fcntl
import os
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

from sqlalchemy import URL, Engine, select

from dumbwaiter.config import Config
from dumbwaiter.errors import Exit, Failure, JournalTrouble
from dumbwaiter.journal import Journal
from dumbwaiter.model import MIB
from dumbwaiter.places import DAEMON, Places, private_folder
from dumbwaiter.store.database import (
    check_sound,
    host_of,
    journal_exists,
    journal_url,
    missing_journal,
    reading,
    unusable_state,
    writing,
)
from dumbwaiter.store.tables import jobs
from dumbwaiter.store.upgrade import revision, upgrade
from dumbwaiter.store.writer import Writer

LOOK = 0.5  # seconds in which somebody may just be looking who has the lock
MOVED = (
    "the state folder or the journal in it was removed or moved while the daemon ran, so it ended: put it back before the next "
    "start, or all is uploaded again"
)
CUT_OFF = "the journal's log was removed while the daemon ran, so it ended, and what was in that log is in the journal: start it again"
END = 2.0  # seconds for a last word to a server
LOOKED_OVER = 256 * MIB  # size up to which a journal is looked over at each start


class Lock:
    """One daemon a state folder. The file is never removed: whoever holds the lock on it is the one."""

    def __init__(self, state: str) -> None:
        self._state = state
        self._fd = os.open(os.path.join(state, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def try_acquire(self, *, runtime: str | None = None) -> bool:
        """Takes the lock and returns True if nobody holds it. A daemon names its runtime folder, for who looks for it.

        Raises `Failure` where none can be had: a file server may give none.
        """
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise unusable_state(self._state, error) from None
        with suppress(OSError):  # on a full disk nobody is told who it is
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"" if runtime is None else DAEMON + b"\n" + os.fsencode(runtime), 0)
        return True

    async def acquire(self, seconds: float = LOOK, *, runtime: str | None = None) -> bool:
        """`try_acquire`, tried again for so many seconds: who only looks whether somebody has the lock has it for a moment."""
        end = time.monotonic() + seconds
        while not self.try_acquire(runtime=runtime):
            if time.monotonic() > end:
                return False
            await asyncio.sleep(0.1)
        return True

    @property
    def held_by_daemon(self) -> bool:
        """Whether whoever holds the lock, or did last, is a daemon."""
        return os.pread(self._fd, len(DAEMON), 0) == DAEMON

    def wait(self) -> None:
        """Takes the lock as soon as nobody else holds it."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def close(self) -> None:
        os.close(self._fd)


def open_lock(places: Places) -> Lock:
    """Prepares the state folder and returns its lock, not yet taken. Raises `Failure` for one that cannot be had."""
    try:
        private_folder(places.state)
        owner = os.stat(places.state).st_uid
        if owner not in {0, os.geteuid()} and os.geteuid() != 0:  # root may lend one, and may use anybody's
            raise Failure(
                f"the state folder {places.state} belongs to somebody else: name another one with --state", Exit.USAGE
            )
        if not os.access(places.state, os.W_OK):
            read_only = os.statvfs(places.state).f_flag & os.ST_RDONLY
            raise unusable_state(places.state, OSError(errno.EROFS if read_only else errno.EACCES, ""))
        return Lock(places.state)
    except OSError as error:
        raise unusable_state(places.state, error) from None


@asynccontextmanager
async def open_journal(config: Config, places: Places) -> AsyncIterator[Journal]:
    """Opens the journal to write, at today's schema. The caller holds the lock of the state folder."""
    url = journal_url(places.state, config.journal)
    host = host_of(places.state)
    if url.get_backend_name() == "sqlite" and journal_exists(places.state, url) and host is not None:
        await asyncio.to_thread(_look, url)
    engine = writing(url)
    await asyncio.to_thread(upgrade, engine)
    # After the journal, or a kill between the two would look like a journal that was lost.
    if host is None:
        host = await asyncio.to_thread(_name, places.state, engine)
    writer = Writer(engine)
    reader = reading(url, host)
    files = {os.path.join(places.state, "lock"): MOVED}
    if url.get_backend_name() == "sqlite" and url.database:
        # What is committed to a log without a name is in the journal only after the next checkpoint, and lost with a crash.
        files |= {url.database: MOVED, f"{url.database}-wal": CUT_OFF, f"{url.database}-shm": CUT_OFF}
    opened = [(path, _identity(path), sentence) for path, sentence in files.items()]
    journal = Journal(writer, host, reader, partial(_out_of_place, opened))
    try:
        if url.get_backend_name() != "sqlite":  # that one is no machine's but this
            await journal.presence.begin(places.state)
        try:
            yield journal
        finally:
            with suppress(JournalTrouble, TimeoutError):  # silence says the same, later
                async with asyncio.timeout(END):
                    await journal.presence.end()
    finally:
        reader.dispose()
        await asyncio.to_thread(writer.close)


def _out_of_place(files: Sequence[tuple[str, tuple[int, int] | None, str]]) -> str:
    """Returns the sentence for the first file that is not where it was opened any more, empty while all are."""
    return next((sentence for path, identity, sentence in files if _identity(path) != identity), "")


def _identity(path: str) -> tuple[int, int] | None:
    """Returns which file is at a path, None for none. A disk that cannot say raises `JournalTrouble`."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise JournalTrouble(f"the journal cannot be read: {error.strerror}") from None
    return status.st_dev, status.st_ino


def _name(state: str, engine: Engine) -> str:
    """Names an installation as the journal does whose copy it begins with, else anew. Raises `Failure`."""
    with engine.connect() as connection:
        known: list[str] = list(connection.execute(select(jobs.c.host).distinct().limit(2)).scalars())
    if engine.dialect.name != "sqlite" or not known:  # a server's database may be shared
        known = [secrets.token_hex(8)]
    if len(known) > 1:
        raise Failure(
            f"the journal is of several machines, and nothing says which is this one: put the file `host` back into {state}",
            Exit.USAGE,
        )
    (host,), path = known, os.path.join(state, "host")
    with open(os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(host)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.new", path)
    return host


def _look(url: URL) -> None:
    """Raises `Failure` when what was in the journal is gone: it is never quietly begun anew. Damage is `JournalTrouble`."""
    database = url.database or ""
    reader = reading(url)
    try:
        with reader.connect() as connection:
            found = revision(connection)
            if found is not None and os.path.getsize(database) < LOOKED_OVER:
                check_sound(connection)
    finally:
        reader.dispose()
    if found is None:
        raise missing_journal(database)
