"""A request to one of NetEase's upload nodes, read strictly.

NetEase's VOD manual, 'media upload': whatever is missing, malformed or over the limit is refused with 400 before the body is read.
"""

import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.requests import Request
from starlette.types import Receive, Scope

from dumbwaiter_sandbox.world import RefusedError

CHUNK_LIMIT = 4 * 1024 * 1024
_NUMBER = re.compile(r"[0-9]{1,18}")
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Chunk:
    """The parameters of one upload request."""

    offset: int
    length: int
    complete: bool
    context: str
    md5: str


def names_of(raw_path: bytes, *, plain_slashes: bool) -> tuple[str, str]:
    """Bucket and object, split before decoding so that %2F stays within the name."""
    first, _, rest = raw_path.removeprefix(b"/").partition(b"/")
    if not first or not rest or (b"/" in rest and not plain_slashes):
        raise RefusedError(400, "the path is not /bucket/object with an encoded object name")
    try:
        return unquote_to_bytes(first).decode(), unquote_to_bytes(rest).decode()
    except UnicodeDecodeError as error:
        raise RefusedError(400, "the path is not UTF-8") from error


def query_of(scope: Scope) -> dict[str, str]:
    """The parameters, `version` checked; a flag without "=" counts as empty."""
    try:
        pairs = parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict")
    except (UnicodeDecodeError, ValueError) as error:
        raise RefusedError(400, "the query is malformed") from error
    query = dict(pairs)
    if len(query) < len(pairs):
        raise RefusedError(400, "a parameter stands twice in the query")
    if query.get("version") != "1.0":
        raise RefusedError(400, "version is not 1.0")
    return query


def needed(query: dict[str, str], name: str) -> str:
    if not query.get(name):
        raise RefusedError(400, f"{name} is missing")
    return query[name]


def chunk_of(request: Request, query: dict[str, str]) -> Chunk:
    offset, complete = needed(query, "offset"), needed(query, "complete")
    if not _NUMBER.fullmatch(offset):
        raise RefusedError(400, "offset is not a whole number")
    if complete not in ("true", "false"):
        raise RefusedError(400, "complete is neither true nor false")
    length = request.headers.get("content-length", "")
    if not _NUMBER.fullmatch(length) or int(length) > CHUNK_LIMIT:
        raise RefusedError(400, f"Content-Length is not between 0 and {CHUNK_LIMIT}")
    md5 = request.headers.get("content-md5", "")
    if md5 and not _MD5.fullmatch(md5):
        raise RefusedError(400, "Content-MD5 is not a lower-case hexadecimal MD5")
    return Chunk(int(offset), int(length), complete == "true", query.get("context", ""), md5)


async def arriving(receive: Receive, each: "hashlib._Hash | None") -> AsyncIterator[bytes]:
    """The body as it comes; it simply ends when the client leaves."""
    more = True
    while more:
        message = await receive()
        more = message["type"] == "http.request" and message.get("more_body", False)
        if body := message.get("body", b""):
            if each is not None:
                each.update(body)
            yield body
