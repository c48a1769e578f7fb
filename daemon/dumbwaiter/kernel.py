"""What the kernel lets a process hear.

The machine has limits, and so has each user namespace, which is where a container runs; the smallest holds.
"""

import sys
from typing import NamedTuple


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


def _number(setting: str) -> int:
    try:
        with open(f"/proc/sys/{setting.replace('.', '/')}", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return sys.maxsize
