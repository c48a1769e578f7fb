"""Aliyun OSS's formats: header signatures of version 1 and 4, post policies, callbacks, errors, CRC-64.

OSS's manual, "include signatures in the authorization header" (V1), "include a V4 signature", "PostObject" (policy),
"callback", and "data integrity" (x-oss-hash-crc64ecma, CRC-64/XZ in decimal).
"""

import base64
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import formatdate
from functools import lru_cache
from hashlib import sha256
from html import unescape
from typing import Any
from urllib.parse import quote

import msgspec
from fastcrc import crc64
from msgspec import Struct

from dumbwaiter.wire.message import query as encoded
from dumbwaiter.wire.times import moment

Query = Iterable[tuple[str, str | None]]

# What version 1 signs of a query; the rest, it ignores.
SIGNED = frozenset(
    {
        "acl",
        "append",
        "callback",
        "callback-var",
        "continuation-token",
        "delete",
        "objectMeta",
        "partNumber",
        "position",
        "security-token",
        "sequential",
        "symlink",
        "tagging",
        "uploadId",
        "uploads",
        "versionId",
        "versions",
        "x-oss-process",
    }
)
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"


class Account(Struct, frozen=True):
    """A key pair, and the security token that goes with a temporary one."""

    access_key: str
    secret: str
    token: str = ""


def signed_v1(
    account: Account, method: str, bucket: str, key: str, query: Query, headers: Mapping[str, str], now: float
) -> dict[str, str]:
    """Returns `headers` (names in lower case) with date, token and signature of version 1."""
    all_ = {**headers, "date": formatdate(now, usegmt=True), **_token(account)}
    own = sorted((name, value.strip()) for name, value in all_.items() if name.startswith("x-oss-"))
    parts = sorted((name, value) for name, value in query if name in SIGNED)
    search = "&".join(name if value is None else f"{name}={value}" for name, value in parts)
    text = "\n".join(
        [
            method,
            all_.get("content-md5", ""),
            all_.get("content-type", ""),
            all_["date"],
            *(f"{name}:{value}" for name, value in own),
            f"/{bucket}/{key}" + (f"?{search}" if search else ""),
        ]
    )
    signature = base64.b64encode(hmac.digest(account.secret.encode(), text.encode(), "sha1")).decode()
    return {**all_, "authorization": f"OSS {account.access_key}:{signature}"}


def signed_v4(
    account: Account,
    method: str,
    bucket: str,
    key: str,
    query: Query,
    headers: Mapping[str, str],
    now: float,
    *,
    region: str,
) -> dict[str, str]:
    """Returns `headers` (names in lower case) with date, token and signature of version 4."""
    stamp = datetime.fromtimestamp(int(now), UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{region}/oss/aliyun_v4_request"
    all_ = {**headers, "x-oss-date": stamp, "x-oss-content-sha256": UNSIGNED_PAYLOAD, **_token(account)}
    taken = sorted(
        (name, value.strip())
        for name, value in all_.items()
        if name in {"content-type", "content-md5"} or name.startswith("x-oss-")
    )
    canonical = "\n".join(
        [
            method,
            quote(f"/{bucket}/{key}", safe="/~"),
            encoded(sorted((name, value or None) for name, value in query)),
            *(f"{name}:{value}" for name, value in taken),
            "",
            "",  # additional headers: none
            UNSIGNED_PAYLOAD,
        ]
    )
    text = f"OSS4-HMAC-SHA256\n{stamp}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    signing = f"aliyun_v4{account.secret}".encode()
    for part in scope.split("/"):
        signing = hmac.digest(signing, part.encode(), "sha256")
    signature = hmac.digest(signing, text.encode(), "sha256").hex()
    credential = f"{account.access_key}/{scope}"
    return {**all_, "authorization": f"OSS4-HMAC-SHA256 Credential={credential},Signature={signature}"}


def _token(account: Account) -> dict[str, str]:
    return {"x-oss-security-token": account.token} if account.token else {}


def in_base64(text: str) -> str:
    """Returns a callback or its variables as the header holds them."""
    return base64.b64encode(text.encode()).decode()


class Policy(Struct, frozen=True):
    """What a post policy permits. None: it does not say."""

    expires: float | None = None
    size_min: int | None = None
    size_max: int | None = None
    key: str | None = None
    prefix: str | None = None

    def covers(self, key: str) -> bool:
        """True if an object of this name may be made."""
        return (self.key is None or key == self.key) and (self.prefix is None or key.startswith(self.prefix))


class _Document(Struct):
    expiration: str = ""
    conditions: tuple[Any, ...] = ()


def policy(text: str) -> Policy | None:
    """Reads a post policy, None when it cannot be read: to a client it is opaque."""
    try:
        document = msgspec.json.decode(base64.b64decode(text, validate=True), type=_Document)
    except (ValueError, RecursionError, msgspec.DecodeError):
        return None
    found: dict[str, Any] = {"expires": moment(document.expiration)}
    for condition in document.conditions:
        match condition:
            case ["content-length-range", int() as low, int() as high]:
                found["size_min"], found["size_max"] = low, high
            case ["starts-with", "$key", str() as prefix]:
                found["prefix"] = prefix
            case ["eq", "$key", str() as key] | {"key": str() as key}:
                found["key"] = key
    return Policy(**found)


class Trouble(Struct, frozen=True):
    """An error as OSS words it; both are empty when somebody else answered."""

    code: str = ""
    message: str = ""


def trouble(body: bytes) -> Trouble:
    """Reads an error's XML. Unknown members, namespaces and other texts do no harm."""
    return Trouble(element(body, "Code"), element(body, "Message")) if b"<Error" in body else Trouble()


def element(body: bytes, name: str) -> str:
    """Returns the text of the first element of that name, empty without one."""
    match = re.search(rf"<{name}>([^<]*)</{name}>", body.decode("utf-8", "replace"))
    return unescape(match[1].strip()) if match else ""


def complete(parts: Iterable[tuple[int, str]]) -> bytes:
    """Returns the body that joins parts: number and ETag of each, in order."""
    lines = (f"<Part><PartNumber>{number}</PartNumber><ETag>&quot;{tag}&quot;</ETag></Part>" for number, tag in parts)
    return f"<CompleteMultipartUpload>{''.join(lines)}</CompleteMultipartUpload>".encode()


class Crc:
    """CRC-64 of bytes in order."""

    def __init__(self) -> None:
        self.value = 0
        self.count = 0

    def update(self, data: bytes | memoryview, /) -> None:
        self.value = crc64.xz(data, self.value)
        self.count += len(data)

    def observe(self, _offset: int, data: bytes | memoryview) -> None:
        """`update` for one who also says where the bytes stand."""
        self.update(data)


_POLYNOMIAL = 0xC96C5795D7870F42  # of CRC-64/XZ, reflected


def combined(first: int, second: int, length: int) -> int:
    """Returns the CRC of A+B from the CRCs of A and B and the length of B.

    Appending zeros is a linear map on the register; its matrix is squared once for each bit of the length (the
    method of zlib's crc32_combine).
    """
    return _times(_zeros(length), first) ^ second


@lru_cache(maxsize=8)  # parts of one file share a length
def _zeros(length: int) -> tuple[int, ...]:
    """Returns the map that appends so many zero bytes, a column for each bit."""
    power = [_POLYNOMIAL, *(1 << bit for bit in range(63))]  # one zero bit
    for _ in range(3):
        power = [_times(power, column) for column in power]
    whole = [1 << bit for bit in range(64)]
    while length:
        if length & 1:
            whole = [_times(power, column) for column in whole]
        length >>= 1
        power = [_times(power, column) for column in power]
    return tuple(whole)


def _times(matrix: Sequence[int], vector: int) -> int:
    result = 0
    for column in matrix:
        if vector & 1:
            result ^= column
        vector >>= 1
        if not vector:
            break
    return result
