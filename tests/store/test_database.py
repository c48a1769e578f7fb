"""The writer thread, and the connections of readers."""

import asyncio
import os
import signal
import socket
import sqlite3
import stat
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Connection, Engine, event, make_url, text

import journals
from dumbwaiter.errors import Exit, Failure, JournalTrouble
from dumbwaiter.store import database as store_database
from dumbwaiter.store.database import BUSY, driver, host_of, journal_exists, journal_url, reading, trouble, writing
from dumbwaiter.store.upgrade import upgrade
from dumbwaiter.store.writer import GROUP, Writer
from journals import Book, in_file

database = journals.database
postgres = journals.postgres
book = journals.book
sqlite_book = journals.sqlite_book

PATIENCE = 30.0


def count(name: str, amount: int = 1) -> Any:
    """Returns a function for the writer that leaves a trace."""

    def work(connection: Connection) -> str:
        connection.execute(
            text("INSERT INTO counters (host, name, value) VALUES ('h', :name, :amount)"),
            {"name": name, "amount": amount},
        )
        return name

    return work


def names(book: Book) -> list[str]:
    return [row.name for row in book.rows("SELECT name FROM counters ORDER BY name")]


class Gate:
    """Holds the writer inside a transaction, so that all that follows is one group."""

    def __init__(self, writer: Writer) -> None:
        self._inside = threading.Event()
        self._open = threading.Event()
        self._held = writer.submit(self._wait)
        assert self._inside.wait(PATIENCE)

    def _wait(self, connection: Connection) -> None:
        self._inside.set()
        assert self._open.wait(PATIENCE)

    def open(self) -> None:
        self._open.set()
        self._held.result(PATIENCE)


def commits(engine: Engine) -> list[int]:
    """Counts the commits from now on."""
    seen: list[int] = []
    event.listen(engine, "commit", lambda connection: seen.append(1))
    return seen


def results(futures: list[Future[Any]]) -> list[Any]:
    return [future.result(PATIENCE) for future in futures]


def refuse(tries: list[int]) -> Any:
    """Stands in the place of a connection to a server that is not reached."""
    tries.append(1)
    raise JournalTrouble("the journal cannot be written: no route to host")


# The writer


def test_what_is_queued_during_a_commit_shares_the_next_one(book: Book) -> None:
    seen = commits(book.engine)
    gate = Gate(book.writer)
    futures = [book.writer.submit(count(f"n{number:03}")) for number in range(100)]
    gate.open()
    assert results(futures) == [f"n{number:03}" for number in range(100)]
    assert len(seen) == 2
    assert len(names(book)) == 100


def test_a_server_that_is_not_reached_is_tried_once_for_all_who_wait(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []
    gate = Gate(book.writer)
    futures = [book.writer.submit(count("a")) for _ in range(5)]
    monkeypatch.setattr(book.writer._engine, "connect", partial(refuse, tries))
    gate.open()
    for future in futures:
        with pytest.raises(JournalTrouble, match="no route"):
            future.result(PATIENCE)
    assert len(tries) == 1
    monkeypatch.undo()
    book.writer.submit(count("a")).result(PATIENCE)


def test_a_file_that_another_program_holds_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    url = in_file(tmp_path)
    assert url.database
    with Book(url) as book, closing(sqlite3.connect(url.database, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.3, other.commit)
        waiting = book.writer.submit(count("a"))
        release.start()
        assert waiting.result(PATIENCE) == "a"
        release.join()


def test_a_file_that_another_program_holds_is_waited_for_once_for_all_who_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_database, "BUSY", 0.1)
    tries: list[int] = []

    def reach(connect: Any) -> Connection:
        tries.append(1)
        connection: Connection = connect()
        return connection

    url = in_file(tmp_path / "state")
    other = sqlite3.connect(str(url.database), isolation_level=None, check_same_thread=False)
    with closing(other), Book(url) as book:
        gate = Gate(book.writer)
        futures = [book.writer.submit(count("a")) for _ in range(5)]
        book.writer.after_commit = lambda: other.execute("BEGIN IMMEDIATE") and None
        monkeypatch.setattr(book.writer._engine, "connect", partial(reach, book.engine.connect))
        gate.open()
        for future in futures:
            with pytest.raises(JournalTrouble, match="locked"):
                future.result(PATIENCE)
        assert len(tries) == 1
        book.writer.after_commit = None
        other.execute("ROLLBACK")
        assert book.writer.submit(count("a")).result(PATIENCE) == "a"


def test_a_server_that_goes_within_a_group_is_tried_once_for_all_of_it(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def breaks(_connection: Connection) -> None:
        monkeypatch.setattr(book.writer._engine, "connect", partial(refuse, tries))
        raise JournalTrouble("the journal cannot be written: the server closed the connection")

    gate = Gate(book.writer)
    futures = [book.writer.submit(work) for work in (count("a"), breaks, count("b"), count("c"))]
    gate.open()
    for future in futures:
        with pytest.raises(JournalTrouble):
            future.result(PATIENCE)
    assert len(tries) == 1
    monkeypatch.undo()
    assert names(book) == []


def test_a_group_has_an_end(book: Book) -> None:
    seen = commits(book.engine)
    gate = Gate(book.writer)
    futures = [book.writer.submit(count(f"n{number:04}")) for number in range(GROUP + 1)]
    gate.open()
    results(futures)
    assert len(seen) == 3


def test_a_function_that_fails_takes_nothing_with_it(book: Book) -> None:
    def wrong(connection: Connection) -> None:
        count("half")(connection)
        raise KeyError("of this one only")

    gate = Gate(book.writer)
    before, failing, after = (book.writer.submit(work) for work in (count("before"), wrong, count("after")))
    gate.open()
    assert results([before, after]) == ["before", "after"]
    with pytest.raises(KeyError, match="of this one only"):
        failing.result(PATIENCE)
    assert names(book) == ["after", "before"]


def test_a_statement_that_fails_takes_nothing_with_it(book: Book) -> None:
    """PostgreSQL refuses everything else in a transaction after an error."""
    gate = Gate(book.writer)
    futures = [book.writer.submit(work) for work in (count("one"), count("one"), count("two"))]
    gate.open()
    assert futures[0].result(PATIENCE) == "one"
    with pytest.raises(JournalTrouble):
        futures[1].result(PATIENCE)
    assert futures[2].result(PATIENCE) == "two"
    assert names(book) == ["one", "two"]


def test_even_an_exception_that_is_no_error_leaves_the_writer_alive(book: Book) -> None:
    def leave(connection: Connection) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        book.writer.submit(leave).result(PATIENCE)
    assert book.run(count("still here")) == "still here"


def test_a_cancelled_waiter_does_not_stop_the_commit_nor_the_writer(book: Book) -> None:
    async def impatient() -> None:
        gate = Gate(book.writer)
        first, kept = (asyncio.create_task(book.writer.call(count(name))) for name in ("cancelled", "kept"))
        waiters = [first, asyncio.create_task(book.writer.checkpoint())]
        await asyncio.sleep(0)
        for waiter in waiters:
            waiter.cancel()
        await asyncio.gather(*waiters, return_exceptions=True)
        assert all(waiter.cancelled() for waiter in waiters)
        gate.open()
        async with asyncio.timeout(PATIENCE):
            assert await kept == "kept", "which was told of together with the first"
            assert await book.writer.call(count("later")) == "later"

    asyncio.run(impatient())
    assert names(book) == ["cancelled", "kept", "later"]


def test_who_is_gone_when_a_commit_is_done_does_not_end_the_writer(book: Book) -> None:
    async def leaves() -> None:
        asyncio.create_task(book.writer.call(count("left")))  # noqa: RUF006 - the loop ends before it does
        await asyncio.sleep(0)

    gate = Gate(book.writer)
    assert book.writer.submit(count("given up")).cancel()
    asyncio.run(leaves())
    gate.open()
    assert book.writer.submit(count("later")).result(PATIENCE) == "later"
    assert names(book) == ["given up", "later", "left"]


def test_closing_commits_what_is_queued(tmp_path: Path) -> None:
    url = in_file(tmp_path)
    writer = Writer(writing(url))
    gate = Gate(writer)
    futures = [writer.submit(count(f"n{number}")) for number in range(10)]
    closing = threading.Thread(target=writer.close)
    closing.start()
    gate.open()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert len(results(futures)) == 10
    left = [one for one in Path("/proc/self/fd").iterdir() if one.is_symlink() and str(tmp_path) in os.readlink(one)]
    assert left == []
    with Book(url) as later:
        assert len(names(later)) == 10


def test_closing_waits_for_a_database_that_does_not_answer_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dumbwaiter.store.writer.LAST", 0.05)
    writer = Writer(writing(in_file(tmp_path)))
    pool = writer._engine.pool
    gate = Gate(writer)
    writer.close()
    assert writer._thread.is_alive()
    gate.open()
    writer._thread.join(PATIENCE)
    assert not writer._thread.is_alive()
    for late in (pool, writer._engine):
        late.dispose()


def test_closing_empties_the_write_ahead_log(tmp_path: Path) -> None:
    with Book(in_file(tmp_path)) as made:
        made.run(count("one"))
        assert (tmp_path / "journal.db-wal").stat().st_size > 0
    assert not (tmp_path / "journal.db-wal").exists() or (tmp_path / "journal.db-wal").stat().st_size == 0


# SQLite


def level(connection: Connection) -> int:
    found = connection.exec_driver_sql("PRAGMA synchronous").scalar()
    assert isinstance(found, int)
    return found


NORMAL, FULL = 1, 2


def test_durable_waits_for_the_disk_for_that_commit_only(sqlite_book: Book) -> None:
    assert [sqlite_book.run(level, durable=durable) for durable in (False, True, True, False, False, True)] == [
        NORMAL, FULL, FULL, NORMAL, NORMAL, FULL,
    ]  # fmt: skip
    sqlite_book.engine.dispose()
    assert sqlite_book.run(level, durable=True) == FULL  # on a connection that was made anew


def test_one_durable_member_makes_its_whole_group_durable(sqlite_book: Book) -> None:
    gate = Gate(sqlite_book.writer)
    futures = [sqlite_book.writer.submit(level, durable=durable) for durable in (False, True, False)]
    gate.open()
    assert results(futures) == [FULL, FULL, FULL]
    assert sqlite_book.run(level) == NORMAL


def test_the_file_is_its_owners_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Book(journal_url(str(tmp_path))) as made:
            made.run(lambda connection: connection.exec_driver_sql("CREATE TABLE t (x)") and None)
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"journal.db": 0o600, "journal.db-wal": 0o600, "journal.db-shm": 0o600}


def test_a_reader_cannot_write(sqlite_book: Book) -> None:
    reader = reading(sqlite_book.url)
    with reader.connect() as connection, pytest.raises(JournalTrouble, match="readonly"):
        connection.execute(text("DELETE FROM jobs"))
    reader.dispose()


def test_a_reader_sees_each_commit_at_once_and_keeps_no_transaction_open(book: Book) -> None:
    reader = reading(book.url)
    with reader.connect() as connection:
        for number in range(3):
            book.run(count(f"n{number}"))
            assert connection.execute(text("SELECT count(*) FROM counters")).scalar() == number + 1
        if book.url.get_backend_name() == "sqlite":
            assert not connection.connection.driver_connection.in_transaction  # type: ignore[union-attr]
    reader.dispose()


def test_a_question_that_a_server_does_not_answer_in_time_is_trouble(postgres: URL) -> None:
    engine = reading(postgres, patience=1)
    with engine.connect() as connection, pytest.raises(JournalTrouble, match="cannot be read"):
        connection.execute(text("SELECT pg_sleep(20)"))
    engine.dispose()


def test_a_server_that_is_frozen_holds_no_reader(postgres: URL) -> None:
    engine = reading(postgres.set(database="ready"), patience=1)
    question = text("SELECT pg_backend_pid()")
    with engine.connect() as connection:
        server = connection.execute(question).scalar_one()
        os.kill(server, signal.SIGSTOP)
        try:
            with pytest.raises(JournalTrouble, match="does not answer"):
                connection.execute(question)
        finally:
            os.kill(server, signal.SIGCONT)
    with engine.connect() as connection:  # another one is asked then
        assert connection.execute(question).scalar_one() != server
    engine.dispose()


def test_a_connection_that_breaks_is_not_said_to_be_silent(postgres: URL) -> None:
    engine = reading(postgres, patience=5)
    with engine.connect() as connection:
        with socket.socket(fileno=os.dup(connection.connection.driver_connection.fileno())) as line:  # type: ignore[union-attr]
            line.shutdown(socket.SHUT_RDWR)
        with pytest.raises(JournalTrouble, match="closed the connection"):
            connection.execute(text("SELECT 1"))
    engine.dispose()


def test_a_reader_stands_in_no_ones_way(sqlite_book: Book, tmp_path: Path) -> None:
    """An open connection must not keep the write-ahead log from being emptied."""
    reader = reading(sqlite_book.url)
    with reader.connect() as connection:
        connection.execute(text("SELECT * FROM jobs")).all()
        sqlite_book.run(count("one"))
        asyncio.run(sqlite_book.writer.checkpoint())
        assert (tmp_path / "state/journal.db-wal").stat().st_size == 0
    reader.dispose()


@pytest.mark.parametrize("name", ["a b", "50%", "100%25", "what?x=1", "#1", "a&b", "测试", "a\udcffb", "'"])
def test_a_folder_of_any_name_can_hold_the_journal(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    with Book(in_file(folder)) as made:
        made.run(count("one"))
        assert made.catalog.children("files") == []
        reader = reading(made.url)
        with reader.connect() as connection:
            assert connection.execute(text("SELECT name FROM counters")).scalar() == "one"
        reader.dispose()
    assert sorted(os.listdir(tmp_path)) == [name]


def test_reading_makes_no_journal_where_none_is(tmp_path: Path) -> None:
    reader = reading(journal_url(str(tmp_path)))
    with pytest.raises(JournalTrouble, match="unable to open"):
        reader.connect()
    reader.dispose()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite:///{}/journal.db", "postgresql+psycopg://u@127.0.0.1:1/d"])
def test_a_database_that_is_not_there_is_trouble_also_through_its_driver(tmp_path: Path, url: str) -> None:
    reader = reading(make_url(url.format(tmp_path)))
    with pytest.raises(JournalTrouble, match="cannot be read"), driver(reader):
        pass
    reader.dispose()


def test_a_cleared_ticket_is_in_no_byte_of_the_files(sqlite_book: Book, tmp_path: Path) -> None:
    def bytes_of_all() -> bytes:
        return b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())

    for number in range(50):
        sqlite_book.named(f"film {number}")
    assert b"secret ticket" in bytes_of_all()
    ids = [row.id for row in sqlite_book.rows("SELECT id FROM jobs")]
    assert sqlite_book.forget(ids, 200.0) == 50
    sqlite_book.tidy(200.0)
    assert b"secret ticket" not in bytes_of_all()


def test_the_log_is_not_emptied_while_an_upload_is_open(sqlite_book: Book, tmp_path: Path) -> None:
    sqlite_book.pending()
    sqlite_book.tidy(200.0)
    assert (tmp_path / "state/journal.db-wal").stat().st_size > 0


# Trouble


@pytest.fixture
def full(sqlite_book: Book) -> Iterator[Book]:
    """A journal whose disk is full: SQLite meets its own limit with the same error as the disk's."""

    def shut(connection: Connection) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    sqlite_book.run(shut)
    return sqlite_book


def fill(book: Book) -> None:
    for number in range(1000):
        book.pending(f"{number:0200}")


def test_a_full_disk_is_trouble_that_passes(full: Book) -> None:
    with pytest.raises(
        JournalTrouble, match=r"^the journal cannot be written: its disk is full; make room where the state folder is$"
    ):
        fill(full)
    before = full.rows("SELECT count(*) AS n FROM jobs")[0].n
    with pytest.raises(JournalTrouble):
        full.enqueue([journals.file(f"{number:0200}", version=2) for number in range(1000)], 1.0)
    assert full.rows("SELECT count(*) AS n FROM jobs")[0].n == before
    full.run(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 100000") and None)
    assert full.pending("there is room again")


def test_trouble_names_no_statement_and_no_value(full: Book) -> None:
    with pytest.raises(JournalTrouble) as raised:
        fill(full)
    told = "".join(traceback.format_exception(raised.value))
    assert "INSERT INTO" not in told
    assert "0000" not in told


def test_what_the_system_said_to_sqlite_is_not_made_up() -> None:
    """It says "disk I/O error" for a quota that is used up as for a disk that fails."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
    said = str(trouble(error, "written"))
    assert said == "the journal cannot be written: disk I/O error; its disk fails, or a quota there is used up"


def test_a_file_system_that_maps_no_files_is_not_called_a_failing_disk() -> None:
    """As mergerfs with `cache.files=off`, and davfs2: SQLite says "disk I/O error" there too."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMMAP
    said = trouble(error, "read")
    assert str(said) == (
        "the journal cannot be read: its file system lets no file be mapped, as SQLite needs it; name a folder on another "
        "disk with --state"
    )
    assert said.code is Exit.USAGE


def test_trouble_with_the_write_ahead_log_is_trouble_that_passes(
    sqlite_book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stuck:
        def execute(self, statement: str) -> None:
            raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr("dumbwaiter.store.writer.driver_of", lambda connection: Stuck())
    with pytest.raises(JournalTrouble, match=r"^the journal cannot be written: disk I/O error$"):
        asyncio.run(sqlite_book.writer.checkpoint())
    monkeypatch.undo()
    assert sqlite_book.run(count("still here")) == "still here"


def test_closing_ends_the_thread_even_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        def execute(self, statement: str) -> None:
            raise sqlite3.OperationalError("database or disk is full")

    writer = Writer(writing(in_file(tmp_path)))
    monkeypatch.setattr("dumbwaiter.store.writer.driver_of", lambda connection: Stuck())
    writer.close()
    assert not writer._thread.is_alive()


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_server_that_is_away_is_trouble_that_passes(book: Book) -> None:
    mine = "pid = pg_backend_pid()"
    book.rows("SELECT 1")
    other = Book(book.url)
    try:
        other.rows("SELECT 1")
        book.rows(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND NOT {mine}"
        )
        assert other.rows("SELECT 1 AS one")[0].one == 1  # a dead connection is found out before it is used
        with pytest.raises(JournalTrouble):
            other.run(
                lambda connection: connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())")) and None
            )
        assert other.rows("SELECT 2 AS two")[0].two == 2
    finally:
        other.close()


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_machine_that_stands_still_within_a_transaction_holds_up_no_other(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = text("LOCK TABLE jobs IN EXCLUSIVE MODE")
    book.engine.dispose()  # a setting is a new connection's
    book.run(lambda connection: connection.execute(text("SET lock_timeout = '20s'")) and None)
    monkeypatch.setattr(store_database, "HELD", 1)
    suspended = writing(book.url)
    with suspended.connect() as connection:
        connection.execute(lock)
        assert book.pending()
        with pytest.raises(JournalTrouble, match="idle-in-transaction"):
            connection.execute(lock)
    with suspended.begin() as connection:  # it goes on when it wakes
        connection.execute(lock)
    suspended.dispose()


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_server_that_only_reads_is_left_for_one_that_writes(book: Book, postgres: URL) -> None:
    def order(ending: str) -> None:
        journals._order(postgres, f"ALTER DATABASE {book.url.database} {ending}")

    order("SET default_transaction_read_only = on")
    book.engine.dispose()  # a setting is a new connection's
    with pytest.raises(JournalTrouble, match="read-only"):
        book.pending()
    order("RESET default_transaction_read_only")
    assert book.pending()


def test_a_reader_that_stands_still_does_not_keep_the_writer_from_its_work(sqlite_book: Book, tmp_path: Path) -> None:
    for name in "acde":
        sqlite_book.done(name)
    with closing(sqlite3.connect(f"file:{tmp_path}/state/journal.db?mode=ro", uri=True)) as reader:
        rows = reader.execute("SELECT * FROM jobs")
        rows.fetchone()  # and the others later
        sqlite_book.done("b")

        async def tidied() -> None:
            async with asyncio.timeout(BUSY / 2):
                await sqlite_book.journal.tidy(time.time())

        sqlite_book.runner.run(tidied())
        assert sqlite_book.rows("PRAGMA busy_timeout") == [(BUSY * 1000,)]


# Whether there is one


def test_a_journal_that_is_only_begun_is_none_and_one_that_is_lost_is_never_begun_anew(tmp_path: Path) -> None:
    url, place = journal_url(str(tmp_path)), tmp_path / "journal.db"
    assert not journal_exists(str(tmp_path), url)
    engine = writing(url)
    assert not journal_exists(str(tmp_path), url)
    engine.connect().close()
    assert place.stat().st_size
    assert not journal_exists(str(tmp_path), url)  # a kill ended the first start here
    upgrade(engine)
    assert journal_exists(str(tmp_path), url)
    engine.dispose()
    for written, name in {"\n": None, "h\n": "h"}.items():
        (tmp_path / "host").write_text(written)
        assert host_of(str(tmp_path)) == name
    assert journal_exists(str(tmp_path), url)
    for harm in (partial(place.write_bytes, b""), place.unlink):
        harm()
        with pytest.raises(Failure, match="missing or empty, but there was one"):
            journal_exists(str(tmp_path), url)
    place.mkdir()
    with pytest.raises(Failure, match="is a folder"):
        journal_exists(str(tmp_path), url)
