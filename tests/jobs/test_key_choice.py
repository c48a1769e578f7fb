"""Which key a file gets when another one has its first choice, over a real journal."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

import journals
from dumbwaiter.config import Watch
from dumbwaiter.errors import Conflict, Reject, Retry, Skipped, Verdict
from dumbwaiter.files.digest import Digest
from dumbwaiter.jobs.key_choice import TURN, KeyChoice
from dumbwaiter.jobs.threads import OpenFile, Threads
from dumbwaiter.keys import NUMBERED, Template
from dumbwaiter.model import Ask, Job, Receipt
from dumbwaiter.store.errands import AFTER, ORIGINAL, Order
from journals import WORKER, Book

sqlite_book = journals.sqlite_book
NOW = 1000.0
CONTENT = b"the film"


class Shelf:
    """A journal, one file's content, and a watch whose files are all called by their own names."""

    def __init__(self, book: Book, path: Path) -> None:
        path.write_bytes(CONTENT)
        self.book = book
        self.watch: Watch | None = Watch("/w", "vod", key=Template("{name}"))
        self.known = True  # the watch, in the configuration
        self.named = True  # by us, and not by the provider
        self._fd = os.open(path, os.O_RDONLY)
        self._threads = Threads(1, 1)
        self._choices: dict[tuple[int, str], KeyChoice] = {}

    def close(self) -> None:
        self._threads.close()
        os.close(self._fd)

    def job(self, path: str, version: int = 1, **values: Any) -> Job:
        """A job for the file that this process works on."""
        id_ = self.book.pending(path, NOW, size=len(CONTENT), version=version)
        (job,) = self.book.claim(WORKER, NOW, 1)
        assert job.id == id_
        return replace(job, **values)

    def choice(self, job: Job) -> KeyChoice:
        context: Any = SimpleNamespace(
            watch_of=lambda _name: self.watch if self.known else None,
            journal=self.book.journal,
            lease=lambda job: self.book.journal.lease(WORKER, job.id),
            threads=self._threads,
            clock=lambda: NOW,
        )
        name = (job.id, self.watch.on_conflict if self.watch else "")
        return self._choices.setdefault(name, KeyChoice(context, job))

    def choose(self, job: Job) -> Ask:
        """Returns what is asked for in the end."""

        def key(proposed: str, *, named: bool) -> str | None:
            return (proposed if named else f"all/{proposed}") if self.named else None

        broker = SimpleNamespace(key=key)
        provider: Any = SimpleNamespace(name="vod", broker=broker)
        choice = self.choice(job).choose(provider, job, ask(job), OpenFile(self._fd, ""))
        return self.book.runner.run(choice)

    def has(self, path: str, content: bytes, orders: Sequence[Order] = ()) -> None:
        """Another file is done under the key."""
        job, digest = self.job(path), Digest()
        digest.observe(0, content)
        receipt = Receipt("film.mov")
        self.book.lease(WORKER, job.id).store(NOW, receipt=receipt, digest=digest.text(len(content)), more=0, resent=0)
        self.book.lease(WORKER, job.id).finish(NOW, receipt=receipt, orders=orders)

    def on_conflict(self, what: str, after: str = "keep") -> None:
        self.watch = Watch("/w", "vod", key=Template("{name}"), on_conflict=what, after=after)  # type: ignore[arg-type]


def ask(job: Job) -> Ask:
    return Ask(job.watch, job.path, job.path, job.size, "video/quicktime", f"{job.id:016x}")


@pytest.fixture
def shelf(sqlite_book: Book, tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(sqlite_book, tmp_path / "film.mov")
    yield made
    made.close()


def refused(shelf: Shelf, job: Job) -> Verdict:
    with pytest.raises(Verdict) as raised:
        shelf.choose(job)
    return raised.value


def test_a_file_has_its_key_in_the_journal_before_it_is_asked_for(shelf: Shelf) -> None:
    job = shelf.job("a/film.mov")
    asked = shelf.choose(job)
    assert (asked.key, asked.named, asked.fresh) == ("film.mov", True, True)
    assert shelf.book.row(job.id).proposed == "film.mov"
    shelf.on_conflict("replace")
    assert not shelf.choose(shelf.job("b/other.mov")).fresh


def test_a_key_that_was_chosen_stays(shelf: Shelf) -> None:
    assert shelf.choose(shelf.job("film.mov", proposed="film-7.mov")).key == "film-7.mov"


def test_where_the_provider_names_objects_or_has_named_this_one_nothing_is_chosen(shelf: Shelf) -> None:
    before = shelf.job("a/film.mov", key="named by an earlier version")
    assert shelf.choose(before) == ask(before)
    shelf.named = False
    job = shelf.job("b/film.mov")
    assert shelf.choose(job) == ask(job)
    assert shelf.book.row(job.id).proposed is None


def test_without_a_watch_a_file_has_its_path(shelf: Shelf) -> None:
    shelf.watch = None
    assert shelf.choose(shelf.job("a/film.mov")).key == "all/a/film.mov"
    assert shelf.choose(shelf.job("b/film.mov")).fresh


def test_by_default_it_gets_the_next_free_name(shelf: Shelf) -> None:
    shelf.has("a/film.mov", b"another")
    assert shelf.choose(shelf.job("b/film.mov")).key == "film-1.mov"
    assert shelf.choose(shelf.job("c/film.mov")).key == "film-2.mov"  # the first one's is under way


@pytest.mark.parametrize("mode", ["rename", "replace", "skip", "refuse"])
def test_the_same_content_shares_a_key(shelf: Shelf, mode: str) -> None:
    shelf.on_conflict(mode)
    shelf.has("a/film.mov", CONTENT)
    assert shelf.choose(shelf.job("b/film.mov")).key == "film.mov"


def test_a_file_whose_key_is_taken_fares_as_the_watch_says(shelf: Shelf) -> None:
    shelf.has("a/film.mov", b"another")
    job = shelf.job("b/film.mov")
    told = "w/a/film.mov is at the provider as film.mov"
    for mode, kind in {"skip": Skipped, "refuse": Reject}.items():
        shelf.on_conflict(mode)
        verdict = refused(shelf, job)
        assert type(verdict) is kind
        assert told in str(verdict)
        assert f'on_conflict = "{mode}"' in str(verdict)
    shelf.on_conflict("replace")
    assert shelf.choose(job).key == "film.mov"


@pytest.mark.parametrize("mode", ["replace", "skip", "refuse"])
@pytest.mark.parametrize(("attempts", "after"), [(0, 1.0), (3, 8.0), (99, TURN)])
def test_who_renames_nothing_waits_for_who_is_about_to_have_the_key(
    shelf: Shelf, mode: str, attempts: int, after: float
) -> None:
    shelf.on_conflict(mode)
    assert shelf.choose(shelf.job("a/film.mov")).key == "film.mov"
    verdict = refused(shelf, shelf.job("b/film.mov", attempts=attempts))
    assert isinstance(verdict, Retry)
    assert (str(verdict), verdict.after) == ("w/a/film.mov is being uploaded as film.mov", after)


def test_the_last_copy_of_another_file_is_never_replaced(shelf: Shelf) -> None:
    """Its watch is to delete it, or has, or was to before it was taken out of the configuration."""
    book = shelf.book
    shelf.has("a/film.mov", b"another", [Order(AFTER, {"action": "delete"})])
    job, own = shelf.job("b/film.mov"), shelf.job("a/film.mov", version=2)
    told = "w/a/film.mov is at the provider as film.mov and not kept here: choose another key"
    shelf.on_conflict("replace", after="delete")
    assert str(refused(shelf, job)) == told
    shelf.known = False
    assert str(refused(shelf, job)) == told
    (errand,) = book.runner.run(book.journal.errands.due(NOW, 9, (), ()))
    book.runner.run(book.journal.errands.done(errand, taken_away=True, deleted=True))
    shelf.known = True
    shelf.on_conflict("replace")
    verdict = refused(shelf, job)
    assert isinstance(verdict, Reject)
    assert str(verdict) == told
    assert shelf.choose(own).key == "film.mov"  # its own next version


def test_a_file_that_stays_is_replaced_whatever_its_watch_once_said(shelf: Shelf) -> None:
    shelf.has("a/film.mov", b"another", [Order(AFTER, {"action": "delete"})])
    shelf.on_conflict("replace")
    assert shelf.choose(shelf.job("b/film.mov")).key == "film.mov"


@pytest.mark.parametrize("gone", [True, False])
def test_a_file_of_another_machine_is_replaced_unless_it_was_its_last_copy(shelf: Shelf, gone: bool) -> None:
    """What its watch is to do only that machine knows."""
    with Book(shelf.book.url, "beef") as other:
        other.done("a/film.mov", NOW, Receipt("film.mov"))
        if gone:
            other.amend(1, NOW, {ORIGINAL: "deleted here once it was there"})
    shelf.on_conflict("replace")
    job = shelf.job("a/film.mov")
    if gone:
        assert isinstance(refused(shelf, job), Reject)
    else:
        assert shelf.choose(job).key == "film.mov"


def test_other_content_at_the_provider_under_that_key_is_met_as_the_watch_says(shelf: Shelf) -> None:
    """Only the provider knew of it, and says so once it is asked."""
    conflict = Conflict("the provider has another file as film.mov")
    job = shelf.job("a/film.mov")
    asked = shelf.choose(job)
    assert shelf.choice(job).conflict(asked, conflict) is None
    assert shelf.choose(job).key == "film-1.mov"
    assert shelf.choice(job).conflict(ask(job), conflict) is conflict  # the provider's own choice
    for mode, kind in {"skip": Skipped, "refuse": Reject, "replace": Reject}.items():
        shelf.on_conflict(mode)
        verdict = shelf.choice(job).conflict(asked, conflict)
        assert type(verdict) is kind
        assert str(conflict) in str(verdict)


def test_a_file_that_finds_all_names_taken_says_so(shelf: Shelf) -> None:
    job, keys = shelf.job("a/film.mov"), []
    for _ in range(NUMBERED + 2):
        asked = shelf.choose(job)
        keys.append(asked.key)
        assert shelf.choice(job).conflict(asked, Conflict("taken")) is None
    wanted = ["film.mov", *(f"film-{number}.mov" for number in range(1, NUMBERED + 1))]
    assert keys == [*wanted, f"film-{asked.seed[:12]}.mov"]
    verdict = refused(shelf, job)
    assert isinstance(verdict, Reject)
    assert str(verdict) == "film.mov and all names like it are taken at the provider: give the file another name"
