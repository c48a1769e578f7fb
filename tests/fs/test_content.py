"""Bytes without FUSE: what a reader gets is the version it opened, whole, or an errno."""

import errno
import itertools
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dead_disk import dead_disk
from dumbwaiter.catalog import Waiting
from dumbwaiter.model import MIB, Entry, Stamp, State
from dumbwaiter_fs import content, disk, origins, remote, stream, versions
from dumbwaiter_fs.cache import BLOCK, Block, Cache
from dumbwaiter_fs.content import Contents
from dumbwaiter_fs.errnos import Refused
from dumbwaiter_fs.memory_cache import MemoryCache
from dumbwaiter_fs.remote import Remote
from fs.world import Origin, Shelf, until
from stranger import UID

BODY = random.Random(1).randbytes(5 * MIB + 17)


def entry(url: str | None, stamp: Stamp | int, path: str = "a", number: int = 1) -> Entry:
    stamp = Stamp(0, stamp, 0, 0) if isinstance(stamp, int) else stamp
    return Entry(number, "p", f"k {url}", "w", path, stamp, 0.0, url=url)


@pytest.fixture
def contents(shelf: Shelf) -> Iterator[Contents]:
    contents = Contents(lambda watch: shelf.drop if watch == "w" else None, Remote(2.0))
    yield contents
    contents.close()


def read(contents: Contents, file: Any, offset: int = 0, size: int = 8 * MIB, path: str = "files/w/a") -> bytes:
    number, _ = contents.open(path, file)
    try:
        return contents.read(number, size, offset)
    finally:
        contents.release(number)


def fails(code: int, call: Callable[[], object]) -> None:
    with pytest.raises(OSError, match=r"\[Errno") as raised:
        call()
    assert errno.errorcode[raised.value.errno or 0] == errno.errorcode[code]


# The local original


def test_an_unchanged_original_is_read_and_nobody_is_asked(shelf: Shelf, contents: Contents, origin: Origin) -> None:
    file = entry(origin.put("a", b"remote"), shelf.write("a", b"local!"))
    assert read(contents, file) == b"local!"
    os.chmod(shelf.local("a"), 0o600)
    assert read(contents, file) == b"local!", "a ctime that moved alone says nothing about bytes"
    assert origin.requests == []


def test_a_changed_original_is_not_read(shelf: Shelf, contents: Contents, origin: Origin) -> None:
    file = entry(origin.put("a", b"remote"), shelf.write("a", b"local!"))
    shelf.write("a", b"LOCAL!")
    os.utime(shelf.local("a"), ns=(1, 1))
    assert read(contents, file) == b"remote"


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "gone", "above"])
def test_what_stands_in_place_of_the_original_is_not_read(shelf: Shelf, contents: Contents, kind: str) -> None:
    stamp = shelf.write("b/other", b"secret")
    path, file = "b/a", shelf.local("b/a")
    match kind:
        case "link":
            os.symlink(shelf.local("b/other"), file)
        case "folder":
            os.mkdir(file)
        case "pipe":
            os.mkfifo(file)
        case "above":
            os.rename(shelf.local("b"), f"{shelf.root}/outside")
            os.symlink(f"{shelf.root}/outside", shelf.local("b"))
            path = "b/other"
    fails(errno.ENXIO, lambda: contents.open("files/w/a", entry(None, stamp, path)))


def far_down(shelf: Shelf) -> tuple[list[str], int]:
    """Returns the names on the way to a new folder of the watch, more of them than one call takes, and a descriptor of it."""
    names = [f"{number:02}{'n' * 200}" for number in range(25)]
    at = os.open(shelf.drop, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=at)
        at, above = os.open(name, os.O_RDONLY, dir_fd=at), at
        os.close(above)
    return names, at


@pytest.mark.parametrize("watch", ["w", "put"])
def test_an_original_is_read_however_long_its_path_is(shelf: Shelf, watch: str) -> None:
    names, at = far_down(shelf)
    original = os.open("a", os.O_WRONLY | os.O_CREAT, dir_fd=at)
    os.write(original, b"deep")
    path = "/".join([*([shelf.drop[1:]] if watch == "put" else []), *names, "a"])
    file = replace(entry(None, Stamp.of(os.fstat(original)), path), watch=watch)
    os.close(original)
    os.close(at)
    before = len(os.listdir("/proc/self/fd"))
    contents = Contents({"w": shelf.drop, "put": "/"}.get, Remote(2.0))
    assert read(contents, file) == b"deep"
    fails(errno.ENXIO, lambda: read(contents, replace(file, path=f"{path}-none")))
    assert len(os.listdir("/proc/self/fd")) == before
    contents.close()


def test_a_link_far_down_is_not_followed(shelf: Shelf) -> None:
    stamp = shelf.write("other/a", b"secret")
    names, at = far_down(shelf)
    os.symlink(shelf.local("other"), "link", dir_fd=at)
    os.close(at)
    contents = Contents({"w": shelf.drop}.get, Remote(2.0))
    fails(errno.ENXIO, lambda: contents.open("a", entry(None, stamp, "/".join([*names, "link", "a"]))))
    fails(errno.ENXIO, lambda: contents.open("a", entry(None, stamp, "/".join([*names, *[".."] * 25, "other/a"]))))
    contents.close()


def test_an_open_original_that_changes_is_stale(shelf: Shelf, contents: Contents) -> None:
    file = entry(None, shelf.write("a", b"x" * 100))
    number, _ = contents.open("files/w/a", file)
    assert contents.read(number, 10, 0) == b"x" * 10
    with open(shelf.local("a"), "r+b") as other:
        other.write(b"y")
    os.utime(shelf.local("a"), ns=(1, 1))
    fails(errno.ESTALE, lambda: contents.read(number, 10, 50))
    contents.release(number)


def test_an_open_original_that_is_replaced_or_removed_is_read_to_its_end(shelf: Shelf, contents: Contents) -> None:
    number, _ = contents.open("files/w/a", entry(None, shelf.write("a", b"old")))
    os.unlink(shelf.local("a"))
    shelf.write("a", b"new")
    assert contents.read(number, 10, 0) == b"old"
    contents.release(number)


def test_a_file_without_original_and_url_is_enxio(contents: Contents) -> None:
    fails(errno.ENXIO, lambda: contents.open("files/w/a", entry(None, 3)))
    fails(errno.ENXIO, lambda: contents.open("files/w/a", entry("ftp://host/x", 3)))
    fails(errno.ENXIO, lambda: contents.open("files/w/a", entry("http:///x", 3)))
    for link in ("http://a..b/x", "http://xn--a/x", f"http://{'a' * 64}.example/x"):
        fails(errno.ENXIO, lambda link=link: read(contents, entry(link, 3)))
    assert contents.held("files/w/a") is None


# The outbox


def waiting(stamp: Stamp, path: str = "a") -> Waiting:
    return Waiting(1, "p", "w", path, stamp, State.PENDING, 0, 0.0)


def test_a_waiting_file_is_read_as_it_is_now(shelf: Shelf, contents: Contents) -> None:
    file = waiting(shelf.write("a", b"one"))
    number, past = contents.open("outbox/w/a", file)
    assert past, "its size changes: the kernel must not keep any of it"
    assert contents.read(number, 10, 0) == b"one"
    with open(shelf.local("a"), "ab") as other:
        other.write(b" two")
    assert contents.read(number, 10, 0) == b"one two"
    contents.release(number)
    now = contents.now(file)
    assert now is not None
    assert now.st_size == 7


def test_a_waiting_file_that_is_gone_is_enoent(shelf: Shelf, contents: Contents) -> None:
    stamp = shelf.write("a", b"one")
    os.unlink(shelf.local("a"))
    assert contents.now(waiting(stamp)) is None
    fails(errno.ENOENT, lambda: contents.open("outbox/w/a", waiting(stamp)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's link")
def test_another_users_link_in_a_watched_folders_place_shows_nothing(shelf: Shelf, contents: Contents) -> None:
    file = waiting(shelf.write("a", b"one"))
    os.mkdir(f"{shelf.root}/private")
    Path(f"{shelf.root}/private/a").write_bytes(b"secret")
    os.rename(shelf.drop, f"{shelf.root}/aside")
    os.symlink(f"{shelf.root}/private", shelf.drop)
    os.lchown(shelf.drop, UID, UID)
    fails(errno.ENXIO, lambda: contents.open("outbox/w/a", file))
    assert contents.now(file) is None
    os.lchown(shelf.drop, os.geteuid(), os.getegid())
    assert read(contents, file, path="outbox/w/a") == b"secret"


# The provider


def test_what_was_read_once_is_not_fetched_again(shelf: Shelf, origin: Origin) -> None:
    file = entry(origin.put("a", BODY), len(BODY))
    cache = Cache(f"{shelf.root}/cache", 64 * MIB, spare=0)
    for _ in range(2):  # the second time with nothing in memory
        contents = Contents(lambda watch: None, Remote(2.0, cache))
        assert read(contents, file) == BODY
        contents.close()
    assert len(origin.requests) == 1
    origin.put("a", bytes(len(BODY)), etag='"v2"')
    contents = Contents(lambda watch: None, Remote(2.0, cache))
    damaged = next(Path(f"{shelf.root}/cache").rglob("*-7"))  # not the first: then all comes from the new version
    with open(damaged, "r+b") as block:
        block.seek(-1, os.SEEK_END)
        last = block.read(1)
        block.seek(-1, os.SEEK_END)
        block.write(bytes([last[0] ^ 1]))
    fails(errno.ESTALE, lambda: read(contents, file))
    assert read(contents, file) == bytes(len(BODY)), "the old version's blocks went with it"
    contents.close()


def test_blocks_of_no_two_versions_have_one_name() -> None:
    one = entry("http://h/a", 5)
    others: list[dict[str, Any]] = [{"provider": "q"}, {"key": "l"}, {"stamp": Stamp(0, 6, 0, 0)}, {"stored_at": 0.5}]
    assert len({versions.named(one), *(versions.named(replace(one, **other)) for other in others)}) == 1 + len(others)
    assert versions.named(one) == versions.named(replace(one, id=2)), "in another journal too"


def test_who_looks_at_the_head_of_a_file_has_it_fetched_once_for_all(
    contents: Contents, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dumbwaiter_fs.stream.MOMENT", 30.0)
    body = BODY[: BLOCK - 1000]
    file = entry(origin.put("a", body), len(body))
    assert read(contents, file, 0, 4096) == body[:4096]
    assert read(contents, file) == body
    assert len(origin.requests) == 1


def test_of_a_small_file_only_what_is_not_there_is_asked_for(
    contents: Contents, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dumbwaiter_fs.stream.MOMENT", 30.0)
    body = BODY[: 3 * BLOCK]
    file = entry(origin.put("a", body), len(body))
    assert read(contents, file, 0, 4096) == body[:4096]
    assert read(contents, file) == body
    assert [wanted for _, wanted in origin.requests] == [
        f"bytes=0-{3 * BLOCK - 1}",
        f"bytes={BLOCK}-{3 * BLOCK - 1}",
    ]
    number, _ = contents.open("files/w/b", entry(origin.put("b", body), len(body)))
    assert contents.read(number, 10, 2 * BLOCK) == body[2 * BLOCK :][:10]
    assert contents.read(number, len(body), 0) == body
    contents.release(number)
    assert origin.requests[2:] == [("/b", f"bytes=0-{3 * BLOCK - 1}")], "who begins inside it has all of it"


def test_the_rest_of_a_block_that_comes_slowly_is_not_waited_for_and_no_fault_of_the_origin(
    contents: Contents, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dumbwaiter_fs.stream.MOMENT", 0.0)
    file = entry(origin.put("a", BODY[:60], drip=True), 60)
    assert read(contents, file, 0, 5) == BODY[:5]
    assert read(contents, file, 0, 5) == BODY[:5], "the origin is asked again at once"
    assert len(origin.requests) == 2


def test_reading_straight_on_asks_for_longer_and_longer_ranges(contents: Contents, origin: Origin) -> None:
    number, _ = contents.open("files/w/a", entry(origin.put("a", BODY), len(BODY)))
    got = b"".join(contents.read(number, 131072, offset) for offset in range(0, len(BODY), 131072))
    contents.release(number)
    assert got == BODY
    ends = [0, 1, 3, 7, 15]
    asked = [f"bytes={start * BLOCK}-{stop * BLOCK - 1}" for start, stop in itertools.pairwise(ends)]
    assert [wanted for _, wanted in origin.requests] == [*asked, f"bytes={15 * BLOCK}-{len(BODY) - 1}"]


def test_reading_here_and_there_asks_for_a_block_each(contents: Contents, origin: Origin) -> None:
    number, _ = contents.open("files/w/a", entry(origin.put("a", BODY), len(BODY)))
    for index in (17, 2, 10):
        assert contents.read(number, 4096, index * BLOCK + 5) == BODY[index * BLOCK + 5 :][:4096]
    contents.release(number)
    assert [wanted for _, wanted in origin.requests] == [
        f"bytes={index * BLOCK}-{(index + 1) * BLOCK - 1}" for index in (17, 2, 10)
    ]


def test_a_block_is_fetched_once_however_many_want_it(contents: Contents, origin: Origin) -> None:
    file = entry(origin.put("a", BODY), len(BODY))
    numbers = [contents.open(f"files/w/{index}", file)[0] for index in range(12)]
    with ThreadPoolExecutor(12) as pool:
        got = list(pool.map(lambda number: contents.read(number, len(BODY), 0), numbers))
    for number in numbers:
        contents.release(number)
    assert got == [BODY] * 12
    assert len(origin.requests) == 1


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.tuples(st.integers(0, len(BODY) + 10), st.integers(0, 300_000)), max_size=12))
def test_any_order_of_reads_gives_the_bytes(contents: Contents, origin: Origin, reads: list[tuple[int, int]]) -> None:
    number, _ = contents.open("files/w/a", entry(origin.put("a", BODY, cut_after=200_000), len(BODY)))
    for offset, size in reads:
        assert contents.read(number, size, offset) == BODY[offset : offset + size]
    contents.release(number)


def test_many_readers_of_one_handle_get_their_own_bytes(contents: Contents, origin: Origin) -> None:
    number, _ = contents.open("files/w/a", entry(origin.put("a", BODY), len(BODY)))
    wrong: list[int] = []

    def reader(seed: int) -> None:
        for offset in random.Random(seed).sample(range(0, len(BODY), 65536), 10):
            wrong.extend([offset] * (contents.read(number, 65536, offset) != BODY[offset : offset + 65536]))

    threads = [threading.Thread(target=reader, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    contents.release(number)
    assert wrong == []


def test_a_broken_reply_is_gone_on_with(contents: Contents, origin: Origin) -> None:
    file = entry(origin.put("a", BODY, cut_after=700_000), len(BODY))
    number, _ = contents.open("files/w/a", file)
    got = b"".join(contents.read(number, 131072, offset) for offset in range(0, len(BODY), 131072))
    contents.release(number)
    assert got == BODY


@pytest.mark.parametrize("part", [0, 25, 50, 99])
def test_bytes_that_never_come_are_eio(contents: Contents, origin: Origin, part: int) -> None:
    file = entry(origin.put("a", BODY, cut_at=len(BODY) * part // 100), len(BODY))
    fails(errno.EIO, lambda: read(contents, file))


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, errno.EACCES),
        (403, errno.EACCES),
        (404, errno.ESTALE),
        (408, errno.ETIMEDOUT),
        (410, errno.ESTALE),
        (412, errno.ESTALE),
        (416, errno.ESTALE),
        (302, errno.EIO),
        (204, errno.EIO),
        (429, errno.EIO),
        (500, errno.EIO),
        (504, errno.ETIMEDOUT),
    ],
)
def test_a_status_has_its_errno(contents: Contents, origin: Origin, status: int, code: int) -> None:
    words = {
        errno.EACCES: "the provider does not let it be read",
        errno.ESTALE: "the file is not at its address any more",
        errno.ETIMEDOUT: "the provider takes too long",
        errno.EIO: "the provider answers with an error",
    }
    with pytest.raises(Refused) as said:
        read(contents, entry(origin.put("a", BODY, status=status), len(BODY)))
    assert (said.value.errno, said.value.why) == (code, f"{words[code]} (status {status})")


@pytest.mark.parametrize(("idle", "requests"), [(stream.IDLE, 1), (-1.0, 2)])
def test_a_reply_that_was_left_alone_for_long_is_not_trusted_to_go_on(
    contents: Contents, origin: Origin, monkeypatch: pytest.MonkeyPatch, idle: float, requests: int
) -> None:
    monkeypatch.setattr(stream, "IDLE", idle)
    number, _ = contents.open("files/w/a", entry(origin.put("a", BODY), len(BODY)))
    for offset in (0, 200_000):
        assert contents.read(number, 1000, offset) == BODY[offset : offset + 1000]
    contents.release(number)
    assert len(origin.requests) == requests


def test_a_server_without_ranges_serves_from_the_start_and_over_a_small_gap(contents: Contents, origin: Origin) -> None:
    file = entry(origin.put("a", BODY, ranges=False), len(BODY))
    assert read(contents, file, 1000, 1000) == BODY[1000:2000]
    assert read(contents, file, 2 * MIB, 1000) == BODY[2 * MIB :][:1000]
    assert read(contents, file) == BODY


def test_a_server_without_ranges_is_not_read_over_far(
    contents: Contents, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "OVER", 4)
    file = entry(origin.put("a", BODY, ranges=False), len(BODY))
    fails(errno.EIO, lambda: read(contents, file, 2 * MIB, 1000))
    assert contents._remote.memory.get(versions.named(file), 0) is None, "nothing was fetched for nothing"


@pytest.mark.parametrize("name", ["a", "b"])
def test_another_size_is_another_version(contents: Contents, origin: Origin, name: str) -> None:
    file = entry(origin.put(name, BODY, ranges=name == "a"), len(BODY) - 1)
    fails(errno.ESTALE, lambda: read(contents, file))


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": f"bytes 1-{len(BODY)}/{len(BODY)}"},
        {"Content-Range": "bytes 0-9/10"},
        {"Content-Range": f"bytes 0-{len(BODY)}/{len(BODY)}"},
        {"Content-Range": "nonsense"},
        {"Content-Range": ""},
        {"Content-Encoding": "gzip"},
    ],
)
def test_a_reply_that_is_not_what_was_asked_is_not_used(
    contents: Contents, origin: Origin, headers: dict[str, str]
) -> None:
    file = entry(origin.put("a", BODY, headers=headers), len(BODY))
    with pytest.raises(OSError, match=r"Input/output|Stale"):
        read(contents, file)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("etag", ['"v2"', None, 'W/"v1"'])
def test_a_version_that_changes_while_it_is_open_is_stale(
    contents: Contents, origin: Origin, etag: str | None, ranges: bool
) -> None:
    file = entry(origin.put("a", BODY), len(BODY))
    first, _ = contents.open("files/w/a", file)
    assert contents.read(first, 10, 0) == BODY[:10]
    second, _ = contents.open("files/w/a", file)
    origin.put("a", bytes(len(BODY)), etag=etag, ranges=ranges)
    fails(errno.ESTALE, lambda: contents.read(first, 10, 4 * MIB))
    fails(errno.ESTALE, lambda: contents.read(second, 10, 0))
    fails(errno.ESTALE, lambda: contents.open("files/w/a", file))
    contents.release(first)
    contents.release(second)
    assert read(contents, file, 0, 10) == bytes(10), "once nobody has it open, what is there is there"


@pytest.mark.parametrize("etag", ['"v1"', None])
def test_what_is_in_memory_is_not_mixed_with_a_newer_version(
    contents: Contents, origin: Origin, etag: str | None
) -> None:
    file = entry(origin.put("a", BODY, etag=etag), len(BODY))
    assert read(contents, file, 0, BLOCK) == BODY[:BLOCK]
    origin.put("a", bytes(len(BODY)), etag=etag and '"v2"')
    number, _ = contents.open("files/w/a", file)
    first = contents.read(number, 10, 0)
    if etag:
        assert first == BODY[:10]
        fails(errno.ESTALE, lambda: contents.read(number, 10, 4 * MIB))
    else:
        assert first == contents.read(number, 10, 4 * MIB) == bytes(10), "without a mark nothing is kept"
    contents.release(number)


def test_the_kernel_is_to_keep_what_it_has_of_the_same_version_from_the_same_place_alone(
    shelf: Shelf, contents: Contents, origin: Origin
) -> None:
    def kept(file: Entry) -> bool:
        number, _ = contents.open("files/w/a", file)
        try:
            contents.read(number, 6, 0)
            return contents.keeps(number)
        finally:
            contents.release(number)

    first, second = (entry(origin.put(name, b"remote"), 6) for name in ("a", "b"))
    here = entry(origin.put("c", b"remote"), shelf.write("a", b"local!"))
    assert [kept(one) for one in (first, first, second, second, first)] == [False, True, False, True, False]
    assert [kept(one) for one in (here, here, first)] == [False, True, False]
    assert kept(here) is False
    os.unlink(shelf.local("a"))
    assert kept(here) is False, "the same version, from the provider now"


def test_what_the_kernel_has_is_not_mixed_with_a_newer_version(contents: Contents, origin: Origin) -> None:
    file = entry(origin.put("a", BODY), len(BODY))
    assert read(contents, file, 0, 10) == BODY[:10]
    contents._remote.memory.drop(versions.named(file))
    origin.put("a", bytes(len(BODY)), etag='"v2"')
    number, _ = contents.open("files/w/a", file)
    assert contents.keeps(number)
    fails(errno.ESTALE, lambda: contents.read(number, 10, 4 * MIB))
    contents.release(number)
    number, _ = contents.open("files/w/a", file)
    assert not contents.keeps(number)
    assert contents.read(number, 10, 0) == bytes(10)
    contents.release(number)


def test_an_open_path_stands_for_one_version(shelf: Shelf, contents: Contents, origin: Origin) -> None:
    old = entry(origin.put("old", b"old"), 3)
    new = entry(None, shelf.write("a", b"newer"), number=2)
    first, past = contents.open("files/w/a", old)
    assert not past
    assert contents.held("files/w/a") == old
    second, _ = contents.open("files/w/a", new)
    assert contents.read(first, 10, 0) == contents.read(second, 10, 0) == b"old"
    contents.release(first)
    assert contents.held("files/w/a") == old
    contents.release(second)
    assert contents.held("files/w/a") is None
    assert read(contents, new) == b"newer"


def test_an_original_that_is_gone_is_read_as_long_as_somebody_has_it_open(
    shelf: Shelf, contents: Contents, origin: Origin
) -> None:
    file = entry(origin.put("a", b"same"), shelf.write("a", b"same"))
    before = len(os.listdir("/proc/self/fd"))
    first, _ = contents.open("files/w/a", file)
    os.unlink(shelf.local("a"))
    second, past = contents.open("files/w/a", file)
    assert not past, "the kernel's cache holds bytes of the same source"
    contents.release(first)
    assert contents.read(second, 10, 0) == b"same"
    contents.release(second)
    assert (origin.requests, len(os.listdir("/proc/self/fd"))) == ([], before)
    assert read(contents, file) == b"same"
    assert origin.requests


def test_the_kernels_cache_holds_bytes_of_one_source(shelf: Shelf, contents: Contents, origin: Origin) -> None:
    file = entry(origin.put("a", b"same"), shelf.write("a", b"same"))
    first, past = contents.open("files/w/a", file)
    assert not past
    os.utime(shelf.local("a"), ns=(1, 1))
    second, past = contents.open("files/w/a", file)
    assert past
    contents.release(first)
    contents.release(second)


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_server_that_does_not_come_to_an_end_meets_the_deadline(
    contents: Contents, origin: Origin, fault: str
) -> None:
    file = entry(origin.put("a", BODY, **{fault: True}), len(BODY))
    start = time.monotonic()
    fails(errno.ETIMEDOUT, lambda: read(contents, file))
    assert time.monotonic() - start < 4
    asked = len(origin.requests)
    fails(errno.ETIMEDOUT, lambda: read(contents, file, path="files/w/b"))
    assert len(origin.requests) == asked, "the origin is left alone for a while"


def test_an_origin_that_is_down_is_said_at_once_and_tried_again_later(
    contents: Contents, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = entry("http://127.0.0.1:1/a", 3)
    number, _ = contents.open("files/w/a", file)
    fails(errno.EHOSTUNREACH, lambda: contents.read(number, 3, 0))
    contents.release(number)
    with pytest.raises(Refused) as said:
        read(contents, file)
    assert (said.value.errno, said.value.why) == (errno.EHOSTUNREACH, "the origin did not answer a moment ago")
    assert read(contents, entry(origin.put("a", b"abc"), 3)) == b"abc", "another origin is not meant"
    later = time.monotonic() + origins.REST
    monkeypatch.setattr(origins.time, "monotonic", lambda: later)
    contents._remote.origins.check(file.url or "")


def test_more_readers_than_streams_are_served(
    contents: Contents, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "STREAMS", 2)
    file = entry(origin.put("a", BODY), len(BODY))
    numbers = [contents.open("files/w/a", file)[0] for _ in range(6)]
    for offset in range(0, len(BODY), MIB):
        for number in numbers:
            assert contents.read(number, 1000, offset) == BODY[offset : offset + 1000]
    for number in numbers:
        contents.release(number)


def test_a_reply_that_a_reader_waits_for_leaves_no_more_of_the_others_open(
    contents: Contents, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "STREAMS", 3)
    streams: Any = contents._remote._open  # by what lets go of each
    numbers: list[int] = []
    with ExitStack() as stack:
        for name in "abcdef":
            number, _ = contents.open(f"files/w/{name}", entry(origin.put(name, BODY), len(BODY)))
            stack.callback(contents.release, number)
            contents.read(number, 1000, 0)
            numbers.append(number)
            if name == "a":
                (waits,) = streams
                stack.enter_context(waits.__self__.lock)
        assert len(streams) == 3
        assert waits in streams
        for number in numbers[1:]:
            assert contents.read(number, 1000, 200_000) == BODY[200_000:201_000]


def test_why_it_failed_is_told_until_it_goes_well_again(
    shelf: Shelf, contents: Contents, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "PATHS", 2)
    files = {f"files/w/{name}": entry(origin.put(name, BODY, status=403), len(BODY), name) for name in "abc"}
    for path, file in files.items():
        with pytest.raises(Refused):
            read(contents, file, path=path)
    last, file = path, file
    refused = "the provider does not let it be read (status 403)"
    assert [contents.trouble(path, file) for path, file in files.items()] == [None, refused, refused]
    origin.of("c").status = None
    assert read(contents, file, 0, 10, path=last) == BODY[:10]
    assert contents.trouble(last, file) is None

    lost = entry(None, 3, "lost")
    fails(errno.ENXIO, lambda: contents.open("files/w/lost", lost))
    said = "the original is gone, and the provider gives no link"
    assert contents.trouble("files/w/lost", lost) == said
    found = entry(None, shelf.write("lost", b"abc"), "lost")
    number, _ = contents.open("files/w/lost", found)
    if contents.read_nowait(number, 3, 0) is None:  # not every file system can tell what is in memory
        contents.read(number, 3, 0)
    assert contents.trouble("files/w/lost", found) is None
    contents.release(number)


def test_what_was_looked_at_or_opened_is_not_left_open(shelf: Shelf) -> None:
    contents = Contents(lambda _: shelf.drop, Remote(2.0))
    file, wait = entry(None, shelf.write("a", b"abc")), waiting(shelf.write("b", b"abc"), "b")

    def left() -> list[str]:
        links = [os.readlink(one) for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
        return [link for link in links if link.startswith(shelf.drop)]

    assert contents.now(wait) is not None
    assert contents.trouble("files/w/a", file) is None
    for number in (contents.open("files/w/a", file)[0], contents.open("outbox/w/b", wait)[0]):
        contents.release(number)
    assert left() == []
    contents.open("files/w/a", file)
    contents.open("outbox/w/b", wait)
    assert len(left()) == 2
    contents.close()
    assert left() == []


def test_an_empty_file_costs_no_request(contents: Contents, origin: Origin) -> None:
    assert read(contents, entry(origin.put("a", b""), 0)) == b""
    assert read(contents, entry("http://127.0.0.1:1/", 0)) == b""
    assert origin.requests == []


def test_a_handle_that_is_not_open_is_ebadf(contents: Contents) -> None:
    fails(errno.EBADF, lambda: contents.read(99, 1, 0))
    contents.release(99)


def test_a_slow_but_moving_server_is_waited_for(contents: Contents, origin: Origin) -> None:
    body = BODY[:60]
    number, _ = contents.open("files/w/a", entry(origin.put("a", body, drip=True), len(body)))
    start = time.monotonic()
    got = b"".join(contents.read(number, 5, offset) for offset in range(0, 60, 5))
    assert got == body
    assert time.monotonic() - start > 3, "longer than one read may last"
    contents.release(number)


def test_a_reply_stays_open_for_who_reads_on_under_another_name(contents: Contents, origin: Origin) -> None:
    file = entry(origin.put("a", BODY, ranges=False), len(BODY))
    through_keys, _ = contents.open("keys/p/a", file)
    assert contents.read(through_keys, 10, 0) == BODY[:10]
    assert read(contents, file, 0, 10, path="files/w/a") == BODY[:10]
    assert contents.read(through_keys, 1000, 4 * MIB) == BODY[4 * MIB :][:1000]
    assert len(origin.requests) == len(contents._remote._open) == 1
    contents.release(through_keys)
    assert not contents._remote._open


def test_connections_are_used_again(contents: Contents, origin: Origin) -> None:
    for name in map(str, range(20)):
        assert read(contents, entry(origin.put(name, b"x" * 100), 100)) == b"x" * 100
    assert (len(origin.requests), origin.connections) == (20, 1)


# Without a wait


def read_nowait(contents: Contents, number: int, size: int, offset: int) -> bytes | None:
    pieces = contents.read_nowait(number, size, offset)
    data = None if pieces is None else b"".join(pieces)
    contents.prefetch(number, offset + size)
    return data


@pytest.fixture
def cached(shelf: Shelf, tmp_path: Any) -> Iterator[Contents]:
    cache = Cache(str(tmp_path / "blocks"), 64 * MIB, spare=0)
    contents = Contents(lambda watch: shelf.drop if watch == "w" else None, Remote(2.0, cache))
    yield contents
    contents.close()


def fetched(cached: Contents, origin: Origin) -> Entry:
    """Returns a file that is in the cache whole, and not in memory."""
    file = entry(origin.put("a", BODY), len(BODY))
    assert read(cached, file) == BODY
    cached._remote.memory = MemoryCache()
    return file


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(
    reads=st.lists(st.tuples(st.integers(0, len(BODY) - 1), st.sampled_from([1, 4096, 128 << 10, MIB])), max_size=20),
    local=st.booleans(),
)
def test_what_is_given_without_a_wait_is_what_read_gives(
    shelf: Shelf, cached: Contents, origin: Origin, reads: list[tuple[int, int]], local: bool
) -> None:
    file = entry(None, shelf.write("a", BODY)) if local else fetched(cached, origin)
    number, _ = cached.open("files/w/a", file)
    asked = len(origin.requests)
    for offset, size in [*reads, *((at, 128 << 10) for at in range(0, len(BODY), 128 << 10))]:
        data = read_nowait(cached, number, size, offset)
        assert data in {None, BODY[offset : offset + size]}
        assert cached.read(number, size, offset) == BODY[offset : offset + size]
    assert read_nowait(cached, number, 1, len(BODY)) is None
    cached.release(number)
    assert read_nowait(cached, number, 1, 0) is None
    assert len(origin.requests) == asked
    with suppress(FileNotFoundError):
        os.unlink(shelf.local("a"))


def test_the_next_block_is_looked_at_ahead_where_reading_goes_straight_on(
    cached: Contents, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, _ = cached.open("files/w/a", fetched(cached, origin))
    hot, looked = cached._remote.hot, []
    assert hot is not None
    get = hot.get
    monkeypatch.setattr(hot, "get", lambda name, index: looked.append(index) or get(name, index))
    half = BLOCK // 2
    for offset in (0, half, 4 * BLOCK + half):
        cached.read_nowait(number, half, offset)
        cached.prefetch(number, offset + half)
    assert looked == [0, 0, 1, 4]
    cached.release(number)


def test_an_original_that_changes_is_not_given_without_a_wait(shelf: Shelf, cached: Contents) -> None:
    number, _ = cached.open("files/w/a", entry(None, shelf.write("a", b"before")))
    with open(shelf.local("a"), "ab") as file:
        file.write(b"!")
    assert read_nowait(cached, number, 6, 0) is None
    fails(errno.ESTALE, lambda: cached.read(number, 6, 0))


def test_what_came_from_the_cache_is_in_memory(cached: Contents, origin: Origin, tmp_path: Path) -> None:
    file = fetched(cached, origin)
    assert read(cached, file) == BODY
    shutil.rmtree(tmp_path / "blocks")
    assert read(cached, file) == BODY
    assert len(origin.requests) == 1


@pytest.mark.parametrize(
    "block", [Block('"v0"', BODY[BLOCK : 2 * BLOCK]), Block('"v1"', b"less")], ids=["old", "short"]
)
def test_a_block_of_another_version_or_length_is_not_given_without_a_wait(
    cached: Contents, origin: Origin, block: Block
) -> None:
    file = entry(origin.put("a", BODY), len(BODY))
    number, _ = cached.open("files/w/a", file)
    assert cached.read(number, BLOCK, 0) == BODY[:BLOCK]
    assert cached._remote.cache is not None
    cached._remote.cache.put(versions.named(file), 1, block)
    assert cached.read_nowait(number, BLOCK, BLOCK) is None
    assert cached.read(number, BLOCK, BLOCK) == BODY[BLOCK : 2 * BLOCK]
    cached.release(number)


def test_what_would_need_a_request_is_not_given_without_a_wait(cached: Contents, origin: Origin) -> None:
    number, _ = cached.open("files/w/a", entry(origin.put("a", BODY), len(BODY)))
    assert read_nowait(cached, number, 4096, 0) is None
    assert origin.requests == []
    assert cached.read(number, BLOCK, 0) == BODY[:BLOCK]
    assert read_nowait(cached, number, 4096, 4096) == BODY[4096:8192], "of the block that has come"
    assert read_nowait(cached, number, 4096, BLOCK - 1) is None


def test_what_is_laid_out_is_not_mixed_with_a_newer_version(cached: Contents, origin: Origin) -> None:
    file = fetched(cached, origin)
    number, _ = cached.open("files/w/a", file)
    assert read_nowait(cached, number, 4096, 0) is not None, "the first reply to come has to be of this version"
    cached._remote.cache.drop(versions.named(file))  # type: ignore[union-attr]
    origin.of("a").etag = '"v2"'
    fails(errno.ESTALE, lambda: cached.read(number, 4096, 4 * BLOCK))
    assert read_nowait(cached, number, 4096, 0) is None
    cached.release(number)
    assert read(cached, file) == BODY
    number, _ = cached.open("files/w/a", file)
    assert read_nowait(cached, number, 4096, 0) == BODY[:4096]


@pytest.mark.parametrize("url", [True, False], ids=["a url", "no url"])
def test_a_dead_disk_keeps_a_few_threads_and_who_has_a_url_reads_from_there(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: bool
) -> None:
    monkeypatch.setattr(disk, "PATIENCE", 0.3)
    nas = tmp_path / "nas"
    nas.mkdir()
    origin = Origin()
    contents = Contents(lambda watch: shelf.drop if watch == "w" else str(nas), Remote(2.0))
    dead = replace(entry(origin.put("a", BODY) if url else None, len(BODY)), watch="dead")
    got: list[bytes] = []

    def look(path: str) -> None:
        with suppress(Refused):
            got.append(read(contents, dead, 0, 1000, path))

    looks = [threading.Thread(target=look, args=(f"{number}",), daemon=True) for number in range(disk.ABREAST)]
    with dead_disk(nas):
        for one in looks:
            one.start()
        if not url:
            time.sleep(disk.PATIENCE)
            with pytest.raises(Refused) as raised:
                contents.open("fifth", dead)
            assert raised.value.errno == errno.ETIMEDOUT
        else:
            for one in looks:
                one.join(10)
            assert got == [BODY[:1000]] * disk.ABREAST
            start = time.monotonic()
            for number in range(10):
                assert read(contents, dead, 0, 1000, f"later {number}") == BODY[:1000]
            assert time.monotonic() - start < disk.PATIENCE, "it is known to be dead"
        kept = [thread for thread in threading.enumerate() if thread.name == "disk"]
        assert len(kept) <= disk.ABREAST + disk.SPARE
        with pytest.raises(Refused) as raised:
            contents.open("b", Waiting(1, "p", "dead", "b", Stamp(0, 1, 0, 0), State.PENDING, 0, 0.0))
        assert raised.value.errno == errno.ETIMEDOUT
        stamp = shelf.write("healthy", b"healthy")
        number, _ = contents.open("healthy", entry(None, stamp, "healthy"))
        assert contents.read(number, 100, 0) == b"healthy"
    for one in looks:
        one.join()
    contents.close()
    origin.close()


def test_what_a_disk_opens_too_late_is_closed(
    shelf: Shelf, origin: Origin, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "PATIENCE", 0.1)
    monkeypatch.setattr(content, "network_at", lambda _folder: "/")
    file = entry(origin.put("a", b"same"), shelf.write("a", b"same"))
    there, status = threading.Event(), os.fstat

    def slowly(descriptor: int) -> os.stat_result:
        there.wait(10)
        return status(descriptor)

    monkeypatch.setattr(content.os, "fstat", slowly)
    assert read(contents, file) == b"same"
    assert len(origin.requests) == 1
    there.set()
    until(lambda: not [fd for fd in os.listdir("/proc/self/fd") if of(fd) == shelf.local("a")])
    assert read(contents, file) == b"same"
    assert len(origin.requests) == 1, "the disk answers again"


def of(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except FileNotFoundError:
        return ""


def test_in_the_place_of_a_file_that_put_named_nothing_else_is_shown(shelf: Shelf, tmp_path: Path) -> None:
    contents = Contents(lambda _watch: "/", Remote(2.0))
    path = tmp_path / "a"
    path.write_bytes(b"ordered")
    waiting = Waiting(1, "p", "put", str(path)[1:], Stamp.of(os.stat(path)), State.PENDING, 0, 0.0)
    number, _ = contents.open("a", waiting)
    assert contents.read(number, 100, 0) == b"ordered"
    path.unlink()
    path.write_bytes(b"private")
    with pytest.raises(Refused):
        contents.open("a", waiting)
    contents.close()
