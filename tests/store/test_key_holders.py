"""Who has a key: one file, whoever asks, in each database."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import URL

import journals
from dumbwaiter import report
from dumbwaiter.lifecycle import GONE
from dumbwaiter.model import Receipt
from dumbwaiter.store import key_holders
from journals import WORKER, Book

database = journals.database
postgres = journals.postgres
book = journals.book
NOW = 1000.0


def test_whoever_may_replace_waits_for_who_is_about_to(book: Book) -> None:
    """What is under way would take the place of what came meanwhile, and that may be the last copy by then."""
    key: Any = {"provider": "vod", "key": "film.mov"}
    first = book.leased("one/film.mov", NOW)
    assert book.lease(WORKER, first).propose(NOW, digest=None, **key) is None
    book.lease(WORKER, first).store(NOW, receipt=Receipt("film.mov"), digest="X", more=0, resent=0)
    book.lease(WORKER, first).finish(NOW, receipt=Receipt("film.mov"))
    second, third = book.leased("two/film.mov", NOW), book.leased("three/film.mov", NOW)
    held = book.lease(WORKER, second).propose(NOW, digest="Y", **key)
    assert held is not None
    assert held.done
    assert book.lease(WORKER, second).propose(NOW, digest="Y", anyway=True, **key) is None
    for digest in ("Z", "X"):  # that of what is there helps nothing: it is about to go
        held = book.lease(WORKER, third).propose(NOW, digest=digest, anyway=True, **key)
        assert held is not None
        assert (held.place, held.done) == ("w/two/film.mov", False)


def test_neither_itself_nor_what_another_provider_has_keeps_a_file_from_its_key(book: Book) -> None:
    one, other = book.leased("one/film.mov", NOW), book.leased("two/film.mov", NOW, provider="art")
    for id_, provider in ((one, "vod"), (one, "vod"), (other, "art")):
        assert book.lease(WORKER, id_).propose(NOW, provider=provider, key="film.mov", digest=None) is None


def test_an_object_that_a_provider_named_is_one_files(book: Book) -> None:
    """Its bytes would take the place of the other's, which the catalog shows as done."""

    def name(id_: int, digest: str | None = None) -> tuple[str, bool] | None:
        held = book.lease(WORKER, id_).name(NOW, key="object", grant=None, given="object", digest=digest)
        return held and (held.place, held.done)

    first, second = book.leased("one/film.mov", NOW), book.leased("two/film.mov", NOW)
    assert name(first) is None
    assert name(second) == ("w/one/film.mov", False)
    assert name(first) is None
    book.lease(WORKER, first).store(NOW, receipt=Receipt("object"), digest="X", more=0, resent=0)
    assert name(second) == ("w/one/film.mov", False)
    book.lease(WORKER, first).finish(NOW, receipt=Receipt("object"))
    assert [name(second), name(second, "Y")] == [("w/one/film.mov", True)] * 2
    assert book.row(second).key is None
    assert name(second, "X") is None
    assert name(book.leased("one/film.mov", NOW, version=2)) == ("w/two/film.mov", False)
    book.lease(WORKER, second).supersede(NOW, reason=GONE)
    assert name(book.leased("one/film.mov", NOW, version=3)) is None  # a newer version may take an older one's place


def test_what_was_sent_under_a_key_of_another_file_is_counted(book: Book) -> None:
    """The answer to the upload names the key, when all of it was sent."""
    first, second = book.leased("one/film.mov", NOW), book.leased("two/film.mov", NOW)
    sent = {"receipt": Receipt("object"), "given": "object", "more": 9, "resent": 0}
    assert book.lease(WORKER, first).store(NOW, digest="X", **sent) is None
    held = book.lease(WORKER, second).store(NOW, digest="Y", **sent)
    assert held is not None
    assert held.place == "w/one/film.mov"
    assert book.row(second).receipt is None
    assert report.totals(book.reader)["bytes_sent"] == 18


def test_two_installations_settle_on_one_key_only_once(postgres: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each asks who has it before the other has said that it takes it."""
    with journals.another(postgres) as url, Book(url, "one") as one, Book(url, "two") as two:
        ids = [book.leased("a/film.mov", watch=book.host) for book in (one, two)]
        meet = threading.Barrier(2)
        ask = key_holders.holder

        def asked(*values: Any) -> Any:
            found = ask(*values)
            with suppress(threading.BrokenBarrierError):
                meet.wait(1)  # where the other one has to wait, it never comes
            return found

        monkeypatch.setattr("dumbwaiter.store.lease.holder", asked)
        with ThreadPoolExecutor(2) as pool:
            settle = lambda book, id_: book.lease(WORKER, id_).propose(NOW, provider="vod", key="film.mov", digest=None)  # noqa: E731
            found = list(pool.map(settle, (one, two), ids))
        assert found.count(None) == 1
