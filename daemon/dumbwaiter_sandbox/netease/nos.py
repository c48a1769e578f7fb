"""NetEase's upload nodes: chunks in order, at most 4 MiB each, and the query of the breakpoint.

NetEase's VOD manual, 'media upload' and 'query of the upload breakpoint'. The rule: the offset in the answer is what is stored,
and the object is there when a request with complete=true is answered 200 with the whole size. All nodes share one state.
"""

import hashlib
import uuid
from dataclasses import dataclass
from typing import cast

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from dumbwaiter_sandbox.callback import CallbackFailedError
from dumbwaiter_sandbox.netease import nos_token
from dumbwaiter_sandbox.netease.nos_callback import call_back
from dumbwaiter_sandbox.netease.nos_request import Chunk, arriving, chunk_of, names_of, needed, query_of
from dumbwaiter_sandbox.netease.nos_token import Policy, TokenError
from dumbwaiter_sandbox.netease.nos_uploads import Body, Upload, Uploads
from dumbwaiter_sandbox.netease.options import NetEaseOptions
from dumbwaiter_sandbox.storage import StoredObject, UnstorableError
from dumbwaiter_sandbox.world import Endpoint, RefusedError, World, entry_of, fault_of

BEYOND = 1024 * 1024
META = "x-nos-meta-"
OWN_FAULTS = frozenset({"short", "context", "lost-context", "noprogress", "backwards", "beyond", "expired", "520"})
CODES = {
    400: "InvalidRequest",
    403: "AccessDenied",
    404: "NoSuchUpload",
    500: "InternalError",
    503: "ServiceUnavailable",
    520: "CallbackFailed",
}


@dataclass(frozen=True)
class Keys:
    """The key pair that tokens are signed with."""

    access: str
    secret: str


class Nodes:
    """The two calls of every node."""

    def __init__(self, world: World, keys: Keys) -> None:
        self._world = world
        self._keys = keys
        self._uploads = Uploads(world.data, world.database)

    @property
    def _options(self) -> NetEaseOptions:
        return cast("NetEaseOptions", self._world.options["netease"])

    def endpoint(self) -> Endpoint:
        """The server of one node."""
        routes = [
            Route("/{path:key}", self.put, methods=["POST"]),
            Route("/{path:key}", self.query, methods=["GET"]),
        ]
        return Endpoint(Starlette(routes=routes), _calls, self.refuse, OWN_FAULTS)

    def refuse(self, scope: Scope, status: int) -> Response:
        """An error as a node words it; a redirect leads to the other node."""
        if status < 400:
            here = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
            nodes = [self._world.urls[name] for name in ("nos1", "nos2")]
            other = next(url for url in nodes if not url.endswith(here) or not here)
            target = scope["raw_path"] + b"?" + scope["query_string"]
            return Response(status_code=status, headers={"location": other + target.decode("latin-1")})
        return self._error(status, CODES.get(status, "Error"))

    async def put(self, request: Request) -> Response:
        """One chunk."""
        try:
            bucket, name = names_of(request.scope["raw_path"], plain_slashes=self._options.plain_slashes)
            query = query_of(request.scope)
            policy = self._policy(request, bucket, name)
            chunk = chunk_of(request, query)
            entry_of(request).facts.update(
                bucket=bucket, object=name, offset=chunk.offset, length=chunk.length,
                complete=chunk.complete, context=chunk.context,
            )  # fmt: skip
            upload = self._begin(request, policy, chunk) if not chunk.context else self._find(policy, chunk.context)
            self._lose(request, upload)
            async with upload.lock:
                try:
                    return await self._store(request, policy, chunk, upload)
                finally:
                    if not upload.contexts:  # no client can come back to it
                        self._uploads.forget(upload)
        except RefusedError as error:
            return self._error(error.status, str(error))

    async def query(self, request: Request) -> Response:
        """Where to go on."""
        try:
            bucket, name = names_of(request.scope["raw_path"], plain_slashes=self._options.plain_slashes)
            query = query_of(request.scope)
            if "uploadContext" not in query:
                raise RefusedError(400, "uploadContext is missing")
            policy = self._policy(request, bucket, name)
            entry_of(request).facts.update(bucket=bucket, object=name, context=query.get("context", ""))
            upload = self._find(policy, needed(query, "context"), query=True)
            self._lose(request, upload)
        except RefusedError as error:
            return self._error(error.status, str(error))
        offset = upload.stored
        fault = fault_of(request)
        if fault and fault.name == "backwards":
            offset = self._back(upload)
        elif fault and fault.name == "beyond":
            offset += BEYOND
        return self._answer({"offset": offset})

    def _policy(self, request: Request, bucket: str, name: str) -> Policy:
        token = request.headers.get("x-nos-token", "")
        fault = fault_of(request)
        now = float("inf") if fault and fault.name == "expired" else self._world.clock.now()
        try:
            policy = nos_token.check(token, self._keys.access, self._keys.secret, now)
        except TokenError as error:
            raise RefusedError(403, str(error)) from error
        if (policy.bucket, policy.object) != (bucket, name):
            raise RefusedError(403, "the token is for another object")
        return policy

    def _begin(self, request: Request, policy: Policy, chunk: Chunk) -> Upload:
        if chunk.offset:
            raise RefusedError(400, "an upload without context begins at offset 0")
        try:
            self._world.objects.path(policy.bucket, policy.object)
        except UnstorableError as error:
            raise RefusedError(400, str(error)) from error
        kind = request.headers.get("content-type", "application/octet-stream")
        if policy.mime_limit and kind not in policy.mime_limit:
            raise RefusedError(403, "the token does not allow this content type")
        meta = {name: value for name, value in request.headers.items() if name.startswith(META)}
        return self._uploads.begin(policy.bucket, policy.object, policy.sign, kind, meta)

    def _find(self, policy: Policy, context: str, *, query: bool = False) -> Upload:
        upload = self._uploads.find(context, self._world.clock.now(), self._options.context_ttl)
        if upload is None:
            raise RefusedError(404 if query else self._options.unknown_context, "the context does not exist")
        if (upload.bucket, upload.object) != (policy.bucket, policy.object):
            raise RefusedError(400, "the context belongs to another object")
        if self._options.context_bound_to_token and upload.owner != policy.sign:
            raise RefusedError(400, "the context belongs to another token")
        return upload

    def _lose(self, request: Request, upload: Upload) -> None:
        fault = fault_of(request)
        if fault and fault.name == "lost-context":
            self._uploads.forget(upload)
            raise RefusedError(404, "the context does not exist")

    async def _store(self, request: Request, policy: Policy, chunk: Chunk, upload: Upload) -> Response:
        if upload.over:
            raise RefusedError(404, "the context does not exist")
        if chunk.offset > upload.stored:
            raise RefusedError(400, f"offset {chunk.offset} lies beyond the {upload.stored} bytes stored")
        if chunk.offset < upload.stored and self._options.rewrite:
            self._uploads.back(upload, chunk.offset)
        known = chunk.offset < upload.stored
        fault = fault_of(request)
        name = fault.name if fault and chunk.length else ""  # of nothing, nothing can be left out
        before = upload.stored
        body = await self._read(request, chunk, upload, 0 if known or name in ("noprogress", "backwards") else None)
        if name == "backwards":
            return self._next(upload, chunk, self._back(upload), name)
        if not known and name != "noprogress":
            self._uploads.accept(upload, body, self._world.clock.now())
        entry_of(request).facts["stored"] = upload.stored - before
        whole = upload.stored == chunk.offset + chunk.length
        if name == "beyond":
            return self._next(upload, chunk, upload.stored + BEYOND, name)
        if chunk.complete and whole and name != "noprogress":
            return await self._finish(request, policy, chunk, upload)
        return self._next(upload, chunk, upload.stored, name)

    async def _read(self, request: Request, chunk: Chunk, upload: Upload, take: int | None) -> Body:
        """The whole body. When it breaks, its beginning is kept only if the switch says so and a context leads back."""
        limit = self._take(request, chunk) if take is None else take
        each = hashlib.md5() if self._options.md5_mode == "per_chunk" else None
        body = await self._uploads.read(upload, arriving(request.receive, each), limit)
        if body.received < chunk.length:
            if self._options.keep_partial and upload.contexts:
                self._uploads.accept(upload, body, self._world.clock.now())
            raise ClientDisconnect
        if each is not None and chunk.md5 and each.hexdigest() != chunk.md5:
            raise RefusedError(400, "Content-MD5 does not match this chunk")
        return body

    def _take(self, request: Request, chunk: Chunk) -> int:
        fault = fault_of(request)
        most = chunk.length if self._options.max_accept is None else min(chunk.length, self._options.max_accept)
        if fault and fault.name == "short":
            return min(most, self._world.random.randrange(1, chunk.length) if chunk.length > 1 else 0)
        return most

    def _back(self, upload: Upload) -> int:
        if upload.stored:
            self._uploads.back(upload, self._world.random.randrange(upload.stored))
        return upload.stored

    def _next(self, upload: Upload, chunk: Chunk, offset: int, fault: str) -> Response:
        """The answer to a chunk that is not the end."""
        every = self._options.rotate_context_every
        rotate = fault == "context" or bool(every and upload.chunks and upload.chunks % every == 0)
        context = self._uploads.name(upload) if rotate or not chunk.context else chunk.context
        return self._answer({"offset": offset, "context": context, "callbackRetMsg": ""})

    async def _finish(self, request: Request, policy: Policy, chunk: Chunk, upload: Upload) -> Response:
        """Make the object visible and call back. The context is gone afterwards, whatever came of it."""
        try:
            stored = self._checked(policy, chunk, upload)
            message = await self._publish(request, policy, stored, upload)
        except UnstorableError as error:
            raise RefusedError(400, str(error)) from error
        except CallbackFailedError as error:
            raise RefusedError(520, str(error)) from error
        finally:
            self._uploads.forget(upload)
        entry_of(request).facts["finished_size"] = stored.size
        return self._answer({"offset": stored.size, **self._last_context(chunk), "callbackRetMsg": message})

    def _checked(self, policy: Policy, chunk: Chunk, upload: Upload) -> StoredObject:
        assert upload.md5 is not None
        digest = upload.md5.hexdigest()
        if self._options.md5_mode == "whole_file" and chunk.md5 and chunk.md5 != digest:
            raise RefusedError(400, "Content-MD5 does not match the file")
        if upload.stored < policy.size_min or (policy.size_max is not None and upload.stored > policy.size_max):
            raise RefusedError(400, "the token does not allow this size")
        return StoredObject(
            upload.bucket,
            upload.object,
            upload.stored,
            digest,
            upload.content_type,
            self._world.clock.now(),
            upload.meta,
        )

    async def _publish(self, request: Request, policy: Policy, stored: StoredObject, upload: Upload) -> str:
        fault = fault_of(request)
        source = self._uploads.path(upload)
        early = self._options.on_520 == "stored"
        if early:
            self._world.objects.publish(source, stored)
        if fault and fault.name == "520":
            raise CallbackFailedError("the callback failed")
        message = await call_back(self._world, policy, stored, self._options, self._keys.secret)
        if not early:
            self._world.objects.publish(source, stored)
        return message

    def _last_context(self, chunk: Chunk) -> dict[str, object]:
        form = self._options.final_context
        if form == "absent":
            return {}
        return {"context": {"empty": "", "null": "null"}.get(form, chunk.context or str(uuid.uuid4()))}

    def _answer(self, members: dict[str, object]) -> Response:
        if self._options.offset_as_text:
            members["offset"] = str(members["offset"])
        return JSONResponse({self._options.request_id: uuid.uuid4().hex, **members})

    def _error(self, status: int, message: str) -> Response:
        members = {"errCode": CODES.get(status, "Error"), "errMsg": message}
        return JSONResponse({self._options.request_id: uuid.uuid4().hex, **members}, status)


def _calls(scope: Scope) -> tuple[str, ...]:
    if scope["method"] == "GET":
        return ("query",)
    if scope["method"] != "POST":
        return ()
    last = b"complete=true" in scope["query_string"].split(b"&")
    return ("put", "complete") if last else ("put",)
