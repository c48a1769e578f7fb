"""ImageX's formats: the checksum of a body, the end of an upload permission, the list that joins parts, server times.

Volcengine's veImageX manual ("ApplyImageUpload", "CommitImageUpload") and the official SDKs describe them: a checksum
is CRC-32 as zip files have it, written with eight small hexadecimal digits, leading zeros too.
"""

import base64
import math
import re
import zlib
from collections.abc import Mapping
from datetime import datetime

import msgspec
from msgspec import Struct

from dumbwaiter.wire.times import BEIJING, moment

_REQUEST = re.compile(r"(\d{14})")


class Crc32:
    """The checksum of bytes in their order."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | memoryview) -> None:
        self._value = zlib.crc32(data, self._value)

    def text(self) -> str:
        return f"{self._value:08x}"


def same(one: str, other: str) -> bool:
    """True when two checksums have the same value, whatever zeros stand before it."""
    try:
        return int(one, 16) == int(other, 16)
    except ValueError:
        return False


def merge_list(parts: Mapping[int, str], first: int) -> bytes:
    """Returns the body that joins parts; `first` is the number of the first one on the wire."""
    return ",".join(f"{number + first}:{parts[number]}" for number in sorted(parts)).encode()


class _Claims(Struct):
    exp: float | None = None


def expires_at(auth: str) -> float | None:
    """Reads the end of an upload permission, a JWT behind a prefix; None when it cannot be read: it is opaque to us."""
    try:
        payload = auth.rpartition(":")[2].split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=_Claims)
    except (IndexError, ValueError, RecursionError, msgspec.DecodeError):
        return None
    return claims.exp


def server_time(request: str) -> float | None:
    """Reads the server's time from the identifier it gave a request, which begins with the time in Beijing."""
    match = _REQUEST.match(request)
    try:
        return datetime.strptime(match[1], "%Y%m%d%H%M%S").replace(tzinfo=BEIJING).timestamp() if match else None
    except (ValueError, OverflowError):
        return None


def instant(value: str | float | None) -> float | None:
    """Reads a time in any of the forms that token services give: epoch seconds, as number or text, or RFC 3339."""
    try:
        seconds = float(value or "nan")
    except ValueError:
        return moment(str(value))
    return seconds if math.isfinite(seconds) else None
