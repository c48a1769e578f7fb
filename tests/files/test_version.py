"""One version of a file: what stands in its place, and what may not be read in its place."""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash

from dumbwaiter.errors import Changed, Gone, Local, Retry
from dumbwaiter.files.digest import Digest
from dumbwaiter.files.version import check, digest_of, open_version
from dumbwaiter.model import Stamp


def stamp(path: Path) -> Stamp:
    return Stamp.of(path.lstat())


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
        (root_away, Local, "the folder {root} is not there"),
        (root_is_a_file, Local, "the folder {root} is not there"),
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
    with pytest.raises(Local, match=f"^the file cannot be read: {os.strerror(number)}$"):
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


def test_a_path_longer_than_the_kernel_takes_is_opened(tmp_path: Path) -> None:
    path = "/".join(["d" * 200] * 25)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        for name in path.split("/"):
            os.mkdir(name, dir_fd=folder)
            above, folder = folder, os.open(name, os.O_RDONLY, dir_fd=folder)
            os.close(above)
        with open(os.open("a", os.O_WRONLY | os.O_CREAT, dir_fd=folder), "wb") as file:
            file.write(b"deep")
        stamp = Stamp.of(os.stat("a", dir_fd=folder))
    finally:
        os.close(folder)
    fd = open_version(str(tmp_path), f"{path}/a", stamp)
    assert os.pread(fd, 9, 0) == b"deep"
    os.close(fd)


def test_a_disk_that_fails_while_a_digest_is_taken_is_this_machines_trouble(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_values: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Digest, "finish", fails)
    with pytest.raises(Local, match="cannot be read: Input/output error"):
        digest_of(str(film.parent), film.name, Stamp.of(film.stat()))


def test_a_digest_is_of_one_version_or_none(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, wanted = str(film.parents[1]), stamp(film)
    assert digest_of(root, "films/film.mov", wanted) == f"xxh3:{xxhash.xxh3_128(b'0123456789').hexdigest()}"
    read = os.preadv

    def meanwhile(fd: int, buffers: list[memoryview], offset: int) -> int:
        film.write_bytes(b"9876543210!")
        return read(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", meanwhile)
    before = descriptors()
    with pytest.raises(Changed):
        digest_of(root, "films/film.mov", wanted)
    assert descriptors() == before


def test_a_check_looks_at_the_open_file_and_not_at_its_name(film: Path) -> None:
    with film.open("rb") as file:
        wanted = Stamp.of(os.fstat(file.fileno()))
        film.with_name("other").write_bytes(b"x")
        check(file.fileno(), wanted)
        film.with_name("other").replace(film)
        with pytest.raises(Changed):  # its number of links, and so its ctime, is another
            check(file.fileno(), wanted)


def test_a_file_server_that_forgets_an_open_file_is_a_fault_of_the_disk(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, before = stamp(film), descriptors()

    def forgotten(_fd: int) -> os.stat_result:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", forgotten)
        with pytest.raises(Local, match="the file cannot be read: Stale file handle"):
            opened(film, wanted)
    assert descriptors() == before
