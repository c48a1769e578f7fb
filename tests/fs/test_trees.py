"""Names, attributes and the journal that is not there yet, without a mount."""

import os
import re
import sqlite3
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import URL

import journals
from dumbwaiter.errors import JournalTrouble
from dumbwaiter.model import Entry, Stamp
from dumbwaiter.store.database import journal_url
from dumbwaiter_fs import attributes, virtual
from dumbwaiter_fs.inodes import TREES, ctime_ms, number_of, path_of
from dumbwaiter_fs.trees import TOTALS_FRESH, Trees, holdable
from fs.world import STORED, Shelf
from journals import WORKER, Book

database, postgres = journals.database, journals.postgres


@given(st.binary(min_size=1, max_size=400))
@example(b"x" * 400)
def test_a_shown_name_is_one_that_a_folder_can_hold(raw: bytes) -> None:
    shown = holdable(raw)
    assert 0 < len(shown) <= 255
    assert not re.search(rb"[/\0]", shown)
    assert shown not in {b".", b".."}


@given(
    st.binary(min_size=1, max_size=255).filter(lambda raw: not re.search(rb"[/\0]", raw) and raw not in {b".", b".."})
)
@example(b"%~as-one-that-stands-for-another")
def test_a_name_that_can_be_held_is_shown_as_it_is(raw: bytes) -> None:
    assert holdable(raw) == raw


@given(st.lists(st.binary(min_size=1, max_size=300), unique=True))
def test_different_names_are_shown_differently(names: list[bytes]) -> None:
    assert len({holdable(name) for name in names}) == len(names)


def shown(trees: Trees, path: bytes) -> list[bytes]:
    return [name for name, _, _ in trees.names(path)]


@pytest.mark.parametrize("name", ["a/b", "nul\0", "x" * 256, ".", ".."], ids=ascii)
def test_one_impossible_name_does_not_hide_the_others(shelf: Any, name: str) -> None:
    for one in ("good", "x" * 255, name):
        shelf.entry(f"d/{len(one)}", 1, key=f"{len(one)}", parent="w/d", name=one)
    trees = Trees(journal_url(shelf.state))
    names = shown(trees, b"files/w/d")
    assert len(names) == 3
    assert {b"good", b"x" * 255, holdable(name.encode())} == {*names}
    assert {(inode := trees.inode(b"files/w/d/" + name)) and inode.number for name in names} == {
        number for _, number, _ in trees.names(b"files/w/d")
    }
    trees.close()


def test_a_file_that_a_folder_pushes_aside_takes_the_first_free_name(shelf: Any) -> None:
    for size, path in enumerate(("a", "a/b", "a%", "a%%/c", "b", "b/b"), 1):
        shelf.entry(path, size)
    trees = Trees(journal_url(shelf.state))
    assert shown(trees, b"files/w") == [b"a", b"a%%", b"b", b"a%%%", b"a%", b"b%"]
    sizes = {name: trees.inode(b"files/w/" + name) for name in shown(trees, b"files/w")}
    assert {name: inode.size for name, inode in sizes.items() if inode and not inode.folder} == {
        b"a%%%": 1,
        b"a%": 3,
        b"b%": 5,
    }
    assert trees.inode(b"files/w/a%%%%") is None
    assert trees.inode(b"files/w/b%%") is None
    trees.close()


def test_a_page_of_files_ends_where_the_next_begins(shelf: Any) -> None:
    for index in range(30):
        shelf.entry(f"d/{index}", 1)
        shelf.job(f"d/{index}", Stamp(1, 1, 1, 1))
        shelf.job(f"d/{index}", Stamp(1, 2, 1, 1))
    trees = Trees(journal_url(shelf.state))
    for folder in (b"files/w/d", b"keys/p/k/d", b"outbox/w/d"):
        pages = list(trees.files(folder, set(), 7))
        assert [len(page) for page in pages] == [7, 7, 7, 7, 2]
        assert sorted(line[0] for page in pages for line in page) == sorted(b"%d" % index for index in range(30))
    assert {(inode := trees.inode(b"outbox/w/d/" + name)) and inode.size for name in shown(trees, b"outbox/w/d")} == {2}
    trees.close()


def test_files_that_share_a_key_are_listed_as_the_newest_of_them_wherever_a_page_ends(shelf: Any) -> None:
    for index in range(5):
        shelf.entry(f"{index}", 3, key="d/same")
    shelf.entry("z", 3, key="d/z")
    trees = Trees(journal_url(shelf.state))
    for limit in range(1, 8):
        lines = [line[:2] for page in trees.files(b"keys/p/d", set(), limit) for line in page]
        assert lines == [
            (name, inode.number) for name in (b"same", b"z") if (inode := trees.inode(b"keys/p/d/" + name))
        ], limit
    trees.close()


def test_a_journal_that_is_not_there_yet_is_an_empty_catalog(tmp_path: Any) -> None:
    shelf = Shelf(str(tmp_path), journal=False)
    trees = Trees(journal_url(shelf.state))
    assert trees.inode(b"files/w/a") is None
    assert shown(trees, b"files") == []
    assert shown(trees, b"") == [b"keys", b"files", b"outbox"]
    assert trees.totals() == (0, 0)
    sqlite3.connect(f"{shelf.state}/journal.db").close()
    assert shown(trees, b"files") == [], "made, but without its schema"
    shelf.create()
    shelf.entry("a", 3)
    assert trees.inode(b"files/w/a") is not None
    trees.close()
    shelf.close()


def test_a_journal_that_was_there_and_is_not_is_no_empty_catalog(shelf: Any, tmp_path: Any) -> None:
    shelf.entry("a", 3)
    trees = Trees(journal_url(shelf.state))
    assert trees.inode(b"files/w/a") is not None
    os.rename(f"{shelf.state}/journal.db", f"{shelf.state}/aside")
    with pytest.raises(JournalTrouble, match="is gone"):
        shown(trees, b"files")
    os.rename(f"{shelf.state}/aside", f"{shelf.state}/journal.db")
    assert shown(trees, b"files") == [b"w"]
    trees.close()


def test_a_restored_journal_is_read_and_not_the_one_before(shelf: Any, tmp_path: Any) -> None:
    trees = Trees(journal_url(shelf.state))
    assert trees.inode(b"files/w/a") is None
    os.mkdir(tmp_path / "other")
    other = Shelf(str(tmp_path / "other"))
    other.entry("a", 3)
    other.close()
    shelf.close()
    for beside in ("wal", "shm"):  # they belong to the journal that was
        os.unlink(f"{shelf.state}/journal.db-{beside}")
    os.replace(f"{other.state}/journal.db", f"{shelf.state}/journal.db")
    assert trees.inode(b"files/w/a") is not None
    trees.close()


def test_a_schema_that_goes_away_is_an_error_and_no_empty_folder(shelf: Any) -> None:
    trees = Trees(journal_url(shelf.state))
    assert trees.inode(b"files/w/a") is None
    with shelf._engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE entries")
    with pytest.raises(JournalTrouble):
        trees.inode(b"files/w/b")
    trees.close()


def test_the_sum_of_all_files_is_some_seconds_old_at_most(shelf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((0.0, 0.0, TOTALS_FRESH - 0.1, TOTALS_FRESH, TOTALS_FRESH))
    trees = Trees(journal_url(shelf.state))
    monkeypatch.setattr("dumbwaiter_fs.trees.time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert trees.totals() == (0, 0)
    shelf.entry("a", 3)
    assert [trees.totals(), trees.totals()] == [(0, 0), (1, 3)]
    trees.close()


def test_sizes_beyond_all_bounds_are_added_up_all_the_same(shelf: Any) -> None:
    for name in ("a", "b"):
        shelf.entry(name, 1 << 62)
    trees = Trees(journal_url(shelf.state))
    assert trees.totals() == (2, 1 << 63)
    trees.close()


def test_inode_numbers_are_stable_and_fit(shelf: Any) -> None:
    assert number_of(b"files/w/a") == 5180988005402344235
    assert number_of(b"") == 1
    assert 2 < number_of(b"\xff") < 2**63
    shelf.entry("a", 3)
    trees = Trees(journal_url(shelf.state))
    numbers = [number for path in (b"keys/p/k", b"files/w") for _, number, _ in trees.names(path)]
    moment = int(STORED * 1000) % (1 << 24) << 38
    assert numbers == [moment | 5, moment | 6], "of the row and its time, and one for each tree"
    assert [inode and inode.size for inode in map(trees.by_number, numbers)] == [3, 3]
    shelf.replace("a", 4, STORED + 1)
    assert list(map(trees.by_number, numbers)) == [None, None], "another version is another number"
    trees.close()


def test_the_path_of_an_entry_leads_to_it(shelf: Any) -> None:
    shelf.entry("\udcff/\udcfe", 3, key="a/b")
    (entry,) = shelf.catalog().history()
    trees = Trees(journal_url(shelf.state))
    for name in ("keys", "files"):
        found = trees.inode(path_of(TREES[name], entry))
        assert found is not None
        assert (found.size, found.tree) == (3, TREES[name])
    trees.close()


def test_a_change_time_is_the_same_in_every_database(database: URL) -> None:
    with Book(database) as book:
        book.done("a", 1000.0006)
        id_ = book.named("b", 1000.0006)
        book.lease(WORKER, id_).advance(
            2000.0, checkpoint="{}", sent=5, more=1, resent=0
        )  # which makes no other file of it
    trees = Trees(database)
    for path in (b"files/w/a", b"keys/vod/key of 1", b"outbox/w/b"):
        found = trees.inode(path)
        assert found is not None
        assert found.ctime_ms == ctime_ms(1000.0006) == 1_000_000
        assert trees.by_number(found.number) == found
    trees.close()


@pytest.mark.parametrize(
    ("path", "url", "expected"),
    [
        ("a/b[1].png", "http://h/x", rb"![b\[1\].png](http://h/x)"),
        ("a/b.mov", "http://h/x (1)>", b"[b.mov](http://h/x%20%281%29%3E)"),
        ("a/`<b>`", "http://h/x", rb"[\`\<b\>\`](http://h/x)"),
    ],
)
def test_a_picture_is_shown_and_anything_else_linked_so_that_no_name_is_markup(
    path: str, url: str, expected: bytes
) -> None:
    entry = Entry(1, "p", "k", "w", path, Stamp(1, 2, 3, 4), 0.0, url=url)
    assert attributes.extended(entry)["user.dumbwaiter.markdown"] == expected
    assert virtual.links(b".links.md", [entry]) == b"- " + expected + b"\n"


def test_extended_attributes_are_empty_where_nothing_is_to_be_said() -> None:
    entry = Entry(1, "p", "k", "w", os.fsdecode(b"\xff"), Stamp(1, 2, 3, 4), 0.0, facts={"error": "no task"})
    assert attributes.extended(entry) == {
        "user.dumbwaiter.provider": b"p",
        "user.dumbwaiter.key": b"k",
        "user.dumbwaiter.watch": b"w",
        "user.dumbwaiter.path": b"\xff",
        "user.dumbwaiter.state": b"done",
        "user.dumbwaiter.stored_at": b"1970-01-01T00:00:00+00:00",
        "user.dumbwaiter.error": b"no task",
        **{f"user.dumbwaiter.{name}": b"" for name in ("url", "markdown", "etag", "verified")},
    }
    assert attributes.extended(None) == {}
    long = Entry(1, "p", "k", "w", "n", Stamp(1, 2, 3, 4), 0.0, url="x" * 70000)
    assert attributes.extended(long)["user.dumbwaiter.url"] == b""
