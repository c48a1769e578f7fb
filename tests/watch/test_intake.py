"""From sighting to job, on a real folder and a real journal."""

import asyncio
import errno
import os
import struct
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from asynchronous import on_loop
from dumbwaiter.errors import JournalTrouble, Local, Unstorable
from dumbwaiter.files.downloads import notes_of_download
from dumbwaiter.files.ignore import Rules
from dumbwaiter.files.scan import look
from dumbwaiter.files.version import digest_of
from dumbwaiter.journal import Journal
from dumbwaiter.model import Job, Receipt, Sighting, Stamp
from dumbwaiter.store.database import reading, writing
from dumbwaiter.store.rows import job
from dumbwaiter.store.tables import jobs
from dumbwaiter.store.writer import Writer
from dumbwaiter.watch import intake as module
from dumbwaiter.watch import watches
from dumbwaiter.watch.enqueuer import again
from dumbwaiter.watch.intake import Intake, _old
from dumbwaiter.watch.source import Source
from journals import HOST, in_file
from tree import make

BOUND = 30.0


@asynccontextmanager
async def taking(folder: Path, settle: float = 0.0, *others: str) -> AsyncIterator[Intake]:
    """An intake of one watch, whose files lie in `folder`/w, and of others likewise."""
    for name in ("w", *others):
        (folder / name).mkdir(exist_ok=True)
    url = in_file(folder / "state")
    writer, reader = Writer(writing(url)), reading(url)
    journal = Journal(writer, HOST, reader)
    sources = {name: Source(str(folder / name), "vod", Rules(), settle) for name in ("w", *others)}
    intake = Intake(sources, journal, queued=lambda: None, moved=lambda: None)
    intake.start()
    try:
        yield intake
    finally:
        await intake.close()
        reader.dispose()
        writer.close()


def all_jobs(intake: Intake) -> list[Job]:
    with intake._journal.reader.connect() as connection:
        return [job(row) for row in connection.execute(select(jobs).order_by(jobs.c.id))]


async def drained(intake: Intake) -> None:
    async with asyncio.timeout(BOUND):
        while intake.waiting:
            await intake.turn()


@on_loop
async def test_a_scan_queues_what_is_there_and_the_next_but_one_passes_it_by(tmp_path: Path) -> None:
    make(tmp_path / "w", "a", "b/c")
    async with taking(tmp_path) as intake:
        folders = intake._journal.folders
        for expected in ((0, 0), (2, 2), (2, 2)):
            assert await intake.scan("w") >= 0.0
            await drained(intake)
            assert folders.surveyed("w") == expected
        assert set(folders.known("w", "", "vod")) == {"a"}
        assert set(folders.known("w", "b", "vod")) == {"c"}


@on_loop
async def test_a_file_from_the_far_future_or_past_is_taken_with_those_beside_it(tmp_path: Path) -> None:
    make(tmp_path / "w", "a", "b", "c")
    os.utime(tmp_path / "w/a", (10_413_792_000, 10_413_792_000))  # the year 2300, in nanoseconds more than 63 bits
    os.utime(tmp_path / "w/b", (-200_000_000, -200_000_000))
    async with taking(tmp_path) as intake:
        await intake.scan("w")
        await drained(intake)
        assert set(intake._journal.folders.known("w", "", "vod")) == {"a", "b", "c"}
        await intake.scan("w")
        await drained(intake)
        assert intake._journal.folders.surveyed("w") == (1, 3)  # all of it is known


@on_loop
async def test_what_programs_keep_open_for_writing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dumbwaiter.watch.settle.LONGEST", 0.0)
    make(tmp_path / "w", "a", "b\n", "c")
    async with taking(tmp_path) as intake:
        with (tmp_path / "w/a").open("r+b"):
            with (tmp_path / "w/b\n").open("r+b"):
                await intake.scan("w")
                async with asyncio.timeout(BOUND):
                    while intake.waiting > 2 or not intake.held("w").startswith("2 "):
                        await intake.turn()
                assert intake.held("w") in {
                    f"2 files are open for writing in programs, such as {name}: each is taken once it is closed."
                    for name in ("a", "b\\x0a")
                }
            intake.sight([Sighting("w", "b\n", closed=True)])
            async with asyncio.timeout(BOUND):
                while intake.waiting > 1:
                    await intake.turn()
            assert intake.held("w") == "a is open for writing in a program: it is taken once it is closed."
        intake.sight([Sighting("w", "a", closed=True)])
        await drained(intake)
        assert intake.held("w") == ""


@on_loop
async def test_what_changes_faster_than_it_is_sent_waits_and_that_is_said(tmp_path: Path) -> None:
    make(tmp_path / "w", "big\n")
    async with taking(tmp_path) as intake:
        intake.outrun("w", "big\n", 61.0)
        intake.sight([Sighting("w", "big\n", closed=True)])
        await intake.turn()
        assert intake.held("w") == "big\\x0a changes while it is sent: it is taken once it was quiet for 2 minutes."
        assert intake.waiting == 1


@on_loop
async def test_a_scan_waits_while_too_much_is_settling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKLOG", 3)
    monkeypatch.setattr(module, "EASE", BOUND)
    make(tmp_path / "w", *(f"{number}/a" for number in range(10)))
    async with taking(tmp_path) as intake:
        async with asyncio.timeout(BOUND):
            await intake.scan("w")
        await drained(intake)
        assert all(intake._journal.folders.known("w", str(number), "vod") for number in range(10))


@on_loop
async def test_a_scan_waits_for_what_does_not_settle_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKLOG", 3)
    monkeypatch.setattr(module, "EASE", 0.5)
    make(tmp_path / "w", *(f"{number}" for number in range(4)))
    async with taking(tmp_path, settle=600.0) as intake, asyncio.timeout(BOUND):
        seconds = await intake.scan("w")
        assert seconds is not None
        assert seconds >= 0.5
        assert intake.waiting == 4


@on_loop
async def test_a_scan_that_is_to_come_is_waited_for_unless_it_cannot(tmp_path: Path) -> None:
    make(tmp_path / "w", "a")
    async with taking(tmp_path, 0.0, "away") as intake:
        for watch in ("w", "away"):
            intake.expect(watch)
        assert (intake.waiting, intake.pending("w"), intake.pending("away")) == (2, 1, 1)
        intake.give_up("away")
        await intake.scan("w")
        assert intake.pending("away") == 0
        await drained(intake)
        assert [one.path for one in all_jobs(intake)] == ["a"]


@on_loop
async def test_a_scan_that_hangs_is_not_waited_for_until_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, answers, real = threading.Event(), threading.Event(), module.Rescan.step

    def step(rescan: module.Rescan) -> Any:
        begun.set()
        return answers.wait(BOUND) and real(rescan)

    monkeypatch.setattr(module.Rescan, "step", step)
    make(tmp_path / "w", "a")
    async with taking(tmp_path) as intake:
        scan = asyncio.create_task(intake.scan("w"))
        assert await asyncio.to_thread(begun.wait, BOUND)
        assert await intake.scan("w") == 0.0  # one at a time
        assert intake.waiting
        intake.give_up("w")
        assert (intake.waiting, intake.pending("w")) == (0, 0)
        intake.expect("w")
        assert intake.waiting
        answers.set()
        await scan
        await intake.scan("w")
        await drained(intake)
        assert not intake.waiting


@on_loop
async def test_of_a_folder_that_is_gone_nothing_is_remembered(tmp_path: Path) -> None:
    """Should another one come under its name, its files are looked at."""
    make(tmp_path / "w", "a", "b/c")
    async with taking(tmp_path) as intake:
        for _ in range(2):
            await intake.scan("w")
            await drained(intake)
        assert intake._journal.folders.surveyed("w") == (2, 2)
        (tmp_path / "w/b/c").unlink()
        (tmp_path / "w/b").rmdir()
        await intake.scan("w")
        assert intake._journal.folders.surveyed("w") == (1, 1)


@on_loop
async def test_a_folder_that_cannot_be_noted_as_seen_does_not_end_the_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def survey(*_: Any) -> None:
        raise Unstorable("a number too large")

    make(tmp_path / "w", "a")
    async with taking(tmp_path) as intake:
        for _ in range(2):
            monkeypatch.setattr(intake._journal.notes, "survey", survey)
            assert await intake.scan("w") is not None
            await drained(intake)
        assert set(intake._journal.folders.known("w", "", "vod")) == {"a"}


@on_loop
async def test_a_scan_that_the_disk_broke_off_is_waited_for_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(_rescan: module.Rescan) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(module.Rescan, "step", step)
    async with taking(tmp_path) as intake:
        intake.expect("w")
        assert await intake.scan("w") is None
        assert (intake.waiting, intake.pending("w")) == (0, 0)


@on_loop
async def test_what_a_fault_kept_from_the_journal_is_seen_again_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "w", "a")
    async with taking(tmp_path) as intake:
        enqueue, faults = intake._enqueuer.enqueue, [ZeroDivisionError()]

        async def once(ready: Any) -> None:
            if faults:
                raise faults.pop()
            await enqueue(ready)

        monkeypatch.setattr(intake._enqueuer, "enqueue", once)
        intake.sight([Sighting("w", "a", closed=True)])
        await drained(intake)
        assert not faults
        assert len(all_jobs(intake)) == 1


@on_loop
async def test_a_fault_in_the_intake_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN", 0.0)
    make(tmp_path / "w", "a")
    async with taking(tmp_path) as intake:
        real, faults = intake._look_all, [ZeroDivisionError("a fault")]

        def look_all(names: Any) -> Any:
            if faults:
                raise faults.pop()
            return real(names)

        monkeypatch.setattr(intake, "_look_all", look_all)
        intake.sight([Sighting("w", "a", closed=True)])
        async with asyncio.timeout(BOUND):
            while faults:
                await intake.turn()
        await drained(intake)
        assert set(intake._journal.folders.known("w", "", "vod")) == {"a"}


@on_loop
async def test_a_journal_in_trouble_while_a_touched_file_is_noted_loses_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN", 0.0)
    make(tmp_path / "w", "a")
    async with taking(tmp_path) as intake:
        journal = intake._journal
        await intake.scan("w")
        await drained(intake)
        (job,) = await journal.claim("me", time.time(), 1)
        digest = digest_of(str(tmp_path / "w"), "a", job.stamp)
        await journal.lease("me", job.id).name(0.0, key="k", grant=None)
        await asyncio.wrap_future(
            journal.lease("me", job.id).store(0.0, receipt=Receipt("k"), digest=digest, more=0, resent=0)
        )
        await journal.lease("me", job.id).finish(0.0, receipt=Receipt("k"))
        (tmp_path / "w/a").chmod(0o600)
        make(tmp_path / "w", "b", "c")
        touch, locked = journal.arrivals.touch, [JournalTrouble("database is locked")]

        async def touching(*values: Any) -> None:
            if locked:
                raise locked.pop()
            await touch(*values)

        monkeypatch.setattr(journal.arrivals, "touch", touching)
        intake.sight(Sighting("w", name, closed=True) for name in "abc")
        await drained(intake)
        assert not locked
        assert set(journal.folders.known("w", "", "vod")) == {"a", "b", "c"}


async def uploaded(intake: Intake, folder: Path, name: str, watch: str = "w") -> None:
    """Takes a file, and notes it as done."""
    journal = intake._journal
    intake.sight([Sighting(watch, name, closed=True)])
    await drained(intake)
    (job,) = await journal.claim("me", time.time(), 1)
    digest = digest_of(str(folder / watch), name, job.stamp)
    await journal.lease("me", job.id).name(0.0, key=watch, grant=None)
    await asyncio.wrap_future(
        journal.lease("me", job.id).store(0.0, receipt=Receipt(watch), digest=digest, more=0, resent=0)
    )
    await journal.lease("me", job.id).finish(0.0, receipt=Receipt(watch))


@on_loop
async def test_a_file_that_has_another_number_and_the_same_content_is_known(tmp_path: Path) -> None:
    make(tmp_path / "w", "a", "other")
    os.utime(tmp_path / "w/a", (1, 1))
    os.utime(tmp_path / "w/other", (1, 1))
    (tmp_path / "w/other").write_bytes(b"others"[: (tmp_path / "w/a").stat().st_size])
    async with taking(tmp_path) as intake:
        await uploaded(intake, tmp_path, "a")
        for content, jobs in (((tmp_path / "w/a").read_bytes(), 1), ((tmp_path / "w/other").read_bytes(), 2)):
            (tmp_path / "new").write_bytes(content)
            os.utime(tmp_path / "new", (1, 1))
            (tmp_path / "new").rename(tmp_path / "w/a")
            intake.sight([Sighting("w", "a", closed=True)])
            await drained(intake)
            assert len(all_jobs(intake)) == jobs


@on_loop
async def test_whether_a_versions_close_was_heard_is_known_where_files_are_taken_away(tmp_path: Path) -> None:
    make(tmp_path / "w", "closed", "open")
    async with taking(tmp_path) as intake:
        intake._sources["w"] = intake._sources["w"]._replace(after="delete")
        intake.sight([Sighting("w", "closed", closed=True), Sighting("w", "open")])
        await drained(intake)
        stamps = {name: Stamp.of(os.stat(tmp_path / "w" / name)) for name in ("closed", "open")}
        assert intake.heard_closed("w", "closed", stamps["closed"])
        assert not intake.heard_closed("w", "open", stamps["open"])
        assert not intake.heard_closed("w", "closed", stamps["open"])


@on_loop
async def test_of_very_many_versions_the_latest_are_those_whose_close_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSED", 1)
    make(tmp_path / "w", "a", "b")
    async with taking(tmp_path) as intake:
        intake._sources["w"] = intake._sources["w"]._replace(after="delete")
        for name in ("a", "b"):
            intake.sight([Sighting("w", name, closed=True)])
            await drained(intake)
        heard = [intake.heard_closed("w", name, Stamp.of(os.stat(tmp_path / "w" / name))) for name in ("a", "b")]
        assert heard == [False, True]


@on_loop
async def test_an_old_file_is_none_whose_close_was_heard(tmp_path: Path) -> None:
    make(tmp_path / "w", "a")
    async with taking(tmp_path) as intake:
        intake._sources["w"] = intake._sources["w"]._replace(after="delete")
        intake.sight([Sighting("w", "a", old=True)])
        await drained(intake)
        assert len(all_jobs(intake)) == 1
        assert not intake.heard_closed("w", "a", Stamp.of(os.stat(tmp_path / "w/a")))


@on_loop
async def test_the_empty_file_of_a_download_that_goes_on_is_waited_for(tmp_path: Path) -> None:
    """Firefox makes the name at once, and writes beside it; what it left years ago holds up nobody."""
    folder = tmp_path / "w"
    make(folder, "film.Xy12aB.mov.part", "archive.zip.part", "old.Xy12aB.mov.part")
    os.utime(folder / "old.Xy12aB.mov.part", (1, 1))
    names = ("film.mov", "a.txt", "old.mov")
    for name in names:
        (folder / name).touch()
    async with taking(tmp_path) as intake:
        seen = intake._look_all([("w", name) for name in names])
        assert [writing for _, writing in seen] == [True, False, False]
        (folder / "film.Xy12aB.mov.part").rename(folder / "film.mov")
        assert intake._look_all([("w", "film.mov")])[0][1] is False


@on_loop
async def test_what_is_downloaded_in_part_waits_until_its_notes_are_gone_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aria2 gives a file its full size at once, and a torrent's files lie in a folder with the notes beside that."""
    monkeypatch.setattr("dumbwaiter.watch.settle.LONGEST", 0.0)
    folder, files = tmp_path / "w", ["a", "film.mov", "image.iso", "torrent/b/c", "torrent.b"]
    make(folder, *files, "film.mov.aria2", "image.iso.lftp-pget-status", "torrent.aria2")
    async with taking(tmp_path) as intake:
        intake.adopt("w", Rules())
        intake.sight(Sighting("w", path, closed=True) for path in files)
        for name, path in {"film.mov": "film.mov", "image.iso": "image.iso", "torrent": "torrent/b/c"}.items():
            notes = next(
                one.name for one in folder.iterdir() if one.name in {f"{name}.aria2", f"{name}.lftp-pget-status"}
            )
            async with asyncio.timeout(BOUND):
                while path not in (said := intake.held("w")):
                    await intake.turn()
            assert said == f"{path} is downloaded in part: it is taken once {notes} is gone."
            assert path not in {job.path for job in all_jobs(intake)}
            (folder / notes).unlink()
            async with asyncio.timeout(BOUND):
                while path not in {job.path for job in all_jobs(intake)}:
                    await intake.turn()
        assert intake.held("w") == ""
        assert {job.path for job in all_jobs(intake)} == set(files)
        assert not intake._in_part


def test_what_axel_fetches_in_pieces_is_not_all_there_nor_are_its_notes(tmp_path: Path) -> None:
    connections = struct.pack("<Hq4q", 2, 50, 20, 49, 80, 99)  # how many, what came, where each goes on, and its end
    make(tmp_path, "film.mov", "picture", "game")
    (tmp_path / "film.mov.st").write_bytes(connections)
    (tmp_path / "picture.st").write_bytes(b"PROGRAM somebody_wrote_this\nEND_PROGRAM\n")
    (tmp_path / "game.st").mkdir()
    for path, notes in {"film.mov": "film.mov.st", "film.mov.st": "film.mov.st", "picture": "", "game": ""}.items():
        assert notes_of_download(str(tmp_path), path) == notes
    assert notes_of_download(str(tmp_path), "picture.st") == ""


@pytest.mark.parametrize(("after", "jobs"), [("keep", 1), ("trash", 2)])
@on_loop
async def test_the_same_content_under_another_time_is_known_where_files_are_kept(
    tmp_path: Path, after: str, jobs: int
) -> None:
    make(tmp_path / "w", "a")
    async with taking(tmp_path) as intake:
        intake._sources["w"] = intake._sources["w"]._replace(after=after)
        await uploaded(intake, tmp_path, "a")
        os.utime(tmp_path / "w/a", (1, 1))
        intake.sight([Sighting("w", "a", closed=True)])
        await drained(intake)
        assert [job.stamp.mtime_ns for job in all_jobs(intake)][-1] == 10**9
        assert len(all_jobs(intake)) == jobs


@on_loop
async def test_a_touched_file_that_takes_long_to_read_holds_up_no_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "w", "a")
    go_on = threading.Event()

    def slow(*values: Any) -> str:
        assert go_on.wait(BOUND)
        return digest_of(*values)

    async with taking(tmp_path) as intake:
        await uploaded(intake, tmp_path, "a")
        monkeypatch.setattr("dumbwaiter.watch.enqueuer.digest_of", slow)
        try:
            (tmp_path / "w/a").chmod(0o600)
            make(tmp_path / "w", "b")
            intake.sight(Sighting("w", name, closed=True) for name in "ab")
            async with asyncio.timeout(BOUND):
                while len(all_jobs(intake)) < 2:
                    await intake.turn()
            assert intake.waiting == intake.pending("w") == 1
        finally:
            go_on.set()
        await drained(intake)
        assert len(all_jobs(intake)) == 2


@on_loop
async def test_touched_files_of_a_watch_that_hangs_hold_up_no_others_and_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "w", "a", "b")
    make(tmp_path / "v", "c")
    go_on, reads = threading.Event(), list[str]()

    def hangs(root: str, path: str, stamp: Any) -> str:
        reads.append(path)
        assert root.endswith("/v") or go_on.wait(BOUND)
        return digest_of(root, path, stamp)

    async with taking(tmp_path, 0.0, "v") as intake:
        for watch, name in (("w", "a"), ("w", "b"), ("v", "c")):
            await uploaded(intake, tmp_path, name, watch)
        monkeypatch.setattr("dumbwaiter.watch.enqueuer.digest_of", hangs)
        try:
            for watch, name in (("w", "a"), ("w", "b"), ("v", "c")):
                (tmp_path / watch / name).chmod(0o600)
            for _ in range(3):  # as rescans do
                intake.sight(Sighting("w", name, closed=True) for name in "ab")
                await asyncio.sleep(0.05)
                await intake.turn()
            intake.sight([Sighting("v", "c", closed=True)])
            async with asyncio.timeout(BOUND):
                while "c" not in reads or intake.pending("v"):
                    await intake.turn()
            assert intake.pending("w") == 2
        finally:
            go_on.set()
        await drained(intake)
        assert sorted(reads) == ["a", "b", "c"]


@on_loop
async def test_a_folder_that_hangs_holds_up_no_other_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def hangs(root: str, path: str) -> Any:
        assert root.endswith("/v") or go_on.wait(BOUND)
        return look(root, path)

    monkeypatch.setattr(module, "look", hangs)
    monkeypatch.setattr(module, "HANGS", 0.05)
    make(tmp_path / "w", "a", "d")
    make(tmp_path / "v", "b", "c")
    async with taking(tmp_path, 0.0, "v") as intake:
        try:
            async with asyncio.timeout(BOUND):
                for watch, name in (("w", "a"), ("v", "b"), ("v", "c"), ("w", "d")):
                    intake.sight([Sighting(watch, name, closed=True)])
                    await intake.turn()
                while len(all_jobs(intake)) < 2 or intake.waiting > 2:  # a job is there before it is no longer counted
                    await intake.turn()
            await intake.turn()  # who asks whether it is alive is told
            assert intake.waiting == 2
        finally:
            go_on.set()
        await drained(intake)
        assert len(all_jobs(intake)) == 4


@on_loop
async def test_a_disk_that_answers_late_is_not_asked_late_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for its answer, and nothing else happens that would wake the intake."""
    late = threading.Event()

    def sleeps(root: str, path: str) -> Any:
        assert late.is_set() or late.wait(BOUND)
        return look(root, path)

    monkeypatch.setattr(module, "look", sleeps)
    monkeypatch.setattr(module, "HANGS", 0.05)
    make(tmp_path / "w", "a")
    queued = asyncio.Event()
    async with taking(tmp_path, 0.3) as intake:
        monkeypatch.setattr(intake._enqueuer, "_queued", queued.set)
        intake.sight([Sighting("w", "a", closed=True)])
        async with asyncio.timeout(BOUND):
            while "w" not in intake._slow:
                await intake.turn()
        late.set()
        async with asyncio.timeout(BOUND):
            await queued.wait()


@on_loop
async def test_a_file_that_cannot_be_looked_at_is_tried_again_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "w", "a\n", "b")
    fails = True

    def failing(root: str, path: str) -> Any:
        if fails and path == "a\n":
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return look(root, path)

    monkeypatch.setattr(module, "look", failing)
    monkeypatch.setattr(module, "AGAIN", 0.0)
    async with taking(tmp_path) as intake:
        intake.sight(Sighting("w", name, closed=True) for name in ("a\n", "b"))
        async with asyncio.timeout(BOUND):
            while intake.pending("w") > 1 or not intake.held("w"):
                await intake.turn()
        assert (
            intake.held("w") == "a\\x0a cannot be looked at (Stale file handle): that is tried again within a minute."
        )
        assert intake.pending("w") == 1
        fails = False
        await drained(intake)
        assert set(intake._journal.folders.known("w", "", "vod")) == {"a\n", "b"}
        assert intake.held("w") == ""


@on_loop
async def test_what_may_be_downloaded_in_part_waits_while_nobody_can_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "w", "film.mov", "other")
    (tmp_path / "w/film.mov.st").write_bytes(struct.pack("<HQ", 0, 0))  # axel's notes
    (tmp_path / "w/film.mov.st").chmod(0o600)
    fails = True
    opens = os.open

    def failing(path: Any, *values: Any, **named: Any) -> int:
        if fails and os.fspath(path).endswith("film.mov.st"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opens(path, *values, **named)

    monkeypatch.setattr(os, "open", failing)
    monkeypatch.setattr(module, "AGAIN", 0.0)
    monkeypatch.setattr("dumbwaiter.watch.settle.LONGEST", 0.0)
    async with taking(tmp_path) as intake:
        intake.sight(Sighting("w", name, closed=True) for name in ("film.mov", "other"))
        async with asyncio.timeout(BOUND):
            while intake.pending("w") > 1 or "Too many open files" not in intake.held("w"):
                await intake.turn()
        assert [job.path for job in all_jobs(intake)] == ["other"]
        fails = False
        async with asyncio.timeout(BOUND):
            while "is downloaded in part" not in intake.held("w"):
                await intake.turn()
        assert [job.path for job in all_jobs(intake)] == ["other"]


@on_loop
async def test_a_touched_file_that_cannot_be_read_is_read_later_and_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "w", "a", "b")
    failures = 3

    def failing(root: str, path: str, stamp: Stamp) -> str:
        nonlocal failures
        if failures and path == "a":
            failures -= 1
            raise Local("the file cannot be read: Input/output error")
        return digest_of(root, path, stamp)

    async with taking(tmp_path) as intake:
        for name in ("a", "b"):
            await uploaded(intake, tmp_path, name)
        monkeypatch.setattr("dumbwaiter.watch.enqueuer.digest_of", failing)
        monkeypatch.setattr("dumbwaiter.watch.enqueuer.AGAIN", 0.0)
        for name in ("a", "b"):
            (tmp_path / "w" / name).write_bytes(b"y")
        intake.sight(Sighting("w", name, closed=True) for name in ("a", "b"))
        await drained(intake)
        assert not failures
        assert [job.path for job in all_jobs(intake)] == ["a", "b", "b", "a"]


@on_loop
async def test_an_ignore_file_that_could_not_be_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = 2

    def read(_folder: str) -> tuple[bytes, bool]:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return b"*.log\n", False

    monkeypatch.setattr("dumbwaiter.files.ignore._read", read)
    monkeypatch.setattr(watches, "BROKEN", 0.0)
    config: Any = SimpleNamespace(watch={"w": SimpleNamespace(path=str(tmp_path / "w"), include=(), exclude=())})
    async with taking(tmp_path) as intake:
        nothing: Any = None
        made = watches.Watches(config, "", intake._journal, intake, nothing, changed=nothing, back=nothing)
        await made._read_rules("w")
        assert "nothing is taken until it can" in intake.unread("w")
        async with asyncio.timeout(BOUND):
            while intake.rules("w").unknown:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0)
        assert [intake.rules("w").takes(name) for name in ("a", "a.log")] == [True, False]
        await made.close()


@on_loop
async def test_an_ignore_file_that_is_gone_for_a_moment_holds_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editor may remove it and write the next, and a scan may fall between the two."""
    found: list[bytes | OSError] = [b"secret*\n", FileNotFoundError(), b"*.log\nsecret*\n"]

    def read(_folder: str) -> tuple[bytes, bool]:
        if isinstance(one := found.pop(0), OSError):
            raise one
        return one, False

    monkeypatch.setattr("dumbwaiter.files.ignore._read", read)
    monkeypatch.setattr(watches, "ANEW", 0.0)
    make(tmp_path / "w", "a")
    config: Any = SimpleNamespace(watch={"w": SimpleNamespace(path=str(tmp_path / "w"), include=(), exclude=())})
    async with taking(tmp_path) as intake:
        nothing: Any = None
        made = watches.Watches(config, "", intake._journal, intake, nothing, changed=nothing, back=nothing)
        adopted, adopt = [], intake.adopt

        def noted(watch: str, rules: Rules) -> None:
            adopted.append((rules.takes("secret"), rules.takes("a.log")))
            adopt(watch, rules)

        monkeypatch.setattr(intake, "adopt", noted)
        await made._read_rules("w")
        await made._read_rules("w")
        assert adopted == [(False, True), (False, False)]


@on_loop
async def test_rules_hold_also_for_what_was_seen_before(tmp_path: Path) -> None:
    make(tmp_path / "w", "a", "secret")
    async with taking(tmp_path, 0.2) as intake:
        intake.sight(Sighting("w", name) for name in ("a", "secret"))
        intake.adopt("w", Rules(exclude=["secret*"]))
        await drained(intake)
        assert [one.path for one in all_jobs(intake)] == ["a"]


@on_loop
async def test_an_intake_that_waits_for_the_journal_is_not_stuck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "w", "a")
    async with taking(tmp_path) as intake:
        waits = asyncio.Event()
        real = intake._taking_time

        def full(*_names: str) -> None:
            raise JournalTrouble("the disk is full")

        def taking_time() -> Any:
            waits.set()
            return real()

        monkeypatch.setattr(intake._journal.folders, "known", full)
        monkeypatch.setattr(intake, "_taking_time", taking_time)
        intake.sight([Sighting("w", "a", closed=True)])
        async with asyncio.timeout(BOUND):
            await waits.wait()
            await intake.turn()


@on_loop
async def test_a_scan_that_the_journal_broke_off_is_still_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "w", *(f"{number}/a" for number in range(5)))
    async with taking(tmp_path) as intake:
        folders, calls = intake._journal.folders, 0
        known = folders.known

        def once(*values: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise JournalTrouble("the journal cannot be read")
            return known(*values, **named)

        monkeypatch.setattr(folders, "known", once)
        intake.expect("w")
        assert await intake.scan("w") is None
        assert intake.waiting
        assert intake.pending("w")
        assert await intake.scan("w") is not None
        await drained(intake)
        assert len(all_jobs(intake)) == 5


def test_a_file_is_old_when_no_writer_pauses_for_so_long() -> None:
    now = 1000.0
    for settle, age, old in ((2.0, 30.0, False), (2.0, 61.0, True), (120.0, 61.0, False), (120.0, 121.0, True)):
        changed = int((now - age) * 1e9)
        assert _old(Stamp(1, 1, 1, changed), settle, now) is _old(Stamp(1, 1, changed, 1), settle, now) is old


def test_however_often_a_file_could_not_be_looked_at_it_is_tried_again_within_a_minute() -> None:
    assert [again(failures) for failures in (0, 1, 3, 4, 5000)] == [5, 10, 40, 60, 60]
