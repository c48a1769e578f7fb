"""Migrations: they make what the tables say, one step at a time, and never by halves."""

import os
import resource
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, text

import journals
from dumbwaiter.catalog import Catalog, Node
from dumbwaiter.errors import Exit, Failure, JournalTrouble
from dumbwaiter.model import Entry
from dumbwaiter.store import upgrade as module
from dumbwaiter.store.database import journal_url, reading, writing
from dumbwaiter.store.tables import SCHEMA, metadata
from dumbwaiter.store.upgrade import revision, upgrade

database = journals.database
empty = journals.empty
postgres = journals.postgres

NEXT = "9999"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An engine on a file that is not there yet."""
    made = writing(journal_url(str(tmp_path)))
    yield made
    made.dispose()


def objects(path: Path) -> dict[str, str]:
    """Returns the statement that makes each table and index, as SQLite has it, without its blanks."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type, rowid"
        ).fetchall()
    return {name: "".join(sql.split()).replace('"', "") for name, sql in rows}


def definitions(engine: Engine) -> dict[str, str]:
    if engine.dialect.name == "sqlite":
        return objects(Path(engine.url.database or ""))
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"))
        return {row.indexname: row.indexdef for row in rows}


def test_the_migrations_make_what_the_tables_say(empty: URL) -> None:
    engine = journals.migrated(empty, "head")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_the_migrations_make_the_very_indexes_of_a_new_journal(empty: URL, tmp_path: Path) -> None:
    """A comparison of metadata overlooks the condition of a partial index."""
    migrated = journals.migrated(empty, "head")
    server = empty.get_backend_name() == "postgresql"
    new = writing(empty.set(database="ready") if server else journals.in_file(tmp_path / "new"))
    found, wanted = definitions(migrated), definitions(new)
    migrated.dispose()
    new.dispose()
    assert found == wanted
    assert len(wanted) > 20
    if not server:  # of equal indexes SQLite takes the youngest
        ages = [[name for name in names if name.startswith("jobs_")] for names in (found, wanted)]
        assert ages[0] == ages[1]


def test_a_schema_0008_that_was_another_one_is_brought_up_to_date(empty: URL) -> None:
    """For some hours that number stood for what is 0009 now."""
    engine = journals.migrated(empty, "0009")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0008'"))
    journals.migrated(empty, "head").dispose()
    with engine.connect() as connection:
        assert revision(connection) == SCHEMA
    engine.dispose()


def test_the_schema_is_the_newest_script() -> None:
    config = Config()
    config.set_main_option("script_location", str(journals.MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [SCHEMA]
    revisions = [script.revision for script in scripts.walk_revisions()]
    assert revisions == sorted(revisions, reverse=True)  # they are compared as text


def test_an_empty_file_becomes_a_journal(engine: Engine, tmp_path: Path) -> None:
    assert (tmp_path / "journal.db").stat().st_size == 0
    upgrade(engine)
    with engine.begin() as connection:
        assert revision(connection) == SCHEMA
    assert _files(tmp_path) == {"journal.db"}


def _files(folder: Path) -> set[str]:
    return {name for name in os.listdir(folder) if not name.endswith(("-wal", "-shm"))}


def test_todays_schema_is_left_alone(engine: Engine, tmp_path: Path) -> None:
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO counters VALUES ('h', 'n', 1)"))
    upgrade(engine)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT value FROM counters")).scalar() == 1
    assert _files(tmp_path) == {"journal.db"}


def test_a_newer_schema_is_refused_by_name_and_not_touched(engine: Engine, tmp_path: Path) -> None:
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = objects(tmp_path / "journal.db")
    with pytest.raises(Failure) as raised:
        upgrade(engine)
    assert raised.value.code is Exit.USAGE == 2
    assert str(raised.value) == (
        f"the journal has schema 9999, this dumbwaiter knows {SCHEMA} at most: install the newer dumbwaiter again, "
        "or point --state at another folder"
    )
    assert objects(tmp_path / "journal.db") == before
    assert _files(tmp_path) == {"journal.db"}


@pytest.fixture
def tomorrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program with one migration more; returns its script."""
    folder = tmp_path / "program/migrations"
    shutil.copytree(journals.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "__file__", str(folder.parent / "upgrade.py"))
    monkeypatch.setattr(module, "SCHEMA", NEXT)
    script = folder / "versions/9999_next.py"
    script.write_text(
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        f"revision, down_revision = {NEXT!r}, {SCHEMA!r}\n"
        "def upgrade():\n"
        "    op.add_column('jobs', sa.Column('colour', sa.Text))\n"
        "    op.execute('DELETE FROM counters')\n"
    )
    return script


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A folder with a journal of today, which is old tomorrow, and a line in it."""
    folder = tmp_path / "state"
    journals.in_file(folder)
    engine = writing(journal_url(str(folder)))
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO counters VALUES ('h', 'n', 1)"))
    engine.dispose()
    return folder


def columns(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {row[1] for row in connection.execute("PRAGMA table_info(jobs)")}


def counted(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT value FROM counters")]


def version(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(found)


def test_an_older_schema_is_copied_before_it_is_changed(older: Path, tomorrow: Path) -> None:
    engine = writing(journal_url(str(older)))
    upgrade(engine)
    engine.dispose()
    copy = older / f"journal.db.before-{NEXT}-from-{SCHEMA}"
    assert _files(older) == {"journal.db", copy.name}
    assert (version(older / "journal.db"), version(copy)) == (NEXT, SCHEMA)
    assert "colour" in columns(older / "journal.db")
    assert "colour" not in columns(copy)
    assert (counted(older / "journal.db"), counted(copy)) == ([], [1])
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600


def test_the_copies_of_the_last_two_changes_stay(older: Path, tomorrow: Path) -> None:
    for age, made in enumerate(("0003-from-0001", "0005-from-0003", "0007-from-0005")):
        copy = older / f"journal.db.before-{made}"
        copy.write_bytes(b"x")
        os.utime(copy, (1000 + age, 1000 + age))
    mine = older / "journal.db.mine"
    mine.write_bytes(b"x")
    engine = writing(journal_url(str(older)))
    upgrade(engine)
    engine.dispose()
    kept = {"journal.db.before-0007-from-0005", f"journal.db.before-{NEXT}-from-{SCHEMA}"}
    assert _files(older) == {"journal.db", "journal.db.mine", *kept}


def test_the_copy_holds_what_was_still_in_the_write_ahead_log(older: Path, tomorrow: Path) -> None:
    engine = writing(journal_url(str(older)))
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO counters VALUES ('h', 'late', 2)"))
    assert (older / "journal.db-wal").stat().st_size > 0
    upgrade(engine)
    engine.dispose()
    assert sorted(counted(older / f"journal.db.before-{NEXT}-from-{SCHEMA}")) == [1, 2]


def test_the_copy_holds_no_session_ticket(older: Path, tomorrow: Path) -> None:
    engine = writing(journal_url(str(older)))
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO jobs (host, watch, parent, name, provider, inode, size, mtime_ns, ctime_ns, state, sent, "
                'resent, attempts, by_hand, due_at, created_at, updated_at, "grant") '
                "VALUES ('h', 'w', :parent, :name, 'p', 1, 2, 3, 4, 'pending', 0, 0, 0, false, 1, 1, 1, :ticket)"
            ),
            {"parent": b"w", "name": b"a", "ticket": "t" * 20_000 + "ticket"},
        )
    upgrade(engine)
    engine.dispose()
    copy = older / f"journal.db.before-{NEXT}-from-{SCHEMA}"
    assert b"ticket" not in copy.read_bytes()
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute('SELECT name, "grant" FROM jobs').fetchall() == [(b"a", None)]
    assert _files(older) == {"journal.db", copy.name}


@pytest.mark.parametrize("room", [0.5, 1], ids=["for half a copy", "for the copy as it is"])
def test_without_room_for_a_copy_that_holds_no_ticket_nothing_is_changed(
    older: Path, tomorrow: Path, room: float
) -> None:
    engine = writing(journal_url(str(older)))
    limit = int((older / "journal.db").stat().st_size * room)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(JournalTrouble, match="the journal cannot be copied: "):
            upgrade(engine)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert _files(older) == {"journal.db"}
    assert version(older / "journal.db") == SCHEMA
    upgrade(engine)
    engine.dispose()
    assert version(older / "journal.db") == NEXT


def test_a_migration_that_fails_changes_nothing(older: Path, tomorrow: Path) -> None:
    whole = tomorrow.read_text()
    tomorrow.write_text(whole + "    raise RuntimeError('half way')\n")
    before = objects(older / "journal.db")
    engine = writing(journal_url(str(older)))
    with pytest.raises(RuntimeError, match="half way"):
        upgrade(engine)
    engine.dispose()
    assert objects(older / "journal.db") == before
    assert version(older / "journal.db") == SCHEMA
    assert counted(older / "journal.db") == [1]
    tomorrow.write_text(whole)
    engine = writing(journal_url(str(older)))
    upgrade(engine)
    engine.dispose()
    assert version(older / "journal.db") == NEXT


def test_a_server_is_migrated_in_one_transaction_too(
    database: URL, tomorrow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = writing(database)
    whole = tomorrow.read_text()
    tomorrow.write_text(whole + "    raise RuntimeError('half way')\n")
    with pytest.raises(RuntimeError, match="half way"):
        upgrade(engine)
    with engine.begin() as connection:
        assert revision(connection) == SCHEMA
    tomorrow.write_text(whole)
    alone: list[int] = []
    steps = module._steps

    def watched(connection: Connection) -> None:
        if engine.dialect.name == "postgresql":  # another machine may have been brought up to date as well, just now
            locks = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid()"
            alone.append(connection.execute(text(locks)).scalar_one())
        steps(connection)

    monkeypatch.setattr(module, "_steps", watched)
    upgrade(engine)
    assert alone == ([1] if engine.dialect.name == "postgresql" else [])
    with engine.begin() as connection:
        assert revision(connection) == NEXT
        connection.execute(text("SELECT colour FROM jobs"))
    engine.dispose()


# From schema to schema


ENTRY = """
INSERT INTO entries (host, provider, key, key_parent, key_name, watch, parent, name, current, inode, size, mtime_ns,
ctime_ns, etag, verified, facts, stored_at)
VALUES ('h', 'p', 'k/a', :kp, :kn, 'w', :parent, :name, true, 1, 2, 3, 4, 'e', 'md5', '{"vid":"7"}', 5.0)
"""


def test_a_journal_of_the_first_schema_keeps_what_it_holds(empty: URL) -> None:
    engine = journals.migrated(empty, "0001")
    with engine.begin() as connection:
        names = {"kp": b"p/k", "kn": b"a", "parent": b"w/x", "name": b"a.jpg"}
        connection.execute(text(ENTRY), names)
    upgrade(engine)
    with engine.connect() as connection:
        assert revision(connection) == SCHEMA
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()
    reader = reading(empty)
    catalog = Catalog(reader)
    node = catalog.find("files/w/x/a.jpg")
    assert node is not None
    assert isinstance(node.file, Entry)
    assert (node.file.key, node.file.facts, node.file.unlisted_at) == ("k/a", {"vid": "7"}, None)
    assert catalog.find("keys/p/k/a") == Node("a", node.file)
    reader.dispose()
    if empty.get_backend_name() == "sqlite":
        copy = Path(f"{empty.database}.before-{SCHEMA}-from-0001")
        assert version(copy) == "0001"
        with closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("SELECT key FROM entries").fetchall() == [("k/a",)]
