"""The catalog's lines as a job ends: what takes whose place, and what a provider made of a file."""

from typing import Any

import pytest
from sqlalchemy import event

import journals
from dumbwaiter.lifecycle import GONE, REPLACED
from dumbwaiter.model import Entry, Receipt, Stamp
from dumbwaiter.store.arrivals import Candidate
from dumbwaiter.store.errands import Order
from journals import WORKER, Book, states

database = journals.database
postgres = journals.postgres
book = journals.book
NOW = 1000.0
RAW = b"raw \xff\x80 name".decode("utf-8", "surrogateescape")


def test_the_files_of_a_folder_are_told_by_what_was_noted_of_them(book: Book) -> None:
    def catalogued(path: str, group: str, **candidate: Any) -> None:
        id_ = book.stored(path, NOW, **candidate)
        book.lease(WORKER, id_).finish(NOW, receipt=Receipt(f"key of {id_}", facts={"group": group, "n": "1"}))

    catalogued("a/x", "_%1")
    catalogued("a/v", "_%1", provider="other")
    catalogued(f"a/{RAW}", "_%1")
    catalogued("a/y", "_%1")
    catalogued("a/y", "_%12", version=2)
    catalogued("a/z", "xy1")
    catalogued("a/b/x", "_%1")
    catalogued("b/x", "_%1")
    assert list(book.siblings("vod", "w/a/z", "group", "_%1")) == ["w/a/x", f"w/a/{RAW}"]
    book.stored("a/z", NOW, Receipt("new z", facts={"group": "_%1"}), version=2)
    book.stored("a/y", NOW, Receipt("new y", facts={"group": "_%12"}), version=3)
    assert {place: one.key for place, one in book.siblings("vod", "w/a/z", "group", "_%1").items()} == {
        "w/a/x": "key of 1",
        f"w/a/{RAW}": "key of 3",
        "w/a/z": "new z",
    }
    assert book.siblings("other", "w/a/z", "group", "_%1")["w/a/v"].facts == {"group": "_%1", "n": "1"}


def test_a_finished_job_and_its_entry_come_in_one_commit(book: Book) -> None:
    id_ = book.stored("a/film.mov", NOW)
    seen: list[int] = []
    event.listen(book.engine, "commit", lambda connection: seen.append(1))
    book.lease(WORKER, id_).finish(NOW + 9, receipt=Receipt("k/1", "etag", "http://x/1", "size", {"vid": "7"}))
    assert len(seen) == 1
    (entry,) = book.catalog.history()
    assert entry == Entry(
        entry.id,
        "vod",
        "k/1",
        "w",
        "a/film.mov",
        Stamp(7, 10, 1, 1),
        NOW + 9,
        "http://x/1",
        "etag",
        "size",
        {"vid": "7"},
        digest="xxh3:00",
    )
    row = book.row(id_)
    assert (row.state, row.lease, row.grant, row.error, row.attempts) == ("done", None, None, None, 0)


def test_what_a_provider_made_of_a_file_is_catalogued_beside_it(book: Book) -> None:
    id_ = book.stored("a/photo.jpg", NOW)
    made = Receipt("k/2", url="http://x/2", label="watermark", size=77)
    book.lease(WORKER, id_).finish(NOW, receipt=Receipt("k/1"), results=[made])
    found = {entry.path: (entry.key, entry.size) for entry in book.catalog.history()}
    assert found == {"a/photo.jpg": ("k/1", 10), "a/photo.watermark.jpg": ("k/2", 77)}
    plain = book.stored("a/README", NOW)
    book.lease(WORKER, plain).finish(NOW, receipt=Receipt("k/3"), results=[Receipt("k/4", label="small")])
    assert book.catalog.find("files/w/a/README.small") is not None


def test_a_key_at_one_provider_says_nothing_of_the_same_at_another(book: Book) -> None:
    for number, provider in enumerate(("vod", "art")):
        id_ = book.named("a/film.mov", NOW, provider=provider)
        book.lease(WORKER, id_).store(NOW, receipt=Receipt("k"), digest=f"xxh3:{number}", more=6, resent=0)
        book.lease(WORKER, id_).finish(NOW, receipt=Receipt("k"))
    assert {entry.provider for entry in book.catalog.history()} == {"vod", "art"}


def test_a_result_leaves_with_the_version_that_it_was_made_of(book: Book) -> None:
    id_ = book.stored("a/photo.jpg", NOW)
    made = [Receipt(f"k/{label}", facts={"of": "k/1"}, label=label, size=7) for label in ("small", "large")]
    book.lease(WORKER, id_).finish(NOW, receipt=Receipt("k/1"), results=made)
    book.done("a/photo.other.jpg", NOW, Receipt("k/own"))
    id_ = book.stored("a/photo.jpg", NOW + 1, version=2)
    small = Receipt("k/new small", facts={"of": "k/2"}, label="small", size=7)
    book.lease(WORKER, id_).finish(NOW + 1, receipt=Receipt("k/2"), results=[small])
    assert shown(book) == {"photo.jpg": "k/2", "photo.small.jpg": "k/new small", "photo.other.jpg": "k/own"}
    book.done("a/photo.jpg", NOW + 2, Receipt("k/3"), version=3)
    assert shown(book) == {"photo.jpg": "k/3", "photo.other.jpg": "k/own"}


def test_a_result_that_was_made_again_has_its_name(book: Book) -> None:
    book.done("a/photo.jpg", NOW, Receipt("k/1"))
    (entry,) = book.catalog.history()
    for key in ("k/2", "k/3"):
        assert book.amend(entry.id, NOW, {}, result=Receipt(key, label="watermark", size=7))
    assert shown(book) == {"photo.jpg": "k/1", "photo.watermark.jpg": "k/3"}


def test_a_result_whose_object_is_another_one_now_is_shown_no_more(book: Book) -> None:
    id_ = book.stored("a/photo.jpg", NOW)
    book.lease(WORKER, id_).finish(NOW, receipt=Receipt("k/1"), results=[Receipt("k/2", label="watermark", size=7)])
    book.done("a/other.jpg", NOW, Receipt("k/2"))
    assert shown(book) == {"photo.jpg": "k/1", "other.jpg": "k/2"}


@pytest.mark.parametrize("suffix", [".jpg", ""])
@pytest.mark.parametrize("first", ["own", "result"])
def test_a_file_of_ones_own_keeps_its_name_before_a_result(book: Book, first: str, suffix: str) -> None:
    def own() -> None:
        book.done(f"a/photo.watermark{suffix}", NOW, Receipt("k/own"))

    def result() -> None:
        id_ = book.stored(f"a/photo{suffix}", NOW)
        book.lease(WORKER, id_).finish(
            NOW, receipt=Receipt("k/1"), results=[Receipt("k/2", label="watermark", size=77)]
        )

    for one in (own, result) if first == "own" else (result, own):
        one()
    shown = {node.name: node.file.key for node in book.catalog.children("files/w/a") if node.file}
    aside = f"photo.watermark-2{suffix}" if suffix else "photo-2.watermark"
    assert shown == {f"photo{suffix}": "k/1", f"photo.watermark{suffix}": "k/own", aside: "k/2"}


def shown(book: Book, folder: str = "files/w/a") -> dict[str, str]:
    return {node.name: node.file.key for node in book.catalog.children(folder) if node.file}


@pytest.mark.parametrize("backwards", [0.0, 900.0])
def test_an_older_version_that_ends_after_a_newer_one_does_not_take_its_place(book: Book, backwards: float) -> None:
    old = book.stored("a/photo.jpg", NOW)
    book.done("a/photo.jpg", NOW - backwards, Receipt("k/new"), version=2)  # the clock may be set back between
    made = Receipt("k/small", label="small", size=7)
    orders = [Order("on_done", {"url": "http://x/old"})]
    book.lease(WORKER, old).finish(NOW + 2, receipt=Receipt("k/old"), results=[made], orders=orders)
    assert shown(book) == {"photo.jpg": "k/new"}
    assert {entry.key for entry in book.catalog.history()} == {"k/old", "k/small", "k/new"}
    assert book.rows("SELECT * FROM errands") == []  # who hears of both last hears of the newest
    book.done("a/photo.jpg", NOW - backwards, Receipt("k/newest"), version=3)
    assert shown(book) == {"photo.jpg": "k/newest"}


def test_an_older_version_under_the_same_key_does_not_hide_the_newer(book: Book) -> None:
    first = book.stored("a/x", NOW + 1, Receipt("k"))
    book.done("a/x", NOW + 2, Receipt("k"), version=2)
    book.lease(WORKER, first).finish(NOW + 3, receipt=Receipt("k"))
    assert shown(book) == {"x": "k"}


def test_a_version_that_came_back_keeps_its_place(book: Book) -> None:
    back = book.named("a/f", NOW)
    book.lease(WORKER, back).supersede(NOW, reason=GONE)
    between = book.stored("a/f", NOW + 1, version=2)
    book.done("a/f", NOW + 2, Receipt("k/back"))
    book.lease(WORKER, between).finish(NOW + 3, receipt=Receipt("k/between"))
    assert shown(book) == {"f": "k/back"}


def test_an_older_version_that_is_refused_after_a_newer_one_came_needs_nobody(book: Book) -> None:
    old = book.leased("a/f", NOW)
    book.leased("a/f", NOW + 1, version=2)
    assert book.lease(WORKER, old).reject(NOW + 2, error="no", orders=[Order("on_failed", {})]) is False
    row = book.row(old)
    assert (row.state, row.error, row.lease) == ("superseded", REPLACED, None)
    assert book.rows("SELECT * FROM errands") == []


def test_a_touched_file_meets_a_job_of_its_stamp(book: Book) -> None:
    """It was stored when chmod made it another version; that one was gone for a moment, or is on its way."""
    touched = Stamp(7, 10, 1, 2)
    one = book.stored("a/f", NOW)
    (two,) = book.enqueue([Candidate("w", "a/f", "vod", touched)], NOW + 1)
    book.claim(WORKER, NOW + 1, 10)
    book.lease(WORKER, one).finish(NOW + 2, receipt=Receipt("k"))
    book.touch(one, touched, NOW + 3)
    assert states(book) == {one: "done", two: "pending"}
    book.lease(WORKER, two).supersede(NOW + 3, reason=GONE)
    book.touch(one, touched, NOW + 4)
    assert states(book) == {one: "done"}
    assert book.row(one).ctime_ns == 2
