"""What was found becomes jobs: versions, and what is known of a folder."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, update

import journals
from dumbwaiter import report
from dumbwaiter.config import RESERVED
from dumbwaiter.lifecycle import GONE, REPLACED, UNASKED
from dumbwaiter.model import Job, Stamp, State
from dumbwaiter.store.arrivals import Candidate
from dumbwaiter.store.errands import Order
from dumbwaiter.store.folders import Known, Surveyed
from dumbwaiter.store.tables import jobs
from journals import WORKER, Book, file, states

database = journals.database
postgres = journals.postgres
book = journals.book
NOW = 1000.0
RAW = b"raw \xff\x80 name".decode("utf-8", "surrogateescape")


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
    book.lease(WORKER, old).delay(NOW, due_at=NOW + 5, error="later", attempts=1)
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


def test_the_older_versions_of_all_that_is_found_at_once_are_superseded(book: Book) -> None:
    def found(version: int) -> list[Candidate]:
        one = [file(path, version=version) for path in ("a/film.mov", "b/film.mov", "a/other.mov")]
        return [*one, file("a/film.mov", version=version, provider="art")]

    old, new = book.enqueue(found(1), NOW), book.enqueue(found(2), NOW + 1)
    assert states(book) == dict.fromkeys(old, "superseded") | dict.fromkeys(new, "pending")


def test_a_rejected_version_is_superseded_by_a_newer_one(book: Book) -> None:
    old = book.leased("a", NOW)
    book.lease(WORKER, old).reject(NOW, error="too large")
    new = book.pending("a", version=2)
    assert states(book) == {old: "superseded", new: "pending"}


def test_a_version_that_somebody_works_on_is_left_to_him(book: Book) -> None:
    old = book.leased("a", NOW)
    book.pending("a", NOW, version=2)
    assert states(book)[old] == "pending"
    book.lease(WORKER, old).name(NOW, key="k", grant=None)


@pytest.mark.parametrize("end", ["stored", "done"])
def test_what_is_at_the_remote_is_never_superseded(book: Book, end: str) -> None:
    old = getattr(book, end)("a", NOW)
    book.release(WORKER, old)
    book.pending("a", version=2)
    assert states(book)[old] == end


def test_a_version_that_is_back_comes_back_to_life_unless_a_person_or_the_provider_ended_it(book: Book) -> None:
    ends: dict[str, Callable[[int], Any]] = {
        "gone": lambda id_: book.lease(WORKER, id_).supersede(NOW, reason=GONE),
        "replaced": lambda id_: book.lease(WORKER, id_).supersede(NOW, reason=REPLACED),
        "forgotten": lambda id_: book.forget([id_], NOW),
        "rejected": lambda id_: book.lease(WORKER, id_).reject(NOW, error="never"),
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
    book.lease(WORKER, refused).reject(NOW, error="never")
    elsewhere = book.pending("a", watch="other")
    stored, done = book.stored("stored", NOW), book.done("done", NOW)
    kept = book.pending("a", watch="kept"), book.pending("home/a", watch=RESERVED), book.pending("b", watch="new")
    book.survey("w", [Surveyed("", 4, b"digest")])
    book.survey("kept", [Surveyed("", 1, b"digest")])
    book.release_all()
    before = book.counters().get("bytes_resent", 0)
    assert book.end_unwanted({"w": "art", "kept": "vod", "new": "vod"}, ["vod", "art"], NOW + 1) == 3
    assert book.counters()["bytes_resent"] == before + 4
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


def test_what_is_stored_and_has_no_provider_any_more_comes_to_its_end_at_once(book: Book) -> None:
    ids = [book.stored("a", NOW), book.stored("b", NOW, provider="art")]
    for id_ in ids:
        book.lease(WORKER, id_).delay(NOW, due_at=NOW + 999, error="later", attempts=1)
    assert book.end_unwanted({}, ["vod"], NOW + 1) == 0
    assert [book.row(id_).due_at for id_ in ids] == [NOW + 999, NOW + 1]


def test_a_version_that_is_done_and_back_takes_its_place_again(book: Book) -> None:
    """Two folders were exchanged, and exchanged back: no stamp of a file in them changed."""
    one = book.done("a/f", NOW)
    assert book.enqueue([file("a/f")], NOW) == []
    book.done("a/f", NOW + 1, version=2)
    (again,) = book.enqueue([file("a/f")], NOW + 2)
    assert again > one
    assert list(states(book).values()) == ["done", "pending"]
    assert book.enqueue([file("a/f")], NOW + 3) == []


def test_a_version_is_sent_again_if_the_one_after_it_may_be_in_its_place_at_the_provider(book: Book) -> None:
    """Where a key is replaced, what was stored there is there, also if it was refused in the end and forgotten."""
    one, other = book.done("a/f", NOW), book.done("a/g", NOW)
    stored, gone = book.stored("a/f", NOW + 1, version=2), book.leased("a/g", NOW + 1, version=2)
    book.lease(WORKER, stored).reject(NOW + 2, error="it cannot be shown")
    book.forget([stored], NOW + 2)
    book.lease(WORKER, gone).supersede(NOW + 2, reason=GONE)
    (again,) = book.enqueue([file("a/f"), file("a/g")], NOW + 3)
    assert states(book) == {other: "done", stored: "superseded", gone: "superseded", again: "pending"}
    assert one not in states(book)


def test_what_another_provider_or_installation_has_of_a_path_is_no_newer_version_of_its_file(book: Book) -> None:
    book.done("a/f", NOW)
    book.done("a/f", NOW + 1, version=2, provider="art")
    with Book(book.url, "another") as other:
        other.done("a/f", NOW + 1, version=2)
    assert book.enqueue([file("a/f")], NOW + 2) == []  # else it would be sent again


@pytest.mark.parametrize("end", ["done", "superseded", "rejected", "stored", "pending"])
def test_what_a_person_has_sent_again_is_as_new_and_nothing_else_is(book: Book, end: str) -> None:
    """A refusal is a `retry`'s to undo, and what is under way goes on."""
    one = file("a/film.mov")
    parts = {"inode": 99, "size": 99, "mtime_ns": 99, "ctime_ns": 99}
    others = [one._replace(stamp=one.stamp._replace(**{part: value})) for part, value in parts.items()]
    others += [one._replace(path="b/film.mov"), one._replace(path="a/other.mov")]
    others += [one._replace(watch="v"), one._replace(provider="art")]
    with Book(book.url, "another") as other:
        other.enqueue([one], NOW)
        ids = [id_ for each in (*others, one) for id_ in book.enqueue([each], NOW)]
        book.run(lambda connection: connection.execute(update(jobs).values(state=end, error=None)))
        order = lambda connection: [  # noqa: E731
            book.journal.errands.add(connection, job, [Order("after", {})], NOW)
            for job in connection.execute(select(jobs).where(jobs.c.id.in_(ids)))
        ]
        book.run(order)
        before = states(book)
        made = book.enqueue([one], NOW + 1, again=True)
        ended = {ids[-1]} if end in {"done", "superseded"} else set()
        assert len(made) == len(ended)
        kept = {id_: state for id_, state in before.items() if id_ not in ended}
        assert states(book) == kept | dict.fromkeys(made, "pending")
        assert {row.job for row in book.rows("SELECT job FROM errands")} == set(ids) - ended
    assert book.enqueue([one], NOW + 2) == []


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


def test_each_name_of_a_touched_file_keeps_its_job(book: Book) -> None:
    """Hard links have one stamp; and another provider, or installation, has a job of its own."""
    stamp = Stamp(7, 10, 5, 6)
    with Book(book.url, "another") as other:
        ids = [book.done(path) for path in ("a/film.mov", "b/film.mov", "a/other.mov")]
        ids.append(book.done("a/film.mov", provider="art"))
        of_other = other.done("a/film.mov")
        for id_ in ids:
            book.touch(id_, stamp, NOW + 1)
        other.touch(of_other, stamp, NOW + 1)
        for id_ in (*ids, of_other):
            row = book.row(id_)
            assert Stamp(row.inode, row.size, row.mtime_ns, row.ctime_ns) == stamp


def test_the_jobs_of_versions_are_told_in_their_order(book: Book) -> None:
    first, second = book.enqueue([file("a"), file("b")], NOW)
    assert book.ids([file("b"), file("a")]) == [second, first]
