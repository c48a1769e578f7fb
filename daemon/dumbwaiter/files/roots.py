"""The watched folders themselves: which folder is at a path, what is mounted there, and who may write to it."""

import errno
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from dumbwaiter.errors import LACKING
from dumbwaiter.files.ignore import Rules
from dumbwaiter.naming import shown

# What other machines do there, or a program behind a mount, is no event here.
_REMOTE = {
    "9p",
    "afs",
    "ceph",
    "cifs",
    "fuse",
    "lustre",
    "nfs",
    "nfs4",
    "smb3",
    "smbfs",
    "vboxsf",
    "virtiofs",
}
OURS = "fuse.dumbwaiter"
KNOWN = 1.0  # seconds for which the kind of a file system without a disk is known: its number goes to another later
_kinds: dict[int, tuple[float, bool]] = {}
_LINKS = 40  # that one path may lead through, as for the kernel


class _NoProc:
    """Passes over that /proc is not there. Without a descriptor to read it, nothing is known, and that is raised."""

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        return isinstance(error, OSError) and error.errno not in LACKING


class Root(NamedTuple):
    """The folder of one watch. `polling` None: where the file system is remote."""

    name: str
    path: str
    rules: Rules
    polling: bool | None = None
    mounted: bool = False  # a file system was mounted there when it was last seen


class RootState(NamedTuple):
    """How well a watch hears."""

    state: str  # "watching"; "polling": scan more often, events are not all; "away": no root, let its jobs wait
    folders: int  # that are heard
    missing: int  # that should be and are not
    overflows: int
    sentence: str  # what a person should know; empty when all is well


class FolderFacts(NamedTuple):
    """What is known of a folder. `identity` is device and inode."""

    identity: tuple[int, int]
    mounted: bool  # a file system is mounted at that very folder
    kind: str  # of the file system

    @property
    def remote(self) -> str:
        """The kind, if others than this machine's programs can write there."""
        return self.kind if _is_remote(self.kind) else ""

    @property
    def trouble(self) -> str:
        """Why it cannot be watched; empty if it can."""
        return "that is dumbwaiter's own mount" if self.kind == OURS else ""


class ForeignLink(OSError):
    """A link of somebody else's is on the way to a watched folder: it could lead to what nobody wants uploaded."""

    def __init__(self, link: str) -> None:
        self.sentence = f"the link {shown(link)} is another user's, and is not followed"
        super().__init__(errno.ENOLINK, self.sentence)


def open_root(path: str, flags: int = os.O_RDONLY) -> int:
    """Opens a watched folder by its absolute path. Raises OSError; `ForeignLink` for a link that is neither ours nor root's."""
    flags |= os.O_DIRECTORY | os.O_CLOEXEC
    folder = os.open(path, flags)
    with suppress(OSError):
        if os.readlink(f"/proc/self/fd/{folder}") == path:  # no link is on the way
            return folder
    os.close(folder)
    here = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        ahead, links, at_root = path.split("/")[::-1], 0, True
        while ahead:
            name = ahead.pop()
            if name in {"", "."}:
                continue
            below = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            status = os.fstat(below)
            if not stat.S_ISLNK(status.st_mode):
                os.close(here)
                here, at_root = below, False
                continue
            try:
                if not at_root and status.st_uid not in {0, os.geteuid()}:  # who may write there is root, mapped or not
                    raise ForeignLink(f"{os.readlink(f'/proc/self/fd/{here}')}/{name}")
                target = os.readlink("", dir_fd=below)
            finally:
                os.close(below)
            links += 1
            if links > _LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            ahead += target.split("/")[::-1]
            if target.startswith("/"):
                os.close(here)
                here, at_root = os.open("/", os.O_PATH | os.O_CLOEXEC), True
        return os.open(".", flags, dir_fd=here)
    finally:
        os.close(here)


def inspect_folder(path: str) -> FolderFacts:
    """Looks at a folder. Raises OSError if there is none, as `open_root` does."""
    folder = open_root(path, os.O_PATH)
    try:
        above = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        try:
            # By mount and not by device: a folder may be mounted over another of the same file system.
            mount, mount_above = _mount(folder), _mount(above)
        finally:
            os.close(above)
        status = os.fstat(folder)
    finally:
        os.close(folder)
    mounted = mount != mount_above and not _over_itself(mount, mount_above)
    return FolderFacts((status.st_dev, status.st_ino), mounted, _kind(mount))


def _over_itself(mount: str, above: str) -> bool:
    """Says whether a folder is mounted over itself, as systemd does for what a service may write to: no disk came with it."""
    found = {one.number: one for one in mount_list()}
    if mount not in found or above not in found:
        return False
    one = found[mount]
    return (one.device, one.folder) == (found[above].device, found[above].called(one.point))


def mounts() -> Iterator[tuple[str, str]]:
    """Yields where file systems are mounted, and their kinds; no disk is asked."""
    with suppress(OSError), open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            _, place, kind, *_ = line.split(" ")
            yield _plain(place), kind


class Mounted(NamedTuple):
    """A line of the kernel's list (proc_pid_mountinfo(5)), as text."""

    number: str
    device: str
    folder: str  # of the file system, that is seen there
    point: str
    kind: str  # of the file system
    source: str

    def called(self, path: str) -> str:
        """Returns what its file system calls a path below it."""
        return os.path.normpath(os.path.join(self.folder, os.path.relpath(path, self.point)))


def mount_list() -> Iterator[Mounted]:
    """Yields all that is mounted, what lies on top of another after it; nothing without /proc. No disk is asked."""
    with _NoProc(), open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            number, _, device, folder, point, *_ = before.split(" ")
            kind, source, *_ = after.split(" ")
            yield Mounted(number, device, _plain(folder), _plain(point), kind, source)


def _plain(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


def on_disk(path: str) -> tuple[str, str]:
    """Returns which disk a path without links lies on and what it is called there, by whichever of its mounts it is reached.

    No disk is asked. Mounts of ours are passed over: what counts is where they lie.
    """
    found = "", path
    for one in mount_list():
        if os.path.commonpath([path, one.point]) == one.point and one.kind != OURS:
            # By its source too: what a server exports may have one number, and each be "/".
            found = f"{one.device} {one.source}", one.called(path)
    return found


def mounted_at(path: str) -> str:
    """Returns where the disk is mounted that a path lies on, or would. May block.

    One that is mounted over a folder of its own, as systemd does for what a service may write to, is no other disk.
    """
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def resolved(path: str) -> str:
    """Returns where an absolute path leads through links; no network's file system is asked, so it does not block."""
    remote = {place for place, kind in mounts() if _is_remote(kind)}
    here, ahead, links = "/", path.split("/"), 0
    while ahead and here not in remote:
        name = ahead.pop(0)
        if name in {"", "."}:
            continue
        if name == "..":
            here = os.path.dirname(here)
            continue
        inner = os.path.join(here, name)
        try:
            target = os.readlink(inner) if inner not in remote and links < _LINKS else ""
        except OSError:  # no link
            target = ""
        if target:
            links += 1
            here, ahead = "/" if target.startswith("/") else here, [*target.split("/"), *ahead]
        else:
            here = inner
    return os.path.normpath(os.path.join(here, *ahead))


def disk_of(folder: str) -> str:
    """Returns where the network's file system is mounted that a folder lies in, by its name; else the folder itself."""
    return network_at(folder) or folder


def network_at(folder: str) -> str:
    """Returns where the network's file system is mounted that a folder lies in, by its name; empty for another. No disk is asked."""
    below = (place for place, kind in mounts() if _is_remote(kind) and f"{folder}/".startswith(f"{place}/"))
    return max(below, key=len, default="")


def hangs_with(root: str, path: str) -> str:
    """Returns what hangs if this file does: the folder of its watch, or the disk of one that is in none."""
    return root if root != "/" else disk_of(os.path.dirname(f"/{path}"))


def is_remote(descriptor: int) -> bool:
    """True where others than this machine's programs can write to an open file or folder. Raises OSError."""
    device, now = os.fstat(descriptor).st_dev, time.monotonic()
    if os.major(device):  # a disk
        return False
    until, remote = _kinds.get(device, (0.0, False))
    if until < now:
        remote = _is_remote(_kind(_mount(descriptor)))
        _kinds[device] = now + KNOWN, remote
    return remote


def _is_remote(kind: str) -> bool:
    return kind in _REMOTE or kind.startswith("fuse.")


def _mount(descriptor: int) -> str:
    with _NoProc(), open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
        if found := re.search(r"^mnt_id:\s*(\d+)", file.read(), re.MULTILINE):
            return found[1]
    return str(os.fstat(descriptor).st_dev)  # no /proc


def _kind(mount: str) -> str:
    return next((one.kind for one in mount_list() if one.number == mount), "")
