"""The units, run by a systemd of their own: what is installed runs, uploads, comes back, and goes without a trace."""

import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from machine import ACCOUNT, GUEST, UID, Machine, missing
from program import PATIENCE, Vendors, digest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.xdist_group("machine"),
]

UPLOADER, MOUNT = f"dumbwaiter@{ACCOUNT}.service", f"dumbwaiter-mount@{ACCOUNT}.service"


class World:
    """A machine, the vendors outside of it, and a configuration inside."""

    def __init__(self, folder: Path) -> None:
        self.shared = folder / "shared"
        self.shared.mkdir(parents=True)
        (folder / "scratch").mkdir()
        self.data = self.shared / "vendors"
        self.vendors = Vendors(self.data)
        try:
            self.machine = Machine(self.shared, folder / "scratch")
        except BaseException:
            self.vendors.close()
            raise
        self.drop = self.data / "drop/netease"
        self.mount = f"{GUEST}/mount"
        (self.shared / "mount").mkdir()
        self.secret: str = self.vendors.sandbox.accounts["netease"]["app_secret"]
        self.own()
        self.config = f"/home/{ACCOUNT}/.config/dumbwaiter/config.toml"
        self.configure(f'app_secret = "{self.secret}"')

    def own(self) -> None:
        self.shared.chmod(0o755)
        for path in (self.drop, self.shared / "mount", *self.drop.rglob("*")):
            os.chown(path, UID, UID)

    def configure(self, secret: str) -> None:
        """Writes the configuration for one provider, with its secret said in that way."""
        made = tomllib.loads((self.data / "config.toml").read_text())["provider"]["netease"]
        keys = "\n".join(f"{key} = {json.dumps(value)}" for key, value in made.items() if key != "app_secret")
        text = (
            f"[provider.vod]\n{keys}\n{secret}\n[watch.masters]\npath = '{GUEST}/vendors/drop/netease'\n"
            f"provider = 'vod'\nsettle = '100ms'\n[mount]\npath = '{self.mount}'\n"
        )
        self.write(self.config, text)

    def write(self, path: str, text: str, account: str = ACCOUNT) -> None:
        """Writes a private file inside, with its folders."""
        (self.shared / "aside").write_text(text)
        owner = [] if account == "root" else ["-o", account, "-g", account]
        parents = f"install -d -m 700 {' '.join(owner)}"
        folders = " ".join(str(one) for one in reversed(Path(path).parents) if len(one.parts) > 3)
        if folders:
            make = f"for one in {folders}; do test -d $one || {parents} $one; done"  # what is there keeps its mode
            self.machine("sh", "-c", make, check=True)
        self.machine("install", "-D", "-m", "600", *owner, f"{GUEST}/aside", path, check=True)

    def upload(self, name: str, content: bytes) -> None:
        """Drops a file and waits until the vendor has it."""
        aside = self.data / "drop" / name
        aside.write_bytes(content)
        os.chown(aside, UID, UID)
        aside.rename(self.drop / name)
        objects = self.data / "objects"
        self.machine.until(
            lambda: digest(content) in {digest(one.read_bytes()) for one in objects.rglob("*") if one.is_file()}
        )

    def read(self, name: str, content: str) -> None:
        """Waits until the mount, as everybody sees it, has the file."""
        path = f"{self.mount}/files/masters/{name}"
        self.machine.until(lambda: self.machine("cat", path, account=ACCOUNT).stdout == content)

    def close(self) -> None:
        self.machine.close()
        self.vendors.close()


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("machine"))
    yield made
    made.close()


@pytest.fixture
def world(booted: World) -> Iterator[World]:
    """The machine, with no service installed before and after."""
    yield booted
    booted.machine.dumbwaiter("service", "uninstall", account=ACCOUNT)
    booted.machine.dumbwaiter("service", "uninstall", "--system", "--for", ACCOUNT)
    booted.machine("loginctl", "disable-linger", ACCOUNT)
    booted.machine("rm", "-rf", f"/home/{ACCOUNT}/.local/state/dumbwaiter")
    booted.machine("rm", "-rf", f"/var/lib/dumbwaiter/{ACCOUNT}", f"/var/cache/dumbwaiter/{ACCOUNT}")
    booted.configure(f'app_secret = "{booted.secret}"')
    for path in booted.drop.iterdir():
        path.unlink()


def left_behind(machine: Machine) -> str:
    """Returns every file, link and folder of a unit that is there."""
    places = f"/etc/systemd/system /home/{ACCOUNT}/.config/systemd /root/.config/systemd /var/lib/systemd/linger"
    return machine(
        "sh", "-c", f"find {places} -name '*dumbwaiter*' -not -path '*@.service.d*' -o -path '*/linger/*'"
    ).stdout


def facts(world: World, *words: str, account: str = ACCOUNT) -> Any:
    return json.loads(world.machine.dumbwaiter("--json", *words, account=account).stdout)


def test_a_service_of_ones_own_uploads_and_goes_without_a_trace(world: World) -> None:
    machine = world.machine
    machine("loginctl", "enable-linger", ACCOUNT, check=True)
    machine.until(
        lambda: machine("systemctl", "--user", "is-system-running", account=ACCOUNT).stdout.strip() == "running"
    )
    done = machine.dumbwaiter("service", "install", account=ACCOUNT)
    assert done.returncode == 0, (done.stderr, machine.log())
    assert f"wrote /home/{ACCOUNT}/.config/systemd/user/dumbwaiter.service" in done.stdout
    assert "!" not in done.stdout  # systemd-analyze verify had nothing to say
    world.upload("own.bin", b"a service of one's own")
    assert facts(world, "status")["running"]
    states = facts(world, "service", "status")
    assert [one["state"] for one in states["units"]] == ["active", "active"]
    assert [one["remedies"] for one in states["units"]] == [[], []]
    machine.until(lambda: "nothing to do" in machine.show("dumbwaiter", "StatusText", "--user", account=ACCOUNT))
    world.read("own.bin", "a service of one's own")
    again = machine.dumbwaiter("service", "install", account=ACCOUNT, check=True)
    assert "wrote" not in again.stdout
    gone = machine.dumbwaiter("service", "uninstall", account=ACCOUNT, check=True)
    assert "stopped and disabled dumbwaiter.service" in gone.stdout
    assert left_behind(machine) == f"/var/lib/systemd/linger/{ACCOUNT}\n"  # that was there before
    assert machine("findmnt", world.mount).stdout == ""
    assert machine.dumbwaiter("service", "status", account=ACCOUNT).returncode == 1


def test_a_service_switches_linger_on_and_off_again(world: World) -> None:
    """As root, who may do it without asking."""
    machine = world.machine
    machine("install", "-D", "-m", "600", world.config, "/root/.config/dumbwaiter/config.toml", check=True)
    machine.dumbwaiter("service", "install", check=True)
    assert "/var/lib/systemd/linger/root" in left_behind(machine)
    assert machine.dumbwaiter("service", "status").returncode == 0
    gone = machine.dumbwaiter("service", "uninstall", check=True)
    assert "linger switched off for root" in gone.stdout
    assert left_behind(machine) == ""


def test_the_systems_service_takes_credentials_and_is_found_by_its_user(world: World) -> None:
    machine = world.machine
    world.configure('app_secret = { credential = "vod" }')
    refused = machine.dumbwaiter("service", "install", "--system", "--for", ACCOUNT)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    world.write(f"/etc/dumbwaiter/credentials/{ACCOUNT}/vod", world.secret, "root")
    machine.dumbwaiter("service", "install", "--system", "--for", ACCOUNT, check=True)
    world.upload("system.bin", b"a service of the system")
    status = facts(world, "status")
    assert status["running"]
    assert status["totals"]["done"] == 1
    found = json.loads(machine.dumbwaiter("--json", "doctor", account=ACCOUNT).stdout)["checks"]
    assert [one for one in found if one["level"] != "ok" and one["check"].startswith("secret")] == []
    main = int(machine.show(UPLOADER, "MainPID"))
    assert machine.show(UPLOADER, "User") == ACCOUNT
    # In its own view of the disk nothing of the home can be written; the mount is in everybody's view.
    inside = ["nsenter", f"--target={main}", "--mount"]
    assert machine(*inside, "touch", f"/home/{ACCOUNT}/x").returncode == 1
    assert (
        machine("cat", f"{world.mount}/files/masters/system.bin", account=ACCOUNT).stdout == "a service of the system"
    )
    modes = machine("stat", "-c", "%a %U", f"/var/lib/dumbwaiter/{ACCOUNT}", f"/run/dumbwaiter/{ACCOUNT}").stdout
    assert modes == f"700 {ACCOUNT}\n" * 2
    gone = machine.dumbwaiter("service", "uninstall", "--system", "--for", ACCOUNT, check=True)
    assert f"removed /etc/systemd/system/{UPLOADER}.d/installed.conf" in gone.stdout
    assert left_behind(machine) == ""


def test_a_disk_whose_files_go_after_the_upload_can_be_unmounted_and_comes_back(world: World) -> None:
    machine, disk = world.machine, "/mnt/a disk"
    text = Path(world.shared / "aside").read_text().replace(f"{GUEST}/vendors/drop/netease", f"{disk}/in")
    world.write(world.config, text.replace("settle", "after = 'trash'\nsettle"))
    attach = f"mount -t tmpfs tmpfs '{disk}' && install -d -o {ACCOUNT} '{disk}/in' '{disk}/.Trash-{UID}'"
    machine("sh", "-c", f"mkdir '{disk}' && {attach}", check=True)
    machine.dumbwaiter("service", "install", "--system", "--for", ACCOUNT, check=True)
    seen = ["nsenter", f"--target={machine.show(UPLOADER, 'MainPID')}", "--mount", "grep", "-c", "/mnt/a.*disk"]
    for drop in (b"first", b"second"):
        machine(
            "setpriv", f"--reuid={UID}", "sh", "-c", f"echo {drop.decode()} > '{disk}/in/{drop.decode()}'", check=True
        )
        machine.until(lambda: machine("ls", f"{disk}/in").stdout == "")  # uploaded and in the trash
        machine("umount", disk, check=True)
        assert machine(*seen, "/proc/self/mounts").stdout == "0\n"
        machine.until(lambda: "away" in facts(world, "status")["watches"][0]["state"])
        assert facts(world, "service", "status", "--system", "--for", ACCOUNT)["units"][0]["remedies"] == []
        machine("sh", "-c", attach, check=True)
    machine("umount", disk, check=True)
    machine("systemctl", "restart", UPLOADER, check=True)  # as a machine starts without its disk
    machine("sh", "-c", attach, check=True)
    machine("setpriv", f"--reuid={UID}", "sh", "-c", f"echo third > '{disk}/in/third'", check=True)
    machine.until(lambda: machine("ls", f"{disk}/in").stdout == "")


def test_a_home_that_is_mounted_late_is_waited_for(world: World) -> None:
    machine, home = world.machine, f"/home/{ACCOUNT}"
    machine.dumbwaiter("service", "install", "--system", "--for", ACCOUNT, check=True)
    machine("systemctl", "stop", MOUNT, UPLOADER, check=True)
    machine("sh", "-c", f"mv {home} /home/disk && install -d -o {ACCOUNT} {home}", check=True)
    slow = f"[Unit]\nDescription=A disk\n[Mount]\nWhat=/home/disk\nWhere={home}\nType=none\nOptions=bind\n"
    world.write(f"/etc/systemd/system/home-{ACCOUNT}.mount", slow, "root")
    machine("systemctl", "daemon-reload", check=True)
    machine("systemctl", "start", MOUNT, UPLOADER, check=True)
    assert machine.show(f"home-{ACCOUNT}.mount", "ActiveState") == "active"
    world.upload("late.bin", b"after its home")
    machine("systemctl", "stop", MOUNT, UPLOADER, f"home-{ACCOUNT}.mount", check=True)
    machine("sh", "-c", f"rm /etc/systemd/system/home-{ACCOUNT}.mount; rmdir {home}; mv /home/disk {home}", check=True)
    machine("systemctl", "daemon-reload", check=True)


def test_from_ones_own_service_to_the_systems_the_journal_goes_along(world: World) -> None:
    machine = world.machine
    machine("loginctl", "enable-linger", ACCOUNT, check=True)
    machine.until(lambda: machine("systemctl", "--user", "is-system-running", account=ACCOUNT).stdout == "running\n")
    install = ("service", "install", "--system", "--for", ACCOUNT)
    machine.dumbwaiter("service", "install", account=ACCOUNT, check=True)
    world.upload("own.bin", b"uploaded by a service of one's own")
    assert facts(world, "wait")["done"] == 1
    refused = machine.dumbwaiter(*install)
    assert (refused.returncode, "dumbwaiter service uninstall first" in refused.stderr) == (1, True)
    machine.dumbwaiter("service", "uninstall", account=ACCOUNT, check=True)
    refused = machine.dumbwaiter(*install)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    remedy = refused.stderr.partition("uploaded again: ")[2].replace("sudo ", "")
    machine("sh", "-c", remedy, check=True)
    machine.dumbwaiter(*install, check=True)
    world.upload("system.bin", b"uploaded by the system's")
    assert facts(world, "wait")["done"] == 2
    again = machine.dumbwaiter("service", "install", account=ACCOUNT)
    assert (again.returncode, f"uninstall --system --for {ACCOUNT} first" in again.stderr) == (1, True), again.stderr


def test_what_is_killed_or_hangs_comes_back_and_a_dead_mount_is_cleared(world: World) -> None:
    machine = world.machine
    world.write(
        "/etc/systemd/system/dumbwaiter@.service.d/test.conf", "[Service]\nWatchdogSec=3\nRestartSec=0\n", "root"
    )
    world.write("/etc/systemd/system/dumbwaiter-mount@.service.d/test.conf", "[Service]\nRestartSec=0\n", "root")
    machine.dumbwaiter("service", "install", "--system", "--for", ACCOUNT, check=True)
    for number, unit in ((9, UPLOADER), (9, MOUNT), (19, UPLOADER)):  # killed; stopped, as a wedged loop is
        before, restarts = machine.show(unit, "MainPID"), int(machine.show(unit, "NRestarts"))
        machine("kill", f"-{number}", before, check=True)
        machine.until(
            lambda unit=unit, restarts=restarts: (
                machine.show(unit, "NRestarts") == str(restarts + 1) and machine.show(unit, "ActiveState") == "active"
            )
        )
        assert machine.show(unit, "MainPID") != before
    world.upload("after.bin", b"after all that")
    world.read("after.bin", "after all that")
    machine("sh", "-c", "rm /etc/systemd/system/dumbwaiter*@.service.d/test.conf", check=True)


def test_the_systems_service_mounts_in_a_home_that_is_closed_to_others(world: World) -> None:
    machine, folder = world.machine, f"/home/{ACCOUNT}/Uploads"
    assert machine("stat", "-c", "%a", f"/home/{ACCOUNT}").stdout == "700\n"
    machine("install", "-d", "-m", "700", folder, account=ACCOUNT, check=True)
    text = Path(world.shared / "aside").read_text()
    world.write(world.config, text.replace(world.mount, folder))
    machine.dumbwaiter("service", "install", "--system", "--for", ACCOUNT, check=True)
    assert machine("findmnt", "-n", "-o", "FSTYPE", folder, account=ACCOUNT).stdout == "fuse.dumbwaiter\n"
    machine("systemctl", "kill", "--signal=KILL", MOUNT, check=True)
    machine.until(lambda: machine.show(MOUNT, "NRestarts") == "1" and machine.show(MOUNT, "ActiveState") == "active")
    assert machine("ls", folder, account=ACCOUNT).stdout == "files\nkeys\noutbox\n"
    machine.dumbwaiter("service", "uninstall", "--system", "--for", ACCOUNT, check=True)
    assert machine("findmnt", folder).stdout == ""


def test_what_a_mount_cannot_have_is_said(world: World) -> None:
    machine = world.machine
    text = Path(world.shared / "aside").read_text()
    world.write(world.config, f"{text}allow_other = true\n")
    machine("sh", "-c", "mv /etc/fuse.conf /etc/fuse.conf.away")
    refused = machine.dumbwaiter("service", "install", "--system", "--for", ACCOUNT)
    assert (refused.returncode, "user_allow_other in /etc/fuse.conf" in refused.stderr) == (1, True), refused.stderr
    machine.until(lambda: machine.show(MOUNT, "SubState") == "auto-restart")
    assert (
        "user_allow_other"
        in facts(world, "service", "status", "--system", "--for", ACCOUNT, account="root")["units"][1]["remedies"][0]
    )
    world.write("/etc/fuse.conf", "user_allow_other\n", "root")
    machine("chmod", "644", "/etc/fuse.conf", check=True)
    machine.until(lambda: machine.show(MOUNT, "ActiveState") == "active")


def test_a_wrong_configuration_is_said_and_not_tried_again(world: World) -> None:
    machine = world.machine
    machine.dumbwaiter("service", "install", "--system", "--for", ACCOUNT, check=True)
    world.write(world.config, "[watch.x]\n")
    machine("systemctl", "restart", UPLOADER)
    machine.until(lambda: machine.show(UPLOADER, "ActiveState") == "failed", PATIENCE)
    assert machine.show(UPLOADER, "ExecMainStatus") == "2"
    assert machine.show(UPLOADER, "NRestarts") == "0"
    grave = machine("journalctl", "-u", UPLOADER, "-p", "err", "-o", "cat").stdout.splitlines()
    assert [line for line in grave if line.startswith("dumbwaiter: ")]
    done = machine.dumbwaiter("service", "status", "--system", "--for", ACCOUNT)
    assert done.returncode == 1
    assert "dumbwaiter check" in done.stdout
