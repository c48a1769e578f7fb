"""What a file looks like from outside: stat fields and extended attributes. Pure.

No value here needs a request or a look at the disk.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime

from dumbwaiter.catalog import Waiting
from dumbwaiter.links import FORMS, filled
from dumbwaiter.model import Entry, State
from dumbwaiter_fs.inodes import Inode
from dumbwaiter_fs.wire import FILE, FOLDER

PREFIX = "user.dumbwaiter."
# What every file has.
NAMES = ("url", "markdown", "provider", "key", "watch", "path", "state", "etag", "stored_at", "verified", "error")
XATTR_MAX = 65536  # the kernel's limit for one value
BLOCK = 4096

Attributes = dict[str, int]


def brief(number: int, *, folder: bool) -> Attributes:
    """Returns what a listing needs of a name: its kind and number."""
    return {"st_mode": FOLDER if folder else FILE, "st_ino": number}


def complete(inode: Inode) -> Attributes:
    """Returns all that stat tells."""
    return {
        **brief(inode.number, folder=inode.folder),
        # One link means "not counted": 2 would tell `find` that there are no folders inside.
        "st_nlink": 1,
        "st_uid": os.getuid(),
        "st_gid": os.getgid(),
        "st_size": inode.size,
        "st_blocks": -(-inode.size // 512),
        "st_mtime": inode.mtime_ns,
        "st_ctime": inode.ctime_ms * 1_000_000,
        "st_atime": inode.mtime_ns,
    }


def of_system(files: int, size: int) -> dict[str, int]:
    """Returns the answer to statvfs: as full as the catalog is, and no room for more."""
    return {
        "f_bsize": BLOCK,
        "f_frsize": BLOCK,
        "f_blocks": -(-size // BLOCK),
        "f_bfree": 0,
        "f_bavail": 0,
        "f_files": files,
        "f_ffree": 0,
        "f_favail": 0,
        "f_namemax": 255,
        "f_flag": os.ST_RDONLY | os.ST_NOSUID,
    }


def extended(file: Entry | Waiting | None, trouble: str | None = None) -> dict[str, bytes]:
    """Returns the extended attributes, empty where nothing is to be said; a folder has none.

    `trouble`: why it cannot be read.
    """
    if file is None:
        return {}
    known = {name: (value or "").encode("utf-8", "surrogateescape") for name, value in _facts(file, trouble)}
    return {
        PREFIX + name: value if len(value) <= XATTR_MAX else b""
        for name, value in {**dict.fromkeys(NAMES, b""), **known}.items()
    }


def _facts(file: Entry | Waiting, trouble: str | None) -> Iterator[tuple[str, str | None]]:
    yield "provider", file.provider
    yield "key", file.key
    yield "watch", file.watch
    yield "path", file.path
    if isinstance(file, Waiting):
        yield "state", file.state
        yield "error", file.error
        return
    yield "state", State.DONE if file.watch else None
    yield "url", file.url
    yield "markdown", filled(file, FORMS["markdown"]) if file.url else None
    yield "etag", file.etag
    yield "stored_at", _time(file.stored_at)
    if file.unlisted_at is not None:
        yield "unlisted_at", _time(file.unlisted_at)
    yield "verified", file.verified
    yield "error", file.facts.get("error") or trouble


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
