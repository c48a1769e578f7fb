"""Xinhua image processing (camera360): JWT, upload tokens for its Kodo bucket, tasks, and results that cost a use or not.

camera360's interface document 'Xinhua image processing'. The rule: everything but the sign-in needs a JWT that this server
made; a picture without watermark is charged once a task, after it was handed out. It has no error format of its own there:
here errors are {"error": text}. A result is the picture with a comment segment that says what was done to it.
"""

import base64
import hashlib
import hmac
import json
import os
import sqlite3
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from dumbwaiter_sandbox.kodo.accounts import ACCOUNTS, upload_token
from dumbwaiter_sandbox.kodo.sessions import content_hash
from dumbwaiter_sandbox.storage import StoredObject
from dumbwaiter_sandbox.world import Endpoint, RefusedError, Service, Vendor, World, entry_of, fault_of
from dumbwaiter_sandbox.xinhua.options import XinhuaOptions

# Made up: they open nothing but this sandbox.
ACCOUNT = {
    "access_key": "sandboxXinhuaAk000000001",
    "secret_key": "sandbox-xinhua-secret-0001",
    "model": "pg-xhs-go",
    "bucket": ACCOUNTS["xinhua"].buckets[0],
}
JWT_SECRET = b"sandbox-xinhua-jwt-secret"
LIFE_MAX = 259_200
CALLS = ("jwt", "tokens", "task", "watermark", "unwatermark")
SPECIAL = {
    "strip-body": ("tokens",),
    "other-key": ("tokens",),
    "fewer": ("tokens",),
    "reordered": ("tokens",),
    "wrong-scope": ("tokens",),
    "unreadable": ("jwt", "tokens"),
    "stuck": ("watermark",),
    "unheard": ("watermark",),
    "quota": ("task", "unwatermark"),
    "code": CALLS,
}
SCHEMA = """
CREATE TABLE IF NOT EXISTS xinhua_tasks (
    id TEXT PRIMARY KEY,
    key TEXT NOT NULL,          -- of the original
    looks INTEGER NOT NULL,     -- that have been had at it
    charged INTEGER NOT NULL    -- whether the picture without watermark was paid for
);
"""
RETURN_BODY = (
    '{"mimeType":$(mimeType),"width":$(imageInfo.width),"height":$(imageInfo.height),"key":"$(key)","hash":"$(etag)",'
    '"size":$(fsize),"bucket":"$(bucket)","name":"$(x:name)"}'
)


@dataclass(frozen=True)
class Task:
    """One row."""

    id: str
    key: str
    looks: int
    charged: int


class Tasks:
    """All tasks; they outlive the process."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.executescript(SCHEMA)

    def begin(self, key: str) -> Task:
        task = Task(os.urandom(12).hex(), key, 0, 0)
        self._write("INSERT INTO xinhua_tasks VALUES (?, ?, 0, 0)", (task.id, task.key))
        return task

    def find(self, task: str) -> Task | None:
        row = self._database.execute("SELECT * FROM xinhua_tasks WHERE id = ?", (task,)).fetchone()
        return Task(*row) if row else None

    def look(self, task: Task) -> None:
        self._write("UPDATE xinhua_tasks SET looks = looks + 1 WHERE id = ?", (task.id,))

    def charge(self, task: Task) -> None:
        self._write("UPDATE xinhua_tasks SET charged = 1 WHERE id = ?", (task.id,))

    @property
    def charged(self) -> int:
        """How many were paid for."""
        return int(self._database.execute("SELECT coalesce(sum(charged), 0) FROM xinhua_tasks").fetchone()[0])

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        with self._database as database:
            database.execute(statement, values)


class Xinhua:
    """The API server."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tasks = Tasks(world.database)

    @property
    def _options(self) -> XinhuaOptions:
        return cast("XinhuaOptions", self._world.options["xinhua"])

    @property
    def _base(self) -> str:
        return f"{self._world.urls['io']}/{ACCOUNT['bucket']}"

    def endpoint(self) -> Endpoint:
        """The server."""
        routes = [
            Route("/v1/token/jwt", self._guarded(self._jwt, open_to_all=True), methods=["POST"]),
            Route("/v1/upload/token", self._guarded(self._upload_tokens), methods=["GET", "POST"]),
            Route("/v1/image/task", self._guarded(self._create), methods=["POST"]),
            Route("/v1/image/watermark/{id}", self._guarded(self._watermark), methods=["POST"]),
            Route("/v1/image/unwatermark/{id}", self._guarded(self._unwatermark), methods=["POST"]),
        ]
        return Endpoint(
            Starlette(routes=routes),
            _calls,
            lambda _, status: _error(status, f"injected {status}"),
            frozenset(SPECIAL),
        )

    def _guarded(
        self, answer: Callable[[Request], Awaitable[Mapping[str, Any]]], *, open_to_all: bool = False
    ) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            try:
                if _fault(request) == "code":
                    return JSONResponse({"status": 10001, "message": "injected"})
                if not open_to_all:
                    self._check_jwt(request.headers.get("authorization", ""))
                members = await answer(request)
            except RefusedError as error:
                return _error(error.status, str(error))
            return JSONResponse({"data": members, "status": 0, "message": "ok"} if self._options.enveloped else members)

        return guarded

    # Sign-in

    async def _jwt(self, request: Request) -> Mapping[str, Any]:
        fields = str((await _members(request)).get("token", "")).split(":", 4)
        if len(fields) != 5:
            raise RefusedError(400, "the token has five parts")
        signature, access_key, moment, duration, models = fields
        right = hmac.new(ACCOUNT["secret_key"].encode(), ":".join(fields[1:]).encode(), hashlib.sha256).hexdigest()
        if access_key != ACCOUNT["access_key"] or not hmac.compare_digest(signature.encode(), right.encode()):
            raise RefusedError(401, "the signature is wrong")
        now = int(self._world.clock.now())
        if not moment.isdigit() or abs(now - int(moment)) > self._options.tolerance:
            raise RefusedError(400, "the timestamp is too far from the server's")
        if not duration.isdigit() or not 1 <= int(duration) <= LIFE_MAX:
            raise RefusedError(400, f"a duration has from 1 to {LIFE_MAX} seconds")
        named = models.split(",") if models else [ACCOUNT["model"]]
        if set(named) != {ACCOUNT["model"]}:
            raise RefusedError(403, "a model is not granted")
        claims = {
            "ak": access_key,
            "ms": [{"m": name, "rs": 10, "rm": 0} for name in named],
            "vt": "1694534400-1899043200",
            "exp": now + int(duration),
            "iat": now,
            "iss": "pinguo.ai-platform",
        }
        return {"token": _unreadable(claims) if _fault(request) == "unreadable" else jwt(claims)}

    def _check_jwt(self, authorization: str) -> None:
        word, _, token = authorization.partition(" ")
        head, _, signature = token.rpartition(".")
        if word != "Bearer" or not hmac.compare_digest(signature.encode(), _signature(head).encode()):
            raise RefusedError(401, "the token is not valid")
        try:
            expires = json.loads(_decoded(head.partition(".")[2]))["exp"]
        except ValueError:
            return  # made unreadable by a fault, and signed by us all the same
        if self._world.clock.now() >= expires:
            raise RefusedError(401, "the token has expired")

    # Upload tokens

    async def _upload_tokens(self, request: Request) -> Mapping[str, Any]:
        keys = await self._keys(request)
        fault = _fault(request)
        if self._options.keys_limit and len(keys) > self._options.keys_limit:
            raise RefusedError(400, f"at most {self._options.keys_limit} keys at once")
        if fault == "other-key":
            keys = ["another.jpg"]
        elif fault == "fewer":
            keys = keys[:-1]
        elif fault == "reordered":
            keys = keys[::-1]
        shift = "x" if fault == "wrong-scope" else ""
        entry_of(request).facts["keys"] = len(keys)
        tokens = [{"key": key, "token": self._upload_token(shift + key)} for key in keys]
        if fault == "unreadable":
            tokens = [{**one, "token": one["token"].rpartition(":")[0] + ":e_"} for one in tokens]
        return {"tokens": tokens, "baseURL": self._base}

    async def _keys(self, request: Request) -> list[str]:
        if not self._options.other_requests and request.method != "GET":
            raise RefusedError(405, "method not allowed")
        if self._options.other_requests and (named := request.query_params.getlist("keys")):
            return named
        if _fault(request) == "strip-body":
            raise RefusedError(400, "keys is missing")
        return _key_list(await _members(request))

    def _upload_token(self, key: str) -> str:
        policy = {
            "scope": f"{ACCOUNT['bucket']}:{key}",
            "deadline": int(self._world.clock.now() + self._options.token_life),
            "insertOnly": 1,
            "returnBody": RETURN_BODY,
            "fsizeLimit": self._options.size_limit,
            "mimeLimit": "image/jpeg",
        }
        return upload_token(ACCOUNTS["xinhua"], policy)

    # Tasks

    async def _create(self, request: Request) -> Mapping[str, Any]:
        if _fault(request) == "quota":
            raise RefusedError(402, "剩余次数不足")
        keys = _key_list(await _members(request))
        for key in keys:
            if self._world.objects.find(ACCOUNT["bucket"], key) is None:
                raise RefusedError(400, f"there is no picture {key}")
        entry_of(request).facts["keys"] = len(keys)
        return {"data": [{"taskID": self._tasks.begin(key).id, "key": key} for key in keys]}

    async def _watermark(self, request: Request) -> Mapping[str, Any]:
        task = self._found(request)
        fault = _fault(request)
        if fault in {"stuck", "unheard"}:
            return {"taskStatus": "running" if fault == "stuck" else "postponed", "taskMessage": "", "image": None}
        self._tasks.look(task)
        if task.looks < self._options.looks:
            return {"taskStatus": "running" if task.looks else "init", "taskMessage": "处理中"}
        return self._result(task, "watermark")

    async def _unwatermark(self, request: Request) -> Mapping[str, Any]:
        task = self._found(request)
        if not task.charged and (_fault(request) == "quota" or self._tasks.charged >= self._options.quota):
            raise RefusedError(402, "剩余次数不足")
        if task.looks <= self._options.looks:
            return {"taskStatus": "running", "taskMessage": "处理中"}
        answer = self._result(task, "unwatermark")
        if answer.get("image") and not task.charged:
            self._tasks.charge(task)
            entry_of(request).facts["charged"] = task.id
        return answer

    def _found(self, request: Request) -> Task:
        task = self._tasks.find(request.path_params["id"])
        if task is None:
            raise RefusedError(404, "there is no such task")
        return task

    def _result(self, task: Task, kind: str) -> Mapping[str, Any]:
        options = self._options
        if options.outcome == "failed":
            return {"taskStatus": "failed", "taskMessage": "处理失败", "image": ""}
        key = f"{kind}/{hashlib.md5(f'{kind} of {task.id}'.encode()).hexdigest()}.jpg"
        if options.image != "none" and self._world.objects.find(ACCOUNT["bucket"], key) is None:
            self._make(task.key, key, kind)
        image = {"url": f"{self._base}/{key}", "key": key, "none": ""}[options.image]
        details = [] if options.detect == "pass" else ["face", "flag"]
        return {
            "taskStatus": "done",
            "taskMessage": "完成",
            "image": image,
            "detectStatus": options.detect,
            "detectMessage": details,
        }

    def _make(self, original: str, key: str, kind: str) -> None:
        """Stores the picture with a comment segment behind its first marker."""
        objects = self._world.objects
        with open(objects.path(ACCOUNT["bucket"], original), "rb") as file:
            content = commented(file.read(), f"{kind} by the sandbox")
        with tempfile.NamedTemporaryFile(dir=os.path.join(self._world.data, "sandbox"), delete=False) as made:
            made.write(content)
        etag = content_hash(made.name)
        now = self._world.clock.now()
        objects.publish(made.name, StoredObject(ACCOUNT["bucket"], key, len(content), etag, "image/jpeg", now))


def commented(picture: bytes, text: str) -> bytes:
    """A JPEG with one more comment."""
    comment = text.encode()
    return picture[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + picture[2:]


def jwt(claims: Mapping[str, Any]) -> str:
    """The signed token for some claims."""
    head = _encoded(json.dumps({"alg": "HS256", "typ": "JWT"}, separators=(",", ":")).encode())
    body = f"{head}.{_encoded(json.dumps(claims, separators=(',', ':')).encode())}"
    return f"{body}.{_signature(body)}"


def _unreadable(claims: Mapping[str, Any]) -> str:
    body = f"{_encoded(b'sealed')}.{_encoded(uuid.uuid4().bytes + str(claims['exp']).encode())}"
    return f"{body}.{_signature(body)}"


def _signature(body: str) -> str:
    return _encoded(hmac.digest(JWT_SECRET, body.encode(), "sha256"))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


async def _members(request: Request) -> Mapping[str, Any]:
    try:
        members = json.loads(await request.body())
    except ValueError:
        members = None
    if not isinstance(members, dict):
        raise RefusedError(400, "the body is no JSON object")
    return members


def _key_list(members: Mapping[str, Any]) -> list[str]:
    keys = members.get("keys")
    if not isinstance(keys, list) or not keys or not all(isinstance(key, str) and key for key in keys):
        raise RefusedError(400, "keys is missing, or no list of texts")
    return keys


def _fault(request: Request) -> str:
    fault = fault_of(request)
    return fault.name if fault else ""


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)


def _calls(scope: Scope) -> tuple[str, ...]:
    parts = scope["path"].strip("/").split("/")
    if len(parts) == 4 and parts[:2] == ["v1", "image"] and parts[2] in CALLS:
        return (parts[2],)
    fixed = {"v1/token/jwt": "jwt", "v1/upload/token": "tokens", "v1/image/task": "task"}
    name = fixed.get("/".join(parts))
    return (name,) if name else ()


VENDOR = Vendor(
    name="xinhua",
    services=(Service("xinhua", "xinhua", CALLS),),
    faults={fault: tuple(f"xinhua.{call}" for call in calls) for fault, calls in SPECIAL.items()},
    deferred={},
    secrets=(),
    options=XinhuaOptions,
    accounts=ACCOUNT,
    build=lambda world: {"xinhua": Xinhua(world).endpoint()},
    providers=lambda urls: {
        "xinhua": {
            "broker": "xinhua",
            "access_key": ACCOUNT["access_key"],
            "secret_key": ACCOUNT["secret_key"],
            "models": [ACCOUNT["model"]],
            "process": True,
            "poll": "200ms",
            "api": urls["xinhua"],
            "uc": urls["uc"],
        }
    },
)
