"""What type a file is of: by its first bytes where these leave no doubt, else by its name."""

import mimetypes
import os
from functools import lru_cache

from dumbwaiter.model import UNKNOWN

# Vendors look inside; a picture with another's suffix is what it is.
_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)

_PACKED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}  # whatever is in them


def mime_of(fd: int, name: str) -> str:
    """Returns the type of an open file: by its first bytes where these leave no doubt, else by its name."""
    return mime_by_head(os.pread(fd, 16, 0)) or mime_by_name(name)


def mime_by_head(head: bytes) -> str | None:
    """Returns the type of pictures that their first bytes leave no doubt of, whatever their name says."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((mime for magic, mime in _MAGIC if head.startswith(magic)), None)


def mime_by_name(name: str) -> str:
    """Returns the type that the last suffixes of a name, or of a path, stand for."""
    return _mime_by_suffix(*name.rpartition("/")[2].lstrip(".").rsplit(".", 2)[1:])


@lru_cache(maxsize=256)
def _mime_by_suffix(*suffixes: str) -> str:
    mime, packed = mimetypes.guess_type(".".join(("name", *suffixes)))
    return (_PACKED.get(packed) if packed else mime) or UNKNOWN
