"""No byte is lost by what becomes of a local file, whoever writes meanwhile and wherever a kill comes."""

import configparser
import contextlib
import errno
import fcntl
import os
import random
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from dumbwaiter.errors import Changed, Undone
from dumbwaiter.files import disposal
from dumbwaiter.files.disposal import dispose
from dumbwaiter.files.ignore import PRIVATE
from dumbwaiter.files.scan import lease
from dumbwaiter.files.trash import trash_for
from dumbwaiter.model import Stamp

CONTENT = b"the version that was uploaded"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "root/a").mkdir(parents=True)
    return tmp_path / "root"


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on another file system."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def same(fd: int) -> bool:
    return os.pread(fd, 1000, 0) == CONTENT


def file(root: Path, content: bytes = CONTENT, name: str = "a/film.mov") -> Stamp:
    (root / name).write_bytes(content)
    return Stamp.of(os.stat(root / name))


def act(root: Path, stamp: Stamp, action: str, path: str = "a/film.mov") -> None:
    dispose(str(root), path, stamp, same, action, "host-1")


def contents(*folders: Path) -> list[bytes]:
    return [path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()]


def actions(root: Path, elsewhere: Path) -> list[str]:
    return ["delete", "trash", f"move:{root.parent}/kept", f"move:{elsewhere}/kept"]


def test_it_is_deleted(root: Path) -> None:
    act(root, file(root), "delete")
    assert contents(root) == []


def test_a_file_that_was_about_to_have_its_name_again_goes_under_both(root: Path, elsewhere: Path) -> None:
    for number, action in enumerate(actions(root, elsewhere)):
        path = f"a/film-{number}.mov"
        stamp = file(root, name=path)
        os.link(root / path, root / f"a/{PRIVATE}host-1")  # and a kill, or an unlink that fails
        act(root, stamp, action, path)
        assert os.listdir(root / "a") == []
    assert contents(root.parent / "kept", elsewhere) == [CONTENT] * 2


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_a_trash_that_is_mounted_on_its_own_gets_a_copy(root: Path, tmp_path: Path) -> None:
    """As in a service of the system, in which each folder that may be written to is a mount."""
    trash = tmp_path / "data/Trash"
    for folder in ("files", "info"):
        (trash / folder).mkdir(parents=True)
    stamp = file(root)
    subprocess.run(["mount", "--bind", trash, trash], check=True)
    try:
        act(root, stamp, "trash")
    finally:
        subprocess.run(["umount", "--lazy", trash], check=True)
    assert contents(root) == []
    assert [path.name for path in (trash / "files").iterdir()] == ["film.mov"]
    assert (trash / "files/film.mov").read_bytes() == CONTENT
    assert [path.name for path in (trash / "info").iterdir()] == ["film.mov.trashinfo"]


def test_the_trash_knows_where_it_was(root: Path, tmp_path: Path) -> None:
    for _ in range(2):
        act(root, file(root), "trash")
    trash = tmp_path / "data/Trash"
    assert sorted(os.listdir(trash / "files")) == ["film-1.mov", "film.mov"]
    assert sorted(os.listdir(trash / "info")) == ["film-1.mov.trashinfo", "film.mov.trashinfo"]
    note = configparser.ConfigParser(interpolation=None)
    note.read(trash / "info/film-1.mov.trashinfo")
    assert unquote(note["Trash Info"]["Path"]) == str(root / "a/film.mov")
    assert "T" in note["Trash Info"]["DeletionDate"]
    assert contents(root) == []


@pytest.mark.parametrize("name", ["长" * 83 + ".mov", "L" * 251 + ".mov", "." + "x" * 254, "长" * 85])
def test_a_long_name_is_cut_for_the_trash_and_the_note_has_all_of_it(root: Path, tmp_path: Path, name: str) -> None:
    for _ in range(2):
        act(root, file(root, name=f"a/{name}"), "trash", f"a/{name}")
    kept = os.listdir(tmp_path / "data/Trash/files")
    assert len(kept) == 2
    assert all(one.encode().decode() == one for one in kept)  # no half character
    for one in kept:
        note = configparser.ConfigParser(interpolation=None)
        note.read(tmp_path / f"data/Trash/info/{one}.trashinfo")
        assert unquote(note["Trash Info"]["Path"]) == str(root / "a" / name)


@pytest.mark.parametrize("by_link", [False, True])
def test_a_file_on_another_file_system_goes_to_the_trash_there(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_link: bool
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (elsewhere / "a").mkdir()
    (tmp_path / "link").symlink_to(elsewhere)
    watched = tmp_path / "link" if by_link else elsewhere
    act(watched, file(watched), "trash")
    own = Path(f"/dev/shm/.Trash-{os.getuid()}")
    assert trash_for(str(watched), str(tmp_path), os.getuid()) == str(own)
    assert trash_for(str(tmp_path), str(tmp_path / "Trash"), os.getuid()) == str(tmp_path / "Trash")
    notes = [note for note in (own / "info").iterdir() if elsewhere.name in note.read_text()]
    try:
        assert len(notes) == 1
        assert f"Path={elsewhere.name}/a/film.mov" in notes[0].read_text()
    finally:
        for note in notes:
            (own / "files" / note.name.removesuffix(".trashinfo")).unlink()
            note.unlink()


@pytest.mark.parametrize("folder", ["moved", "trashed"])
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_nothing_is_written_through_a_link_that_others_may_have_made(root: Path, tmp_path: Path, folder: str) -> None:
    disk, theirs = tmp_path / "disk", tmp_path / "autostart"
    disk.mkdir()
    (theirs / "files").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "disk", disk], check=True)
    try:
        watched = disk / "watched"
        (watched / "a").mkdir(parents=True)
        stamp = file(watched)
        if folder == "moved":
            (disk / "kept").mkdir()
            (disk / "kept/a").symlink_to(theirs)
        else:
            (disk / ".Trash").mkdir()
            (disk / ".Trash").chmod(0o1777)
            (disk / f".Trash/{os.getuid()}").symlink_to(theirs)
        action = f"move:{disk}/kept" if folder == "moved" else "trash"
        if folder == "moved":
            with pytest.raises(Undone):
                act(watched, stamp, action)
            assert (watched / "a/film.mov").read_bytes() == CONTENT
        else:
            act(watched, stamp, action)
            assert (disk / f".Trash-{os.getuid()}/files/film.mov").read_bytes() == CONTENT
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
    assert contents(theirs) == []


@pytest.mark.parametrize("target", ["kept", "kept/new"])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's link")
def test_nothing_is_moved_by_another_users_link(root: Path, tmp_path: Path, target: str) -> None:
    private = tmp_path / "autostart"
    private.mkdir()
    (tmp_path / "kept").symlink_to(private)
    os.lchown(tmp_path / "kept", 65534, 65534)
    stamp = file(root)
    with pytest.raises(Undone, match="is another user's, and is not followed"):
        act(root, stamp, f"move:{tmp_path / target}")
    assert os.listdir(private) == []
    assert (root / "a/film.mov").read_bytes() == CONTENT
    os.lchown(tmp_path / "kept", os.geteuid(), os.getegid())
    act(root, Stamp.of(os.stat(root / "a/film.mov")), f"move:{tmp_path / target}")
    assert contents(private) == [CONTENT]


def test_it_moves_with_its_folders_and_replaces_nothing(root: Path, elsewhere: Path) -> None:
    for target in (root.parent / "kept", elsewhere / "kept"):
        (target / "a").mkdir(parents=True)
        (target / "a/film.mov").write_bytes(b"somebody's")
        stamp = file(root)
        act(root, stamp, f"move:{target}")
        assert (target / "a/film.mov").read_bytes() == b"somebody's"
        moved = target / "a/film-1.mov"
        assert moved.read_bytes() == CONTENT
        assert os.stat(moved).st_mtime_ns == stamp.mtime_ns
        assert sorted(os.listdir(target / "a")) == ["film-1.mov", "film.mov"]
        assert contents(root) == []


def test_a_copy_that_differs_is_not_taken_for_the_file(
    root: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a disk that says that all is well and keeps something else."""

    def kept(fd: int, data: bytes | memoryview) -> int:
        return write(fd, bytes(len(data)) if data == CONTENT else data)

    stamp, write = file(root), os.write
    monkeypatch.setattr(os, "write", kept)
    with pytest.raises(Undone, match="the copy differs"):
        act(root, stamp, f"move:{elsewhere}")
    assert os.listdir(root / "a") == ["film.mov"]
    assert contents(root, elsewhere) == [CONTENT]


def test_a_file_goes_once_its_copy_and_the_name_of_that_are_on_the_disk(
    root: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what a power cut takes back, nothing may be the last copy."""
    fsync, unlink = os.fsync, os.unlink
    on_disk: dict[int, list[str]] = {}
    gone: list[str] = []

    def synced(fd: int) -> None:
        fsync(fd)
        status = os.fstat(fd)
        on_disk[status.st_ino] = os.listdir(fd) if stat.S_ISDIR(status.st_mode) else [str(status.st_size)]

    def unlinked(path: str, *, dir_fd: int) -> None:
        if os.path.samestat(os.fstat(dir_fd), here):
            gone.append(path)
            assert on_disk[(elsewhere / "a/film.mov").stat().st_ino] == [str(len(CONTENT))]
            assert on_disk[(elsewhere / "a").stat().st_ino] == ["film.mov"]
        unlink(path, dir_fd=dir_fd)

    stamp, here = file(root), os.stat(root / "a")
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "unlink", unlinked)
    act(root, stamp, f"move:{elsewhere}")
    assert len(gone) == 1
    assert contents(root) == []


def test_somebody_elses_file_of_the_same_size_and_time_is_not_taken_for_the_copy(root: Path, elsewhere: Path) -> None:
    (elsewhere / "a").mkdir()
    stamp = file(root)
    (elsewhere / "a/film.mov").write_bytes(CONTENT[::-1])
    os.utime(elsewhere / "a/film.mov", ns=(stamp.mtime_ns, stamp.mtime_ns))
    act(root, stamp, f"move:{elsewhere}")
    assert contents(root) == []
    assert (elsewhere / "a/film.mov").read_bytes() == CONTENT[::-1]
    assert (elsewhere / "a/film-1.mov").read_bytes() == CONTENT


def test_an_equal_file_of_another_date_is_not_taken_for_the_copy(root: Path, elsewhere: Path) -> None:
    """The date that a file was made or changed on would be lost."""
    (elsewhere / "a").mkdir()
    stamp = file(root)
    (elsewhere / "a/film.mov").write_bytes(CONTENT)
    os.utime(elsewhere / "a/film.mov", ns=(0, 0))
    act(root, stamp, f"move:{elsewhere}")
    assert contents(root) == []
    assert {one.name: one.stat().st_mtime_ns for one in (elsewhere / "a").iterdir()} == {
        "film.mov": 0,
        "film-1.mov": stamp.mtime_ns,
    }


def test_it_goes_to_a_file_system_that_knows_no_rights_and_times_and_a_size_only_once_it_is_closed(
    root: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As to a share that a file manager opened (gvfs), and to WebDAV (davfs2)."""
    fstat = os.fstat

    def refuse(*_arguments: object, **_more: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def size_unknown(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            return found
        return os.stat_result((*found[:6], 0, *found[7:10]))

    stamp = file(root)
    for change in ("utime", "chmod", "fchmod", "setxattr"):
        monkeypatch.setattr(os, change, refuse)
    monkeypatch.setattr(os, "fstat", size_unknown)
    act(root, stamp, f"move:{elsewhere}")
    assert contents(root) == []
    assert (elsewhere / "a/film.mov").read_bytes() == CONTENT


def test_what_takes_the_place_of_a_copy_gets_no_rights(
    root: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, private, aside = os.open, elsewhere / "private", f"{PRIVATE}host-1"

    def swap(path: str, flags: int, *arguments: int, dir_fd: int | None = None) -> int:
        if path == aside and flags & os.O_ACCMODE == os.O_RDONLY and (elsewhere / "a" / aside).exists():
            private.replace(elsewhere / "a" / aside)
        return opened(path, flags, *arguments, dir_fd=dir_fd)

    private.write_bytes(CONTENT)
    private.chmod(0o600)
    kept = opened(private, os.O_RDONLY)
    monkeypatch.setattr(os, "open", swap)
    with pytest.raises(Undone, match="the copy differs"):
        act(root, file(root), f"move:{elsewhere}")
    assert stat.S_IMODE(os.fstat(kept).st_mode) == 0o600
    os.close(kept)
    assert contents(root) == [CONTENT]


def test_a_copy_that_a_killed_attempt_had_named_already_is_not_made_again(root: Path, elsewhere: Path) -> None:
    stamp = file(root)
    (root / "a/film.mov").rename(root / f"a/{PRIVATE}host-1")
    (elsewhere / "a").mkdir()
    (elsewhere / "a/film.mov").write_bytes(CONTENT)
    os.utime(elsewhere / "a/film.mov", ns=(stamp.mtime_ns, stamp.mtime_ns))
    act(root, stamp, f"move:{elsewhere}")
    assert contents(root) == []
    assert os.listdir(elsewhere / "a") == ["film.mov"]


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.EIO], ids=["memory card", "rclone"])
def test_nothing_is_replaced_where_a_file_has_one_name_only(
    refusal: int, root: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose file system knows no links says so in one way or another."""

    def refuse(*_names: object, **_folders: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "link", refuse)
    for target in (root.parent / "kept", elsewhere):
        (target / "a").mkdir(parents=True)
        (target / "a/film.mov").write_bytes(b"somebody's")
        act(root, file(root), f"move:{target}")
        assert (target / "a/film.mov").read_bytes() == b"somebody's"
        assert (target / "a/film-1.mov").read_bytes() == CONTENT
    stamp = file(root)
    (root / "a/film.mov").rename(root / f"a/{PRIVATE}host-1").write_bytes(b"another version")
    file(root, b"a third one")
    with pytest.raises(Changed):
        act(root, stamp, "delete")
    assert {path.name: path.read_bytes() for path in (root / "a").iterdir()} == {
        "film.mov": b"a third one",
        "film-1.mov": b"another version",
    }


def test_a_file_that_is_dated_by_its_rename_is_known_by_its_content(
    root: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system that renames by making the file anew."""
    rename, written = os.rename, CONTENT

    def date(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        with open(os.open(new, os.O_WRONLY, dir_fd=dst_dir_fd), "wb") as renamed:
            renamed.write(written)

    monkeypatch.setattr(disposal, "lease", lambda _descriptor: None)  # which would wait for that writer
    monkeypatch.setattr(os, "rename", date)
    for action in actions(root, elsewhere):
        act(root, file(root), action)
        assert contents(root) == []
    written = CONTENT.upper()
    for action in actions(root, elsewhere):
        with pytest.raises(Changed):
            act(root, file(root), action)
        assert contents(root) == [written]


def test_where_dates_are_whole_seconds_the_content_tells(
    root: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def coarse(status: os.stat_result) -> Stamp:
        return Stamp(status.st_ino, status.st_size, 1_700_000_000 * 10**9, 1_700_000_000 * 10**9)

    monkeypatch.setattr(Stamp, "of", coarse)
    for action in actions(root, elsewhere):
        stamp = file(root)
        (root / "a/film.mov").write_bytes(CONTENT[::-1])
        with pytest.raises(Changed):
            act(root, stamp, action)
        assert contents(root, elsewhere) == [CONTENT[::-1]]
        act(root, file(root), action)
        assert contents(root) == []


def test_no_descriptor_is_left_open(root: Path, elsewhere: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for action in actions(root, elsewhere):
        for _ in range(3):
            act(root, file(root), action)
            stamp = file(root)
            file(root, b"a newer version")
            with pytest.raises(Changed):
                act(root, stamp, action)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_file_in_the_trash_that_has_no_note_is_not_replaced(root: Path, tmp_path: Path) -> None:
    trash = tmp_path / "data/Trash"
    (trash / "files").mkdir(parents=True)
    (trash / "files/film.mov").write_bytes(b"somebody's")
    act(root, file(root), "trash")
    assert (trash / "files/film.mov").read_bytes() == b"somebody's"
    assert (trash / "files/film-1.mov").read_bytes() == CONTENT
    assert os.listdir(trash / "info") == ["film-1.mov.trashinfo"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_nothing_is_moved_into_the_watched_folder_by_another_of_its_names(tmp_path: Path, root: Path) -> None:
    """Each move would be a new file, for ever."""
    bound = tmp_path / "bound"
    bound.mkdir()
    subprocess.run(["mount", "--bind", root, bound], check=True)
    try:
        for target in (bound, bound / "sent"):
            with pytest.raises(Undone, match="would be uploaded again"):
                act(root, file(root), f"move:{target}")
            assert (root / "a/film.mov").read_bytes() == CONTENT
    finally:
        subprocess.run(["umount", "--lazy", bound], check=True)
    act(root, file(root), f"move:{bound}")
    assert (bound / "a/film.mov").read_bytes() == CONTENT


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_a_trash_that_somebody_else_made_in_this_users_name_gets_nothing(tmp_path: Path, root: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "disk", disk], check=True)
    try:
        (disk / "watched/a").mkdir(parents=True)
        (disk / f".Trash-{os.getuid()}").mkdir()
        os.chown(disk / f".Trash-{os.getuid()}", 65534, 65534)
        with pytest.raises(Undone, match="is not this user's"):
            act(disk / "watched", file(disk / "watched"), "trash")
        assert contents(disk) == [CONTENT]
        assert os.listdir(disk / "watched/a") == ["film.mov"]
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_another_version_stays_in_its_place(root: Path, elsewhere: Path) -> None:
    for action in actions(root, elsewhere):
        stamp = file(root)
        file(root, b"a newer version")
        with pytest.raises(Changed):
            act(root, stamp, action)
        assert contents(root, elsewhere) == [b"a newer version"]


def test_another_version_of_the_same_size_and_time_stays_in_its_place(root: Path, elsewhere: Path) -> None:
    """As a program makes it that gives a file the time of the one it was made from."""
    for action in actions(root, elsewhere):
        for way in ("in place", "over"):
            stamp = file(root)
            written = root / ("a/film.mov" if way == "in place" else "aside")
            written.write_bytes(CONTENT[::-1])
            os.utime(written, ns=(stamp.mtime_ns, stamp.mtime_ns))
            written.replace(root / "a/film.mov")
            with pytest.raises(Changed):
                act(root, stamp, action)
            assert contents(root, elsewhere) == [CONTENT[::-1]]


def test_what_is_written_before_writers_are_kept_out_stays_in_its_place(
    root: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written_to(fd: int) -> bool | None:
        (root / "a/film.mov").write_bytes(b"written at the last moment")
        return lease(fd)

    monkeypatch.setattr(disposal, "lease", written_to)
    for action in actions(root, elsewhere):
        with pytest.raises(Changed):
            act(root, file(root), action)
        assert os.listdir(root / "a") == ["film.mov"]
        assert contents(root, elsewhere) == [b"written at the last moment"]


def test_a_writer_that_comes_while_it_is_taken_away_finds_it_in_its_place(
    root: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it would write to a file that has no name by then nobody would ever see."""

    def knocked(source: str, target: str, **folders: int) -> None:
        rename(source, target, **folders)
        with pytest.raises(BlockingIOError):
            os.open(root / "a" / target, os.O_WRONLY | os.O_NONBLOCK)

    rename = os.rename
    monkeypatch.setattr(os, "rename", knocked)
    for action in actions(root, elsewhere):
        with pytest.raises(Changed):
            act(root, file(root), action)
        assert os.listdir(root / "a") == ["film.mov"]
        assert contents(root, elsewhere) == [CONTENT]


@pytest.mark.parametrize("seen", [True, False])
def test_a_writer_that_comes_while_it_is_read_or_copied_finds_it_in_its_place(
    root: Path, elsewhere: Path, seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file server's client needs no name to write, and a large file takes its time."""

    def knocked(fd: int) -> bool:
        if seen:
            with pytest.raises(BlockingIOError):
                os.open(private, os.O_WRONLY | os.O_NONBLOCK)
        else:
            private.write_bytes(b"written meanwhile")
        return True

    private = root / f"a/{PRIVATE}host-1"
    if not seen:
        monkeypatch.setattr(disposal, "lease", lambda fd: None)
    for action in actions(root, elsewhere):
        for left in (True, False):
            if left or str(elsewhere) in action:
                stamp = file(root)
                if left:
                    (root / "a/film.mov").rename(private)
                with pytest.raises(Changed):
                    dispose(str(root), "a/film.mov", stamp, knocked, action, "host-1")
                assert os.listdir(root / "a") == ["film.mov"]
                assert contents(root) == [CONTENT if seen else b"written meanwhile"]


def test_a_touched_file_is_the_same_file(root: Path) -> None:
    stamp = file(root)
    os.chmod(root / "a/film.mov", 0o600)
    act(root, stamp, "delete")
    assert contents(root) == []


def test_who_has_it_open_for_writing_is_waited_for(root: Path) -> None:
    stamp = file(root)
    with open(root / "a/film.mov", "r+b"), pytest.raises(Undone, match="writing"):
        act(root, stamp, "delete")
    assert contents(root) == [CONTENT]
    act(root, stamp, "delete")
    assert contents(root) == []


def test_what_a_killed_attempt_left_is_finished_or_given_back(root: Path, elsewhere: Path) -> None:
    for action in actions(root, elsewhere):
        stamp = file(root)
        private = root / f"a/{PRIVATE}host-1"
        (root / "a/film.mov").rename(private)
        act(root, stamp, action)
        assert contents(root) == []
        stamp = file(root)
        (root / "a/film.mov").rename(private)
        private.write_bytes(b"written under the private name")
        with pytest.raises(Changed):
            act(root, stamp, action)
        assert (root / "a/film.mov").read_bytes() == b"written under the private name"
        (root / "a/film.mov").unlink()


def test_a_file_that_becomes_shorter_while_it_is_read_has_its_name_again(root: Path) -> None:
    stamp = file(root)
    (root / "a/film.mov").rename(root / f"a/{PRIVATE}host-1")

    def shorter(_fd: int) -> bool:
        raise Changed("the file became shorter")

    with pytest.raises(Changed):
        dispose(str(root), "a/film.mov", stamp, shorter, "delete", "host-1")
    assert os.listdir(root / "a") == ["film.mov"]


def test_two_versions_of_one_name_both_stay(root: Path) -> None:
    stamp = file(root)
    private = root / f"a/{PRIVATE}host-1"
    (root / "a/film.mov").rename(private)
    private.write_bytes(b"second version")
    file(root, b"third version")
    with pytest.raises(Changed):
        act(root, stamp, "delete")
    assert {path.name: path.read_bytes() for path in (root / "a").iterdir()} == {
        "film.mov": b"third version",
        "film-1.mov": b"second version",
    }


def test_what_cannot_be_done_leaves_the_file_under_its_name(root: Path) -> None:
    (root.parent / "blocked").write_bytes(b"no folder")
    with pytest.raises(Undone):
        act(root, file(root), f"move:{root.parent}/blocked")
    assert (root / "a/film.mov").read_bytes() == CONTENT
    assert os.listdir(root / "a") == ["film.mov"]


def crowd(folder: Path, end: str = "") -> None:
    """Takes every name that a file film.mov could have in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("film", *(f"film-{number}" for number in range(1, 10_000))):
        (folder / f"{name}.mov{end}").touch()


@pytest.mark.parametrize("action", ["trash", "move"])
def test_a_file_that_finds_no_free_name_keeps_its_own(root: Path, elsewhere: Path, action: str) -> None:
    if action == "trash":
        crowd(root.parent / "data/Trash/info", ".trashinfo")
    else:
        action = f"move:{elsewhere}"
        crowd(elsewhere / "a")
    with pytest.raises(Undone, match="every name is taken there"):
        act(root, file(root), action)
    assert [path.name for path in (root / "a").iterdir()] == ["film.mov"]


def test_a_file_that_finds_no_free_name_to_go_back_to_is_not_done(root: Path) -> None:
    stamp = file(root)
    private = (root / "a/film.mov").rename(root / f"a/{PRIVATE}host-1")
    private.write_bytes(b"written under the private name")
    crowd(root / "a")
    with pytest.raises(Undone, match="every name is taken there"):
        act(root, stamp, "delete")
    (root / "a/film.mov").unlink()
    with pytest.raises(Changed):
        act(root, stamp, "delete")
    assert (root / "a/film.mov").read_bytes() == b"written under the private name"


def test_a_program_at_work_where_the_file_would_go_leaves_it_under_its_name(root: Path, elsewhere: Path) -> None:
    (elsewhere / "a").mkdir()
    (elsewhere / "a/film.mov").write_bytes(b"somebody's")
    stamp = file(root)
    command = [sys.executable, "-c", LEASING, str(elsewhere / "a/film.mov")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"leased\n"
        with pytest.raises(Undone, match="another program has the file"):
            act(root, stamp, f"move:{elsewhere}")
        assert os.listdir(root / "a") == ["film.mov"]
        other.communicate()
    assert os.listdir(elsewhere / "a") == ["film.mov"]


LEASING = """
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
fcntl.fcntl(os.open(sys.argv[1], os.O_RDWR), fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("leased", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("action", ["delete", "trash", "move:"])
def test_a_file_whose_writers_cannot_be_seen_stays_until_it_was_quiet_for_a_minute(
    root: Path, elsewhere: Path, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's, or one on a share: it may be open, and the rest of it still to come."""
    monkeypatch.setattr(disposal, "lease", lambda _fd: None)
    action += str(elsewhere) if action == "move:" else ""
    stamp = file(root)
    now = time.time()
    with pytest.raises(Undone, match="quiet for a minute") as told:
        dispose(str(root), "a/film.mov", stamp, same, action, "host-1", known_since=now)
    assert told.value.after is not None
    assert 0 < told.value.after <= disposal.QUIET
    assert os.listdir(root / "a") == ["film.mov"]
    with pytest.raises(Undone, match="quiet for a quarter of an hour"):  # a server may wait for the rest of it
        dispose(str(root), "a/film.mov", stamp, same, action, "host-1", known_since=now - disposal.QUIET, closed=False)
    dispose(str(root), "a/film.mov", stamp, same, action, "host-1", known_since=now - disposal.QUIET)
    assert os.listdir(root / "a") == []


def test_a_file_whose_writers_can_be_seen_is_not_waited_for(root: Path) -> None:
    stamp = file(root)
    assert dispose(str(root), "a/film.mov", stamp, same, "delete", "host-1", known_since=time.time(), closed=False)
    assert os.listdir(root / "a") == []


def test_what_a_killed_attempt_left_is_not_waited_for_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disposal, "lease", lambda _fd: None)
    stamp = file(root)
    (root / "a/film.mov").rename(root / f"a/{PRIVATE}host-1")
    dispose(str(root), "a/film.mov", stamp, same, "delete", "host-1", known_since=time.time())
    assert os.listdir(root / "a") == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can have another user's file")
def test_another_users_program_is_no_program_of_ours_once_it_is_moved(root: Path, elsewhere: Path) -> None:
    file(root)
    os.chown(root / "a/film.mov", 65534, 65534)
    os.chmod(root / "a/film.mov", 0o6755)
    os.setxattr(root / "a/film.mov", "user.from", b"camera")
    os.utime(root / "a/film.mov", (2000, 1000))
    act(root, Stamp.of(os.stat(root / "a/film.mov")), f"move:{elsewhere}")
    moved = os.stat(elsewhere / "a/film.mov")
    assert (stat.S_IMODE(moved.st_mode), moved.st_mtime) == (0o755, 1000)
    assert contents(root, elsewhere) == [CONTENT]


def test_a_service_that_may_make_nothing_set_uid_moves_such_a_file_without(
    root: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file(root)
    (root / "a/film.mov").chmod(0o6755)
    stamp, change = Stamp.of(os.stat(root / "a/film.mov")), os.fchmod

    def refuse(fd: int, mode: int) -> None:
        if mode & 0o6000:
            raise PermissionError
        change(fd, mode)

    monkeypatch.setattr(os, "fchmod", refuse)
    act(root, stamp, f"move:{elsewhere}")
    assert contents(root, elsewhere) == [CONTENT]
    assert stat.S_IMODE(os.stat(elsewhere / "a/film.mov").st_mode) == 0o755


def test_a_trash_on_a_full_disk_keeps_no_note_of_what_did_not_get_there(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = file(root)
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if data.startswith(b"[Trash Info]"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(Undone, match="No space left"):
        act(root, stamp, "trash")
    assert os.listdir(root / "a") == ["film.mov"]
    assert contents(root.parent / "data") == []
    assert not list((root.parent / "data/Trash/info").iterdir())


@pytest.mark.parametrize("kind", ["a file", "a link"])
def test_where_its_folder_is_no_folder_any_more_there_is_nothing_to_do(root: Path, kind: str) -> None:
    stamp = file(root)
    (root / "a").rename(root / "b")
    (root / "a").symlink_to("b") if kind == "a link" else (root / "a").write_bytes(b"")
    assert not dispose(str(root), "a/film.mov", stamp, same, "delete", "host-1")
    assert os.listdir(root / "b") == ["film.mov"]


def test_what_a_killed_attempt_left_while_somebody_writes_has_its_name_again(root: Path) -> None:
    stamp = file(root)
    private = (root / "a/film.mov").rename(root / f"a/{PRIVATE}host-1")
    with private.open("r+b"), pytest.raises(Undone, match="writing"):
        act(root, stamp, "delete")
    assert os.listdir(root / "a") == ["film.mov"]
    act(root, stamp, "delete")
    assert contents(root) == []


def test_a_link_in_the_files_place_is_left_alone(root: Path) -> None:
    stamp = file(root)
    (root / "a/film.mov").rename(root / "other")
    (root / "a/film.mov").symlink_to(root / "other")
    act(root, stamp, "delete")
    assert (root / "a/film.mov").is_symlink()
    assert (root / "other").read_bytes() == CONTENT


KILLED = """
import os, signal, sys
from dumbwaiter.files import disposal
from dumbwaiter.model import Stamp
left = int(sys.argv[1])
def mortal(event, args):
    global left
    if event in {"os.rename", "os.link", "os.remove", "open", "os.mkdir"} and "dumbwaiter-after" in repr(args) + repr(event):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
stamp = Stamp(*map(int, sys.argv[4].split(",")))
sys.addaudithook(mortal)
disposal.dispose(sys.argv[2], "a/film.mov", stamp, lambda fd: os.pread(fd, 1000, 0) == sys.argv[5].encode(), sys.argv[3], "host-1")
"""


@pytest.mark.slow
def test_a_kill_at_any_step_leaves_the_bytes_once(root: Path, elsewhere: Path) -> None:
    for action in actions(root, elsewhere)[1:]:
        place = elsewhere if str(elsewhere) in action else root.parent
        steps = 0
        finished = False
        while not finished:
            steps += 1
            stamp = file(root)
            words = [str(root), action, ",".join(map(str, stamp)), CONTENT.decode()]
            code = subprocess.run([sys.executable, "-c", KILLED, str(steps), *words], check=False).returncode
            finished = code == 0
            assert CONTENT in contents(root, place), (action, steps)
            act(root, stamp, action)
            kept = [one for one in contents(place) if one == CONTENT]
            assert len(kept) == 1, (action, steps)
            assert contents(root) == []
            for path in [*place.rglob("film*"), *root.rglob("film*")]:
                if path.is_file():
                    path.unlink()
        assert steps > 3


@pytest.mark.torture
def test_a_rewriter_never_loses_a_version(root: Path, elsewhere: Path) -> None:
    """Every version that was written whole and never uploaded is somewhere at the end, whatever met it when."""
    numbers = random.Random(8)
    for round_ in range(400):
        action = numbers.choice(actions(root, elsewhere))
        stamp = file(root)
        wanted = f"version {round_}".encode()
        way = numbers.choice(["over", "in place", "append"])

        def rewrite(way: str = way, wanted: bytes = wanted) -> None:
            path = root / "a/film.mov"
            if way == "over":
                (root / "aside").write_bytes(wanted)
                (root / "aside").rename(path)
            else:
                with open(path, "wb" if way == "in place" else "ab") as writer:
                    writer.write(wanted)

        writer = threading.Thread(target=rewrite)
        writer.start()
        for _ in range(3):
            with contextlib.suppress(Changed, Undone):
                act(root, stamp, action)
        writer.join()
        assert any(wanted in one for one in contents(root, elsewhere, root.parent)), (round_, action, way)
        for path in [*root.rglob("*"), *elsewhere.rglob("*"), *root.parent.rglob("*")]:
            if path.is_file():
                path.unlink()
