"""What the kernel lets a process hear, and how many files it may have open.

The machine has limits, and so has each user namespace, which is where a container runs; the smallest holds.
"""

import resource
import sys
from contextlib import suppress
from typing import NamedTuple

FILES = 65536  # descriptors, where the system lets us have so many


class Limit(NamedTuple):
    """How many there may be, and which setting says so."""

    number: int
    setting: str

    @property
    def shown(self) -> str:
        return "unknown" if self.number == sys.maxsize else str(self.number)


def limit(what: str) -> Limit:
    """Returns the limit of inotify's "watches" or "instances"."""
    settings = (f"fs.inotify.max_user_{what}", f"user.max_inotify_{what}")
    return min((Limit(_number(setting), setting) for setting in settings), key=lambda found: found.number)


def write_no_core() -> None:
    """Has the kernel keep what this process has in memory, its secrets, off the disk should it crash."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def raise_files() -> None:
    """Lets this process have as many files open as it may: shells and systemd begin with a thousand."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if most == resource.RLIM_INFINITY else min(most, FILES)
    if now != resource.RLIM_INFINITY and now < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _number(setting: str) -> int:
    try:
        with open(f"/proc/sys/{setting.replace('.', '/')}", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return sys.maxsize
