"""What stands in the unit files: those of the folder systemd/, and a drop-in beside each.

The wheel carries the files; only the program's place is filled in. What follows from this installation (credentials,
folders that are written to, other places) is the drop-in's.
"""

import os
import pwd
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dumbwaiter.cli.session import Session
from dumbwaiter.cli.systemd import KINDS, Target
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.naming import shown
from dumbwaiter.places import SYSTEM_CONFIG, SYSTEM_FOLDERS, xdg

if TYPE_CHECKING:
    from dumbwaiter.config import Config

PROGRAM = "/usr/local/bin/dumbwaiter"  # as the units name it


def units_folder() -> Path:
    """Returns the folder of the units: in the wheel beside the package, in a checkout at the top."""
    package = Path(__file__).parent.parent
    return next(path for path in (package / "systemd", package.parent.parent / "systemd") if path.is_dir())


@contextmanager
def at_home(to: Target) -> Iterator[None]:
    """Has "~" stand for the home of the account whose service it is: root installs it, and does not run it."""
    before = os.environ.get("HOME")
    if to.system:
        os.environ["HOME"] = str(to.home)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("HOME", None)
        else:
            os.environ["HOME"] = before


def config_file(session: Session, to: Target) -> str:
    """Returns the configuration that the service will read: its account's own, else the system's."""
    own = to.home / ".config/dumbwaiter/config.toml"
    if not to.system or "CONFIG" in session.chosen:
        return session.places.config
    return str(own) if own.exists() else SYSTEM_CONFIG


def unit_files(session: Session, to: Target, config: "Config") -> Iterator[tuple[Path, str]]:
    """Yields path and text of all that is to be installed. Raises `Failure` for a path that no unit can hold."""
    for kind in kinds(config):
        yield to.folder / to.file(kind), unit_text(to, kind)
        parts = {"[Unit]": [*_disks(session, to, config, kind)], "[Service]": [*_drop_in(session, to, config, kind)]}
        lines = [line for part, lines in parts.items() if lines for line in (part, *lines)]
        if lines:
            yield to.drop_in(kind), "\n".join([*lines, ""])


def unit_text(to: Target, kind: str) -> str:
    """Returns what the file of a unit holds in this version."""
    return (units_folder() / to.file(kind)).read_text().replace(PROGRAM, _program())


def kinds(config: "Config") -> tuple[str, ...]:
    """Returns which units the configuration asks for."""
    return KINDS if config.mount.path else KINDS[:1]


def _program() -> str:
    """Returns this program as ExecStart= names it."""
    own = os.path.join(os.path.dirname(sys.executable), "dumbwaiter")
    words = [own] if os.access(own, os.X_OK) else [sys.executable, "-P", "-m", "dumbwaiter"]
    if set(words[0]) & set("$'\"\\"):  # systemd takes the first word as it stands, or not at all
        if "=" in words[0]:
            raise Failure(f"{shown(words[0])} cannot stand in a unit: install it where no name has a =", Exit.USAGE)
        words.insert(0, "/usr/bin/env")
    return " ".join(quoted(word) for word in words)


def unquoted(word: str) -> str:
    """Returns the rest of a setting that systemd takes as it stands.

    Raises `Failure` for one that would begin a line of its own.
    """
    if any(ord(one) < 32 or ord(one) == 127 for one in word):
        raise Failure(f"{shown(word)} cannot stand in a unit: give it a name without control characters", Exit.USAGE)
    return word.replace("%", "%%")


def quoted(word: str) -> str:
    """Returns a word as a unit file holds it. Raises what `unquoted` raises."""
    word = unquoted(word).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{word}"' if any(one in word for one in " \t;'\"") else word


def _disks(session: Session, to: Target, config: "Config", kind: str) -> Iterator[str]:
    """Yields on which disks a unit waits for: the account's home may be mounted late, and what is below is another one."""
    if not to.system:
        return
    needed = [str(to.home), *(os.path.dirname(path) for place, path in session.chosen.items() if place == "CONFIG")]
    if kind != KINDS[0] and config.mount.path:
        needed.append(os.path.dirname(config.mount.path))  # the folder itself is a mount of systemd's once it is ours
    for path in dict.fromkeys(needed):
        yield f"RequiresMountsFor={_assigned('', path)}"


def _drop_in(session: Session, to: Target, config: "Config", kind: str) -> Iterator[str]:
    """Yields what this installation adds to how a unit is run."""
    for place, path in _places(session, to).items():
        yield f"Environment={_assigned(f'DUMBWAITER_{place}', path)}"
    if kind != "dumbwaiter":
        return
    for name in _credentials(config):
        yield f"LoadCredential={name}:{unquoted(str(credential(to, name)))}"
    if to.system:
        written = [path for place, path in session.chosen.items() if place != "CONFIG"]
        changed = [path for watch in config.watch.values() for path in changed_folders(to, watch.path, watch.after)]
        written += dict.fromkeys(f"-{_writable(to, path)}" for path in changed)
        for path in written:
            yield f"ReadWritePaths={_assigned('', path)}"


def _places(session: Session, to: Target) -> dict[str, str]:
    """Returns the places that the service would not find by itself: its manager need not know the shell's variables."""
    own = vars(session.places)
    by_shell = (
        {} if to.system else {kind: own[kind.lower()] for kind in ("CONFIG", "STATE", "CACHE") if xdg(f"{kind}_HOME")}
    )
    return by_shell | session.chosen


def changed_folders(to: Target, folder: str, after: str) -> list[str]:
    """Returns the folders that are written to when a watch's files are uploaded."""
    if after == "keep":
        return []
    if after.startswith("move:"):
        return [folder, after.removeprefix("move:")]
    if after == "trash":
        from dumbwaiter.files.trash import trash_for

        return [folder, trash_for(folder, _home_trash(to), pwd.getpwnam(to.account).pw_uid)]
    return [folder]


def _home_trash(to: Target) -> str:
    return str(to.home / ".local/share/Trash")


def _writable(to: Target, folder: str) -> str:
    """Returns what the service has to have for writing in a folder: all of a disk that could be unmounted.

    A folder of it would be mounted anew for the service, and would keep the disk there when everybody else sees it go.
    """
    from dumbwaiter.files.roots import mounted_at

    disk = mounted_at(os.path.realpath(folder))
    stays = (str(to.home), *SYSTEM_FOLDERS.values())
    return folder if any(f"{path}/".startswith(f"{disk.rstrip('/')}/") for path in stays) else disk


def _assigned(name: str, path: str) -> str:
    """Returns a path as a list in a unit file holds it; "$" means nothing there."""
    return quoted(f"{name}={path}" if name else path).replace("$$", "$")


def _credentials(config: "Config") -> list[str]:
    places = [source.place for _, source in config.secrets()]
    return sorted({name for kind, name in places if kind == "credential"})


def credential(to: Target, name: str) -> Path:
    """Returns the file whose content the service gets as a credential."""
    # The account names what it wants, so it gets of the machine's what is its own.
    folder = (
        Path("/etc/dumbwaiter/credentials", to.account) if to.system else to.home / ".config/dumbwaiter/credentials"
    )
    return folder / name


def lacks(session: Session, to: Target, kind: str) -> bool:
    """Says whether the configuration asks for a credential, a folder or a disk that a unit was not installed with."""
    from dumbwaiter.config.file import load

    try:
        with at_home(to):
            config = load(config_file(session, to))
            asked = {*_disks(session, to, config, kind), *_drop_in(session, to, config, kind)}
        there = to.drop_in(kind).read_text().splitlines() if to.drop_in(kind).exists() else []
        if any("DUMBWAITER_CONFIG=" in line for line in asked.symmetric_difference(there)):
            return False  # it has another configuration
    except (Failure, OSError):  # another user's, say
        return False
    # Places are as they were when it was installed, and a disk that is away now was there, with its trash.
    wide = tuple(line.replace('"', "") + "/" for line in there if line.startswith("ReadWritePaths="))
    if all(f"ReadWritePaths=-{one.path}".startswith(wide) for one in config.watch.values() if one.after == "trash"):
        asked.discard(f"ReadWritePaths={_assigned('', f'-{_home_trash(to)}')}")
    lacks = [line for line in asked.difference(there) if not line.replace('"', "").startswith(wide)]
    return any(line.startswith(("LoadCredential=", "ReadWritePaths=-", "RequiresMountsFor=")) for line in lacks)
