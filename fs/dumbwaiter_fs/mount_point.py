"""The mount point: whether it can be used, what is mounted there, and how to take our own mount off it.

A mount that lost its process answers ENOTCONN to everything, and would make the next one fail. What is mounted is read
from the kernel's list, never by touching the folder: a mount that does not answer must not hold this process.
"""

import ctypes
import errno
import os
import shutil
import stat
import subprocess
import threading
from contextlib import suppress
from typing import Literal, NamedTuple

from dumbwaiter.config import absolute, nested
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.files.roots import mount_list
from dumbwaiter.naming import shown

NAME = "dumbwaiter"
KIND = f"fuse.{NAME}"
ANSWER = 5.0  # seconds to wait for a mount that may be stuck

_LAZY = 2  # MNT_DETACH
_libc = ctypes.CDLL(None, use_errno=True)


def resolved(path: str) -> str:
    """Returns the folder as the kernel's list names it, without asking what is mounted there."""
    try:
        descriptor = os.open(absolute(path), os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return os.path.realpath(absolute(path))
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


class Identity(NamedTuple):
    """What a mount keeps while it lasts, wherever its folder is moved to."""

    number: str  # another one has it later
    device: str


def kind(point: str) -> str | None:
    """Returns the type of file system that is mounted on a resolved path, None when nothing is."""
    on_it = [one for one in mount_list() if one.point == point]
    return on_it[-1].kind if on_it else None  # the last one lies on top


def identity(point: str) -> Identity | None:
    """Returns which mount of ours lies on a resolved path, None when there is none or another one lies on top."""
    on_it = [one for one in mount_list() if one.point == point]
    return Identity(on_it[-1].number, on_it[-1].device) if on_it and on_it[-1].kind == KIND else None


def place(mount: Identity) -> str | None:
    """Returns where a mount is now, None when it is gone; the folders above it may have other names."""
    return next((one.point for one in mount_list() if (one.number, one.device) == mount), None)


def read_ahead(mount: Identity, size: int) -> None:
    """Has the kernel read up to `size` bytes ahead instead of 128 KiB, where that is ours to set: it is root's."""
    with suppress(OSError), open(f"/sys/class/bdi/{mount.device}/read_ahead_kb", "w", encoding="ascii") as setting:
        setting.write(str(size >> 10))


def prepare(point: str, *, look_only: bool = False) -> None:
    """Leaves a folder that can be mounted on, or raises `Failure`. A dead mount of ours is cleared away, or told of."""
    on_it = kind(point)
    if on_it == KIND:
        match _pulse(point):
            case "alive":
                raise Failure(f"{shown(point)} is mounted already: `dumbwaiter umount` takes it off")
            case "stuck":
                raise Failure(f"{shown(point)} is mounted already, by a process that does not answer: end it first")
            case "closed":
                raise Failure(f"{shown(point)} is mounted already, by another user: `dumbwaiter umount` takes it off")
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
        raise Failure(
            f"the mount point {shown(point)} is not empty: move what lies in it elsewhere, or choose an empty folder",
            Exit.USAGE,
        )
    user, status = os.geteuid(), os.stat(point)
    if user != 0 and (not os.access(point, os.W_OK) or (status.st_mode & stat.S_ISVTX and status.st_uid != user)):
        raise Failure(f"the mount point {shown(point)} is not this user's: choose a folder of your own", Exit.USAGE)


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


def _pulse(point: str) -> Literal["alive", "dead", "stuck", "closed"]:
    """Asks a mount of ours how full it is, which no cache answers, from a thread that may stay behind."""
    answer: list[Literal["alive", "dead", "closed"]] = []

    def ask() -> None:
        try:
            os.statvfs(point)
        except OSError as error:
            match error.errno:
                case errno.ENOTCONN:
                    answer.append("dead")
                case errno.EACCES:
                    answer.append("closed")
                case _:
                    answer.append("alive")
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
