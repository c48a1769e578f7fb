"""What systemd gives and expects, given and expected by the test."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from program import Program


@pytest.fixture
def notices(tmp_path: Path) -> Iterator[socket.socket]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(tmp_path / "notify"))
    listener.settimeout(30)
    yield listener
    listener.close()


def test_systemd_is_told_of_start_life_and_end(program: Program, notices: socket.socket) -> None:
    program.start(environment={"NOTIFY_SOCKET": notices.getsockname(), "WATCHDOG_USEC": "2000000"})
    assert notices.recv(4096).startswith(b"READY=1\n")
    assert notices.recv(4096) == b"WATCHDOG=1"
    assert notices.recv(4096) == b"WATCHDOG=1"
    assert program.stop() == 0
    said = [notices.recv(4096)]
    while said[-1] != b"STOPPING=1":
        said.append(notices.recv(4096))
    assert set(said) <= {b"WATCHDOG=1", b"STOPPING=1"}


def test_a_credential_of_systemd_is_a_secret(program: Program) -> None:
    secret = program.vendors.sandbox.accounts["netease"]["app_secret"]
    text = program.config.read_text()
    program.config.write_text(text.replace(f'app_secret = "{secret}"', 'app_secret = { credential = "vod" }'))
    credentials = program.folder / "credentials"
    credentials.mkdir()
    (credentials / "vod").write_text(f"{secret}\n")
    path = program.write("a.bin", b"a")
    assert program("check").returncode == 2
    done = program("put", path, environment={"CREDENTIALS_DIRECTORY": str(credentials)})
    assert done.returncode == 0, done.stderr


def test_the_folders_of_systemd_are_used_and_private(program: Program) -> None:
    state = program.folder / "var"
    environment = {
        "STATE_DIRECTORY": str(state),
        "DUMBWAITER_STATE": "",
        "RUNTIME_DIRECTORY": str(program.folder / "rt"),
    }
    path = program.write("a.bin", b"a")
    assert program("put", path, environment=environment).returncode == 0
    assert state.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in state.iterdir() if file.is_file()} == {0o600}


def test_cron_finds_the_daemon_without_any_variable(program: Program) -> None:
    program.start()
    done = program(
        "--config", str(program.config), "--state", str(program.state), "status", environment={"DUMBWAITER_STATE": ""}
    )
    assert done.stdout.startswith("running\n"), done.stderr
