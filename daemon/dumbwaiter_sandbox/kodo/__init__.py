"""Qiniu Kodo's upload hosts: form, parts and blocks; other vendors' tokens point here.

Qiniu's developer manual, 'form upload', 'chunked upload v2' and 'v1', 'error response'.
"""

import asyncio
import base64
import hashlib
import json
import re
import uuid
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import BinaryIO, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from dumbwaiter_sandbox import multipart
from dumbwaiter_sandbox.kodo import accounts, downloads, policies, uc
from dumbwaiter_sandbox.kodo.create import Arrived, create
from dumbwaiter_sandbox.kodo.options import KodoOptions
from dumbwaiter_sandbox.kodo.policies import Policy
from dumbwaiter_sandbox.kodo.reply import json_answer, json_error
from dumbwaiter_sandbox.kodo.sessions import (
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
from dumbwaiter_sandbox.kodo.uc import HOSTS
from dumbwaiter_sandbox.storage import UnstorableError
from dumbwaiter_sandbox.world import Endpoint, RefusedError, Service, Vendor, World, entry_of, fault_of

UP_CALLS = ("form", "init", "part", "parts", "complete", "abort", "mkblk", "bput", "mkfile")
CREATING = ("form", "complete", "mkfile")
PART_CALLS = ("part", "parts", "complete")
OWN_FAULTS = frozenset(
    {"579", "exists", "no-upload", "no-context", "expired-token", "bad-token", "region", "region-loop",
     "region-foreign", "no-key", "bad-md5", "bad-crc", "lost-part", "no-bucket"}
)  # fmt: skip
NUMBER_LIMIT = 10_000


def _build(world: World) -> Mapping[str, Endpoint]:
    kodo = Kodo(world)
    return {
        **{name: kodo.endpoint(name) for name in HOSTS},
        "uc": uc.endpoint(world),
        "io": downloads.endpoint(world),
    }


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
        return Endpoint(app, _calls, lambda _, status: json_error(status, f"injected {status}"), OWN_FAULTS)

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
                return json_error(error.status, str(error))
            except UnstorableError as error:
                return json_error(400, str(error))

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
            policy = policies.check(form.fields.get("token", ""), self._world.clock.now())
            if not last and (self._options.file_last or policy.account.file_last):
                raise RefusedError(400, "file is not the last field")
            self._damaged(path, form.fields.get("crc32"))
            fields = {name: value for name, value in form.fields.items() if name.startswith(("x:", "x-qn-meta-"))}
            etag = await asyncio.to_thread(content_hash, path)
            arrived = Arrived(path, form.size, etag, form.filename, form.mime, fields)
            return await create(self._world, request, policy, form.fields.get("key"), arrived)
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
        return json_answer({"uploadId": session.id, "expireAt": int(session.expires)})

    def _admitted(self, request: Request) -> Policy:
        """The policy of the token in the header, which must be for the bucket of the path."""
        word, _, token = request.headers.get("authorization", "").partition(" ")
        policy = policies.check(token if word == "UpToken" else "", self._world.clock.now())
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
            return json_answer({"etag": "F" + "0" * 27, "md5": "0" * 32})
        return json_answer({"etag": part.etag, "md5": md5})

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
        return json_answer(
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
            answer = await create(self._world, request, policy, _key(session.object), arrived)
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
        return json_answer({})

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
        return json_answer(
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
            answer = await create(self._world, request, policy, named.get("key"), arrived, replaces=True)
        finally:
            remove([path])
        self._sessions.forget_blocks(blocks)
        return answer


def _opened(path: str) -> BinaryIO:
    return open(path, "wb")


def _append(path: str, whole: str, offset: int) -> bytes:
    """Put a piece behind the first `offset` bytes of a file; the piece."""
    with open(path, "rb") as piece, open(whole, "ab") as block:
        block.truncate(offset)
        data = piece.read()
        block.write(data)
    return data


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


async def _lacking(_request: Request, error: Exception) -> Response:
    return json_error(getattr(error, "status_code", 404), "not found")


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
        "access_key": accounts.ACCOUNTS["kodo"].access_key,
        "secret_key": accounts.ACCOUNTS["kodo"].secret_key,
    },
    build=_build,
    providers=lambda _: {},
)
