"""The commands of `service`: what is found before anything is enabled, what stands in the units, and what is said of them."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from dumbwaiter.cli import service, systemd, units
from dumbwaiter.cli.bundle import _log
from dumbwaiter.cli.doctor.configured import secrets
from dumbwaiter.cli.service_checks import check_config
from dumbwaiter.cli.session import Session
from dumbwaiter.cli.systemd import own_target, target
from dumbwaiter.config.file import parse
from dumbwaiter.errors import Exit, Failure

CONFIG = """\
[provider.vod]
broker = "netease"
app_key = "key"
app_secret = { credential = "vod" }

[web]
token = { credential = "page" }

[watch.films]
path = "films"
provider = "vod"
on_done = { url = "https://hooks.example/", secret = { credential = "hook" } }
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose credentials are all there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "films").mkdir()
    folder = tmp_path / ".config/dumbwaiter/credentials"
    folder.mkdir(parents=True)
    for name in ("vod", "page", "hook"):
        (folder / name).write_text("whispered")
        (folder / name).chmod(0o600)
    return tmp_path


def looked_at(home: Path, text: str) -> None:
    file = f"{home}/config.toml"
    check_config(systemd.own_target(), parse(text, file), file)


def refused(home: Path, text: str = CONFIG) -> str:
    with pytest.raises(Failure) as raised:
        looked_at(home, text)
    assert raised.value.code is Exit.USAGE
    return str(raised.value)


def test_a_service_that_gets_all_its_secrets_is_installed(home: Path) -> None:
    looked_at(home, CONFIG)


@pytest.mark.parametrize("name", ["vod", "page", "hook"])
def test_a_credential_that_the_service_would_not_get_is_missed(home: Path, name: str) -> None:
    path = home / ".config/dumbwaiter/credentials" / name
    path.chmod(0o644)
    assert refused(home) == f"the secret file {path} can be read by others: chmod 600 {path}"
    path.unlink()
    assert refused(home) == f'the secret "{name}" is missing: put it into {path} and chmod 600 it'


@pytest.mark.parametrize(("name", "place"), [
    ("vod", "line 4: [provider.vod.app_secret]"),
    ("page", "line 7: [web.token]"),
    ("hook", "line 12: [watch.films.on_done.secret]"),
])  # fmt: skip
def test_a_secret_in_the_environment_is_none_for_a_service(home: Path, name: str, place: str) -> None:
    text = CONFIG.replace(f'{{ credential = "{name}" }}', '{ env = "HIDDEN" }')
    assert refused(home, text) == (
        f"{home}/config.toml, {place} a service does not see the variable HIDDEN of your shell: "
        'use { file = "…" } or { credential = "…" }'
    )


def test_what_the_systems_service_would_not_see_is_told(home: Path) -> None:
    to = systemd.own_target()._replace(system=True)
    text = 'provider.p = { broker = "netease", app_key = "k", app_secret = "s" }\n[watch.w]\nprovider = "p"\n'
    for file, folder, unseen in (
        ("/tmp/config.toml", "/srv/drop", "/tmp/config.toml"),
        ("/etc/config.toml", "/var/tmp/drop", "/var/tmp/drop"),
        ("/etc/config.toml", "/tmp", "/tmp"),
    ):
        with pytest.raises(Failure, match=f"does not see {unseen}: move it"):
            check_config(to, parse(f'{text}path = "{folder}"\n', file), file)
    moved = f'{text}path = "/srv/drop"\nafter = "move:/tmp/sent"\n'
    with pytest.raises(Failure, match="does not see /tmp/sent: move it"):
        check_config(to, parse(moved, file), file)


def test_the_systems_service_keeps_no_disk_mounted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that only the service has mounted over itself keeps the disk below it."""
    monkeypatch.setattr(systemd.Target, "home", home / "people/ann")
    disks = {"/", str(home / "disk"), str(home / "people")}
    monkeypatch.setattr(os.path, "ismount", lambda path: path in disks)
    to = systemd.own_target()._replace(system=True)
    (home / "disk/in").mkdir(parents=True)
    (home / "in").symlink_to("disk/in")
    assert units._writable(to, f"{home}/disk/in") == f"{home}/disk"
    assert units._writable(to, f"{home}/in") == f"{home}/disk"
    assert units._writable(to, f"{home}/people/ann/Drop") == f"{home}/people/ann/Drop"  # its home stays, and closed
    assert units._writable(to, "/srv/drop") == "/srv/drop"


def test_a_unit_lacks_nothing_while_a_disk_is_away(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to = systemd.own_target()
    asked = {"ReadWritePaths=-/mnt/disk/in", 'ReadWritePaths="-/mnt/a disk/in"', 'ReadWritePaths="-/mnt/disk/a b"'}
    monkeypatch.setattr(units, "_drop_in", lambda *_: asked)
    session = Session(f"{home}/config.toml", None, None, None, as_json=False, verbose=False, quiet=False)
    (home / "config.toml").write_text(CONFIG)
    to.drop_in("dumbwaiter").parent.mkdir(parents=True)
    to.drop_in("dumbwaiter").write_text('ReadWritePaths=-/mnt/disk\nReadWritePaths="-/mnt/a disk"\n')
    assert not units.lacks(session, to, "dumbwaiter")
    asked.add("ReadWritePaths=-/mnt/disk2/in")
    assert units.lacks(session, to, "dumbwaiter")


def test_the_service_of_another_account_is_none_of_ones_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd.Target, "folder", home)
    monkeypatch.setattr(service, "booted", lambda: False)
    ann, bob = (systemd.Target(True, account) for account in ("ann", "bob"))
    (home / ann.file("dumbwaiter")).touch()
    link = home / "multi-user.target.wants" / bob.unit("dumbwaiter")
    link.parent.mkdir()
    link.symlink_to(home / bob.file("dumbwaiter"))
    assert [one["unit"] for one in service.states(bob)] == ["dumbwaiter@bob.service"]
    assert service.states(ann) == []
    ann.drop_in("dumbwaiter").parent.mkdir()
    ann.drop_in("dumbwaiter").touch()
    assert [one["unit"] for one in service.states(ann)] == ["dumbwaiter@ann.service"]


def test_a_service_that_is_tried_again_and_again_says_why(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"ActiveState": "activating", "SubState": "auto-restart", "UnitFileState": "enabled", "ExecMainPID": "4711"}
    monkeypatch.setattr(systemd.Target, "show", lambda *_: facts)
    monkeypatch.setattr(systemd, "LINGERING", home)
    (home / systemd.own_target().account).touch()
    said = {"_PID=4711": "dumbwaiter: there is no /dev/fuse here\n", "_PID=4712": "dumbwaiter is not mounted on /x\n"}

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        texts = [text for which, text in said.items() if which in words] or list(said.values())
        return subprocess.CompletedProcess(words, 0, texts[-1], "")

    monkeypatch.setattr(service, "booted", lambda: True)
    monkeypatch.setattr(service, "run", run)
    to = systemd.own_target()
    to.folder.mkdir(parents=True)
    unit = (units.units_folder() / to.file("dumbwaiter-mount")).read_text()
    (to.folder / to.file("dumbwaiter-mount")).write_text(unit.replace(units.PROGRAM, units._program()))
    unit = "dumbwaiter-mount.service"
    why = f"{unit} does not run (dumbwaiter: there is no /dev/fuse here): journalctl --user -u {unit}"
    assert service._state(to, "dumbwaiter-mount", None)["remedies"] == [why]


def test_no_name_begins_a_line_of_its_own_in_a_unit() -> None:
    """Whoever names a folder would else say what root is to start."""
    assert units.quoted("/home/ann/a b") == '"/home/ann/a b"'
    with pytest.raises(Failure, match="cannot stand in a unit"):
        units.quoted("/home/ann/x\nExecStartPre=+/home/ann/e")


@pytest.mark.parametrize(
    ("folder", "first"), [("a b%", '"{}/bin/dumbwaiter" run'), ("it's $1", '/usr/bin/env "{}/bin/dumbwaiter" run')]
)
def test_a_program_of_any_name_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, first: str
) -> None:
    program = tmp_path / folder / "bin/dumbwaiter"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    monkeypatch.setattr(sys, "executable", str(program.parent / "python"))
    escaped = str(tmp_path / folder).replace("%", "%%").replace("$", "$$")
    assert f"{units._program()} run" == first.format(escaped)


def test_a_program_that_no_unit_can_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "x$a=b/python"))
    with pytest.raises(Failure, match="cannot stand in a unit: install it where"):
        units._program()


def test_each_account_has_the_systems_credentials_that_are_its_own(home: Path) -> None:
    own = systemd.own_target()
    places = [units.credential(own._replace(system=True, account=name), "vod") for name in ("ann", "bob")]
    assert places == [Path("/etc/dumbwaiter/credentials/ann/vod"), Path("/etc/dumbwaiter/credentials/bob/vod")]


def test_a_credential_that_only_root_sees_is_not_missed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Path("/etc/dumbwaiter/credentials")
    looks = Path.stat

    def stat(path: Path, **options: bool) -> os.stat_result:
        if path.is_relative_to(closed):
            raise PermissionError
        return looks(path, **options)

    (home / ".config/dumbwaiter/credentials/vod").unlink()
    config = parse(CONFIG, f"{home}/config.toml")
    assert [finding.check for finding in secrets(config)] == ["secret of vod"]
    monkeypatch.setattr(Path, "stat", stat)
    assert [*secrets(config)] == []


def test_an_account_without_a_name_goes_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container may run a program: there is a user, and no line in /etc/passwd."""

    def nobody(_number: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(os, "getuid", lambda: 4_242_424)
    monkeypatch.delenv("SUDO_USER", raising=False)
    assert own_target().unit("dumbwaiter") == "dumbwaiter.service"
    assert own_target()._replace(system=True).unit("dumbwaiter") == "dumbwaiter@4242424.service"
    assert isinstance(_log(), str)
    with pytest.raises(Failure, match='there is no account "4242424" here: --for NAME'):
        target(True, None)
