"""The mount point: whether it can be used, what is mounted there, and how to take our own mount off it.

A mount that lost its process answers ENOTCONN to everything, and would make the next one fail. What is mounted is read
from the kernel's list, never by touching the folder: a mount that does not answer must not hold this process.
"""

import ctypes
import errno
import os
import re
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from typing import Literal, NamedTuple

from dumbwaiter.config import absolute, nested
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.naming import shown

NAME = "dumbwaiter"
KIND = f"fuse.{NAME}"
ANSWER = 5.0  # seconds to wait for a mount that may be stuck

_LAZY = 2  # MNT_DETACH
_libc = ctypes.CDLL(None, use_errno=True)


def resolved(path: str) -> str:
    """Returns the folder as the kernel's list names it."""
    return os.path.realpath(absolute(path))


class _Mounted(NamedTuple):
    """A line of the kernel's list."""

    number: int  # its own while it is mounted, wherever its folder is moved to
    point: str
    kind: str  # of the file system


def _list() -> Iterator[_Mounted]:
    with open("/proc/self/mountinfo", "rb") as lines:
        for line in lines:
            left, _, right = line.partition(b" - ")
            number, *_, point = left.split()[:5]
            yield _Mounted(int(number), os.fsdecode(_plain(point)), os.fsdecode(right.split()[0]))


def kind(point: str) -> str | None:
    """Returns the type of file system that is mounted on a resolved path, None when nothing is."""
    on_it = [one for one in _list() if one.point == point]
    return on_it[-1].kind if on_it else None  # the last one lies on top


def number(point: str) -> int | None:
    """Returns the kernel's number for our mount on a resolved path, None when there is none."""
    return next((one.number for one in _list() if (one.point, one.kind) == (point, KIND)), None)


def moved(number: int | None, point: str) -> str:
    """Returns where our mount of a number is now; the folders above it may have other names. `point`, where it is gone."""
    return next((one.point for one in _list() if (one.number, one.kind) == (number, KIND)), point)


def _plain(field: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field)


def prepare(point: str, *, look_only: bool = False) -> None:
    """Leaves a folder that can be mounted on, or raises `Failure`. A dead mount of ours is cleared away, or told of."""
    on_it = kind(point)
    if on_it == KIND:
        match _pulse(point):
            case "alive":
                raise Failure(f"{shown(point)} is mounted already: `dumbwaiter umount` takes it off")
            case "stuck":
                raise Failure(f"{shown(point)} is mounted already, by a process that does not answer: end it first")
        if look_only:
            raise Failure(f"{shown(point)} is a mount whose process was killed: `dumbwaiter mount` begins it anew")
        unmount(point, lazy=True)
        on_it = kind(point)
    if on_it is not None:
        raise Failure(
            f"{shown(point)} has another file system mounted on it ({on_it}): choose another folder",
            Exit.USAGE,
        )
    _check_folder(point)


def _check_folder(point: str) -> None:
    try:
        if not stat.S_ISDIR(os.stat(point).st_mode):
            raise Failure(f"{shown(point)} is no folder: the mount needs an empty one", Exit.USAGE)
        with os.scandir(point) as names:
            empty = next(names, None) is None
    except FileNotFoundError:
        raise Failure(f"the mount point {shown(point)} does not exist: mkdir -p {shown(point)}", Exit.USAGE) from None
    except OSError as error:
        raise Failure(f"the mount point {shown(point)} cannot be used: {error.strerror}", Exit.USAGE) from None
    if not empty:
        raise Failure(f"the mount point {shown(point)} is not empty: choose an empty folder", Exit.USAGE)


def check_apart(point: str, watches: dict[str, str], folders: dict[str, str]) -> None:
    """Raises `Failure` where the mount would be uploaded into itself, or would hide what it is made from."""
    for name, path in watches.items():
        if nested(point, path):
            raise Failure(
                f"the mount point {shown(point)} and the folder of watch.{name}, {shown(path)}, lie in one another: "
                "the mount would be uploaded into itself",
                Exit.USAGE,
            )
    for what, path in folders.items():
        real = os.path.realpath(path)
        if os.path.commonpath([point, real]) == point:
            raise Failure(
                f"the {what} folder {shown(path)} lies in the mount point {shown(point)}: the mount would hide it",
                Exit.USAGE,
            )


def _pulse(point: str) -> Literal["alive", "dead", "stuck"]:
    """Asks a mount of ours how full it is, which no cache answers, from a thread that may stay behind."""
    answer: list[Literal["alive", "dead"]] = []

    def ask() -> None:
        try:
            os.statvfs(point)
        except OSError as error:
            answer.append("dead" if error.errno == errno.ENOTCONN else "alive")
        else:
            answer.append("alive")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER)
    return answer[0] if answer else "stuck"


def unmount(point: str, *, lazy: bool = False) -> None:
    """Takes our mount off. With `lazy` also while files are open in it. Raises `Failure`; `TEMPORARY` for a busy one."""
    if kind(point) != KIND:
        raise Failure(f"dumbwaiter is not mounted on {shown(point)}")
    if os.geteuid() == 0:
        if _libc.umount2(os.fsencode(point), _LAZY if lazy else 0) == 0:
            return
        code = ctypes.get_errno()
        if code == errno.EBUSY:
            raise _busy(point)
        if code != errno.EPERM:  # root of a container may still be allowed to ask fusermount
            raise Failure(f"{shown(point)} cannot be unmounted: {os.strerror(code)}")
    tool = fusermount()
    if tool is None:
        raise no_fusermount()
    done = subprocess.run(
        [tool, "-u", *(["-z"] if lazy else []), "--", point],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode != 0 and kind(point) == KIND:
        words = done.stderr.decode(errors="replace").strip()
        raise _busy(point) if "busy" in words else Failure(f"{shown(point)} cannot be unmounted: {words}")


def _busy(point: str) -> Failure:
    return Failure(f"{shown(point)} is in use: close what is open in it and try again", Exit.TEMPORARY)


def fusermount() -> str | None:
    return shutil.which("fusermount") or shutil.which("fusermount", path="/usr/bin:/bin")


def no_fusermount() -> Failure:
    return Failure(
        "a mount by an ordinary user needs the program fusermount: install the package fuse (or fuse3, which has it too)"
    )
