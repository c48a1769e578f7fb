"""Aliyun OSS: forms, single puts, uploads in parts, downloads; the bucket stands in the host name or first in the path.

OSS's manual, the page of each call. The rule: an object comes into being in one place, `_create`; only then is the callback made,
and a callback that fails leaves the object and answers 203.
"""

import asyncio
import base64
import contextlib
import hashlib
import os
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import cast
from urllib.parse import parse_qsl, quote, unquote_to_bytes
from xml.sax.saxutils import escape

from fastcrc import crc64
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from dumbwaiter_sandbox import multipart
from dumbwaiter_sandbox.callback import CallbackFailedError
from dumbwaiter_sandbox.cdn import content
from dumbwaiter_sandbox.oss import accounts, callbacks, policies, signatures
from dumbwaiter_sandbox.oss.callbacks import Callback
from dumbwaiter_sandbox.oss.options import OssOptions
from dumbwaiter_sandbox.oss.parts import Part, Upload, Uploads
from dumbwaiter_sandbox.oss.refusal import RefusedError, respond
from dumbwaiter_sandbox.oss.signatures import Asked, Caller
from dumbwaiter_sandbox.storage import StoredObject, UnstorableError
from dumbwaiter_sandbox.world import Endpoint, Service, Vendor, World, entry_of, fault_of

CALLS = ("post", "put", "begin", "part", "complete", "list", "abort", "get")
CREATING = ("oss.post", "oss.put", "oss.complete")
SIGNED = tuple(f"oss.{name}" for name in CALLS if name != "post")
KEY_LIMIT = 1023
NUMBER_LIMIT = 10_000
PART_MIN = 100 * 1024
CRC = "x-oss-hash-crc64ecma"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_PART = re.compile(r"<Part>(.*?)</Part>", re.DOTALL)
_NUMBER = re.compile(r"<PartNumber>\s*(\d+)\s*</PartNumber>")
_TAG = re.compile(r"<ETag>\s*(?:&quot;|&#34;|\")?([0-9A-Fa-f-]+)(?:&quot;|&#34;|\")?\s*</ETag>")


@dataclass(frozen=True)
class Body:
    """Bytes that are here whole."""

    path: str
    size: int
    md5: str  # upper-case hex
    crc: int


class Oss:
    """The one server of all buckets."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._uploads = Uploads(world.data, world.database)

    @property
    def _options(self) -> OssOptions:
        return cast("OssOptions", self._world.options["oss"])

    def endpoint(self) -> Endpoint:
        """The server."""
        routes = [
            Route("/_callback_pub_key_v1.pem", lambda _: PlainTextResponse(accounts.PUBLIC_KEY)),
            Route("/{path:key}", self._answer, methods=["GET", "HEAD", "POST", "PUT", "DELETE"]),
        ]
        own = frozenset({"203", "expired", "no-upload", "no-part", "bad-crc", "bad-policy", "late"})
        return Endpoint(Starlette(routes=routes), _calls, lambda _, status: respond(status), own)

    async def _answer(self, request: Request) -> Response:
        reply = await self._answered(request)
        reply.headers.setdefault("x-oss-request-id", hashlib.md5(os.urandom(8)).hexdigest()[:24].upper())
        return reply

    async def _answered(self, request: Request) -> Response:
        calls: dict[str, Callable[[Request, Asked, Caller], Awaitable[Response]]] = {
            "put": self._put,
            "begin": self._begin,
            "part": self._part,
            "complete": self._complete,
            "list": self._list,
            "abort": self._abort,
            "get": self._get,
        }
        try:
            asked = _asked(request)
            entry_of(request).facts.update(bucket=asked.bucket, object=asked.key)
            if asked.bucket != accounts.BUCKET:
                raise RefusedError(404, "NoSuchBucket", "The specified bucket does not exist.")
            self._strike(request)
            name = next(iter(_calls(request.scope)), "")
            if name == "post":
                return await self._post(request, asked)
            if name not in calls:
                raise RefusedError(405, "MethodNotAllowed")
            who = signatures.caller(asked, self._options, self._world.clock.now())
            if not 0 < len(asked.key.encode()) <= KEY_LIMIT or asked.key[0] in "/\\":
                raise RefusedError(400, "InvalidObjectName", "The specified object is not valid.")
            return await calls[name](request, asked, who)
        except RefusedError as error:
            return respond(error.status, error.code, str(error), error.extra)
        except UnstorableError as error:
            return respond(400, "InvalidObjectName", str(error))

    def _strike(self, request: Request) -> None:
        fault = fault_of(request)
        match fault.name if fault else "":
            case "expired":
                raise RefusedError(403, "SecurityTokenExpired", "The security token you provided has expired.")
            case "bad-policy":
                raise RefusedError(403, "AccessDenied", "Invalid according to Policy: Policy expired.")
            case "late":
                raise RefusedError(403, "RequestTimeTooSkewed", "The difference to the server time is too large.")
            case "no-part":
                raise RefusedError(400, "InvalidPart", "One or more of the specified parts could not be found.")
            case "no-upload":
                upload = self._uploads.find(request.query_params.get("uploadId", ""))
                if upload is not None:
                    self._uploads.end(upload, forget=True)

    def _allow(self, who: Caller, action: str) -> None:
        if not who.access_key or not who.may(action, self._options):
            raise RefusedError(403, "AccessDenied", "You have no right to access this object because of bucket acl.")

    # Objects

    async def _post(self, request: Request, asked: Asked) -> Response:
        with self._scratch() as path:
            try:
                form = await multipart.read(request.headers.get("content-type", ""), request.stream(), path)
            except multipart.FormError as error:
                raise RefusedError(400, "MalformedPOSTRequest", str(error)) from error
            if form.filename is None:
                raise RefusedError(400, "IncorrectNumberOfFilesInPOSTRequest", "POST requires exactly one file upload.")
            before = form.order[: form.order.index("file")] if "file" in form.order else []
            fields = {name: form.fields[name] for name in before if name in form.fields}
            entry_of(request).facts.update(fields=before, key=fields.get("key", ""))
            if not fields.get("key"):
                raise RefusedError(
                    400,
                    "InvalidArgument",
                    "Bucket POST must contain a field named 'key'. If it is specified, please check the order of the fields.",
                )
            given = [name for name in policies.TRIPLE if name in fields]
            if len(given) != len(policies.TRIPLE):
                if given:
                    raise RefusedError(400, "InvalidArgument", "OSSAccessKeyId, policy and Signature belong together.")
                raise RefusedError(403, "AccessDenied", "Anonymous uploads are not allowed.")
            callback = callbacks.read(
                fields.get("callback"), {name: value for name, value in fields.items() if name.startswith("x:")}
            )
            now = self._world.clock.now()
            secret, _ = signatures.secret_of(fields["OSSAccessKeyId"], fields.get("x-oss-security-token", ""), now)
            policies.check(fields, secret, asked.bucket, now).check(form.size)
            key = fields["key"].replace("${filename}", form.filename)
            if len(key.encode()) > KEY_LIMIT or key[0] in "/\\":
                raise RefusedError(400, "InvalidObjectName", "The specified object is not valid.")
            body = await asyncio.to_thread(_measured, path)
            self._spare(asked.bucket, key, fields)
            stored = self._create(asked.bucket, key, body, form.mime, f"{body.md5}")
        status = {"200": 200, "201": 201}.get(fields.get("success_action_status", ""), 204)
        reply = Response(status_code=status)
        if status == 201:
            reply = _xml("PostResponse", {"Bucket": stored.bucket, "ETag": f'"{stored.etag}"', "Key": stored.key}, 201)
        return await self._called_back(request, stored, callback, reply)

    async def _put(self, request: Request, asked: Asked, who: Caller) -> Response:
        self._allow(who, "PutObject")
        callback = self._callback(asked)
        with self._scratch() as path:
            body = await self._receive(request, path)
            self._spare(asked.bucket, asked.key, asked.headers)
            stored = self._create(asked.bucket, asked.key, body, request.headers.get("content-type", ""), body.md5)
        return await self._called_back(
            request, stored, callback, Response(headers={"content-md5": _md5_text(body.md5)})
        )

    def _spare(self, bucket: str, key: str, asked: Mapping[str, str]) -> None:
        """Refuses to replace an object where that was asked for."""
        if asked.get("x-oss-forbid-overwrite") == "true" and self._world.objects.find(bucket, key) is not None:
            raise RefusedError(
                409, "FileAlreadyExists", "The object you specified already exists and can not be overwritten."
            )

    def _create(self, bucket: str, key: str, body: Body, kind: str, etag: str) -> StoredObject:
        """Make the object visible."""
        stored = StoredObject(
            bucket,
            key,
            body.size,
            etag,
            kind or "application/octet-stream",
            self._world.clock.now(),
            {CRC: str(body.crc)},
        )
        self._world.objects.publish(body.path, stored)
        return stored

    def _callback(self, asked: Asked) -> Callback | None:
        header, query = asked.headers.get("x-oss-callback"), asked.query.get("callback")
        if header and query:
            raise RefusedError(400, "InvalidArgument", "The callback is given twice.")
        text = asked.headers.get("x-oss-callback-var") or asked.query.get("callback-var")
        return callbacks.read(header or query, callbacks.variables(text))

    async def _called_back(
        self, request: Request, stored: StoredObject, callback: Callback | None, reply: Response
    ) -> Response:
        """Call back, and put the answer in the place of ours."""
        entry_of(request).facts["stored"] = stored.size
        fault = fault_of(request)
        if callback is not None or (fault and fault.name == "203"):
            try:
                if fault and fault.name == "203":
                    raise CallbackFailedError("Error Status : 502.")
                assert callback is not None
                key_url = f"{self._world.urls['oss']}/_callback_pub_key_v1.pem"
                answer = await callbacks.send(callback, stored, key_url, self._options.callback_patience)
                reply = Response(answer, media_type="application/json")
            except CallbackFailedError as error:
                reply = respond(203, "CallbackFailed", str(error))
        reply.headers["etag"] = f'"{stored.etag}"'
        crc = stored.meta[CRC]
        if self._options.crc:
            reply.headers[CRC] = str(int(crc) ^ 1) if fault and fault.name == "bad-crc" else crc
        return reply

    # Parts

    async def _begin(self, request: Request, asked: Asked, who: Caller) -> Response:
        self._allow(who, "PutObject")
        upload = self._uploads.begin(asked.bucket, asked.key, request.headers.get("content-type", ""))
        members = {"Bucket": asked.bucket, "Key": _named(asked), "UploadId": upload.id}
        return _xml("InitiateMultipartUploadResult", members)

    def _upload(self, asked: Asked) -> Upload:
        upload = self._uploads.find(asked.query.get("uploadId", ""))
        if upload is None or upload.over or (upload.bucket, upload.key) != (asked.bucket, asked.key):
            raise RefusedError(404, "NoSuchUpload", "The specified upload does not exist.")
        return upload

    async def _part(self, request: Request, asked: Asked, who: Caller) -> Response:
        self._allow(who, "PutObject")
        upload = self._upload(asked)
        text = asked.query.get("partNumber", "")
        if not text.isdigit() or not 1 <= int(text) <= NUMBER_LIMIT:
            raise RefusedError(400, "InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive.")
        number = int(text)
        entry_of(request).facts["part"] = number
        with self._scratch() as path:
            body = await self._receive(request, path)
            self._upload(asked)  # it may have ended meanwhile
            self._uploads.store(upload, Part(number, body.size, body.md5, body.crc, self._world.clock.now()), path)
        fault = fault_of(request)
        crc = body.crc ^ 1 if fault and fault.name == "bad-crc" else body.crc
        headers = {"etag": f'"{body.md5}"', **({CRC: str(crc)} if self._options.crc else {})}
        return Response(headers=headers)

    async def _complete(self, request: Request, asked: Asked, who: Caller) -> Response:
        self._allow(who, "PutObject")
        upload = self._uploads.find(asked.query.get("uploadId", ""))
        if upload is not None and upload.over and self._options.complete_idempotent:
            stored = self._world.objects.find(asked.bucket, asked.key)
            if stored is not None:
                return await self._called_back(request, stored, None, _joined(stored, asked))
        upload = self._upload(asked)
        callback = self._callback(asked)
        chosen = self._chosen(upload, (await request.body()).decode("utf-8", "replace"))
        with self._scratch() as path:
            await asyncio.to_thread(self._uploads.join, upload, [part.number for part in chosen], path)
            body = await asyncio.to_thread(_measured, path)
            tags = hashlib.md5(b"".join(bytes.fromhex(part.etag) for part in chosen)).hexdigest().upper()
            self._upload(asked)
            self._spare(asked.bucket, asked.key, asked.headers)
            stored = self._create(asked.bucket, asked.key, body, upload.content_type, f"{tags}-{len(chosen)}")
        self._uploads.end(upload)
        return await self._called_back(request, stored, callback, _joined(stored, asked))

    def _chosen(self, upload: Upload, text: str) -> list[Part]:
        named = []
        for piece in _PART.findall(text):
            number, tag = _NUMBER.search(piece), _TAG.search(piece)
            if not number or not tag:
                raise RefusedError(400, "MalformedXML", "The XML you provided was not well-formed.")
            named.append((int(number[1]), tag[1].upper()))
        if not named:
            raise RefusedError(400, "MalformedXML", "The XML you provided was not well-formed.")
        numbers = [number for number, _ in named]
        if numbers != sorted(set(numbers)):
            raise RefusedError(400, "InvalidPartOrder", "The list of parts was not in ascending order.")
        stored = {part.number: part for part in self._uploads.parts(upload)}
        if any(number not in stored or stored[number].etag != tag for number, tag in named):
            raise RefusedError(400, "InvalidPart", "One or more of the specified parts could not be found.")
        if any(stored[number].size < PART_MIN for number in numbers[:-1]):
            raise RefusedError(400, "EntityTooSmall", "Your proposed upload smaller than the minimum allowed size.")
        return [stored[number] for number in numbers]

    async def _list(self, _: Request, asked: Asked, who: Caller) -> Response:
        self._allow(who, "ListParts")
        upload = self._upload(asked)
        marker = int(asked.query.get("part-number-marker") or 0)
        most = int(asked.query.get("max-parts") or 1000)
        rest = [part for part in self._uploads.parts(upload) if part.number > marker]
        lines = "".join(
            f"<Part><PartNumber>{part.number}</PartNumber><LastModified>2018-05-28T14:00:00.000Z</LastModified>"
            f"<ETag>&quot;{part.etag}&quot;</ETag><HashCrc64ecma>{part.crc}</HashCrc64ecma><Size>{part.size}</Size></Part>"
            for part in rest[:most]
        )
        last = rest[:most][-1].number if rest else marker
        members = {
            "Bucket": asked.bucket,
            "Key": _named(asked),
            "UploadId": upload.id,
            "NextPartNumberMarker": str(last),
            "MaxParts": str(most),
            "IsTruncated": str(len(rest) > most).lower(),
        }
        return _xml("ListPartsResult", members, more=lines)

    async def _abort(self, _: Request, asked: Asked, who: Caller) -> Response:
        self._allow(who, "AbortMultipartUpload")
        self._uploads.end(self._upload(asked), forget=True)
        return Response(status_code=204)

    # Downloads

    async def _get(self, request: Request, asked: Asked, who: Caller) -> Response:
        if who.access_key or not self._options.public_read:
            self._allow(who, "GetObject")
        stored = self._world.objects.find(asked.bucket, asked.key)
        if stored is None:
            raise RefusedError(404, "NoSuchKey", "The specified key does not exist.")
        etag = f'"{stored.etag}"'
        if request.headers.get("if-match", etag) not in {etag, "*"}:
            raise RefusedError(412, "PreconditionFailed", "At least one of the pre-conditions did not hold.")
        headers = {
            "etag": etag,
            "accept-ranges": "bytes",
            "last-modified": formatdate(stored.modified, usegmt=True),
            "content-type": stored.content_type,
            "x-oss-object-type": "Multipart" if "-" in stored.etag else "Normal",
            **({CRC: stored.meta[CRC]} if self._options.crc and CRC in stored.meta else {}),
        }
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        span = _span(request.headers, stored.size)
        path = self._world.objects.path(stored.bucket, stored.key)
        return content(request.method, path, stored.size, span, headers)

    # Bytes

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[str]:
        path = self._uploads.scratch()
        try:
            yield path
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    async def _receive(self, request: Request, path: str) -> Body:
        """A body on disk. Raises RefusedError when its digest is not the announced one."""
        if "content-length" not in request.headers and "transfer-encoding" not in request.headers:
            raise RefusedError(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        with open(path, "wb") as file:  # noqa: ASYNC230 - on a local disk
            async for data in request.stream():
                file.write(data)
        body = await asyncio.to_thread(_measured, path)
        given = request.headers.get("content-md5")
        if given is not None and given != _md5_text(body.md5):
            raise RefusedError(400, "InvalidDigest", "The Content-MD5 you specified did not match.")
        return body


def _measured(path: str) -> Body:
    md5, crc, size = hashlib.md5(), 0, 0
    with open(path, "rb") as file:
        while piece := file.read(1024 * 1024):
            md5.update(piece)
            crc = crc64.xz(piece, crc)
            size += len(piece)
    return Body(path, size, md5.hexdigest().upper(), crc)


def _md5_text(digest: str) -> str:
    return base64.b64encode(bytes.fromhex(digest)).decode()


def _span(headers: Mapping[str, str], size: int) -> tuple[int, int] | None:
    """First byte and the byte after the last, None for the whole object: also for a range that leaves the object."""
    match = _RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    if not match or match.groups() == ("", ""):
        return None
    standard = headers.get("x-oss-range-behavior") == "standard"
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
        return (start, end) if 0 < int(last) <= size or (standard and size) else None
    start, end = int(first), int(last) + 1 if last else size
    if start >= size and standard:
        raise RefusedError(416, "InvalidRange", "The requested range cannot be satisfied.")
    if end > size and standard:
        end = size
    return (start, end) if start < end <= size else None


def _named(asked: Asked) -> str:
    """The key as the answer shall hold it."""
    return quote(asked.key, safe="") if asked.query.get("encoding-type") == "url" else asked.key


def _joined(stored: StoredObject, asked: Asked) -> Response:
    key = _named(asked)
    members = {"Location": key, "Bucket": stored.bucket, "Key": key, "ETag": f'"{stored.etag}"'}
    return _xml("CompleteMultipartUploadResult", members)


def _xml(root: str, members: Mapping[str, str], status: int = 200, more: str = "") -> Response:
    text = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in members.items())
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}>{text}{more}</{root}>'
    return Response(body, status, media_type="application/xml")


def _asked(request: Request) -> Asked:
    """What is asked for, with the bucket from the host name or from the path."""
    raw = request.scope["raw_path"].removeprefix(b"/")
    host = request.headers.get("host", "")
    if host.startswith(f"{accounts.BUCKET}."):
        bucket, key = accounts.BUCKET, raw
    else:
        first, _, key = raw.partition(b"/")
        bucket = first.decode("latin-1")
    try:
        name = unquote_to_bytes(key).decode()
    except UnicodeDecodeError as error:
        raise RefusedError(400, "InvalidObjectName", "The name is not UTF-8.") from error
    query = dict(parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True))
    return Asked(request.method, bucket, name, query, dict(request.headers))


def _calls(scope: Scope) -> tuple[str, ...]:
    names = {part.partition(b"=")[0] for part in scope["query_string"].split(b"&")}
    match scope["method"]:
        case "GET" | "HEAD":
            return ("list",) if b"uploadId" in names else ("get",)
        case "PUT":
            return ("part",) if b"uploadId" in names else ("put",)
        case "POST":
            return ("begin",) if b"uploads" in names else ("complete",) if b"uploadId" in names else ("post",)
        case "DELETE":
            return ("abort",) if b"uploadId" in names else ()
    return ()


VENDOR = Vendor(
    name="oss",
    services=(Service("oss", "oss", CALLS),),
    faults={
        "203": CREATING,
        "expired": SIGNED,
        "late": SIGNED,
        "bad-policy": ("oss.post",),
        "bad-crc": (*CREATING, "oss.part"),
        "no-upload": ("oss.part", "oss.complete"),
        "no-part": ("oss.complete",),
    },
    deferred={},
    secrets=("x-oss-security-token", "security-token", "signature"),
    options=OssOptions,
    accounts={
        "access_key": accounts.ACCESS_KEY,
        "secret_key": accounts.SECRET,
        "bucket": accounts.BUCKET,
        "region": accounts.REGION,
    },
    build=lambda world: {"oss": Oss(world).endpoint()},
    providers=lambda urls: {},
)
