"""What goes on without getting anywhere comes to an end: the engine at work, with waits of no length."""

import asyncio
import errno
import math
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import update

import hand_made
from dumbwaiter import report, transports
from dumbwaiter.app import App
from dumbwaiter.brokers import jiandaoyun
from dumbwaiter.catalog import Catalog
from dumbwaiter.control.orders import Orders
from dumbwaiter.errors import JournalTrouble
from dumbwaiter.files import disks
from dumbwaiter.files.roots import disk_of
from dumbwaiter.jobs import attempt, engine, sending
from dumbwaiter.jobs.attempt import IN_VAIN
from dumbwaiter.jobs.progress import Progress
from dumbwaiter.jobs.sending import LATE_MAX
from dumbwaiter.jobs.upload import IN_FLIGHT, FileUpload
from dumbwaiter.lifecycle import GONE
from dumbwaiter.model import MIB, Stamp
from dumbwaiter.net.http import SKEW
from dumbwaiter.net.slices import Unreadable
from dumbwaiter.policy import AT_ONCE, DEAR
from dumbwaiter.providers import health
from dumbwaiter.providers.grants import OVER
from dumbwaiter.providers.health import REFUSALS
from dumbwaiter.store.arrivals import Candidate
from dumbwaiter.store.lease import Lease
from dumbwaiter.store.tables import jobs
from inside import daemon, put, status, until
from program import PATIENCE, Vendors


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the chance out of every wait."""
    monkeypatch.setattr(attempt, "random", SimpleNamespace(random=lambda: 0.0))


@pytest.fixture(autouse=True)
def closed(vendors: Vendors, tmp_path: Path) -> Iterator[None]:
    """However an attempt ends, its file is not left open: after some thousand of them no other could be opened."""
    yield
    links = [_leads_to(one) for one in Path("/proc/self/fd").iterdir()]
    files = (str(tmp_path), os.path.join(vendors.sandbox.data, "drop"))
    of_daemon = tuple(str(tmp_path / name) for name in ("state", "cache", "runtime"))
    assert [link for link in links if link.startswith(files) and not link.startswith(of_daemon)] == []


def _leads_to(descriptor: Path) -> str:
    with suppress(FileNotFoundError):  # the listing's own
        return os.readlink(descriptor)
    return ""


def state(facts: dict[str, Any], provider: str) -> tuple[str, str | None]:
    (one,) = [one for one in facts["providers"] if one["name"] == provider]
    return one["state"], one["error"]


async def failed(app: App) -> str:
    """Returns why the one file needs a person."""
    (job,) = (await until(lambda facts: facts["jobs"][0]["state"] == "rejected", app))["jobs"]
    return str(job["error"])


def in_watch(app: App, name: str) -> Path:
    return Path(app.config.watch["netease"].path) / name


async def find(app: App, path: Path, content: bytes) -> int:
    """Makes a job of a file in a watched folder, as a scan does."""
    await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
    await asyncio.to_thread(path.write_bytes, content)
    found = Candidate("netease", path.name, "netease", Stamp.of(await asyncio.to_thread(path.stat)))
    (id_,) = await app.journal.arrivals.enqueue([found], time.time())
    app.look_for_work()
    return id_


@asynccontextmanager
async def begun(vendors: Vendors, folder: Path) -> AsyncIterator[tuple[App, int, int]]:
    """The app with a film of 12 MiB that is at rest, its id, and how much of it was acknowledged; it goes on when kicked."""
    rests: dict[str, float] = {}

    class Upload(FileUpload):
        async def save(self, *values: Any, **named: Any) -> None:
            await super().save(*values, **named)
            rests["netease"] = math.inf

    async with daemon(vendors, folder) as app:
        with pytest.MonkeyPatch.context() as resting:
            resting.setattr(sending, "FileUpload", Upload)
            resting.setattr(app.steering, "providers", lambda _now: rests)
            id_ = await put(app, "netease", folder / "a.mov", bytes(12 * MIB))
            facts = await until(lambda facts: bool(rests) and not facts["jobs"][0]["active"], app)
        assert facts["jobs"][0]["sent"] > 0
        yield app, id_, facts["jobs"][0]["sent"]


@pytest.mark.parametrize(
    ("provider", "call", "fault", "words"),
    [
        ("jiandaoyun", "form", "kodo.form:bad-token", "Qiniu refuses the upload token"),
        ("netease", "put", "nos.put:403", "NetEase refuses the upload token"),  # which stands in the journal
    ],
)
def test_an_account_whose_new_permissions_are_all_refused_is_blocked(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str, call: str, fault: str, words: str
) -> None:
    monkeypatch.setattr(health, "REFUSED_APART", 0.0)
    vendors.faults(fault)

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            id_ = await put(app, provider, tmp_path / "a.txt", b"a")
            end = ", as it did those before: see to the account"
            facts = await until(lambda facts: (facts["jobs"][0]["error"] or "").endswith(end), app)
            sentence = facts["jobs"][0]["error"]
            assert sentence.startswith(words)
            assert state(facts, provider) == ("blocked", sentence)
            assert facts["totals"]["pending"] == 1
            assert len(vendors.log(call)) == REFUSALS
            vendors.faults("")
            await Orders(app).retry([id_])
            await until(lambda facts: state(facts, provider) == ("ready", None), app)
            assert (await status(app))["totals"]["done"] == 1

    asyncio.run(test())


@pytest.mark.parametrize("least", [1, IN_VAIN + 5])
def test_a_file_that_always_begins_anew_is_given_up(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int
) -> None:
    monkeypatch.setattr(attempt, "IN_VAIN_MIN", least)
    vendors.faults("nos.put:beyond")

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            id_ = await put(app, "netease", tmp_path / "a.txt", b"a")
            times = max(IN_VAIN, least)
            words = f"NetEase claims to have more than was sent; it was sent {times} times in vain"
            assert await failed(app) == words
            assert len(vendors.log("put")) == times
            vendors.faults("")
            await Orders(app).retry([id_])
            await until(lambda facts: facts["totals"]["done"] == 1, app)

    asyncio.run(test())


def test_a_file_that_was_sent_in_vain_often_is_sent_less_often(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "IN_VAIN_MIN", 1)
    monkeypatch.setattr(attempt, "random", SimpleNamespace(random=lambda: 1e-9 if len(sent()) < IN_VAIN else 1.0))
    vendors.faults("presign.put:cut-after")

    def sent() -> list[dict[str, Any]]:
        return vendors.log("put")

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            id_ = await put(app, "recipe", tmp_path / "a.txt", b"a")
            far = time.time() + DEAR - 1
            await until(lambda facts: facts["jobs"][0]["due_at"] > far, app)
            assert len(sent()) == IN_VAIN
            vendors.faults("presign.sign:500")  # what costs no byte is tried as often as ever
            await Orders(app).retry([id_])
            await until(lambda facts: far - DEAR / 2 > facts["jobs"][0]["due_at"] > time.time(), app)

    asyncio.run(test())


def test_a_file_that_is_always_refused_once_all_of_it_was_sent_is_given_up(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "IN_VAIN_MIN", 1)
    monkeypatch.setattr(health, "REFUSED_APART", 0.0)
    vendors.faults("imagex.commit:uri-failed")

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            await put(app, "jimeng", tmp_path / "a.png", b"\x89PNG\r\n\x1a\n" + bytes(99))
            assert await failed(app) == f"ImageX did not keep the file; it was sent {IN_VAIN} times in vain"

    asyncio.run(test())


def test_a_permission_that_always_ends_on_the_way_is_the_files_trouble_and_not_the_accounts(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "REFUSED_APART", 0.0)
    monkeypatch.setattr(health, "REFUSALS", 1)
    monkeypatch.setattr(jiandaoyun, "LIFE", 0.5)  # seconds; more would be over on a busy machine before it is used
    vendors.faults("kodo.form:expired-token,latency=700ms")

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            await put(app, "jiandaoyun", tmp_path / "a.txt", b"a")
            words = "Qiniu refuses the upload token; it takes longer to send than the provider's permission lasts"
            assert await failed(app) == words
            assert len(vendors.log("form")) == LATE_MAX
            assert state(await status(app), "jiandaoyun")[0] == "ready"

    asyncio.run(test())


def test_a_permission_that_ends_between_two_parts_is_replaced_and_what_was_sent_counts(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "LATE_MAX", 1)
    vendors.faults("oss.part:expired@2")

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            broker = app.providers["careyshop-sts"].broker
            grants = broker.grants

            async def soon_over(*asked: Any) -> Any:
                return [replace(one, expires_at=time.time() + SKEW) for one in await grants(*asked)]

            monkeypatch.setattr(broker, "grants", soon_over)
            app.engine.context.threads.parts = 1  # the first is acknowledged when the second is refused
            await put(app, "careyshop-sts", tmp_path / "a.mov", bytes(9 * MIB))
            facts = await until(lambda facts: facts["totals"]["done"] == 1, app)
            assert facts["totals"]["grants_requested"] == 2
            assert len(vendors.log("begin")) == 1

    asyncio.run(test())


@pytest.mark.parametrize("another", [True, False])
def test_parts_that_are_not_taken_as_they_are_go_another_way_if_there_is_one(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another: bool
) -> None:
    vendors.faults("kodo.complete:400")
    if not another:
        left = tuple(row for row in transports.TRANSPORTS if row.name != "qiniu_form_large")
        monkeypatch.setattr(transports, "TRANSPORTS", left)

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            await put(app, "jiandaoyun", tmp_path / "a.bin", bytes(4 * MIB + 1))
            if another:
                await until(lambda facts: facts["totals"]["done"] == 1, app)
            else:
                words = "Qiniu does not take the parts as they are; no way to upload 4194305 bytes with a QiniuTicket"
                assert await failed(app) == words
            assert [len(vendors.log(call)) for call in ("complete", "form")] == [1, int(another)]
            assert (await status(app))["trouble"] is None

    asyncio.run(test())


def test_a_disk_that_does_not_answer_keeps_no_place_from_other_files(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "ANSWER", 0.2)
    answers, opened = threading.Event(), attempt.open_version

    def hangs(root: str, path: str, stamp: Stamp) -> int:
        assert not path.startswith("dead") or answers.wait(100)
        return opened(root, path, stamp)

    monkeypatch.setattr(attempt, "open_version", hangs)

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            disk = Path(app.config.watch["netease"].path)
            await asyncio.to_thread(disk.mkdir, parents=True, exist_ok=True)
            try:
                dead = [disk / f"dead{number}.bin" for number in range(app.config.limits.transfers)]
                for path in dead:
                    await asyncio.to_thread(path.write_bytes, path.name.encode())
                await Orders(app).put(
                    list(map(str, dead)), "netease", None
                )  # in one go: once it hangs, nothing there is taken
                await put(app, "netease", tmp_path / "alive.bin", b"alive")
                facts = await until(lambda facts: facts["totals"]["done"] == 1, app)
                assert {one["error"] for one in facts["jobs"]} <= {None, f"the folder {disk} does not answer"}
                answers.set()
                await until(lambda facts: facts["totals"]["pending"] + facts["totals"]["stored"] == 0, app)
            finally:
                answers.set()

    asyncio.run(test())


def test_a_file_that_changes_while_it_is_sent_is_told_of_with_the_time_that_cost(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, float]] = []

    class Upload(FileUpload):
        async def save(self, *values: Any, **named: Any) -> None:
            with (tmp_path / "disk.img").open("ab") as file:
                file.write(b"more")
            await super().save(*values, **named)

    monkeypatch.setattr(sending, "FileUpload", Upload)

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            monkeypatch.setattr(app.intake, "outrun", lambda _watch, path, seconds: told.append((path, seconds)))
            await put(app, "netease", tmp_path / "disk.img", bytes(12 * MIB))
            await until(lambda facts: facts["totals"]["pending"] == 0, app)
            ((path, seconds),) = told
            assert path.endswith("disk.img")
            assert seconds > 0

    asyncio.run(test())


def test_a_file_that_goes_while_it_is_sent_is_as_new_should_it_come_back(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, aside = tmp_path / "disk.img", tmp_path / "aside"

    class Upload(FileUpload):
        async def save(self, *values: Any, **named: Any) -> None:
            if path.exists():
                path.rename(aside)
            await super().save(*values, **named)

    monkeypatch.setattr(sending, "FileUpload", Upload)

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            id_ = await put(app, "netease", path, bytes(12 * MIB))
            await until(lambda facts: facts["totals"]["superseded"] == 1, app)
            (job,) = await asyncio.to_thread(report.jobs_by_id, app.reader, [id_])
            assert job.error == GONE

    asyncio.run(test())


def test_a_file_that_is_not_found_where_a_disk_is_away_waits_for_that(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            away = "the folder is away"
            monkeypatch.setattr(app.watches, "away", lambda _watch: away)
            orders = Orders(app)
            await orders.pause("netease", None)
            id_ = await put(app, "netease", tmp_path / "a.txt", b"a")
            (tmp_path / "a.txt").rename(tmp_path / "elsewhere")
            await orders.resume("netease")
            facts = await until(lambda facts: facts["jobs"][0]["error"] == away, app)
            assert (facts["jobs"][0]["state"], state(facts, "netease")) == ("pending", ("ready", None))
            away = ""
            await orders.retry([id_])
            await until(lambda facts: facts["totals"]["superseded"] == 1, app)

    asyncio.run(test())


def test_a_file_is_asked_for_as_what_it_is_and_not_as_what_it_is_called(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            broker = app.providers["netease"].broker
            grants = broker.grants

            async def note(asks: Any, desk: Any) -> Any:
                asked.extend(one.mime for one in asks)
                return await grants(asks, desk)

            monkeypatch.setattr(broker, "grants", note)
            await put(app, "netease", tmp_path / "a.txt", b"\x89PNG\r\n\x1a\n" + bytes(99))
            facts = await until(lambda facts: facts["totals"]["done"] == 1, app)
            assert asked == ["image/png"]
            assert (facts["totals"]["bytes_sent"], facts["totals"]["bytes_resent"]) == (107, 0)

    asyncio.run(test())


@pytest.mark.parametrize(
    ("step", "error", "words"),
    [
        ("mime_of", OSError(errno.EIO, "Input/output error"), "the file cannot be read: Input/output error"),
        ("run", OSError(errno.EIO, "Input/output error"), "the file cannot be read: Input/output error"),
        ("run", Unreadable("Input/output error"), "the file cannot be read: Input/output error"),
        ("run", TimeoutError(), "the folder {disk} does not answer"),
    ],
)
def test_a_file_that_cannot_be_read_waits_and_says_why(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception, words: str
) -> None:
    def fails(*_values: Any) -> Any:
        raise error

    monkeypatch.setattr(*((attempt, step) if step == "mime_of" else (FileUpload, step)), fails)

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            await put(app, "netease", tmp_path / "a.mov", b"a")
            facts = await until(lambda facts: facts["jobs"][0]["error"] is not None, app)
            assert facts["jobs"][0]["error"] == words.format(disk=disk_of(str(tmp_path)))
            assert (facts["totals"]["pending"], state(facts, "netease")) == (1, ("ready", None))

    asyncio.run(test())


@pytest.mark.parametrize(
    ("faults", "grants"),
    [("nos.put:403@1", 2), ("nos.put:beyond@1,vod.query:500@1", 1)],
    ids=["another permission, for another object", "from its first byte"],
)
def test_what_was_begun_begins_anew_at_once_where_the_provider_does_not_go_on(
    vendors: Vendors, tmp_path: Path, faults: str, grants: int
) -> None:
    async def test() -> None:
        async with begun(vendors, tmp_path) as (app, _, sent):
            assert sent == 8 * MIB
            vendors.faults(faults)
            app.engine.kick()
            facts = await until(lambda facts: facts["totals"]["done"] == 1, app)
            assert (facts["totals"]["grants_requested"], facts["totals"]["bytes_resent"]) == (grants, 12 * MIB)

    asyncio.run(test())


def test_a_file_that_begins_anew_each_time_is_tried_less_and_less_often(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much of it gets there first, that counts for nothing."""
    monkeypatch.setattr(attempt, "random", SimpleNamespace(random=lambda: 1.0))
    vendors.faults("nos.put:beyond@2x99")

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            orders = Orders(app)
            await orders.pause("netease", None)
            id_ = await put(app, "netease", tmp_path / "a.mov", bytes(12 * MIB))
            failed = update(jobs).where(jobs.c.id == id_).values(attempts=5)
            await app.journal.writer.call(lambda connection: connection.execute(failed))
            await orders.resume("netease")
            facts = await until(lambda facts: facts["jobs"][0]["error"] is not None, app)
            assert facts["jobs"][0]["attempts"] == 6
            assert len(vendors.log("put")) == 2 + AT_ONCE

    asyncio.run(test())


def test_only_progress_lets_an_attempt_count_as_the_first_one(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what breaks off each time would be tried as often as what never broke off."""
    monkeypatch.setattr(attempt, "random", SimpleNamespace(random=lambda: 1.0))  # the next one is this test's

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            orders = Orders(app)
            await orders.pause("netease", None)
            id_ = await put(app, "netease", tmp_path / "a.mov", bytes(12 * MIB))
            attempts = []
            for fault in ("nos.put:500@2x99", "nos.put:500"):  # one chunk is taken, and then none
                vendors.faults(fault)
                failed = update(jobs).where(jobs.c.id == id_).values(attempts=5, error=None, due_at=0.0)
                await app.journal.writer.call(lambda connection, failed=failed: connection.execute(failed))
                await orders.resume("netease")
                app.engine.kick()
                facts = await until(lambda facts: facts["jobs"][0]["error"] is not None, app)
                attempts.append((facts["jobs"][0]["attempts"], facts["jobs"][0]["sent"] > 0))
            assert attempts == [(1, True), (6, True)]

    asyncio.run(test())


def test_a_receipt_that_the_journal_does_not_take_is_the_journals_trouble(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken for a job that another one has, the file would be sent again and again without a pause."""
    full = "the journal cannot be written: its disk is full"

    def fails(*_values: Any, **_named: Any) -> Future[None]:
        commit: Future[None] = Future()
        commit.set_exception(JournalTrouble(full))
        return commit

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            monkeypatch.setattr(Lease, "store", fails)
            await put(app, "jimeng", tmp_path / "a.png", b"\x89PNG\r\n\x1a\n" + bytes(99))
            await until(lambda facts: facts["trouble"] == full, app)

    asyncio.run(test())


@pytest.mark.parametrize("provider", ["recipe", "netease"])
def test_a_receipt_that_the_journal_did_not_take_is_noted_later_and_its_file_sent_once(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    """A disk that is full for a while: where the provider names the objects, each further upload would leave one behind."""
    before = len(vendors.http.get("/_sandbox/objects").json())

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            store, full = Lease.store, ["first", "second"]

            def fails(*values: Any, **named: Any) -> Future[Any]:
                if not full:
                    return store(*values, **named)
                full.pop()
                commit: Future[Any] = Future()
                commit.set_exception(JournalTrouble("the journal cannot be written: its disk is full"))
                return commit

            monkeypatch.setattr(Lease, "store", fails)
            monkeypatch.setattr(engine, "ceiling", lambda _failures: 0.0)
            await put(app, provider, tmp_path / "a.bin", b"once")
            facts = await until(lambda facts: facts["totals"]["done"] == 1, app)
            assert not full
            assert facts["totals"]["bytes_sent"] == 4
            assert facts["totals"]["bytes_resent"] == 0
        assert len(vendors.http.get("/_sandbox/objects").json()) == before + 1

    asyncio.run(test())


def test_what_a_person_orders_once_more_is_sent_whatever_the_journal_did_not_take_of_the_first_time(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite gives the number of the latest job again once that is gone."""

    def fails(*_values: Any, **_named: Any) -> Future[Any]:
        commit: Future[Any] = Future()
        commit.set_exception(JournalTrouble("the journal cannot be written: its disk is full"))
        return commit

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            with monkeypatch.context() as full:
                full.setattr(Lease, "store", fails)
                full.setattr(engine, "ceiling", lambda _failures: 3600.0)
                id_ = await put(app, "netease", tmp_path / "a.bin", b"once")
                await until(lambda _facts: bool(app.engine.unnoted([id_])), app)
                await Orders(app).forget([id_])
            assert await Orders(app).put([str(tmp_path / "a.bin")], "netease", None, again=True) == [id_]
            await until(lambda facts: facts["totals"]["done"] == 1, app)

    asyncio.run(test())
    assert len(vendors.log("put")) == 2


def test_a_vendor_is_asked_for_the_rest_once_the_receipt_is_on_the_disk(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked may cost: after a kill it would be asked again, of a file that is sent again."""
    asked, order = threading.Event(), []

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            broker, store = app.providers["netease"].broker, Lease.store
            follow_up = broker.follow_up

            def slowly(*values: Any, **named: Any) -> Any:
                app.journal.writer.submit(lambda _connection: asked.wait(0.3))
                stored = store(*values, **named)
                stored.add_done_callback(lambda _: order.append("stored"))
                return stored

            async def note(*values: Any) -> Any:
                order.append("asked")
                asked.set()
                return await follow_up(*values)

            monkeypatch.setattr(Lease, "store", slowly)
            monkeypatch.setattr(broker, "follow_up", note)
            await put(app, "netease", tmp_path / "a.mov", b"a")
            await until(lambda facts: facts["totals"]["done"] == 1, app)
            assert order[:2] == ["stored", "asked"]

    asyncio.run(test())


def test_a_checkpoint_of_another_way_to_send_counts_for_nothing(vendors: Vendors, tmp_path: Path) -> None:
    """The configuration, or the program, was another one when the file was begun."""

    async def test() -> None:
        async with begun(vendors, tmp_path) as (app, id_, sent):
            other = update(jobs).where(jobs.c.id == id_).values(checkpoint='["another"]')
            await app.journal.writer.call(lambda connection: connection.execute(other))
            app.engine.kick()
            facts = await until(lambda facts: facts["totals"]["done"] == 1, app)
            assert (facts["totals"]["bytes_sent"], facts["totals"]["bytes_resent"]) == (12 * MIB + sent, sent)

    asyncio.run(test())


def test_a_file_that_was_begun_by_the_time_of_a_backup_is_sent_from_its_beginning(
    vendors: Vendors, tmp_path: Path
) -> None:
    """Its place at the provider stands in no backup, as it may be a permission; its key does."""

    async def test() -> None:
        async with begun(vendors, tmp_path) as (app, id_, sent):
            restored = update(jobs).where(jobs.c.id == id_).values(checkpoint=None)
            await app.journal.writer.call(lambda connection: connection.execute(restored))
            app.engine.kick()
            facts = await until(lambda facts: facts["totals"]["done"] == 1, app)
            assert facts["totals"]["bytes_sent"] == sent + 12 * MIB

    asyncio.run(test())


def test_a_pause_that_comes_while_progress_is_written_stops_the_file_and_nothing_else(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is slow: one point is on its way to the journal, and the next one waits for that."""
    disk, waits = threading.Event(), threading.Event()

    class Watched(Progress):
        def _push(self) -> None:
            super()._push()
            if self._point is not None:
                waits.set()

    monkeypatch.setattr(sending, "Progress", Watched)

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            advance = Lease.advance

            def slowly(*values: Any, **named: Any) -> Any:
                if not disk.is_set():
                    app.journal.writer.submit(lambda _connection: disk.wait(PATIENCE))
                return advance(*values, **named)

            monkeypatch.setattr(Lease, "advance", slowly)
            resting = app.steering.providers
            id_ = await put(app, "netease", tmp_path / "film.mov", bytes(20 * MIB))
            try:
                assert await asyncio.to_thread(waits.wait, PATIENCE)
                monkeypatch.setattr(app.steering, "providers", lambda _now: {"netease": math.inf})
            finally:
                disk.set()
            (job,) = (await until(lambda facts: not facts["jobs"][0]["active"], app))["jobs"]
            assert (job["id"], job["state"], job["sent"] >= 8 * MIB) == (id_, "pending", True)
            monkeypatch.setattr(app.steering, "providers", resting)
            app.engine.kick()
            await until(lambda facts: facts["totals"]["done"] == 1, app)

    asyncio.run(test())


def test_a_watch_that_rests_stops_what_is_sent_of_it_and_not_what_a_person_ordered(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its window closes."""
    rests: dict[str, float] = {}

    class Upload(FileUpload):
        async def save(self, *values: Any, **named: Any) -> None:
            await super().save(*values, **named)
            rests["netease"] = math.inf

    monkeypatch.setattr(sending, "FileUpload", Upload)

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            monkeypatch.setattr(app.steering, "watches", lambda _now: rests)
            id_ = await find(app, in_watch(app, "film.mov"), bytes(20 * MIB))
            facts = await until(lambda facts: bool(rests) and not facts["jobs"][0]["active"], app)
            (job,) = facts["jobs"]
            assert (job["state"], job["attempts"], 0 < job["sent"] < 20 * MIB) == ("pending", 0, True)
            await Orders(app).retry([id_])
            await until(lambda facts: facts["totals"]["done"] == 1, app)

    asyncio.run(test())


def test_a_file_that_changes_while_its_twin_is_looked_for_becomes_no_name_of_that(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            first, second = in_watch(app, "first.mov"), in_watch(app, "second.mov")
            await find(app, first, b"film")
            await until(lambda facts: facts["totals"]["done"] == 1, app)
            broker = app.providers["netease"].broker
            still = broker.still

            async def changes(*asked: Any) -> Any:
                with second.open("ab") as file:
                    file.write(b"more")
                return await still(*asked)

            monkeypatch.setattr(broker, "still", changes)
            await find(app, second, b"film")
            facts = await until(lambda facts: facts["totals"]["superseded"] == 1, app)
            assert (facts["totals"]["done"], facts["totals"]["bytes_sent"]) == (1, 4)

    asyncio.run(test())


def test_an_empty_file_is_the_twin_of_none(vendors: Vendors, tmp_path: Path) -> None:
    """Empty files have nothing in common but that."""

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            for number in (1, 2):
                await find(app, in_watch(app, f"{number}.mov"), b"")
                await until(lambda facts, number=number: facts["totals"]["done"] == number, app)
            entries = await asyncio.to_thread(Catalog(app.reader).history)
            assert len({one.key for one in entries}) == 2

    asyncio.run(test())


def test_after_a_new_permission_is_refused_one_part_tries_the_next(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "REFUSED_APART", 0.0)
    monkeypatch.setattr(health, "REFUSALS", 2)
    vendors.faults("kodo.part:bad-token")

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            provider = app.providers["jiandaoyun"]
            assert provider.abreast.most > 1
            id_ = await put(app, "jiandaoyun", tmp_path / "film.mov", bytes(40 * MIB))
            await until(lambda facts: state(facts, "jiandaoyun")[0] == "blocked", app)
            assert provider.abreast.most == 1
            vendors.faults("")
            await Orders(app).retry([id_])
            await until(lambda facts: facts["totals"]["done"] == 1, app)

    asyncio.run(test())


def test_permissions_that_are_over_when_they_come_cost_one_file_and_block_no_account(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "REFUSED_APART", 0.0)
    monkeypatch.setattr(health, "REFUSALS", 1)
    vendors.faults("presign.put:403")
    asked = 0

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            broker = app.providers["recipe"].broker
            grants = broker.grants

            async def over(*wanted: Any) -> Any:
                nonlocal asked
                asked += 1
                return [replace(one, expires_at=1.0) for one in await grants(*wanted)]

            monkeypatch.setattr(broker, "grants", over)
            id_ = await put(app, "recipe", tmp_path / "a.txt", b"a")
            await until(lambda facts: asked >= 3 and not facts["jobs"][0]["active"], app)
            facts = await status(app)
            assert (facts["jobs"][0]["error"], state(facts, "recipe")) == (OVER, ("ready", OVER))
            assert len(vendors.log("put")) == 1
            vendors.faults("")
            monkeypatch.setattr(broker, "grants", grants)
            await Orders(app).retry([id_])
            await until(lambda facts: facts["totals"]["done"] == 1, app)

    asyncio.run(test())


@pytest.mark.parametrize("provider", ["netease", "jimeng", "recipe"])
def test_a_permission_that_another_file_has_is_not_used_for_a_second_one(
    vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    """As a cache gives it: the second file would replace the first at the provider, and both be told as done."""

    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            broker = app.providers[provider].broker
            cached = await broker.grants([hand_made.ask(size=108, mime="image/png")], app.providers[provider])
            grants = broker.grants

            async def again(*_asked: Any) -> Any:
                return cached

            monkeypatch.setattr(broker, "grants", again)
            picture = b"\x89PNG\r\n\x1a\n" + bytes(99)
            await put(app, provider, tmp_path / "a.png", picture + b"a")
            await until(lambda facts: facts["totals"]["done"] == 1, app)
            id_ = await put(app, provider, tmp_path / "b.png", picture + b"b")
            place = f"put{tmp_path}/a.png"
            if provider == "recipe":
                assert await failed(app) == f"the provider has {place} as {cached[0].key}, and names this file the same"
            else:
                words = f"the provider gave the permission of {place} once more: a cache may stand between"
                await until(lambda facts: facts["jobs"][0]["error"] == words, app)
            assert len(await asyncio.to_thread(Catalog(app.reader).at, provider, cached[0].key)) == 1
            monkeypatch.setattr(broker, "grants", grants)
            await Orders(app).retry([id_])
            await until(lambda facts: facts["totals"]["done"] == 2, app)

    asyncio.run(test())


@pytest.mark.parametrize(
    ("provider", "size", "key", "resent"),
    [
        ("netease", 12 * MIB, "k", IN_FLIGHT),  # a part at most was under way
        ("jiandaoyun", 1000, "k", 1000),  # a form goes as a whole
        ("netease", 12 * MIB, None, 0),  # it had not begun
    ],
)
def test_what_a_killed_daemon_may_have_sent_counts_as_sent_again(
    vendors: Vendors,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    provider: str,
    size: int,
    key: str | None,
    resent: int,
) -> None:
    async def test() -> None:
        async with daemon(vendors, tmp_path) as app:
            rests = {provider: math.inf}
            monkeypatch.setattr(app.steering, "providers", lambda _now: rests)
            path = Path(app.config.watch[provider].path) / "a.mov"
            await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
            await asyncio.to_thread(path.write_bytes, bytes(size))
            found = Candidate(provider, path.name, provider, Stamp.of(await asyncio.to_thread(path.stat)))
            (id_,) = await app.journal.arrivals.enqueue([found], time.time())
            left = update(jobs).where(jobs.c.id == id_).values(key=key, lease=None, lease_until=1.0)
            await app.journal.writer.call(lambda connection: connection.execute(left))
            rests.clear()
            app.engine.kick()
            facts = await until(lambda facts: facts["totals"]["done"] == 1, app)
            assert (facts["totals"]["bytes_sent"], facts["totals"]["bytes_resent"]) == (size, resent)

    asyncio.run(test())
