"""Brings a database to the schema this program knows: all migrations in one transaction, with a copy made before.

An empty one gets today's tables at once. A newer schema is refused by name, never guessed at.
"""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy import Column, Connection, Engine, MetaData, PrimaryKeyConstraint, String, Table, inspect, text

from dumbwaiter.errors import Exit, Failure
from dumbwaiter.store.database import trouble
from dumbwaiter.store.tables import SCHEMA, create

COPIES = 2  # made before a schema change, that stay

# As Alembic makes it.
_VERSION = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def revision(connection: Connection) -> str | None:
    """Returns the revision a database is at, None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def check_known(engine: Engine) -> None:
    """Raises `Failure` when the database has a newer schema than this program knows: what is read there may mean another thing."""
    with engine.connect() as connection:
        _refuse_newer(revision(connection) or "")


def _refuse_newer(found: str) -> None:
    if found > SCHEMA:
        raise Failure(
            f"the journal has schema {found}, this dumbwaiter knows {SCHEMA} at most: install the newer "
            "dumbwaiter again, or point --state at another folder",
            Exit.USAGE,
        )


def upgrade(engine: Engine) -> None:
    """Leaves the database at `SCHEMA`. Raises `Failure` when it is newer than that, `JournalTrouble` without room for a copy."""
    with engine.begin() as connection:
        _alone(connection)
        found = revision(connection)
        if found is None:
            _create(connection)
            return
    if found == SCHEMA:
        return
    _refuse_newer(found)
    _copy(engine, found)
    _migrate(engine)
    _forget_old(engine)


def _create(connection: Connection) -> None:
    create(connection)
    _VERSION.create(connection, checkfirst=True)
    connection.execute(_VERSION.insert().values(version_num=SCHEMA))


def _alone(connection: Connection) -> None:
    """Others may begin on the same database of a server; they wait, and find it done then."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('dumbwaiter'))"))


def _copy(engine: Engine, found: str) -> None:
    """Keeps the old database beside the new one, without its session tickets. A server's databases are backed up by its own tools.

    Raises `JournalTrouble`; there is no copy then.
    """
    database = engine.url.database
    if engine.dialect.name != "sqlite" or not database:
        return
    copy = f"{database}.before-{SCHEMA}-from-{found}"
    _drop(copy)  # of a start that was cut off
    try:
        os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        with closing(sqlite3.connect(copy, isolation_level=None)) as kept:
            for order in ("PRAGMA secure_delete=ON", 'UPDATE jobs SET "grant" = NULL', "VACUUM"):
                kept.execute(order)
    except (sqlite3.Error, OSError) as error:
        _drop(copy)
        raise trouble(error, "copied") from error


def _drop(copy: str) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            os.unlink(f"{copy}{suffix}")


def _forget_old(engine: Engine) -> None:
    """Keeps the latest copies: each is as large as the journal."""
    if engine.dialect.name != "sqlite" or not (database := engine.url.database):
        return
    folder, name = os.path.split(database)
    with suppress(OSError):
        with os.scandir(folder) as listing:
            copies = [
                (found.stat().st_mtime, found.path) for found in listing if found.name.startswith(f"{name}.before-")
            ]
        for _, path in sorted(copies)[:-COPIES]:
            os.unlink(path)


def _migrate(engine: Engine) -> None:
    with engine.begin() as connection:
        _alone(connection)
        _steps(connection)


def _steps(connection: Connection) -> None:
    from alembic import command  # a tenth of a second that only a schema change pays
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
