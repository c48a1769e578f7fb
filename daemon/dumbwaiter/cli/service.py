"""The systemd units: install, uninstall, status.

The units are the files of the folder systemd/, which the wheel carries; only the program's place is filled in. What
follows from this installation (credentials, folders that are written to, other places) stands in a drop-in beside
them. Every step is told, and `uninstall` takes back each of them.
"""

import os
import pwd
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dumbwaiter.cli.session import Session, json_option, not_empty
from dumbwaiter.cli.systemd import KINDS, Target, booted, run, target
from dumbwaiter.cli.words import last_line, no_mount_point, unusable
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.naming import legible, shown
from dumbwaiter.places import SYSTEM_CONFIG, SYSTEM_FOLDERS, xdg

if TYPE_CHECKING:
    from dumbwaiter.config import Config

PROGRAM = "/usr/local/bin/dumbwaiter"  # as the units name it
LINGER = "# linger was switched on by this installation\n"
START = 25  # looks, five a second, for a service manager that starts


def units_folder() -> Path:
    """Returns the folder of the units: in the wheel beside the package, in a checkout at the top."""
    package = Path(__file__).parent.parent
    return next(path for path in (package / "systemd", package.parent.parent / "systemd") if path.is_dir())


_system = click.option("--system", is_flag=True, help="A service of the system instead of your own; needs root.")
_for = click.option(
    "--for",
    "account",
    metavar="USER",
    callback=not_empty,
    help="With --system: as whom it runs; default: who called sudo.",
)
_dry_run = click.option("--dry-run", is_flag=True, help="Only show what would be done.")


@click.group()
def service() -> None:
    """Installs dumbwaiter as a service that systemd starts, watches and restarts.

    \b
    dumbwaiter service install                          your own, running also when you are not logged in
    sudo dumbwaiter service install --system --for ann  the system's, tighter, for Ann's folders
    dumbwaiter service status
    """


@service.command()
@_system
@_for
@_dry_run
@json_option
@click.pass_obj
def install(session: Session, account: str | None, *, system: bool, dry_run: bool) -> None:
    """Writes the units, enables and starts them, and says every step."""
    from dumbwaiter.config_file import load

    to = target(system, account)
    file = _config_file(session, to)
    with _at_home(to):
        config = load(file)
    files = dict(_files(session, to, config))
    if dry_run:
        if session.json:
            session.facts({str(path): text for path, text in files.items()})
        else:
            for path, text in files.items():
                print(f"# {path}\n{text}")
        try:
            _check_other(session, to)
            _check_config(to, config, file)
        except Failure as failure:
            session.say(f"dumbwaiter: this would not be installed: {failure}")
        return
    _check(to, config, file)
    _check_other(session, to)
    did = list(_install(session, to, config, files))
    if session.json:
        session.facts({"did": did, "units": states(to)})


@contextmanager
def _at_home(to: Target) -> Iterator[None]:
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


def _config_file(session: Session, to: Target) -> str:
    """Returns the configuration that the service will read: its account's own, else the system's."""
    own = to.home / ".config/dumbwaiter/config.toml"
    if not to.system or "CONFIG" in session.chosen:
        return session.places.config
    return str(own) if own.exists() else SYSTEM_CONFIG


def _files(session: Session, to: Target, config: "Config") -> Iterator[tuple[Path, str]]:
    for kind in _kinds(config):
        text = (units_folder() / to.file(kind)).read_text()
        yield to.folder / to.file(kind), text.replace(PROGRAM, _program())
        parts = {"[Unit]": [*_disks(session, to, config, kind)], "[Service]": [*_drop_in(session, to, config, kind)]}
        lines = [line for part, lines in parts.items() if lines for line in (part, *lines)]
        if lines:
            yield to.drop_in(kind), "\n".join([*lines, ""])


def _kinds(config: "Config") -> tuple[str, ...]:
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
        changed = [path for watch in config.watch.values() for path in _changed(to, watch.path, watch.after)]
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


def _changed(to: Target, folder: str, after: str) -> list[str]:
    """Returns the folders that are written to when a watch's files are uploaded."""
    if after == "keep":
        return []
    if after.startswith("move:"):
        return [folder, after.removeprefix("move:")]
    if after == "trash":
        from dumbwaiter.trash import trash_for

        return [folder, trash_for(folder, _home_trash(to), pwd.getpwnam(to.account).pw_uid)]
    return [folder]


def _home_trash(to: Target) -> str:
    return str(to.home / ".local/share/Trash")


def _writable(to: Target, folder: str) -> str:
    """Returns what the service has to have for writing in a folder: all of a disk that could be unmounted.

    A folder of it would be mounted anew for the service, and would keep the disk there when everybody else sees it go.
    """
    from dumbwaiter.roots import mounted_at

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


def _check(to: Target, config: "Config", file: str) -> None:
    """Raises `Failure` with the remedy for what would keep the service from running."""
    if not booted():
        raise Failure(
            "systemd does not run this machine, so nothing was installed: have `dumbwaiter run` (and `dumbwaiter mount`) "
            "started by what runs programs here; --dry-run shows the units"
        )
    _check_root(to)
    _check_config(to, config, file)


def _check_config(to: Target, config: "Config", file: str) -> None:
    """Raises `Failure` for what the service could not work with."""
    _check_secrets(to, config)
    changed = [path for watch in config.watch.values() for path in _changed(to, watch.path, watch.after)]
    for path in (file, *(watch.path for watch in config.watch.values()), *changed) if to.system else ():
        if f"{os.path.realpath(path)}/".startswith(("/tmp/", "/var/tmp/")):  # noqa: S108 - PrivateTmp=
            raise Failure(f"a service of the system has a /tmp of its own and does not see {path}: move it", Exit.USAGE)
    for name, watch in config.watch.items():
        if problem := unusable(file, name, watch.path):
            raise Failure(problem, Exit.USAGE)
        for path in _changed(to, watch.path, watch.after) if to.system else ():
            if not os.path.isdir(path):  # ReadWritePaths= leaves it out, and all around is read-only
                own = path.startswith(f"{to.home}/")
                make = f"-u {to.account} mkdir -p" if own else f"install -d -m 700 -o {to.account}"
                raise Failure(
                    f"{path} is not there, and the service cannot make it: sudo {make} {shlex.quote(path)}", Exit.USAGE
                )
    if config.mount.path and (problem := no_mount_point(file, config.mount.path)) is not None:
        raise Failure(problem, Exit.USAGE)


def _check_other(session: Session, to: Target) -> None:
    """Raises `Failure` where the account has a service of the other kind, or a journal that the system's would not find."""
    other = to._replace(system=not to.system)
    theirs = Path(SYSTEM_FOLDERS["STATE"], "dumbwaiter", to.account)
    with _at_home(to):
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
    from dumbwaiter.config_values import SecretSource

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


def _check_root(to: Target) -> None:
    if to.system and os.geteuid() != 0:
        raise Failure(f"a service of the system needs root: sudo dumbwaiter service … --system --for {to.account}")


def _install(session: Session, to: Target, config: "Config", files: Mapping[Path, str]) -> Iterator[str]:
    lingered = to.lingers
    try:
        yield from _steps(session, to, config, files)
    except BaseException:
        if not to.system and not lingered and to.lingers and not _linger_is_ours(to):
            run("loginctl", "disable-linger", to.account)  # nothing stands anywhere that says whose it is
        raise


def _steps(session: Session, to: Target, config: "Config", files: Mapping[Path, str]) -> Iterator[str]:
    def did(what: str) -> str:
        if not session.json:
            print(legible(what), flush=True)
        return what

    linger = _linger_is_ours(to)
    if not to.system and not to.lingers:
        linger = run("loginctl", "enable-linger", to.account).returncode == 0
        if linger:
            yield did(f"linger switched on: the service also runs while {to.account} is not logged in")
        else:
            yield did(f"! it stops when {to.account} logs out: sudo loginctl enable-linger {to.account}")
    _check_manager(to)
    for kind in set(KINDS) - set(_kinds(config)):
        for what in _taken_away(to, kind, dry_run=False):
            yield did(what)
    if linger:
        files = {to.drop_in(KINDS[0]): "", **files}
        files[to.drop_in(KINDS[0])] = LINGER + files[to.drop_in(KINDS[0])]
    for path, text in files.items():
        if write(path, text):
            yield did(f"wrote {path}")
    _must(to, "daemon-reload")  # it has to read what was written
    yield from map(did, _verified(to, files))
    for kind in _kinds(config):
        unit = to.unit(kind)
        _must(to, "enable", unit)
        started = to.systemctl("restart", unit)
        if started.returncode != 0:
            raise Failure(_why(to, unit))
        facts = to.show(unit)
        yield did(f"enabled and started {unit}: {facts.get('StatusText') or facts.get('ActiveState')}")


def _linger_is_ours(to: Target) -> bool:
    try:
        return to.drop_in(KINDS[0]).read_text().startswith(LINGER)
    except OSError:
        return False


def _check_manager(to: Target) -> None:
    """Waits until the service manager answers: right after linger was switched on it is about to start."""
    for _ in range(START):
        done = to.systemctl("daemon-reload")
        if done.returncode == 0:
            return
        time.sleep(0.2)
    raise Failure(
        f"the service manager of {to.account} does not answer ({last_line(done.stderr)}): log in as {to.account} itself, "
        "or use --system"
    )


def write(path: Path, text: str) -> bool:
    """Writes a file whole or not at all; returns False when it was like that already."""
    if path.is_file() and path.read_text() == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text)
    aside.chmod(0o644)
    aside.replace(path)
    return True


def _must(to: Target, *words: str) -> None:
    done = to.systemctl(*words)
    if done.returncode != 0:
        raise Failure(f"systemctl {' '.join(words)} failed: {last_line(done.stderr)}")


def _verified(to: Target, files: Mapping[Path, str]) -> Iterator[str]:
    """Has systemd read the units; yields what it finds wrong."""
    units = [str(path) for path in files if path.suffix == ".service"]
    done = run("systemd-analyze", "verify", *([] if to.system else ["--user"]), *units)
    for line in done.stderr.splitlines():
        if "dumbwaiter" in line:
            yield f"! {line}"


def _why(to: Target, unit: str) -> str:
    """Returns why a unit does not run, and what to do, in one sentence."""
    scope = [] if to.system else ["--user"]
    sudo = ["sudo"] if to.system and os.geteuid() != 0 else []
    log = " ".join([*sudo, "journalctl", *scope, "-u", unit])
    facts = to.show(unit)
    if facts.get("ExecMainStatus") == str(int(Exit.USAGE)):
        log = "dumbwaiter check says what is wrong with the configuration, or " + log
    # Of the program itself: what clears away after it has a word of its own.
    of = [f"--unit={unit}", f"_PID={facts.get('ExecMainPID', 0)}"]
    said = last_line(run("journalctl", *scope, *of, "-o", "cat", "-n", "1").stdout)
    return f"{unit} does not run ({said}): {log}"


@service.command()
@_system
@_for
@_dry_run
@json_option
@click.pass_obj
def uninstall(session: Session, account: str | None, *, system: bool, dry_run: bool) -> None:
    """Stops the services and takes away all that `install` wrote. The journal stays: it knows what was uploaded."""
    to = target(system, account)
    if not dry_run:
        _check_root(to)
    did = []
    for what in _uninstall(to, dry_run=dry_run):
        did.append(what)
        if not session.json:
            print(legible(what), flush=True)
    if session.json:
        session.facts({"did": did})
    elif not did:
        session.say("no service is installed")


def _uninstall(to: Target, *, dry_run: bool) -> Iterator[str]:
    linger = _linger_is_ours(to)
    for kind in reversed(KINDS):
        yield from _taken_away(to, kind, dry_run=dry_run)
    if booted() and not dry_run:
        to.systemctl("daemon-reload")
    if linger:
        yield f"linger switched off for {to.account}, as it was before"
        if not dry_run:
            run("loginctl", "disable-linger", to.account)


def _taken_away(to: Target, kind: str, *, dry_run: bool) -> Iterator[str]:
    unit = to.unit(kind)
    if booted() and to.show(unit).get("UnitFileState", "") not in {"", "disabled"}:
        yield f"stopped and disabled {unit}"
        if not dry_run:
            _must(to, "disable", "--now", unit)
            to.systemctl("reset-failed", unit)
    yield from _removed(to, kind, dry_run=dry_run)


def _removed(to: Target, kind: str, *, dry_run: bool) -> Iterator[str]:
    drop_in = to.drop_in(kind)
    unit = to.folder / to.file(kind)
    others = [path for path in to.folder.glob(f"*.wants/{kind}@*.service") if path.name != to.unit(kind)]
    for path in (drop_in, *([] if others else [unit])):
        if path.exists():
            yield f"removed {path}"
            if not dry_run:
                path.unlink()
    if not dry_run and drop_in.parent.is_dir() and not any(drop_in.parent.iterdir()):
        drop_in.parent.rmdir()


@service.command()
@_system
@_for
@json_option
@click.pass_obj
def status(session: Session, account: str | None, *, system: bool) -> None:
    """Tells how the services are. Exit code 1 when one that is installed does not run, or none is installed."""
    to = target(system, account)
    found = states(to, session)
    if session.json:
        session.facts({"systemd": booted(), "linger": to.lingers, "units": found})
    for one in () if session.json else found:
        print(f"{one['unit']}: {one['state']}{', ' + legible(one['says']) if one['says'] else ''}")
        for remedy in one["remedies"]:
            print(f"  ! {legible(remedy)}")
    if not found:
        flags = f" --system --for {to.account}" if to.system else ""
        raise Failure(f"no service is installed: dumbwaiter service install{flags}")
    if any(one["state"] != "active" for one in found):
        raise click.exceptions.Exit(Exit.FAILED)


def states(to: Target, session: Session | None = None) -> list[dict[str, Any]]:
    """Returns how the installed units are, in a `session` also whether they do for its configuration."""
    return [_state(to, kind, session) for kind in KINDS if _is_installed(to, kind)]


def _is_installed(to: Target, kind: str) -> bool:
    """Says whether a unit is installed. All accounts share the system's file; what is an account's own lies beside it."""
    own = [to.drop_in(kind), *to.folder.glob(f"*.wants/{to.unit(kind)}")] if to.system else [to.folder / to.file(kind)]
    return (to.folder / to.file(kind)).exists() and any(map(os.path.lexists, own))


def _lacks(session: Session, to: Target, kind: str) -> bool:
    """Says whether the configuration asks for a credential, a folder or a disk that a unit was not installed with."""
    from dumbwaiter.config_file import load

    try:
        with _at_home(to):
            config = load(_config_file(session, to))
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


def _state(to: Target, kind: str, session: Session | None) -> dict[str, Any]:
    """Returns how a unit is that is installed, and what should be done about it."""
    unit = to.unit(kind)
    facts = to.show(unit) if booted() else {}
    remedies = []
    installed = (to.folder / to.file(kind)).read_text()
    again = f"dumbwaiter service install{' --system --for ' + to.account if to.system else ''}"
    if installed != (units_folder() / to.file(kind)).read_text().replace(PROGRAM, _program()):
        remedies.append(f"the unit is not this version's: {again}")
    elif session is not None and _lacks(session, to, kind):
        remedies.append(f"the configuration asks for more than the unit was installed with: {again}")
    if not booted():
        remedies.append("systemd does not run this machine")
    elif facts.get("UnitFileState") != "enabled":
        remedies.append(f"it does not start by itself: {again}")
    if not to.system and not to.lingers:
        remedies.append(f"it stops when you log out: sudo loginctl enable-linger {to.account}")
    if facts.get("ActiveState") == "failed" or facts.get("SubState") == "auto-restart":
        remedies.append(_why(to, unit))
    return {
        "unit": unit,
        "state": facts.get("ActiveState") or "unknown",
        "enabled": facts.get("UnitFileState") == "enabled",
        "says": facts.get("StatusText", ""),
        "pid": int(facts.get("MainPID") or 0),
        "remedies": remedies,
    }
