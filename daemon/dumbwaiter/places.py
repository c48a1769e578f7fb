"""Where things are: one rule for configuration, state, cache and runtime folder, the same for every command.

Order of precedence: flag, environment, the folder that systemd hands to a service, the folder that it made for a
service of the system that runs as this user, the user's XDG folder. So a command typed in a shell, or run by cron
without any XDG variable, finds the daemon that systemd started; and whoever knows a daemon's state folder finds its
socket, whatever named that.
"""

import fcntl
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager

DAEMON = b"daemon"  # the first line of a lock that a daemon has; the second one is its runtime folder
SYSTEM_CONFIG = "/etc/dumbwaiter/config.toml"
SYSTEM_FOLDERS = {"STATE": "/var/lib", "CACHE": "/var/cache", "RUNTIME": "/run"}


class Places:
    """Absolute paths. Nothing says that they exist."""

    def __init__(self, config: str, state: str, cache: str, runtime: str) -> None:
        self.config = config
        self.state = state
        self.cache = cache
        self.runtime = runtime

    @property
    def flags(self) -> list[str]:
        """What leads another program of ours to the same places."""
        return [word for name, path in vars(self).items() for word in (f"--{name}", path)]

    @property
    def socket(self) -> str:
        return os.path.join(self.runtime, "control.sock")


def places(
    config: str | None = None, state: str | None = None, cache: str | None = None, runtime: str | None = None
) -> Places:
    """Returns the places for this process."""
    chosen_state = chosen(state, "STATE")
    state = chosen_state or _folder("STATE", "~/.local/state")
    return Places(
        config=chosen(config, "CONFIG") or _config(),
        state=state,
        cache=chosen(cache, "CACHE") or _folder("CACHE", "~/.cache"),
        runtime=chosen(runtime, "RUNTIME")
        or daemon_runtime(state)
        # A daemon with a state folder of its own has a socket of its own.
        or (chosen_state and os.path.join(chosen_state, "run"))
        or _runtime(),
    )


def daemon_runtime(state: str) -> str | None:
    """Returns the runtime folder of the daemon that has a state folder, None when none has: any variables may have named it.

    For a moment nobody can take the lock.
    """
    try:
        lock = os.open(os.path.join(state, "lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        what, _, runtime = os.pread(lock, 4096 + len(DAEMON), 0).partition(b"\n")
        if what != DAEMON or not runtime:
            return None
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None  # it runs no more
    except BlockingIOError:
        return os.fsdecode(runtime)
    finally:
        os.close(lock)


def private_folder(path: str) -> str:
    """Creates `path` for its owner only, and what leads to it, if it is not there, and returns it. For any thread."""
    if (parent := os.path.dirname(path)) and not os.path.isdir(parent):
        private_folder(parent)
    try:
        os.mkdir(path, 0o700)
    except OSError:  # some systems have other words for what is there
        if not os.path.isdir(path):
            raise
    return path


def foreign(path: str) -> bool:
    """Says whether a path is somebody else's, neither ours nor root's: what it leads to, or a link that stands there."""
    ours = {os.geteuid(), 0}
    try:
        return os.lstat(path).st_uid not in ours or os.stat(path).st_uid not in ours
    except OSError:
        return False


@contextmanager
def short(path: str) -> Iterator[str]:
    """Gives a name for a socket that fits the 107 bytes which the kernel has for one, to bind or connect it by.

    Raises FileNotFoundError when its folder is not there.
    """
    if len(os.fsencode(path)) < 108:
        yield path
        return
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)


def chosen(flag: str | None, kind: str) -> str | None:
    """Returns what the flag says, else the environment, as an absolute path."""
    value = flag or os.environ.get(f"DUMBWAITER_{kind}")
    return os.path.abspath(os.path.expanduser(value)) if value else None


def xdg(name: str) -> str | None:
    """Returns what an XDG variable names; a relative path is none, as its specification has it."""
    value = os.environ.get(f"XDG_{name}", "")
    return value if os.path.isabs(value) else None


def trash() -> str:
    """Returns the trash of this user's home; another disk has its own."""
    return os.path.join(xdg("DATA_HOME") or os.path.expanduser("~/.local/share"), "Trash")


def _folder(kind: str, default: str) -> str:
    if given := _from_systemd(kind):
        return given
    return os.path.join(xdg(f"{kind}_HOME") or os.path.abspath(os.path.expanduser(default)), "dumbwaiter")


def _from_systemd(kind: str) -> str | None:
    if given := os.environ.get(f"{kind}_DIRECTORY"):
        return given.split(":")[0]  # it joins several with ":"; the first is ours
    if kind not in SYSTEM_FOLDERS:
        return None
    try:
        made = os.path.join(SYSTEM_FOLDERS[kind], "dumbwaiter", pwd.getpwuid(os.getuid()).pw_name)
        return made if os.stat(made).st_uid == os.getuid() else None
    except (KeyError, OSError):
        return None


def _config() -> str:
    own = os.path.join(_folder("CONFIG", "~/.config"), "config.toml")
    return SYSTEM_CONFIG if not os.path.exists(own) and os.path.exists(SYSTEM_CONFIG) else own


def _runtime() -> str:
    if given := _from_systemd("RUNTIME"):
        return given
    session = xdg("RUNTIME_DIR") or f"/run/user/{os.getuid()}"  # cron sets no variable
    if os.path.isdir(session):
        return os.path.join(session, "dumbwaiter")
    return os.path.join(_folder("STATE", "~/.local/state"), "run")
