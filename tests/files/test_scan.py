"""Scanning and looking, on a real disk."""

import errno
import fcntl
import mmap
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dead_disk import mirror_disk
from dumbwaiter.files import roots
from dumbwaiter.files import scan as module
from dumbwaiter.files.ignore import Rules
from dumbwaiter.files.scan import Branch, digest, look, names, rows, walk, wanted
from dumbwaiter.model import Stamp
from tree import make


def scan(
    root: str,
    rules: Rules,
    folder: str = "",
    skipped: Callable[[str, OSError], None] = lambda _folder, _error: None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[str, list[tuple[str, Stamp]]]]:
    """Yields every folder with the files that the rules take."""
    for here, found, _ in walk(root, rules.enters, folder, read=rows, skipped=skipped, stop=stop):
        yield here, list(wanted(here, found, rules))


def files(root: Path, rules: Rules | None = None, folder: str = "") -> dict[str, Stamp]:
    found = {}
    for here, entries in scan(str(root), rules or Rules(), folder):
        found.update({f"{here}/{name}" if here else name: stamp for name, stamp in entries})
    return found


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_every_regular_file_is_found_with_its_stamp(tmp_path: Path) -> None:
    make(tmp_path, "a", "b/c", "b/d/e")
    assert files(tmp_path) == {path: Stamp.of(os.lstat(tmp_path / path)) for path in ("a", "b/c", "b/d/e")}


def test_empty_folders_are_yielded_too(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    assert sorted(scan(str(tmp_path), Rules())) == [("", []), ("a", []), ("a/b", [])]


def test_a_part_of_the_tree_can_be_scanned(tmp_path: Path) -> None:
    make(tmp_path, "a", "b/c", "b/d/e", "bb/x")
    assert set(files(tmp_path, folder="b")) == {"b/c", "b/d/e"}
    assert files(tmp_path, folder="gone") == {}


def test_rules_prune_folders_and_files(tmp_path: Path) -> None:
    make(tmp_path, "a.part", "a.jpg", "cache/b.jpg", "c/b.jpg")
    rules = Rules(exclude=["cache/"])
    assert set(files(tmp_path, rules)) == {"a.jpg", "c/b.jpg"}
    assert "cache" not in dict(scan(str(tmp_path), rules))
    assert files(tmp_path, rules, "cache") == {}


def test_links_and_special_files_are_neither_followed_nor_reported(tmp_path: Path) -> None:
    make(tmp_path, "real/a")
    (tmp_path / "up").symlink_to("..")
    (tmp_path / "real/loop").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to("real/a")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "s"))
        assert set(files(tmp_path)) == {"real/a"}


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    make(tmp_path, "real/a")
    (tmp_path / "link").symlink_to("real")
    assert set(files(tmp_path / "link")) == {"a"}


def test_a_missing_root_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(scan(str(tmp_path / "gone"), Rules()))


def test_odd_names_come_back_as_they_are(tmp_path: Path) -> None:
    names = [b"\xff\xfe", b"a\nb", b"\x1b[31m", b"n" * 255, "中文".encode(), b" ", b"-rf"]
    for name in names:
        os.mkdir(os.path.join(os.fsencode(tmp_path), b"d" + name[:200]))
        os.close(os.open(os.path.join(os.fsencode(tmp_path), b"d" + name[:200], name), os.O_CREAT))
    assert {os.fsencode(path.rpartition("/")[2]) for path in files(tmp_path)} == set(names)


def test_a_tree_deeper_than_a_path_may_be_long(tmp_path: Path) -> None:
    """1,500 levels of 9 characters: no path of that length can be opened, nor so many descriptors be held."""
    depth = 1500
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("level-on", dir_fd=at)
        below = os.open("level-on", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)
    make(tmp_path, "side/a")
    path = "level-on/" * depth + "bottom"
    before = descriptors()
    assert set(files(tmp_path)) == {path, "side/a"}
    assert look(str(tmp_path), path)[0] is not None
    assert descriptors() == before
    subprocess.run(["rm", "-rf", tmp_path / "level-on"], check=True)


def test_another_file_system_is_left_out_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a", "mounted/b", "c/d")
    foreign = os.stat(tmp_path / "mounted").st_ino
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        return os.stat_result((*status[:2], 12345, *status[3:])) if status.st_ino == foreign else status

    monkeypatch.setattr(os, "fstat", fstat)
    told: list[tuple[str, int | None]] = []
    found = dict(scan(str(tmp_path), Rules(), skipped=lambda folder, error: told.append((folder, error.errno))))
    assert set(found) == {"", "c"}
    assert told == [("mounted", errno.EXDEV)]


def test_an_unreadable_folder_is_told_and_the_rest_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a", "closed/b", "c/d")
    real = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "closed":
            raise PermissionError(13, "Permission denied")
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)
    told: list[tuple[str, int | None]] = []
    found = dict(scan(str(tmp_path), Rules(), skipped=lambda folder, error: told.append((folder, error.errno))))
    assert set(found) == {"", "c"}
    assert told == [("closed", errno.EACCES)]


def test_a_folder_replaced_by_a_link_during_the_scan_is_not_followed(tmp_path: Path) -> None:
    make(tmp_path, "watch/a/inside", "watch/b/inside", "secret/key")
    steps = scan(str(tmp_path / "watch"), Rules())
    assert next(steps)[0] == ""
    for name in ("a", "b"):
        (tmp_path / "watch" / name).rename(tmp_path / f"was-{name}")
        (tmp_path / "watch" / name).symlink_to(tmp_path / "secret")
    assert list(steps) == []


def test_a_scan_can_be_stopped_and_leaves_nothing_open(tmp_path: Path) -> None:
    make(tmp_path, *(f"{number}/a" for number in range(20)))
    before = descriptors()
    seen: list[str] = []
    for folder, _ in scan(str(tmp_path), Rules(), stop=lambda: len(seen) >= 3):
        seen.append(folder)
    assert len(seen) == 3
    steps = scan(str(tmp_path), Rules())
    next(steps)
    del steps
    assert descriptors() == before


def test_a_branch_finds_any_folder_after_any_other(tmp_path: Path) -> None:
    folders = ["a", "a/b", "a/b/c", "aa", "aa/b", "", "a/b/c/d", "a/b"]
    (tmp_path / "a/b/c/d").mkdir(parents=True)
    (tmp_path / "aa/b").mkdir(parents=True)
    branch = Branch(str(tmp_path))
    for folder in folders * 2 + folders[::-1]:
        assert os.fstat(branch.open(folder)).st_ino == os.stat(tmp_path / folder).st_ino
    branch.close()


def test_a_quiet_file_has_no_writer(tmp_path: Path) -> None:
    make(tmp_path, "d/a")
    stamp = Stamp.of(os.lstat(tmp_path / "d/a"))
    assert look(str(tmp_path), "d/a") == (stamp, False)
    with open(tmp_path / "d/a", "rb"):
        assert look(str(tmp_path), "d/a") == (stamp, False), "a reader is no writer"


def test_a_file_open_for_writing_has_a_writer(tmp_path: Path) -> None:
    with open(tmp_path / "a", "wb") as file:
        assert look(str(tmp_path), "a") == (Stamp.of(os.fstat(file.fileno())), True)
    assert look(str(tmp_path), "a")[1] is False


def test_a_mapping_is_a_writer_even_after_its_close(tmp_path: Path) -> None:
    make(tmp_path, "a")
    with open(tmp_path / "a", "r+b") as file:
        mapping = mmap.mmap(file.fileno(), 1)
    assert look(str(tmp_path), "a")[1] is True
    mapping.close()
    assert look(str(tmp_path), "a")[1] is False


def test_what_is_no_file_has_no_stamp(tmp_path: Path) -> None:
    make(tmp_path, "d/a")
    (tmp_path / "link").symlink_to("d/a")
    (tmp_path / "way").symlink_to("d")
    os.mkfifo(tmp_path / "pipe")
    for path in ("gone", "d", "link", "way/a", "pipe", "d/a/b", "gone/b"):
        assert look(str(tmp_path), path) == (None, None), path
    assert look(str(tmp_path / "gone"), "a") == (None, None)


def test_names_that_are_no_text_can_be_looked_at(tmp_path: Path) -> None:
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff\n", os.O_CREAT))
    assert look(str(tmp_path), "\udcff\n")[0] is not None


def test_without_the_right_to_ask_the_writer_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    make(tmp_path, "a")
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert look(str(tmp_path), "a") == (Stamp.of(os.lstat(tmp_path / "a")), None)


def test_where_nobody_gets_a_lease_the_writer_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a")
    with (tmp_path / "a").open("a"):
        assert look(str(tmp_path), "a")[1] is True
        monkeypatch.setattr(module, "is_remote", lambda _descriptor: True)
        assert look(str(tmp_path), "a")[1] is None


def test_who_writes_behind_another_programs_file_system_is_unknown(tmp_path: Path) -> None:
    """The kernel gives a lease there, and knows of nobody who writes past the mount."""
    there, here = tmp_path / "there", tmp_path / "here"
    make(there, "a")
    here.mkdir()
    with mirror_disk(here, there), (there / "a").open("a"):
        roots._kinds.clear()  # another test's file system may have had that number a moment ago
        stamp, writing = look(str(here), "a")
        assert stamp is not None
        assert writing is None


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mkfs.btrfs"), reason="mounts a btrfs")
def test_what_comes_between_the_opening_of_a_folder_and_its_listing_is_listed(tmp_path: Path) -> None:
    """btrfs lists what there was when the folder was opened, and so no event would tell of it either."""
    disk, place = tmp_path / "disk", tmp_path / "place"
    place.mkdir()
    with disk.open("wb") as file:
        file.truncate(128 << 20)
    subprocess.run(["mkfs.btrfs", "-q", disk], check=True)
    if subprocess.run(["mount", "-o", "loop", disk, place], check=False).returncode:
        pytest.skip("this machine mounts no file as a disk")
    try:
        make(place, "early")

        def opened(_folder: str, _descriptor: int) -> bool:
            make(place, "late")
            return True

        ((_, (found, _), _),) = walk(str(place), lambda _folder: True, read=lambda d: ((names(d)), []), opened=opened)
        assert sorted(found) == ["early", "late"]
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_a_folder_that_may_be_listed_and_not_entered_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a")
    told = []

    def refused(*_values: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(module, "_FACTS", refused)
    skipped = lambda folder, error: told.append((folder, error.errno))  # noqa: E731
    assert list(walk(str(tmp_path), lambda _folder: True, read=rows, skipped=skipped)) == []
    assert told == [("", errno.EACCES)]


def test_a_lease_of_another_program_counts_as_a_writer(tmp_path: Path) -> None:
    """A file server hands out such leases; under one, a client may still hold back what it wrote."""
    make(tmp_path, "a")
    holder = os.open(tmp_path / "a", os.O_RDWR)
    fcntl.fcntl(holder, fcntl.F_SETSIG, signal.SIGURG)
    fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    assert look(str(tmp_path), "a")[1] is True
    fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    os.close(holder)


WRITER = """
import os, sys
while True:
    os.close(os.open(sys.argv[1], os.O_WRONLY))
"""


def test_looking_is_harmless_while_others_open_the_file(tmp_path: Path) -> None:
    """A lease broken in the moment it is held sends a signal whose default ends the process."""
    make(tmp_path, "a")
    writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "a"])
    answers: set[bool | None] = set()

    def ask() -> None:
        for _ in range(4000):
            answers.add(look(str(tmp_path), "a")[1])

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.poll() is None
    writer.kill()
    writer.wait()
    assert None not in answers


def digests(root: Path, rules: Rules | None = None) -> dict[str, bytes]:
    found = walk(str(root), Rules().enters, read=rows)
    return {here: digest(seen, rules or Rules()) for here, seen, _ in found}


def test_a_folder_has_the_same_digest_until_something_in_it_changes(tmp_path: Path) -> None:
    make(tmp_path, "a/one", "a/two", "b/one", os.fsdecode(b"b/\xff"))
    before = digests(tmp_path)
    assert digests(tmp_path) == before
    changes: list[Callable[[], object]] = [
        lambda: (tmp_path / "a/two").write_bytes(b"longer"),
        lambda: os.utime(tmp_path / "a/two", ns=(0, 0)),
        lambda: (tmp_path / "a/two").chmod(0o600),
        lambda: (tmp_path / "a/two").rename(tmp_path / "a/three"),
        lambda: (tmp_path / "a/three").unlink(),
        lambda: (tmp_path / "a/new").touch(),
        lambda: (tmp_path / "b/one").replace(tmp_path / "a/one"),
    ]
    for change in changes[:-1]:
        change()
        after = digests(tmp_path)
        assert after["a"] != before["a"]
        assert {**after, "a": b""} == {**before, "a": b""}
        before = after
    changes[-1]()
    assert all(digests(tmp_path)[folder] != before[folder] for folder in ("a", "b"))


def test_other_rules_give_other_digests(tmp_path: Path) -> None:
    make(tmp_path, "a")
    kinds = [Rules(), Rules(exclude=["*.x"]), Rules(include=["*.x"]), Rules(ignore_file="*.x"), Rules(junk=[])]
    assert len({digests(tmp_path, rules)[""] for rules in kinds}) == len(kinds)
