"""Jobs, on each database there is; and a machine that drives them against a dictionary."""

import asyncio
import random
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from sqlalchemy import URL, Connection, event, select

import journals
from dumbwaiter import report
from dumbwaiter.arrivals import Candidate
from dumbwaiter.catalog import Catalog
from dumbwaiter.config import RESERVED
from dumbwaiter.errands import Order
from dumbwaiter.errors import Reject, Restart, Retry, Verdict
from dumbwaiter.folders import Known, Surveyed
from dumbwaiter.journal import DAY, LEASE, OUTLIVED, LostLease
from dumbwaiter.lifecycle import FORGOTTEN, GONE, REPLACED, UNASKED, Event, sources
from dumbwaiter.model import Entry, Job, Receipt, Stamp, State
from dumbwaiter.store.database import journal_url
from dumbwaiter.store.tables import jobs
from journals import WORKER, Book, file, in_file

database = journals.database
postgres = journals.postgres
book = journals.book
sqlite_book = journals.sqlite_book

NOW = 1000.0
RAW = b"raw \xff\x80 name".decode("utf-8", "surrogateescape")


def states(book: Book) -> dict[int, str]:
    return {row.id: row.state for row in book.rows("SELECT id, state FROM jobs ORDER BY id")}


def claimed(
    book: Book, now: float = NOW, limit: int = 100, worker: str = WORKER, paused: tuple[str, ...] = ()
) -> list[int]:
    return [job.id for job in book.claim(worker, now, limit, paused)]


# Enqueue


def test_a_new_version_is_a_pending_job_due_now(book: Book) -> None:
    (id_,) = book.enqueue([Candidate("w", "a/film.mov", "vod", Stamp(7, 10, 2, 3))], NOW)
    (job,) = book.claim(WORKER, NOW, 10)
    assert job == Job(
        id_, "w", "a/film.mov", "vod", Stamp(7, 10, 2, 3), State.PENDING, due_at=NOW, created_at=NOW, updated_at=NOW
    )


def test_the_same_version_makes_no_second_job(book: Book) -> None:
    first = book.enqueue([file("a"), file("b")], NOW)
    assert book.enqueue([file("a"), file("b"), file("c")], NOW + 1) != first
    assert book.enqueue([file("a"), file("a")], NOW + 2) == []
    assert len(states(book)) == 3


def test_jobs_are_told_of_in_the_order_they_are_asked_for_however_many(book: Book) -> None:
    ids = book.enqueue([file(f"f{number}") for number in range(report.LISTED + 5)], NOW)
    wanted = [ids[1], *reversed(ids), ids[1]]
    assert [job.id for job in report.jobs_by_id(book.engine, [*wanted, 10**6])] == wanted


@pytest.mark.parametrize("change", ["inode", "size", "mtime_ns", "ctime_ns"])
def test_each_part_of_a_stamp_makes_another_version(book: Book, change: str) -> None:
    one = file("a")
    other = one._replace(stamp=one.stamp._replace(**{change: 99}))
    ids = book.enqueue([one, other], NOW)
    assert states(book) == {ids[0]: "superseded", ids[1]: "pending"}


def test_an_older_version_that_nobody_works_on_is_superseded(book: Book) -> None:
    old = book.named("a", NOW)
    book.delay(WORKER, old, NOW, due_at=NOW + 5, error="later", attempts=1)
    other_path, other_provider, other_watch = (
        book.pending("b"),
        book.pending("a", provider="art"),
        book.pending("a", watch="v"),
    )
    new = book.pending("a", NOW + 10, version=2)
    assert states(book) == {
        old: "superseded",
        other_path: "pending",
        other_provider: "pending",
        other_watch: "pending",
        new: "pending",
    }
    row = book.row(old)
    assert (row.error, row.grant, row.checkpoint, row.updated_at) == (REPLACED, None, None, NOW + 10)


def test_a_rejected_version_is_superseded_by_a_newer_one(book: Book) -> None:
    old = book.leased("a", NOW)
    book.reject(WORKER, old, NOW, error="too large")
    new = book.pending("a", version=2)
    assert states(book) == {old: "superseded", new: "pending"}


def test_a_version_that_somebody_works_on_is_left_to_him(book: Book) -> None:
    old = book.leased("a", NOW)
    book.pending("a", NOW, version=2)
    assert states(book)[old] == "pending"
    book.name(WORKER, old, NOW, key="k", grant=None)


@pytest.mark.parametrize("end", ["stored", "done"])
def test_what_is_at_the_remote_is_never_superseded(book: Book, end: str) -> None:
    old = getattr(book, end)("a", NOW)
    book.release(WORKER, old)
    book.pending("a", version=2)
    assert states(book)[old] == end


def test_a_version_that_is_back_comes_back_to_life_unless_a_person_or_the_provider_ended_it(book: Book) -> None:
    ends: dict[str, Callable[[int], Any]] = {
        "gone": lambda id_: book.supersede(WORKER, id_, NOW, reason=GONE),
        "replaced": lambda id_: book.supersede(WORKER, id_, NOW, reason=REPLACED),
        "forgotten": lambda id_: book.forget([id_], NOW),
        "rejected": lambda id_: book.reject(WORKER, id_, NOW, error="never"),
    }
    ids = {}
    for name, end in ends.items():
        ids[name] = book.named(name, NOW)
        end(ids[name])
    ids["done"] = book.done("done", NOW)
    before = states(book)
    made = book.enqueue([file(name) for name in ids], NOW + 50)
    assert min(made) > ids["done"]  # the newest have the highest numbers
    assert states(book) == {
        **{id_: state for id_, state in before.items() if id_ not in {ids["gone"], ids["replaced"]}},
        **dict.fromkeys(made, "pending"),
    }
    found = book.claim(WORKER, NOW + 50, 10)
    assert [(job.path, job.due_at, job.proposed, job.grant, job.checkpoint) for job in found] == [
        ("gone", NOW + 50, None, None, None),
        ("replaced", NOW + 50, None, None, None),
    ]


def test_what_the_configuration_asks_for_no_more_ends_and_is_as_new_when_it_does_again(book: Book) -> None:
    away = book.named("sent by half", NOW)
    refused = book.leased("refused", NOW)
    book.reject(WORKER, refused, NOW, error="never")
    elsewhere = book.pending("a", watch="other")
    stored, done = book.stored("stored", NOW), book.done("done", NOW)
    kept = book.pending("a", watch="kept"), book.pending("home/a", watch=RESERVED), book.pending("b", watch="new")
    book.survey("w", [Surveyed("", 4, b"digest")])
    book.survey("kept", [Surveyed("", 1, b"digest")])
    book.release_all()
    assert book.end_unwanted({"w": "art", "kept": "vod", "new": "vod"}, ["vod", "art"], NOW + 1) == 3
    assert states(book) == {
        **dict.fromkeys((away, refused, elsewhere), "superseded"),
        **dict.fromkeys(kept, "pending"),
        stored: "stored",
        done: "done",
    }
    row = book.row(away)
    assert (row.error, row.grant, row.checkpoint) == (UNASKED, None, None)
    assert [row.parent for row in book.rows("SELECT parent FROM surveyed")] == [b"kept"]
    known = book.journal.folders.known("w", "", "vod")
    assert known.keys() == {"stored", "done"}
    again = book.enqueue([file(name) for name in ("sent by half", "refused", "stored", "done")], NOW + 2)
    assert [(job.path, job.sent) for job in report.jobs_by_id(book.engine, again)] == [
        ("sent by half", 0),
        ("refused", 0),
    ]
    assert book.end_unwanted({"w": "vod", "kept": "vod", "new": "vod"}, ["vod", "art"], NOW + 3) == 0


def test_a_version_that_is_done_and_back_takes_its_place_again(book: Book) -> None:
    """Two folders were exchanged, and exchanged back: no stamp of a file in them changed."""
    one = book.done("a/f", NOW)
    assert book.enqueue([file("a/f")], NOW) == []
    book.done("a/f", NOW + 1, version=2)
    (again,) = book.enqueue([file("a/f")], NOW + 2)
    assert again > one
    assert list(states(book).values()) == ["done", "pending"]
    assert book.enqueue([file("a/f")], NOW + 3) == []


def test_names_that_are_no_utf8_come_back_as_they_were(book: Book) -> None:
    path = f"{RAW}/a b/{RAW}"
    id_ = book.pending(path)
    assert book.folders.known("w", f"{RAW}/a b", "vod") == {RAW: Known(id_, Stamp(7, 10, 1, 1), State.PENDING, None)}
    (job,) = book.claim(WORKER, NOW, 10)
    assert job.path == path
    assert book.enqueue([file(path)], NOW) == []


@pytest.mark.parametrize("when", [2**70, -(2**70)])
def test_a_date_beyond_what_a_database_holds_is_the_nearest_that_it_does(book: Book, when: int) -> None:
    """A tmpfs takes the year 1200; one such file must not keep the others from the journal."""
    stamp = Stamp.numbered(7, 10, when, when)
    book.enqueue([Candidate("w", "a", "vod", stamp)], NOW)
    assert book.claim(WORKER, NOW, 1)[0].stamp == stamp


def test_a_version_beyond_2_gib_and_the_year_2200_is_held(book: Book) -> None:
    stamp = Stamp(2**63 - 1, 2**53, 2**62, 2**63 - 1)
    book.enqueue([Candidate("w", "a", "vod", stamp)], NOW)
    assert book.claim(WORKER, NOW, 1)[0].stamp == stamp


# Known


def test_the_latest_version_of_each_file_of_a_folder_is_known(book: Book) -> None:
    book.pending("f/a")
    newest = book.pending("f/a", version=2)
    done = book.done("f/b", NOW)
    book.pending("f/deep/c")
    book.pending("other")
    book.pending("f/a", watch="v")
    assert book.folders.known("w", "f", "vod") == {
        "a": Known(newest, Stamp(7, 10, 2, 2), State.PENDING, None),
        "b": Known(done, Stamp(7, 10, 1, 1), State.DONE, "xxh3:00"),
    }
    assert set(book.folders.known("w", "f", "vod", ["b", "c"])) == {"b"}
    assert set(book.folders.known("w", "", "vod")) == {"other"}
    assert book.folders.known("w", "nothing", "vod") == {}


def test_a_touched_file_keeps_its_job_and_its_entry(book: Book) -> None:
    id_ = book.done("a", NOW)
    other = book.done("b", NOW)
    touched = Stamp(7, 10, 1, 999)
    book.touch(id_, touched, NOW + 5)
    assert book.folders.known("w", "", "vod")["a"].stamp == touched
    assert book.enqueue([Candidate("w", "a", "vod", touched)], NOW) == []
    stamps = {entry.path: entry.stamp for entry in book.catalog.history()}
    assert stamps == {"a": touched, "b": Stamp(7, 10, 1, 1)}
    assert book.row(other).ctime_ns == 1


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


def test_the_files_of_a_folder_are_told_by_what_was_noted_of_them(book: Book) -> None:
    def catalogued(path: str, group: str, **candidate: Any) -> None:
        id_ = book.stored(path, NOW, **candidate)
        book.finish(WORKER, id_, NOW, receipt=Receipt(f"key of {id_}", facts={"group": group, "n": "1"}))

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
    book.finish(WORKER, id_, NOW + 9, receipt=Receipt("k/1", "etag", "http://x/1", "size", {"vid": "7"}))
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
    book.finish(WORKER, id_, NOW, receipt=Receipt("k/1"), results=[made])
    found = {entry.path: (entry.key, entry.size) for entry in book.catalog.history()}
    assert found == {"a/photo.jpg": ("k/1", 10), "a/photo.watermark.jpg": ("k/2", 77)}
    plain = book.stored("a/README", NOW)
    book.finish(WORKER, plain, NOW, receipt=Receipt("k/3"), results=[Receipt("k/4", label="small")])
    assert book.catalog.find("files/w/a/README.small") is not None


def test_a_result_leaves_with_the_version_that_it_was_made_of(book: Book) -> None:
    id_ = book.stored("a/photo.jpg", NOW)
    made = [Receipt(f"k/{label}", facts={"of": "k/1"}, label=label, size=7) for label in ("small", "large")]
    book.finish(WORKER, id_, NOW, receipt=Receipt("k/1"), results=made)
    book.done("a/photo.other.jpg", NOW, Receipt("k/own"))
    id_ = book.stored("a/photo.jpg", NOW + 1, version=2)
    small = Receipt("k/new small", facts={"of": "k/2"}, label="small", size=7)
    book.finish(WORKER, id_, NOW + 1, receipt=Receipt("k/2"), results=[small])
    assert shown(book) == {"photo.jpg": "k/2", "photo.small.jpg": "k/new small", "photo.other.jpg": "k/own"}


@pytest.mark.parametrize("suffix", [".jpg", ""])
@pytest.mark.parametrize("first", ["own", "result"])
def test_a_file_of_ones_own_keeps_its_name_before_a_result(book: Book, first: str, suffix: str) -> None:
    def own() -> None:
        book.done(f"a/photo.watermark{suffix}", NOW, Receipt("k/own"))

    def result() -> None:
        id_ = book.stored(f"a/photo{suffix}", NOW)
        book.finish(WORKER, id_, NOW, receipt=Receipt("k/1"), results=[Receipt("k/2", label="watermark", size=77)])

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
    book.finish(WORKER, old, NOW + 2, receipt=Receipt("k/old"), results=[made], orders=orders)
    assert shown(book) == {"photo.jpg": "k/new"}
    assert {entry.key for entry in book.catalog.history()} == {"k/old", "k/small", "k/new"}
    assert book.rows("SELECT * FROM errands") == []  # who hears of both last hears of the newest
    book.done("a/photo.jpg", NOW - backwards, Receipt("k/newest"), version=3)
    assert shown(book) == {"photo.jpg": "k/newest"}


def test_an_older_version_under_the_same_key_does_not_hide_the_newer(book: Book) -> None:
    first = book.stored("a/x", NOW + 1, Receipt("k"))
    book.done("a/x", NOW + 2, Receipt("k"), version=2)
    book.finish(WORKER, first, NOW + 3, receipt=Receipt("k"))
    assert shown(book) == {"x": "k"}


def test_a_version_that_came_back_keeps_its_place(book: Book) -> None:
    back = book.named("a/f", NOW)
    book.supersede(WORKER, back, NOW, reason=GONE)
    between = book.stored("a/f", NOW + 1, version=2)
    book.done("a/f", NOW + 2, Receipt("k/back"))
    book.finish(WORKER, between, NOW + 3, receipt=Receipt("k/between"))
    assert shown(book) == {"f": "k/back"}


def test_an_older_version_that_is_refused_after_a_newer_one_came_needs_nobody(book: Book) -> None:
    old = book.leased("a/f", NOW)
    book.leased("a/f", NOW + 1, version=2)
    assert book.reject(WORKER, old, NOW + 2, error="no", orders=[Order("on_failed", {})]) is False
    row = book.row(old)
    assert (row.state, row.error, row.lease) == ("superseded", REPLACED, None)
    assert book.rows("SELECT * FROM errands") == []


def test_a_touched_file_meets_a_job_of_its_stamp(book: Book) -> None:
    """It was stored when chmod made it another version; that one was gone for a moment, or is on its way."""
    touched = Stamp(7, 10, 1, 2)
    one = book.stored("a/f", NOW)
    (two,) = book.enqueue([Candidate("w", "a/f", "vod", touched)], NOW + 1)
    book.claim(WORKER, NOW + 1, 10)
    book.finish(WORKER, one, NOW + 2, receipt=Receipt("k"))
    book.touch(one, touched, NOW + 3)
    assert states(book) == {one: "done", two: "pending"}
    book.supersede(WORKER, two, NOW + 3, reason=GONE)
    book.touch(one, touched, NOW + 4)
    assert states(book) == {one: "done"}
    assert book.row(one).ctime_ns == 2


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


def test_a_rejected_job_says_why_and_keeps_no_secret(book: Book) -> None:
    id_ = book.named()
    book.reject(WORKER, id_, NOW, error="电影 is too large")
    row = book.row(id_)
    assert (row.state, row.error, row.grant, row.checkpoint, row.lease) == (
        "rejected", "电影 is too large", None, None, None,
    )  # fmt: skip


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


# People


def test_a_retry_makes_rejected_and_waiting_jobs_due(book: Book) -> None:
    rejected = book.leased("a", NOW)
    book.reject(WORKER, rejected, NOW, error="no")
    waiting = book.named("b", NOW)
    book.delay(WORKER, waiting, NOW, due_at=NOW + 999, error="later", attempts=7)
    stored = book.stored("c", NOW)
    book.delay(WORKER, stored, NOW, due_at=NOW + 999, error="later", attempts=7)
    busy = book.leased("d", NOW)
    book.release(WORKER, rejected)
    done = book.done("e", NOW)
    before = states(book)
    assert book.retry(None, NOW + 1) == 3
    assert states(book) == before | {rejected: "pending"}
    for id_, attempts in ((rejected, 0), (waiting, 0), (stored, 7)):
        row = book.row(id_)
        assert (row.due_at, row.attempts, row.error) == (NOW + 1, attempts, None)
    assert book.row(waiting).checkpoint is not None
    assert book.row(busy).lease == WORKER
    assert book.row(done).state == "done"


def test_a_retry_of_what_needs_a_person_leaves_what_waits(book: Book) -> None:
    rejected, waiting = book.leased("a", NOW), book.leased("b", NOW)
    book.reject(WORKER, rejected, NOW, error="no")
    book.delay(WORKER, waiting, NOW, due_at=NOW + 999, error="later", attempts=7)
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
    id_ = book.named("a", NOW)
    book.propose(WORKER, id_, NOW, provider="vod", key="mine", digest=None)
    book.advance(WORKER, id_, NOW, checkpoint="c", sent=4, more=4, resent=0)
    book.reject(WORKER, id_, NOW, error="no")
    before = book.counters().get("bytes_resent", 0)
    assert book.retry([id_], NOW) == 1
    row = book.row(id_)
    assert (row.key, row.proposed, row.sent, row.resent) == (None, None, 0, 4)
    assert book.counters()["bytes_resent"] == before + 4


def test_what_waits_for_a_time_of_another_clock_is_due(book: Book) -> None:
    near, far = book.leased("a", NOW), book.leased("b", NOW)
    for id_, due_at in ((near, NOW + 300), (far, NOW + 1e7)):
        book.delay(WORKER, id_, NOW, due_at=due_at, error="x", attempts=1)
    book.bring_forward(NOW, NOW + 3600)
    assert [book.row(id_).due_at for id_ in (near, far)] == [NOW + 300, NOW]


def test_whoever_may_replace_waits_for_who_is_about_to(book: Book) -> None:
    """What is under way would take the place of what came meanwhile, and that may be the last copy by then."""
    key: Any = {"provider": "vod", "key": "film.mov"}
    first = book.leased("one/film.mov", NOW)
    assert book.propose(WORKER, first, NOW, digest=None, **key) is None
    book.store(WORKER, first, NOW, receipt=Receipt("film.mov"), digest="X", more=0, resent=0)
    book.finish(WORKER, first, NOW, receipt=Receipt("film.mov"))
    second, third = book.leased("two/film.mov", NOW), book.leased("three/film.mov", NOW)
    held = book.propose(WORKER, second, NOW, digest="Y", **key)
    assert held is not None
    assert held.done
    assert book.propose(WORKER, second, NOW, digest="Y", anyway=True, **key) is None
    for digest in ("Z", "X"):  # that of what is there helps nothing: it is about to go
        held = book.propose(WORKER, third, NOW, digest=digest, anyway=True, **key)
        assert held is not None
        assert (held.place, held.done) == ("w/two/film.mov", False)


def test_two_installations_settle_on_one_key_only_once(postgres: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each asks who has it before the other has said that it takes it."""
    with journals.another(postgres) as url, Book(url, "one") as one, Book(url, "two") as two:
        ids = [book.leased("a/film.mov", watch=book.host) for book in (one, two)]
        meet = threading.Barrier(2)
        ask = one.journal._holder

        def asked(*values: Any) -> Any:
            found = ask(*values)
            with suppress(threading.BrokenBarrierError):
                meet.wait(1)  # where the other one has to wait, it never comes
            return found

        for book in (one, two):
            monkeypatch.setattr(book.journal, "_holder", asked)
        with ThreadPoolExecutor(2) as pool:
            settle = lambda book, id_: book.propose(WORKER, id_, NOW, provider="vod", key="film.mov", digest=None)  # noqa: E731
            found = list(pool.map(settle, (one, two), ids))
        assert found.count(None) == 1


def test_a_retry_is_for_the_named_jobs_only(book: Book) -> None:
    ids = [book.leased(name, NOW) for name in "abc"]
    for id_ in ids:
        book.reject(WORKER, id_, NOW, error="no")
    assert book.retry([], NOW) == 0
    assert book.retry([ids[0], ids[2], 999], NOW) == 2
    assert list(states(book).values()) == ["pending", "rejected", "pending"]


def test_a_forgotten_job_is_taken_from_who_works_on_it_for_good(book: Book) -> None:
    id_ = book.named()
    assert book.forget([id_, 999], NOW) == 1
    row = book.row(id_)
    assert (row.state, row.error, row.grant, row.checkpoint, row.lease) == (
        "superseded", FORGOTTEN, None, None, None,
    )  # fmt: skip
    with pytest.raises(LostLease):
        book.advance(WORKER, id_, NOW, checkpoint="c", sent=9, more=5, resent=0)
    assert book.enqueue([file("a/film.mov")], NOW) == []
    assert book.retry(None, NOW) == 0


def test_what_is_at_the_remote_cannot_be_forgotten(book: Book) -> None:
    ids = [book.stored("a", NOW), book.done("b", NOW)]
    assert book.forget(ids, NOW) == 0
    assert list(states(book).values()) == ["stored", "done"]


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


# Plans


def plan(book: Book, call: Callable[[], Any], verb: str = "SELECT") -> str:
    """Returns how SQLite goes about the statements of a call that begin with a verb."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if statement.startswith(verb):
            statements.append((statement, parameters))

    for engine in (book.engine, book.reader):
        event.listen(engine, "before_cursor_execute", note)
    call()
    for engine in (book.engine, book.reader):
        event.remove(engine, "before_cursor_execute", note)
    assert statements
    lines = []
    for statement, parameters in statements:
        rows = book.run(
            lambda connection, s=statement, p=parameters: connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {s}", p).all()
        )
        lines += [row.detail for row in rows]
    return "\n".join(lines)


def test_claiming_walks_the_index_of_what_is_due(sqlite_book: Book) -> None:
    way = plan(sqlite_book, lambda: sqlite_book.claim(WORKER, NOW, 4, ["art"]))
    assert "SEARCH jobs USING INDEX jobs_by_hand (host=? AND due_at<?)" in way
    assert "SEARCH jobs USING INDEX jobs_begun (host=?)" in way
    assert "SEARCH jobs USING INDEX jobs_due (host=? AND due_at<?)" in way
    assert "TEMP B-TREE" not in way
    assert "SCAN jobs" not in way


def test_the_next_due_time_walks_the_index_of_what_is_due(sqlite_book: Book) -> None:
    way = plan(sqlite_book, lambda: sqlite_book.next_due(["art"]))
    assert "SEARCH jobs USING INDEX jobs_due (host=?)" in way
    assert "SCAN jobs" not in way


def test_what_waits_is_changed_by_the_index_of_what_is_due(sqlite_book: Book) -> None:
    changes: list[Callable[[], Any]] = [
        lambda: sqlite_book.make_failed_due(["vod"], NOW),
        lambda: sqlite_book.bring_forward(NOW, NOW + 3600),
        sqlite_book.release_all,
    ]
    for change in changes:
        assert "SEARCH jobs USING INDEX jobs_due (host=?" in plan(sqlite_book, change, "UPDATE")


def test_status_reads_what_is_left_and_counts_the_rest(sqlite_book: Book) -> None:
    for ask in (report.totals, report.files_by_watch, report.count_open, report.open_jobs, report.rejected):
        for step in plan(sqlite_book, lambda ask=ask: ask(sqlite_book.reader)).splitlines():
            assert "SCAN" not in step or "USING" in step or "counters" in step, step  # else it reads a whole table


def test_the_files_beside_one_are_found_by_the_index_of_folders(sqlite_book: Book) -> None:
    way = plan(sqlite_book, lambda: sqlite_book.siblings("vod", "w/a/b", "group", "1"))
    assert "SEARCH entries USING INDEX entries_files (parent=?)" in way
    assert "SEARCH jobs USING INDEX jobs_outbox (parent=?)" in way


def test_who_holds_a_record_is_found_by_the_index_of_contents(sqlite_book: Book) -> None:
    way = plan(sqlite_book, lambda: sqlite_book.of_size("vod", 10, "record", "1"))
    assert "SEARCH entries USING INDEX entries_content (provider=? AND size=?)" in way


def test_a_folder_is_known_by_the_index_of_versions(sqlite_book: Book) -> None:
    way = plan(sqlite_book, lambda: sqlite_book.folders.known("w", "a", "vod"))
    assert "SEARCH jobs USING INDEX sqlite_autoindex_jobs_1 (host=? AND parent=?)" in way


# A machine


class Model:
    """One job as a dictionary would have it."""

    def __init__(self, candidate: Candidate, due_at: float) -> None:
        self.candidate = candidate
        self.state = "pending"
        self.due_at = due_at
        self.lease: str | None = None
        self.lease_until = 0.0
        self.error: str | None = None
        self.sent = 0
        self.resent = 0
        self.attempts = 0
        self.key: str | None = None
        self.secret = False
        self.checkpoint = False
        self.by_hand = False

    @property
    def turn(self) -> tuple[int, float]:
        """What a person ordered goes first, then what is begun under a ticket, then the longest due."""
        if self.by_hand:
            return 0, self.due_at
        return (1, 0.0) if self.secret else (2, self.due_at)

    def free(self) -> None:
        self.lease = None

    def end(self, state: str, error: str | None) -> None:
        self.state, self.error, self.lease, self.secret, self.checkpoint = state, error, None, False, False


paths = st.sampled_from(["a", "a b", "a/x", "b/ü", RAW])
workers = st.sampled_from(["one", "two"])


class Machine(RuleBasedStateMachine):
    """Drives a journal in SQLite; a dictionary says what should be in it."""

    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.book = Book(in_file(Path(self.folder.name)))
        self.now = 0.0
        self.model: dict[int, Model] = {}
        self.numbers: dict[int, int] = {}  # of a job, by the number that it was first seen under
        self.catalogued: dict[str, tuple[str, int | None]] = {}  # key -> path, job

    def teardown(self) -> None:
        self.book.close()
        self.folder.cleanup()

    # Steps

    @rule(seconds=st.sampled_from([1.0, 10.0, LEASE + 1]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=jobs, path=paths, version=st.integers(1, 3))
    def sees(self, path: str, version: int) -> int:
        candidate = file(path, version=version)
        made = self.book.enqueue([candidate], self.now)
        known = next((id_ for id_, job in self.model.items() if job.candidate == candidate), None)
        if known is not None and not self._is_outlived(known):
            assert made == []
            return next(first for first, id_ in self.numbers.items() if id_ == known)
        (id_,) = made
        if known is not None:
            del self.model[known]
            self.catalogued = {
                key: (path, job if job != known else None) for key, (path, job) in self.catalogued.items()
            }
        first = next((first for first, number in self.numbers.items() if number == known), id_)
        self.numbers[first] = id_
        for job in self.model.values():
            if job.candidate.path == path and job.state in {"pending", "rejected"} and job.lease is None:
                job.end("superseded", REPLACED)
        self.model[id_] = Model(candidate, self.now)
        return first

    def _is_outlived(self, known: int) -> bool:
        """True for a version that stands there again after it was gone, or after another one."""
        job = self.model[known]
        if job.state == "done":
            return any((one.state, one.error) != ("superseded", GONE) for one in self._later(known))
        return job.state == "superseded" and job.error in {GONE, REPLACED}

    def _later(self, id_: int) -> list[Model]:
        path = self.model[id_].candidate.path
        return [job for number, job in self.model.items() if number > id_ and job.candidate.path == path]

    @rule(worker=workers, limit=st.integers(1, 3))
    def claims(self, worker: str, limit: int) -> None:
        due = [
            (*job.turn, id_)
            for id_, job in self.model.items()
            if job.state in {"pending", "stored"}
            and job.due_at <= self.now
            and (job.lease is None or (job.lease != worker and job.lease_until < self.now))
        ]
        expected = [id_ for _, _, id_ in sorted(due)[:limit]]
        assert [job.id for job in self.book.claim(worker, self.now, limit)] == expected
        for id_ in expected:
            self.model[id_].lease = worker
            self.model[id_].lease_until = self.now + LEASE

    def _tries(self, event: Event, worker: str, id_: int, call: Callable[[], Any]) -> Model | None:
        """Makes a worker's transition; returns the job if it must have been made."""
        job = self.model[id_]
        if job.lease == worker and State(job.state) in sources(event):
            call()
            return job
        with pytest.raises(LostLease):
            call()
        return None

    @rule(id_=jobs, worker=workers, key=st.sampled_from(["k1", "k2"]))
    def names(self, id_: int, worker: str, key: str) -> None:
        id_ = self.numbers[id_]
        key = f"{key} of {id_}"
        call = lambda: self.book.name(worker, id_, self.now, key=key, grant="ticket")  # noqa: E731
        if (job := self._tries(Event.NAME, worker, id_, call)) is not None:
            if job.key != key:
                job.checkpoint, job.sent = False, 0
            job.key, job.secret, job.lease_until = key, True, self.now + LEASE

    @rule(id_=jobs, worker=workers, sent=st.integers(0, 10), resent=st.integers(0, 3))
    def advances(self, id_: int, worker: str, sent: int, resent: int) -> None:
        id_ = self.numbers[id_]
        call = lambda: self.book.advance(worker, id_, self.now, checkpoint="c", sent=sent, more=1, resent=resent)  # noqa: E731
        if (job := self._tries(Event.ADVANCE, worker, id_, call)) is not None:
            job.sent, job.checkpoint, job.attempts, job.error = sent, True, 0, None
            job.resent += resent
            job.lease_until = self.now + LEASE

    @rule(id_=jobs, worker=workers, later=st.integers(0, 50), grant=st.booleans(), start=st.booleans())
    def delays(self, id_: int, worker: str, later: int, grant: bool, start: bool) -> None:
        id_ = self.numbers[id_]
        call = lambda: self.book.delay(  # noqa: E731
            worker, id_, self.now, due_at=self.now + later, error="later", attempts=self.model[id_].attempts + 1,
            new_grant=grant, from_start=start,
        )  # fmt: skip
        if (job := self._tries(Event.DELAY, worker, id_, call)) is not None:
            job.due_at, job.error, job.attempts = self.now + later, "later", job.attempts + 1
            job.secret = job.secret and not grant
            if start:
                job.checkpoint = False
                job.resent, job.sent = job.resent + job.sent, 0
            job.free()

    @rule(id_=jobs, worker=workers)
    def stores(self, id_: int, worker: str) -> None:
        id_ = self.numbers[id_]
        receipt = Receipt(f"stored {id_}")
        call = lambda: self.book.store(worker, id_, self.now, receipt=receipt, digest="d", more=1, resent=1)  # noqa: E731
        if (job := self._tries(Event.STORE, worker, id_, call)) is not None:
            job.state, job.key, job.sent, job.attempts, job.error = "stored", receipt.key, 10, 0, None
            job.resent += 1
            job.secret = job.checkpoint = False
            job.lease_until = self.now + LEASE

    @rule(id_=jobs, worker=workers, later=st.integers(0, 50))
    def notes(self, id_: int, worker: str, later: int) -> None:
        id_ = self.numbers[id_]

        def call():
            return self.book.note(worker, id_, self.now, receipt=Receipt("n"), due_at=self.now + later, error="not yet")

        if (job := self._tries(Event.NOTE, worker, id_, call)) is not None:
            job.due_at, job.error, job.attempts = self.now + later, "not yet", job.attempts + 1
            job.free()

    @rule(id_=jobs, worker=workers)
    def resends(self, id_: int, worker: str) -> None:
        id_ = self.numbers[id_]
        call = lambda: self.book.resend(worker, id_, self.now, due_at=self.now, error="late")  # noqa: E731
        if (job := self._tries(Event.RESEND, worker, id_, call)) is not None:
            job.state, job.key, job.sent, job.attempts, job.error = "pending", None, 0, 0, "late"
            job.resent += 10
            job.due_at = self.now
            job.free()

    @rule(id_=jobs, worker=workers)
    def finishes(self, id_: int, worker: str) -> None:
        id_ = self.numbers[id_]
        key = self.model[id_].key or "none"
        call = lambda: self.book.finish(worker, id_, self.now, receipt=Receipt(key))  # noqa: E731
        if (job := self._tries(Event.FINISH, worker, id_, call)) is not None:
            job.state, job.attempts, job.error = "done", 0, None
            job.free()
            self.catalogued[key] = (job.candidate.path, id_)

    @rule(id_=jobs, worker=workers)
    def rejects(self, id_: int, worker: str) -> None:
        id_ = self.numbers[id_]
        if (
            job := self._tries(Event.REJECT, worker, id_, lambda: self.book.reject(worker, id_, self.now, error="no"))
        ) is not None:
            replaced = any(one.state != "superseded" for one in self._later(id_))
            job.end(*(("superseded", REPLACED) if replaced else ("rejected", "no")))

    @rule(id_=jobs, worker=workers, reason=st.sampled_from([GONE, REPLACED]))
    def supersedes(self, id_: int, worker: str, reason: str) -> None:
        id_ = self.numbers[id_]
        call = lambda: self.book.supersede(worker, id_, self.now, reason=reason)  # noqa: E731
        if (job := self._tries(Event.SUPERSEDE, worker, id_, call)) is not None:
            job.end("superseded", reason)

    @rule(id_=jobs, worker=workers)
    def releases(self, id_: int, worker: str) -> None:
        id_ = self.numbers[id_]
        self.book.release(worker, id_)
        if self.model[id_].lease == worker:
            self.model[id_].free()

    @rule(everything=st.booleans(), id_=jobs)
    def retries(self, everything: bool, id_: int) -> None:
        id_ = self.numbers[id_]
        chosen = [
            job
            for number, job in self.model.items()
            if (everything or number == id_) and job.lease is None and State(job.state) in sources(Event.RETRY)
        ]
        assert self.book.retry(None if everything else [id_], self.now) == len(chosen)
        for job in chosen:
            if job.state == "rejected":
                job.key, job.sent, job.resent = None, 0, job.resent + job.sent
            if job.state != "stored":
                job.state, job.attempts = "pending", 0
            job.due_at, job.error, job.by_hand = self.now, None, True
        under_way = self.model[id_]
        if not everything and under_way.lease is not None and under_way.state in {"pending", "stored"}:
            under_way.by_hand = True

    @rule(id_=consumes(jobs))
    def forgets(self, id_: int) -> None:
        id_ = self.numbers[id_]
        job = self.model[id_]
        expected = job.state in {"pending", "rejected"}
        assert self.book.forget([id_], self.now) == expected
        if expected:
            job.end("superseded", FORGOTTEN)

    @rule()
    def is_killed(self) -> None:
        """A new process on the same file: what was committed is there, and no lease is worth anything."""
        self.book.close()
        self.book = Book(journal_url(self.folder.name))
        self.book.release_all()
        for job in self.model.values():
            job.free()

    # What always holds

    @invariant()
    def the_journal_is_the_dictionary(self) -> None:
        rows = {row.id: row for row in self.book.rows("SELECT * FROM jobs")}
        assert rows.keys() == self.model.keys()
        for id_, job in self.model.items():
            row = rows[id_]
            found = (row.state, row.due_at, row.lease, row.error, row.sent, row.resent, row.attempts, row.key)
            assert found == (
                job.state, job.due_at, job.lease, job.error, job.sent, job.resent, job.attempts, job.key,
            ), id_  # fmt: skip
            assert (row.grant is not None, row.checkpoint is not None) == (job.secret, job.checkpoint)
        totals = report.totals(self.book.reader)
        states = [job.state for job in self.model.values()]
        assert {state: totals[state] for state in State} == {state: states.count(state) for state in State}

    @invariant()
    def no_ended_job_keeps_a_secret_or_a_lease(self) -> None:
        assert not self.book.rows(
            "SELECT id FROM jobs WHERE state NOT IN ('pending', 'stored') "
            'AND ("grant" IS NOT NULL OR checkpoint IS NOT NULL OR lease IS NOT NULL)'
        )

    @invariant()
    def the_catalog_is_what_is_done(self) -> None:
        entries = self.book.catalog.history(1000)
        assert {entry.key: entry.path for entry in entries} == {key: path for key, (path, _) in self.catalogued.items()}
        done = {id_ for id_, job in self.model.items() if job.state == "done"}
        assert done == {id_ for _, id_ in self.catalogued.values() if id_ is not None}

    @invariant()
    def one_version_of_a_path_is_current(self) -> None:
        shown = [node.file for node in _files(self.book.catalog, "files/w")]
        assert len({entry.path for entry in shown}) == len(shown)
        assert {entry.path for entry in shown} == {path for path, _ in self.catalogued.values()}


def _files(catalog: Catalog, folder: str) -> list[Any]:
    found = []
    for node in catalog.children(folder):
        found += _files(catalog, f"{folder}/{node.name}") if node.folder else [node]
    return found


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=10, stateful_step_count=40, deadline=None)


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
