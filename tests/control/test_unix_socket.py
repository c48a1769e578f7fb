"""The folder of the control socket: the owner's, whatever somebody else puts in its place."""

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from dumbwaiter.control.unix_socket import _bind, _own
from dumbwaiter.errors import Exit, Failure
from stranger import UID, needs_root


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@needs_root
def test_a_link_that_somebody_else_put_in_its_place_is_refused(tmp_path: Path) -> None:
    target, link = tmp_path / "photos", tmp_path / "run"
    target.mkdir(0o755)
    link.symlink_to(target)
    os.chown(link, UID, UID, follow_symlinks=False)
    with pytest.raises(Failure, match=r"the runtime folder .*/run belongs to somebody else: "):
        _own(str(link))
    assert mode(target) == 0o755


@needs_root
def test_another_ones_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(0o755)
    os.chown(tmp_path / "theirs", UID, UID)
    (tmp_path / "link").symlink_to("theirs")
    for name in ("theirs", "link"):
        with pytest.raises(Failure, match="belongs to somebody else"):
            _own(str(tmp_path / name))
    assert mode(tmp_path / "theirs") == 0o755


def test_links_of_ones_own_are_followed_and_the_folder_is_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "above").symlink_to("disk")
    _own(f"{tmp_path}/above/run")
    assert mode(tmp_path / "disk/run") == 0o700
    (tmp_path / "disk/run").chmod(0o311)
    (tmp_path / "link").symlink_to("disk/run")
    _own(str(tmp_path / "link"))
    assert mode(tmp_path / "disk/run") == 0o700


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, Exit.TEMPORARY), (errno.EPERM, Exit.USAGE)])
def test_a_disk_that_takes_no_socket_is_said_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: Exit
) -> None:
    def refuse(listener: socket.socket, path: str) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, "bind", refuse)
    name = f"{tmp_path}/control.sock"
    with socket.socket(socket.AF_UNIX) as listener, pytest.raises(Failure) as told:
        _bind(listener, name, name)
    assert told.value.code is code
    assert str(told.value) == (
        f"the control socket {name} cannot be made ({os.strerror(number)}): name a folder on another disk with --runtime"
    )
