"""An application server that signs uploads, as there are many before S3 and its relatives: for the provider in words.

It takes `POST /v1/uploads` with a bearer key and `{"name", "size", "type"}`, and answers with an address for PUT that is good
for one object, one size and one type until it expires. The address is signed with HMAC-SHA256 over those four.
`POST /v1/forms` takes the same and answers with a form for the OSS bucket, its policy signed for one object and one size.
With "key" the object gets that key, else a random one; `If-None-Match: *` lets a PUT replace nothing (412).
"""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from dumbwaiter_sandbox.oss import accounts, policies
from dumbwaiter_sandbox.storage import StoredObject
from dumbwaiter_sandbox.world import Endpoint, Service, Vendor, World, entry_of

ACCOUNT = {"api_key": "presign-key-000000000001", "bucket": "signed"}
SIGNING = b"presign-signing-key-000000000001"
SIZE_MAX = 5 << 30


@dataclass(frozen=True)
class PresignOptions:
    """The switches of this service. Durations are seconds of the sandbox's clock."""

    life: float = 900  # of an address


class Presign:
    """The signing API and the store behind it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def endpoint(self) -> Endpoint:
        """The server of both."""
        routes = [
            Route("/v1/uploads", self.address, methods=["POST"]),
            Route("/v1/forms", self.form, methods=["POST"]),
            Route("/o/{key:key}", self.put, methods=["PUT"]),
        ]
        return Endpoint(Starlette(routes=routes), _calls, lambda _, status: _error(status, "the request was refused"))

    async def address(self, request: Request) -> Response:
        """An address for PUT."""
        wish = await self._wish(request)
        if isinstance(wish, Response):
            return wish
        query = f"expires={wish.expires}&size={wish.size}&signature={_signature(*wish[:4])}"
        return self._granted(
            wish,
            ACCOUNT["bucket"],
            url=f"{self._world.urls['presign']}/o/{quote(wish.key)}?{query}",
            headers={"Content-Type": wish.kind},
        )

    async def form(self, request: Request) -> Response:
        """A form for OSS."""
        wish = await self._wish(request)
        if isinstance(wish, Response):
            return wish
        end = datetime.fromtimestamp(wish.expires, UTC)
        conditions = [["eq", "$key", wish.key], ["content-length-range", wish.size, wish.size]]
        document = json.dumps({"expiration": f"{end:%Y-%m-%dT%H:%M:%SZ}", "conditions": conditions})
        policy = base64.b64encode(document.encode()).decode()
        return self._granted(
            wish,
            accounts.BUCKET,
            url=f"{self._world.urls['oss']}/{accounts.BUCKET}/",
            fields={
                "OSSAccessKeyId": accounts.ACCESS_KEY,
                "policy": policy,
                "Signature": policies.signature(accounts.SECRET, policy),
                "key": wish.key,
                "success_action_status": "200",
                "x-oss-forbid-overwrite": "false" if wish.overwrite else "true",
            },
        )

    async def _wish(self, request: Request) -> "_Wish | Response":
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {ACCOUNT['api_key']}".encode()):
            return _error(401, "the key is not known")
        try:
            wish = json.loads(await request.body())
            name, size, kind = str(wish["name"]), wish["size"], str(wish["type"])
        except (ValueError, KeyError, TypeError):
            return _error(400, "name, size and type are needed")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= SIZE_MAX:
            return _error(400, "the size is out of range")
        options: PresignOptions = self._world.options["presign"]
        key = str(wish.get("key") or f"{secrets.token_hex(8)}/{name}")
        return _Wish(key, size, kind, int(self._world.clock.now() + options.life), wish.get("overwrite") is not False)

    def _granted(self, wish: "_Wish", bucket: str, **upload: object) -> Response:
        return JSONResponse(
            {
                "upload": upload,
                "key": wish.key,
                "expires_in": wish.expires - int(self._world.clock.now()),
                "link": f"{self._world.urls['cdn']}/{bucket}/{quote(wish.key)}",
            }
        )

    async def put(self, request: Request) -> Response:
        key = unquote(request.scope["raw_path"].decode().removeprefix("/o/"))
        try:
            size, expires = int(request.query_params["size"]), int(request.query_params["expires"])
        except (KeyError, ValueError):
            return _error(403, "the address is not signed")
        kind = request.headers.get("content-type", "")
        wanted = _signature(key, size, kind, expires)
        if not hmac.compare_digest(wanted.encode(), request.query_params.get("signature", "").encode()):
            return _error(403, "the signature does not match")
        if self._world.clock.now() > expires:
            return _error(403, "the address has expired")
        if request.headers.get("content-length") != str(size):
            return _error(400, "the length is not the signed one")
        if request.headers.get("if-none-match") == "*" and self._world.objects.find(ACCOUNT["bucket"], key):
            return _error(412, "the key is taken")
        return await self._store(request, key, size, kind)

    async def _store(self, request: Request, key: str, size: int, kind: str) -> Response:
        folder = os.path.join(self._world.data, "sandbox", "presign")
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, secrets.token_hex(8))
        digest = hashlib.md5()
        received = 0
        try:
            with open(path, "wb") as file:  # noqa: ASYNC230 - a sandbox may wait for its own disk
                async for data in request.stream():
                    file.write(data)
                    digest.update(data)
                    received += len(data)
            if received != size:
                return _error(400, "the body broke off")
            entry_of(request).facts.update(bucket=ACCOUNT["bucket"], object=key)
            stored = StoredObject(ACCOUNT["bucket"], key, size, digest.hexdigest(), kind, self._world.clock.now())
            self._world.objects.publish(path, stored)
        finally:
            with contextlib.suppress(FileNotFoundError):  # published
                os.unlink(path)
        return Response(status_code=200, headers={"etag": f'"{digest.hexdigest()}"'})


class _Wish(NamedTuple):
    """What is to be uploaded, and until when."""

    key: str
    size: int
    kind: str
    expires: int
    overwrite: bool  # else the form says that nothing may be replaced


def _signature(key: str, size: int, kind: str, expires: int) -> str:
    return hmac.new(SIGNING, f"{key}\n{size}\n{kind}\n{expires}".encode(), hashlib.sha256).hexdigest()


def _calls(scope: Scope) -> tuple[str, ...]:
    if scope["path"] in {"/v1/uploads", "/v1/forms"}:
        return ("sign",)
    return ("put",) if scope["path"].startswith("/o/") else ()


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)


def _providers(urls: Mapping[str, str]) -> Mapping[str, Mapping[str, Any]]:
    return {
        "recipe": {
            "broker": "recipe",
            "transport": "put",
            "secrets": {"api_key": ACCOUNT["api_key"]},
            "request": {
                "url": f"{urls['presign']}/v1/uploads",
                "headers": {"Authorization": "Bearer {secret.api_key}"},
                "body": {"name": "{name}", "size": "{size}", "type": "{mime}"},
            },
            "reply": {
                "url": "upload.url",
                "fields": "upload.headers",
                "key": "key",
                "link": "link",
                "expires_in": "expires_in",
            },
        }
    }


VENDOR = Vendor(
    name="presign",
    services=(Service("presign", "presign", ("sign", "put")),),
    faults={},
    deferred={},
    secrets=("signature",),
    options=PresignOptions,
    accounts=ACCOUNT,
    build=lambda world: {"presign": Presign(world).endpoint()},
    providers=_providers,
)
