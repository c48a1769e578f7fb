"""The systemd units: install, uninstall, status.

What stands in them is `units`'s to say. Every step is told, and `uninstall` takes back each of them.
"""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dumbwaiter.cli.service_checks import check_config, check_machine, check_other, check_root
from dumbwaiter.cli.session import Session, json_option, not_empty
from dumbwaiter.cli.systemd import KINDS, Target, booted, run, target
from dumbwaiter.cli.units import at_home, config_file, kinds, lacks, unit_files, unit_text
from dumbwaiter.cli.words import last_line
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.naming import legible

if TYPE_CHECKING:
    from dumbwaiter.config import Config

LINGER = "# linger was switched on by this installation\n"
START = 25  # looks, five a second, for a service manager that starts


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
    from dumbwaiter.config.file import load

    to = target(system, account)
    file = config_file(session, to)
    with at_home(to):
        config = load(file)
    files = dict(unit_files(session, to, config))
    if dry_run:
        if session.json:
            session.facts({str(path): text for path, text in files.items()})
        else:
            for path, text in files.items():
                print(f"# {path}\n{text}")
        try:
            check_other(session, to)
            check_config(to, config, file)
        except Failure as failure:
            session.say(f"dumbwaiter: this would not be installed: {failure}")
        return
    check_machine(to)
    check_config(to, config, file)
    check_other(session, to)
    did = list(_install(session, to, config, files))
    if session.json:
        session.facts({"did": did, "units": states(to)})


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
    for kind in set(KINDS) - set(kinds(config)):
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
    for kind in kinds(config):
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
        check_root(to)
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


def _state(to: Target, kind: str, session: Session | None) -> dict[str, Any]:
    """Returns how a unit is that is installed, and what should be done about it."""
    unit = to.unit(kind)
    facts = to.show(unit) if booted() else {}
    remedies = []
    installed = (to.folder / to.file(kind)).read_text()
    again = f"dumbwaiter service install{' --system --for ' + to.account if to.system else ''}"
    if installed != unit_text(to, kind):
        remedies.append(f"the unit is not this version's: {again}")
    elif session is not None and lacks(session, to, kind):
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
