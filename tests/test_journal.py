"""Jobs, on each database there is: who gets which, and what is kept of them."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Connection

import journals
from dumbwaiter.journal import DAY, OUTLIVED
from dumbwaiter.lifecycle import FORGOTTEN, GONE, REPLACED
from dumbwaiter.model import Receipt, State
from dumbwaiter.store.errands import Order
from dumbwaiter.store.lease import LEASE, LostLease
from journals import WORKER, Book, file, in_file

database = journals.database
postgres = journals.postgres
book, sqlite_book = journals.book, journals.sqlite_book
NOW = 1000.0
FULL = 2  # SQLite's number for a commit that waits for the disk


# Claim


def test_a_job_is_leased_to_one_worker(book: Book) -> None:
    ids = book.enqueue([file("a"), file("b"), file("c")], NOW)
    assert book.claimed(limit=2, worker="one") == ids[:2]
    assert book.claimed(worker="two") == ids[2:]
    assert book.claimed(worker="three") == []
    assert [book.row(id_).lease for id_ in ids] == ["one", "one", "two"]


def test_what_is_due_longest_is_claimed_first_and_nothing_before_its_time(book: Book) -> None:
    late, early, never = (book.pending(name, now) for name, now in (("a", 30.0), ("b", 10.0), ("c", 50.0)))
    assert book.claimed(9.0) == []
    assert book.claimed(30.0) == [early, late]
    assert book.claimed(49.9) == []
    assert book.claimed(50.0) == [never]


def test_no_more_are_claimed_than_there_is_room_for_whatever_their_turn(book: Book) -> None:
    begun = book.named("a", NOW)
    book.release(WORKER, begun)
    ordered, *due = book.enqueue([file("b"), file("c"), file("d")], NOW)
    book.rows("UPDATE jobs SET by_hand = TRUE WHERE id = :id RETURNING id", id=ordered)
    book.rows("UPDATE jobs SET grant_until = 1 WHERE id = :id RETURNING id", id=begun)
    assert book.claimed(limit=3) == [ordered, begun, due[0]]
    assert book.claimed() == due[1:]


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
            lambda: book.lease(WORKER, one).propose(NOW, provider="vod", key="k", digest=None),
            lambda: book.lease(WORKER, one).name(NOW, key="k", grant=None),
            lambda: book.lease(WORKER, one).advance(NOW, checkpoint="{}", sent=4, more=4, resent=0),
            lambda: book.lease(WORKER, one).store(NOW, receipt=receipt, digest="xxh3:00", more=6, resent=0),
            lambda: book.lease(WORKER, one).finish(NOW, receipt=receipt),
        )
        == [{one}] * 5
    )
    assert told(lambda: book.lease(WORKER, two).delay(NOW, due_at=NOW, error="e", attempts=1)) == [{two}]
    assert told(lambda: book.claim(WORKER, NOW, 9), lambda: book.release(WORKER, two)) == [{two, three, four}, {two}]
    assert told(
        lambda: book.lease(WORKER, three).supersede(NOW, reason=GONE),
        lambda: book.lease(WORKER, four).reject(NOW, error="e"),
    ) == [{three}, {four}]
    book.journal.listen(None)
    assert told(lambda: book.claim(WORKER, NOW, 9)) == []


def test_equal_times_are_claimed_in_their_order(book: Book) -> None:
    ids = book.enqueue([file(f"{number}") for number in range(20)], NOW)
    assert book.claimed(limit=5) + book.claimed(limit=15) == ids


def test_no_job_of_a_paused_provider_is_claimed(book: Book) -> None:
    vod, art, news = (book.pending(provider, provider=provider) for provider in ("vod", "art", "news"))
    assert book.claimed(paused=("vod", "news")) == [art]
    assert book.claimed(paused=("vod",)) == [news]
    assert book.claimed() == [vod]


def test_only_open_jobs_are_claimed(book: Book) -> None:
    stored = book.stored("a", NOW)
    book.done("b", NOW)
    rejected = book.leased("c", NOW)
    book.lease(WORKER, rejected).reject(NOW, error="no")
    superseded = book.leased("d", NOW)
    book.lease(WORKER, superseded).supersede(NOW, reason=GONE)
    book.release(WORKER, stored)
    assert book.claimed() == [stored]


def test_a_lease_that_ran_out_is_anybodys(book: Book) -> None:
    id_ = book.leased(now=NOW, worker="dead")
    assert book.claimed(NOW + LEASE, worker="next") == []
    assert book.claimed(NOW + LEASE + 0.1, worker="next") == [id_]
    with pytest.raises(LostLease):
        book.lease("dead", id_).name(NOW, key="k", grant=None)


def test_nobody_takes_over_his_own_lease(book: Book) -> None:
    """A piece may take longer than a lease; whoever sends it is not to begin anew beside himself."""
    id_ = book.leased(now=NOW)
    assert book.claimed(NOW + 2 * LEASE) == []
    assert book.claimed(NOW + 2 * LEASE, worker="next") == [id_]


def test_a_released_job_is_as_it_was(book: Book) -> None:
    id_ = book.named(now=NOW)
    before = book.row(id_)._asdict()
    book.release("somebody else", id_)
    assert book.row(id_)._asdict() == before
    book.release(WORKER, id_)
    assert book.row(id_)._asdict() == before | {"lease": None, "lease_until": None}
    assert book.claimed() == [id_]


def test_all_leases_of_an_installation_end_together(database: URL) -> None:
    with Book(database) as mine, Book(database, "beef") as other:
        ids = mine.enqueue([file("a"), file("b")], NOW)
        theirs = other.leased("c", NOW)
        mine.claimed()
        assert mine.release_all() == 2
        assert mine.claimed(worker="next") == ids
        assert other.row(theirs).lease == WORKER


def test_an_installation_sees_its_own_jobs_only(database: URL) -> None:
    with Book(database) as mine, Book(database, "beef") as other:
        id_ = mine.pending("a")
        assert other.enqueue([file("a")], NOW) != []
        assert mine.claimed() == [id_]
        assert len(other.claimed()) == 1
        assert other.claimed() == []
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
    assert book.claimed(20.0) == [art]
    assert book.next_due() == 50.0


# What changes many at once


def test_what_waited_for_the_network_is_due_at_once(book: Book) -> None:
    away, art, fresh = book.named("a"), book.named("b", provider="art"), book.pending("c", NOW + 60)
    for id_ in (away, art):
        book.lease(WORKER, id_).delay(NOW, due_at=NOW + 300, error="the network is down", attempts=8)
    assert book.make_failed_due([], NOW) == 0
    assert book.make_failed_due(["vod"], NOW) == 1
    assert [book.row(id_).due_at for id_ in (away, art, fresh)] == [NOW, NOW + 300, NOW + 60]
    assert (book.row(away).attempts, book.row(away).checkpoint) == (0, '{"offset":4}')


def test_by_another_clock_whatever_waits_is_due_at_once(book: Book) -> None:
    failed, fresh = book.named("a"), book.pending("b", NOW + 60)
    book.lease(WORKER, failed).delay(NOW, due_at=NOW + 300, error="it was busy", attempts=8)
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


def test_no_ticket_is_left_in_the_file_once_it_is_closed(tmp_path: Path) -> None:
    """SQLite overwrites what is cleared, and not what it leaves behind in a page when rows move to another one."""
    numbers = random.Random(2)
    with Book(in_file(tmp_path)) as book:
        for turn in range(4):
            ids = [book.pending(f"f{numbers.randrange(7)}/{turn} {number}", NOW) for number in range(60)]
            book.claim(WORKER, NOW, 1000)
            numbers.shuffle(ids)
            for id_ in ids:
                book.lease(WORKER, id_).name(NOW, key=f"{id_}", grant="ticket " * numbers.choice([20, 50, 70, 100]))
            for id_ in ids:
                receipt = Receipt(f"key of {id_}", facts={"x": "y" * numbers.randrange(200)})
                book.lease(WORKER, id_).store(NOW, receipt=receipt, digest="d", more=1, resent=0)
                book.lease(WORKER, id_).finish(NOW, receipt=receipt)
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
                killed.lease(WORKER, id_).name(NOW, key=f"{id_}", grant="ticket " * numbers.choice([20, 50, 70, 100]))
            killed.writer.needs_scrub = False  # it does not come to that
        with Book(url) as book:
            assert book.release_all() == len(ids)
            book.claim(WORKER, NOW, 1000)
            for id_ in ids:
                receipt = Receipt(f"key of {id_}", facts={"x": "y" * numbers.randrange(200)})
                book.lease(WORKER, id_).store(NOW, receipt=receipt, digest="d", more=1, resent=0)
                book.lease(WORKER, id_).finish(NOW, receipt=receipt)
    assert b"ticket " not in (tmp_path / "journal.db").read_bytes()


def test_what_came_to_nothing_is_dropped_after_a_month_unless_it_says_something(book: Book) -> None:
    old, late = NOW - OUTLIVED - 1, NOW - OUTLIVED + 1
    ends = {"gone": (GONE, old), "replaced": (REPLACED, old), "asked not to": (FORGOTTEN, old), "lately": (GONE, late)}
    for name, (reason, when) in ends.items():
        book.lease(WORKER, book.named(name, old)).supersede(when, reason=reason)
    book.done("done", old)
    book.pending("waits", old)
    book.tidy(NOW)
    left = {"asked not to", "lately", "done", "waits"}
    assert {row.name.decode() for row in book.rows("SELECT name FROM jobs")} == left
    book.lease(WORKER, book.named("later", old)).supersede(old, reason=GONE)
    book.tidy(NOW + DAY - 1)
    assert len(book.rows("SELECT name FROM jobs")) == 5
    book.tidy(NOW + DAY)
    assert {row.name.decode() for row in book.rows("SELECT name FROM jobs")} == left - {"lately"}


# Bookkeeping


def test_counters_add_up_and_skip_nothing(book: Book) -> None:
    for _ in range(3):
        book.count(grants_requested=1, bytes_sent=2**40)
    book.count(grants_requested=0)
    assert book.counters() == {"grants_requested": 3, "bytes_sent": 3 * 2**40}


def test_jobs_that_need_no_more_work_are_settled(book: Book) -> None:
    pending, stored, done = book.pending("a"), book.stored("b"), book.done("c")
    rejected = book.leased("d")
    book.lease(WORKER, rejected).reject(NOW, error="no")
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
        assert book.claimed(limit=4)
        book.lease(WORKER, job).name(NOW, key=f"k{job}", grant="{}", grant_until=until)
        for each in (waiting, late, soon, ordered):
            book.release(WORKER, each)
    book.retry([ordered], NOW)
    assert [book.claimed(limit=1) for _ in range(4)] == [[ordered], [soon], [late], [waiting]]


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
        "name": lambda: book.lease(WORKER, id_).name(NOW, key="key", grant=None),
        "advance": lambda: book.lease(WORKER, id_).advance(NOW, checkpoint="{}", sent=1, more=1, resent=0),
        "store": lambda: book.lease(WORKER, id_).store(NOW, receipt=receipt, digest="d", more=9, resent=0),
        "note": lambda: book.lease(WORKER, id_).note(NOW, receipt=receipt, due_at=NOW, error=None),
        "claim": lambda: book.claim(WORKER, NOW, 1000),
        "finish": lambda: book.lease(WORKER, id_).finish(NOW, receipt=receipt, orders=orders),
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
    found["resend"] = level(lambda: book.lease(WORKER, sent).resend(NOW, due_at=NOW, error="it is gone"))
    assert {name for name, one in found.items() if one != FULL} == {"scan", "advance", "claim"}
