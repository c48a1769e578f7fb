"""Qiniu Kodo: upload hosts (form, parts, blocks), the query for hosts, and downloads; other vendors' tokens point here.

Qiniu's developer manual, 'form upload', 'chunked upload v2' and 'v1', 'error response'. The rule: an object comes into
being in one place, `_create`, under the policy of the token that came last; a callback that fails leaves the object and
answers 579.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import mimetypes
import os
import re
import uuid
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from dumbwaiter_sandbox import cdn, kodo_accounts, kodo_policy, multipart
from dumbwaiter_sandbox.callback import caller
from dumbwaiter_sandbox.kodo_options import KodoOptions
from dumbwaiter_sandbox.kodo_policy import Policy
from dumbwaiter_sandbox.kodo_sessions import (
    BLOCK,
    Block,
    Part,
    Session,
    Sessions,
    content_hash,
    hash_of_parts,
    join,
    remove,
)
from dumbwaiter_sandbox.nos_callback import CallbackFailedError
from dumbwaiter_sandbox.storage import StoredObject, UnstorableError
from dumbwaiter_sandbox.world import Endpoint, RefusedError, Service, Vendor, World, entry_of, fault_of

UP_CALLS = ("form", "init", "part", "parts", "complete", "abort", "mkblk", "bput", "mkfile")
CREATING = ("form", "complete", "mkfile")
PART_CALLS = ("part", "parts", "complete")
HOSTS = ("up1", "up2")
OWN_FAULTS = frozenset(
    {"579", "exists", "no-upload", "no-context", "expired-token", "bad-token", "region", "region-loop",
     "region-foreign", "no-key", "bad-md5", "bad-crc", "lost-part", "no-bucket"}
)  # fmt: skip
NUMBER_LIMIT = 10_000
_PLAIN_HEADERS = {"cache-control": "no-store"}


def _build(world: World) -> Mapping[str, Endpoint]:
    kodo = Kodo(world)
    return {
        **{name: kodo.endpoint(name) for name in HOSTS},
        "uc": _uc(world),
        "io": cdn.endpoint(world, lambda request, bucket, key: _may_read(world, request, bucket)),
    }


def _may_read(world: World, request: Request, bucket: str) -> bool:
    """Whether a download is allowed: a private bucket wants `e` and, last in the address, `token`."""
    if "authorization" in request.headers:
        return False  # another service's key has no business here
    account = kodo_accounts.of_bucket(bucket)
    options = cast("KodoOptions", world.options["kodo"])
    given = request.query_params.get("token")
    if account is None or given is None:
        return account is None or bucket not in account.private or not options.signed_downloads
    expires = request.query_params.get("e", "")
    # As it was written: the signature covers the address and not what it means.
    target = f"{request.scope['raw_path'].decode()}?{request.scope['query_string'].decode()}"
    signed = f"http://{request.headers['host']}{target}".rpartition("token=")[0][:-1]
    right = f"{account.access_key}:{kodo_accounts.sign(account, signed)}"
    timely = expires.isascii() and expires.isdigit() and world.clock.now() < int(expires)
    return timely and hmac.compare_digest(given.encode(), right.encode())


def _uc(world: World) -> Endpoint:
    """Which hosts take the uploads for a bucket."""

    def domains(*names: str) -> list[str]:
        return [world.urls[name].removeprefix("http://") for name in names]

    async def query(request: Request) -> Response:
        account = kodo_accounts.by_key(request.query_params.get("ak", ""))
        bucket = request.query_params.get("bucket", "")
        if account is None or bucket not in account.buckets:
            return _error(631, "no such bucket")
        up, io, uc = domains(*HOSTS), domains("io"), domains("uc")
        if request.url.path.startswith("/v2/"):
            near, far = {"main": up[:1], "backup": up[1:]}, {"main": up}
            return _answer({"ttl": 86400, "up": {"acc": near, "src": far}, "io": {"src": {"main": io}}})
        services = {"up": up, "io": io, "io_src": io, "rs": uc, "rsf": uc, "api": uc, "uc": uc}
        host = {name: {"domains": found, "old": []} for name, found in services.items()}
        return _answer({"hosts": [{"region": "z0", "ttl": 86400, **host}]})

    routes = [Route(f"/{version}/query", query) for version in ("v2", "v4")]
    return Endpoint(Starlette(routes=routes), lambda scope: ("query",), lambda _, status: _error(status, "error"))


@dataclass(frozen=True)
class Arrived:
    """A file that is here whole, and what its sender says of it."""

    path: str
    size: int
    etag: str
    name: str | None = None  # of the file
    mime: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)  # x:variables and x-qn-meta-*


class Kodo:
    """All upload hosts of all buckets; they share one state."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sessions = Sessions(world.data, world.database)

    @property
    def _options(self) -> KodoOptions:
        return cast("KodoOptions", self._world.options["kodo"])

    def endpoint(self, name: str) -> Endpoint:
        """The server of one host."""
        there = "/buckets/{bucket}/objects/{object}/uploads"
        calls: tuple[tuple[str, str, Callable[[Request], Awaitable[Response]]], ...] = (
            ("POST", "/", self.form),
            ("POST", there, self.init),
            ("PUT", there + "/{id}/{number}", self.part),
            ("GET", there + "/{id}", self.parts),
            ("POST", there + "/{id}", self.complete),
            ("DELETE", there + "/{id}", self.abort),
            ("POST", "/mkblk/{size:int}", self.mkblk),
            ("POST", "/bput/{context}/{offset:int}", self.bput),
            ("POST", "/mkfile/{size:int}", self.mkfile),
            ("POST", "/mkfile/{size:int}/{rest:path}", self.mkfile),
        )
        routes = [Route(path, self._guarded(name, call), methods=[method]) for method, path, call in calls]
        app = Starlette(
            routes=routes,
            exception_handlers={404: _lacking, 405: _lacking},
        )
        return Endpoint(app, _calls, lambda _, status: _error(status, f"injected {status}"), OWN_FAULTS)

    def _guarded(
        self, host: str, call: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            try:
                if request.headers.get("authorization", "").startswith("Bearer "):
                    raise RefusedError(400, "a credential of another service")
                self._perform(request, host)
                return await call(request)
            except RefusedError as error:
                return _error(error.status, str(error))
            except UnstorableError as error:
                return _error(400, str(error))

        return guarded

    def _perform(self, request: Request, host: str) -> None:
        """Strikes with a fault that needs no more than the request."""
        fault = fault_of(request)
        here = self._world.urls[host].removeprefix("http://")
        other = self._world.urls[HOSTS[1 - HOSTS.index(host)]].removeprefix("http://")
        match fault.name if fault else "":
            case "expired-token":
                raise RefusedError(401, "expired token")
            case "bad-token":
                raise RefusedError(401, "bad token")
            case "region":
                raise RefusedError(400, f"incorrect region, please use {other}")
            case "region-loop":
                raise RefusedError(400, f"incorrect region, please use {here}")
            case "region-foreign":
                raise RefusedError(400, "incorrect region, please use up.example.test")
            case "exists":
                raise RefusedError(614, "file exists")
            case "no-bucket":
                raise RefusedError(631, "no such bucket")
            case "no-context":
                raise RefusedError(701, "ctx expired")

    # Form

    async def form(self, request: Request) -> Response:
        path = self._sessions.scratch()
        try:
            try:
                form = await multipart.read(request.headers.get("content-type", ""), request.stream(), path)
            except multipart.FormError as error:
                raise RefusedError(400, str(error)) from error
            last = bool(form.order) and form.order[-1] == "file"
            entry_of(request).facts.update(fields=form.order, file_last=last, filename=form.filename)
            if form.filename is None or "file" not in form.order:
                raise RefusedError(400, "file is not specified")
            policy = kodo_policy.check(form.fields.get("token", ""), self._world.clock.now())
            if not last and (self._options.file_last or policy.account.file_last):
                raise RefusedError(400, "file is not the last field")
            self._damaged(path, form.fields.get("crc32"))
            fields = {name: value for name, value in form.fields.items() if name.startswith(("x:", "x-qn-meta-"))}
            etag = await asyncio.to_thread(content_hash, path)
            arrived = Arrived(path, form.size, etag, form.filename, form.mime, fields)
            return await self._create(request, policy, form.fields.get("key"), arrived)
        finally:
            remove([path])

    @staticmethod
    def _damaged(path: str, crc: str | None) -> None:
        if crc is None:
            return
        with open(path, "rb") as file:
            if not crc.isdigit() or zlib.crc32(file.read()) != int(crc):
                raise RefusedError(406, "crc32 does not match")

    # Parts

    async def init(self, request: Request) -> Response:
        policy = self._admitted(request)
        if not self._options.v2:
            raise RefusedError(404, "not found")
        policy.check_key(_key(request.path_params["object"]))
        session = self._sessions.begin(
            policy.account.access_key,
            policy.bucket,
            request.path_params["object"],
            self._world.clock.now() + self._options.upload_life,
        )
        return _answer({"uploadId": session.id, "expireAt": int(session.expires)})

    def _admitted(self, request: Request) -> Policy:
        """The policy of the token in the header, which must be for the bucket of the path."""
        word, _, token = request.headers.get("authorization", "").partition(" ")
        policy = kodo_policy.check(token if word == "UpToken" else "", self._world.clock.now())
        bucket = request.path_params.get("bucket", policy.bucket)
        if bucket != policy.bucket:
            raise RefusedError(403, "the token is for another bucket")
        entry_of(request).facts["bucket"] = bucket
        return policy

    def _session(self, request: Request, policy: Policy) -> Session:
        session = self._sessions.find(request.path_params["id"], self._world.clock.now())
        fault = fault_of(request)
        if session and fault and fault.name == "no-upload":
            self._sessions.forget(session)
            session = None
        if session is None or session.access_key != policy.account.access_key:
            raise RefusedError(612, "no such uploadId")
        if (session.bucket, session.object) != (policy.bucket, request.path_params["object"]):
            raise RefusedError(400, "the upload is for another object")
        policy.check_key(_key(session.object))
        return session

    async def part(self, request: Request) -> Response:
        policy = self._admitted(request)
        session = self._session(request, policy)
        text = request.path_params["number"]
        if not text.isdigit() or not 1 <= int(text) <= NUMBER_LIMIT:
            raise RefusedError(400, "invalid part number")
        number = int(text)
        entry_of(request).facts["part"] = number
        path = self._sessions.scratch()
        try:
            size, md5 = await self._save(request, path)
            given = request.headers.get("content-md5")
            if given is not None and given != md5:
                raise RefusedError(406, "Content-MD5 does not match")
            etag = f"t-{md5}" if self._options.opaque_tags else await asyncio.to_thread(content_hash, path)
            part = Part(number, size, etag, md5, self._world.clock.now())
            if self._options.size_checked == "part":
                others = (one.size for one in self._sessions.parts(session) if one.number != number)
                policy.check_size(size + sum(others))
            if self._sessions.find(session.id, self._world.clock.now()) is None:
                raise RefusedError(612, "no such uploadId")
            self._sessions.store(session, part, path)
        finally:
            remove([path])
        fault = fault_of(request)
        if fault and fault.name == "bad-md5":  # as if other bytes had arrived
            return _answer({"etag": "F" + "0" * 27, "md5": "0" * 32})
        return _answer({"etag": part.etag, "md5": md5})

    async def _save(self, request: Request, path: str) -> tuple[int, str]:
        """Write a body to a file; its size and MD5. Raises RefusedError when it is shorter than announced."""
        md5, size = hashlib.md5(), 0
        with _opened(path) as file:
            async for data in request.stream():
                file.write(data)
                md5.update(data)
                size += len(data)
        announced = request.headers.get("content-length")
        if announced is not None and int(announced) != size:
            raise RefusedError(400, "the body breaks off")
        return size, md5.hexdigest()

    async def parts(self, request: Request) -> Response:
        policy = self._admitted(request)
        if not self._options.listing:
            raise RefusedError(405, "method not allowed")
        session = self._session(request, policy)
        fault = fault_of(request)
        query = request.query_params
        marker = int(query.get("part-number-marker") or query.get("part-number_marker") or 0)
        most = max(1, min(int(query.get("max-parts", 1000)), self._options.page))
        stored = self._sessions.parts(session)
        if stored and fault and fault.name == "lost-part":
            self._sessions.drop_part(session, stored[0].number)
            stored = stored[1:]
        rest = [part for part in stored if part.number > marker]
        return _answer(
            {
                "uploadId": session.id,
                "expireAt": int(session.expires),
                "partNumberMarker": rest[most - 1].number if len(rest) > most else 0,
                "parts": [
                    {"partNumber": part.number, "etag": part.etag, "size": part.size, "putTime": int(part.stored)}
                    for part in rest[:most]
                ],
            }
        )

    async def complete(self, request: Request) -> Response:
        policy = self._admitted(request)
        session = self._session(request, policy)
        try:
            members = json.loads(await request.body())
            named = [(one["partNumber"], one["etag"]) for one in members["parts"]]
        except (ValueError, KeyError, TypeError) as error:
            raise RefusedError(400, "the body is not the expected JSON") from error
        chosen = self._chosen(session, named)
        path = self._sessions.scratch()
        paths = [self._sessions.path(session, part.number) for part in chosen]
        try:
            await asyncio.to_thread(join, paths, path)
            etag = await asyncio.to_thread(hash_of_parts, paths)
            fields = {**(members.get("customVars") or {}), **(members.get("metadata") or {})}
            arrived = Arrived(
                path,
                sum(part.size for part in chosen),
                etag,
                members.get("fname"),
                members.get("mimeType") or "",
                fields,
            )
            answer = await self._create(request, policy, _key(session.object), arrived)
        finally:
            remove([path])
        self._sessions.forget(session)
        return answer

    def _chosen(self, session: Session, named: list[tuple[int, str]]) -> list[Part]:
        stored = {part.number: part for part in self._sessions.parts(session)}
        numbers = [number for number, _ in named]
        if not numbers or numbers != sorted(set(numbers)):
            raise RefusedError(400, "the parts do not ascend")
        if any(number not in stored or stored[number].etag != etag for number, etag in named):
            raise RefusedError(400, "a part is not there, or is another")
        if any(stored[number].size < self._options.part_min for number in numbers[:-1]):
            raise RefusedError(400, "a part is too small")
        return [stored[number] for number in numbers]

    async def abort(self, request: Request) -> Response:
        self._sessions.forget(self._session(request, self._admitted(request)))
        return _answer({})

    # Blocks

    async def mkblk(self, request: Request) -> Response:
        policy = self._admitted(request)
        if not self._options.v1:
            raise RefusedError(404, "not found")
        size = request.path_params["size"]
        if not 0 < size <= BLOCK:
            raise RefusedError(400, "a block has at most 4 MiB")
        block = Block("", self._sessions.scratch(), policy.account.access_key, size, 0, 0.0)
        return await self._grow(request, block, None)

    async def bput(self, request: Request) -> Response:
        policy = self._admitted(request)
        context = request.path_params["context"]
        block = self._sessions.block(context, self._world.clock.now())
        if block is None or block.access_key != policy.account.access_key:
            raise RefusedError(701, "ctx is not known")
        if block.offset != request.path_params["offset"]:
            raise RefusedError(701, "the piece is out of order")
        return await self._grow(request, block, context)

    async def _grow(self, request: Request, block: Block, before: str | None) -> Response:
        path = self._sessions.scratch()
        try:
            size, _ = await self._save(request, path)
            if size == 0 or block.offset + size > block.size:
                raise RefusedError(400, "the piece does not fit into its block")
            data = _append(path, block.file, block.offset)
        finally:
            remove([path])
        expires = self._world.clock.now() + self._options.block_life
        block = replace(block, context=uuid.uuid4().hex, offset=block.offset + size, expires=expires)
        self._sessions.advance(block, before)
        fault = fault_of(request)
        return _answer(
            {
                "ctx": block.context,
                "checksum": base64.urlsafe_b64encode(hashlib.sha1(data).digest()).decode(),
                "crc32": zlib.crc32(data) ^ (1 if fault and fault.name == "bad-crc" else 0),
                "offset": block.offset,
                "host": str(request.base_url).rstrip("/"),
                "expired_at": int(block.expires),
            }
        )

    async def mkfile(self, request: Request) -> Response:
        policy = self._admitted(request)
        contexts = [one for one in (await request.body()).decode("latin-1").split(",") if one]
        found = [self._sessions.block(one, self._world.clock.now()) for one in contexts]
        blocks = [one for one in found if one is not None and one.access_key == policy.account.access_key]
        if len(blocks) < len(contexts):
            raise RefusedError(701, "ctx is not known")
        if any(one.offset != one.size for one in blocks) or any(one.size != BLOCK for one in blocks[:-1]):
            raise RefusedError(400, "a block is not complete")
        if sum(one.size for one in blocks) != request.path_params["size"]:
            raise RefusedError(400, "the blocks are not as long as the file")
        named = _named(request.path_params.get("rest", ""))
        path = self._sessions.scratch()
        try:
            await asyncio.to_thread(join, [one.file for one in blocks], path)
            fields = {name: value for name, value in named.items() if name.startswith("x")}
            size, etag = request.path_params["size"], await asyncio.to_thread(content_hash, path)
            arrived = Arrived(path, size, etag, named.get("fname"), named.get("mimeType", ""), fields)
            answer = await self._create(request, policy, named.get("key"), arrived, replaces=True)
        finally:
            remove([path])
        self._sessions.forget_blocks(blocks)
        return answer

    # The object

    async def _create(
        self, request: Request, policy: Policy, key: str | None, arrived: Arrived, *, replaces: bool = False
    ) -> Response:
        """Make the object and answer as the policy says. `replaces`: a scope without a key protects nothing."""
        now = self._world.clock.now()
        policy.check_time(now)
        policy.check_key(key)
        policy.check_size(arrived.size)
        policy.check_mime(_head(arrived.path))
        variables: dict[str, object] = {
            **kodo_policy.moment(now),
            **arrived.fields,
            "bucket": policy.bucket,
            "etag": arrived.etag,
            "fname": arrived.name,
            "fsize": arrived.size,
            "mimeType": self._mime(policy, arrived, key),
            "endUser": policy.members.get("endUser"),
            "ext": os.path.splitext(arrived.name or "")[1] or None,
        }
        name = policy.name(key, variables)
        variables["key"] = name
        entry_of(request).facts.update(bucket=policy.bucket, key=name, size=arrived.size, hash=arrived.etag)
        stored = StoredObject(
            policy.bucket,
            name,
            arrived.size,
            arrived.etag,
            str(variables["mimeType"]),
            now,
            {one: value for one, value in arrived.fields.items() if one.startswith("x-qn-meta-")},
        )
        if not self._is_there(policy, stored, replaces=replaces):
            self._world.objects.publish(arrived.path, stored)
        return await self._respond(request, policy, variables)

    def _is_there(self, policy: Policy, stored: StoredObject, *, replaces: bool) -> bool:
        """Whether the same content is there already. Raises RefusedError when another one is and must stay."""
        there = self._world.objects.find(stored.bucket, stored.key)
        creates_only = policy.flag("insertOnly") if replaces else policy.creates_only
        if there is None or not creates_only:
            return False
        same = there.etag == stored.etag and not policy.flag("isPrefixalScope")
        if not same or (policy.flag("insertOnly") and self._options.same_content == "exists"):
            raise RefusedError(614, "file exists")
        return True

    @staticmethod
    def _mime(policy: Policy, arrived: Arrived, key: str | None) -> str:
        if arrived.mime and not policy.number("detectMime"):
            return arrived.mime
        guessed = mimetypes.guess_type(arrived.name or "")[0] or mimetypes.guess_type(key or "")[0]
        if guessed:
            return guessed
        return kodo_policy.sniffed(_head(arrived.path))

    async def _respond(self, request: Request, policy: Policy, variables: Mapping[str, object]) -> Response:
        fault = fault_of(request)
        name = fault.name if fault else ""
        if policy.text("callbackUrl"):
            if name == "579":
                return _callback_failed(policy, "injected")
            try:
                text = await self._call_back(policy, variables)
                members = json.loads(text)
            except (CallbackFailedError, ValueError) as error:
                return _callback_failed(policy, str(error))
        elif name == "579":
            return _callback_failed(policy, "injected")
        elif policy.text("returnUrl"):
            body = kodo_policy.filled_json(policy.text("returnBody") or "{}", variables)
            given = base64.urlsafe_b64encode(body.encode()).decode()
            return _answer({}, 303, {"location": f"{policy.text('returnUrl')}?upload_ret={given}"})
        elif policy.text("returnBody"):
            members = json.loads(kodo_policy.filled_json(policy.text("returnBody"), variables))
        else:
            members = {"hash": variables["etag"], "key": variables["key"]}
        if name == "no-key":
            members = {"status": "taken"}
        return _answer(members)

    async def _call_back(self, policy: Policy, variables: Mapping[str, object]) -> str:
        """The answer of the first callback address that gives one. Raises CallbackFailedError."""
        form = policy.text("callbackBodyType") != "application/json"
        fill = kodo_policy.filled_form if form else kodo_policy.filled_json
        body = fill(policy.text("callbackBody"), variables)
        trouble = CallbackFailedError("there is no address")
        for url in policy.text("callbackUrl").split(";"):
            inside = self._world.inside.get(url)
            try:
                return await inside(body) if inside else await self._post(policy, url, body, form=form)
            except CallbackFailedError as error:
                trouble = error
        raise trouble

    async def _post(self, policy: Policy, url: str, body: str, *, form: bool) -> str:
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        headers = {
            "content-type": "application/x-www-form-urlencoded" if form else "application/json",
            "authorization": kodo_accounts.callback_authorization(policy.account, path, body, form=form),
        }
        if policy.text("callbackHost"):
            headers["host"] = policy.text("callbackHost")
        try:
            async with caller(self._options.callback_patience) as client:
                reply = await client.post(url, content=body.encode(), headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CallbackFailedError(f"the callback failed: {type(error).__name__}") from error
        if reply.status_code != 200:
            raise CallbackFailedError(f"the callback was answered with {reply.status_code}")
        return reply.text


def _opened(path: str) -> BinaryIO:
    return open(path, "wb")


def _append(path: str, whole: str, offset: int) -> bytes:
    """Put a piece behind the first `offset` bytes of a file; the piece."""
    with open(path, "rb") as piece, open(whole, "ab") as block:
        block.truncate(offset)
        data = piece.read()
        block.write(data)
    return data


def _head(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(512)


def _callback_failed(policy: Policy, why: str) -> Response:
    told = {"callback_url": policy.text("callbackUrl"), "token": "", "err_code": 579, "error": why}
    return _error(579, json.dumps(told))


def _key(segment: str) -> str | None:
    """The key that a segment of a path names. Raises RefusedError."""
    if segment == "~":
        return None
    try:
        return base64.b64decode(segment, b"-_", validate=True).decode()
    except ValueError as error:
        raise RefusedError(400, "the object's name is no URL-safe base64") from error


def _named(rest: str) -> dict[str, str]:
    """The pairs behind the size in mkfile's path; values are base64."""
    segments = rest.strip("/").split("/") if rest else []
    return {name: _key(value) or "" for name, value in zip(segments[::2], segments[1::2], strict=False)}


def _answer(members: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    marks = {**_PLAIN_HEADERS, "x-reqid": uuid.uuid4().hex[:16], "x-log": "sandbox", **(headers or {})}
    return JSONResponse(members, status, marks)


def _error(status: int, message: str) -> Response:
    return _answer({"error": message, "code": status}, status)


async def _lacking(_request: Request, error: Exception) -> Response:
    return _error(getattr(error, "status_code", 404), "not found")


_PATTERNS = tuple(
    (method, re.compile(pattern), call)
    for method, pattern, call in (
        ("POST", r"/", "form"),
        ("POST", r"/buckets/[^/]+/objects/[^/]+/uploads", "init"),
        ("PUT", r"/buckets/[^/]+/objects/[^/]+/uploads/[^/]+/[^/]+", "part"),
        ("GET", r"/buckets/[^/]+/objects/[^/]+/uploads/[^/]+", "parts"),
        ("POST", r"/buckets/[^/]+/objects/[^/]+/uploads/[^/]+", "complete"),
        ("DELETE", r"/buckets/[^/]+/objects/[^/]+/uploads/[^/]+", "abort"),
        ("POST", r"/mkblk/.*", "mkblk"),
        ("POST", r"/bput/.*", "bput"),
        ("POST", r"/mkfile/.*", "mkfile"),
    )
)


def _calls(scope: Scope) -> tuple[str, ...]:
    for method, pattern, call in _PATTERNS:
        if scope["method"] == method and pattern.fullmatch(scope["path"]):
            return (call,)
    return ()


def _at(*calls: str) -> tuple[str, ...]:
    return tuple(f"{name}.{call}" for name in ("kodo", *HOSTS) for call in calls)


VENDOR = Vendor(
    name="kodo",
    services=(
        *(Service(name, "kodo", UP_CALLS) for name in HOSTS),
        Service("uc", "uc", ("query",)),
        Service("io", "io", ("get",)),
    ),
    faults={
        "579": _at(*CREATING),
        "exists": _at(*CREATING),
        "no-key": _at(*CREATING),
        "no-bucket": _at(*UP_CALLS),
        "no-upload": _at(*PART_CALLS),
        "no-context": _at("bput", "mkfile"),
        **dict.fromkeys(("expired-token", "bad-token", "region", "region-loop", "region-foreign"), _at(*UP_CALLS)),
        "bad-md5": _at("part"),
        "bad-crc": _at("mkblk", "bput"),
        "lost-part": _at("parts"),
    },
    deferred={},
    secrets=("token",),
    options=KodoOptions,
    accounts={
        "access_key": kodo_accounts.ACCOUNTS["kodo"].access_key,
        "secret_key": kodo_accounts.ACCOUNTS["kodo"].secret_key,
    },
    build=_build,
    providers=lambda _: {},
)
