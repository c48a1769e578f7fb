"""systemd's managers, the system's and one's own: what our units are called there, and its tools."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from dumbwaiter.errors import Exit, Failure
from dumbwaiter.places import xdg

KINDS = ("dumbwaiter", "dumbwaiter-mount")
DROP_IN = "installed.conf"
LINGERING = Path("/var/lib/systemd/linger")
PATIENCE = 90.0  # seconds for a service to start or stop


class Target(NamedTuple):
    """Which service manager, and for whom."""

    system: bool
    account: str

    @property
    def folder(self) -> Path:
        if self.system:
            return Path("/etc/systemd/system")
        return Path(_config_home(), "systemd/user")

    @property
    def home(self) -> Path:
        return Path(pwd.getpwnam(self.account).pw_dir if self.system else os.path.expanduser("~"))

    def file(self, kind: str) -> str:
        """Returns the name of a unit's file; `kind` is "dumbwaiter" or "dumbwaiter-mount"."""
        return f"{kind}@.service" if self.system else f"{kind}.service"

    def unit(self, kind: str) -> str:
        """Returns the name by which systemd runs it."""
        return f"{kind}@{self.account}.service" if self.system else f"{kind}.service"

    def drop_in(self, kind: str) -> Path:
        return self.folder / f"{self.unit(kind)}.d" / DROP_IN

    def systemctl(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return run("systemctl", *([] if self.system else ["--user"]), *words)

    def show(self, unit: str) -> dict[str, str]:
        """Returns what the manager says of a unit; nothing when it does not answer."""
        names = "LoadState,ActiveState,SubState,UnitFileState,StatusText,Result,ExecMainStatus,ExecMainPID,MainPID"
        lines = self.systemctl("show", unit, f"--property={names}").stdout.splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    @property
    def lingers(self) -> bool:
        return (LINGERING / self.account).exists()


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    """Runs one of systemd's tools, with the user's own manager in reach also from cron and `su`."""
    environment = dict(os.environ, LC_ALL="C", SYSTEMD_PAGER="", SYSTEMD_COLORS="0")
    session = f"/run/user/{os.getuid()}"
    if "XDG_RUNTIME_DIR" not in environment and os.path.isdir(session):
        environment["XDG_RUNTIME_DIR"] = session
    try:
        return subprocess.run(
            words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=PATIENCE,
        )  # fmt: skip
    except FileNotFoundError:
        return subprocess.CompletedProcess(words, 127, "", f"there is no program {words[0]} here")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 124, "", f"{words[0]} does not answer")


def booted() -> bool:
    """Says whether systemd runs this machine."""
    return os.path.isdir("/run/systemd/system") and shutil.which("systemctl") is not None


def _config_home() -> str:
    """Returns where the user's manager looks for units: its variables need not be the shell's."""
    shell = xdg("CONFIG_HOME")
    told = run("systemctl", "--user", "show-environment") if shell and booted() else None
    if told is not None and told.returncode == 0:
        lines = told.stdout.splitlines()
        shell = next((line.partition("=")[2] for line in lines if line.startswith("XDG_CONFIG_HOME=/")), None)
    return shell or os.path.expanduser("~/.config")


def target(system: bool, account: str | None) -> Target:
    """Returns the target that a command means. Raises `Failure` for an account that cannot have a service."""
    if not system:
        if account is not None:
            raise Failure("--for goes with --system; without it the service is your own", Exit.USAGE)
        return own_target()
    account = account or os.environ.get("SUDO_USER") or _own_account()
    try:
        pwd.getpwnam(account)
    except KeyError:
        raise Failure(
            f'there is no account "{account}" here: --for NAME says whose folders are watched', Exit.USAGE
        ) from None
    if not account.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise Failure(f'systemd cannot name a service after "{account}"', Exit.USAGE)
    return Target(True, account)


def own_target() -> Target:
    """Returns the target for the account that asks."""
    return Target(False, _own_account())


def _own_account() -> str:
    """Returns the name of the account that asks; in a container it may have none but its number."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
