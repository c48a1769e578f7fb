"""The three trees, against a dictionary."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL, event

import journals
from dumbwaiter.catalog import Catalog, Node, Waiting
from dumbwaiter.model import Entry, Receipt, Stamp, State
from dumbwaiter.naming import key_path
from dumbwaiter.store.database import reading
from journals import WORKER, Book, file, in_file

database = journals.database
postgres = journals.postgres
book = journals.book

NOW = 1000.0
RAW = b"raw \xff".decode("utf-8", "surrogateescape")


def listing(catalog: Catalog, path: str = "") -> dict[str, Any]:
    """Returns a tree as nested dictionaries; a file is its row's id."""
    found = {}
    for node in catalog.children(path):
        inner = f"{path}/{node.name}" if path else node.name
        assert node.name not in found
        assert catalog.find(inner) == node
        found[node.name] = listing(catalog, inner) if node.folder else node.file.id  # type: ignore[union-attr]
        assert node.folder or catalog.children(inner) == []
    return found


def names(tree: dict[str, Any]) -> Any:
    return {name: names(inner) if isinstance(inner, dict) else "file" for name, inner in tree.items()}


def test_an_empty_catalog_has_three_empty_trees(book: Book) -> None:
    assert listing(book.catalog) == {"keys": {}, "files": {}, "outbox": {}}
    assert book.catalog.find("files") == Node("files")
    assert book.catalog.history() == []


def test_a_file_stands_in_all_trees_in_its_time(book: Book) -> None:
    id_ = book.pending("a/film.mov")
    assert names(listing(book.catalog)) == {
        "keys": {},
        "files": {},
        "outbox": {"w": {"a": {"film.mov": "file"}}},
    }
    node = book.catalog.find("outbox/w/a/film.mov")
    assert node is not None
    assert node.file == Waiting(
        id_, "vod", "w", "a/film.mov", Stamp(7, 10, 1, 1), State.PENDING, sent=0, created_at=100.0
    )
    book.claim(WORKER, NOW, 1)
    receipt = Receipt("2026/key.mov", "etag", "http://x/1", "md5", {"vid": "7"})
    book.lease(WORKER, id_).store(NOW, receipt=receipt, digest="d", more=10, resent=0)
    assert names(listing(book.catalog, "outbox")) == {"w": {"a": {"film.mov": "file"}}}
    book.lease(WORKER, id_).finish(NOW, receipt=receipt)
    assert names(listing(book.catalog)) == {
        "keys": {"vod": {"2026": {"key.mov": "file"}}},
        "files": {"w": {"a": {"film.mov": "file"}}},
        "outbox": {},
    }
    by_key, by_path = (book.catalog.find(path) for path in ("keys/vod/2026/key.mov", "files/w/a/film.mov"))
    assert by_key is not None
    assert by_path is not None
    assert by_key.file == by_path.file
    assert isinstance(by_path.file, Entry)
    assert by_path.file.facts == {"vid": "7"}


@pytest.mark.parametrize("path", ["", "/", "nothing", "files/", "files//", "files/x", "files/w/a/", "keys/w/a"])
def test_what_is_not_there_is_not_found(book: Book, path: str) -> None:
    book.done("a")
    assert book.catalog.find(path) in {None, Node("files")}
    if path.rstrip("/") != "files":
        assert book.catalog.find(path) is None


def test_a_rejected_file_waits_for_a_person_and_a_superseded_one_does_not(book: Book) -> None:
    rejected, superseded = book.leased("a"), book.leased("b")
    book.lease(WORKER, rejected).reject(NOW, error="too large")
    book.lease(WORKER, superseded).supersede(NOW, reason="gone")
    assert listing(book.catalog, "outbox/w") == {"a": rejected}
    node = book.catalog.find("outbox/w/a")
    assert node is not None
    assert isinstance(node.file, Waiting)
    assert node.file.error == "too large"


NEIGHBOURS = ["a/x", "a b/x", "a.b/x", "a!/x", "a-/x", "a0/x", "ab/x", "a/b/c/d", f"{RAW}/{RAW}", "测试/电影", "%/%"]


def test_names_that_sort_around_a_slash_are_kept_apart(book: Book) -> None:
    """ " ", "!", "-" and "." sort before "/", "0" right after it."""
    for path in NEIGHBOURS:
        book.done(path)
    tree = names(listing(book.catalog, "files/w"))
    assert tree == {
        "a": {"x": "file", "b": {"c": {"d": "file"}}},
        **{name: {"x": "file"} for name in ("a b", "a.b", "a!", "a-", "a0", "ab")},
        RAW: {RAW: "file"},
        "测试": {"电影": "file"},
        "%": {"%": "file"},
    }


def test_watches_whose_names_begin_alike_are_kept_apart(book: Book) -> None:
    for watch in ("w", "w-", "w.x", "w0", "wx"):
        book.done("a/b", watch=watch)
        book.done("c", watch=watch)
    assert names(listing(book.catalog, "files")) == {
        watch: {"a": {"b": "file"}, "c": "file"} for watch in ("w", "w-", "w.x", "w0", "wx")
    }


def test_folders_come_first_and_each_kind_in_its_order(book: Book) -> None:
    for path in ("b", "d/x", "a", "c/x", "Z"):
        book.done(path)
    assert [node.name for node in book.catalog.children("files/w")] == ["c", "d", "Z", "a", "b"]


def test_a_replaced_version_stays_under_its_key_only(book: Book) -> None:
    old, new = book.done("a", version=1), book.done("a", version=2)
    assert len(listing(book.catalog, "keys/vod")) == 2
    node = book.catalog.find("files/w/a")
    assert node is not None
    assert isinstance(node.file, Entry)
    assert (node.file.key, node.file.stamp.mtime_ns) == (f"key of {new}", 2)
    assert book.catalog.find(f"keys/vod/key of {old}") is not None


def test_a_key_that_is_used_again_is_one_entry(book: Book) -> None:
    book.done("a", receipt=Receipt("same", "old"), version=1)
    book.done("a", receipt=Receipt("same", "new"), version=2)
    (entry,) = book.catalog.history()
    assert (entry.key, entry.etag, entry.stamp.mtime_ns) == ("same", "new", 2)


def test_a_key_that_no_folder_holds_is_shown_escaped(book: Book) -> None:
    keys = ["/lead", "a//b", "a/../b", "nul\x01", "50%", "x" * 300]
    for number, key in enumerate(keys):
        book.done(f"{number}", receipt=Receipt(key))
    for key in keys:
        node = book.catalog.find(f"keys/vod/{key_path(key)}")
        assert node is not None
        assert isinstance(node.file, Entry)
        assert node.file.key == key
    assert "" not in listing(book.catalog, "keys/vod")


def test_a_file_and_a_folder_of_one_name_are_both_reachable(book: Book) -> None:
    book.done("1", receipt=Receipt("a"))
    book.done("2", receipt=Receipt("a/b"))
    book.done("3", receipt=Receipt("c"))
    assert names(listing(book.catalog, "keys/vod")) == {"a": {"b": "file"}, "a%": "file", "c": "file"}
    assert book.catalog.find("keys/vod/c%") is None


def test_a_file_that_a_folder_pushed_aside_takes_no_name_that_is_taken(book: Book) -> None:
    for path in ("a", "a/b", "a%", "a%%/b"):
        book.done(path)
    found = names(listing(book.catalog, "files/w"))
    assert found == {"a": {"b": "file"}, "a%": "file", "a%%": {"b": "file"}, "a%%%": "file"}


def test_of_several_jobs_for_one_path_the_newest_is_shown(book: Book) -> None:
    """The older one is still in somebody's hands."""
    old = book.leased("a", NOW)
    new = book.pending("a", NOW, version=2)
    assert old < new
    assert listing(book.catalog, "outbox/w") == {"a": new}


def test_the_latest_entries_come_first(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        book.done(f"{number}", 100.0 + number)
    assert [entry.path for entry in book.catalog.history(3)] == ["4", "3", "2"]
    monkeypatch.setattr("dumbwaiter.catalog.PAGE", 2)
    pages = [[entry.path for entry in page] for page in book.catalog.history_in_pages(3)]
    assert pages == [["4", "3"], ["2"]]
    assert list(book.catalog.history_in_pages(0)) == []
    assert sum(map(len, book.catalog.history_in_pages(10**9))) == 5


def test_a_catalog_of_many_installations_is_one_tree(database: URL) -> None:
    with Book(database) as mine, Book(database, "beef") as other:
        mine.done("mine")
        other.done("other", receipt=Receipt("another key"))
        assert set(listing(mine.catalog, "files/w")) == {"mine", "other"}


# Random trees

parts = st.one_of(
    st.sampled_from(["a", "a b", "a!", "a0", "a.b", "b", RAW, "%", "a%"]),
    st.binary(min_size=1, max_size=3).map(
        lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_").decode("utf-8", "surrogateescape")
    ),
)
paths = st.lists(parts, min_size=1, max_size=4).map("/".join)


def model(wanted: set[str]) -> dict[str, Any]:
    """Returns the tree of these paths; a file that is a folder too stands beside it with "%"."""
    tree: dict[str, Any] = {}
    folders = {path[:index] for path in wanted for index, letter in enumerate(path) if letter == "/"}
    for path in wanted:
        *above, name = path.split("/")
        folder = tree
        for part in above:
            folder = folder.setdefault(part, {})
        if path in folders:
            name += "%"
            if "/".join((*above, name)) in wanted | folders:
                continue  # three of one name: the third is not promised
        folder[name] = "file"
    return tree


def clash(wanted: set[str]) -> bool:
    """True where a path is taken by the "%" of another."""
    folders = {path[:index] for path in wanted for index, letter in enumerate(path) if letter == "/"}
    return any(f"{path}%" in wanted | folders for path in wanted & folders)


@settings(max_examples=25, deadline=None)
@given(st.sets(paths, max_size=12))
@example({"a", "a/x", "a b", "a b/x", "a0", "a0/x"})
def test_finding_and_listing_agree_with_a_dictionary(wanted: set[str]) -> None:
    if clash(wanted):
        return
    with tempfile.TemporaryDirectory() as folder, Book(in_file(Path(folder))) as made:
        ids = made.enqueue([file(path) for path in sorted(wanted)], NOW)
        assert names(listing(made.catalog, "outbox")) == ({"w": model(wanted)} if wanted else {})
        made.claim(WORKER, NOW, 100)
        for id_ in ids:
            made.lease(WORKER, id_).store(NOW, receipt=Receipt(f"{id_}"), digest="d", more=1, resent=0)
            made.lease(WORKER, id_).finish(NOW, receipt=Receipt(f"{id_}"))
        assert names(listing(made.catalog, "files")) == ({"w": model(wanted)} if wanted else {})
        assert names(listing(made.catalog, "outbox")) == {}


# Plans


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Book]:
    """A catalog in which a wrong plan would show, statistics or not."""
    with Book(in_file(tmp_path_factory.mktemp("large"))) as made:
        for number in range(100):
            made.done(f"folder {number % 10}/deep/{number}", receipt=Receipt(f"k{number % 7}/{number}"))
        made.enqueue([file(f"folder {number % 10}/deep/new {number}") for number in range(100)], NOW)
        yield made


def plans(book: Book, ask: Callable[[Catalog], Any]) -> list[str]:
    """Returns how SQLite goes about each query of a question, and the queries' number."""
    reader = reading(book.url)
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        seen.append((statement, parameters))

    event.listen(reader, "before_cursor_execute", note)
    ask(Catalog(reader))
    reader.dispose()
    found = []
    for statement, parameters in seen:
        rows = book.run(
            lambda connection, s=statement, p=parameters: connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {s}", p).all()
        )
        found.append("; ".join(row.detail for row in rows))
    assert found
    return found


INDEXES = {"keys": ("vod", "k1", "entries_keys"), "files": ("w", "folder 1/deep", "entries_files"), "outbox": ("w", "folder 1/deep", "jobs_outbox")}  # fmt: skip


@pytest.mark.parametrize("tree", INDEXES)
@pytest.mark.parametrize(
    "ask",
    [
        lambda catalog, path: catalog.find(path),
        lambda catalog, path: catalog.find(f"{path}/1"),
        lambda catalog, path: catalog.find(f"{path}/nothing%"),
        lambda catalog, path: catalog.children(path),
    ],
)
def test_every_question_is_answered_from_an_index(large: Book, tree: str, ask: Callable[..., Any]) -> None:
    top, inner, index = INDEXES[tree]
    for way in plans(large, lambda catalog: ask(catalog, f"{tree}/{top}/{inner}")):
        steps = [step for step in way.split("; ") if "entries" in step or "jobs" in step]
        assert steps
        for step in steps:
            assert step.startswith("SEARCH "), way
            assert index in step, way
        assert "TEMP B-TREE" not in way


def test_listing_a_tree_leaps_over_what_lies_below(large: Book) -> None:
    """Ten folders with ten files each below: a query or two a folder, none a file."""
    ways = plans(large, lambda catalog: catalog.children("files/w"))
    assert len(ways) <= 2 * 10 + 2


def test_history_walks_its_index(large: Book) -> None:
    (way,) = plans(large, lambda catalog: catalog.history(5))
    assert "USING INDEX entries_stored" in way
    assert "TEMP B-TREE" not in way
