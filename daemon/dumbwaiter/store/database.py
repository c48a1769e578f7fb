"""Connections to the journal's database: one that writes (`writer` has it), and short read-only ones.

SQLite runs in WAL mode. Its one writer begins each transaction as a writer (`BEGIN IMMEDIATE`), because a reader
that turns writer half way is refused without waiting; readers cannot write and never checkpoint.
"""

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, inspect, make_url

from dumbwaiter.errors import Exit, Failure, JournalTrouble, Unstorable
from dumbwaiter.naming import shown

LATE = 1  # second more than a server was given, for its answer to be here
BUSY = 20  # seconds that SQLite waits for whoever has the database; a command waits more than twice as long
HELD = 20  # seconds that a machine may stand still within a transaction before a server ends that, and what it locks
HOST = "dumbwaiter_host"  # the option of a reading engine


def journal_url(state: str, configured: str | None = None) -> URL:
    """Returns where the journal is: as configured, else a file in the state folder."""
    return make_url(configured) if configured else URL.create("sqlite", database=os.path.join(state, "journal.db"))


def journal_exists(state: str, url: URL) -> bool:
    """Returns whether there is a journal.

    Raises `Failure` when there was one and it is gone, which is never taken for a beginning, and for a state folder or a
    journal that cannot be one.
    """
    if url.get_backend_name() != "sqlite":
        return _has_tables(url)
    database = url.database or ""
    try:
        status = os.stat(database)
    except FileNotFoundError:
        size = 0
    except OSError as error:
        raise unusable_state(state, error) from None
    else:
        size = status.st_size
        if stat.S_ISDIR(status.st_mode):
            raise Failure(f"{shown(database)} is a folder, where the journal has to be: move it away", Exit.USAGE)
    worked = os.path.exists(os.path.join(state, "host"))  # the name of an installation
    if not size and worked:
        raise missing_journal(database)
    return size > 0 and (worked or _has_tables(url))  # its first start may be making them just now


def _has_tables(url: URL) -> bool:
    engine = reading(url)
    try:
        with engine.connect() as connection:
            return bool(inspect(connection).has_table("jobs"))
    finally:
        engine.dispose()


def host_of(state: str) -> str | None:
    """Returns the name of an installation, None before its first start; then there was no journal either."""
    try:
        with open(os.path.join(state, "host"), encoding="ascii") as file:
            return file.read().strip() or None
    except FileNotFoundError:
        return None


def missing_journal(database: str) -> Failure:
    """Returns the sentence for a journal that was there."""
    return Failure(
        f"the journal {shown(database)} is missing or empty, but there was one: dumbwaiter recover puts its last copy back",
        Exit.USAGE,
    )


def unusable_state(state: str, error: OSError) -> Failure:
    """Returns why a folder cannot be the state folder, and what to do."""
    folder = f"the state folder {shown(state)}"
    match error.errno:
        case errno.EEXIST | errno.ENOTDIR:
            return Failure(f"{folder} is no folder: name another one with --state", Exit.USAGE)
        case errno.EACCES | errno.EPERM:
            return Failure(f"{folder} is closed to this user: name another one with --state", Exit.USAGE)
        case errno.EROFS:
            return Failure(
                f"{folder} is on a read-only file system: have it mounted writable, or name another one with --state",
                Exit.TEMPORARY,
            )
    return Failure(f"{folder} cannot be used: {error.strerror}", Exit.TEMPORARY)


def writing(url: URL) -> Engine:
    """Returns an engine for the one writer. The SQLite file is created readable by its owner only."""
    if url.get_backend_name() != "sqlite":
        server = _engine(url, pool_pre_ping=True)

        @event.listens_for(server, "connect")
        def limit(connection: Any, _record: Any) -> None:
            connection.execute(f"SET idle_in_transaction_session_timeout = '{HELD}s'")
            connection.commit()

        return _telling(server, "written")
    engine = _telling(create_engine(url, connect_args={"timeout": BUSY, "check_same_thread": False}), "written")
    assert url.database
    os.close(os.open(url.database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        for pragma in (
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "secure_delete=ON",  # a session ticket that is cleared is gone from the file too
            "wal_autocheckpoint=1000",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def reading(url: URL, host: str | None = None, *, patience: int | None = None) -> Engine:
    """Returns an engine that cannot write. Each use is one short transaction, so the WAL can be reset behind it.

    On a server's database, which several installations may share, `report` tells of `host` only, and a question may take
    so many seconds at most.
    """
    if url.get_backend_name() != "sqlite":
        engine = _engine(url, isolation_level="AUTOCOMMIT", pool_pre_ping=True)
        if patience:

            @event.listens_for(engine, "do_connect")
            def limit(_dialect: Any, _record: Any, words: Any, options: Any) -> Any:
                connection = _impatient(patience + LATE).connect(*words, **options)
                connection.execute(f"SET statement_timeout = '{patience}s'")
                connection.commit()
                return connection

        return _telling(engine, "read").execution_options(**{HOST: host})
    file = quote(os.fsencode(url.database or ""))
    engine = create_engine(
        URL.create("sqlite", database=f"file:{file}", query={"mode": "ro", "uri": "true"}),
        connect_args={"timeout": BUSY, "check_same_thread": False},
        isolation_level="AUTOCOMMIT",  # a transaction left open would keep the write-ahead log from being reset
    )
    return _telling(engine, "read")


@contextmanager
def driver(engine: Engine) -> Iterator[Any]:
    """Lends the driver's own connection of a reading engine, for questions that are asked by the ten thousand.

    Errors are raised as `JournalTrouble`, as everywhere.
    """
    try:
        with closing(engine.raw_connection()) as connection:
            yield connection.driver_connection
    except engine.dialect.loaded_dbapi.Error as error:
        raise trouble(error, "read") from error


# Of a server that is suspended, or behind a network that drops packets, is heard in half a minute.
PATIENT = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


def _impatient(patience: float) -> Any:
    """Returns a kind of connection that no question holds for longer, though the server is frozen: it hangs up."""
    import psycopg

    class Impatient(psycopg.Connection[Any]):
        def wait(self, gen: Any, interval: float = LATE, timeout: float | None = None) -> Any:
            try:
                return super().wait(gen, interval, patience if timeout is None else timeout)
            except psycopg.OperationalError:
                if self.pgconn.transaction_status != psycopg.pq.TransactionStatus.ACTIVE:
                    raise
                self.pgconn.finish()
                raise psycopg.OperationalError("the server does not answer") from None

    return Impatient


def _engine(url: URL, **options: Any) -> Engine:
    try:
        return create_engine(url, connect_args=PATIENT, **options)
    except ModuleNotFoundError as missing:
        raise Failure(
            f"the driver of the journal's database is not installed ({missing.name}): pipx install 'dumbwaiter[postgresql]'",
            Exit.USAGE,
        ) from None


def _telling(engine: Engine, what: str) -> Engine:
    """Makes every error of the database a `JournalTrouble` whose cause is the driver's own exception.

    SQLAlchemy's would quote statement and parameters, and a parameter may be a session ticket.
    """

    @event.listens_for(engine, "handle_error")
    def tell(context: ExceptionContext) -> None:
        if not context.is_pre_ping:  # the pool is about to connect again
            raise trouble(context.original_exception, what) from context.original_exception

    return engine


def check_sound(connection: Connection) -> None:
    """Raises `JournalTrouble` when a SQLite database is damaged anywhere."""
    verdict = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
    if verdict != "ok":
        raise _damaged(verdict.rpartition("\n")[2])


def _damaged(reason: str) -> JournalTrouble:
    return JournalTrouble(
        f"the journal is damaged ({reason}): stop the daemon, then dumbwaiter recover puts its last copy back",
        Exit.USAGE,
    )


def trouble(error: BaseException, what: str) -> JournalTrouble:
    """Returns what an error of the driver's comes to, when the journal was to be read or written."""
    reason = str(error).partition("\n")[0]
    if getattr(error, "sqlite_errorcode", None) in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
        return _damaged(reason)
    if what == "read" and (reason.startswith("no such column") or getattr(error, "sqlstate", None) == "42703"):
        return JournalTrouble("the journal is an older dumbwaiter's: `dumbwaiter run` brings it up to date", Exit.USAGE)
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return JournalTrouble(f"the journal cannot be {what}: its disk is full; make room where the state folder is")
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_SHMMAP:
        return JournalTrouble(
            f"the journal cannot be {what}: its file system lets no file be mapped, as SQLite needs it; name a folder on "
            "another disk with --state",
            Exit.USAGE,
        )
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_IOERR:  # which does not say what the system said
        return JournalTrouble(f"the journal cannot be {what}: {reason}; its disk fails, or a quota there is used up")
    if isinstance(error, OverflowError):  # of a caller's number, which SQLite has no room for
        return JournalTrouble(f"a number is too large: {(1 << 63) - 1} at most", Exit.USAGE)
    if getattr(error, "sqlstate", None) and error.sqlstate[:2] in {"22", "54"}:  # type: ignore[attr-defined]
        return Unstorable(f"the journal cannot hold that: {reason}")
    return JournalTrouble(f"the journal cannot be {what}: {reason}")


def driver_of(connection: Connection) -> Any:
    """Returns the driver's own connection. What runs on it is in the transaction that was begun, if one was."""
    driver = connection.connection.driver_connection
    assert driver is not None
    return driver
