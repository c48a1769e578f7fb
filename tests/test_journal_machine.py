"""A machine that drives the journal against a dictionary."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from dumbwaiter import report
from dumbwaiter.catalog import Catalog
from dumbwaiter.lifecycle import FORGOTTEN, GONE, REPLACED, Event, sources
from dumbwaiter.model import Receipt, State
from dumbwaiter.store.arrivals import Candidate
from dumbwaiter.store.database import journal_url
from dumbwaiter.store.lease import LEASE, LostLease
from journals import Book, file, in_file

RAW = b"raw \xff\x80 name".decode("utf-8", "surrogateescape")


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

    def _tries(self, event: Event, worker: str, id_: int, **words: Any) -> Model | None:
        """Makes a worker's transition; returns the job if it must have been made."""
        job = self.model[id_]
        transition = getattr(self.book.lease(worker, id_), event)
        if job.lease == worker and State(job.state) in sources(event):
            transition(self.now, **words)
            return job
        with pytest.raises(LostLease):
            transition(self.now, **words)
        return None

    @rule(id_=jobs, worker=workers, key=st.sampled_from(["k1", "k2"]))
    def names(self, id_: int, worker: str, key: str) -> None:
        id_ = self.numbers[id_]
        key = f"{key} of {id_}"
        if (job := self._tries(Event.NAME, worker, id_, key=key, grant="ticket")) is not None:
            if job.key != key:
                job.checkpoint, job.sent = False, 0
            job.key, job.secret, job.lease_until = key, True, self.now + LEASE

    @rule(id_=jobs, worker=workers, sent=st.integers(0, 10), resent=st.integers(0, 3))
    def advances(self, id_: int, worker: str, sent: int, resent: int) -> None:
        id_ = self.numbers[id_]
        if (
            job := self._tries(Event.ADVANCE, worker, id_, checkpoint="c", sent=sent, more=1, resent=resent)
        ) is not None:
            job.sent, job.checkpoint, job.attempts, job.error = sent, True, 0, None
            job.resent += resent
            job.lease_until = self.now + LEASE

    @rule(id_=jobs, worker=workers, later=st.integers(0, 50), grant=st.booleans(), start=st.booleans())
    def delays(self, id_: int, worker: str, later: int, grant: bool, start: bool) -> None:
        id_ = self.numbers[id_]
        due, attempts = self.now + later, self.model[id_].attempts + 1
        words: dict[str, Any] = {"due_at": due, "error": "later", "new_grant": grant, "from_start": start}
        if (job := self._tries(Event.DELAY, worker, id_, attempts=attempts, **words)) is not None:
            job.due_at, job.error, job.attempts = due, "later", attempts
            job.secret = job.secret and not grant
            if start:
                job.checkpoint = False
                job.resent, job.sent = job.resent + job.sent, 0
            job.free()

    @rule(id_=jobs, worker=workers)
    def stores(self, id_: int, worker: str) -> None:
        id_ = self.numbers[id_]
        receipt = Receipt(f"stored {id_}")
        if (job := self._tries(Event.STORE, worker, id_, receipt=receipt, digest="d", more=1, resent=1)) is not None:
            job.state, job.key, job.sent, job.attempts, job.error = "stored", receipt.key, 10, 0, None
            job.resent += 1
            job.secret = job.checkpoint = False
            job.lease_until = self.now + LEASE

    @rule(id_=jobs, worker=workers, later=st.integers(0, 50))
    def notes(self, id_: int, worker: str, later: int) -> None:
        id_ = self.numbers[id_]
        due = self.now + later
        job = self._tries(Event.NOTE, worker, id_, receipt=Receipt("n"), due_at=due, error="not yet")
        if job is not None:
            job.due_at, job.error, job.attempts = due, "not yet", job.attempts + 1
            job.free()

    @rule(id_=jobs, worker=workers)
    def resends(self, id_: int, worker: str) -> None:
        id_ = self.numbers[id_]
        if (job := self._tries(Event.RESEND, worker, id_, due_at=self.now, error="late")) is not None:
            job.state, job.key, job.sent, job.attempts, job.error = "pending", None, 0, 0, "late"
            job.resent += 10
            job.due_at = self.now
            job.free()

    @rule(id_=jobs, worker=workers)
    def finishes(self, id_: int, worker: str) -> None:
        id_ = self.numbers[id_]
        key = self.model[id_].key or "none"
        if (job := self._tries(Event.FINISH, worker, id_, receipt=Receipt(key))) is not None:
            job.state, job.attempts, job.error = "done", 0, None
            job.free()
            self.catalogued[key] = (job.candidate.path, id_)

    @rule(id_=jobs, worker=workers)
    def rejects(self, id_: int, worker: str) -> None:
        id_ = self.numbers[id_]
        if (job := self._tries(Event.REJECT, worker, id_, error="no")) is not None:
            replaced = any(one.state != "superseded" for one in self._later(id_))
            job.end(*(("superseded", REPLACED) if replaced else ("rejected", "no")))

    @rule(id_=jobs, worker=workers, reason=st.sampled_from([GONE, REPLACED]))
    def supersedes(self, id_: int, worker: str, reason: str) -> None:
        id_ = self.numbers[id_]
        if (job := self._tries(Event.SUPERSEDE, worker, id_, reason=reason)) is not None:
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
