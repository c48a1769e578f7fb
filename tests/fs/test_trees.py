"""Names, attributes and the journal that is not there yet, without a mount."""

import os
import re
import sqlite3
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.catalog import Node
from dumbwaiter.errors import JournalTrouble
from dumbwaiter.model import Entry, Stamp
from dumbwaiter.store.database import journal_url
from dumbwaiter_fs import attributes
from dumbwaiter_fs.trees import Trees, holdable
from fs.world import Shelf


@given(st.binary(min_size=1, max_size=400))
def test_a_shown_name_is_one_that_a_folder_can_hold(raw: bytes) -> None:
    shown = os.fsencode(holdable(os.fsdecode(raw)))
    assert 0 < len(shown) <= 255
    assert not re.search(rb"[/\0]", shown)
    assert shown not in {b".", b".."}


@given(
    st.binary(min_size=1, max_size=255).filter(lambda raw: not re.search(rb"[/\0]", raw) and raw not in {b".", b".."})
)
def test_a_name_that_can_be_held_is_shown_as_it_is(raw: bytes) -> None:
    assert os.fsencode(holdable(os.fsdecode(raw))) == raw


@given(st.lists(st.binary(min_size=1, max_size=300), unique=True))
def test_different_names_are_shown_differently(names: list[bytes]) -> None:
    assert len({holdable(os.fsdecode(name)) for name in names}) == len(names)


def test_one_impossible_name_does_not_hide_the_others(shelf: Any) -> None:
    for name in ("good", "a/b", "nul\0", "x" * 300, ".."):
        shelf.entry(f"d/{len(name)}", 1, key=name, parent="w/d", name=name)
    trees = Trees(journal_url(shelf.state))
    names = trees.children("files/w/d")
    assert len(names) == 5
    for name in names:
        node = Trees(journal_url(shelf.state)).node(f"files/w/d/{name}")
        assert node is not None
        assert node.name == names[name].name


def test_a_journal_that_is_not_there_yet_is_an_empty_catalog(tmp_path: Any) -> None:
    shelf = Shelf(str(tmp_path), journal=False)
    trees = Trees(journal_url(shelf.state))
    assert trees.node("files/w/a") is None
    assert trees.children("files") == {}
    assert list(trees.children("")) == ["keys", "files", "outbox"]
    assert trees.totals() == (0, 0)
    sqlite3.connect(f"{shelf.state}/journal.db").close()
    assert trees.children("files") == {}, "made, but without its schema"
    shelf.create()
    shelf.entry("a", 3)
    assert trees.node("files/w/a") is not None
    trees.close()
    shelf.close()


def test_a_restored_journal_is_read_and_not_the_one_before(shelf: Any, tmp_path: Any) -> None:
    trees = Trees(journal_url(shelf.state))
    assert trees.node("files/w/a") is None
    os.mkdir(tmp_path / "other")
    other = Shelf(str(tmp_path / "other"))
    other.entry("a", 3)
    other.close()
    shelf.close()
    for beside in ("wal", "shm"):  # they belong to the journal that was
        os.unlink(f"{shelf.state}/journal.db-{beside}")
    os.replace(f"{other.state}/journal.db", f"{shelf.state}/journal.db")
    assert trees.node("files/w/a") is not None
    trees.close()


def test_a_schema_that_goes_away_is_an_error_and_no_empty_folder(shelf: Any) -> None:
    trees = Trees(journal_url(shelf.state))
    assert trees.node("files/w/a") is None
    with shelf._engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE entries")
    with pytest.raises(JournalTrouble):
        trees.node("files/w/b")


def test_a_listing_answers_for_a_moment_and_no_longer(shelf: Any) -> None:
    now = [100.0]
    trees = Trees(journal_url(shelf.state), lambda: now[0])
    shelf.entry("a", 3)
    assert list(trees.children("files/w")) == ["a"]
    shelf.entry("b", 3)
    assert trees.node("files/w/b") is None
    assert list(trees.children("files/w")) == ["a", "b"], "a listing itself is always asked for"
    shelf.entry("c", 3)
    now[0] += 1.0
    assert trees.node("files/w/c") is not None


def test_inode_numbers_are_stable_and_fit() -> None:
    assert attributes.inode("files/w/a") == 1138603973949912662
    assert attributes.inode("") > 1
    assert attributes.inode(os.fsdecode(b"\xff")) < 2**63


def test_a_picture_is_shown_and_anything_else_is_linked() -> None:
    assert attributes.markdown("a/b[1].png", "http://h/x") == "![b\\[1\\].png](http://h/x)"
    assert attributes.markdown("a/b.mov", "http://h/x (1)") == "[b.mov](<http://h/x (1)>)"


def test_extended_attributes_leave_out_what_has_no_value() -> None:
    entry = Entry(1, "p", "k", "w", os.fsdecode(b"\xff"), Stamp(1, 2, 3, 4), 0.0, facts={"error": "no task"})
    assert attributes.extended(entry) == {
        "user.dumbwaiter.provider": b"p",
        "user.dumbwaiter.key": b"k",
        "user.dumbwaiter.watch": b"w",
        "user.dumbwaiter.path": b"\xff",
        "user.dumbwaiter.state": b"done",
        "user.dumbwaiter.stored_at": b"1970-01-01T00:00:00+00:00",
        "user.dumbwaiter.error": b"no task",
    }
    assert attributes.extended(Node("folder").file) == {}
    assert "user.dumbwaiter.url" not in attributes.extended(
        Entry(1, "p", "k", "w", "n", Stamp(1, 2, 3, 4), 0.0, url="x" * 70000)
    )
