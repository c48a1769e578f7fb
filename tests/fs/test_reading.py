"""Real programs on a real mount: they get the bytes, or they say that they did not."""

import errno
import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dumbwaiter import cache_hits
from dumbwaiter.model import Stamp
from dumbwaiter.naming import key_path, split
from dumbwaiter_fs.cache import BLOCK
from fs.world import STORED, Mounted, Origin, Shelf, also_libfuse3, until

pytestmark = pytest.mark.fuse

Mount = Callable[..., Mounted]
MAPPED = """
import mmap, sys
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as view:
    sys.stdout.buffer.write(view[:])
"""
BODY = random.Random(2).randbytes(3_000_017)
MAP = """import mmap, sys
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
    sys.stdout.buffer.write(mapped)"""
NAMES = [
    b"plain.txt",
    "目录 文件.txt".encode(),
    "😀 emoji.mov".encode(),
    b"not utf-8 \xff\xfe\x80.bin",
    b"line\nbreak",
    b"\x1b[31mred",
    b"back\\slash 'quote' \"double\"",
    b"-rf",
    b" ",
    b"%41%",
    b"%~looks escaped",
    b"e\xcc\x81 and \xc3\xa9",
    b"x" * 255,
]


def cat(path: str) -> tuple[int, bytes]:
    done = subprocess.run(["cat", path], capture_output=True, timeout=60)
    return done.returncode, done.stdout


def code_of(call: Callable[[], Any]) -> str:
    with pytest.raises(OSError, match=r"\[Errno") as raised:
        call()
    return errno.errorcode[raised.value.errno or 0]


@also_libfuse3
@pytest.mark.parametrize("folder", [b"", "文件夹\udcff/deep".encode("utf-8", "surrogateescape")])
def test_every_name_is_listed_and_read(shelf: Shelf, mount: Mount, folder: bytes) -> None:
    for name in NAMES:
        path = os.path.join(folder, name)
        shelf.entry(os.fsdecode(path), shelf.write(path, b"bytes of " + name))
        shelf.job(os.fsdecode(path), shelf.write(b"waiting/" + path, b"waiting"))
    mounted = mount()
    root = os.path.join(os.fsencode(mounted.at("files/w")), folder)
    assert sorted(name for name in os.listdir(root) if name in NAMES) == sorted(NAMES)
    for name in NAMES:
        path = os.path.join(root, name)
        with open(path, "rb") as file:
            assert file.read() == b"bytes of " + name
        assert os.stat(path).st_size == 9 + len(name)
        assert os.getxattr(path, "user.dumbwaiter.path") == os.path.join(folder, name)
        assert "user.dumbwaiter.state" in os.listxattr(path)
    waiting = os.path.join(os.fsencode(mounted.at("outbox/w")), folder)
    assert sorted(name for name in os.listdir(waiting) if name in NAMES) == sorted(NAMES)


@pytest.mark.parametrize("key", ["", ".", "..", "a//b", "/lead", "trail/", "x" * 300, "nul\0", "a%2Fb", "\x1b"])
def test_every_key_is_listed_and_read(shelf: Shelf, mount: Mount, key: str) -> None:
    shelf.entry("a", shelf.write("a", b"x"), key=key)
    mounted = mount()
    found = [os.path.join(root, name) for root, _, names in os.walk(mounted.at("keys")) for name in names]
    assert found == [mounted.at("keys/p", key_path(key))]
    with open(found[0], "rb") as file:
        assert file.read() == b"x"
    assert os.getxattr(found[0], "user.dumbwaiter.provider") == b"p"


def test_attributes_are_those_of_the_file(shelf: Shelf, mount: Mount) -> None:
    shelf.entry("d/a", shelf.write("d/a", b"x" * 1000))
    mounted = mount()
    status, local = os.stat(mounted.at("files/w/d/a")), os.stat(shelf.local("d/a"))
    assert (status.st_size, status.st_mtime_ns, status.st_mode) == (1000, local.st_mtime_ns, 0o100644)
    assert (status.st_uid, status.st_gid, status.st_blocks) == (os.getuid(), os.getgid(), 2)
    folder = os.stat(mounted.at("files/w/d"))
    assert (folder.st_mtime, folder.st_mode) == (STORED, 0o40755)
    for name in ("files/w/d", "files/w/d/a"):
        assert not os.access(mounted.at(name), os.W_OK), "the mount itself is read-only"
    assert os.stat(mounted.at("files")).st_mtime == STORED, "when the newest of all came"
    assert {entry.name: entry.inode() for entry in os.scandir(mounted.at("files/w/d"))} == {"a": status.st_ino}
    with pytest.raises(OSError, check=lambda error: error.errno == errno.ENAMETOOLONG):
        os.stat(mounted.at("files/w", "n" * (os.pathconf(mounted.path, "PC_NAME_MAX") + 1)))
    system = os.statvfs(mounted.path)
    assert (system.f_files, system.f_blocks, system.f_bavail, system.f_namemax) == (1, 1, 0, 255)


@also_libfuse3
def test_every_write_says_read_only(shelf: Shelf, mount: Mount) -> None:
    shelf.entry("a", shelf.write("a", b"x"))
    at = mount().at
    a, new = at("files/w/a"), at("files/w/new")
    calls: list[Callable[[], Any]] = [
        lambda: os.open(a, os.O_WRONLY | os.O_TRUNC),
        lambda: os.open(a, os.O_RDWR),
        lambda: os.open(new, os.O_WRONLY | os.O_CREAT),
        lambda: os.truncate(a, 0),
        lambda: os.mkdir(new),
        lambda: os.rmdir(at("files/w")),
        lambda: os.unlink(a),
        lambda: os.rename(a, new),
        lambda: os.link(a, new),
        lambda: os.symlink(a, new),
        lambda: os.mknod(new),
        lambda: os.mkfifo(new),
        lambda: os.chmod(a, 0o600),
        lambda: os.chown(a, 1, 1),
        lambda: os.utime(a),
        lambda: os.setxattr(a, "user.dumbwaiter.url", b"x"),
        lambda: os.removexattr(a, "user.dumbwaiter.path"),
    ]
    assert {code_of(call) for call in calls} == {"EROFS"}
    assert not os.access(a, os.W_OK)


def test_other_questions_have_the_usual_answers(shelf: Shelf, mount: Mount) -> None:
    shelf.entry("a", shelf.write("a", b"x"))
    at = mount().at
    assert code_of(lambda: os.stat(at("files/w/none"))) == "ENOENT"
    assert code_of(lambda: os.stat(at("other"))) == "ENOENT"
    assert code_of(lambda: os.stat(at("files/w/a/b"))) == "ENOTDIR"
    assert code_of(lambda: os.listdir(at("files/w/a"))) == "ENOTDIR"
    assert b"Is a directory" in subprocess.run(["cat", at("files/w")], capture_output=True).stderr
    assert code_of(lambda: os.readlink(at("files/w/a"))) == "EINVAL"
    assert code_of(lambda: os.getxattr(at("files/w/a"), "user.other")) == "ENODATA"
    assert os.getxattr(at("files/w/a"), "user.dumbwaiter.url") == b""
    assert os.listxattr(at("files/w")) == []


@also_libfuse3
def test_whether_a_file_is_a_terminal_is_no_error_to_be_logged(shelf: Shelf, mount: Mount) -> None:
    shelf.entry("a", shelf.write("a", b"x"))
    mounted = mount()
    with open(mounted.at("files/w/a"), "rb") as file:
        assert code_of(lambda: fcntl.ioctl(file, termios.TCGETS, bytes(60))) == "ENOTTY"
    assert '"error"' not in mounted.said()


def test_listing_and_attributes_make_no_request(shelf: Shelf, mount: Mount, origin: Origin) -> None:
    for index in range(30):
        shelf.entry(f"d/{index}", 1000, url=origin.put(str(index), b"x" * 1000))
    mounted = mount()
    for line in ("ls -lR .", "find . -size +0 -ls", "du -a .", "getfattr -d -R .", "stat -f ."):
        assert subprocess.run(line.split(), cwd=mounted.path, capture_output=True).returncode == 0
    for index in range(30):
        os.close(os.open(mounted.at(f"files/w/d/{index}"), os.O_RDONLY))
    assert origin.requests == []


@pytest.mark.parametrize("size", [0, 1, 4096, 131072, 131073, 1 << 20, len(BODY)])
def test_a_file_at_the_provider_is_read_whole(shelf: Shelf, mount: Mount, origin: Origin, size: int) -> None:
    shelf.entry("a", size, url=origin.put("a", BODY[:size]))
    assert cat(mount().at("files/w/a")) == (0, BODY[:size])


@also_libfuse3
@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ({"cut_at": 0}, "Input/output"),
        ({"cut_at": len(BODY) // 4}, "Input/output"),
        ({"cut_at": len(BODY) // 2}, "Input/output"),
        ({"cut_at": len(BODY) - 1}, "Input/output"),
        ({"status": 500}, "Input/output"),
        ({"status": 403}, "Permission denied"),
        ({"status": 404}, "Stale"),
        ({"headers": {"Content-Encoding": "gzip"}}, "Input/output"),
        ({"hang": True}, "timed out"),
        ({"drip": True}, "timed out"),
    ],
)
def test_what_goes_wrong_is_said_and_never_wrong_bytes(
    shelf: Shelf, mount: Mount, origin: Origin, faults: dict[str, Any], words: str
) -> None:
    shelf.entry("a", len(BODY), url=origin.put("a", BODY, **faults))
    mounted = mount(deadline=1.0)
    copy = f"{shelf.root}/copy"
    done = subprocess.run(["cp", mounted.at("files/w/a"), copy], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert words in done.stderr
    with open(copy, "rb") as file:
        assert BODY.startswith(file.read())


@pytest.mark.parametrize("faults", [{"ranges": False}, {"etag": None}, {"etag": 'W/"v"'}, {"cut_after": 900_000}])
def test_what_can_be_made_good_is(shelf: Shelf, mount: Mount, origin: Origin, faults: dict[str, Any]) -> None:
    shelf.entry("a", len(BODY), url=origin.put("a", BODY, **faults))
    assert cat(mount().at("files/w/a")) == (0, BODY)


@also_libfuse3
def test_random_reads_give_the_bytes(shelf: Shelf, mount: Mount, origin: Origin) -> None:
    shelf.entry("a", len(BODY), url=origin.put("a", BODY))
    shelf.entry("b", shelf.write("b", BODY))
    mounted = mount()
    chance = random.Random(3)
    for name in "ab":
        with open(mounted.at("files/w", name), "rb", buffering=0) as file:
            for _ in range(60):
                offset, size = chance.randrange(len(BODY) + 100), chance.choice([1, 4096, 100_000, 700_000])
                assert os.pread(file.fileno(), size, offset) == BODY[offset : offset + size]
        # In a program of its own: a page fault holds the interpreter, and with it the origin's threads.
        assert (
            subprocess.run([sys.executable, "-c", MAP, mounted.at("files/w", name)], capture_output=True).stdout == BODY
        )


def test_what_was_read_once_is_read_again_without_the_provider(shelf: Shelf, mount: Mount, origin: Origin) -> None:
    shelf.entry("a", len(BODY), url=origin.put("a", BODY))
    mounted = mount()
    assert cat(mounted.at("files/w/a")) == (0, BODY)
    asked = len(origin.requests)
    assert mounted.stop() == 0
    origin.put("a", b"", status=500)
    mounted = mount()
    assert cat(mounted.at("files/w/a")) == cat(mounted.at("keys/p/k/a")) == (0, BODY)
    assert len(origin.requests) == asked


def test_blocks_that_came_are_counted_soon(shelf: Shelf, mount: Mount, origin: Origin) -> None:
    shelf.entry("a", len(BODY), url=origin.put("a", BODY))
    mounted = mount()
    assert cat(mounted.at("files/w/a")) == (0, BODY)
    until(lambda: cache_hits.read(f"{shelf.root}/cache") == (0, -(-len(BODY) // BLOCK)))


def test_the_kernel_keeps_what_is_still_the_same_version(shelf: Shelf, mount: Mount, origin: Origin) -> None:
    with open(shelf.config, "a", encoding="utf-8") as config:
        config.write('cache_size = "0"\n')
    body = BODY * 8  # more than the mount itself holds in memory
    shelf.entry("a", len(body), key="1", url=origin.put("a", body))
    mounted = mount()
    assert cat(mounted.at("files/w/a")) == (0, body)

    def asks_for_nothing() -> bool:
        asked = len(origin.requests)
        assert cat(mounted.at("files/w/a")) == (0, body)
        return len(origin.requests) == asked

    assert any(asks_for_nothing() for _ in range(5))  # a machine short of memory may drop a page between two of them
    assert not os.path.exists(f"{shelf.root}/cache")
    new = bytes(len(body))
    shelf.entry("a", len(new), key="2", url=origin.put("b", new))
    until(lambda: os.getxattr(mounted.at("files/w/a"), "user.dumbwaiter.key") == b"2")
    assert cat(mounted.at("files/w/a")) == (0, new)


def test_a_remote_that_changes_while_it_is_read_is_stale(shelf: Shelf, mount: Mount, origin: Origin) -> None:
    shelf.entry("a", len(BODY), url=origin.put("a", BODY))
    mounted = mount()
    with open(mounted.at("files/w/a"), "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 1000, 0) == BODY[:1000]
        origin.put("a", bytes(len(BODY)), etag='"v2"')
        assert code_of(lambda: os.pread(file.fileno(), 1000, len(BODY) - 1000)) == "ESTALE"


def test_a_reader_keeps_its_version_when_the_catalog_gets_a_newer_one(
    shelf: Shelf, mount: Mount, origin: Origin
) -> None:
    old, new = BODY, b"new and shorter"
    shelf.entry("a", len(old), key="1", url=origin.put("old", old))
    mounted = mount()
    path = mounted.at("files/w/a")
    with open(path, "rb", buffering=0) as file:
        got = file.read(4096)
        shelf.entry("a", len(new), key="2", url=origin.put("new", new))
        until(lambda: mounted.read("keys/p/2") == new)
        if mounted.session == "fast":  # it has a node for a version
            until(lambda: mounted.read("files/w/a") == new)
        else:  # libfuse has one for a path
            with open(path, "rb") as second:
                assert second.read(10) == old[:10]
        while piece := file.read(65536):
            got += piece
    assert got == old
    until(lambda: os.stat(path).st_size == len(new))
    assert cat(path) == (0, new)


def test_a_change_time_says_when_a_file_came_whatever_its_own_time(shelf: Shelf, mount: Mount) -> None:
    shelf.entry("d/old photo", 1, stored_at=STORED + 0.25)
    shelf.job("d/waits", shelf.write("d/waits", b"x"))
    os.utime(shelf.local("d/waits"), (1, 1))
    mounted = mount()
    for folder, name in (("files/w/d", "old photo"), ("keys/p/k/d", "old photo")):
        status = os.stat(mounted.at(folder, name))
        assert (status.st_ctime, status.st_mtime) == (STORED + 0.25, 1_600_000_000)
        assert [file.stat().st_ctime for file in os.scandir(mounted.at(folder))] == [STORED + 0.25]
    local, status = os.stat(shelf.local("d/waits")), os.stat(mounted.at("outbox/w/d/waits"))
    assert (status.st_mtime, status.st_ctime_ns) == (1, local.st_ctime_ns // 1_000_000 * 1_000_000)


@also_libfuse3
def test_the_times_of_a_folder_say_that_something_came_below_it(shelf: Shelf, mount: Mount) -> None:
    shelf.entry("d/a", 1)
    mounted = mount()

    def times(kind: str) -> list[float]:
        return [getattr(os.stat(mounted.at(folder)), kind) for folder in ("files", "files/w", "files/w/d")]

    assert times("st_mtime") == times("st_ctime") == [STORED] * 3
    shelf.entry("d/new/er/b", 1, stored_at=STORED + 5)
    until(lambda: times("st_ctime") == [STORED + 5] * 3, 3.0)
    assert times("st_mtime") == [STORED + 5, STORED + 5, STORED]
    shelf.job("d/c", shelf.write("d/c", b"x"), created_at=STORED + 7)
    assert os.stat(mounted.at("outbox/w")).st_mtime == STORED + 7
    shelf.settle("d/c")
    shelf.entry("d/c", 1, stored_at=STORED + 9)
    mounted.stop()
    mounted = mount()
    assert times("st_mtime") == times("st_ctime") == [STORED + 9] * 3, "the same in every mount"


def test_what_the_catalog_gets_is_seen_soon(shelf: Shelf, mount: Mount) -> None:
    mounted = mount()
    assert not os.path.exists(mounted.at("files/w/a"))
    stamp = shelf.write("a", b"x")
    shelf.job("a", stamp)
    until(lambda: os.path.exists(mounted.at("outbox/w/a")))
    shelf.entry("a", stamp)
    until(lambda: os.path.exists(mounted.at("files/w/a")))
    assert os.listdir(mounted.at("files/w")) == ["a"]


@also_libfuse3
def test_the_outbox_shows_the_file_as_it_is(shelf: Shelf, mount: Mount) -> None:
    shelf.job("a", shelf.write("a", b"first"), error="the token was refused", state="rejected")
    path = mount().at("outbox/w/a")
    assert cat(path) == (0, b"first")
    shelf.write("a", b"second and longer")
    until(lambda: os.stat(path).st_size == 17)
    assert cat(path) == (0, b"second and longer")
    assert os.getxattr(path, "user.dumbwaiter.error") == b"the token was refused"
    assert os.getxattr(path, "user.dumbwaiter.state") == b"rejected"
    os.unlink(shelf.local("a"))
    assert cat(path)[0] != 0
    assert "a" in os.listdir(os.path.dirname(path))


def test_a_file_that_cannot_be_fetched_says_so_at_open(shelf: Shelf, mount: Mount) -> None:
    shelf.entry("a", 100, facts={"error": "the task failed"})
    at = mount().at
    assert code_of(lambda: os.open(at("files/w/a"), os.O_RDONLY)) == "ENXIO"
    assert os.getxattr(at("files/w/a"), "user.dumbwaiter.error") == b"the task failed"


@also_libfuse3
def test_a_path_that_is_open_is_one_version_in_all_that_stat_tells(shelf: Shelf, mount: Mount) -> None:
    shelf.entry("a", shelf.write("a", b"first"))
    mounted = mount()
    path = mounted.at("files/w/a")

    def facts() -> tuple[int, ...]:
        status = os.stat(path)
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    with open(path, "rb"):
        before = facts()
        shelf.entry("a", shelf.write("a", b"second"), key="2", stored_at=STORED + 1)
        time.sleep(1.2)  # for that long the kernel knows by itself
        assert [new == old for new, old in zip(facts(), before, strict=True)] == [mounted.session != "fast"] * 4
    until(lambda: not set(facts()) & set(before), 3.0)


@also_libfuse3
@pytest.mark.parametrize("sizes", [(10, 300_000), (300_000, 10), (5000, 4999)])
def test_a_copy_right_after_another_version_came_is_whole(
    shelf: Shelf, mount: Mount, origin: Origin, tmp_path: Path, sizes: tuple[int, int]
) -> None:
    """`sendfile` and a mapping go through the kernel's cache, which ends where the kernel was told."""
    versions = [letter * size for letter, size in zip((b"a", b"b"), sizes, strict=True)]
    shelf.entry("a", sizes[0], key="k0", url=origin.put("k0", versions[0]))
    path = mount().at("files/w/a")

    def copied() -> bytes:
        shutil.copyfile(path, tmp_path / "copy")
        return (tmp_path / "copy").read_bytes()

    def mapped() -> bytes:
        words = [
            sys.executable,
            "-c",
            MAPPED,
            path,
        ]  # a page that is fetched holds the interpreter, and the origin needs it
        return subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout

    for number, take in enumerate((copied, mapped), 1):
        assert cat(path) == (0, versions[0])
        shelf.entry("a", sizes[1], key=f"k{number}", url=origin.put(f"k{number}", versions[1]))
        assert take() in versions
        until(lambda: cat(path) == (0, versions[1]))
        shelf.entry("a", sizes[0], key=f"old{number}", url=origin.put(f"old{number}", versions[0]))
        until(lambda: cat(path) == (0, versions[0]))


@also_libfuse3
def test_an_open_file_is_read_on_when_its_name_goes(shelf: Shelf, mount: Mount) -> None:
    shelf.entry("a", shelf.write("a", BODY))
    path = mount().at("files/w/a")
    with open(path, "rb", buffering=0) as file:
        got, before = file.read(4096), os.fstat(file.fileno())
        shelf.remove("a")
        shelf.entry("b", 1, stored_at=STORED + 1)  # an entry that goes does so when another one comes
        until(lambda: not os.path.exists(path))
        while piece := file.read(65536):
            got += piece
        assert got == BODY
        after = os.fstat(file.fileno())
        assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert not os.path.exists(path)


def test_a_mapped_page_that_cannot_be_had_ends_its_reader_alone(shelf: Shelf, mount: Mount, origin: Origin) -> None:
    shelf.entry("a", len(BODY), url=origin.put("a", BODY, status=500))
    path = mount().at("files/w/a")
    assert subprocess.run([sys.executable, "-c", MAPPED, path], check=False).returncode == -signal.SIGBUS
    assert code_of(lambda: Path(path).read_bytes()) == "EIO"
    origin.of("a").status = None
    assert subprocess.run([sys.executable, "-c", MAPPED, path], stdout=subprocess.PIPE, check=True).stdout == BODY


@pytest.mark.parametrize("mount", ["fast"], indirect=True)
@pytest.mark.parametrize("became", ["done", "another version"])
def test_who_reads_a_waiting_file_is_told_of_it_also_when_it_waits_no_more(
    shelf: Shelf, mount: Mount, became: str
) -> None:
    shelf.job("a", shelf.write("a", BODY))
    path = mount().at("outbox/w/a")
    with open(path, "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        assert file.read(4096) == BODY[:4096]
        with open(shelf.local("a"), "ab") as local:
            local.write(b"more")
        shelf.settle("a")
        shelf.entry("b", 1)
        if became == "another version":
            shelf.job("a", Stamp.of(os.stat(shelf.local("a"))), created_at=STORED + 1)
        until(lambda: os.path.exists(path) is (became != "done"))
        after = os.fstat(file.fileno())
        assert (after.st_ino, after.st_size) == (before.st_ino, len(BODY) + 4)
        assert os.pread(file.fileno(), 100, len(BODY)) == b"more"


@also_libfuse3
def test_a_file_is_mapped_also_while_somebody_reads_its_original_that_has_gone(
    shelf: Shelf, mount: Mount, origin: Origin
) -> None:
    shelf.entry("a", shelf.write("a", BODY), url=origin.put("a", BODY))
    path = mount().at("files/w/a")
    with open(path, "rb", buffering=0) as first:
        assert first.read(1000) == BODY[:1000]
        os.unlink(shelf.local("a"))
        done = subprocess.run([sys.executable, "-c", MAP, path], capture_output=True)
        assert (done.returncode, done.stdout) == (0, BODY), done.stderr
        assert origin.requests == []
    until(lambda: cat(path) == (0, BODY) and origin.requests)  # once nobody has the original open


def test_a_longer_version_is_read_whole_or_not_at_all(shelf: Shelf, mount: Mount) -> None:
    path = mount().at("files/w/a")
    shelf.entry("a", shelf.write("a", b"short"))
    until(lambda: os.path.exists(path))
    for number in range(5):
        assert os.stat(path).st_size > 0  # the kernel may keep that for a second
        longer = b"%d" % number * 10 ** (number + 1)
        shelf.entry("a", shelf.write("a", longer), key=f"k{number}")

        deadline = time.monotonic() + 20
        while (answer := cat(path)) != (0, longer):
            assert answer[0] or answer[1] == b"short", len(answer[1])
            assert time.monotonic() < deadline


def test_getfattr_shows_all_there_is(shelf: Shelf, mount: Mount) -> None:
    shelf.entry("a.png", 9, url="http://h/a.png", etag="e", verified="md5", key="k")
    mounted = mount()
    done = subprocess.run(["getfattr", "-d", "files/w/a.png"], cwd=mounted.path, capture_output=True, text=True)
    assert done.stdout.splitlines()[1:-1] == [
        f'user.dumbwaiter.{name}="{value}"'
        for name, value in (
            ("error", ""),
            ("etag", "e"),
            ("key", "k"),
            ("markdown", "![a.png](http://h/a.png)"),
            ("path", "a.png"),
            ("provider", "p"),
            ("state", "done"),
            ("stored_at", "2023-11-14T22:13:20+00:00"),
            ("url", "http://h/a.png"),
            ("verified", "md5"),
            ("watch", "w"),
        )
    ]


@also_libfuse3
def test_while_readers_hang_everything_else_answers(shelf: Shelf, mount: Mount, origin: Origin) -> None:
    for index in range(32):
        shelf.entry(f"hang{index}", 100_000, url=origin.put(f"hang{index}", b"", hang=True))
    shelf.entry("good", shelf.write("good", BODY))
    mounted = mount(deadline=4.0)
    readers = [
        subprocess.Popen(["cat", mounted.at(f"files/w/hang{index}")], stderr=subprocess.DEVNULL) for index in range(32)
    ]
    try:
        until(lambda: len(origin.requests) >= 32)
        start = time.monotonic()
        assert len(os.listdir(mounted.at("files/w"))) == 33
        assert os.stat(mounted.at("files/w/hang31")).st_size == 100_000
        assert os.statvfs(mounted.path).f_files == 33
        assert time.monotonic() - start < 1
        assert mounted.read("files/w/good") == BODY
        readers[0].kill()
        assert [reader.wait(20) != 0 for reader in readers] == [True] * 32
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()


def test_a_folder_of_many_is_listed(shelf: Shelf, mount: Mount) -> None:
    rows = []
    for index in range(20_000):
        parent, name = split(f"w/many/{index:05}")
        rows.append(
            {"host": "h", "provider": "p", "key": f"{index}", "key_parent": "p", "key_name": f"{index:05}"}
            | {"watch": "w", "parent": parent, "name": name, "current": True, "inode": 0, "size": index}
            | {"mtime_ns": 0, "ctime_ns": 0, "etag": "", "verified": "", "facts": {}, "stored_at": STORED}
        )
    shelf.many(rows)
    mounted = mount()
    with os.scandir(mounted.at("files/w/many")) as found:
        assert {entry.name for entry in found} == {f"{index:05}" for index in range(20_000)}


def test_a_storm_of_readers_gets_the_bytes(shelf: Shelf, mount: Mount, origin: Origin) -> None:
    for index in range(8):
        body = BODY[index * 1000 :]
        shelf.entry(f"f{index}", len(body), url=origin.put(f"f{index}", body, cut_after=1_200_000))
    mounted = mount()
    wrong: list[int] = []

    def reader(index: int) -> None:
        if mounted.read(f"files/w/f{index % 8}") != BODY[index % 8 * 1000 :]:
            wrong.append(index)

    threads = [threading.Thread(target=reader, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_others_put_at_the_provider_is_read_from_there(shelf: Shelf, mount: Mount, origin: Origin) -> None:
    theirs = {"watch": "", "current": False, "facts": {"name": "spring.jpg"}, "listed_at": STORED}
    url = origin.put("k/7.jpg", BODY)
    shelf.entry("", len(BODY), key="up/7.jpg", url=url, etag="e7", **{**theirs, "parent": "", "name": ""})
    stamp = shelf.write("ours.txt", b"ours")
    shelf.entry("ours.txt", stamp, key="up/ours.txt", unlisted_at=STORED + 60)
    mounted = mount()
    assert sorted(os.listdir(mounted.at("keys/p/up"))) == ["7.jpg", "ours.txt"]
    assert os.listdir(mounted.at("files/w")) == ["ours.txt"]
    place = mounted.at("keys/p/up/7.jpg")
    assert os.stat(place).st_size == len(BODY)
    assert origin.requests == []
    assert cat(place) == (0, BODY)
    empty = {name.removeprefix("user.dumbwaiter.") for name in os.listxattr(place) if not os.getxattr(place, name)}
    assert empty == {"watch", "path", "state", "verified", "error"}
    assert os.getxattr(place, "user.dumbwaiter.markdown") == f"![spring.jpg]({url})".encode()
    assert os.getxattr(mounted.at("files/w/ours.txt"), "user.dumbwaiter.unlisted_at") == b"2023-11-14T22:14:20+00:00"
    assert cat(mounted.at("files/w/ours.txt")) == (0, b"ours")
