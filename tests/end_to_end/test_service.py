"""What systemd gives and expects, given and expected by the test."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from dumbwaiter.control.status_line import _sentence
from dumbwaiter.facts import AFTER, IN_NEED
from dumbwaiter.files.roots import mounted_at
from dumbwaiter.model import State
from program import Program


class Notices:
    """Takes what a service says as fast as systemd does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._heard: SimpleQueue[str] = SimpleQueue()
        self._thread = threading.Thread(target=self._take)
        self._thread.start()

    def _take(self) -> None:
        while (said := self._socket.recv(4096).decode()) != "end":
            self._heard.put(said)

    def hear(self, wanted: str) -> None:
        """Waits for a message that begins so."""
        while not self._heard.get(timeout=60).startswith(wanted):
            pass

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"end", str(self.path))
        self._thread.join()
        self._socket.close()


@pytest.fixture
def notices(tmp_path: Path) -> Iterator[Notices]:
    made = Notices(tmp_path / "notify")
    yield made
    made.close()


def test_systemd_is_told_of_start_life_and_end(program: Program, notices: Notices) -> None:
    program.start(environment={"NOTIFY_SOCKET": str(notices.path), "WATCHDOG_USEC": "2000000"})
    notices.hear("EXTEND_TIMEOUT_USEC=90000000")
    notices.hear("READY=1")
    notices.hear("WATCHDOG=1")
    notices.hear("WATCHDOG=1")
    assert program.stop() == 0
    notices.hear("STOPPING=1\nSTATUS=stopping; every checkpoint is kept")


def test_the_status_text_follows_what_the_daemon_does(program: Program, notices: Notices) -> None:
    program.start(environment={"NOTIFY_SOCKET": str(notices.path)})
    notices.hear("STATUS=nothing to do, watching ")
    program.vendors.faults("nos.put:500%100")
    program.write("a.bin", b"a")
    notices.hear("STATUS=uploading ")
    program.vendors.faults("")
    program("retry", "--all")
    notices.hear("STATUS=nothing to do, watching ")


def test_a_service_manager_that_does_not_listen_holds_nothing_up(program: Program) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(program.folder / "deaf"))
        program.start(environment={"NOTIFY_SOCKET": deaf.getsockname(), "WATCHDOG_USEC": "20000"})
        program.write("a.bin", b"a")  # long before it is done, more was said than a socket keeps
        assert program("wait").returncode == 0
        assert program.stop() == 0


def test_units_are_shown_where_no_systemd_runs_and_installed_nowhere(program: Program) -> None:
    environment = {"XDG_CONFIG_HOME": str(program.folder / "home")}
    shown = program("service", "install", "--dry-run", environment=environment)
    assert shown.returncode == 0, shown.stderr
    assert "Environment=DUMBWAITER_STATE=" in shown.stdout
    assert shown.stdout.count("ExecStart=") == 2  # the mount's too
    cache = program.folder / "by the shell"
    elsewhere = program("service", "install", "--dry-run", environment={"XDG_CACHE_HOME": str(cache)})
    assert elsewhere.stdout.count(f"Environment=DUMBWAITER_CACHE={program.folder}/cache\n") == 2  # named, and so obeyed
    unnamed = {name: value for name, value in program.environment.items() if name != "DUMBWAITER_CACHE"}
    words = [sys.executable, "-m", "dumbwaiter", "service", "install", "--dry-run"]
    own = subprocess.run(
        words, env=unnamed | {"XDG_CACHE_HOME": str(cache)}, stdout=subprocess.PIPE, text=True, check=True
    )
    assert own.stdout.count(f'Environment="DUMBWAITER_CACHE={cache}/dumbwaiter"\n') == 2
    assert "/usr/local/bin/dumbwaiter " not in shown.stdout
    if not os.path.isdir("/run/systemd/system"):
        refused = program("service", "install", environment=environment)
        assert refused.returncode == 1
        assert refused.stderr.startswith("dumbwaiter: systemd does not run this machine")
        assert refused.stderr.count("\n") == 1
    assert not (program.folder / "home").exists()
    gone = program("service", "uninstall", environment=environment)
    assert (gone.returncode, gone.stderr) == (0, "no service is installed\n")
    assert program("service", "status", environment=environment).returncode == 1


def test_the_systems_service_writes_only_where_files_are_moved_or_removed(program: Program) -> None:
    account = pwd.getpwuid(os.getuid()).pw_name
    text = program.config.read_text()
    assert text.count("[watch.netease]") == 1
    program.config.write_text(text.replace("[watch.netease]", f"[watch.netease]\nafter = 'move:{program.folder}/sent'"))
    shown = program("service", "install", "--system", "--for", account, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert shown.stderr.startswith(
        "dumbwaiter: this would not be installed: "
    )  # the folders lie in /tmp, or a secret in the file
    written = [line for line in shown.stdout.splitlines() if line.startswith("ReadWritePaths=")]
    disk = mounted_at(str(program.folder))
    changed = [f"-{program.drop}", f"-{program.folder}/sent"] if disk == "/" else [f"-{disk}"]
    assert written == [f"ReadWritePaths={path}" for path in (program.state, program.folder / "cache", *changed)]


def test_the_home_of_the_systems_service_is_its_accounts(program: Program) -> None:
    text = program.config.read_text().replace(f'path = "{program.drop}"', 'path = "~/Drop"\nafter = "delete"')
    program.config.write_text(text)
    words = ("service", "install", "--system", "--for", "nobody", "--dry-run")
    shown = program(*words, environment={"HOME": str(program.folder)})
    assert "this would not be installed" in shown.stderr  # the folder is not there
    assert shown.returncode == 0, shown.stderr
    lines, home = shown.stdout.splitlines(), pwd.getpwnam("nobody").pw_dir
    assert f"ReadWritePaths=-{home}/Drop" in lines
    assert lines.count(f"RequiresMountsFor={home}") == 2  # the uploader's and the mount's: it may come late
    assert f"RequiresMountsFor={program.mount.parent}" in lines
    assert lines.index(f"RequiresMountsFor={home}") - 1 == lines.index("[Unit]", lines.index("[Install]"))


def test_every_secret_that_is_a_credential_is_handed_to_the_service(program: Program) -> None:
    secret = program.vendors.sandbox.accounts["netease"]["app_secret"]
    text = program.config.read_text().replace(f'app_secret = "{secret}"', 'app_secret = { credential = "vod" }')
    told = 'on_done = { url = "https://hooks.example/", secret = { credential = "hook" } }'
    text = text.replace("[watch.netease]", f"[watch.netease]\n{told}")
    program.config.write_text(f'{text}\n[web]\ntoken = {{ credential = "page" }}\n')
    home = program.folder / "a $HOME of 100 %"
    shown = program("service", "install", "--dry-run", environment={"HOME": str(home)})
    handed = [line for line in shown.stdout.splitlines() if line.startswith("LoadCredential=")]
    plain = str(home).replace("%", "%%")  # neither quoted nor otherwise escaped: systemd takes it as it stands
    assert handed == [
        f"LoadCredential={name}:{plain}/.config/dumbwaiter/credentials/{name}" for name in ("hook", "page", "vod")
    ]
    unit = program.folder / "handed.service"
    unit.write_text("\n".join(["[Service]", "ExecStart=/bin/true", *handed, ""]))
    if shutil.which("systemd-analyze"):
        told = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
        assert "Credential source" not in told.stderr


def test_a_credential_of_systemd_is_a_secret(program: Program) -> None:
    secret = program.vendors.sandbox.accounts["netease"]["app_secret"]
    text = program.config.read_text()
    program.config.write_text(text.replace(f'app_secret = "{secret}"', 'app_secret = { credential = "vod" }'))
    credentials = program.folder / "credentials"
    credentials.mkdir()
    (credentials / "vod").write_text(f"{secret}\n")
    path = program.write("a.bin", b"a")
    assert program("check", "--online").returncode == 2
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


def test_the_status_text_counts_one_as_one() -> None:
    app: Any = SimpleNamespace(
        trouble=None,
        providers={},
        watches=SimpleNamespace(states=dict),
        engine=SimpleNamespace(busy=1),
        intake=SimpleNamespace(waiting=0),
        config=SimpleNamespace(watch={"a": None}),
    )
    none = dict.fromkeys((*State, IN_NEED, AFTER), 0)
    assert _sentence(app, none) == "nothing to do, watching 1 folder"
    assert _sentence(app, none | {AFTER: 1}) == "all is uploaded, 1 file to put away"
    one = none | {State.PENDING: 1, IN_NEED: 1, AFTER: 1}
    assert _sentence(app, one) == "1 file needs a person (dumbwaiter failed); uploading 1 file, 1 to go"
