"""A provider's own list in the catalog: walked by pages, broken off, resumed, and what its end concludes."""

import tracemalloc
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

import journals
from dumbwaiter.broker import Broker
from dumbwaiter.doors import Desk
from dumbwaiter.errors import Reject, Retry
from dumbwaiter.model import Ask, Entry, Grant, Listed, Page, Receipt, Stamp
from dumbwaiter.providers import listing
from dumbwaiter.providers.listing import Outcome
from dumbwaiter.providers.provider import Provider
from journals import WORKER, Book

book = journals.book
database = journals.database
postgres = journals.postgres
sqlite_book = journals.sqlite_book

NOW = 1000.0


class Shelf(Broker):
    """A vendor that lists what a test has put there, some at a time; a page may be an exception."""

    lists = True

    def __init__(self, *pages: Sequence[Listed] | Exception, whole: bool = True) -> None:
        self.pages = pages
        self.whole = whole
        self.asked: list[str | None] = []

    async def grants(self, asks: Sequence[Ask], desk: Desk) -> Sequence[Grant]:
        raise NotImplementedError

    async def listing(self, cursor: str | None, desk: Desk) -> Page:
        self.asked.append(cursor)
        at = int(cursor or 0)
        page = self.pages[at]
        if isinstance(page, Exception):
            raise page
        return Page(tuple(page), str(at + 1) if at + 1 < len(self.pages) else None, self.whole)


def there(key: str, size: int = 3, **said: Any) -> Listed:
    return Listed(key, size, 500.0, 600.0, **said)


def walked(book: Book, broker: Broker, now: float = NOW) -> Outcome:
    async def requested(count: int) -> None:
        raise AssertionError("a list needs no grant")

    provider = Provider("vod", broker, None, requested=requested)  # type: ignore[arg-type]
    outcome = Outcome("vod")
    book.runner.run(listing.walk(book.journal, provider, outcome, clock=lambda: now))
    return outcome


def entry(book: Book, key: str) -> Entry | None:
    node = book.catalog.find(f"keys/vod/{key}")
    assert node is None or isinstance(node.file, Entry)
    return node.file if node is not None else None  # type: ignore[return-value]


def keys(book: Book) -> list[str]:
    return [row.key for row in book.rows("SELECT key FROM entries ORDER BY key")]


def test_what_others_put_there_is_shown_under_its_key_alone(book: Book) -> None:
    other = there("up/a.jpg", 7, etag="e", url="http://x/a", facts={"name": "holiday.jpg"})
    assert walked(book, Shelf([other], [there("b")])) == Outcome("vod", listed=2, new=2)
    found = entry(book, "up/a.jpg")
    assert found is not None
    assert (found.watch, found.path, found.name, found.size) == ("", "", "holiday.jpg", 7)
    assert (found.stored_at, found.stamp.mtime_ns) == (500.0, 600_000_000_000)
    assert (found.etag, found.url, found.verified) == ("e", "http://x/a", "")
    assert book.catalog.children("files") == []
    assert book.catalog.history() == []
    assert sorted(row.size for row in book.rows("SELECT size FROM entries")) == [3, 7]
    walked(book, Shelf([there("up/a.jpg", 8, etag="f", url="http://x/b"), there("b")]), NOW + 10)
    found = entry(book, "up/a.jpg")
    assert found is not None
    assert (found.size, found.etag, found.url, found.facts) == (8, "f", "http://x/b", {})


def test_what_is_ours_and_listed_is_one_entry_and_keeps_our_receipt(book: Book) -> None:
    book.done("a/film.mov", NOW - 10, Receipt("up/a", "md5-of-it", "http://ours/a", "md5", {"vid": "7"}))
    book.done("b.mov", NOW - 10, Receipt("up/b"))
    outcome = walked(book, Shelf([there("up/a", 3, etag="x", url="http://list/a"), there("up/b", url="http://list/b")]))
    assert outcome == Outcome("vod", listed=2)
    by_key, by_path = entry(book, "up/a"), book.catalog.find("files/w/a/film.mov")
    assert by_key is not None
    assert by_path is not None
    assert by_path.file == by_key
    assert (by_key.size, by_key.etag, by_key.url, by_key.facts) == (10, "md5-of-it", "http://ours/a", {"vid": "7"})
    linked = entry(book, "up/b")
    assert linked is not None
    assert linked.url == "http://list/b"  # we had none
    assert keys(book) == ["up/a", "up/b"]


def test_an_upload_that_the_list_showed_before_it_was_finished_becomes_ours(book: Book) -> None:
    id_ = book.stored("a.mov", NOW, Receipt("up/a", "e"))
    walked(book, Shelf([there("up/a"), there("up/small")]))
    made = Receipt("up/small", label="small", size=3)
    book.lease(WORKER, id_).finish(NOW, receipt=Receipt("up/a", "e"), results=[made])
    found = entry(book, "up/a")
    assert found is not None
    assert (found.watch, found.path, found.etag) == ("w", "a.mov", "e")
    assert keys(book) == ["up/a", "up/small"]


def test_what_the_list_shows_no_more_goes_if_it_is_not_ours_and_else_is_marked(book: Book) -> None:
    id_ = book.done("a.mov", 10.0, Receipt("ours"))
    walked(book, Shelf([there("ours"), there("theirs")]))
    assert walked(book, Shelf([]), NOW + 50) == Outcome("vod", gone=1, unlisted=1)
    assert keys(book) == ["ours"]
    found = entry(book, "ours")
    assert found is not None
    assert found.unlisted_at == NOW + 50
    assert walked(book, Shelf([]), NOW + 60) == Outcome("vod")  # told once
    assert book.row(id_).state == "done"  # and never sent again by itself
    assert book.claim(WORKER, NOW + 100, 10) == []
    walked(book, Shelf([there("ours")]), NOW + 70)
    found = entry(book, "ours")
    assert found is not None
    assert found.unlisted_at is None


def test_another_providers_entries_are_left_alone(book: Book) -> None:
    book.done("a.mov", 10.0, Receipt("k"), provider="other")
    assert walked(book, Shelf([])) == Outcome("vod")


def test_a_version_sent_again_under_a_key_that_was_missing_is_listed_anew(book: Book) -> None:
    book.done("a.mov", 10.0, Receipt("ours"))
    walked(book, Shelf([]))
    book.done("a.mov", NOW + 10, Receipt("ours"), version=2)
    found = entry(book, "ours")
    assert found is not None
    assert found.unlisted_at is None


def test_what_is_stored_while_the_list_is_read_is_not_taken_for_missing(book: Book) -> None:
    book.done("a.mov", NOW + 1, Receipt("ours"))
    assert walked(book, Shelf([there("x")])) == Outcome("vod", listed=1, new=1)


def test_a_walk_that_breaks_off_is_resumed_and_takes_nothing_away_before_its_end(book: Book) -> None:
    walked(book, Shelf([there("a"), there("b"), there("old")]), NOW - 100)
    with pytest.raises(Retry):
        walked(book, Shelf([there("a")], Retry("no answer")))
    assert keys(book) == ["a", "b", "old"]
    assert book.runner.run(listing.begun_at(book.journal, "vod")) is None
    shelf = Shelf([], [there("b")])
    assert walked(book, shelf, NOW + 20) == Outcome("vod", listed=1, gone=1)
    assert shelf.asked == ["1"]
    assert keys(book) == ["a", "b"]  # "a" was met before it broke off
    assert book.runner.run(listing.begun_at(book.journal, "vod")) == NOW


def test_a_walk_that_ends_late_leaves_the_place_of_the_next_one(book: Book) -> None:
    """Two installations read one list; one of them is slow, and the other begins the next walk meanwhile."""
    pages = [[there("a")], [there("b")], [there("c")]]

    class Slow(Shelf):
        async def listing(self, cursor: str | None, desk: Desk) -> Page:
            if cursor == "2":
                await walk(Shelf(*pages), NOW + 10)
                with pytest.raises(Retry):
                    await walk(Shelf(pages[0], Retry("no answer")), NOW + 20)
            return await super().listing(cursor, desk)

    async def walk(broker: Broker, now: float) -> Outcome:
        provider: Any = SimpleNamespace(name="vod", broker=broker)
        outcome = Outcome("vod")
        await listing.walk(book.journal, provider, outcome, clock=lambda: now)
        return outcome

    book.runner.run(walk(Slow(*pages), NOW))
    shelf = Shelf(*pages)
    assert book.runner.run(walk(shelf, NOW + 30)) == Outcome("vod", listed=2)
    assert shelf.asked == ["1", "2"]  # it goes on where that walk broke off
    assert keys(book) == ["a", "b", "c"]


def test_a_walk_broken_off_long_ago_is_begun_anew(book: Book) -> None:
    with pytest.raises(Retry):
        walked(book, Shelf([there("a")], Retry("no answer")))
    shelf = Shelf([there("b")], [])
    assert walked(book, shelf, NOW + listing.RESUMABLE) == Outcome("vod", listed=1, new=1, gone=1)
    assert shelf.asked == [None, "1"]


def test_a_list_that_changed_while_it_was_read_proves_no_absence(book: Book) -> None:
    walked(book, Shelf([there("a"), there("b")]), NOW - 10)
    assert walked(book, Shelf([there("a")], whole=False)) == Outcome("vod", listed=1, whole=False)
    assert keys(book) == ["a", "b"]
    assert walked(book, Shelf([there("a")]), NOW + 10) == Outcome("vod", listed=1, gone=1)


def test_a_key_that_comes_twice_on_a_page_is_one(book: Book) -> None:
    walked(book, Shelf([there("a", 1), there("a", 2)]))
    found = entry(book, "a")
    assert found is not None
    assert found.size == 2


def test_more_than_one_transaction_takes_away_what_is_gone(book: Book) -> None:
    many = [there(f"{number:04}") for number in range(listing.GROUP + 3)]
    walked(book, Shelf(many))
    assert walked(book, Shelf([]), NOW + 1).gone == listing.GROUP + 3
    assert keys(book) == []


def test_a_provider_without_a_list_says_so(book: Book) -> None:
    class Mute(Shelf):
        listing = Broker.listing

    with pytest.raises(Reject, match="gives no list"):
        walked(book, Mute())


def test_memory_does_not_grow_with_the_list(sqlite_book: Book) -> None:
    class Long(Shelf):
        async def listing(self, cursor: str | None, desk: Desk) -> Page:
            at = int(cursor or 0)
            after = str(at + 1) if at + 1 < self.length else None
            return Page(tuple(there(f"{at}/{number}", url=f"http://x/{at}/{number}") for number in range(200)), after)

        length = 0

    def peak(pages: int, now: float) -> int:
        shelf = Long()
        shelf.length = pages
        tracemalloc.start()
        try:
            walked(sqlite_book, shelf, now)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = peak(5, NOW), peak(50, NOW + 1)
    assert many < few + 1_500_000  # 9,000 more items are three times as much; what is not collected yet comes and goes
    assert len(keys(sqlite_book)) == 10_000


def test_stamps_of_what_is_not_ours_are_no_local_files(book: Book) -> None:
    walked(book, Shelf([there("a", 3)]))
    found = entry(book, "a")
    assert found is not None
    assert found.stamp == Stamp(0, 3, 600_000_000_000, 0)
