"""doctor: looks at all that uploading rests on; each line says ok, warn or fail, and the remedy.

A warning lets files through and a failure does not, now or soon. No provider is signed in to, and nothing is changed.
"""

import asyncio
import os
import re
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import click

from dumbwaiter import log
from dumbwaiter.cli.session import Session, json_option, not_empty
from dumbwaiter.cli.words import last_line
from dumbwaiter.config import Config
from dumbwaiter.config.file import exposed
from dumbwaiter.config.values import Listen
from dumbwaiter.errors import Exit, Failure, JournalTrouble, Verdict
from dumbwaiter.files.roots import ForeignLink, open_root
from dumbwaiter.kernel import limit
from dumbwaiter.model import MIB
from dumbwaiter.naming import counted, legible, shown, unshown

LITTLE, TIGHT = 1024 * MIB, 64 * MIB  # bytes free: say so; the journal will not live long
SKEW = 60.0  # seconds; vendors refuse signatures some minutes off
PATIENCE = 15.0  # seconds for a provider to answer
HERE = 5.0  # seconds for the page, which is on this machine
PAGE = b"<title>dumbwaiter</title>"


class Finding(NamedTuple):
    """One line."""

    check: str
    level: Literal["ok", "warn", "fail"]
    says: str
    remedy: str = ""


Findings = Iterator[Finding]


@click.command()
@click.option(
    "--bundle",
    metavar="FILE",
    callback=not_empty,
    help="Write a zip for support: findings, settings, log; without secrets.",
)
@json_option
@click.pass_obj
def doctor(session: Session, bundle: str | None) -> None:
    """Looks at everything that uploading needs, and says what to do where something is missing.

    \b
    dumbwaiter doctor
    dumbwaiter doctor --bundle support.zip

    Exit code 1 when something fails, 2 when it is the configuration; warnings are none.
    """
    log.configure("debug" if session.verbose else "critical", "auto")
    findings = list(examine(session))
    failed = [one for one in findings if one.level == "fail"]
    if session.json:
        session.facts({"usable": not failed, "checks": [one._asdict() for one in findings]})
    else:
        for one in findings:
            print(f"{one.level:<4}  {one.check}: {legible(one.says)}")
            if one.remedy:
                print(f"      → {legible(one.remedy)}")
    if bundle:
        from dumbwaiter.cli.bundle import write

        write(session, findings, bundle)
        session.say(f"wrote {shown(bundle)}: have a look into it before you give it away")
    if failed:
        raise click.exceptions.Exit(Exit.USAGE if failed[0].check == "configuration" else Exit.FAILED)


def examine(session: Session) -> Findings:
    """Yields every finding; without a usable configuration, what can be said without it."""
    usable = True
    try:
        config = session.config
    except Failure as failure:
        usable = False
        yield Finding("configuration", "fail", str(failure), "dumbwaiter check says it again once it is mended")
        config = Config()
    else:
        yield Finding(
            "configuration", "ok",
            f"{session.places.config}: {counted(len(config.provider), 'provider')}, {counted(len(config.watch), 'watch', 'watches')}",
        )  # fmt: skip
        for sentence in exposed(session.places.config):
            says, _, remedy = sentence.rpartition(": ")
            yield Finding("configuration", "warn", says, remedy)
    yield from _secrets(config)
    yield from _watched_folders(config)
    yield from _own_folders(session)
    yield from _inotify(config)
    yield from _fuse(session, config)
    yield from _space(session)
    if usable:
        yield from _journal(session)
    try:
        yield from _daemon(session, config)
    except Failure as failure:
        yield _failing("daemon", failure)
    yield from _services(session)
    yield from asyncio.run(_providers(config))


def _failing(check: str, failure: Failure) -> Finding:
    """Takes a sentence apart that ends with its remedy."""
    says, _, remedy = str(failure).partition(": ")
    return Finding(check, "fail", says, remedy)


def _secrets(config: Config) -> Findings:
    from dumbwaiter.cli.systemd import own_target
    from dumbwaiter.cli.units import credential

    for whose, source in config.secrets():
        check = f"secret of {whose}"
        kind, where = source.place
        if kind == "credential" and "CREDENTIALS_DIRECTORY" not in os.environ:
            files = [credential(own_target()._replace(system=system), where) for system in (False, True)]
            if not any(map(_may_be_there, files)):
                yield Finding(
                    check, "fail", f'the credential "{where}" is in no file that a service gets',
                    f"put it into {files[0]} and chmod 600 it",
                )  # fmt: skip
            continue
        try:
            source.read()
        except Failure as failure:
            yield Finding(check, "fail", str(failure), "put the secret there, or write there where it is")


def _may_be_there(path: Path) -> bool:
    """Says whether a file is there, or lies where only root sees it, as the credentials of the system's service do."""
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _watched_folders(config: Config) -> Findings:
    from dumbwaiter.files.ignore import IGNORE_FILE, rules

    for name, watch in config.watch.items():
        readable = False
        if not os.path.isdir(watch.path):
            yield Finding(
                f"watch {name}",
                "fail",
                f"{watch.path} is not there",
                f"mount the disk that it is on; where it is on none, mkdir -p {watch.path}",
            )
        elif not (readable := os.access(watch.path, os.R_OK | os.X_OK)):
            yield Finding(
                f"watch {name}", "fail", f"{watch.path} cannot be read by this user", f"chmod u+rx {watch.path}"
            )
        else:
            yield from _path_to(f"watch {name}", watch.path)
        target = watch.after.removeprefix("move:")
        if target != watch.after and os.path.isdir(target):
            yield from _path_to(f"watch {name}", target)
        for sentence in rules(watch.path, watch.include, watch.exclude).unread if readable else ():
            patterns = not sentence.startswith(f"{IGNORE_FILE} cannot be read")
            remedy = "write it as in a .gitignore file" if patterns else "give this user the right to read it"
            yield Finding(f"watch {name}", "warn", sentence, remedy)
    for name, sentence in config.last_copies():
        yield Finding(f"watch {name}", "warn", sentence, 'after = "keep" leaves the originals where they are')


def _own_folders(session: Session) -> Findings:
    """Whether each folder of the program is its user's alone."""
    for name in ("state", "cache", "runtime"):
        path = getattr(session.places, name)
        try:
            status = os.stat(path)
        except FileNotFoundError:
            continue  # made when it is needed
        except OSError as error:
            yield Finding(f"{name} folder", "fail", f"{path}: {error.strerror}", "give this user the folders above it")
            continue
        if not stat.S_ISDIR(status.st_mode):
            yield Finding(f"{name} folder", "fail", f"{path} is no folder", f"name another one with --{name}")
        elif status.st_uid != os.geteuid():
            yield Finding(
                f"{name} folder", "fail", f"{path} belongs to somebody else", f"name another one with --{name}"
            )
        elif stat.S_IMODE(status.st_mode) & 0o077:
            yield Finding(f"{name} folder", "warn", f"{path} is open to others", f"chmod 700 {path}")
        else:
            yield Finding(f"{name} folder", "ok", f"{path} is yours alone")


def _path_to(check: str, path: str) -> Findings:
    """Whether others can have another folder used in the place of this one."""
    try:
        os.close(open_root(path))
    except ForeignLink as error:
        yield Finding(check, "fail", error.sentence, "take that link away, or name the folder that it leads to")
    above = os.path.dirname(path)
    while above != os.path.dirname(above):
        mode = os.stat(above).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            yield Finding(
                check, "warn", f"everybody may write to {above}, and rename what lies in it", f"chmod o-w {above}"
            )
        above = os.path.dirname(above)


def _inotify(config: Config) -> Findings:
    refused: Counter[str] = Counter()
    need = sum(_count_folders(name, config, refused) for name in config.watch)
    for name, count in refused.items():
        yield Finding(
            f"watch {name}", "warn", f"{counted(count, 'folder')} below it cannot be read: files in there are not seen",
            f"find {config.watch[name].path} -type d -not -readable lists them",
        )  # fmt: skip
    most, taken = limit("watches"), _watches_of_others()
    says = (
        f"{counted(need, 'folder')} to hear, {taken} watches of this user's other programs, the limit is {most.shown}"
    )
    if need + taken > most.number:
        wanted = 1 << (2 * (need + taken)).bit_length()
        remedy = f"sudo sysctl {most.setting}={wanted}, and the same line in /etc/sysctl.d/60-inotify.conf"
        yield Finding("inotify", "warn", f"{says}: the rest is only scanned", remedy)
    else:
        yield Finding("inotify", "ok", says)
    most = limit("instances")
    if most.number < 1:
        yield Finding("inotify", "warn", "no instance may be made", f"sudo sysctl {most.setting}=128")


def _count_folders(name: str, config: Config, refused: Counter[str]) -> int:
    """Counts the folders of a watch that have to be heard."""
    from dumbwaiter.files.ignore import rules
    from dumbwaiter.files.scan import walk

    watch = config.watch[name]
    if watch.polling is True:
        return 0

    def skipped(_folder: str, error: OSError) -> None:
        refused[name] += isinstance(error, PermissionError)

    try:
        chosen = rules(watch.path, watch.include, watch.exclude)
        return sum(1 for _ in walk(watch.path, chosen.enters, read=_folders_in, skipped=skipped))
    except (OSError, Failure):
        return 0  # said elsewhere


def _folders_in(descriptor: int) -> tuple[None, list[str]]:
    with os.scandir(descriptor) as entries:
        return None, [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def _watches_of_others() -> int:
    """Counts the watches that this user's programs hold, but for a daemon of ours."""
    count = 0
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{number}").st_uid != os.geteuid():
                continue
            with open(f"/proc/{number}/cmdline", "rb") as file:
                if b"dumbwaiter" in file.read():
                    continue
            for name in os.listdir(f"/proc/{number}/fdinfo"):
                with open(f"/proc/{number}/fdinfo/{name}", "rb") as lines:
                    count += sum(line.startswith(b"inotify ") for line in lines)
        except OSError:
            continue  # it is gone, or not to be looked into
    return count


def _fuse(session: Session, config: Config) -> Findings:
    if not config.mount.path:
        yield Finding("mount", "ok", "none is configured")
        return
    command = [sys.executable, "-P", "-m", "dumbwaiter_fs.mount", *session.places.flags, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode == 0:
        yield Finding("mount", "ok", f"{config.mount.path} can be mounted on")
        return
    says, _, remedy = last_line(done.stderr).removeprefix("dumbwaiter: ").partition(": ")
    mounted = "mounted already" in says
    yield Finding("mount", "ok" if mounted else "fail", says, "" if mounted else remedy or "dumbwaiter mount says more")


def _space(session: Session) -> Findings:
    for name in ("state", "cache"):
        path = getattr(session.places, name)
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        facts = os.statvfs(path)
        free = facts.f_bavail * facts.f_frsize
        says = f"{free // MIB} MiB free for {path}"
        remedy = f"make room there, or name another folder with --{name}"
        if facts.f_flag & os.ST_RDONLY:
            yield Finding(
                f"space for {name}", "fail", f"{path} is on a read-only file system",
                f"have it mounted writable, or name another folder with --{name}",
            )  # fmt: skip
        elif facts.f_files and not facts.f_favail:
            yield Finding(f"space for {name}", "fail", f"{path} takes no more files", remedy)
        elif free < TIGHT:
            yield Finding(f"space for {name}", "fail", says, remedy)
        elif free < LITTLE:
            yield Finding(f"space for {name}", "warn", says, remedy)
        else:
            yield Finding(f"space for {name}", "ok", says)


def _journal(session: Session) -> Findings:
    from dumbwaiter import report

    try:
        if not session.has_journal:
            yield Finding("journal", "ok", f"none yet in {session.places.state}")
            return
        totals = report.totals(session.reader)
    except (JournalTrouble, Failure) as trouble:
        yield _journal_trouble(str(trouble), on_server=bool(session.config.journal))
        return
    left = totals["pending"] + totals["stored"]
    says = f"{totals['done']} done, {left} to go, {totals['in_need']} need a person"
    if totals["in_need"]:
        yield Finding("journal", "warn", says, "dumbwaiter failed says which, and why")
    else:
        yield Finding("journal", "ok", says)


def _journal_trouble(sentence: str, *, on_server: bool) -> Finding:
    """What a sentence about the journal says, and its remedy: where it ends with what the system said, one of ours."""
    says, _, remedy = sentence.rpartition(": ")
    unread = sentence.startswith("the journal cannot be read: ")
    if unread or " cannot be used: " in sentence:
        says, remedy = sentence, "see to the disk that the state folder is on, or name another folder with --state"
        if unread and on_server:
            remedy = (
                "see that its server runs, lets this user in, and is the one that journal in the configuration names"
            )
    return Finding("journal", "fail", says or sentence, remedy)


def _daemon(session: Session, config: Config) -> Findings:
    from dumbwaiter.files.ignore import IGNORE_FILE

    try:
        facts = session.ask("GET", "/status?jobs=0")
    except Failure as failure:
        found, start = _failing("daemon", failure), "dumbwaiter run, or dumbwaiter service install"
        absent = failure.code is Exit.NO_DAEMON
        yield found._replace(level="warn", remedy=start) if absent else found._replace(remedy=found.remedy or start)
        return
    yield Finding("daemon", "ok", f"running as process {facts['pid']}")
    if facts["trouble"]:
        yield Finding("daemon", "fail", facts["trouble"], "the remedy stands in that sentence; it goes on by itself")
    for watch in facts["watches"]:
        said = watch["message"].startswith(IGNORE_FILE) or not os.path.isdir(unshown(watch["path"]))
        if watch["message"] and not said:
            level: Literal["warn", "fail"] = "fail" if watch["state"] == "away" else "warn"
            yield Finding(f"watch {watch['name']}", level, watch["message"], f"dumbwaiter rescan {watch['name']}")
    for provider in facts["providers"]:
        if provider["state"] == "blocked":
            remedy = "put the account in order, then dumbwaiter retry --all"
            yield Finding(f"provider {provider['name']}", "fail", provider["error"] or "blocked", remedy)
    if config.web.listen is not None:
        yield _page(config.web.listen)


def _page(listen: Listen) -> Finding:
    address = f"http://{listen}/"
    try:
        with closing(HTTPConnection(str(listen.host), listen.port, timeout=HERE)) as connection:
            connection.request("GET", "/")
            served = PAGE in connection.getresponse().read()
    except (OSError, HTTPException):
        served = False
    if served:
        return Finding("page", "ok", f"served at {address}")
    remedy = "if another program has that port, name another one in [web] listen; then start the daemon again"
    return Finding("page", "warn", f"not served at {address}", remedy)


def _services(session: Session) -> Findings:
    from dumbwaiter.cli.service import states
    from dumbwaiter.cli.systemd import booted, own_target

    if not booted():
        yield Finding(
            "service", "ok", "systemd does not run this machine; dumbwaiter run has to be started by other means"
        )
        return
    found = [one for system in (False, True) for one in states(own_target()._replace(system=system), session)]
    if not found:
        yield Finding(
            "service", "warn", "none is installed: nothing uploads after a restart", "dumbwaiter service install"
        )
    for one in found:
        remedy = "; ".join(one["remedies"])
        level: Literal["ok", "warn", "fail"] = "fail" if one["state"] != "active" else "warn" if remedy else "ok"
        yield Finding("service", level, f"{one['unit']} is {one['state']}", remedy)


async def _providers(config: Config) -> list[Finding]:
    """Asks every provider's addresses for nothing, and compares clocks."""
    from dumbwaiter.net.http import Http

    try:
        http = Http()
    except Failure as failure:
        return [_failing("proxy", failure)]
    try:
        wanted = [(name, url) for name, options in config.provider.items() for url in addresses(options)]
        return list(await asyncio.gather(*(_reach(http, name, url) for name, url in wanted)))
    finally:
        await http.close()


def addresses(options: Any) -> list[str]:
    """Returns the addresses that a provider's options name, each host once."""
    texts: Iterable[Any] = (getattr(options, name) for name in options.__struct_fields__)
    if hasattr(options, "request") and not isinstance(options.request, str):
        texts = [*texts, options.request.url]
    found = [re.match(r"https?://[^/{}]+", text) for text in texts if isinstance(text, str)]
    return list(dict.fromkeys(one[0] for one in found if one))


async def _reach(http: Any, name: str, url: str) -> Finding:
    from dumbwaiter.wire.message import Request

    host = urlsplit(url).netloc
    check = f"provider {name}"
    try:
        async with asyncio.timeout(PATIENCE):
            await http.call(Request("doctor", "GET", f"{url}/"))
    except (Verdict, TimeoutError) as error:
        says = str(error).partition(": ")[2] or f"{host} takes too long to answer"
        return Finding(
            check,
            "fail",
            says,
            "is this machine online? a proxy is taken from HTTPS_PROXY; the address is in the configuration",
        )
    skew = http.skew(url)
    if abs(skew) > SKEW:
        return Finding(
            check, "warn", f"the clock of {host} is {skew:+.0f} seconds from this machine's",
            "timedatectl set-ntp true; until then dumbwaiter reckons with the difference",
        )  # fmt: skip
    return Finding(check, "ok", f"{host} answers, its clock agrees")
