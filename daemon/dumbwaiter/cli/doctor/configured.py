"""What the configuration names: secrets and folders, whether they are there, and whose they are."""

import os
import stat
from pathlib import Path

from dumbwaiter.cli.doctor.finding import Finding, Findings
from dumbwaiter.cli.session import Session
from dumbwaiter.config import Config
from dumbwaiter.errors import Failure
from dumbwaiter.files.roots import ForeignLink, open_root


def secrets(config: Config) -> Findings:
    """Whether each secret is where the configuration says; good ones are not named."""
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


def watched_folders(config: Config) -> Findings:
    """Whether each folder can be read, is reached by no way of others, and has patterns that can be read."""
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


def own_folders(session: Session) -> Findings:
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
