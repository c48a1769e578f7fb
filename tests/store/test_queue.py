"""What changes many jobs at once: retries, what is forgotten, another clock."""

from functools import partial

import pytest
from sqlalchemy import Connection, select, update

import journals
from dumbwaiter import report
from dumbwaiter.lifecycle import FORGOTTEN
from dumbwaiter.store.errands import Order
from dumbwaiter.store.folders import Surveyed
from dumbwaiter.store.lease import LostLease
from dumbwaiter.store.queue import UNNAMED
from dumbwaiter.store.tables import jobs
from journals import WORKER, Book, file, states

database = journals.database
postgres = journals.postgres
book = journals.book
NOW = 1000.0


def test_a_retry_makes_rejected_and_waiting_jobs_due(book: Book) -> None:
    rejected = book.leased("a", NOW)
    book.lease(WORKER, rejected).reject(NOW, error="no")
    waiting = book.named("b", NOW)
    book.lease(WORKER, waiting).delay(NOW, due_at=NOW + 999, error="later", attempts=7)
    stored = book.stored("c", NOW)
    book.lease(WORKER, stored).delay(NOW, due_at=NOW + 999, error="later", attempts=7)
    busy = book.leased("d", NOW)
    book.release(WORKER, rejected)
    done = book.done("e", NOW)
    before = states(book)
    assert book.retry(None, NOW + 1) == 3
    assert states(book) == before | {rejected: "pending"}
    for id_, attempts in ((rejected, 0), (waiting, 0), (stored, 7)):
        row = book.row(id_)
        assert (row.due_at, row.attempts, row.error) == (NOW + 1, attempts, None)
        assert (row.by_hand, row.updated_at) == (True, NOW + 1)
    assert book.row(waiting).checkpoint is not None
    assert (book.row(busy).lease, book.row(busy).by_hand) == (WORKER, False)
    assert book.row(done).state == "done"


def test_a_retry_of_what_needs_a_person_leaves_what_waits(book: Book) -> None:
    rejected, waiting = book.leased("a", NOW), book.leased("b", NOW)
    book.lease(WORKER, rejected).reject(NOW, error="no")
    book.lease(WORKER, waiting).delay(NOW, due_at=NOW + 999, error="later", attempts=7)
    given_up, later = book.done("c", NOW), book.done("d", NOW)
    orders = [Order("on_done", {}, "no"), Order("on_failed", {})]

    def order(connection: Connection, id_: int, orders: list[Order]) -> None:
        job = connection.execute(select(jobs).where(jobs.c.id == id_)).one()
        book.journal.errands.add(connection, job, orders, NOW)

    book.run(partial(order, id_=given_up, orders=orders))
    book.run(partial(order, id_=later, orders=orders[1:]))
    for one in book.runner.run(book.journal.errands.due(NOW, 9, (), ())):
        book.runner.run(book.journal.errands.failed(one, due_at=NOW + 999, error="later"))
    assert report.count_needy(book.reader) == len(report.needy(book.reader)) == 2
    assert book.retry(None, NOW + 1, waiting=False) == 2
    assert (book.row(rejected).state, book.row(waiting).due_at) == ("pending", NOW + 999)
    due = {(row.job, row.what, row.due_at) for row in book.rows("SELECT job, what, due_at FROM errands")}
    assert due == {(given_up, "on_done", NOW + 1), (given_up, "on_failed", NOW + 999), (later, "on_failed", NOW + 999)}


def test_a_retry_of_a_rejected_job_begins_anew(book: Book) -> None:
    """Its key may be another file's by now."""
    id_ = book.leased("a", NOW)
    book.lease(WORKER, id_).propose(NOW, provider="vod", key="mine", digest=None)
    book.lease(WORKER, id_).name(NOW, key="mine", grant=None)
    book.lease(WORKER, id_).advance(NOW, checkpoint="c", sent=4, more=4, resent=0)
    book.lease(WORKER, id_).reject(NOW, error="no")
    book.lease(WORKER, book.named("b", NOW)).reject(NOW, error="nor this one")
    before = book.counters().get("bytes_resent", 0)
    assert book.retry([id_], NOW) == 1
    row = book.row(id_)
    assert (row.key, row.proposed, row.sent, row.resent) == (None, None, 0, 4)
    assert book.counters()["bytes_resent"] == before + 4


def test_what_is_under_way_goes_on_by_the_order_that_names_it(book: Book) -> None:
    """Should it have to rest: a window that closes ends no upload that a person asked for."""
    named, other, waits = (book.leased(name, NOW) for name in "abc")
    book.release(WORKER, waits)
    done = book.done("d", NOW)
    assert book.retry([named, done], NOW) == 0
    assert [bool(book.row(id_).by_hand) for id_ in (named, other, waits, done)] == [True, False, False, False]


def test_what_failed_by_the_network_is_due_once_that_is_back(book: Book) -> None:
    later = NOW + 999
    ids = {}
    for name, attempts, provider in (("failed", 7, "vod"), ("waits", 0, "vod"), ("elsewhere", 7, "art")):
        ids[name] = book.leased(name, NOW, provider=provider)
        book.lease(WORKER, ids[name]).delay(NOW, due_at=later, error="later", attempts=attempts)
    ids["stored"] = book.stored("stored", NOW)
    book.lease(WORKER, ids["stored"]).delay(NOW, due_at=later, error="later", attempts=7)
    ids["busy"] = book.leased("busy", NOW)
    book.run(lambda connection: connection.execute(update(jobs).where(jobs.c.id == ids["busy"]).values(attempts=7)))
    assert book.make_failed_due([], NOW + 1) == 0
    assert book.make_failed_due(["vod", "news"], NOW + 1) == 1
    found = {name: (book.row(id_).due_at, book.row(id_).attempts) for name, id_ in ids.items()}
    assert found == {
        "failed": (NOW + 1, 0), "waits": (later, 0), "elsewhere": (later, 7), "stored": (later, 7), "busy": (NOW, 7),
    }  # fmt: skip
    assert book.row(ids["failed"]).updated_at == NOW + 1


def test_what_waits_for_a_folder_is_due_once_that_is_back(book: Book) -> None:
    later = NOW + 999
    here, elsewhere = book.leased("a", NOW), book.leased("a", NOW, watch="other")
    for id_ in (here, elsewhere):
        book.lease(WORKER, id_).delay(NOW, due_at=later, error="away", attempts=1)
    waits, busy = book.pending("b", NOW), book.stored("c", NOW + 2)
    due = lambda: [book.row(id_).due_at for id_ in (here, elsewhere, waits, busy)]  # noqa: E731
    book.make_due("w", NOW + 1)
    assert due() == [NOW + 1, later, NOW, NOW + 2]
    book.make_due(None, NOW + 1)
    assert due() == [NOW + 1, NOW + 1, NOW, NOW + 2]


def test_an_order_is_for_the_files_of_its_own_installation(book: Book) -> None:
    """Several may share a database, and each has folders and providers of its own."""
    with Book(book.url, "another") as other:
        rejected, waiting, done = other.leased("a", NOW), other.named("b", NOW), other.done("c", NOW)
        other.lease(WORKER, rejected).reject(NOW, error="no")
        other.lease(WORKER, waiting).delay(NOW, due_at=NOW + 1e7, error="later", attempts=7)
        busy = other.leased("d", NOW)
        other.survey("w", [Surveyed("", 4, b"digest")])
        orders = other.journal.errands
        other.runner.run(orders.order("w", [Order("on_done", {}, waits=1e7)], NOW))
        tables = ("jobs", "errands", "surveyed", "counters")
        facts = lambda: [other.rows(f"SELECT * FROM {name} ORDER BY host") for name in tables]  # noqa: E731
        before = facts()
        ids = [rejected, waiting, done, busy]
        assert [book.retry(None, NOW + 1), book.retry(ids, NOW + 1), book.forget(ids, NOW + 1)] == [0, 0, 0]
        assert book.make_failed_due(["vod"], NOW + 1) == 0
        assert book.end_unwanted({}, [], NOW + 1) == 0
        book.make_due(None, NOW + 1)
        book.bring_forward(NOW + 1, NOW + 2)
        assert facts() == before


def test_who_listens_hears_of_what_an_order_moves(book: Book) -> None:
    ids = [book.pending(name) for name in "ab"]
    told: list[set[int]] = []
    book.journal.listen(told.append)
    book.retry(ids, NOW)
    book.retry(None, NOW)
    book.make_failed_due(["vod"], NOW)
    book.make_due("w", NOW)
    book.forget(ids, NOW)
    book.run(lambda _connection: None)  # it is told after each commit
    assert told == [set(ids), {UNNAMED}, {UNNAMED}, {UNNAMED}, set(ids)]


def test_what_waits_for_a_time_of_another_clock_is_due(book: Book) -> None:
    near, far = book.leased("a", NOW), book.leased("b", NOW)
    for id_, due_at in ((near, NOW + 300), (far, NOW + 1e7)):
        book.lease(WORKER, id_).delay(NOW, due_at=due_at, error="x", attempts=1)
    book.bring_forward(NOW, NOW + 3600)
    assert [book.row(id_).due_at for id_ in (near, far)] == [NOW + 300, NOW]


def test_a_retry_is_for_the_named_jobs_only(book: Book) -> None:
    ids = [book.leased(name, NOW) for name in "abc"]
    for id_ in ids:
        book.lease(WORKER, id_).reject(NOW, error="no")
    assert book.retry([], NOW) == 0
    assert book.retry([ids[0], ids[2], 999], NOW) == 2
    assert list(states(book).values()) == ["pending", "rejected", "pending"]


def test_a_forgotten_job_is_taken_from_who_works_on_it_for_good(book: Book) -> None:
    id_ = book.named()
    before = book.counters().get("bytes_resent", 0)
    assert book.forget([id_, 999], NOW) == 1
    assert book.counters()["bytes_resent"] == before + 4  # what was acknowledged of it was sent in vain
    row = book.row(id_)
    assert (row.state, row.error, row.grant, row.checkpoint, row.lease) == (
        "superseded", FORGOTTEN, None, None, None,
    )  # fmt: skip
    with pytest.raises(LostLease):
        book.lease(WORKER, id_).advance(NOW, checkpoint="c", sent=9, more=5, resent=0)
    assert book.enqueue([file("a/film.mov")], NOW) == []
    assert book.retry(None, NOW) == 0


def test_what_is_at_the_remote_cannot_be_forgotten(book: Book) -> None:
    ids = [book.stored("a", NOW), book.done("b", NOW)]
    assert book.forget(ids, NOW) == 0
    assert list(states(book).values()) == ["stored", "done"]
