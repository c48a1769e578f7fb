"""One file on its way: opening the stamped version, its digest, and the accounts of what was sent."""

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from dumbwaiter.errors import Changed, Gone, Retry
from dumbwaiter.model import MIB, Ask, Receipt, Stamp
from dumbwaiter.upload import HELD, Digest, FileUpload, Ranges, check, digest_of, open_version
from dumbwaiter.wire.message import FileSlice, Reply, Request


def stamp(path: Path) -> Stamp:
    return Stamp.of(path.lstat())


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "drop/films/film.mov"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"0123456789")
    return path


# Opening


def opened(film: Path, wanted: Stamp | None = None) -> int:
    return open_version(str(film.parents[1]), "films/film.mov", wanted or stamp(film))


def test_the_stamped_version_is_opened(film: Path) -> None:
    fd = opened(film)
    assert os.read(fd, 100) == b"0123456789"
    assert not os.get_inheritable(fd)
    os.close(fd)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def missing(film: Path) -> None:
    film.unlink()


def folder_missing(film: Path) -> None:
    film.unlink()
    film.parent.rmdir()


def folder_became_file(film: Path) -> None:
    folder_missing(film)
    film.parent.write_bytes(b"")


def root_away(film: Path) -> None:
    film.parents[1].rename(film.parents[2] / "elsewhere")


def root_is_a_file(film: Path) -> None:
    root_away(film)
    film.parents[1].write_bytes(b"")


def rewritten(film: Path) -> None:
    film.write_bytes(b"0123456789!")


def rewritten_with_its_time_kept(film: Path) -> None:
    before = film.stat()
    film.write_bytes(b"9876543210")
    os.utime(film, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(film: Path) -> None:
    other = film.with_name("other")
    other.write_bytes(b"0123456789")
    os.utime(other, ns=(film.stat().st_atime_ns, film.stat().st_mtime_ns))
    other.rename(film)


def link_to_the_same(film: Path) -> None:
    film.rename(film.with_name("real"))
    film.symlink_to("real")


def dangling_link(film: Path) -> None:
    film.unlink()
    film.symlink_to("nothing")


def link_loop(film: Path) -> None:
    film.unlink()
    film.symlink_to(film.name)


def folder_in_its_place(film: Path) -> None:
    film.unlink()
    film.mkdir()


def fifo(film: Path) -> None:
    film.unlink()
    os.mkfifo(film)


def socket_in_its_place(film: Path) -> None:
    film.unlink()
    before = os.getcwd()
    os.chdir(film.parent)
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(film.name)
    finally:
        os.chdir(before)


@pytest.mark.parametrize(
    ("change", "verdict", "sentence"),
    [
        (missing, Gone, "the file is gone"),
        (folder_missing, Gone, "the file is gone"),
        (folder_became_file, Gone, "the file is gone"),
        (dangling_link, Gone, "a link stands in the file's place"),
        (link_to_the_same, Gone, "a link stands in the file's place"),
        (link_loop, Gone, "a link stands in the file's place"),
        (socket_in_its_place, Gone, "a socket stands in the file's place"),
        (rewritten, Changed, "the file is another version now"),
        (rewritten_with_its_time_kept, Changed, "the file is another version now"),
        (replaced, Changed, "the file is another version now"),
        (folder_in_its_place, Changed, "the file is another version now"),
        (fifo, Changed, "the file is another version now"),
        (root_away, Retry, "the folder {root} is not there"),
        (root_is_a_file, Retry, "the folder {root} is not there"),
    ],
)
def test_anything_else_has_its_verdict_and_leaves_nothing_open(
    film: Path, change: Callable[[Path], None], verdict: type[Exception], sentence: str
) -> None:
    wanted = stamp(film)
    change(film)
    before = descriptors()
    with pytest.raises(verdict) as raised:
        opened(film, wanted)
    assert type(raised.value) is verdict
    assert str(raised.value) == sentence.format(root=film.parents[1])
    assert descriptors() == before


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ESTALE, errno.EPERM])
def test_a_file_that_cannot_be_read_now_is_tried_again(
    film: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = stamp(film)

    def refuse(*_arguments: object, **_named: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(Retry, match=f"^the file cannot be read: {os.strerror(number)}$"):
        opened(film, wanted)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_rights_is_tried_again(film: Path) -> None:
    film.chmod(0)
    with pytest.raises(Retry, match="Permission denied"):
        opened(film)


def test_a_name_that_is_no_utf8_is_opened(tmp_path: Path) -> None:
    raw = os.fsdecode(b"raw \xff\n")
    (tmp_path / raw).write_bytes(b"x")
    os.close(open_version(str(tmp_path), raw, stamp(tmp_path / raw)))


def test_a_digest_is_of_one_version_or_none(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, wanted = str(film.parents[1]), stamp(film)
    assert digest_of(root, "films/film.mov", wanted) == f"xxh3:{xxhash.xxh3_128(b'0123456789').hexdigest()}"
    read = os.pread

    def meanwhile(fd: int, length: int, offset: int) -> bytes:
        film.write_bytes(b"9876543210!")
        return read(fd, length, offset)

    monkeypatch.setattr(os, "pread", meanwhile)
    before = descriptors()
    with pytest.raises(Changed):
        digest_of(root, "films/film.mov", wanted)
    assert descriptors() == before


# Digest

pieces = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 200)), max_size=20)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    path = tmp_path_factory.mktemp("digest") / "content"
    path.write_bytes(bytes(range(256)) + bytes(range(144)))
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@given(fed=pieces, size=st.integers(0, 400), view=st.booleans())
def test_the_digest_is_of_the_whole_whatever_was_fed_in_whatever_order(
    content: int, fed: list[tuple[int, int]], size: int, view: bool
) -> None:
    whole = os.pread(content, size, 0)
    digest = Digest()
    for offset, length in fed:
        piece = whole[offset : offset + length]
        digest.feed(offset, memoryview(piece) if view else piece)
    assert digest.finish(content, size) == f"xxh3:{xxhash.xxh3_128(whole).hexdigest()}"


def test_what_was_fed_in_order_is_not_read_again(content: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pread(content, 400, 0)
    digest = Digest()
    for offset in (0, 100, 50, 200):
        digest.feed(offset, whole[offset : offset + 100])
    read: list[tuple[int, int]] = []
    real = os.pread

    def noted(fd: int, length: int, offset: int) -> bytes:
        read.append((offset, length))
        return real(fd, length, offset)

    monkeypatch.setattr(os, "pread", noted)
    assert digest.finish(content, 400) == f"xxh3:{xxhash.xxh3_128(whole).hexdigest()}"
    assert read == [(300, 100)]


def test_a_file_that_ends_early_has_no_digest(content: int) -> None:
    with pytest.raises(Changed, match="the file became shorter"):
        Digest().finish(content, 401)


# Ranges


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted), max_size=15))
def test_what_was_sent_twice_is_counted_to_the_byte(ranges: list[list[int]]) -> None:
    seen: set[int] = set()
    known = Ranges()
    for start, end in ranges:
        wanted = set(range(start, end))
        assert known.add(start, end) == len(wanted & seen)
        seen |= wanted


# The doors


class Point(Struct):
    offset: int


class Doors:
    """An upload of a file, and what came out of its doors."""

    def __init__(self, path: Path, sent: int = 0, ever: tuple[int, int] | None = None, parts: int = 4) -> None:
        self.fd = os.open(path, os.O_RDONLY)
        self.saved: list[tuple[str, int, int, int]] = []
        self.called: list[Request] = []
        ranges = Ranges()
        if ever is not None:
            ranges.add(*ever)
        self.upload = FileUpload(
            self.fd,
            stamp(path),
            http=SimpleNamespace(order=lambda urls: sorted(urls)),  # type: ignore[arg-type]
            ticket="ticket",
            key="key",
            ask=Ask(watch="w", path="a/film.mov", key="k", size=1, mime="video/quicktime", seed="s"),
            checkpoint=None,
            sent=sent,
            ever=ranges,
            parts=parts,
            save=self._save,
            call=self._call,
            now=lambda url: 5.0,
            confirm=self._confirm,
        )

    async def _save(self, *values: Any) -> None:
        self.saved.append(values)  # type: ignore[arg-type]

    async def _call(self, request: Request) -> Reply:
        self.called.append(request)
        return Reply(200)

    async def _confirm(self) -> Receipt | None:
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
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

        first, second, last, empty, whole = asyncio.run(read())
    assert [(one.offset, one.length, one.data) for one in (first, second)] == [(0, 4, None), (4, 4, None)]
    assert [(one.offset, one.length, one.data) for one in (last, empty, whole)] == [
        (8, 2, b"89"),
        (10, 0, b""),
        (0, 10, b"0123456789"),
    ]


def test_an_empty_file_is_one_empty_piece(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    with Doors(path) as doors:
        piece = asyncio.run(doors.upload.read(0, 4 * MIB))
        assert (piece.length, piece.data) == (0, b"")
        assert asyncio.run(doors.upload.finish()) == f"xxh3:{xxhash.xxh3_128(b'').hexdigest()}"


@pytest.mark.parametrize("offset", [0, 4, 8])
def test_no_piece_is_read_of_another_version(film: Path, offset: int) -> None:
    with Doors(film) as doors:
        film.write_bytes(b"another one")
        with pytest.raises(Changed):
            asyncio.run(doors.upload.read(offset, 4))


def test_the_last_piece_is_checked_after_it_was_read(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is sent, all that went before was this version too."""
    with Doors(film) as doors:
        changed_after(film, lambda: os.truncate(film, 10) or film.write_bytes(b"9876543210"), monkeypatch)
        with pytest.raises(Changed):
            asyncio.run(doors.upload.read(8, 4))


def test_a_last_piece_of_which_less_is_there_is_refused(film: Path) -> None:
    with Doors(film) as doors:
        wanted = doors.upload._stamp
        os.truncate(film, 9)
        doors.upload._stamp = Stamp.of(film.stat())  # as if the stamp could not tell
        assert wanted.size == 10
        with pytest.raises(Changed, match="the file became shorter"):
            asyncio.run(doors.upload.read(8, 4))


def test_the_end_of_a_long_last_piece_does_not_leave_when_the_file_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(bytes(HELD + 10))
    with Doors(path) as doors:
        piece = asyncio.run(doors.upload.read(0, HELD + 10))
        assert piece.data is None
        assert piece.length == HELD + 10
        path.write_bytes(b"x" * (HELD + 10))

        def taste(offset: int, data: bytes) -> None:
            for one in piece.tastes:
                one(offset, data)

        taste(0, bytes(HELD))
        with pytest.raises(Changed):
            taste(HELD, bytes(10))


def test_what_is_read_ahead_for_a_digest_is_of_this_version(film: Path) -> None:
    with Doors(film) as doors:
        into = xxhash.xxh3_64()
        asyncio.run(doors.upload.digested(2, 5, into))
        assert into.digest() == xxhash.xxh3_64(b"23456").digest()
        film.write_bytes(b"another one")
        with pytest.raises(Changed):
            asyncio.run(doors.upload.digested(2, 5, into))


def test_the_digest_comes_of_what_was_sent_and_the_rest_of_the_file(film: Path) -> None:
    with Doors(film) as doors:

        async def send() -> str:
            piece = await doors.upload.read(4, 4)
            for taste in piece.tastes:
                taste(4, b"4567")
            return await doors.upload.finish()

        assert asyncio.run(send()) == f"xxh3:{xxhash.xxh3_128(b'0123456789').hexdigest()}"
        film.write_bytes(b"another one")
        with pytest.raises(Changed):
            asyncio.run(doors.upload.finish())


def test_what_is_sent_and_acknowledged_is_accounted_for(film: Path) -> None:
    with Doors(film) as doors:

        async def send() -> None:
            await doors.send(0, 4)
            await doors.upload.save(Point(4), 4)
            await doors.send(4, 4)
            await doors.upload.save(Point(6), 6)  # the server took less
            await doors.send(6, 4)
            await doors.upload.save(Point(6), 6)  # and now nothing
            await doors.send(6, 4)

        asyncio.run(send())
        assert doors.saved == [
            ('{"offset":4}', 4, 4, 0),
            ('{"offset":6}', 6, 2, 0),
            ('{"offset":6}', 6, 0, 2),
        ]
        assert (doors.upload.again, doors.upload.unsaved) == (4, 4)


def test_what_an_earlier_attempt_may_have_sent_counts_as_sent_again(film: Path) -> None:
    with Doors(film, sent=4, ever=(0, 8)) as doors:

        async def send() -> None:
            await doors.send(4, 6)
            await doors.upload.save(Point(10), 10)

        asyncio.run(send())
        assert doors.saved == [('{"offset":10}', 10, 6, 4)]
        assert doors.upload.unsaved == 0


def test_requests_without_a_piece_of_the_file_are_not_counted(film: Path) -> None:
    with Doors(film) as doors:
        asyncio.run(doors.upload.call(Request("breakpoint", "GET", "http://x", body=b"0123456789")))
        assert doors.upload.again == 0
        assert len(doors.called) == 1


def test_parts_run_side_by_side_and_are_noted_one_at_a_time(film: Path) -> None:
    with Doors(film, parts=3) as doors:
        running: set[int] = set()
        most: list[int] = []
        noted: list[tuple[int, str]] = []
        noting = 0

        async def send(number: int) -> str:
            running.add(number)
            most.append(len(running))
            for _ in range(number % 4):
                await asyncio.sleep(0)
            running.discard(number)
            return f"part {number}"

        async def done(number: int, result: str) -> None:
            nonlocal noting
            noting += 1
            assert noting == 1
            await asyncio.sleep(0)
            noting -= 1
            noted.append((number, result))

        asyncio.run(doors.upload.parts(range(20), send, done))
        assert sorted(noted) == [(number, f"part {number}") for number in range(20)]
        assert max(most) == 3


def test_the_first_part_that_fails_ends_the_others(film: Path) -> None:
    with Doors(film, parts=3) as doors:
        started: list[int] = []
        ended: list[int] = []

        async def send(number: int) -> None:
            started.append(number)
            try:
                if number == 2:
                    raise Retry("the second part broke")
                await asyncio.sleep(3600)
            finally:
                ended.append(number)

        async def done(number: int, result: None) -> None:
            raise AssertionError("no part was sent")

        with pytest.raises(Retry, match="the second part broke"):
            asyncio.run(doors.upload.parts(range(10), send, done))
        assert sorted(started) == sorted(ended) == [0, 1, 2]


def test_a_check_looks_at_the_open_file_and_not_at_its_name(film: Path) -> None:
    with Doors(film) as doors:
        wanted = Stamp.of(os.fstat(doors.fd))
        film.with_name("other").write_bytes(b"x")
        check(doors.fd, wanted)
        film.with_name("other").replace(film)
        with pytest.raises(Changed):  # its number of links, and so its ctime, is another
            check(doors.fd, wanted)
