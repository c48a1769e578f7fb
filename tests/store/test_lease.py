"""What a worker does with a job that it holds, on each database there is: what each transition writes, and for whom."""

from typing import Any

import pytest
from sqlalchemy import event

import journals
from dumbwaiter.errors import Reject, Restart, Retry, Verdict
from dumbwaiter.lifecycle import GONE, REPLACED, Event, sources
from dumbwaiter.model import Receipt, State
from dumbwaiter.store.lease import LEASE, LostLease
from journals import WORKER, Book, states

database = journals.database
postgres = journals.postgres
book, sqlite_book = journals.book, journals.sqlite_book
NOW = 1000.0


def test_every_transition_of_the_worker_renews_his_lease(book: Book) -> None:
    id_ = book.leased(now=NOW)
    for number, transition in enumerate(
        (
            lambda now: book.lease(WORKER, id_).propose(now, provider="vod", key="k", digest=None),
            lambda now: book.lease(WORKER, id_).name(now, key="k", grant=None),
            lambda now: book.lease(WORKER, id_).advance(now, checkpoint="{}", sent=1, more=1, resent=0),
            lambda now: book.lease(WORKER, id_).store(now, receipt=Receipt("k"), digest="d", more=1, resent=0),
        )
    ):
        now = NOW + (number + 1) * LEASE
        transition(now)
        assert book.claimed(now + LEASE, worker="next") == []


def test_a_name_is_settled_with_its_ticket(book: Book) -> None:
    id_ = book.leased(now=NOW)
    book.lease(WORKER, id_).name(NOW + 1, key="a/键", grant='{"t":1}')
    row = book.row(id_)
    assert (row.state, row.key, row.grant, row.updated_at) == ("pending", "a/键", '{"t":1}', NOW + 1)


def test_a_checkpoint_belongs_to_its_key(book: Book) -> None:
    id_ = book.named()
    key = book.row(id_).key
    book.lease(WORKER, id_).name(NOW, key=key, grant="renewed")
    assert (book.row(id_).checkpoint, book.row(id_).sent) == ('{"offset":4}', 4)
    book.lease(WORKER, id_).name(NOW, key="another object", grant="new")
    assert (book.row(id_).checkpoint, book.row(id_).sent) == (None, 0)


def test_with_another_key_proposed_nothing_goes_on_under_the_one_before(book: Book) -> None:
    """Whoever takes over from here would send to the object that another file has."""
    id_ = book.named()
    assert book.lease(WORKER, id_).propose(NOW, provider="vod", key="another", digest=None) is None
    row = book.row(id_)
    assert (row.proposed, row.key, row.grant, row.checkpoint, row.sent) == ("another", None, None, None, 0)


def test_an_advance_is_counted(book: Book) -> None:
    id_ = book.leased(now=NOW)
    book.lease(WORKER, id_).delay(NOW, due_at=NOW, error="trouble", attempts=3)
    book.claimed()
    book.lease(WORKER, id_).advance(NOW, checkpoint="0", sent=0, more=0, resent=0)
    assert book.row(id_).attempts == 3  # nothing got through so far
    book.lease(WORKER, id_).advance(NOW, checkpoint="1", sent=4, more=4, resent=0)
    book.lease(WORKER, id_).advance(NOW + 1, checkpoint="2", sent=9, more=5, resent=2)
    row = book.row(id_)
    assert (row.checkpoint, row.sent, row.resent, row.attempts, row.error) == ("2", 9, 2, 0, None)
    assert book.counters() == {"bytes_sent": 9, "bytes_resent": 2}


def test_a_delay_keeps_the_place_and_ends_the_lease(book: Book) -> None:
    id_ = book.named()
    book.lease(WORKER, id_).delay(NOW, due_at=NOW + 60, error="the network is down", attempts=2)
    row = book.row(id_)
    assert (row.due_at, row.error, row.attempts, row.lease) == (NOW + 60, "the network is down", 2, None)
    assert (row.grant, row.checkpoint, row.sent) == ('{"ticket":"secret ticket"}', '{"offset":4}', 4)
    assert book.claimed(NOW + 59) == []
    assert book.claimed(NOW + 60) == [id_]


@pytest.mark.parametrize("kind", [Reject, Retry, Restart])
def test_whatever_a_vendor_says_can_be_noted_and_shown(book: Book, kind: type[Verdict]) -> None:
    id_ = book.leased()
    verdict = kind("it said: \x1b[2J\0 no\r\nC:\\x\ud800")
    book.lease(WORKER, id_).delay(NOW, due_at=NOW, error=str(verdict), attempts=1)
    assert book.row(id_).error == "it said: \\x1b[2J\\x00 no C:\\x\\ud800"


def test_a_delay_may_drop_the_ticket_or_the_place(book: Book) -> None:
    one, other = book.named("a"), book.named("b")
    book.lease(WORKER, one).delay(NOW, due_at=NOW, error="e", attempts=1, new_grant=True)
    book.lease(WORKER, other).delay(NOW, due_at=NOW, error="e", attempts=1, from_start=True)
    assert (book.row(one).grant, book.row(one).checkpoint, book.row(one).sent) == (None, '{"offset":4}', 4)
    row = book.row(other)
    assert (row.checkpoint, row.sent, row.resent) == (None, 0, 4)
    assert row.grant is not None
    assert book.counters() == {"bytes_sent": 8, "bytes_resent": 4}


def test_a_stored_file_has_its_receipt_and_no_secret(book: Book) -> None:
    id_ = book.named(now=NOW)
    receipt = Receipt("final/key", "etag", "http://x/y", "md5", {"vid": "7", "名": "值"})
    book.lease(WORKER, id_).store(NOW + 1, receipt=receipt, digest="xxh3:ab", more=6, resent=1)
    row = book.row(id_)
    assert (row.state, row.key, row.digest) == ("stored", "final/key", "xxh3:ab")
    assert (row.sent, row.resent, row.grant, row.checkpoint) == (10, 1, None, None)
    assert book.counters() == {"bytes_sent": 10, "bytes_resent": 1}
    book.release(WORKER, id_)
    (job,) = book.claim(WORKER, NOW + 1, 1)
    assert job.receipt == receipt


def test_no_trouble_is_told_of_what_came_through_it(book: Book) -> None:
    id_ = book.named(now=NOW)
    lease = book.lease(WORKER, id_)
    lease.delay(NOW, due_at=NOW, error="the network is down", attempts=3)
    book.claimed()
    lease.store(NOW, receipt=Receipt("k"), digest="xxh3:00", more=6, resent=0)
    assert (book.row(id_).error, book.row(id_).attempts) == (None, 0)
    lease.note(NOW, receipt=Receipt("k"), due_at=NOW, error="not yet")
    book.claimed()
    lease.finish(NOW, receipt=Receipt("k"))
    assert (book.row(id_).error, book.row(id_).attempts) == (None, 0)


def test_a_follow_up_goes_on_from_its_note(book: Book) -> None:
    id_ = book.stored(now=NOW)
    one, other = (Receipt("k", facts={"task": task}) for task in "12")
    book.lease(WORKER, id_).note(NOW, receipt=one, due_at=NOW + 5, error="not yet")
    assert book.claimed(NOW + 4) == []
    (job,) = book.claim(WORKER, NOW + 5, 1)
    assert (job.state, job.receipt, job.error, job.attempts) == (State.STORED, one, "not yet", 1)
    book.lease(WORKER, id_).note(NOW, receipt=other, due_at=NOW + 5, error=None)
    (job,) = book.claim(WORKER, NOW + 5, 1)
    assert (job.receipt, job.error, job.attempts) == (other, None, 2)


def test_a_file_that_was_stored_in_vain_begins_anew_in_one_commit(book: Book) -> None:
    id_ = book.stored(now=NOW)
    seen: list[int] = []
    event.listen(book.engine, "commit", lambda connection: seen.append(1))
    book.lease(WORKER, id_).resend(NOW + 9, due_at=NOW + 9, error="too late")
    assert len(seen) == 1
    (job,) = book.claim(WORKER, NOW + 9, 1)
    assert (job.state, job.key, job.grant, job.checkpoint, job.receipt, job.digest) == (State.PENDING, *[None] * 5)
    assert (job.sent, job.resent, job.attempts, job.error) == (0, 10, 0, "too late")
    assert book.counters() == {"bytes_sent": 10, "bytes_resent": 10}


def test_a_name_that_comes_with_the_answer_is_shared_by_equal_content_alone(sqlite_book: Book) -> None:
    book, receipt = sqlite_book, Receipt("album")
    book.done("a", NOW, receipt)
    id_ = book.leased("b", NOW)
    for digest, place in {"xxh3:01": "w/a", "xxh3:00": None}.items():
        held = book.lease(WORKER, id_).store(NOW, receipt=receipt, digest=digest, more=0, resent=0, given="album")
        assert (held and held.place) == place
        assert book.row(id_).state == ("pending" if place else "stored")


def test_a_job_that_cannot_be_catalogued_is_not_done(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    id_ = book.stored(now=NOW)

    def broken(*_values: object, **_named: object) -> None:
        raise RuntimeError("no entry")

    monkeypatch.setattr(book.journal.entries, "add", broken)
    with pytest.raises(RuntimeError):
        book.lease(WORKER, id_).finish(NOW, receipt=Receipt("k"))
    assert book.row(id_).state == "stored"
    assert book.catalog.history() == []


def test_a_rejected_job_says_why_and_keeps_no_secret(book: Book) -> None:
    id_ = book.named()
    book.lease(WORKER, id_).reject(NOW, error="电影 is too large")
    row = book.row(id_)
    assert (row.state, row.error, row.grant, row.checkpoint, row.lease) == (
        "rejected", "电影 is too large", None, None, None,
    )  # fmt: skip


def test_a_stored_file_that_is_refused_makes_room_for_its_newer_version(book: Book) -> None:
    older = book.stored(version=1)
    newer = book.pending(version=2)
    assert not book.lease(WORKER, older).reject(NOW, error="the form refuses the record")
    row = book.row(older)
    assert (row.state, row.error, row.lease, row.receipt) == ("superseded", REPLACED, None, None)
    assert states(book)[newer] == "pending"


def test_a_superseded_job_says_why_and_keeps_no_secret(book: Book) -> None:
    id_ = book.named()
    book.lease(WORKER, id_).supersede(NOW, reason=GONE)
    row = book.row(id_)
    assert (row.state, row.error, row.grant, row.checkpoint, row.lease) == ("superseded", GONE, None, None, None)


WORDS: dict[Event, dict[str, Any]] = {
    Event.NAME: {"key": "stolen", "grant": "g"},
    Event.ADVANCE: {"checkpoint": "c", "sent": 9, "more": 5, "resent": 5},
    Event.DELAY: {"due_at": 1, "error": "e", "attempts": 1, "from_start": True},
    Event.STORE: {"receipt": Receipt("r"), "digest": "d", "more": 1, "resent": 1},
    Event.NOTE: {"receipt": Receipt("n"), "due_at": 1, "error": "e"},
    Event.RESEND: {"due_at": NOW, "error": "e"},
    Event.FINISH: {"receipt": Receipt("r")},
    Event.SUPERSEDE: {"reason": GONE},
    Event.REJECT: {"error": "e"},
}


def make(event: Event, book: Book, worker: str, id_: int) -> None:
    """Makes the transition."""
    getattr(book.lease(worker, id_), event)(NOW, **WORDS[event])


def everything(book: Book) -> list[Any]:
    return [book.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in ("jobs", "entries", "counters")]


@pytest.mark.parametrize("event", WORDS)
def test_who_has_lost_his_lease_changes_nothing(book: Book, event: Event) -> None:
    begun = book.stored if event in {Event.NOTE, Event.RESEND, Event.FINISH} else book.named
    taken, free, ended = begun("a"), begun("b"), begun("c")
    book.release(WORKER, free)
    book.run(
        lambda connection: connection.exec_driver_sql(f"UPDATE jobs SET state = 'done' WHERE id = {ended}") and None
    )
    before = everything(book)
    for worker, id_ in (("thief", taken), (WORKER, free), (WORKER, ended), (WORKER, 12345)):
        with pytest.raises(LostLease, match=rf"^job {id_} is no longer held by {worker}$"):
            make(event, book, worker, id_)
    assert everything(book) == before
    make(event, book, WORKER, taken)
    assert everything(book) != before


@pytest.mark.parametrize("event", WORDS)
def test_an_event_holds_in_its_states_only(book: Book, event: Event) -> None:
    for state in State:
        id_ = book.leased(f"in {state}")
        book.run(
            lambda connection, state=state, id_=id_: (
                connection.exec_driver_sql(f"UPDATE jobs SET state = '{state}' WHERE id = {id_}") and None
            )
        )
        if state in sources(event):
            make(event, book, WORKER, id_)
        else:
            with pytest.raises(LostLease):
                make(event, book, WORKER, id_)


def test_every_event_of_a_worker_is_tried_here() -> None:
    assert set(WORDS) == set(Event) - {Event.RETRY}


def test_what_was_sent_of_a_version_that_is_no_more_was_sent_in_vain(book: Book) -> None:
    changed = book.leased("changed", NOW)
    book.lease(WORKER, changed).advance(NOW, checkpoint="1", sent=4, more=4, resent=0)
    book.lease(WORKER, changed).supersede(NOW, reason=REPLACED, resent=2)
    assert book.counters() == {"bytes_sent": 4, "bytes_resent": 6}
    waits = book.leased("waits", NOW)
    book.lease(WORKER, waits).advance(NOW, checkpoint="1", sent=3, more=3, resent=0)
    book.lease(WORKER, waits).delay(NOW, due_at=NOW + 5, error="away", attempts=1)
    book.pending("waits", NOW + 1, version=2)
    assert states(book)[waits] == "superseded"
    assert book.counters() == {"bytes_sent": 7, "bytes_resent": 9}


def test_what_was_sent_in_vain_is_counted_with_whoever_ends_the_attempt(book: Book) -> None:
    id_ = book.named()
    book.lease(WORKER, id_).delay(NOW, due_at=NOW, error="away", attempts=1, resent=3)
    assert book.claimed() == [id_]
    book.release(WORKER, id_, resent=2)
    assert book.claimed() == [id_]
    book.lease(WORKER, id_).delay(NOW, due_at=NOW, error="gone", attempts=2, from_start=True, resent=1)
    assert book.row(id_).resent == 3 + 2 + 4 + 1
    assert book.counters()["bytes_resent"] == 10
