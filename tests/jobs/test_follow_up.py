"""What becomes of a stored file when its vendor is asked for the rest, over a real journal; the vendor's word is the test's."""

import asyncio
import gc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import journals
from dumbwaiter import log
from dumbwaiter.errors import Blocked, JournalTrouble, Reauth, Reject, Restart, Retry
from dumbwaiter.jobs import attempt
from dumbwaiter.jobs.attempt import RESENT_MAX, Attempt
from dumbwaiter.jobs.tally import Tally
from dumbwaiter.jobs.threads import Threads
from dumbwaiter.jobs.unnoted import Stored, Unnoted, Version
from dumbwaiter.lifecycle import REPLACED
from dumbwaiter.model import FollowUp, Receipt, Stamp
from dumbwaiter.net.http import Http
from dumbwaiter.policy import AFTER_MAX, PAUSE
from dumbwaiter.providers.provider import Provider
from dumbwaiter.store.arrivals import Candidate
from dumbwaiter.store.lease import Lease
from journals import WORKER, Book

sqlite_book = journals.sqlite_book
NOW = 1000.0
RECEIPT = Receipt("key")


class Vendor:
    """A provider whose follow-up does what it is told, and the one file that it has."""

    def __init__(self, book: Book, folder: Path) -> None:
        self.book = book
        self.path = folder / "film.mov"
        self.path.write_bytes(b"the film")
        self.says: Callable[[Receipt, int], FollowUp] = lambda receipt, _tries: FollowUp(receipt)
        self.hangs: asyncio.Event | None = None
        self.attention: list[str] = []
        self.ended: list[str] = []
        self.job = self.stored()
        self.binds = False
        self.known = True
        self.unnoted = Unnoted()
        self.provider: Provider | None = None

    def stored(self) -> int:
        """A job of the version that is there now, stored."""
        book, stamp = self.book, Stamp.of(self.path.stat())
        (id_,) = book.enqueue([Candidate("w", "film.mov", "vod", stamp)], NOW)
        book.claim(WORKER, NOW, 1, only=[id_])
        book.lease(WORKER, id_).store(NOW, receipt=RECEIPT, digest="xxh3:00", more=8, resent=0)
        book.release(WORKER, id_)
        return int(id_)

    async def follow_up(self, _ask: Any, receipt: Receipt, tries: int, _desk: Any) -> FollowUp:
        if self.hangs is not None:
            await self.hangs.wait()
        return self.says(receipt, tries)

    async def _told(self, *words: str) -> None:
        self.attention.append(words[-1])

    async def attempt(self) -> Attempt:
        broker: Any = SimpleNamespace(
            requests=1,
            uploads=0,
            binds=self.binds,
            follows=True,
            together=lambda _ask: None,
            follow_up=self.follow_up,
        )
        self.provider = self.provider or Provider("vod", broker, Http(), requested=lambda _count: None)  # type: ignore[arg-type, return-value]
        endings = SimpleNamespace(
            told=lambda _job, receipt: receipt,
            of_done=lambda *_: [],
            of_failed=lambda *_: [],
            ended=lambda what, *_: self.ended.append(what),
            attention=self._told,
        )
        context: Any = SimpleNamespace(
            journal=self.book.journal,
            lease=lambda job: self.book.journal.lease(WORKER, job.id),
            worker=WORKER,
            clock=lambda: NOW,
            log=log.get("test"),
            providers={"vod": self.provider} if self.known else {},
            threads=self.threads,
            endings=endings,
            folder_of=lambda _watch: str(self.path.parent),
            watch_of=lambda _watch: None,
            away=lambda _watch: "",
            tally=Tally(),
            unnoted=self.unnoted,
        )
        (job,) = await self.book.journal.claim(WORKER, NOW, 1, only=[self.job])
        return Attempt(context, job)

    def run(self) -> Any:
        """Makes one attempt; returns what the journal has then."""

        async def once() -> None:
            await (await self.attempt()).run()

        self.threads = Threads(1, 1)
        try:
            self.book.runner.run(once())
        finally:
            self.threads.close()
        return self.book.row(self.job)

    def entry(self) -> Any:
        (one,) = self.book.catalog.history()
        return one


@pytest.fixture
def vendor(sqlite_book: Book, tmp_path: Path) -> Vendor:
    return Vendor(sqlite_book, tmp_path)


def raising(verdict: Exception) -> Callable[[Receipt, int], FollowUp]:
    def says(_receipt: Receipt, _tries: int) -> FollowUp:
        raise verdict

    return says


def test_a_vendor_that_has_no_more_to_say_ends_it(vendor: Vendor) -> None:
    vendor.says = lambda receipt, _tries: FollowUp(receipt.with_facts(video="7"))
    assert vendor.run().state == "done"
    assert vendor.entry().facts == {"video": "7"}
    assert vendor.ended == ["on_done"]


def test_what_the_vendor_made_of_it_stands_beside_it_and_nothing_of_its_word_is_obeyed(vendor: Vendor) -> None:
    made = Receipt("made", label="small", facts={"says": "\x1b[2J"})
    vendor.says = lambda receipt, _tries: FollowUp(receipt.with_facts(says="\x1b[2J"), results=(made,))
    assert vendor.run().state == "done"
    found = {entry.key: entry.facts for entry in vendor.book.catalog.history()}
    assert found == {key: {"says": "\\x1b[2J"} for key in ("key", "made")}


@pytest.mark.parametrize(("later", "wait"), [(30.0, 30.0), (10 * AFTER_MAX, AFTER_MAX)])
def test_what_is_not_ready_is_asked_about_later_with_what_was_learned(
    vendor: Vendor, later: float, wait: float
) -> None:
    tries: list[int] = []

    def says(receipt: Receipt, asked: int) -> FollowUp:
        tries.append(asked)
        return FollowUp(receipt.with_facts(task="7"), later=later, error="not ready")

    vendor.says = says
    row = vendor.run()
    assert (row.state, row.due_at, row.error, row.attempts, row.lease) == ("stored", NOW + wait, "not ready", 1, None)
    vendor.book.retry(None, NOW)
    vendor.run()
    assert tries == [0, 1]
    vendor.book.retry(None, NOW)
    vendor.says = lambda receipt, _tries: FollowUp(receipt)
    assert vendor.run().state == "done"
    assert vendor.entry().facts == {"task": "7"}


def test_an_account_that_is_refused_at_the_end_rests_and_a_person_is_told_once(vendor: Vendor) -> None:
    vendor.says = lambda receipt, _tries: FollowUp(receipt, later=1.0, error="no money", blocked=True)
    for _ in range(2):
        assert vendor.run().state == "stored"
        vendor.book.retry(None, NOW)
    assert vendor.provider is not None
    assert (vendor.provider.health.blocked, vendor.provider.health.paused_until) == (True, NOW + PAUSE)
    assert vendor.attention == ["no money"]


@pytest.mark.parametrize("verdict", [Reject("no such video"), Reauth("refused")])
def test_what_cannot_be_learned_is_told_with_a_file_that_is_done(vendor: Vendor, verdict: Exception) -> None:
    vendor.says = raising(verdict)
    assert vendor.run().state == "done"
    assert vendor.entry().facts == {"follow_up": str(verdict)}


@pytest.mark.parametrize("verdict", [Reject("no such record"), Reauth("refused")])
def test_a_file_that_nobody_would_find_unless_it_is_bound_is_not_done(vendor: Vendor, verdict: Exception) -> None:
    vendor.binds, vendor.says = True, raising(verdict)
    row = vendor.run()
    assert (row.state, row.error) == ("rejected", str(verdict))
    assert vendor.ended == ["on_failed"]
    assert vendor.book.catalog.history() == []


def test_an_older_version_takes_no_newer_ones_place_at_the_vendor(vendor: Vendor) -> None:
    older = vendor.job
    vendor.path.write_bytes(b"the newer film")
    vendor.job, vendor.binds = vendor.stored(), True
    assert vendor.run().state == "done"
    vendor.job = older
    vendor.says = raising(AssertionError("it is asked"))
    row = vendor.run()
    assert (row.state, row.error) == ("superseded", REPLACED)


def test_trouble_on_the_way_is_waited_out(vendor: Vendor) -> None:
    vendor.says = raising(Retry("busy", after=70.0))
    row = vendor.run()
    assert (row.state, row.error, row.attempts) == ("stored", "busy", 1)
    assert row.due_at >= NOW + 70.0
    vendor.says = raising(Blocked("no account"))
    vendor.book.retry(None, NOW)
    assert vendor.run().state == "stored"
    assert vendor.attention == ["no account"]


def test_what_the_vendor_lost_is_sent_again_while_it_is_the_same_file(vendor: Vendor) -> None:
    vendor.says = raising(Restart("it is gone", after=5.0))
    row = vendor.run()
    assert (row.state, row.due_at, row.error, row.key) == ("pending", NOW + 5.0, "it is gone", None)
    assert row.resent == 8


@pytest.mark.parametrize("changed", [True, False])
def test_what_the_vendor_lost_is_not_sent_again_once_it_changed_or_was_sent_in_vain_too_often(
    vendor: Vendor, changed: bool
) -> None:
    vendor.says = raising(Restart("it is gone"))
    if changed:
        vendor.path.write_bytes(b"another")
    else:
        vendor.book.rows(f"UPDATE jobs SET resent = {RESENT_MAX * 8} RETURNING id")
    assert vendor.run().state == "done"
    assert vendor.entry().facts == {"follow_up": "it is gone"}


@pytest.mark.parametrize("later", [None, 5.0], ids=["finish", "note"])
def test_an_answer_that_the_journal_does_not_take_is_noted_later_and_not_asked_for_again(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch, later: float | None
) -> None:
    """What was asked for may cost, and the disk may be full just then."""
    asked: list[int] = []

    def says(receipt: Receipt, tries: int) -> FollowUp:
        asked.append(tries)
        return FollowUp(receipt.with_facts(task="7"), later=later)

    async def full(*_values: Any, **_named: Any) -> None:
        raise JournalTrouble("the journal cannot be written: its disk is full")

    vendor.says = says
    with monkeypatch.context() as patch:
        patch.setattr(Lease, "finish", full)
        patch.setattr(Lease, "note", full)
        with pytest.raises(JournalTrouble):
            vendor.run()
    vendor.book.release(WORKER, vendor.job)
    row = vendor.run()
    assert len(asked) == 1
    assert row.state == ("done" if later is None else "stored")
    assert '"task":"7"' in row.receipt
    assert vendor.unnoted == Unnoted()


def test_an_answer_that_the_journal_took_after_all_is_not_noted_twice(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    note = Lease.note

    def says(receipt: Receipt, tries: int) -> FollowUp:
        asked.append(tries)
        return FollowUp(receipt, later=5.0)

    async def lost(*values: Any, **named: Any) -> None:
        await note(*values, **named)
        raise JournalTrouble("the journal cannot be written: the server closed the connection")

    vendor.says = says
    with monkeypatch.context() as patch:
        patch.setattr(Lease, "note", lost)
        with pytest.raises(JournalTrouble):
            vendor.run()
    vendor.book.retry([vendor.job], NOW)
    assert vendor.run().attempts == 2
    assert asked == [0, 1]


def test_a_receipt_that_the_journal_took_after_all_is_not_noted_of_the_next_upload(vendor: Vendor) -> None:
    """Of a server the answer alone may be lost, and the commit be made."""
    (job,) = vendor.book.claim(WORKER, NOW, 1, only=[vendor.job])
    vendor.book.release(WORKER, vendor.job)
    vendor.unnoted.stored[Version.of(job)] = Stored(RECEIPT, "xxh3:00")
    vendor.says = raising(Restart("it is gone"))
    assert vendor.run().state == "pending"
    assert vendor.unnoted == Unnoted()


def test_a_stored_file_whose_provider_is_configured_no_more_is_done(vendor: Vendor) -> None:
    vendor.known = False
    assert vendor.run().state == "done"
    assert vendor.entry().facts == {"follow_up": 'no provider named "vod" is configured'}


def test_an_answer_that_comes_while_all_is_to_end_counts(vendor: Vendor) -> None:
    """What was asked for may cost, and is not asked for again."""
    vendor.threads = Threads(1, 1)

    async def test() -> None:
        vendor.hangs = asyncio.Event()
        task = asyncio.create_task((await vendor.attempt()).run())
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        vendor.hangs.set()
        await task

    vendor.book.runner.run(test())
    vendor.threads.close()
    assert vendor.book.row(vendor.job).state == "done"


@pytest.mark.parametrize("late", [None, JournalTrouble("late")], ids=["cancelled", "with an error"])
def test_an_answer_that_does_not_come_while_all_is_to_end_is_waited_for_no_longer(
    monkeypatch: pytest.MonkeyPatch, late: Exception | None
) -> None:
    monkeypatch.setattr(attempt, "HEARD", 0.0)
    ended: list[str] = []
    unheard: list[dict[str, Any]] = []

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("hangs")
            if late is not None:
                raise late

    async def test() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unheard.append(context))
        task = asyncio.create_task(attempt._heard(hangs()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        gc.collect()
        assert ended == ["hangs"]

    asyncio.run(test())
    assert unheard == []
