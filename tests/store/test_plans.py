"""Which indexes the journal's questions walk."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import event

import journals
from dumbwaiter import report
from journals import WORKER, Book

sqlite_book = journals.sqlite_book
NOW = 1000.0


def plan(book: Book, call: Callable[[], Any], verb: str = "SELECT") -> str:
    """Returns how SQLite goes about the statements of a call that begin with a verb."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if statement.startswith(verb):
            statements.append((statement, parameters))

    for engine in (book.engine, book.reader):
        event.listen(engine, "before_cursor_execute", note)
    call()
    for engine in (book.engine, book.reader):
        event.remove(engine, "before_cursor_execute", note)
    assert statements
    lines = []
    for statement, parameters in statements:
        rows = book.run(
            lambda connection, s=statement, p=parameters: connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {s}", p).all()
        )
        lines += [row.detail for row in rows]
    return "\n".join(lines)


def test_claiming_walks_the_index_of_what_is_due(sqlite_book: Book) -> None:
    way = plan(sqlite_book, lambda: sqlite_book.claim(WORKER, NOW, 4, ["art"]))
    assert "SEARCH jobs USING INDEX jobs_by_hand (host=? AND due_at<?)" in way
    assert "SEARCH jobs USING INDEX jobs_begun (host=?)" in way
    assert "SEARCH jobs USING INDEX jobs_due (host=? AND due_at<?)" in way
    assert "TEMP B-TREE" not in way
    assert "SCAN jobs" not in way


def test_the_next_due_time_walks_the_index_of_what_is_due(sqlite_book: Book) -> None:
    way = plan(sqlite_book, lambda: sqlite_book.next_due(["art"]))
    assert "SEARCH jobs USING INDEX jobs_due (host=?)" in way
    assert "SCAN jobs" not in way


def test_what_waits_is_changed_by_the_index_of_what_is_due(sqlite_book: Book) -> None:
    changes: list[Callable[[], Any]] = [
        lambda: sqlite_book.make_failed_due(["vod"], NOW),
        lambda: sqlite_book.bring_forward(NOW, NOW + 3600),
        sqlite_book.release_all,
    ]
    for change in changes:
        assert "SEARCH jobs USING INDEX jobs_due (host=?" in plan(sqlite_book, change, "UPDATE")


def test_status_reads_what_is_left_and_counts_the_rest(sqlite_book: Book) -> None:
    for ask in (report.totals, report.files_by_watch, report.count_open, report.open_jobs, report.rejected):
        for step in plan(sqlite_book, lambda ask=ask: ask(sqlite_book.reader)).splitlines():
            assert "SCAN" not in step or "USING" in step or "counters" in step, step  # else it reads a whole table


def test_the_files_beside_one_are_found_by_the_index_of_folders(sqlite_book: Book) -> None:
    way = plan(sqlite_book, lambda: sqlite_book.siblings("vod", "w/a/b", "group", "1"))
    assert "SEARCH entries USING INDEX entries_files (parent=?)" in way
    assert "SEARCH jobs USING INDEX jobs_outbox (parent=?)" in way


def test_who_holds_a_record_is_found_by_the_index_of_contents(sqlite_book: Book) -> None:
    way = plan(sqlite_book, lambda: sqlite_book.of_size("vod", 10, "record", "1"))
    assert "SEARCH entries USING INDEX entries_content (provider=? AND size=?)" in way


def test_equal_content_is_found_by_its_index_and_a_files_own_by_that_of_files(sqlite_book: Book) -> None:
    sqlite_book.done("a")
    way = plan(sqlite_book, lambda: sqlite_book.catalog.same("vod", 10, "w/b", lambda: "xxh3:00"))
    assert "SEARCH entries USING INDEX entries_content (provider=? AND size=? AND digest=?)" in way
    assert "(provider=? AND key=? AND parent=? AND name=?)" in way
    assert "TEMP B-TREE" not in way


def test_a_folder_is_known_by_the_index_of_versions(sqlite_book: Book) -> None:
    way = plan(sqlite_book, lambda: sqlite_book.folders.known("w", "a", "vod"))
    assert "SEARCH jobs USING INDEX sqlite_autoindex_jobs_1 (host=? AND parent=?)" in way
