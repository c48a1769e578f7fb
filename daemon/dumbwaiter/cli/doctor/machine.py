"""What this machine gives: inotify watches, FUSE, and room on the disk."""

import os
import subprocess
import sys
from collections import Counter

from dumbwaiter.cli.doctor.finding import Finding, Findings
from dumbwaiter.cli.session import Session
from dumbwaiter.cli.words import last_line
from dumbwaiter.config import Config
from dumbwaiter.errors import Failure
from dumbwaiter.kernel_limits import limit
from dumbwaiter.model import MIB
from dumbwaiter.naming import counted

LITTLE, TIGHT = 1024 * MIB, 64 * MIB  # bytes free: say so; the journal will not live long


def inotify(config: Config) -> Findings:
    """Whether the kernel lets all watched folders be heard."""
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


def fuse(session: Session, config: Config) -> Findings:
    """Whether the folder of the configuration can be mounted on; the mount says it itself."""
    if not config.mount.path:
        yield Finding("mount", "ok", "none is configured")
        return
    command = [sys.executable, "-P", "-m", "dumbwaiter_fs.mount", *session.places.flags, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode == 0:
        yield Finding("mount", "ok", f"{config.mount.path} can be mounted on")
        return
    says, _, remedy = last_line(done.stderr).removeprefix("dumbwaiter: ").partition(": ")
    mounted = "mounted already" in says and "does not answer" not in says
    yield Finding("mount", "ok" if mounted else "fail", says, "" if mounted else remedy or "dumbwaiter mount says more")


def space(session: Session) -> Findings:
    """Whether there is room for journal and cache."""
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
