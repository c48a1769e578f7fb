"""One file on its way: its doors, and the accounts of what was sent."""

import errno
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import pytest
import xxhash
from msgspec import Struct

from asynchronous import at_once
from dumbwaiter.errors import Changed, JournalTrouble, Offline, Reject, Retry, Stopped
from dumbwaiter.files.digest import Digest
from dumbwaiter.jobs.progress import Progress
from dumbwaiter.jobs.sent_bytes import Ranges, SentBytes
from dumbwaiter.jobs.threads import Threads, drive
from dumbwaiter.jobs.upload import HELD, FileUpload
from dumbwaiter.model import MIB, Ask, Receipt, Stamp
from dumbwaiter.net.abort import Abort
from dumbwaiter.net.pace import Abreast
from dumbwaiter.net.slices import SliceStream
from dumbwaiter.wire.message import FileSlice, Reply, Request

# The doors


class Checkpoint(Struct):
    offset: int


class Doors:
    """An upload of a file, and what came out of its doors."""

    def __init__(
        self,
        path: Path,
        sent: int = 0,
        ever: tuple[int, int] | None = None,
        parts: int = 4,
        abreast: Abreast | None = None,
        files: int = 1,
    ) -> None:
        self.fd = os.open(path, os.O_RDONLY)
        self.abreast = abreast or Abreast()
        self.saved: list[tuple[str, int, int, int]] = []
        self.called: list[Request] = []
        ranges = Ranges()
        if ever is not None:
            ranges.add(*ever)
        self.sent = SentBytes(path.lstat().st_size, sent, ranges)
        self.upload = FileUpload(
            self.fd,
            Stamp.of(path.lstat()),
            threads=Threads(files, parts),
            ticket="ticket",
            key="key",
            ask=Ask(watch="w", path="a/film.mov", key="k", size=1, mime="video/quicktime", seed="s"),
            checkpoint=None,
            progress=Progress(self.sent, self._save),
            line=self,
            confirm=lambda: at_once(None),
        )
        self.breaks = False  # the connection does, after the first bytes
        self.slow: Future[None] | None = None  # a commit that takes its time

    def _save(self, *values: Any) -> "Future[None]":
        self.saved.append(values)  # type: ignore[arg-type]
        return self.slow or at_once(None)

    # The line

    def exchange(self, request: Request, _abort: Abort) -> Reply:
        self.called.append(request)
        if isinstance(request.body, FileSlice):
            for _ in SliceStream(request.body):
                if self.breaks:
                    raise Offline("the connection broke")
        return Reply(200)

    def order(self, urls: Sequence[str]) -> list[str]:
        return sorted(urls)

    def better(self, url: str, other: str) -> None:
        pass

    def now(self, _url: str) -> float:
        return 5.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.upload._threads.close()
        os.close(self.fd)

    def send(self, offset: int, length: int) -> Awaitable[Reply]:
        return self.upload.call(Request("chunk", "POST", "http://x", body=FileSlice(self.fd, offset, length)))


def changed_after(path: Path, change: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the file changed by somebody right after its bytes were read."""
    real = os.pread

    def meanwhile(fd: int, length: int, offset: int) -> bytes:
        data = real(fd, length, offset)
        change()
        return data

    monkeypatch.setattr(os, "pread", meanwhile)


def test_a_piece_is_a_slice_of_the_file_and_the_last_one_holds_its_bytes(film: Path) -> None:
    with Doors(film) as doors:

        async def read() -> list[FileSlice]:
            return [await doors.upload.read(*piece) for piece in ((0, 4), (4, 4), (8, 4), (10, 4), (0, 10))]

        first, second, last, empty, whole = drive(read())
    assert [(one.offset, one.length, one.data) for one in (first, second)] == [(0, 4, None), (4, 4, None)]
    assert [(one.offset, one.length, one.data) for one in (last, empty, whole)] == [
        (8, 2, b"89"),
        (10, 0, b""),
        (0, 10, b"0123456789"),
    ]


def test_a_kernel_that_takes_no_hint_costs_no_upload(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_values: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "posix_fadvise", refused)
    with Doors(film) as doors:
        assert drive(doors.upload.read(0, 4)).length == 4


def test_an_empty_file_is_one_empty_piece(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    with Doors(path) as doors:
        piece = drive(doors.upload.read(0, 4 * MIB))
        assert (piece.length, piece.data) == (0, b"")


def test_a_file_whose_size_is_not_what_it_holds_is_refused() -> None:
    with Doors(Path("/proc/version")) as doors, pytest.raises(Reject, match="upload a copy of it"):
        drive(doors.upload.read(0, 4))


@pytest.mark.parametrize("offset", [0, 4, 8])
def test_no_piece_is_read_of_another_version(film: Path, offset: int) -> None:
    with Doors(film) as doors:
        film.write_bytes(b"another one")
        with pytest.raises(Changed):
            drive(doors.upload.read(offset, 4))


def test_the_last_piece_is_checked_after_it_was_read(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is sent, all that went before was this version too."""
    with Doors(film) as doors:
        changed_after(film, lambda: os.truncate(film, 10) or film.write_bytes(b"9876543210"), monkeypatch)
        with pytest.raises(Changed):
            drive(doors.upload.read(8, 4))


def test_a_last_piece_of_which_less_is_there_is_refused(film: Path) -> None:
    with Doors(film) as doors:
        wanted = doors.upload._stamp
        os.truncate(film, 9)
        doors.upload._stamp = Stamp.of(film.stat())  # as if the stamp could not tell
        assert wanted.size == 10
        with pytest.raises(Changed, match="the file became shorter"):
            drive(doors.upload.read(8, 4))


def test_the_end_of_a_long_last_piece_does_not_leave_when_the_file_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(bytes(HELD + 10))
    with Doors(path) as doors:
        piece = drive(doors.upload.read(0, HELD + 10))
        assert piece.data is None
        assert piece.length == HELD + 10
        assert piece.guard is not None
        piece.guard()
        path.write_bytes(b"x" * (HELD + 10))
        with pytest.raises(Changed):
            piece.guard()


def test_what_is_read_ahead_for_a_digest_is_of_this_version(film: Path) -> None:
    with Doors(film) as doors:
        into = xxhash.xxh3_64()
        drive(doors.upload.digested(2, 5, into))
        assert into.digest() == xxhash.xxh3_64(b"23456").digest()
        film.write_bytes(b"another one")
        with pytest.raises(Changed):
            drive(doors.upload.digested(2, 5, into))


@pytest.mark.parametrize("size", [0, 10, HELD, HELD + 1, 5 * MIB + 3])
def test_the_digest_is_that_of_the_whole_whatever_was_sent_when(tmp_path: Path, size: int) -> None:
    path = tmp_path / "film"
    path.write_bytes(content := os.urandom(size))

    async def send(upload: FileUpload) -> Receipt:
        for offset in range(0, max(size, 1), 4 * MIB):
            await upload.call(Request("chunk", "POST", "http://x", body=await upload.read(offset, 4 * MIB)))
        return Receipt("key")

    whole = Digest()
    whole.observe(0, content)
    with Doors(path) as doors:
        assert doors.upload.run(send)[1] == whole.text(size)
    with Doors(path, ever=(0, size)) as doors:
        assert doors.upload.run(send)[1] == whole.text(size)


def test_a_file_that_changed_after_its_last_byte_is_another_version(film: Path) -> None:
    async def send(upload: FileUpload) -> Receipt:
        await upload.call(Request("chunk", "POST", "http://x", body=await upload.read(0, 10)))
        os.truncate(film, 3)
        return Receipt("key")

    with Doors(film) as doors, pytest.raises(Changed):
        doors.upload.run(send)


def test_progress_waits_for_no_disk_and_an_intention_does(film: Path) -> None:
    with Doors(film) as doors:
        doors.slow = Future()

        async def progress() -> None:
            for end in range(1, 6):
                await doors.upload.save(Checkpoint(end), end)

        drive(progress())
        assert [sent for _, sent, _, _ in doors.saved] == [1]
        doors.slow.set_result(None)
        assert [sent for _, sent, _, _ in doors.saved] == [1, 5]  # what came meanwhile waits for no other part
        drive(doors.upload.save(Checkpoint(6), 6))
        assert [sent for _, sent, _, _ in doors.saved] == [1, 5, 6]

        doors.slow = Future()
        drive(doors.upload.save(Checkpoint(7), 7))
        thread = threading.Thread(target=lambda: drive(doors.upload.save(Checkpoint(8), 7, sure=True)))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        doors.slow.set_result(None)
        thread.join(10)
        assert [point for point, _, _, _ in doors.saved[3:]] == ['{"offset":7}', '{"offset":8}']


def test_once_the_parts_are_to_be_joined_an_end_costs_no_receipt(tmp_path: Path) -> None:
    """What an earlier attempt sent is read for the digest before that."""
    path = tmp_path / "film"
    path.write_bytes(content := os.urandom(9 * MIB))

    async def send(upload: FileUpload) -> Receipt:
        await upload.call(Request("chunk", "POST", "http://x", body=await upload.read(8 * MIB, 4 * MIB)))
        await upload.whole()
        upload.abort()
        return Receipt("key")

    whole = Digest()
    whole.observe(0, content)
    with Doors(path, sent=8 * MIB) as doors:
        assert doors.upload.run(send) == (Receipt("key"), whole.text(9 * MIB))


def test_what_was_acknowledged_is_journalled_however_it_ends(film: Path) -> None:
    async def send(upload: FileUpload) -> Receipt:
        doors.slow = Future()
        for end in (1, 2, 3):
            await upload.save(Checkpoint(end), end)
        doors.slow.set_result(None)
        raise Retry("the network is away")

    with Doors(film) as doors:
        with pytest.raises(Retry):
            doors.upload.run(send)
        assert [sent for _, sent, _, _ in doors.saved] == [1, 3]


def test_trouble_with_the_journal_is_heard_at_the_next_save(film: Path) -> None:
    with Doors(film) as doors:
        doors.slow = Future()
        doors.slow.set_exception(JournalTrouble("the disk is full"))
        drive(doors.upload.save(Checkpoint(1), 1))
        with pytest.raises(JournalTrouble):
            drive(doors.upload.save(Checkpoint(2), 2))


def test_what_is_sent_and_acknowledged_is_accounted_for(film: Path) -> None:
    with Doors(film) as doors:

        async def send() -> None:
            await doors.send(0, 4)
            await doors.upload.save(Checkpoint(4), 4)
            await doors.send(4, 4)
            await doors.upload.save(Checkpoint(6), 6)  # the server took less
            await doors.send(6, 4)
            await doors.upload.save(Checkpoint(6), 6)  # and now nothing
            await doors.send(6, 4)

        drive(send())
        assert doors.saved == [
            ('{"offset":4}', 4, 4, 0),
            ('{"offset":6}', 6, 2, 0),
            ('{"offset":6}', 6, 0, 2),
        ]
        assert (doors.sent.resent, doors.sent.unsaved) == (4, 4)


def test_what_an_earlier_attempt_may_have_sent_counts_as_sent_again(film: Path) -> None:
    with Doors(film, sent=4, ever=(0, 8)) as doors:

        async def send() -> None:
            await doors.send(4, 6)
            await doors.upload.save(Checkpoint(10), 10)

        drive(send())
        assert doors.saved == [('{"offset":10}', 10, 6, 4)]
        assert doors.sent.unsaved == 0


def test_requests_without_a_piece_of_the_file_are_not_counted(film: Path) -> None:
    with Doors(film) as doors:
        drive(doors.upload.call(Request("breakpoint", "GET", "http://x", body=b"0123456789")))
        assert doors.sent.resent == 0
        assert len(doors.called) == 1


def test_parts_run_side_by_side_and_are_noted_one_at_a_time(film: Path) -> None:
    with Doors(film, parts=3) as doors:
        meet = threading.Barrier(3)
        noted: list[tuple[int, str]] = []
        noting = threading.Lock()

        async def send(number: int) -> str:
            meet.wait(10)
            return f"part {number}"

        async def done(number: int, result: str) -> None:
            assert noting.acquire(blocking=False)
            noted.append((number, result))
            noting.release()

        drive(doors.upload.parts(range(21), send, done))
        assert sorted(noted) == [(number, f"part {number}") for number in range(21)]


def test_no_more_parts_of_one_file_go_side_by_side_than_are_asked_for(film: Path) -> None:
    """Though there are threads for those of other files."""
    with Doors(film, parts=3, files=4) as doors:
        meet, counting = threading.Barrier(3), threading.Lock()
        at_work = most = 0

        async def send(number: int) -> None:
            nonlocal at_work, most
            with counting:
                at_work += 1
                most = max(most, at_work)
            meet.wait(10)
            with counting:
                at_work -= 1

        async def done(number: int, result: None) -> None:
            pass

        drive(doors.upload.parts(range(21), send, done))
        assert most == 3


def test_the_first_part_that_fails_ends_the_others(film: Path) -> None:
    with Doors(film, parts=3) as doors:
        started: list[int] = []
        meet = threading.Barrier(3)

        def hang(_request: Request, abort: Abort) -> Reply:
            abort.wait(3600)
            raise AssertionError("nobody ended it")

        doors.exchange = hang  # type: ignore[method-assign]

        async def send(number: int) -> Reply:
            started.append(number)
            meet.wait(10)
            if number == 2:
                raise Retry("the third part broke")
            return await doors.send(0, 1)

        async def done(number: int, result: Reply) -> None:
            raise AssertionError("no part was sent")

        with pytest.raises(Retry, match="the third part broke"):
            drive(doors.upload.parts(range(10), send, done))
        assert sorted(started) == [0, 1, 2]
        assert not doors.upload.abort.called


def test_after_a_break_parts_go_alone_until_the_line_proves_quick(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow line each break costs all parts that go side by side: as many as that it cannot bring home one."""
    abreast = Abreast()
    counting = threading.Lock()
    together: list[int] = []
    now = 0

    async def send(number: int) -> int:
        nonlocal now
        with counting:
            now += 1
            together.append(now)
        threading.Event().wait(0.01)
        return number

    async def done(_number: int, _result: int) -> None:
        nonlocal now
        with counting:
            now -= 1

    def most(count: int = 12) -> int:
        together.clear()
        with Doors(film, parts=4, abreast=abreast) as doors:
            drive(doors.upload.parts(range(count), send, done))
        assert len(together) == count
        return max(together)

    assert most() > 1
    with Doors(film, abreast=abreast) as doors:
        doors.breaks = True
        with pytest.raises(Offline):
            drive(doors.send(0, 4))
    monkeypatch.setattr("dumbwaiter.net.pace.QUICK", 0.0)
    assert most() == 1
    monkeypatch.setattr("dumbwaiter.net.pace.QUICK", 10.0)
    assert most(1) == 1
    assert most() > 1
    monkeypatch.setattr("dumbwaiter.net.pace.QUICK", 0.0)
    monkeypatch.setattr("dumbwaiter.net.pace.SLOW", 0.0)
    assert most() > 1
    assert most() == 1  # every part took long


def test_an_upload_that_is_ended_ends_its_parts(film: Path) -> None:
    with Doors(film, parts=2) as doors:
        meet = threading.Barrier(3)

        def hang(_request: Request, abort: Abort) -> Reply:
            meet.wait(10)
            abort.wait(3600)
            raise AssertionError("nobody ended it")

        doors.exchange = hang  # type: ignore[method-assign]

        async def send(number: int) -> Reply:
            return await doors.send(number, 1)

        async def done(number: int, result: Reply) -> None:
            raise AssertionError("no part was sent")

        def end() -> None:
            meet.wait(10)
            doors.upload.abort()

        thread = threading.Thread(target=end)
        thread.start()
        with pytest.raises(Stopped):
            drive(doors.upload.parts(range(10), send, done))
        thread.join()


def test_what_was_sent_and_not_acknowledged_was_sent_in_vain(film: Path) -> None:
    with Doors(film, sent=2, ever=(0, 4)) as doors:
        assert doors.sent.wasted == 0
        drive(doors.send(2, 4))  # two bytes of it were sent before
        assert doors.sent.wasted == 2 + 4  # those again, and all that was sent once more
        drive(doors.upload.save(Checkpoint(6), 6))
        assert doors.saved[-1][-1] == 2
        assert doors.sent.wasted == 0
        drive(doors.send(6, 4))
        assert doors.sent.wasted == 4


def test_of_a_piece_that_breaks_off_only_what_left_was_sent(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(bytes(4 * MIB))
    with Doors(path) as doors:
        doors.breaks = True
        for _ in range(2):
            with pytest.raises(Offline):
                drive(doors.send(0, 4 * MIB))
        assert 0 < doors.sent.resent < MIB
        assert 0 < doors.sent.wasted < 2 * MIB
