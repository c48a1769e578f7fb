"""Errands in each database: ordered with the end of a job, kept until they are done, in an order that loses nothing."""

import pytest
from sqlalchemy import insert

import journals
from dumbwaiter import report
from dumbwaiter.model import Receipt
from dumbwaiter.store.errands import AFTER, TAKEN_AWAY, Errand, Order
from dumbwaiter.store.tables import errands
from journals import WORKER, Book

postgres, database, book = journals.postgres, journals.database, journals.book
NOW = 100.0
HOOK = Order("on_done", {"url": "https://a.example/1"})
GO = Order(AFTER, {"action": "delete"})


def run(book: Book, name: str, *values: object, **named: object) -> object:
    return book.runner.run(getattr(book.journal.errands, name)(*values, **named))


def due(book: Book, now: float = NOW, full: tuple[str, ...] = ()) -> list[Errand]:
    found = run(book, "due", now, 10, [], full)
    assert isinstance(found, list)
    return found


def ended(book: Book, path: str = "a/film.mov", orders: tuple[Order, ...] = (HOOK, GO)) -> int:
    id_ = book.stored(path)
    book.lease(WORKER, id_).finish(NOW, receipt=Receipt(f"key of {id_}"), orders=orders)
    return id_


def test_what_is_ordered_with_the_end_of_a_job_is_due_at_once(book: Book) -> None:
    id_ = ended(book, orders=(HOOK,))
    (errand,) = due(book)
    assert (errand.job, errand.watch, errand.path, errand.what) == (id_, "w", "a/film.mov", "on_done")
    assert errand.facts == {"url": "https://a.example/1"}
    run(book, "done", errand)
    assert due(book) == []
    assert run(book, "next_due", [], []) is None


def test_where_no_place_is_free_nothing_is_due(book: Book) -> None:
    ended(book, "a/hooked.mov", (HOOK,))
    ended(book, "a/film.mov", (GO,))
    assert [one.what for one in due(book)] == [HOOK.what, AFTER]
    assert [one.what for one in due(book, full=("w",))] == [HOOK.what]
    assert [one.what for one in due(book, full=("",))] == [AFTER]
    (hook,) = due(book, full=("w",))
    run(book, "failed", hook, due_at=NOW + 9, error="no")
    assert [run(book, "next_due", [], full) for full in ([], ["w"], ["", "w"])] == [NOW, NOW + 9, None]


@pytest.mark.parametrize("outcome", ["done", "later", "given up"])
def test_a_file_stays_until_its_hook_has_seen_it(book: Book, outcome: str) -> None:
    ended(book)
    ended(book, "a/other.mov", (GO,))
    hook, other = due(book)
    assert (hook.what, other.path) == ("on_done", "a/other.mov")
    if outcome == "done":
        run(book, "done", hook)
    else:
        run(book, "failed", hook, due_at=NOW + 9 if outcome == "later" else None, error="no")
    assert [(one.what, one.path) for one in due(book)] == [(AFTER, "a/film.mov"), (AFTER, "a/other.mov")]


def test_of_a_version_that_was_taken_away_twice_one_is_remembered(book: Book) -> None:
    """A folder that was away when `after` came, and that is back with its files as they were."""
    first = ended(book, orders=(GO,))
    (errand,) = due(book)
    run(book, "done", errand, taken_away=True)
    again = ended(book, orders=(GO,))
    assert again != first
    (errand,) = due(book)
    run(book, "done", errand, taken_away=True)
    assert [(row.id, row.inode) for row in book.rows("SELECT id, inode FROM jobs")] == [(again, TAKEN_AWAY)]
    assert due(book) == []


def test_what_was_given_up_waits_for_a_person(book: Book) -> None:
    id_ = ended(book, orders=(HOOK,))
    (errand,) = due(book)
    run(book, "failed", errand, due_at=None, error="no")
    assert due(book, NOW + 1e9) == []
    assert book.retry([id_], NOW + 5) == 1
    (again,) = due(book, NOW + 5)
    assert again.attempts == 0
    assert book.forget([id_], NOW) == 1
    assert due(book, NOW + 1e9) == []


def test_what_is_still_to_be_put_away_is_counted(book: Book) -> None:
    assert report.totals(book.reader)["after"] == 0
    for name in "abc":
        ended(book, name)
    assert report.totals(book.reader)["after"] == 3
    for hook in due(book):
        run(book, "done", hook)
    first, second, _ = due(book)
    run(book, "done", first)
    run(book, "failed", second, due_at=NOW + 9, error="later")
    assert report.totals(book.reader)["after"] == 2
    run(book, "failed", second, due_at=None, error="no")
    totals = report.totals(book.reader)
    assert (totals["after"], totals["in_need"]) == (1, 1)


def test_what_was_given_up_is_told_however_much_is_tried_again_after_it(book: Book) -> None:
    lost = ended(book, "a/lost.mov", (GO,))
    (errand,) = due(book)
    run(book, "failed", errand, due_at=None, error="no")
    later = ended(book, "b/later.mov", (GO,))
    facts = {"host": book.host, "job": later, "watch": "w", "parent": "w/b", "name": "later.mov", "what": AFTER}
    facts |= {"facts": {}, "due_at": NOW, "error": "the disk is full", "created_at": NOW}
    book.run(lambda connection: connection.execute(insert(errands), [facts] * (report.LISTED + 1)))
    assert [(one["id"], one["error"]) for one in report.needy(book.reader)] == [(lost, "after: no")]
    assert report.count_needy(book.reader) == report.totals(book.reader)["in_need"] == 1
    listed = report.failed_errands(book.reader)
    assert (len(listed), listed[-1]["job"], {one["job"] for one in listed[:-1]}) == (report.LISTED, lost, {later})
    (told,) = report.errands_of(book.reader, "w", "a/lost.mov")
    assert (told["path"], told["error"], told["due_at"]) == ("a/lost.mov", "no", None)


def test_of_more_that_was_given_up_than_is_listed_all_is_counted(book: Book) -> None:
    first = ended(book, "a/0.mov", ())
    made = range(first, first + report.LISTED + 1)
    for number in range(1, len(made)):
        assert ended(book, f"a/{number}.mov", ()) == made[number]
    facts = {"host": book.host, "watch": "w", "parent": "w/a", "facts": {}, "error": "no", "created_at": NOW}
    rows = [
        facts | {"job": id_, "name": f"{id_ - first}.mov", "what": what} for id_ in made for what in ("on_done", AFTER)
    ]
    book.run(lambda connection: connection.execute(insert(errands), rows))
    assert [one["id"] for one in report.needy(book.reader)] == [*made[:0:-1]]
    assert report.totals(book.reader)["in_need"] == len(made)


def test_what_was_given_up_goes_with_a_version_that_nobody_asks_about_any_more(book: Book) -> None:
    """Its version stands there again, and has a job of its own; or else `wait` would tell of what nobody can find."""
    orders = (HOOK, Order("on_done", {"url": "https://a.example/2"}))
    id_ = ended(book, orders=orders)
    errand, _ = due(book)
    run(book, "failed", errand, due_at=None, error="no")
    book.pending(size=7)
    again = book.pending()
    assert again != id_
    (left,) = due(book)  # what is still to be told is told
    assert left.facts == orders[1].facts
    assert len(book.rows("SELECT * FROM errands")) == 1


def test_any_number_of_jobs_can_be_named_at_once(book: Book) -> None:
    id_ = ended(book)
    many = range(id_, id_ + 70_000)  # more than a statement takes parameters
    assert [job.id for job in book.ended(many)] == [id_]
    assert [job.id for job in report.jobs_by_id(book.reader, many)] == [id_]
    other = book.pending("a/other.mov")
    assert book.next_due(only=many) == NOW
    assert book.retry(many, NOW) == 1
    assert [job.id for job in book.claim(WORKER, NOW, 10, only=many)] == [other]
    assert book.forget(many, NOW) == 2


def test_what_only_waits_for_its_time_is_not_hastened(book: Book) -> None:
    ended(book, orders=(Order(AFTER, {"action": "delete"}, waits=50.0),))
    book.make_due(None, NOW)
    assert due(book) == []
    book.make_due(None, NOW - 1000)  # the clock was set back since
    assert len(due(book, NOW - 1000)) == 1


def test_a_refusal_is_told_and_a_lost_lease_orders_nothing(book: Book) -> None:
    id_ = book.leased()
    with pytest.raises(Exception, match="no longer held"):
        book.lease("another", id_).reject(NOW, error="no", orders=(HOOK,))
    assert due(book) == []
    book.lease(WORKER, id_).reject(NOW, error="no", orders=(HOOK,))
    assert len(due(book)) == 1


def test_an_entry_never_shows_other_content_under_its_key(book: Book) -> None:
    first, second = book.stored("a/one"), book.stored("b/two")
    for id_, digest in ((first, "xxh3:01"), (second, "xxh3:02")):
        book.run(
            lambda connection, id_=id_, digest=digest: connection.exec_driver_sql(
                f"UPDATE jobs SET digest = '{digest}' WHERE id = {id_}"
            )
        )
    book.lease(WORKER, first).finish(NOW, receipt=Receipt("one key"))
    book.lease(WORKER, second).finish(NOW, receipt=Receipt("one key"))
    assert [entry.path for entry in book.catalog.history()] == ["b/two"]


def test_files_of_equal_content_share_a_key(book: Book) -> None:
    for path in ("a/one", "b/two"):
        id_ = book.stored(path)
        book.lease(WORKER, id_).finish(NOW, receipt=Receipt("one key"))
    assert {entry.path for entry in book.catalog.history()} == {"a/one", "b/two"}
