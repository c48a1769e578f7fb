"""What keeps a service from being installed, or from running then: told with its remedy before anything is written."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from dumbwaiter.cli.session import Session
from dumbwaiter.cli.systemd import KINDS, Target, booted
from dumbwaiter.cli.units import at_home, changed_folders, credential
from dumbwaiter.cli.words import no_mount_point, unusable
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.places import SYSTEM_FOLDERS

if TYPE_CHECKING:
    from dumbwaiter.config import Config


def check_machine(to: Target) -> None:
    """Raises `Failure` where systemd does not run, or is not this user's to change."""
    if not booted():
        raise Failure(
            "systemd does not run this machine, so nothing was installed: have `dumbwaiter run` (and `dumbwaiter mount`) "
            "started by what runs programs here; --dry-run shows the units"
        )
    check_root(to)


def check_root(to: Target) -> None:
    if to.system and os.geteuid() != 0:
        raise Failure(f"a service of the system needs root: sudo dumbwaiter service … --system --for {to.account}")


def check_config(to: Target, config: "Config", file: str) -> None:
    """Raises `Failure` for what the service could not work with."""
    _check_secrets(to, config)
    changed = [path for watch in config.watch.values() for path in changed_folders(to, watch.path, watch.after)]
    for path in (file, *(watch.path for watch in config.watch.values()), *changed) if to.system else ():
        if f"{os.path.realpath(path)}/".startswith(("/tmp/", "/var/tmp/")):  # noqa: S108 - PrivateTmp=
            raise Failure(f"a service of the system has a /tmp of its own and does not see {path}: move it", Exit.USAGE)
    for name, watch in config.watch.items():
        if problem := unusable(file, name, watch.path):
            raise Failure(problem, Exit.USAGE)
        for path in changed_folders(to, watch.path, watch.after) if to.system else ():
            if not os.path.isdir(path):  # ReadWritePaths= leaves it out, and all around is read-only
                own = path.startswith(f"{to.home}/")
                make = f"-u {to.account} mkdir -p" if own else f"install -d -m 700 -o {to.account}"
                raise Failure(
                    f"{path} is not there, and the service cannot make it: sudo {make} {shlex.quote(path)}", Exit.USAGE
                )
    if config.mount.path and (problem := no_mount_point(file, config.mount.path)) is not None:
        raise Failure(problem, Exit.USAGE)


def check_other(session: Session, to: Target) -> None:
    """Raises `Failure` where the account has a service of the other kind, or a journal that the system's would not find."""
    other = to._replace(system=not to.system)
    theirs = Path(SYSTEM_FOLDERS["STATE"], "dumbwaiter", to.account)
    with at_home(to):
        starts = "multi-user.target.wants" if other.system else "default.target.wants"
        if os.path.lexists(other.folder / starts / other.unit(KINDS[0])):
            flags = f" --system --for {to.account}" if other.system else ""
            raise Failure(
                f"{to.account} has a service already, {other.unit(KINDS[0])}: dumbwaiter service uninstall{flags} first"
            )
        own = to.home / ".local/state/dumbwaiter"
        if to.system and "STATE" not in session.chosen and _has_journal(own) and not _has_journal(theirs):
            raise Failure(
                f"the journal of {to.account} is in {own}, where a service of the system does not look, so all would be "
                f"uploaded again: sudo mkdir -p {theirs.parent} && sudo mv -T {own} {theirs}"
            )


def _has_journal(state: Path) -> bool:
    return any(os.path.exists(state / name) for name in ("journal.db", "host"))


def _check_secrets(to: Target, config: "Config") -> None:
    from dumbwaiter.config.values import SecretSource

    for _, source in config.secrets():
        kind, name = source.place
        if kind == "env":
            raise source.failure(
                f'a service does not see the variable {name} of your shell: use {{ file = "…" }} or {{ credential = "…" }}'
            )
        if kind == "credential":
            path = credential(to, name)
            if not path.is_file():
                raise Failure(f'the secret "{name}" is missing: put it into {path} and chmod 600 it', Exit.USAGE)
            SecretSource("file", str(path)).read()  # raises what is wrong with it
