"""Which jobs run: how many of what size at once, over a real journal; an attempt lasts until the test ends it."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import URL

import journals
from dumbwaiter import log
from dumbwaiter.errors import JournalTrouble, Offline, Unstorable
from dumbwaiter.jobs import engine as module
from dumbwaiter.jobs.attempt import Attempt
from dumbwaiter.jobs.engine import AHEAD, LARGE, LARGE_PROBES, SMALL, Engine
from dumbwaiter.jobs.tally import Tally
from dumbwaiter.model import Job
from dumbwaiter.net.http import Http
from dumbwaiter.providers.health import FAILING, Health
from dumbwaiter.providers.provider import Provider
from dumbwaiter.store.lease import Lease, LostLease
from journals import Book, file

postgres, sqlite_book = journals.postgres, journals.sqlite_book
NOW = 1000.0


def fares(*, offline: bool = False, failures: int = 0, probe_at: float = 0.0) -> SimpleNamespace:
    """Returns a provider, as far as an engine looks at it."""
    health = Health()
    health.offline, health.failures, health.probe_at = offline, failures, probe_at
    return SimpleNamespace(health=health)


class Held(Engine):
    """An engine whose attempts do nothing but last."""

    def __init__(self, book: Book, transfers: int, **providers: Any) -> None:
        self.wakes: list[float] = []
        self.ends: dict[str, asyncio.Event] = {}
        context: Any = SimpleNamespace(
            journal=book.journal,
            lease=lambda job: book.journal.lease("me", job.id),
            worker="me",
            clock=lambda: NOW,
            log=None,
            providers={"vod": fares(), **providers},
            resting=lambda _now: {},
            closed=lambda _now: {},
            moved=lambda: None,
            threads=SimpleNamespace(close=lambda: None),
        )
        super().__init__(context, transfers=transfers, wake_at=self.wakes.append)

    async def _attempt(self, job: Job) -> None:
        ended = self.ends[job.path] = asyncio.Event()
        await ended.wait()
        await self.journal.lease("me", job.id).delay(NOW, due_at=NOW + 100, error="", attempts=1)

    async def end(self, *paths: str) -> None:
        tasks = [self._running[id_] for id_, job in self._jobs.items() if job.path in paths]
        for path in paths:
            self.ends.pop(path).set()
        await asyncio.gather(*tasks)
        await self.turn()

    @property
    def at_work(self) -> set[str]:
        return {job.path for job in self._jobs.values()}


def run(book: Book, test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    book.runner.run(test())


def pending(book: Book, size: int, *paths: str, provider: str = "vod") -> None:
    for number, path in enumerate(paths):
        book.enqueue([file(path, size=size, provider=provider)], NOW - 100 + number)


def test_large_files_leave_a_place_and_ask_for_no_turn_that_is_past(sqlite_book: Book) -> None:
    pending(sqlite_book, LARGE + 1, "large 1", "large 2", "large 3")

    async def test() -> None:
        engine = Held(sqlite_book, transfers=2)
        await engine.turn()
        assert engine.at_work == {"large 1"}
        assert engine.wakes == []  # it would be asked again and again
        await engine.end("large 1")
        assert engine.at_work == {"large 2"}
        await engine.close()

    run(sqlite_book, test)


def test_a_small_file_takes_the_place_that_large_ones_leave(sqlite_book: Book) -> None:
    pending(sqlite_book, LARGE + 1, "large 1", "large 2")
    pending(sqlite_book, SMALL, "small")

    async def test() -> None:
        engine = Held(sqlite_book, transfers=2)
        await engine.turn()
        assert engine.at_work == {"large 1", "small"}
        await engine.close()

    run(sqlite_book, test)


def test_small_files_are_under_way_in_groups_once_some_have_ended(
    sqlite_book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dumbwaiter.jobs.engine.time", SimpleNamespace(monotonic=lambda: 5.0))  # all within a second
    pending(sqlite_book, SMALL, *(f"{number:03}" for number in range(5 * AHEAD)))

    async def test() -> None:
        engine = Held(sqlite_book, transfers=4)
        await engine.turn()
        assert len(engine.at_work) == 4
        for _ in range(3):
            await engine.end(*engine.at_work)
        assert 4 < len(engine.at_work) <= 4 + AHEAD
        await engine.close()

    run(sqlite_book, test)


def test_small_files_without_end_do_not_keep_a_larger_one_waiting(sqlite_book: Book) -> None:
    pending(sqlite_book, SMALL, *(f"{number:03}" for number in range(20)))
    pending(sqlite_book, SMALL + 1, "larger")
    pending(sqlite_book, SMALL, *(f"{number:03}" for number in range(20, 200)))

    async def test() -> None:
        engine = Held(sqlite_book, transfers=4)
        await engine.turn()
        rounds = 0
        while "larger" not in engine.at_work:
            rounds += 1
            assert rounds < 10
            await engine.end(*engine.at_work)
        await engine.close()

    run(sqlite_book, test)


@pytest.mark.parametrize(
    ("failures", "probe"), [(FAILING + 1, "small"), (LARGE_PROBES, "large"), (LARGE_PROBES + 1, "small")]
)
def test_a_small_file_tries_whether_anything_gets_through_and_now_and_then_whichever_waits(
    sqlite_book: Book, failures: int, probe: str
) -> None:
    pending(sqlite_book, SMALL + 1, "large", provider="lost")
    pending(sqlite_book, SMALL, "small", provider="lost")

    async def test() -> None:
        engine = Held(sqlite_book, 4, lost=fares(failures=failures))
        await engine.turn()
        assert engine.at_work == {probe}
        await engine.close()

    run(sqlite_book, test)


def test_where_only_large_files_wait_one_of_them_tries(sqlite_book: Book) -> None:
    pending(sqlite_book, SMALL + 1, "large 1", "large 2", provider="lost")

    async def test() -> None:
        engine = Held(sqlite_book, 4, lost=fares(failures=FAILING + 1))
        await engine.turn()
        assert engine.at_work == {"large 1"}
        await engine.close()

    run(sqlite_book, test)


@pytest.mark.parametrize("health", [{"offline": True}, {"failures": FAILING + 1}], ids=str)
@pytest.mark.parametrize("transfers", [1, 4])
def test_a_provider_that_lets_nothing_through_has_one_place(
    sqlite_book: Book, transfers: int, health: dict[str, Any]
) -> None:
    pending(sqlite_book, SMALL, "lost 1", "lost 2", provider="lost")
    pending(sqlite_book, SMALL, "a", "b")

    async def test() -> None:
        engine = Held(sqlite_book, transfers, lost=fares(**health))
        await engine.turn()
        assert engine.at_work == ({"a"} if transfers == 1 else {"a", "b", "lost 1"})
        await engine.close()

    run(sqlite_book, test)


def test_a_provider_that_is_not_reached_time_and_again_is_left_alone_until_its_time(sqlite_book: Book) -> None:
    pending(sqlite_book, SMALL, "lost 1", "lost 2", provider="lost")
    pending(sqlite_book, SMALL, "a")

    async def test() -> None:
        engine = Held(sqlite_book, 4, lost=fares(offline=True, probe_at=NOW + 7))
        await engine.turn()
        assert (engine.at_work, engine.wakes) == ({"a"}, [NOW + 7])
        await engine.close()

    run(sqlite_book, test)


class Lost(Attempt):
    """An attempt whose every try ends without a network, once `meanwhile` has happened."""

    meanwhile: Callable[[], None]

    async def _bring(self, _provider: Provider) -> None:
        self.meanwhile()
        raise Offline("the host cannot be reached")


@pytest.mark.parametrize("changed", [False, True])
def test_what_failed_by_a_network_that_is_another_now_is_tried_at_once(sqlite_book: Book, changed: bool) -> None:
    id_ = sqlite_book.leased(now=NOW)
    sqlite_book.lease(journals.WORKER, id_).delay(NOW, due_at=NOW, error="e", attempts=7)

    async def test() -> None:
        provider = Provider("vod", SimpleNamespace(requests=1, uploads=0), Http(), requested=lambda _count: None)  # type: ignore[arg-type, return-value]
        context: Any = SimpleNamespace(
            journal=sqlite_book.journal,
            lease=lambda job: sqlite_book.journal.lease("me", job.id),
            clock=lambda: NOW,
            log=log.get("test"),
            providers={"vod": provider},
            watch_of=lambda _watch: None,
            tally=Tally(),
        )
        (job,) = await sqlite_book.journal.claim("me", NOW, 1)
        attempt = Lost(context, replace(job, provider="vod"))
        attempt.meanwhile = provider.health.again if changed else lambda: None
        await attempt.run()
        assert provider.health.offline is not changed

    run(sqlite_book, test)
    row = sqlite_book.row(id_)
    assert ((row.due_at == NOW), row.lease, row.attempts) == (changed, None, 8)


@pytest.mark.parametrize("transfers", [1, 4])
def test_who_waits_for_certain_files_has_no_others_begun(sqlite_book: Book, transfers: int) -> None:
    """As `put` without a daemon does: whatever else waits is none of its business, whichever provider it waits for."""
    for provider in ("vod", "art", "lost"):
        pending(sqlite_book, LARGE + 1, f"{provider} large", provider=provider)
        pending(sqlite_book, SMALL, f"{provider} small", "mine" if provider == "lost" else "other", provider=provider)
    sqlite_book.enqueue([file("later", provider="art")], NOW + 50)
    (mine,) = (
        row.id for row in sqlite_book.rows("SELECT id FROM jobs WHERE provider = 'lost' ORDER BY id DESC LIMIT 1")
    )

    async def test() -> None:
        engine = Held(sqlite_book, transfers, art=fares(), lost=fares(failures=FAILING + 1))
        engine.only = [mine]
        await engine.turn()
        await engine.turn()  # it looks for those that have nothing on its way
        assert engine.at_work == {"mine"}
        engine.context.providers["lost"].health.failures = 0
        await engine.end("mine")
        assert engine.at_work == set()
        assert NOW + 100 in engine.wakes
        assert NOW + 50 not in engine.wakes
        await engine.close()

    run(sqlite_book, test)


def test_an_order_that_comes_before_an_attempts_first_step_costs_no_place(sqlite_book: Book) -> None:
    pending(sqlite_book, 1, "a")

    async def test() -> None:
        engine = Held(sqlite_book, transfers=1)
        (job,) = await engine.journal.claim("me", NOW, 1)
        engine._start(job)
        async with engine.without([job.id]):
            assert engine.busy == 0
        await engine.turn()
        assert engine.at_work == {"a"}
        await engine.close()

    run(sqlite_book, test)


def test_what_a_person_orders_begins_nothing_meanwhile(sqlite_book: Book) -> None:
    pending(sqlite_book, 1, "a", "b")
    first = sqlite_book.rows("SELECT id FROM jobs ORDER BY id")[0].id

    async def test() -> None:
        engine = Held(sqlite_book, transfers=4)
        async with engine.without([first]):
            await engine.turn()
            assert engine.at_work == {"b"}
        await engine.turn()
        assert engine.at_work == {"a", "b"}
        await engine.close()

    run(sqlite_book, test)


def test_of_two_orders_for_one_job_the_first_to_end_begins_nothing(sqlite_book: Book) -> None:
    pending(sqlite_book, 1, "a")
    (one,) = sqlite_book.rows("SELECT id FROM jobs")

    async def test() -> None:
        engine = Held(sqlite_book, transfers=1)
        async with engine.without([one.id]):
            async with engine.without([one.id]):
                pass
            await engine.turn()
            assert engine.at_work == set()
        await engine.turn()
        assert engine.at_work == {"a"}
        await engine.close()

    run(sqlite_book, test)


def test_a_job_that_is_taken_again_before_its_attempt_is_over_keeps_its_place(sqlite_book: Book) -> None:
    pending(sqlite_book, 1, "a")
    begun: list[Any] = []

    class Again(Held):
        async def _attempt(self, job: Job) -> None:
            begun.append(asyncio.current_task())
            if len(begun) == 1:
                await self.journal.lease("me", job.id).delay(NOW, due_at=NOW, error="", attempts=1)
                await self.turn()  # as when its last step is on the disk, and its task has not woken up yet
            else:
                await super()._attempt(job)

    async def test() -> None:
        engine = Again(sqlite_book, transfers=2)
        await engine.turn()
        await asyncio.sleep(0)
        await begun[0]
        await asyncio.sleep(0)
        assert len(begun) == 2
        assert engine.at_work == {"a"}
        await engine.end("a")
        assert engine.busy == 0
        await engine.close()

    run(sqlite_book, test)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Unstorable("the journal cannot hold that: a NUL"), "the journal cannot hold that: a NUL"),
        (ZeroDivisionError("division by zero"), "an error in dumbwaiter itself: ZeroDivisionError"),
    ],
)
def test_what_no_attempt_expects_is_this_jobs_trouble_alone(
    sqlite_book: Book, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    pending(sqlite_book, 1, "a")

    class Odd:
        def __init__(self, _context: Any, _job: Job) -> None:
            pass

        async def run(self) -> None:
            raise error

    monkeypatch.setattr("dumbwaiter.jobs.engine.Attempt", Odd)

    class Real(Held):
        _attempt = Engine._attempt  # type: ignore[assignment]

    async def test() -> None:
        engine = Real(sqlite_book, transfers=2)
        engine.log = log.get("test")
        await engine.turn()
        await asyncio.gather(*engine._running.values())
        await engine.close()
        assert engine.trouble is None

    run(sqlite_book, test)
    (row,) = sqlite_book.rows("SELECT due_at, error, lease, attempts FROM jobs")
    assert (row.due_at > NOW, row.error, row.lease, row.attempts) == (True, said, None, 1)


def test_a_fault_that_cannot_be_noted_either_is_not_met_again_and_again(
    sqlite_book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending(sqlite_book, SMALL, "a")
    tries: list[str] = []

    class Odd:
        def __init__(self, _context: Any, job: Job) -> None:
            self.path = job.path

        async def run(self) -> None:
            tries.append(self.path)
            raise ZeroDivisionError

    async def damaged(*_values: Any, **_named: Any) -> None:
        raise JournalTrouble("the journal cannot be written: disk I/O error")

    monkeypatch.setattr(module, "Attempt", Odd)
    monkeypatch.setattr(module, "ceiling", lambda _failures: 1000.0)
    monkeypatch.setattr(Lease, "delay", damaged)

    async def test() -> None:
        engine = Held(sqlite_book, 2)
        engine.log = log.get("test")
        monkeypatch.setattr(engine, "_attempt", partial(Engine._attempt, engine))
        async with asyncio.timeout(20):
            for _ in range(10):
                await engine.turn()
                await asyncio.sleep(0)
        assert tries == ["a", "a"]
        assert engine.trouble == "the journal cannot be written: disk I/O error"
        await engine.close()

    run(sqlite_book, test)


@pytest.mark.parametrize("transfers", [2, 4])
@pytest.mark.parametrize("size", [SMALL, SMALL + 1])
def test_a_provider_with_many_due_keeps_no_other_from_its_turn(
    sqlite_book: Book, transfers: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK", 0.0)
    pending(sqlite_book, size, *map(str, range(8)))

    async def test() -> None:
        engine = Held(sqlite_book, transfers, other=fares())
        await engine.turn()
        assert engine.busy == transfers
        others = [file(name, size=size, provider="other") for name in ("late", "later")]
        await sqlite_book.journal.arrivals.enqueue(others, NOW)
        await engine.turn()
        assert "late" in engine.at_work  # one that is slow may have no end
        assert engine.busy == transfers + 1
        await engine.end(next(iter(engine.at_work - {"late"})))
        assert "late" in engine.at_work
        assert size == SMALL or engine.busy == transfers + 1
        await engine.close()

    run(sqlite_book, test)


def test_a_provider_whose_turn_comes_while_all_places_are_taken_is_thought_of(
    sqlite_book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of its own that waits for its time, and one that came a moment after the last look."""
    monkeypatch.setattr(module, "LOOK", 1000.0)  # seconds
    pending(sqlite_book, SMALL, *map(str, range(8)))

    async def test() -> None:
        engine = Held(sqlite_book, 4, other=fares())
        await sqlite_book.journal.arrivals.enqueue([file("later", size=1, provider="other")], NOW + 50)
        await engine.turn()
        assert engine.wakes == [NOW + 1000]  # all places were taken after the look
        await engine.turn()
        assert engine.wakes == [NOW + 1000, NOW + 50]
        await sqlite_book.journal.arrivals.enqueue([file("late", size=1, provider="other")], NOW)
        for _ in range(2):
            await engine.turn()
        assert "late" not in engine.at_work
        assert engine.wakes == [NOW + 1000, NOW + 50, NOW + 1000]
        engine._look_at = 0.0
        await engine.turn()
        assert "late" in engine.at_work
        await engine.close()

    run(sqlite_book, test)


def test_who_wants_one_file_at_a_time_gets_that(sqlite_book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 0.0)
    pending(sqlite_book, SMALL, "a")
    pending(sqlite_book, SMALL, "b", provider="other")

    async def test() -> None:
        engine = Held(sqlite_book, 1, other=fares())
        for _ in range(2):
            await engine.turn()
        assert engine.at_work == {"a"}
        await engine.close()

    run(sqlite_book, test)


def test_a_claim_whose_answer_is_lost_leaves_no_job_to_nobody(
    sqlite_book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server committed, and the connection broke before it said so."""
    pending(sqlite_book, SMALL, "a")
    real, lose = sqlite_book.writer._transaction, [True]

    def transaction(group: Any) -> list[Any]:
        results = real(group)
        if lose and any("claim" in wish.work.__qualname__ for wish in group):
            lose.clear()
            raise JournalTrouble("the journal cannot be written: the server closed the connection")
        return results

    monkeypatch.setattr(sqlite_book.writer, "_transaction", transaction)

    async def test() -> None:
        engine = Held(sqlite_book, 2)
        engine.log = log.get("test")
        await engine.turn()
        assert not lose
        assert engine.trouble is not None
        await engine.turn()
        assert engine.at_work == {"a"}
        await engine.close()

    run(sqlite_book, test)


def test_a_standby_server_that_missed_the_latest_commits_leaves_no_job_to_nobody(postgres: URL) -> None:
    with journals.another(postgres) as url, Book(url) as book:
        pending(book, SMALL, "a")

        async def test() -> None:
            engine = Held(book, 2)
            await engine.turn()
            await engine.end("a")
            assert not engine.at_work
            journals._order(url, f"UPDATE jobs SET lease = 'me', lease_until = {NOW}, due_at = {NOW - 1}")
            journals._order(
                url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()",
            )
            await engine.turn()  # finds the connection broken, and makes another one
            await engine.turn()
            assert engine.at_work == {"a"}
            await engine.close()

        run(book, test)


def test_a_step_whose_answer_is_lost_leaves_no_job_to_nobody(
    sqlite_book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending(sqlite_book, SMALL, "a")
    tries, twice = 0, asyncio.Event()

    class Lost:
        def __init__(self, *_arguments: Any) -> None: ...

        async def run(self) -> None:
            nonlocal tries
            tries += 1
            if tries == 2:
                twice.set()
                await asyncio.Event().wait()
            raise LostLease

        async def give_back(self) -> None: ...

    monkeypatch.setattr("dumbwaiter.jobs.engine.Attempt", Lost)

    async def test() -> None:
        engine = Held(sqlite_book, 2)
        engine.log = log.get("test")
        monkeypatch.setattr(engine, "_attempt", partial(Engine._attempt, engine))
        await engine.turn()
        async with asyncio.timeout(20):
            await twice.wait()
        await engine.close()

    run(sqlite_book, test)


@pytest.mark.parametrize("breaks", ["a page", "the connection"])
def test_a_file_whose_end_cannot_be_noted_is_not_sent_again_and_again(
    sqlite_book: Book, monkeypatch: pytest.MonkeyPatch, breaks: str
) -> None:
    """A page of the journal is damaged, say, or its server ends the connection each time.

    Jobs are taken as ever, and of one nothing can be noted.
    """
    pending(sqlite_book, SMALL, "a", "b")
    tries: list[str] = []

    class Unnoted:
        def __init__(self, _context: Any, job: Job) -> None:
            self.path = job.path

        async def run(self) -> None:
            tries.append(self.path)
            if self.path == "a":
                sqlite_book.writer.connections += breaks == "the connection"  # made anew
                raise JournalTrouble("the journal cannot be written: disk I/O error")
            await asyncio.Event().wait()

        async def give_back(self) -> None: ...

    monkeypatch.setattr(module, "Attempt", Unnoted)
    monkeypatch.setattr(module, "ceiling", lambda _failures: 1000.0)

    async def test() -> None:
        engine = Held(sqlite_book, 2)
        engine.log = log.get("test")
        monkeypatch.setattr(engine, "_attempt", partial(Engine._attempt, engine))
        async with asyncio.timeout(20):
            for _ in range(10):
                await engine.turn()
                await asyncio.sleep(0)
        assert sorted(tries) == ["a", "a", "b"]
        assert engine.trouble == "the journal cannot be written: disk I/O error"
        assert any(NOW + 900 < when < NOW + 1100 for when in engine.wakes)
        await engine.close()

    run(sqlite_book, test)


def test_trouble_that_is_over_is_not_told_any_more_while_all_places_are_taken(sqlite_book: Book) -> None:
    pending(sqlite_book, SMALL, "a", "b", "c")

    async def test() -> None:
        engine = Held(sqlite_book, 1)
        engine.trouble = "its disk is full"
        await engine.turn()
        assert (engine.busy, engine.trouble) == (1, None)
        await engine.close()

    run(sqlite_book, test)
