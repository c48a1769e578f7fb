"""A claim: noted before its call, made once, told again for nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import journals
from dumbwaiter.broker import Broker
from dumbwaiter.doors import Desk
from dumbwaiter.errors import Blocked, Exit, Failure, JournalTrouble, Reject, Retry, Verdict
from dumbwaiter.model import Entry, Grant, Receipt
from dumbwaiter.providers import claims
from dumbwaiter.providers.claims import claim
from dumbwaiter.providers.provider import Provider
from journals import Book

database = journals.database
postgres = journals.postgres
book = journals.book

CLAIMED = Receipt("claimed/1.jpg", url="http://cdn.test/1.jpg", label="claimed", size=7)


class Shop(Broker):
    """Sells one picture, or raises."""

    def __init__(self, book: Book, *, early: Verdict | None = None, late: BaseException | None = None) -> None:
        self.book = book
        self.early = early
        self.late = late
        self.sold = 0

    async def grants(self, asks: Any, desk: Desk) -> list[Grant]:
        return []

    async def claim(self, entry: Entry, intend: Callable[[], Awaitable[None]], desk: Desk) -> Receipt:
        if self.early is not None:
            raise self.early
        await intend()
        assert entry_of(self.book).facts["claim"] == "intended"
        self.sold += 1
        if self.late is not None:
            raise self.late
        return CLAIMED


def entry_of(book: Book, path: str = "files/w/a/photo.jpg") -> Entry:
    node = book.catalog.find(path)
    assert node is not None
    assert isinstance(node.file, Entry)
    return node.file


def buy(book: Book, shop: Broker, entry: Entry | None = None) -> dict[str, Any]:
    async def requested(_count: int) -> None: ...

    provider = Provider("vod", shop, None, requested=requested)  # type: ignore[arg-type]  # asks nobody
    found: dict[str, Any] = book.runner.run(claim(book.journal, provider, entry or entry_of(book)))
    return found


@pytest.fixture
def done(book: Book) -> Book:
    """A catalogued picture."""
    book.done("a/photo.jpg", receipt=Receipt("key", facts={"taskID": "1"}))
    return book


def test_what_is_claimed_stands_beside_the_original_and_costs_once(done: Book) -> None:
    shop = Shop(done)
    assert buy(done, shop) == {"path": "w/a/photo.jpg", "url": CLAIMED.url, "charged": True}
    beside = entry_of(done, "files/w/a/photo.claimed.jpg")
    assert (beside.key, beside.url, beside.size) == (CLAIMED.key, CLAIMED.url, 7)
    assert entry_of(done).facts == {"taskID": "1", "claim": "charged", "claimed": CLAIMED.url}
    assert buy(done, shop) == {"path": "w/a/photo.jpg", "url": CLAIMED.url, "charged": False}
    assert shop.sold == 1


@pytest.mark.parametrize("lost", [Retry("no answer"), asyncio.CancelledError()])
def test_what_may_have_been_charged_is_asked_for_again_at_a_word(done: Book, lost: BaseException) -> None:
    with pytest.raises((Failure, asyncio.CancelledError)) as raised:
        buy(done, Shop(done, late=lost))
    if isinstance(raised.value, Failure):
        assert "may have been charged" in str(raised.value)
        assert raised.value.code is Exit.ATTENTION
    for when in ("early", "late"):
        with pytest.raises(Failure, match="earlier claim may have been charged") as again:
            buy(done, Shop(done, **{when: Reject("no such task")}))  # type: ignore[arg-type]
        assert again.value.code is Exit.ATTENTION
    assert entry_of(done).facts["claim"] == "intended"
    assert buy(done, Shop(done)) == {"path": "w/a/photo.jpg", "url": CLAIMED.url, "charged": True}
    assert not buy(done, Shop(done))["charged"]


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (Reject("no such task"), Exit.FAILED),
        (Blocked("who are you"), Exit.ACCOUNT),
        (Retry("too fast", void=True), Exit.TEMPORARY),
    ],
)
@pytest.mark.parametrize("when", ["early", "late"])
def test_what_certainly_cost_nothing_may_be_tried_again(done: Book, verdict: Verdict, code: Exit, when: str) -> None:
    with pytest.raises(Failure, match="nothing was charged") as raised:
        buy(done, Shop(done, **{when: verdict}))  # type: ignore[arg-type]
    assert raised.value.code is code
    assert entry_of(done).facts == {"taskID": "1"}
    assert buy(done, Shop(done))["charged"]


def test_of_two_at_once_one_is_charged(done: Book) -> None:
    seen = entry_of(done)  # as both saw it
    shop = Shop(done)
    assert buy(done, shop, seen)["charged"]
    with pytest.raises(Failure):
        buy(done, shop, seen)
    assert shop.sold == 1


def test_a_vendor_that_sells_nothing_says_so(done: Book) -> None:
    class Plain(Shop):
        claim = Broker.claim

    with pytest.raises(Failure, match="nothing to claim"):
        buy(done, Plain(done))


def test_facts_of_a_file_that_is_gone_are_not_amended(book: Book) -> None:
    assert not book.amend(12345, 1.0, {"claim": "intended"})


def test_what_was_paid_for_is_told_also_when_the_journal_cannot_note_it(
    done: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "PAUSES", (0.0, 0.0))
    real, troubles = done.journal.entries.amend, 2

    async def amend(entry: int, now: float, facts: dict[str, Any], **more: Any) -> Any:
        nonlocal troubles
        if facts["claim"] == "charged" and troubles:
            troubles -= 1
            raise JournalTrouble("the journal cannot be written: its disk is full")
        return await real(entry, now, facts, **more)

    monkeypatch.setattr(done.journal.entries, "amend", amend)
    shop = Shop(done)
    assert buy(done, shop)["charged"]
    assert entry_of(done).facts["claim"] == "intended"
    troubles = 1
    done.run(lambda connection: connection.exec_driver_sql("UPDATE entries SET facts = '{}'"))
    assert buy(done, shop)["charged"]
    assert entry_of(done).facts["claim"] == "charged"
