"""Jobs, on each database there is: who has a lease, and what each transition writes."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Connection, event

import journals
from dumbwaiter.errors import Reject, Restart, Retry, Verdict
from dumbwaiter.journal import DAY, LEASE, OUTLIVED, LostLease
from dumbwaiter.lifecycle import FORGOTTEN, GONE, REPLACED, Event, sources
from dumbwaiter.model import Receipt, State
from dumbwaiter.store.errands import Order
from journals import WORKER, Book, file, in_file, states

database = journals.database
postgres = journals.postgres
book, sqlite_book = journals.book, journals.sqlite_book
NOW = 1000.0
FULL = 2  # SQLite's number for a commit that waits for the disk


def claimed(
    book: Book, now: float = NOW, limit: int = 100, worker: str = WORKER, paused: tuple[str, ...] = ()
) -> list[int]:
    return [job.id for job in book.claim(worker, now, limit, paused)]


# Claim


def test_a_job_is_leased_to_one_worker(book: Book) -> None:
    ids = book.enqueue([file("a"), file("b"), file("c")], NOW)
    assert claimed(book, limit=2, worker="one") == ids[:2]
    assert claimed(book, worker="two") == ids[2:]
    assert claimed(book, worker="three") == []
    assert [book.row(id_).lease for id_ in ids] == ["one", "one", "two"]


def test_what_is_due_longest_is_claimed_first_and_nothing_before_its_time(book: Book) -> None:
    late, early, never = (book.pending(name, now) for name, now in (("a", 30.0), ("b", 10.0), ("c", 50.0)))
    assert claimed(book, 9.0) == []
    assert claimed(book, 30.0) == [early, late]
    assert claimed(book, 49.9) == []
    assert claimed(book, 50.0) == [never]


def test_no_more_are_claimed_than_there_is_room_for_whatever_their_turn(book: Book) -> None:
    begun = book.named("a", NOW)
    book.release(WORKER, begun)
    ordered, *due = book.enqueue([file("b"), file("c"), file("d")], NOW)
    book.rows("UPDATE jobs SET by_hand = TRUE WHERE id = :id RETURNING id", id=ordered)
    book.rows("UPDATE jobs SET grant_until = 1 WHERE id = :id RETURNING id", id=begun)
    assert claimed(book, limit=3) == [ordered, begun, due[0]]
    assert claimed(book) == due[1:]


def test_who_listens_hears_which_jobs_each_commit_moved(sqlite_book: Book) -> None:
    heard: list[set[int]] = []
    book, receipt = sqlite_book, Receipt("k")
    one, two, three, four = (book.pending(name, NOW) for name in "abcd")
    book.journal.listen(heard.append)

    def told(*steps: Callable[[], Any]) -> list[set[int]]:
        heard.clear()
        for step in steps:
            step()
        book.run(lambda _: None)  # by now the commit before is told of
        return list(heard)

    assert told(lambda: book.claim(WORKER, NOW, 2)) == [{one, two}]
    assert (
        told(
            lambda: book.propose(WORKER, one, NOW, provider="vod", key="k", digest=None),
            lambda: book.name(WORKER, one, NOW, key="k", grant=None),
            lambda: book.advance(WORKER, one, NOW, checkpoint="{}", sent=4, more=4, resent=0),
            lambda: book.store(WORKER, one, NOW, receipt=receipt, digest="xxh3:00", more=6, resent=0),
            lambda: book.finish(WORKER, one, NOW, receipt=receipt),
        )
        == [{one}] * 5
    )
    assert told(lambda: book.delay(WORKER, two, NOW, due_at=NOW, error="e", attempts=1)) == [{two}]
    assert told(lambda: book.claim(WORKER, NOW, 9), lambda: book.release(WORKER, two)) == [{two, three, four}, {two}]
    assert told(
        lambda: book.supersede(WORKER, three, NOW, reason=GONE),
        lambda: book.reject(WORKER, four, NOW, error="e"),
    ) == [{three}, {four}]
    book.journal.listen(None)
    assert told(lambda: book.claim(WORKER, NOW, 9)) == []


def test_equal_times_are_claimed_in_their_order(book: Book) -> None:
    ids = book.enqueue([file(f"{number}") for number in range(20)], NOW)
    assert claimed(book, limit=5) + claimed(book, limit=15) == ids


def test_no_job_of_a_paused_provider_is_claimed(book: Book) -> None:
    vod, art, news = (book.pending(provider, provider=provider) for provider in ("vod", "art", "news"))
    assert claimed(book, paused=("vod", "news")) == [art]
    assert claimed(book, paused=("vod",)) == [news]
    assert claimed(book) == [vod]


def test_only_open_jobs_are_claimed(book: Book) -> None:
    stored = book.stored("a", NOW)
    book.done("b", NOW)
    rejected = book.leased("c", NOW)
    book.reject(WORKER, rejected, NOW, error="no")
    superseded = book.leased("d", NOW)
    book.supersede(WORKER, superseded, NOW, reason=GONE)
    book.release(WORKER, stored)
    assert claimed(book) == [stored]


def test_a_lease_that_ran_out_is_anybodys(book: Book) -> None:
    id_ = book.leased(now=NOW, worker="dead")
    assert claimed(book, NOW + LEASE, worker="next") == []
    assert claimed(book, NOW + LEASE + 0.1, worker="next") == [id_]
    with pytest.raises(LostLease):
        book.name("dead", id_, NOW, key="k", grant=None)


def test_nobody_takes_over_his_own_lease(book: Book) -> None:
    """A piece may take longer than a lease; whoever sends it is not to begin anew beside himself."""
    id_ = book.leased(now=NOW)
    assert claimed(book, NOW + 2 * LEASE) == []
    assert claimed(book, NOW + 2 * LEASE, worker="next") == [id_]


def test_every_transition_of_the_worker_renews_his_lease(book: Book) -> None:
    id_ = book.leased(now=NOW)
    for number, transition in enumerate(
        (
            lambda now: book.propose(WORKER, id_, now, provider="vod", key="k", digest=None),
            lambda now: book.name(WORKER, id_, now, key="k", grant=None),
            lambda now: book.advance(WORKER, id_, now, checkpoint="{}", sent=1, more=1, resent=0),
            lambda now: book.store(WORKER, id_, now, receipt=Receipt("k"), digest="d", more=1, resent=0),
        )
    ):
        now = NOW + (number + 1) * LEASE
        transition(now)
        assert claimed(book, now + LEASE, worker="next") == []


def test_a_released_job_is_as_it_was(book: Book) -> None:
    id_ = book.named(now=NOW)
    before = book.row(id_)._asdict()
    book.release("somebody else", id_)
    assert book.row(id_)._asdict() == before
    book.release(WORKER, id_)
    assert book.row(id_)._asdict() == before | {"lease": None, "lease_until": None}
    assert claimed(book) == [id_]


def test_all_leases_of_an_installation_end_together(database: URL) -> None:
    with Book(database) as mine, Book(database, "beef") as other:
        ids = mine.enqueue([file("a"), file("b")], NOW)
        theirs = other.leased("c", NOW)
        claimed(mine)
        assert mine.release_all() == 2
        assert claimed(mine, worker="next") == ids
        assert other.row(theirs).lease == WORKER


def test_an_installation_sees_its_own_jobs_only(database: URL) -> None:
    with Book(database) as mine, Book(database, "beef") as other:
        id_ = mine.pending("a")
        assert other.enqueue([file("a")], NOW) != []
        assert claimed(mine) == [id_]
        assert len(claimed(other)) == 1
        assert claimed(other) == []
        assert other.retry(None, NOW) == other.forget([id_], NOW) == 0
        mine.count(grants_requested=2)
        assert (mine.counters(), other.counters()) == ({"grants_requested": 2}, {})


def test_the_next_job_that_is_due_is_known(book: Book) -> None:
    assert book.next_due() is None
    book.pending("a", 50.0)
    art = book.pending("b", 20.0, provider="art")
    book.done("c", 1.0)
    assert book.next_due() == 20.0
    assert book.next_due(["art"]) == 50.0
    assert book.next_due(["art", "vod"]) is None
    assert claimed(book, 20.0) == [art]
    assert book.next_due() == 50.0


# A worker's transitions


def test_a_name_is_settled_with_its_ticket(book: Book) -> None:
    id_ = book.leased(now=NOW)
    book.name(WORKER, id_, NOW + 1, key="a/键", grant='{"t":1}')
    row = book.row(id_)
    assert (row.state, row.key, row.grant, row.updated_at) == ("pending", "a/键", '{"t":1}', NOW + 1)


def test_a_checkpoint_belongs_to_its_key(book: Book) -> None:
    id_ = book.named()
    key = book.row(id_).key
    book.name(WORKER, id_, NOW, key=key, grant="renewed")
    assert (book.row(id_).checkpoint, book.row(id_).sent) == ('{"offset":4}', 4)
    book.name(WORKER, id_, NOW, key="another object", grant="new")
    assert (book.row(id_).checkpoint, book.row(id_).sent) == (None, 0)


def test_with_another_key_proposed_nothing_goes_on_under_the_one_before(book: Book) -> None:
    """Whoever takes over from here would send to the object that another file has."""
    id_ = book.named()
    assert book.propose(WORKER, id_, NOW, provider="vod", key="another", digest=None) is None
    row = book.row(id_)
    assert (row.proposed, row.key, row.grant, row.checkpoint, row.sent) == ("another", None, None, None, 0)


def test_an_advance_is_counted(book: Book) -> None:
    id_ = book.leased(now=NOW)
    book.delay(WORKER, id_, NOW, due_at=NOW, error="trouble", attempts=3)
    claimed(book)
    book.advance(WORKER, id_, NOW, checkpoint="1", sent=4, more=4, resent=0)
    book.advance(WORKER, id_, NOW + 1, checkpoint="2", sent=9, more=5, resent=2)
    row = book.row(id_)
    assert (row.checkpoint, row.sent, row.resent, row.attempts, row.error) == ("2", 9, 2, 0, None)
    assert book.counters() == {"bytes_sent": 9, "bytes_resent": 2}


def test_a_delay_keeps_the_place_and_ends_the_lease(book: Book) -> None:
    id_ = book.named()
    book.delay(WORKER, id_, NOW, due_at=NOW + 60, error="the network is down", attempts=2)
    row = book.row(id_)
    assert (row.due_at, row.error, row.attempts, row.lease) == (NOW + 60, "the network is down", 2, None)
    assert (row.grant, row.checkpoint, row.sent) == ('{"ticket":"secret ticket"}', '{"offset":4}', 4)
    assert claimed(book, NOW + 59) == []
    assert claimed(book, NOW + 60) == [id_]


def test_what_waited_for_the_network_is_due_at_once(book: Book) -> None:
    away, art, fresh = book.named("a"), book.named("b", provider="art"), book.pending("c", NOW + 60)
    for id_ in (away, art):
        book.delay(WORKER, id_, NOW, due_at=NOW + 300, error="the network is down", attempts=8)
    assert book.make_failed_due([], NOW) == 0
    assert book.make_failed_due(["vod"], NOW) == 1
    assert [book.row(id_).due_at for id_ in (away, art, fresh)] == [NOW, NOW + 300, NOW + 60]
    assert (book.row(away).attempts, book.row(away).checkpoint) == (0, '{"offset":4}')


def test_by_another_clock_whatever_waits_is_due_at_once(book: Book) -> None:
    failed, fresh = book.named("a"), book.pending("b", NOW + 60)
    book.delay(WORKER, failed, NOW, due_at=NOW + 300, error="it was busy", attempts=8)
    book.runner.run(book.journal.errands.order("w", [Order("hook", {})], NOW + 300))
    book.make_due(None, NOW)
    assert [book.row(id_).due_at for id_ in (failed, fresh)] == [NOW, NOW]
    assert book.row(failed).attempts == 8
    assert [row.due_at for row in book.rows("SELECT due_at FROM errands")] == [NOW]


def test_an_order_counts_for_what_is_under_way_too(book: Book) -> None:
    id_ = book.leased()
    assert book.retry([id_], NOW) == 0
    row = book.row(id_)
    assert (row.by_hand, row.lease, row.state) == (True, WORKER, State.PENDING)


@pytest.mark.parametrize("kind", [Reject, Retry, Restart])
def test_whatever_a_vendor_says_can_be_noted_and_shown(book: Book, kind: type[Verdict]) -> None:
    id_ = book.leased()
    verdict = kind("it said: \x1b[2J\0 no\r\nC:\\x\ud800")
    book.delay(WORKER, id_, NOW, due_at=NOW, error=str(verdict), attempts=1)
    assert book.row(id_).error == "it said: \\x1b[2J\\x00 no C:\\x\\ud800"


def test_a_delay_may_drop_the_ticket_or_the_place(book: Book) -> None:
    one, other = book.named("a"), book.named("b")
    book.delay(WORKER, one, NOW, due_at=NOW, error="e", attempts=1, new_grant=True)
    book.delay(WORKER, other, NOW, due_at=NOW, error="e", attempts=1, from_start=True)
    assert (book.row(one).grant, book.row(one).checkpoint, book.row(one).sent) == (None, '{"offset":4}', 4)
    row = book.row(other)
    assert (row.checkpoint, row.sent, row.resent) == (None, 0, 4)
    assert row.grant is not None
    assert book.counters() == {"bytes_sent": 8, "bytes_resent": 4}


def test_a_stored_file_has_its_receipt_and_no_secret(book: Book) -> None:
    id_ = book.named(now=NOW)
    receipt = Receipt("final/key", "etag", "http://x/y", "md5", {"vid": "7", "名": "值"})
    book.store(WORKER, id_, NOW + 1, receipt=receipt, digest="xxh3:ab", more=6, resent=1)
    row = book.row(id_)
    assert (row.state, row.key, row.digest) == ("stored", "final/key", "xxh3:ab")
    assert (row.sent, row.resent, row.grant, row.checkpoint) == (10, 1, None, None)
    assert book.counters() == {"bytes_sent": 10, "bytes_resent": 1}
    book.release(WORKER, id_)
    (job,) = book.claim(WORKER, NOW + 1, 1)
    assert job.receipt == receipt


def test_a_follow_up_goes_on_from_its_note(book: Book) -> None:
    id_ = book.stored(now=NOW)
    one, other = (Receipt("k", facts={"task": task}) for task in "12")
    book.note(WORKER, id_, NOW, receipt=one, due_at=NOW + 5, error="not yet")
    assert claimed(book, NOW + 4) == []
    (job,) = book.claim(WORKER, NOW + 5, 1)
    assert (job.state, job.receipt, job.error, job.attempts) == (State.STORED, one, "not yet", 1)
    book.note(WORKER, id_, NOW, receipt=other, due_at=NOW + 5, error=None)
    (job,) = book.claim(WORKER, NOW + 5, 1)
    assert (job.receipt, job.error, job.attempts) == (other, None, 2)


def test_a_file_that_was_stored_in_vain_begins_anew_in_one_commit(book: Book) -> None:
    id_ = book.stored(now=NOW)
    seen: list[int] = []
    event.listen(book.engine, "commit", lambda connection: seen.append(1))
    book.resend(WORKER, id_, NOW + 9, due_at=NOW + 9, error="too late")
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
        held = book.store(WORKER, id_, NOW, receipt=receipt, digest=digest, more=0, resent=0, given="album")
        assert (held and held.place) == place
        assert book.row(id_).state == ("pending" if place else "stored")


def test_a_job_that_cannot_be_catalogued_is_not_done(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    id_ = book.stored(now=NOW)

    def broken(*_values: object, **_named: object) -> None:
        raise RuntimeError("no entry")

    monkeypatch.setattr(book.journal.entries, "add", broken)
    with pytest.raises(RuntimeError):
        book.finish(WORKER, id_, NOW, receipt=Receipt("k"))
    assert book.row(id_).state == "stored"
    assert book.catalog.history() == []


def test_no_ticket_is_left_in_the_file_once_it_is_closed(tmp_path: Path) -> None:
    """SQLite overwrites what is cleared, and not what it leaves behind in a page when rows move to another one."""
    numbers = random.Random(2)
    with Book(in_file(tmp_path)) as book:
        for turn in range(4):
            ids = [book.pending(f"f{numbers.randrange(7)}/{turn} {number}", NOW) for number in range(60)]
            book.claim(WORKER, NOW, 1000)
            numbers.shuffle(ids)
            for id_ in ids:
                book.name(WORKER, id_, NOW, key=f"{id_}", grant="ticket " * numbers.choice([20, 50, 70, 100]))
            for id_ in ids:
                receipt = Receipt(f"key of {id_}", facts={"x": "y" * numbers.randrange(200)})
                book.store(WORKER, id_, NOW, receipt=receipt, digest="d", more=1, resent=0)
                book.finish(WORKER, id_, NOW, receipt=receipt)
    assert b"ticket " not in (tmp_path / "journal.db").read_bytes()


def test_no_ticket_is_left_of_what_a_killed_daemon_was_about_either(tmp_path: Path) -> None:
    numbers = random.Random(2)
    url = in_file(tmp_path)
    for turn in range(2):
        with Book(url) as killed:
            ids = [killed.pending(f"f{numbers.randrange(7)}/{turn} {number}", NOW) for number in range(60)]
            killed.claim(WORKER, NOW, 1000)
            numbers.shuffle(ids)
            for id_ in ids:
                killed.name(WORKER, id_, NOW, key=f"{id_}", grant="ticket " * numbers.choice([20, 50, 70, 100]))
            killed.writer.needs_scrub = False  # it does not come to that
        with Book(url) as book:
            assert book.release_all() == len(ids)
            book.claim(WORKER, NOW, 1000)
            for id_ in ids:
                receipt = Receipt(f"key of {id_}", facts={"x": "y" * numbers.randrange(200)})
                book.store(WORKER, id_, NOW, receipt=receipt, digest="d", more=1, resent=0)
                book.finish(WORKER, id_, NOW, receipt=receipt)
    assert b"ticket " not in (tmp_path / "journal.db").read_bytes()


def test_a_rejected_job_says_why_and_keeps_no_secret(book: Book) -> None:
    id_ = book.named()
    book.reject(WORKER, id_, NOW, error="电影 is too large")
    row = book.row(id_)
    assert (row.state, row.error, row.grant, row.checkpoint, row.lease) == (
        "rejected", "电影 is too large", None, None, None,
    )  # fmt: skip


def test_a_stored_file_that_is_refused_makes_room_for_its_newer_version(book: Book) -> None:
    older = book.stored(version=1)
    newer = book.pending(version=2)
    assert not book.reject(WORKER, older, NOW, error="the form refuses the record")
    row = book.row(older)
    assert (row.state, row.error, row.lease, row.receipt) == ("superseded", REPLACED, None, None)
    assert states(book)[newer] == "pending"


def test_a_superseded_job_says_why_and_keeps_no_secret(book: Book) -> None:
    id_ = book.named()
    book.supersede(WORKER, id_, NOW, reason=GONE)
    row = book.row(id_)
    assert (row.state, row.error, row.grant, row.checkpoint, row.lease) == ("superseded", GONE, None, None, None)


def test_what_came_to_nothing_is_dropped_after_a_month_unless_it_says_something(book: Book) -> None:
    old, late = NOW - OUTLIVED - 1, NOW - OUTLIVED + 1
    ends = {"gone": (GONE, old), "replaced": (REPLACED, old), "asked not to": (FORGOTTEN, old), "lately": (GONE, late)}
    for name, (reason, when) in ends.items():
        book.supersede(WORKER, book.named(name, old), when, reason=reason)
    book.done("done", old)
    book.pending("waits", old)
    book.tidy(NOW)
    left = {"asked not to", "lately", "done", "waits"}
    assert {row.name.decode() for row in book.rows("SELECT name FROM jobs")} == left
    book.supersede(WORKER, book.named("later", old), old, reason=GONE)
    book.tidy(NOW + DAY - 1)
    assert len(book.rows("SELECT name FROM jobs")) == 5
    book.tidy(NOW + DAY)
    assert {row.name.decode() for row in book.rows("SELECT name FROM jobs")} == left - {"lately"}


CALLS: dict[Event, Callable[[Book, str, int], Any]] = {
    Event.NAME: lambda book, worker, id_: book.name(worker, id_, NOW, key="stolen", grant="g"),
    Event.ADVANCE: lambda book, worker, id_: book.advance(worker, id_, NOW, checkpoint="c", sent=9, more=5, resent=5),
    Event.DELAY: lambda book, worker, id_: book.delay(worker, id_, NOW, due_at=1, error="e", attempts=1, from_start=True),
    Event.STORE: lambda book, worker, id_: book.store(worker, id_, NOW, receipt=Receipt("r"), digest="d", more=1, resent=1),
    Event.NOTE: lambda book, worker, id_: book.note(worker, id_, NOW, receipt=Receipt("n"), due_at=1, error="e"),
    Event.RESEND: lambda book, worker, id_: book.resend(worker, id_, NOW, due_at=NOW, error="e"),
    Event.FINISH: lambda book, worker, id_: book.finish(worker, id_, NOW, receipt=Receipt("r")),
    Event.SUPERSEDE: lambda book, worker, id_: book.supersede(worker, id_, NOW, reason=GONE),
    Event.REJECT: lambda book, worker, id_: book.reject(worker, id_, NOW, error="e"),
}  # fmt: skip


def everything(book: Book) -> list[Any]:
    return [book.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in ("jobs", "entries", "counters")]


@pytest.mark.parametrize("event", CALLS)
def test_who_has_lost_his_lease_changes_nothing(book: Book, event: Event) -> None:
    make = book.stored if event in {Event.NOTE, Event.RESEND, Event.FINISH} else book.named
    taken, free, ended = make("a"), make("b"), make("c")
    book.release(WORKER, free)
    book.run(
        lambda connection: connection.exec_driver_sql(f"UPDATE jobs SET state = 'done' WHERE id = {ended}") and None
    )
    before = everything(book)
    for worker, id_ in (("thief", taken), (WORKER, free), (WORKER, ended), (WORKER, 12345)):
        with pytest.raises(LostLease, match=rf"^job {id_} is no longer held by {worker}$"):
            CALLS[event](book, worker, id_)
    assert everything(book) == before
    CALLS[event](book, WORKER, taken)
    assert everything(book) != before


@pytest.mark.parametrize("event", CALLS)
def test_an_event_holds_in_its_states_only(book: Book, event: Event) -> None:
    for state in State:
        id_ = book.leased(f"in {state}")
        book.run(
            lambda connection, state=state, id_=id_: (
                connection.exec_driver_sql(f"UPDATE jobs SET state = '{state}' WHERE id = {id_}") and None
            )
        )
        if state in sources(event):
            CALLS[event](book, WORKER, id_)
        else:
            with pytest.raises(LostLease):
                CALLS[event](book, WORKER, id_)


def test_every_event_of_a_worker_is_tried_here() -> None:
    assert set(CALLS) == set(Event) - {Event.RETRY}


# Bookkeeping


def test_counters_add_up_and_skip_nothing(book: Book) -> None:
    for _ in range(3):
        book.count(grants_requested=1, bytes_sent=2**40)
    book.count(grants_requested=0)
    assert book.counters() == {"grants_requested": 3, "bytes_sent": 3 * 2**40}


def test_jobs_that_need_no_more_work_are_settled(book: Book) -> None:
    pending, stored, done = book.pending("a"), book.stored("b"), book.done("c")
    rejected = book.leased("d")
    book.reject(WORKER, rejected, NOW, error="no")
    ids = [pending, stored, done, rejected]
    assert {job.id for job in book.ended(ids)} == {done, rejected}
    assert book.ended([pending]) == book.ended([]) == []


def test_many_workers_at_once_never_hold_one_job(database: URL) -> None:
    """The journal's own thread orders them on SQLite; on PostgreSQL they may be in many processes."""
    many = 4 if database.get_backend_name() == "postgresql" else 1
    books = [Book(database) for _ in range(many)]
    try:
        books[0].enqueue([file(f"{number}") for number in range(60)], NOW)

        async def claim(book: Book, worker: str) -> list[int]:
            taken: list[int] = []
            while found := await book.journal.claim(worker, NOW, 3):
                taken += [job.id for job in found]
            return taken

        async def all_of_them() -> list[list[int]]:
            return await asyncio.gather(*(claim(book, f"w{n}{m}") for n, book in enumerate(books) for m in range(4)))

        taken = [id_ for ids in asyncio.run(all_of_them()) for id_ in ids]
        assert len(taken) == len(set(taken)) == 60
    finally:
        for book in books:
            book.close()


def test_what_a_person_ordered_comes_first_then_what_ends_first(book: Book) -> None:
    waiting, late, soon, ordered = (book.pending(f"{number}", now=float(number)) for number in range(4))
    for job, until in ((late, 900.0), (soon, 800.0)):
        assert claimed(book, limit=4)
        book.name(WORKER, job, NOW, key=f"k{job}", grant="{}", grant_until=until)
        for each in (waiting, late, soon, ordered):
            book.release(WORKER, each)
    book.retry([ordered], NOW)
    assert [claimed(book, limit=1) for _ in range(4)] == [[ordered], [soon], [late], [waiting]]


def test_small_files_can_be_asked_for_alone_and_so_can_some_jobs(book: Book) -> None:
    large = book.pending("large", size=100)
    small = book.pending("small", size=10)
    assert [job.id for job in book.claim(WORKER, NOW, 9, only=[large], size_max=99)] == []
    assert [job.id for job in book.claim(WORKER, NOW, 9, size_max=99)] == [small]
    assert [job.id for job in book.claim(WORKER, NOW, 9, only=[large, small])] == [large]


def test_a_pause_is_kept_until_it_is_ended(book: Book) -> None:
    async def kept() -> list[dict[str, float | None]]:
        pauses = book.journal.pauses
        await pauses.begin("vod", None)
        await pauses.begin("", 50.0)
        await pauses.begin("vod", 90.0)
        both = await pauses.all()
        await pauses.end("vod")
        one = await pauses.all()
        await pauses.end(None)
        return [both, one, await pauses.all()]

    assert book.runner.run(kept()) == [{"vod": 90.0, "": 50.0}, {"": 50.0}, {}]


def test_what_was_sent_of_a_version_that_is_no_more_was_sent_in_vain(book: Book) -> None:
    changed = book.leased("changed", NOW)
    book.advance(WORKER, changed, NOW, checkpoint="1", sent=4, more=4, resent=0)
    book.supersede(WORKER, changed, NOW, reason=REPLACED, resent=2)
    assert book.counters() == {"bytes_sent": 4, "bytes_resent": 6}
    waits = book.leased("waits", NOW)
    book.advance(WORKER, waits, NOW, checkpoint="1", sent=3, more=3, resent=0)
    book.delay(WORKER, waits, NOW, due_at=NOW + 5, error="away", attempts=1)
    book.pending("waits", NOW + 1, version=2)
    assert states(book)[waits] == "superseded"
    assert book.counters() == {"bytes_sent": 7, "bytes_resent": 9}


def test_what_was_sent_in_vain_is_counted_with_whoever_ends_the_attempt(book: Book) -> None:
    id_ = book.named()
    book.delay(WORKER, id_, NOW, due_at=NOW, error="away", attempts=1, resent=3)
    assert claimed(book) == [id_]
    book.release(WORKER, id_, resent=2)
    assert claimed(book) == [id_]
    book.delay(WORKER, id_, NOW, due_at=NOW, error="gone", attempts=2, from_start=True, resent=1)
    assert book.row(id_).resent == 3 + 2 + 4 + 1
    assert book.counters()["bytes_resent"] == 10


def test_who_takes_over_from_one_that_was_cut_off_is_told(book: Book) -> None:
    id_ = book.named()
    assert book.release_all() == 1
    (job,) = book.claim(WORKER, NOW, 1)
    assert job.cut_off
    book.release(WORKER, id_)
    (job,) = book.claim(WORKER, NOW, 1)
    assert not job.cut_off


# A power cut


def test_what_cannot_be_found_out_again_is_on_the_disk_before_it_counts(sqlite_book: Book) -> None:
    """A power cut takes back what is not: a key that is in use, a receipt, a file that was taken away, a person's order."""
    book, levels = sqlite_book, []
    finish = book.writer.before_commit
    assert finish is not None

    def noted(connection: Connection) -> None:
        finish(connection)
        levels.append(connection.exec_driver_sql("PRAGMA synchronous").scalar())

    def level(step: Callable[[], Any]) -> int:
        levels.clear()
        step()
        (one,) = levels
        return int(one)

    run, journal, orders = book.runner.run, book.journal, [Order("after", {"do": "delete"})]
    book.writer.before_commit = noted
    id_, receipt = book.leased("a", NOW), Receipt("key")
    steps: dict[str, Callable[[], Any]] = {
        "put": lambda: book.enqueue([file("b")], NOW),
        "scan": lambda: book.enqueue([file("c")], NOW, durable=False),
        "name": lambda: book.name(WORKER, id_, NOW, key="key", grant=None),
        "advance": lambda: book.advance(WORKER, id_, NOW, checkpoint="{}", sent=1, more=1, resent=0),
        "store": lambda: book.store(WORKER, id_, NOW, receipt=receipt, digest="d", more=9, resent=0),
        "note": lambda: book.note(WORKER, id_, NOW, receipt=receipt, due_at=NOW, error=None),
        "claim": lambda: book.claim(WORKER, NOW, 1000),
        "finish": lambda: book.finish(WORKER, id_, NOW, receipt=receipt, orders=orders),
        "order": lambda: run(journal.errands.order("w", [Order("on_done", {})], NOW)),
        "retry": lambda: book.retry(None, NOW),
        "forget": lambda: book.forget([id_ + 1], NOW),
        "pause": lambda: run(journal.pauses.begin("w", None)),
        "resume": lambda: run(journal.pauses.end("w")),
        "amend": lambda: book.amend(1, NOW, {"fact": "told"}),
    }
    found = {name: level(step) for name, step in steps.items()}
    (errand,) = [one for one in run(journal.errands.due(NOW, 9, (), ())) if one.job is not None]
    found["taken away"] = level(lambda: run(journal.errands.done(errand, taken_away=True, deleted=True)))
    sent = book.stored("d", NOW)
    found["resend"] = level(lambda: book.resend(WORKER, sent, NOW, due_at=NOW, error="it is gone"))
    assert {name for name, one in found.items() if one != FULL} == {"scan", "advance", "claim"}
