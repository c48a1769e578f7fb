"""Times, sizes, counts and places as people read them."""

from __future__ import annotations

import errno
import os
import time

from dumbwaiter.errors import Exit, Failure
from dumbwaiter.naming import join

TYPE_CHECKING = False  # see `quick_status`
if TYPE_CHECKING:
    from typing import Any


def to_put_away(totals: dict[str, int]) -> str:
    """Returns how many uploaded files `after` is still to move or delete, as a part of the line of totals."""
    return f"{totals['after']} to put away, " if totals["after"] else ""


def place(job: dict[str, Any]) -> str:
    """Returns what commands call a job's file: "WATCH/path"."""
    return join(job["watch"], job["path"])


def last_line(text: str) -> str:
    """Returns the last line of what a program said."""
    return (text.strip().splitlines() or ["no reason given"])[-1]


def size(count: int) -> str:
    """Returns bytes as people read them, in binary units."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def hour(seconds: float) -> str:
    """Returns the time of day that a window opens at, with the day if it is not today's."""
    moment = time.localtime(seconds)
    return time.strftime("%H:%M" if moment[:3] == time.localtime()[:3] else "%a %H:%M", moment)


def when(seconds: float) -> str:
    """Returns a local time to the second, with its zone."""
    from datetime import datetime

    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")


def rests(name: str, until: float | None) -> str:
    """Returns what is paused, and for how long."""
    return f"{name or 'everything'} rests until {'dumbwaiter resume' if until is None else when(until)}"


def unusable(config: str, watch: str, path: str) -> str | None:
    """Returns what is wrong with the folder of a watch; `config` is the file that names it."""
    from dumbwaiter.config.file import location

    if os.path.isdir(path) and os.access(path, os.R_OK | os.X_OK):
        return None
    where = location(config, "watch", watch, "path")
    if os.path.isdir(path):
        return f"{where} {path} cannot be read by this user"
    if os.path.lexists(path):
        return f"{where} {path} is no folder"
    return f"{where} the folder is not there: mkdir -p {path}"


def no_mount_point(config: str, path: str) -> str | None:
    """Returns why the mount that a configuration names cannot be, None when it can."""
    from dumbwaiter.config.file import location
    from dumbwaiter.files.roots import mounts, resolved

    if resolved(path) in dict(mounts()):
        return None  # and is not asked: it may not answer
    try:
        if os.path.ismount(path) or not os.listdir(path):
            return None
        what = f"{path} is not empty: choose an empty folder"
    except FileNotFoundError:
        what = f"the folder is not there: mkdir -p {path}"
    except NotADirectoryError:
        what = f"{path} is no folder"
    except OSError as error:
        # A dead mount of ours, which the next start clears; or a live one of another user's, which root may not read.
        if error.errno == errno.ENOTCONN or os.geteuid() == 0:
            return None
        what = f"{path} cannot be read: {error.strerror}"
    return f"{location(config, 'mount', 'path')} {what}"


def span(text: str) -> float:
    """Returns the seconds of "10m", or of a number alone, as `timeout` and `sleep` take it. Raises `Failure`."""
    from dumbwaiter.config.values import duration

    try:
        return duration(f"{text}s" if text.strip().isascii() and text.strip().isdigit() else text)
    except ValueError as error:
        raise Failure(str(error), Exit.USAGE) from None


def moment(text: str, now: float) -> float:
    """Returns the time that "2h" ago was, or that "2026-03-04" or "2026-03-04 12:00" names here. Raises `Failure`."""
    from datetime import datetime

    from dumbwaiter.config.values import duration

    try:
        return now - duration(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError):
        raise Failure(
            f'"{text}" is no time: write "2h", "7d", "2026-03-04" or "2026-03-04 12:00"', Exit.USAGE
        ) from None
