"""One rule for where things are."""

import asyncio
import errno
import os
import socket
import stat
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dumbwaiter.errors import Exit, Failure
from dumbwaiter.installation import Lock
from dumbwaiter.places import SYSTEM_CONFIG, daemon_runtime, places, private_folder, short


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment that says nothing but where home is."""
    for name in list(os.environ):
        if name.startswith(("DUMBWAITER_", "XDG_")) or name.endswith("_DIRECTORY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_without_any_word_they_are_the_users_xdg_folders(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    found = places()
    assert found.config == f"{bare}/.config/dumbwaiter/config.toml"
    assert found.state == f"{bare}/.local/state/dumbwaiter"
    assert found.cache == f"{bare}/.cache/dumbwaiter"
    assert found.runtime == f"{bare}/.local/state/dumbwaiter/run"
    assert found.socket == f"{bare}/.local/state/dumbwaiter/run/control.sock"


def test_xdg_variables_name_the_users_folders(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("CONFIG", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", f"{bare}/{kind}")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(bare))
    found = places()
    assert found.config == f"{bare}/CONFIG/dumbwaiter/config.toml"
    assert found.state == f"{bare}/STATE/dumbwaiter"
    assert found.cache == f"{bare}/CACHE/dumbwaiter"
    assert found.runtime == f"{bare}/dumbwaiter"


def test_relative_xdg_variables_name_nothing_and_a_relative_home_lies_here(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = places()
    for name in ("CONFIG_HOME", "STATE_HOME", "CACHE_HOME", "RUNTIME_DIR"):
        monkeypatch.setenv(f"XDG_{name}", ".")
    assert places().flags == plain.flags
    monkeypatch.chdir(bare)
    monkeypatch.setenv("HOME", "rel")
    assert places().state == f"{bare}/rel/.local/state/dumbwaiter"


def test_whoever_knows_the_state_folder_finds_the_daemons_socket(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(bare))
    made = bare / ".local/state/dumbwaiter"
    made.mkdir(parents=True)
    held = Lock(str(made))
    assert held.try_acquire(runtime="/run/a folder")
    assert places().runtime == "/run/a folder"
    assert places(runtime="/other").runtime == "/other"
    assert places(state=str(made)).runtime == "/run/a folder"
    held.close()
    assert places().runtime == f"{bare}/dumbwaiter", "it runs no more"
    other = Lock(str(made))
    assert other.try_acquire()
    assert places().runtime == f"{bare}/dumbwaiter", "no daemon has it"
    other.close()


def test_whoever_looks_who_has_the_lock_keeps_nobody_from_it(bare: Path) -> None:
    ended = Lock(str(bare))
    assert ended.try_acquire(runtime="/run/x")
    ended.close()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            daemon_runtime(str(bare))

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for _ in range(100):
            held = Lock(str(bare))
            assert asyncio.run(held.acquire(30.0, runtime="/run/x"))
            held.close()
    finally:
        over.set()
        looker.join()


def test_a_state_folder_whose_disk_gives_no_locks_is_named(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_values: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    lock = Lock(str(bare))
    monkeypatch.setattr("fcntl.flock", refused)
    with pytest.raises(Failure) as raised:
        lock.try_acquire()
    lock.close()
    assert str(raised.value) == f"the state folder {bare} cannot be used: No locks available"
    assert raised.value.code is Exit.TEMPORARY


def test_systemds_folders_go_before_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/elsewhere")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/dumbwaiter:/var/lib/other")
    monkeypatch.setenv("CACHE_DIRECTORY", "/var/cache/dumbwaiter")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/dumbwaiter:/run/other")
    found = places()
    assert (found.state, found.cache, found.runtime) == (
        "/var/lib/dumbwaiter",
        "/var/cache/dumbwaiter",
        "/run/dumbwaiter",
    )


def test_the_environment_goes_before_systemd_and_a_flag_before_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/dumbwaiter")
    monkeypatch.setenv("DUMBWAITER_STATE", "/from/environment")
    monkeypatch.setenv("DUMBWAITER_CONFIG", "/from/environment.toml")
    monkeypatch.setenv("DUMBWAITER_CACHE", "/from/cache")
    monkeypatch.setenv("DUMBWAITER_RUNTIME", "/from/runtime")
    found = places()
    assert (found.config, found.state, found.cache, found.runtime) == (
        "/from/environment.toml",
        "/from/environment",
        "/from/cache",
        "/from/runtime",
    )
    found = places("/flag.toml", "/flag/state", "/flag/cache", "/flag/runtime")
    assert (found.config, found.state, found.cache, found.runtime) == (
        "/flag.toml",
        "/flag/state",
        "/flag/cache",
        "/flag/runtime",
    )


def test_a_state_folder_of_ones_own_brings_a_socket_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp")
    assert places(state="/mine").socket == "/mine/run/control.sock"
    assert places(state="/mine", runtime="/other").socket == "/other/control.sock"


def test_paths_are_absolute_and_know_home(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bare)
    assert places(state="here").state == f"{bare}/here"
    assert places(state="~/there").state == f"{bare}/there"
    monkeypatch.setenv("DUMBWAITER_CACHE", "../x")
    assert places().cache == f"{bare.parent}/x"


def test_the_systems_configuration_serves_who_has_none(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = {SYSTEM_CONFIG}
    monkeypatch.setattr(os.path, "exists", lambda path: path in there)
    assert places().config == SYSTEM_CONFIG
    there.add(own := f"{bare}/.config/dumbwaiter/config.toml")
    assert places().config == own
    there.clear()
    assert places().config == own


def test_a_private_folder_is_its_owners_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = private_folder(f"{tmp_path}/a/b")
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    for made in (path, os.path.dirname(path)):
        assert stat.S_IMODE(os.stat(made).st_mode) == 0o700
    assert private_folder(path) == path


def test_private_folders_made_side_by_side_leave_the_process_its_umask(tmp_path: Path) -> None:
    """The umask is the whole process's: what other threads make meanwhile would get its rights, or lose them."""
    interval, before = sys.getswitchinterval(), os.umask(0o022)
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as threads:
            made = list(threads.map(private_folder, [f"{tmp_path}/{n % 4}/{n}/x" for n in range(4000)]))
        assert os.umask(0o022) == 0o022
    finally:
        sys.setswitchinterval(interval)
        os.umask(before)
    assert {stat.S_IMODE(os.stat(path).st_mode) for path in made} == {0o700}


def test_a_file_in_a_private_folders_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in ("file", "file/below"):
        with pytest.raises((FileExistsError, NotADirectoryError)):
            private_folder(f"{tmp_path}/{path}")


def test_a_socket_far_down_can_still_be_bound_and_reached(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    path = f"{folder}/control.sock"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        with short(path) as name:
            server.bind(name)
        server.listen()
        assert stat.S_ISSOCK(os.stat(path).st_mode)
        before = len(os.listdir("/proc/self/fd"))
        with short(path) as name:
            client.connect(name)
        assert len(os.listdir("/proc/self/fd")) == before
    with short("/short/control.sock") as name:
        assert name == "/short/control.sock"


def test_a_socket_in_a_folder_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), short(f"{tmp_path}/{'x' * 120}/control.sock"):
        pass
