"""Jiandaoyun: one form of one app, upload tokens for Kodo, the callback of an upload, and records with attachments.

Jiandaoyun's open platform documentation, 'file interface' and 'form data interface'. The rule: a record takes a key
only under the transaction that it was uploaded for, and within its hour; an attachment field that is written is replaced.
"""

import json
import re
import secrets
import sqlite3
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from dumbwaiter_sandbox.jiandaoyun.options import JiandaoyunOptions
from dumbwaiter_sandbox.kodo import accounts
from dumbwaiter_sandbox.rate import Rate
from dumbwaiter_sandbox.world import Endpoint, Service, Vendor, World, fault_of

# Made up: they open nothing but this sandbox.
ACCOUNT = {
    "api_key": "dumbwaiterFormsKey00000000000001",
    "app_id": "59264073a2a60c0c08e20bfb",
    "entry_id": "59264073a2a60c0c08e20bfd",
}
UPLOADER = "59264073a2a60c0c08e20b00"
KODO = accounts.ACCOUNTS["jiandaoyun"]
BUCKET = KODO.buckets[0]
ATTACHMENT = "_widget_1640000000001"
FIELDS = {
    ATTACHMENT: "upload",
    "_widget_1640000000002": "text",  # path
    "_widget_1640000000003": "number",  # size
    "_widget_1640000000004": "text",  # hash
}
CALLS = {
    "file/get_upload_token": "token",
    "data/create": "create",
    "data/update": "update",
    "data/get": "get",
    "data/list": "list",
    "data/delete": "delete",
    "widget/list": "widgets",
}
PER_SECOND = {"all": 50, "token": 20, "create": 20, "update": 20, "get": 30, "list": 30, "delete": 20, "widgets": 30}
CALLBACK = "/file/upload/api_callback"
ATTACHMENTS_MAX = 10
FORBIDDEN = re.compile(r"\$[({][^)}]*[)}]")
MESSAGES = {
    1: "invalid request",
    2004: "the app does not exist",
    3000: "the form does not exist",
    4001: "the data does not exist",
    8301: "the key is invalid",
    8303: "company request limit exceeded",
    8304: "request limit exceeded",
    17017: "invalid parameter",
    17025: "transaction_id is invalid",
    17026: "transaction_id already exists",
    17032: "the field cannot be written",
}
SCHEMA = """
CREATE TABLE IF NOT EXISTS forms_transactions (
    id TEXT PRIMARY KEY,
    begun REAL NOT NULL,      -- epoch seconds of the sandbox's clock
    records INTEGER NOT NULL  -- made under it
);
CREATE TABLE IF NOT EXISTS forms_files (
    key TEXT PRIMARY KEY,
    transaction_id TEXT NOT NULL,
    name TEXT NOT NULL,
    size INTEGER NOT NULL,
    mime TEXT NOT NULL,
    hash TEXT NOT NULL,
    record TEXT               -- that took it
);
CREATE TABLE IF NOT EXISTS forms_records (
    id TEXT PRIMARY KEY,
    data TEXT NOT NULL        -- JSON: value by field; of an attachment field its keys
);
"""

Members = Mapping[str, Any]


class RefusedError(Exception):
    """Answered with HTTP 400 and this code."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message or MESSAGES.get(code, "error"))
        self.code = code


class Jiandaoyun:
    """The API server."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._database: sqlite3.Connection = world.database
        self._database.executescript(SCHEMA)
        self._rates = {name: Rate() for name in PER_SECOND}

    @property
    def _options(self) -> JiandaoyunOptions:
        return cast("JiandaoyunOptions", self._world.options["jiandaoyun"])

    def endpoint(self) -> Endpoint:
        """The server."""
        calls: dict[str, Callable[[Members], object]] = {
            "token": self._token,
            "create": self._create,
            "update": self._update,
            "get": self._get,
            "list": self._list,
            "delete": self._delete,
            "widgets": self._widgets,
        }
        routes = [
            Route(f"/api/v5/app/entry/{path}", self._call(name, calls[name]), methods=["POST"])
            for path, name in CALLS.items()
        ]
        old = "/api/v1/app/{app_id}/entry/{entry_id}/file/get_upload_token"
        routes.append(Route(old, self._call("token", self._token), methods=["POST"]))
        routes.append(Route(CALLBACK, self._called_back, methods=["POST"]))
        return Endpoint(Starlette(routes=routes), _calls, _refuse, frozenset({"code-NNN", "lapse"}))

    def _call(self, name: str, answer: Callable[[Members], object]) -> Callable[[Request], Awaitable[Response]]:
        async def call(request: Request) -> Response:
            try:
                fault = fault_of(request)
                if fault and fault.name != "lapse":
                    raise RefusedError(int(fault.name.removeprefix("code-")))
                if request.headers.get("authorization") != f"Bearer {ACCOUNT['api_key']}":
                    raise RefusedError(8301)
                self._pace(name)
                members = {**await _members(request), **request.path_params}
                for member, code in (("app_id", 2004), ("entry_id", 3000)):
                    if not isinstance(members.get(member), str):
                        raise RefusedError(1, f"{member} is missing")
                    if members[member] != ACCOUNT[member]:
                        raise RefusedError(code)
                if fault:
                    self._lapse(members.get("transaction_id"))
                told = answer(members)
            except RefusedError as error:
                return JSONResponse({"code": error.code, "msg": str(error)}, 400)
            return JSONResponse(told if not self._options.extra else {**cast("dict[str, Any]", told), "news": [1]})

        return call

    def _pace(self, name: str) -> None:
        if not self._options.paced:
            return
        for which, code in ((name, 8304), ("all", 8303)):
            if not self._rates[which].takes(PER_SECOND[which]):
                raise RefusedError(code)

    # Uploads

    def _token(self, members: Members) -> object:
        transaction = members.get("transaction_id")
        if not isinstance(transaction, str) or not transaction:
            raise RefusedError(1, "transaction_id is missing")
        if FORBIDDEN.search(transaction):
            raise RefusedError(17025)
        now = self._world.clock.now()
        with self._database as database:
            database.execute("INSERT OR IGNORE INTO forms_transactions VALUES (?, ?, 0)", (transaction, now))
        hosts = [self._world.urls[name] for name in ("up1", "up2")]
        pairs = [
            {
                "url": hosts[index % 2],
                "token": self._upload_token(transaction, now, damaged=index < self._options.damaged),
            }
            for index in range(self._options.tokens)
        ]
        return {"token_and_url_list": pairs}

    def _upload_token(self, transaction: str, now: float, *, damaged: bool) -> str:
        body = {
            "appId": ACCOUNT["app_id"],
            "entryId": ACCOUNT["entry_id"],
            "key": "$(key)",
            "hash": "$(etag)",
            "name": "$(fname)",
            "size": "$(fsize)",
            "mime": "$(mimeType)",
            "bucket": "jdy-file",
            "uploader": UPLOADER,
            "sessionId": transaction,
        }
        policy = {
            **({"fsizeMin": 1, "fsizeLimit": self._options.size_max} if self._options.limits else {}),
            "callbackBodyType": "application/json",
            "callbackBody": json.dumps(body, separators=(",", ":")),
            "callbackHost": self._world.urls["forms"].removeprefix("http://"),
            "callbackUrl": self._world.urls["forms"] + CALLBACK,
            "forceSaveKey": True,
            "saveKey": str(uuid.uuid4()),
            "scope": BUCKET,
            "deadline": int(now + self._options.token_life),
        }
        token = accounts.upload_token(KODO, policy)
        if not damaged:
            return token
        # As in a sample that was typed off a screen.
        encoded = token.rpartition(":")[2]
        encoded = encoded[:4] + "u7u7" + encoded[8:]
        return f"{KODO.access_key}:{accounts.sign(KODO, encoded)}:{encoded}"

    async def _called_back(self, request: Request) -> Response:
        body = (await request.body()).decode()
        right = accounts.callback_authorization(KODO, CALLBACK, body, form=False)
        if request.headers.get("authorization") != right:
            return JSONResponse({"code": 8301, "msg": "the signature does not match"}, 401)
        try:
            told = json.loads(body)
        except ValueError:
            return JSONResponse({"code": 1, "msg": "no JSON"}, 400)
        if self._age(told["sessionId"]) is None:
            return JSONResponse({"code": 17025, "msg": "the transaction is not known, or over"}, 400)
        row = (told["key"], told["sessionId"], told["name"], int(told["size"]), told["mime"], told["hash"])
        with self._database as database:
            database.execute("INSERT OR IGNORE INTO forms_files VALUES (?, ?, ?, ?, ?, ?, NULL)", row)
        return JSONResponse({"key": told["key"]})

    def _age(self, transaction: object) -> float | None:
        """Seconds since it began, None when it is unknown or over."""
        rows = self._database.execute("SELECT begun FROM forms_transactions WHERE id = ?", (transaction,))
        row = rows.fetchone()
        age = None if row is None else self._world.clock.now() - row[0]
        return age if age is not None and age < self._options.transaction_life else None

    def _lapse(self, transaction: object) -> None:
        with self._database as database:
            database.execute("UPDATE forms_transactions SET begun = 0 WHERE id = ?", (transaction,))

    # Records

    def _create(self, members: Members) -> object:
        transaction = members.get("transaction_id")
        if self._options.one_record and self._records_of(transaction):
            raise RefusedError(17026)
        record = secrets.token_hex(12)
        data = self._checked(members, record)
        with self._database as database:
            database.execute("INSERT INTO forms_records VALUES (?, ?)", (record, json.dumps(data)))
            database.execute("UPDATE forms_transactions SET records = records + 1 WHERE id = ?", (transaction,))
        self._take(data, record)
        return {"data": self._shown(record, data)}

    def _records_of(self, transaction: object) -> int:
        rows = self._database.execute("SELECT records FROM forms_transactions WHERE id = ?", (transaction,))
        row = rows.fetchone()
        return row[0] if row else 0

    def _update(self, members: Members) -> object:
        record, data = self._found(members)
        data = {**data, **self._checked(members, record)}
        with self._database as database:
            database.execute("UPDATE forms_records SET data = ? WHERE id = ?", (json.dumps(data), record))
        self._take(data, record)
        return {"data": self._shown(record, data)}

    def _get(self, members: Members) -> object:
        return {"data": self._shown(*self._found(members))}

    def _delete(self, members: Members) -> object:
        record, _ = self._found(members)
        with self._database as database:
            database.execute("DELETE FROM forms_records WHERE id = ?", (record,))
        return {"status": "success"}

    def _widgets(self, members: Members) -> object:
        return {
            "widgets": [{"name": name, "label": name, "type": kind} for name, kind in FIELDS.items()],
            "sysWidgets": [],
            "dataModifyTime": "2026-01-01T00:00:00.000Z",
        }

    def _list(self, members: Members) -> object:
        limit = members.get("limit", 10)
        if not isinstance(limit, int) or not 1 <= limit <= 100:
            raise RefusedError(17017)
        rows = self._database.execute(
            "SELECT id, data FROM forms_records WHERE id > ? ORDER BY id", (members.get("data_id", ""),)
        )
        found = [(record, json.loads(data)) for record, data in rows]
        kept = [(record, data) for record, data in found if _fits(data, members.get("filter"))]
        fields = members.get("fields")
        shown = [self._shown(record, data) for record, data in kept[:limit]]
        if isinstance(fields, list):
            shown = [{name: value for name, value in one.items() if name in {*fields, "_id"}} for one in shown]
        return {"data": shown}

    def _found(self, members: Members) -> tuple[str, dict[str, Any]]:
        record = members.get("data_id")
        row = self._database.execute("SELECT id, data FROM forms_records WHERE id = ?", (record,)).fetchone()
        if row is None:
            raise RefusedError(4001)
        return row[0], json.loads(row[1])

    def _checked(self, members: Members, record: str) -> dict[str, Any]:
        """The values of a request by field. Raises RefusedError."""
        data = members.get("data")
        if not isinstance(data, dict):
            raise RefusedError(1, "data is missing")
        values: dict[str, Any] = {}
        for name, wrapped in data.items():
            if name not in FIELDS or not isinstance(wrapped, dict) or set(wrapped) != {"value"}:
                raise RefusedError(17017, f"{name} is no field, or has no value")
            value = wrapped["value"]
            if FIELDS[name] == "upload":
                self._check_keys(value, members.get("transaction_id"), record)
            elif not isinstance(value, int if FIELDS[name] == "number" else str):
                raise RefusedError(17032)
            values[name] = value
        return values

    def _check_keys(self, keys: object, transaction: object, record: str) -> None:
        if not isinstance(keys, list) or len(keys) > ATTACHMENTS_MAX or len(set(map(str, keys))) < len(keys):
            raise RefusedError(17017, "an attachment field takes a list of at most 10 keys, each once")
        if self._age(transaction) is None:
            raise RefusedError(17017, "the transaction is not known, or over")
        for key in keys:
            row = self._database.execute(
                "SELECT transaction_id, record FROM forms_files WHERE key = ?", (key,)
            ).fetchone()
            if row is None or row[0] != transaction:
                raise RefusedError(17017, "the file was not uploaded in this transaction")
            if not self._options.keys_again and row[1] == record:
                raise RefusedError(17017, "the file has to be uploaded again to stay in its record")
            if self._options.keys_once and row[1] not in (None, record):
                raise RefusedError(17017, "the file is in another record")

    def _take(self, data: Members, record: str) -> None:
        with self._database as database:
            database.executemany(
                "UPDATE forms_files SET record = ? WHERE key = ?", [(record, key) for key in data.get(ATTACHMENT, [])]
            )

    def _shown(self, record: str, data: Members) -> dict[str, Any]:
        shown = {name: self._attached(value) if FIELDS[name] == "upload" else value for name, value in data.items()}
        return {"_id": record, "appId": ACCOUNT["app_id"], "entryId": ACCOUNT["entry_id"], **shown}

    def _attached(self, keys: list[str]) -> list[dict[str, Any]]:
        deadline = self._world.clock.now() + self._options.url_life
        attached = []
        for key in keys:
            row = self._database.execute("SELECT name, size, mime FROM forms_files WHERE key = ?", (key,)).fetchone()
            url = accounts.download_url(KODO, self._world.urls["io"], BUCKET, key, deadline)
            attached.append({"name": row[0], "size": row[1], "mime": row[2], "url": url})
        return attached


def _fits(data: Members, wanted: object) -> bool:
    if not isinstance(wanted, dict):
        return True
    results = [_holds(data, condition) for condition in wanted.get("cond", [])]
    return any(results) if wanted.get("rel") == "or" else all(results)


def _holds(data: Members, condition: Members) -> bool:
    if condition["field"] not in FIELDS:
        raise RefusedError(4815, "the filter is for a field that is none")
    held, values = str(data.get(condition["field"], "")), [str(value) for value in condition["value"]]
    match condition["method"]:
        case "eq":
            return held == values[0]
        case "in":
            return held in values
        case "like":
            return values[0] in held
    raise RefusedError(4815, "the filter is not known")


async def _members(request: Request) -> dict[str, Any]:
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise RefusedError(1, "the body is said to be no JSON")
    try:
        members = json.loads(await request.body())
    except ValueError as error:
        raise RefusedError(1, "the body is not JSON") from error
    if not isinstance(members, dict):
        raise RefusedError(1, "the body is no object")
    return members


def _calls(scope: Scope) -> tuple[str, ...]:
    path: str = scope["path"]
    if path == CALLBACK:
        return ("callback",)
    if path.endswith("/get_upload_token"):
        return ("token",)
    name = CALLS.get(path.removeprefix("/api/v5/app/entry/"))
    return (name,) if name else ()


def _refuse(_scope: Scope, status: int) -> Response:
    if status in (502, 503, 504):
        return HTMLResponse("<html><body>Bad Gateway</body></html>", status)
    return JSONResponse({"code": 1, "msg": f"injected {status}"}, status)


def _providers(urls: Mapping[str, str]) -> Mapping[str, Mapping[str, object]]:
    _, path, size, content = FIELDS
    return {
        "jiandaoyun": {
            "broker": "jiandaoyun",
            **ACCOUNT,
            "api": urls["forms"] + "/api",
            "record": "per-file",
            "attachment": ATTACHMENT,
            "values": {path: "{path}", size: "{size}", content: "{hash}"},
        }
    }


VENDOR = Vendor(
    name="jiandaoyun",
    services=(Service("forms", "forms", (*CALLS.values(), "callback")),),
    faults={
        "code-NNN": tuple(f"forms.{call}" for call in CALLS.values()),
        "lapse": ("forms.create", "forms.update"),  # the hour is over as the call arrives
    },
    deferred={},
    secrets=(),
    options=JiandaoyunOptions,
    accounts=ACCOUNT,
    build=lambda world: {"forms": Jiandaoyun(world).endpoint()},
    providers=_providers,
)
