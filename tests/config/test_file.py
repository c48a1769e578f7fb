"""The file that holds the configuration: whose it is, and what it may hold."""

import errno
import os
from pathlib import Path

import pytest

from configs import BOTH, FILE, SECRET
from dumbwaiter.config.file import exposed, load, parse
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.files import writers
from stranger import UID, needs_root


def written(folder: Path, text: str, mode: int = 0o600) -> str:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return str(path)


def failure(path: str) -> str:
    with pytest.raises(Failure) as raised:
        load(path)
    assert raised.value.code is Exit.USAGE
    assert SECRET not in str(raised.value)
    return str(raised.value)


def test_a_file_is_loaded(tmp_path: Path) -> None:
    assert load(written(tmp_path, BOTH)).provider["vod"].app_key == "key"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_file_that_others_can_open_holds_no_secret(tmp_path: Path, mode: int) -> None:
    assert "a secret stands in a file that others can read" in failure(written(tmp_path, BOTH, mode))


def test_a_missing_file_is_told_with_the_way_to_make_one(tmp_path: Path) -> None:
    path = f"{tmp_path}/none.toml"
    assert failure(path) == f"there is no configuration at {path}: `dumbwaiter init` writes a first one"


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    assert failure(str(tmp_path)) == f"{tmp_path} cannot be read: Is a directory"


def test_a_file_whose_disk_fails_may_be_read_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that ends with exit code 2 is not started again."""
    path = written(tmp_path, BOTH)

    def stale(_fd: int) -> os.stat_result:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", stale)
        with pytest.raises(Failure) as raised:
            load(path)
    assert str(raised.value) == f"{path} cannot be read: Stale file handle"
    assert raised.value.code is Exit.TEMPORARY


def test_what_never_ends_is_no_configuration(tmp_path: Path) -> None:
    """A device would be read until memory is full, a pipe that nobody writes to be waited for."""
    pipe = f"{tmp_path}/pipe"
    os.mkfifo(pipe)
    for path in ("/dev/zero", pipe):
        assert failure(path) == f"{path} is no regular file"


def test_a_file_larger_than_any_configuration_is_not_read(tmp_path: Path) -> None:
    path = written(tmp_path, BOTH)
    os.truncate(path, 1 << 40)
    assert failure(path) == f"{path} has more than 1048576 bytes, which is no configuration"


def test_bytes_that_are_no_text_are_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"# \xff\n")
    assert failure(str(path)) == f"{path} is no UTF-8 text"


def test_the_mark_that_editors_on_windows_begin_a_file_with_is_no_part_of_it(tmp_path: Path) -> None:
    path = Path(written(tmp_path, BOTH))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load(str(path)).watch == parse(BOTH, FILE).watch


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "dumbwaiter"
    folder.mkdir(0o700)
    made = folder / "config.toml"
    made.write_text("")
    made.chmod(0o600)
    return made


@pytest.mark.parametrize(("mode", "folder"), [(0o600, 0o700), (0o644, 0o755), (0o600, 0o1777)])
def test_a_configuration_that_others_only_read_is_no_matter(file: Path, mode: int, folder: int) -> None:
    file.chmod(mode)
    file.parent.chmod(folder)
    assert list(exposed(str(file))) == []


@pytest.mark.parametrize(("mode", "folder"), [(0o666, 0o700), (0o660, 0o700), (0o600, 0o777), (0o600, 0o775)])
def test_a_configuration_that_others_can_write_is_said_to_be(
    file: Path, mode: int, folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "_is_private", lambda *_: False)
    if os.geteuid() == 0:
        for one in (file, file.parent):
            os.chown(one, -1, 4242)
    file.chmod(mode)
    file.parent.chmod(folder)
    open_one = file if mode != 0o600 else file.parent
    said = f"others can write {open_one}, and so have commands run as you: chmod go-w {open_one}"
    assert list(exposed(str(file))) == [said]
    link = file.parent.parent / "config.toml"
    link.symlink_to(file)
    assert list(exposed(str(link))) == [said]
    monkeypatch.setattr(writers, "_is_private", lambda *_: True)
    assert list(exposed(str(file))) == ([said] if (mode | folder) & 0o002 else [])


@needs_root
def test_a_configuration_of_somebody_else_is_said_to_be(file: Path) -> None:
    os.chown(file, UID, UID)
    (said,) = exposed(str(file))
    assert said.startswith(f"{file} belongs to somebody else, who could have commands run as you: ")
