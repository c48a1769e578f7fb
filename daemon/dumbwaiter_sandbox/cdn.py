"""Downloads: GET and HEAD of /BUCKET/KEY with ranges, streamed from disk.

Ordinary HTTP (RFC 9110, sections 13 and 14): one byte range at a time, 416 beyond the end, several ranges or a malformed header
get the whole object. Slashes of a key stay as they are in the path.
"""

import os
import re
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from urllib.parse import unquote_to_bytes

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Scope

from dumbwaiter_sandbox.storage import StoredObject, UnstorableError
from dumbwaiter_sandbox.world import Endpoint, World, entry_of

PIECE = 256 * 1024
CODES = {403: "AccessDenied", 404: "NoSuchKey", 412: "PreconditionFailed", 416: "InvalidRange"}
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")

Allow = Callable[[Request, str, str], bool]


def endpoint(world: World, allow: Allow) -> Endpoint:
    """The download server; `allow` decides by request, bucket and key."""

    async def get(request: Request) -> Response:
        bucket, key = _names(request.scope)
        entry_of(request).facts.update(bucket=bucket, object=key)
        if not allow(request, bucket, key):
            return _error(403)
        try:
            stored = world.objects.find(bucket, key)
        except UnstorableError:
            stored = None
        if stored is None:
            return _error(404)
        return _answer(request, stored, world.objects.path(bucket, key))

    app = Starlette(routes=[Route("/{path:key}", get, methods=["GET", "HEAD"])])
    return Endpoint(app, _calls, lambda _, status: _error(status))


def _calls(scope: Scope) -> tuple[str, ...]:
    return ("get",) if scope["method"] in ("GET", "HEAD") else ()


def _names(scope: Scope) -> tuple[str, str]:
    bucket, _, key = scope["raw_path"].removeprefix(b"/").partition(b"/")
    return tuple(unquote_to_bytes(part).decode("utf-8", "replace") for part in (bucket, key))  # type: ignore[return-value]


def _answer(request: Request, stored: StoredObject, path: str) -> Response:
    if not os.path.exists(path):  # somebody took it out by hand
        return _error(404)
    etag = f'"{stored.etag}"'
    headers = {
        "etag": etag,
        "last-modified": formatdate(stored.modified, usegmt=True),
        "accept-ranges": "bytes",
        "content-type": stored.content_type,
        **stored.meta,
    }
    if _listed(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    if "if-match" in request.headers and not _listed(request.headers["if-match"], etag):
        return _error(412)
    wanted = request.headers.get("range") if request.headers.get("if-range", etag) == etag else None
    span = _span(wanted, stored.size)
    if span is not None and span[0] >= span[1]:
        return _error(416, {"content-range": f"bytes */{stored.size}"})
    return content(request.method, path, stored.size, span, headers)


def content(method: str, path: str, size: int, span: tuple[int, int] | None, headers: dict[str, str]) -> Response:
    """Answers with an object, or with a part of it."""
    start, end = span or (0, size)
    headers["content-length"] = str(end - start)
    if span:
        headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
    status = 206 if span else 200
    if method == "HEAD":
        return Response(status_code=status, headers=headers)
    # Opened here, so that an object replaced meanwhile is still read in one version.
    return StreamingResponse(_pieces(os.open(path, os.O_RDONLY), start, end), status, headers)


async def _pieces(file: int, start: int, end: int) -> AsyncIterator[bytes]:
    try:
        while start < end and (piece := os.pread(file, min(PIECE, end - start), start)):
            start += len(piece)
            yield piece
    finally:
        os.close(file)


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the byte after the last; None for the whole, an empty span for one that cannot be had."""
    match = _RANGE.fullmatch(header.replace(" ", "")) if header else None
    if not match or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return (max(0, size - int(last)), size) if int(last) else (size, size)
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1) if last else size


def _listed(header: str | None, etag: str) -> bool:
    return header is not None and (header.strip() == "*" or etag in (part.strip() for part in header.split(",")))


def _error(status: int, headers: dict[str, str] | None = None) -> Response:
    code = CODES.get(status, "InternalError")
    text = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
    return Response(text, status, headers, "application/xml")
