"""What programs keep beside a file that they have not fetched whole."""

import errno
import os
import time
from pathlib import Path

import pytest

from dumbwaiter.files.downloads import LOADING, Downloads, notes_beside, notes_of_download

AXELS = (3).to_bytes(2, "little") + b"\x07" * 56  # ten bytes and three connections


@pytest.mark.parametrize("suffix", [".aria2", ".lftp-pget-status"])
def test_notes_stand_beside_a_file_or_above_it(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    assert notes_of_download(str(tmp_path), "a/b/film.mov") == ""
    notes = tmp_path / f"a{suffix}"
    notes.symlink_to("nowhere")  # whatever it is
    assert notes_of_download(str(tmp_path), "a/b/film.mov") == notes.name
    known = Downloads()
    assert known.notes(str(tmp_path), "a/b/film.mov") == notes.name
    assert known.notes(str(tmp_path), "film.mov") == ""
    beside = tmp_path / f"film.mov{suffix}"
    beside.touch()
    assert notes_beside(str(tmp_path), "film.mov") == known.notes(str(tmp_path), "film.mov") == beside.name


def test_axels_notes_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "film.mov.st").write_bytes(AXELS)
    opened = len(os.listdir("/proc/self/fd"))
    for path in ("film.mov", "film.mov.st"):
        assert notes_beside(str(tmp_path), path) == "film.mov.st"
    assert len(os.listdir("/proc/self/fd")) <= opened  # another test's may go meanwhile
    (tmp_path / "film.mov").write_bytes(AXELS)
    (tmp_path / "film.mov.st").write_bytes(AXELS + b"\0")
    for path in ("film.mov", "film.mov.st"):
        assert notes_beside(str(tmp_path), path) == ""


@pytest.mark.parametrize("what", ["a folder", "a pipe", "a link to itself"])
def test_what_cannot_be_notes_holds_no_file_back(tmp_path: Path, what: str) -> None:
    place = tmp_path / "film.mov.st"
    match what:
        case "a folder":
            place.mkdir()
        case "a pipe":
            os.mkfifo(place)
        case _:
            place.symlink_to(place)
    assert notes_beside(str(tmp_path), "film.mov") == ""


def test_a_name_that_leaves_no_room_for_notes_has_none(tmp_path: Path) -> None:
    (tmp_path / ("长" * 85)).touch()
    assert notes_of_download(str(tmp_path), "长" * 85) == ""


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EAGAIN, errno.ENXIO])
def test_notes_that_nobody_may_see_are_none(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an ordinary user, of a file that another program has a lease on, of a socket. Of a broken disk nobody knows."""

    def refuse(*_arguments: object, **_more: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "lstat", refuse)
    monkeypatch.setattr(os, "open", refuse)
    assert notes_beside(str(tmp_path), "film.mov") == ""
    code = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        notes_beside(str(tmp_path), "film.mov")


def test_a_browser_writes_beside_an_empty_file_what_is_to_be_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda place: ["has ended since.part", *listed(place)])
    part, old, dots = tmp_path / "film.Xy3.mov.part", tmp_path / "song.Xy3.mp3.part", tmp_path / ".rc.Xy3.part"
    for path in (part, old, dots):
        path.touch()
    then = time.time() - LOADING - 60
    os.utime(old, (then, then))
    known = Downloads()
    written = {
        name
        for name in ("film.mov", "fi.mov", "film", "song.mp3", "README", ".rc")
        if known.is_written_beside(str(tmp_path), name)
    }
    assert written == {"film.mov", "film", ".rc"}
    assert not known.is_written_beside(str(tmp_path), "no folder/film.mov")
