"""ImageX's upload hosts: a file in one request, or in parts, in the dialect of the vendor's page and in that of its SDKs.

Volcengine's official SDKs for Go, Python and Node show the requests. The rule: every body comes with its CRC-32; parts are joined
by a list of numbers and checksums that must agree with what is in. Both hosts share one state.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import parse_qsl, unquote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from dumbwaiter_sandbox.jimeng import imagex_auth
from dumbwaiter_sandbox.jimeng.imagex_store import Body, Held, Part, Store, Upload
from dumbwaiter_sandbox.jimeng.options import JimengOptions
from dumbwaiter_sandbox.world import Endpoint, World, entry_of, fault_of

CALLS = ("put", "init", "part", "list", "merge")
PAGE = "/upload/v1/"
PARTS_LIMIT = 10_000
BODY_FAULTS = ("crc-refused", "crc-echo", "trouble-inside")
LIST_FAULTS = ("list-less", "list-other", "list-more")
MERGE_FAULTS = ("merge-mismatch", "in-merge", "already-there")
UPLOAD_FAULTS = ("upload-gone",)
ANY_FAULTS = ("auth-expired",)
OWN_FAULTS = frozenset({*BODY_FAULTS, *LIST_FAULTS, *MERGE_FAULTS, *UPLOAD_FAULTS, *ANY_FAULTS})
NAMES = {
    4001: "InvalidAuthorization",
    4004: "NoSuchUpload",
    4007: "MismatchChecksum",
    4008: "InvalidParameter",
    4019: "InvalidMergeParts",
    4024: "InMergedError",
    4025: "AlreadyExistedError",
    5001: "InternalError",
}
PHASES = {"init": "init", "transfer": "part", "finish": "merge"}


class RefusedError(Exception):
    """The host answers with this status and number."""

    def __init__(self, status: int, number: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.number = number


@dataclass(frozen=True)
class Target:
    """What a request is for."""

    call: str
    uri: str
    page: bool
    query: Mapping[str, str]

    @property
    def upload(self) -> str:
        return self.query.get("uploadid" if self.page else "uploadID", "")

    @property
    def number(self) -> str:
        return self.query.get("part_number" if self.page else "partNumber", "")


class Hosts:
    """The calls of every host."""

    def __init__(self, world: World, store: Store, auth_key: str) -> None:
        self._world = world
        self._store = store
        self._auth_key = auth_key

    @property
    def _options(self) -> JimengOptions:
        return cast("JimengOptions", self._world.options["jimeng"])

    def endpoint(self) -> Endpoint:
        """The server of one host."""
        app = Starlette(routes=[Route("/{path:path}", self._serve, methods=["GET", "POST", "PUT"])])
        return Endpoint(app, lambda scope: (_target(scope).call,), self._status, OWN_FAULTS)

    async def _serve(self, request: Request) -> Response:
        target = _target(request.scope)
        try:
            held = self._allowed(request, target)
            entry_of(request).facts.update(uri=target.uri, part=target.number)
            match target.call:
                case "put":
                    payload = await self._put(request, held)
                case "init":
                    payload = self._init(request, target)
                case "part":
                    payload = await self._part(request, target)
                case "list":
                    payload = self._list(request, target)
                case _:
                    payload = await self._merge(request, target, held)
        except RefusedError as error:
            return _error(target, error.status, error.number, str(error))
        if target.page:
            return JSONResponse({"code": 2000, "apiversion": "v1", "message": "Success", "data": payload})
        nothing = {"code": 200, "error": "", "error_code": 0, "message": ""}
        return JSONResponse({"Version": "", "success": 0, "error": nothing, "payload": payload})

    def _allowed(self, request: Request, target: Target) -> Held:
        fault = fault_of(request)
        now = self._world.clock.now()
        auth = request.headers.get("authorization", "")
        problem = imagex_auth.problem(auth, self._auth_key, target.uri, now)
        if fault and fault.name == "auth-expired":
            problem = "the permission is expired"
        if problem:
            raise RefusedError(403, 4001, problem)
        wanted = self._options.upload_header != "null"
        if wanted and request.headers.get("x-sandbox-route") != "one":
            raise RefusedError(400, 4008, "UploadHeader was not sent along")
        held = self._store.applied(target.uri)
        if held is None:
            raise RefusedError(403, 4001, "nobody applied for this object")
        return held

    async def _body(self, request: Request) -> Body:
        """The whole body, its checksum compared."""
        given = request.headers.get("content-crc32", "")
        if not given:
            raise RefusedError(400, 4007, "Content-CRC32 is missing")
        body = await self._store.receive(request.stream())
        fault = fault_of(request)
        if fault and fault.name == "trouble-inside":
            raise RefusedError(200, 5001, "as the fault says")
        if not self._same(given, body.crc) or (fault and fault.name == "crc-refused"):
            raise RefusedError(400, 4007, "Content-CRC32 is not that of the body")
        return body

    def _same(self, given: str, crc: str) -> bool:
        if given == "Ignore":
            return True
        if self._options.padded:
            return given == crc
        return re.fullmatch(r"[0-9a-f]{1,8}", given) is not None and int(given, 16) == int(crc, 16)

    def _echo(self, request: Request, crc: str) -> str:
        fault = fault_of(request)
        return f"{int(crc, 16) ^ 1:08x}" if fault and fault.name == "crc-echo" else crc

    async def _put(self, request: Request, held: Held) -> dict[str, object]:
        body = await self._body(request)
        self._check_size(held, body.size)
        if body.size == 0:
            raise RefusedError(400, 4008, "the file is empty")
        self._store.keep(held.uri, body)
        crc = self._echo(request, body.crc)
        return {"crc32": crc, "hash": crc, "key": held.uri}

    def _check_size(self, held: Held, size: int) -> None:
        if self._options.exact_size and held.announced is not None and held.announced != size:
            raise RefusedError(400, 4008, f"{held.announced} bytes were announced, {size} came")

    def _init(self, request: Request, target: Target) -> dict[str, object]:
        mode = "v1" if target.page else "gateway" if _gateway(request) else "plain"
        upload = self._store.open(target.uri, mode, self._world.clock.now())
        return {"uploadid": upload.id} if target.page else {"uploadID": upload.id}

    def _upload(self, request: Request, target: Target) -> Upload:
        upload = self._store.upload(target.upload)
        fault = fault_of(request)
        if upload and fault and fault.name == "upload-gone":
            self._store.forget(upload)
            upload = None
        if upload is None or upload.uri != target.uri or (upload.merged and target.call == "list"):
            raise RefusedError(404, 4004, "the upload does not exist")
        if self._world.clock.now() - upload.begun > self._options.upload_life:
            raise RefusedError(404, 4004, "the upload is expired")
        if upload.merged:
            raise RefusedError(400, 4025, "the object is there already")
        if target.call != "list" and upload.mode != ("v1" if target.page else _mode(request)):
            raise RefusedError(400, 4008, "the upload was begun in another mode")
        return upload

    async def _part(self, request: Request, target: Target) -> dict[str, object]:
        upload = self._upload(request, target)
        number = target.number
        first = 0 if upload.mode == "plain" else 1
        if not re.fullmatch(r"[0-9]{1,5}", number) or not first <= int(number) < PARTS_LIMIT + first:
            raise RefusedError(400, 4008, f"the number of a part is not between {first} and {PARTS_LIMIT}")
        body = await self._body(request)
        upload = self._upload(request, target)  # it may have gone meanwhile
        self._store.add(upload, int(number), body)
        crc = self._echo(request, body.crc)
        return {"uploadid": upload.id, "part_number": number, "crc32": crc, "etag": ""}

    def _list(self, request: Request, target: Target) -> dict[str, object]:
        upload = self._upload(request, target)
        parts = self._store.parts(upload)
        fault = fault_of(request)
        name = fault.name if fault else ""
        if name == "list-less":
            parts = parts[1:]
        elif name == "list-other" and parts:
            parts = [Part(parts[0].number, "00000000", parts[0].size), *parts[1:]]
        elif name == "list-more":
            parts = [*parts, Part(9_000, "01234567", 1)]
        text = self._options.list_numbers == "text"
        return {
            "uploadID": upload.id,
            "partList": [
                {
                    "partNumber": str(part.number) if text else part.number,
                    **({"crc32": part.crc} if self._options.lists_crc else {}),
                    "etag": "",
                }
                for part in parts
            ],
        }

    async def _merge(self, request: Request, target: Target, held: Held) -> dict[str, object]:
        upload = self._upload(request, target)
        fault = fault_of(request)
        name = fault.name if fault else ""
        if name in MERGE_FAULTS:
            number = {"merge-mismatch": 4019, "in-merge": 4024, "already-there": 4025}[name]
            raise RefusedError(400, number, "as the fault says")
        parts = self._store.parts(upload)
        _check_list((await request.body()).decode("utf-8", "replace"), parts, upload.mode)
        if any(part.size < self._options.part_min for part in parts[:-1]):
            raise RefusedError(400, 4019, "a part but the last is too small")
        self._check_size(held, sum(part.size for part in parts))
        body = await self._store.merge(upload)
        return {"hash": body.crc, "key": upload.uri}

    def _status(self, scope: Scope, status: int) -> Response:
        return _error(_target(scope), status, 5001 if status >= 500 else 4008, "as the fault says")


def _check_list(text: str, parts: list[Part], mode: str) -> None:
    """Compare a list with the parts that are in: complete, in order, and with the same checksums."""
    if not re.fullmatch(r"\d+:[0-9a-f]{8}(,\d+:[0-9a-f]{8})*", text):
        raise RefusedError(400, 4019, "the list is not of the form NUMBER:CRC,NUMBER:CRC")
    listed = [(int(number), crc) for number, crc in (one.split(":") for one in text.split(","))]
    numbers = [part.number for part in parts]
    begins = {0} if mode == "plain" else {1}
    if not parts or numbers[0] not in begins or numbers != list(range(numbers[0], numbers[0] + len(parts))):
        raise RefusedError(400, 4019, "the parts that are in leave a gap")
    # The SDKs number the parts of very large files from 1 and list them from 0.
    starts = {numbers[0], 0} if mode == "gateway" else {numbers[0]}
    if not any(listed == [(start + index, part.crc) for index, part in enumerate(parts)] for start in starts):
        raise RefusedError(400, 4019, "the list does not agree with the parts")


def _target(scope: Scope) -> Target:
    path = scope["raw_path"].decode("latin-1")
    page = path.startswith(PAGE)
    uri = unquote(path[len(PAGE) :] if page else path[1:], errors="replace")
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    if page:
        call = PHASES.get(query.get("phase", ""), "put")
    elif scope["method"] == "GET":
        call = "list"
    elif "uploads" in query:
        call = "init"
    elif "partNumber" in query:
        call = "part"
    else:
        call = "merge" if "uploadID" in query else "put"
    return Target(call, uri, page, query)


def _gateway(request: Request) -> bool:
    return request.headers.get("x-storage-mode") == "gateway"


def _mode(request: Request) -> str:
    return "gateway" if _gateway(request) else "plain"


def _error(target: Target, status: int, number: int, message: str) -> Response:
    name = NAMES.get(number, "Error")
    if target.page:
        return JSONResponse({"code": number, "apiversion": "v1", "message": f"{name}: {message}"}, status)
    error = {"code": status, "error": name, "error_code": number, "message": message}
    return JSONResponse({"Version": "", "success": 1, "error": error}, status)
