"""A copy of the SQLite journal beside it, made while the daemon works, and the way back to it.

The copy holds no session ticket: what was on its way when it was made begins anew. A server's databases are backed up
by its own tools.
"""

import os
import shutil
import sqlite3
import time
from contextlib import closing, suppress
from urllib.parse import quote

from sqlalchemy import URL

from dumbwaiter.errors import Exit, Failure, JournalTrouble

AGE = 86400.0  # seconds after which a copy is replaced
ROOM = 3  # times the journal's size that must be free


def backup_of(database: str) -> str:
    """Returns the name of a journal's copy."""
    return f"{database}.backup"


def back_up(url: URL, now: float) -> bool:
    """Makes a copy if there is none from the last day; returns whether it did.

    Raises `JournalTrouble`, for want of room too; an earlier copy stays then.
    """
    database = url.database
    if url.get_backend_name() != "sqlite" or not database:
        return False
    fresh = f"{backup_of(database)}.new"
    try:
        if not _due(database, now):
            return False
        with suppress(FileNotFoundError):
            os.unlink(fresh)  # of a daemon that was killed meanwhile
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(f"file:{quote(os.fsencode(database))}?mode=ro", uri=True, timeout=30)) as journal:
            journal.execute("VACUUM INTO ?", (fresh,))
        with closing(sqlite3.connect(fresh, isolation_level=None)) as copy:
            copy.execute("PRAGMA journal_mode=MEMORY")
            copy.execute("PRAGMA secure_delete=ON")
            copy.execute('UPDATE jobs SET "grant" = NULL, checkpoint = NULL, lease = NULL')
            if copy.execute("PRAGMA quick_check").fetchone() != ("ok",):
                raise JournalTrouble("the journal is damaged, so no copy of it is made: dumbwaiter recover", Exit.USAGE)
        os.replace(fresh, backup_of(database))
    except (sqlite3.Error, OSError) as error:
        raise JournalTrouble(f"the journal cannot be copied: {error}") from error
    return True


def recover(database: str, *, anew: bool) -> str:
    """Puts the copy in the journal's place, or nothing with `anew`; returns where the old one lies now.

    The caller holds the lock of the state folder. Raises `Failure` when there is no copy, or no need.
    """
    copy = backup_of(database)
    if _is_sound(database):
        raise Failure(
            "the journal is sound, and what would take its place knows less. To go on without it all the same, "
            f"move {database} elsewhere first",
            Exit.USAGE,
        )
    if not anew and not os.path.exists(copy):
        raise Failure(
            f"there is no copy of the journal, {copy}; dumbwaiter recover --anew begins a new one, "
            "and everything in the watched folders is uploaded again",
            Exit.USAGE,
        )
    if not anew and not _is_sound(copy, closed=True):
        raise Failure(
            f"the copy of the journal, {copy}, is damaged as well; dumbwaiter recover --anew begins a new one, "
            "and everything in the watched folders is uploaded again",
            Exit.USAGE,
        )
    aside = f"{database}.{time.strftime('%Y%m%d-%H%M%S')}"
    # Its log first: beside another database it would be taken for that one's.
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            os.rename(f"{database}{suffix}", f"{aside}{suffix}")
    if not anew:
        fresh = f"{database}.new"
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        shutil.copyfile(copy, fresh)
        os.replace(fresh, database)
    return aside


def _is_sound(database: str, *, closed: bool = False) -> bool:
    """True for a journal that can be read and knows of a file: without its log it may be sound and empty.

    One that was `closed`, as a copy is, has no log, may be empty, and is only looked at.
    """
    how = "mode=ro&immutable=1" if closed else "mode=ro"
    try:
        with closing(sqlite3.connect(f"file:{quote(os.fsencode(database))}?{how}", uri=True, timeout=30)) as journal:
            knows = journal.execute("SELECT 1 FROM jobs LIMIT 1").fetchone() is not None
            return (knows or closed) and bool(journal.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    except sqlite3.Error:
        return False


def _due(database: str, now: float) -> bool:
    with suppress(FileNotFoundError):
        if 0 <= now - os.stat(backup_of(database)).st_mtime < AGE:  # the clock may have been another one then
            return False
    folder = os.path.dirname(database)
    if shutil.disk_usage(folder).free <= ROOM * os.stat(database).st_size:
        raise JournalTrouble(f"no room for a copy of the journal: three times its size has to be free in {folder}")
    return True
