"""ImageX's API: a permission for objects that are to come, and the commit that makes them objects.

Volcengine's veImageX manual, 'ApplyImageUpload', 'CommitImageUpload' and 'error codes'. The rule: an error stands in
ResponseMetadata.Error whatever the status; an object exists from its commit on. The gateway of the vendor's own products takes
AWS's signature, that of the public product Volcengine's; behind them is one service.
"""

import base64
import json
import os
import re
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from dumbwaiter_sandbox.jimeng import imagex_auth
from dumbwaiter_sandbox.jimeng.imagex_picture import HEAD, picture
from dumbwaiter_sandbox.jimeng.imagex_store import Held, Store
from dumbwaiter_sandbox.jimeng.options import JimengOptions
from dumbwaiter_sandbox.jimeng.sigv4_check import Scheme, SignatureError, check
from dumbwaiter_sandbox.rate import Rate
from dumbwaiter_sandbox.storage import StoredObject, UnstorableError
from dumbwaiter_sandbox.world import Endpoint, World, entry_of, fault_of

ACTIONS = {"ApplyImageUpload": ("GET", "apply"), "CommitImageUpload": ("POST", "commit")}
CALLS = ("apply", "commit")
VERSION = "2018-08-01"
STORED, FAILED, UNTOLD = 2000, 2001, 0
NUM_LIMIT = 10
EXTENSION_LIMIT = 8
BEIJING = timezone(timedelta(hours=8))
REFUSALS = {
    "keys-expired": (401, 100026, "InvalidSecretToken"),
    "clock-wrong": (400, 100006, "InvalidTimestamp"),
    "signature-wrong": (401, 100010, "SignatureDoesNotMatch"),
    "flow-limit": (429, 100018, "FlowLimitExceeded"),
    "busy-inside": (200, 600014, "TooManyRequests"),
}
COMMIT_FAULTS = ("uri-failed", "uri-untold", "no-results", "plugin-text")
OWN_FAULTS = frozenset({*REFUSALS, *COMMIT_FAULTS})
STATUSES = {
    500: "InternalError",
    502: "InternalServiceError",
    503: "ServiceUnavailableTemp",
    504: "InternalServiceTimeout",
}


class Api:
    """The service behind both gateways."""

    def __init__(self, world: World, store: Store, auth_key: str, buckets: Mapping[str, str]) -> None:
        self._world = world
        self._store = store
        self._auth_key = auth_key
        self._buckets = buckets
        self._rate = Rate()

    @property
    def _options(self) -> JimengOptions:
        return cast("JimengOptions", self._world.options["jimeng"])

    def endpoint(self, scheme: Scheme) -> Endpoint:
        """The server of one gateway."""

        async def call(request: Request) -> Response:
            try:
                return await self._call(request, scheme)
            except SignatureError as error:
                return self._error(error.status, error.number, error.code, str(error))

        app = Starlette(routes=[Route("/", call, methods=["GET", "POST"])])
        return Endpoint(app, _calls, lambda _, status: self._status(status), OWN_FAULTS)

    async def _call(self, request: Request, scheme: Scheme) -> Response:
        body = await request.body()
        self._strike(request)
        query = request.query_params
        method, _ = ACTIONS.get(query.get("Action", ""), ("", ""))
        if not method or query.get("Version") != VERSION:
            raise SignatureError(404, 100008, "InvalidActionOrVersion", "there is no such action")
        if request.method != method:
            raise SignatureError(404, 100008, "InvalidActionOrVersion", f"the action takes {method}")
        window = self._options.window
        key = check(request, body, scheme, self._store.credentials, self._world.clock.now(), window)
        if not self._rate.takes(self._options.rate):
            raise SignatureError(429, 100018, "FlowLimitExceeded", "too many requests")
        service = query.get("ServiceId", "")
        if not service:
            raise SignatureError(400, 600008, "EmptyServiceId", "ServiceId is missing")
        if service != self._store.service(key):
            raise SignatureError(400, 601009, "ServiceAccountMismatch", "these keys are for another service")
        if method == "GET":
            return self._apply(request, service)
        return self._commit(request, service, body)

    def _strike(self, request: Request) -> None:
        fault = fault_of(request)
        if fault and fault.name in REFUSALS:
            status, number, code = REFUSALS[fault.name]
            raise SignatureError(status, number, code, "as the fault says")

    def _apply(self, request: Request, service: str) -> Response:
        names = self._names(request)
        size = request.query_params.get("FileSize")
        if size is not None and not re.fullmatch(r"[0-9]{1,15}", size):
            raise SignatureError(400, 600003, "InvalidParameter", "FileSize is no number")
        expires = self._world.clock.now() + self._options.auth_life
        uris = [f"{self._buckets[service]}/{name}" for name in names]
        announced = int(size) if size is not None and len(uris) == 1 else None
        auths = [imagex_auth.make(self._auth_key, service, uri, expires) for uri in uris]
        session = _session(service, uris)
        self._store.begin(session, service, expires, [(uri, announced) for uri in uris])
        entry_of(request).facts.update(uris=uris, service=service)
        return self._answer(
            "ApplyImageUpload",
            {
                "UploadAddress": {
                    "SessionKey": session,
                    "UploadHosts": self._hosts(),
                    "UploadHeader": _header(self._options.upload_header),
                    "StoreInfos": [{"StoreUri": uri, "Auth": auth} for uri, auth in zip(uris, auths, strict=True)],
                }
            },
        )

    def _names(self, request: Request) -> list[str]:
        query = request.query_params
        number = query.get("UploadNum", "1")
        if not number.isdigit() or not 1 <= int(number) <= NUM_LIMIT:
            raise SignatureError(400, 600003, "InvalidParameter", f"UploadNum is not between 1 and {NUM_LIMIT}")
        keys = query.getlist("StoreKeys")
        if keys:
            if len(keys) != int(number) or not all(keys):
                raise SignatureError(400, 600003, "InvalidParameter", "there are not as many StoreKeys as UploadNum")
            return keys
        extension = query.get("FileExtension", "")
        if len(extension.encode()) > EXTENSION_LIMIT or "/" in extension:
            raise SignatureError(400, 600003, "InvalidParameter", "FileExtension is too long")
        return [uuid.uuid4().hex + extension for _ in range(int(number))]

    def _hosts(self) -> list[str]:
        urls = [self._world.urls[name] for name in self._options.host_order]
        return [url.partition("://")[2] for url in urls] if self._options.bare_hosts else urls

    def _commit(self, request: Request, service: str, body: bytes) -> Response:
        members = _members(body)
        session = members.get("SessionKey") or request.query_params.get("SessionKey")
        known = self._store.session(session) if isinstance(session, str) else None
        if known is None or known[0] != service:
            raise SignatureError(400, 600003, "InvalidParameter", "SessionKey was not issued here")
        if self._world.clock.now() >= known[1]:
            raise SignatureError(400, 600003, "InvalidParameter", "SessionKey is expired")
        oids = members.get("SuccessOids")
        assert isinstance(session, str)
        held = self._store.objects(session)
        if oids is not None and (not isinstance(oids, list) or not set(oids) <= {one.uri for one in held}):
            raise SignatureError(400, 600003, "InvalidParameter", "SuccessOids holds what the session does not")
        fault = fault_of(request)
        name = fault.name if fault else ""
        results, plugins = [], []
        for one in held:
            wanted = one.size is not None and (oids is None or one.uri in oids)
            fact = self._publish(one) if wanted and name != "uri-failed" else None
            status = STORED if fact is not None else FAILED
            if (fact == {} and oids is None) or name == "uri-untold":
                status = UNTOLD
            results.append({"Uri": one.uri, "UriStatus": status})
            if fact:
                plugins.append(fact)
        entry_of(request).facts.update(statuses=[one["UriStatus"] for one in results])
        given: object = json.dumps(plugins) if name == "plugin-text" else plugins
        told = {} if name == "no-results" else {"Results": results}
        return self._answer("CommitImageUpload", {**told, "PluginResult": given})

    def _publish(self, one: Held) -> dict[str, object]:
        """Make it an object, unless an earlier commit did; what is to be said of a picture."""
        bucket, _, key = one.uri.partition("/")
        assert one.size is not None
        assert one.md5 is not None
        if os.path.exists(source := self._store.whole(one.uri)):
            now = self._world.clock.now()
            stored = StoredObject(bucket, key, one.size, one.md5, "application/octet-stream", now)
            try:
                self._world.objects.publish(source, stored)
            except UnstorableError as error:
                raise SignatureError(400, 600003, "InvalidParameter", str(error)) from error
        with open(self._world.objects.path(bucket, key), "rb") as file:
            found = picture(file.read(HEAD))
        if found is None:
            return {}
        kind, width, height = found
        return {
            "FileName": key,
            "SourceUri": one.uri,
            "ImageUri": one.uri,
            "ImageWidth": width,
            "ImageHeight": height,
            "ImageMd5": one.md5,
            "ImageFormat": kind,
            "ImageSize": one.size,
            "FrameCnt": 1,
        }

    def _metadata(self, action: str = "") -> dict[str, object]:
        now = datetime.fromtimestamp(self._world.clock.now(), BEIJING).strftime("%Y%m%d%H%M%S")
        request = f"{now}{uuid.uuid4().hex[:20].upper()}"
        return {"RequestId": request, "Action": action, "Version": VERSION, "Service": "imagex", "Region": "cn-north-1"}

    def _answer(self, action: str, result: dict[str, Any]) -> Response:
        metadata = self._metadata(action)
        result = {"RequestId": metadata["RequestId"], **result}
        return JSONResponse({"ResponseMetadata": metadata, "Result": result})

    def _error(self, status: int, number: int, code: str, message: str) -> Response:
        error = {"CodeN": number, "Code": code, "Message": message}
        return JSONResponse({"ResponseMetadata": {**self._metadata(), "Error": error}}, status)

    def _status(self, status: int) -> Response:
        return self._error(status, 100000 + status, STATUSES.get(status, "Error"), "as the fault says")


def _calls(scope: Scope) -> tuple[str, ...]:
    query = scope["query_string"].decode("latin-1")
    match = re.search(r"(?:^|&)Action=(\w+)", query)
    name = ACTIONS.get(match[1] if match else "", ("", ""))[1]
    return (name,) if name else ()


def _session(service: str, uris: list[str]) -> str:
    inside = {"accountType": "ImageX", "serviceId": service, "uris": uris, "nonce": uuid.uuid4().hex}
    return base64.b64encode(json.dumps(inside).encode()).decode()


def _header(form: str) -> object:
    member = {"X-Sandbox-Route": "one"}
    forms = {"null": None, "object": member, "list": [{"Key": key, "Value": value} for key, value in member.items()]}
    return forms[form]


def _members(body: bytes) -> dict[str, Any]:
    try:
        members = json.loads(body or b"{}")
    except ValueError as error:
        raise SignatureError(400, 600003, "InvalidParameter", "the body is not JSON") from error
    if not isinstance(members, dict):
        raise SignatureError(400, 600003, "InvalidParameter", "the body is not a JSON object")
    return members
