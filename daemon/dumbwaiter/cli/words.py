"""Times, sizes, counts and places as people read them."""

import os
from datetime import datetime
from typing import Any

from dumbwaiter.errors import Exit, Failure
from dumbwaiter.naming import join


def counted(count: int, one: str, many: str = "") -> str:
    """Returns "1 file" or "2 files"; `many` where an "s" is not all that changes."""
    return f"{count} {one}" if count == 1 else f"{count} {many or one + 's'}"


def place(job: dict[str, Any]) -> str:
    """Returns what commands call a job's file: "WATCH/path"."""
    return join(job["watch"], job["path"])


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
    moment = datetime.fromtimestamp(seconds).astimezone()
    today = moment.date() == datetime.now().astimezone().date()
    return moment.strftime("%H:%M" if today else "%a %H:%M")


def when(seconds: float) -> str:
    """Returns a local time to the second, with its zone."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")


def rests(name: str, until: float | None) -> str:
    """Returns what is paused, and for how long."""
    return f"{name or 'everything'} rests until {'dumbwaiter resume' if until is None else when(until)}"


def no_folder(watch: str, path: str) -> str:
    """Returns what is wrong where a watch has no folder."""
    if os.path.lexists(path):
        return f"the path of watch.{watch}, {path}, is no folder"
    return f"the folder of watch.{watch} is not there: mkdir -p {path}"


def moment(text: str, now: float) -> float:
    """Returns the time that "2h" ago was, or that "2026-03-04" or "2026-03-04 12:00" names here. Raises `Failure`."""
    from dumbwaiter.sources import duration

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
