"""A CareyShop: who asks, sign-in, and which operation answers.

CareyShop's API manual, 'call conventions'. The rule: the status in the envelope is the truth, and over plain
HTTP every answer is 200; whoever signs, signs every text that is no file.
"""

import contextlib
import hashlib
import hmac
import json
import os
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from dumbwaiter_sandbox import cdn, multipart
from dumbwaiter_sandbox.careyshop.files import BUCKET, Files, number
from dumbwaiter_sandbox.careyshop.options import CareyShopOptions
from dumbwaiter_sandbox.careyshop.refusal import RefusedError
from dumbwaiter_sandbox.careyshop.store import Store
from dumbwaiter_sandbox.careyshop.tokens import Params, Tokens
from dumbwaiter_sandbox.oss.accounts import REGION
from dumbwaiter_sandbox.world import Endpoint, Service, Vendor, World, entry_of, fault_of

# Made up: they open nothing but this sandbox.
ACCOUNT = {
    "app_key": "12345678",
    "app_secret": "0123456789abcdef0123456789abcdef",
    "username": "dumbwaiter",
    "password": "shop-password-0001",
}
OPERATIONS = {
    "login.admin.user": "login",
    "refresh.admin.token": "refresh",
    "get.upload.module": "module",
    "get.upload.url": "url",
    "get.upload.token": "token",
    "add.upload.list": "upload",
    "put.upload.data": "callback",
    "get.storage.list": "list",
    "get.storage.item": "item",
    "del.storage.list": "delete",
}
CALLS = (*OPERATIONS.values(), "file")
WINDOW = 600
OPEN = frozenset({"login", "callback"})  # need no sign-in
OWN_FAULTS = frozenset({"closed", "inner-error", "no-permission", "signed-out", "refused-item", "truncated", "shrinks"})
_ROUTE = re.compile(r"/api/v1/([a-z]+)(?:/(.*))?")


class CareyShop:
    """One shop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._store = Store(world.database)
        self._folder = os.path.join(world.data, "sandbox", "careyshop")
        os.makedirs(self._folder, exist_ok=True)
        self._tokens = Tokens(world)
        self.files = Files(world, self._store, self._tokens, self._folder)

    @property
    def _options(self) -> CareyShopOptions:
        return cast("CareyShopOptions", self._world.options["careyshop"])

    def endpoint(self) -> Endpoint:
        """The server: the API, and the shop's own files."""
        files = cdn.endpoint(self._world, lambda request, bucket, key: True).app

        class File:
            """An ASGI application, as a route wants it: not a function."""

            async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
                path = f"/{BUCKET}".encode() + scope["raw_path"]
                await files({**scope, "raw_path": path, "root_path": ""}, receive, send)

        routes = [
            Route("/uploads/{path:path}", File(), methods=["GET", "HEAD"]),
            Route("/{path:path}", self._answer, methods=["GET", "POST", "PUT", "DELETE"]),
        ]
        return Endpoint(Starlette(routes=routes), _calls, _broken, OWN_FAULTS)

    async def _answer(self, request: Request) -> Response:
        path = os.path.join(self._folder, uuid.uuid4().hex)
        try:
            return await self._operate(request, path)
        except RefusedError as error:
            status = error.newer if self._options.generation == 2 else 500
            members: dict[str, object] = {"status": status, "message": str(error)}
            if self._options.generation == 2:
                members["data"] = None
            return JSONResponse(members, status if self._options.https else 200)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    async def _operate(self, request: Request, path: str) -> Response:
        if request.method not in {"GET", "POST"}:
            raise RefusedError("不支持的请求方式")
        params, form = await self._params(request, path)
        name = OPERATIONS.get(str(params.get("method", "")))
        fault = fault_of(request)
        self._strike(fault.name if fault else "")
        if name is None:
            raise RefusedError("method成员方法不存在")
        if name == "callback":
            return self.files.called_back(request, params, await request.body())
        self._admit(name, params)
        calls: dict[str, Callable[[Params], object]] = {
            "login": self._sign_in,
            "refresh": self._refresh,
            "module": self._tokens.modules,
            "url": lambda given: self._tokens.address(self._tokens.module(given)),
            "token": self._tokens.token,
            "list": self.files.listed,
            "item": lambda given: self._store.item(number(given, "storage_id", 0)),
            "delete": self.files.delete,
        }
        if name == "upload":
            data = self.files.upload(params, form, path, refused=bool(fault and fault.name == "refused-item"))
        else:
            data = calls[name](params)
        reply = JSONResponse({"status": 200, "message": "success", "data": data})
        if fault and fault.name == "shrinks":
            self._store.remove(self._store.first(number(params, "storage_id", 0)))
        if fault and fault.name == "truncated":
            return Response(bytes(reply.body)[:-7], media_type="application/json")
        return reply

    def _strike(self, fault: str) -> None:
        match fault:
            case "closed":
                raise RefusedError("商城维护中")  # whatever its owner wrote
            case "inner-error":
                raise RefusedError("异常错误，请重新尝试上传")
            case "no-permission":
                raise RefusedError("权限不足", 403)
            case "signed-out":
                self._store.sign_out()

    # Who asks, and for what

    async def _params(self, request: Request, path: str) -> tuple[dict[str, Any], multipart.Form | None]:
        """All parameters: those of the path win over the body's, these over the query's."""
        params: dict[str, Any] = dict(parse_qsl(request.scope["query_string"].decode(), keep_blank_values=True))
        form = None
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            try:
                form = await multipart.read(request.headers["content-type"], request.stream(), path)
            except multipart.FormError:
                raise RefusedError("请选择需要上传的附件...") from None
            params |= form.fields
            entry_of(request).facts.update(fields=form.order, filename=form.filename)
        elif kind == "application/json" or (kind == "text/plain" and self._options.generation == 2):
            params |= json.loads(await request.body() or b"{}")
        elif kind == "application/x-www-form-urlencoded":
            params |= parse_qsl((await request.body()).decode(), keep_blank_values=True)
        return {**params, **_path_params(request.scope["path"])}, form

    def _admit(self, name: str, params: Params) -> None:
        """Hold a call against timestamp, token, right and signature, in that order."""
        now = self._world.clock.now()
        stamp = str(params.get("timestamp", ""))
        if not stamp.isdigit() or abs(int(stamp) - now) > WINDOW:
            raise RefusedError("timestamp已过期")
        newer = self._options.generation == 2
        if name not in OPEN:
            session = self._store.session(str(params.get("token", "")))
            if session is None:
                raise RefusedError("未授权或授权已过期" if newer else "权限不足", 401)
            if now >= session.expires:
                raise RefusedError("token已过期", 401)
            if not self._options.right:
                raise RefusedError("权限不足", 403)
        if params.get("appkey") != ACCOUNT["app_key"]:
            raise RefusedError("appkey已禁用或不存在")
        if name in OPEN:
            return
        if newer and not params.get("sign"):
            raise RefusedError("sign不存在")
        if not hmac.compare_digest(_sign(params, newer=newer).encode(), str(params.get("sign", "")).encode()):
            raise RefusedError("sign错误")

    def _sign_in(self, params: Params) -> object:
        if not params.get("platform"):
            raise RefusedError("platform不能为空")
        if params.get("username") != ACCOUNT["username"]:
            raise RefusedError("账号不存在")
        if params.get("password") != ACCOUNT["password"]:
            raise RefusedError("账号或密码错误")
        session = self._store.sign_in(params["platform"], self._world.clock.now(), self._options.session_life)
        return {"admin": {"admin_id": 1, "username": ACCOUNT["username"]}, "token": session.as_json()}

    def _refresh(self, params: Params) -> object:
        session = self._store.session(params["token"])
        if session is None or session.refresh != params.get("refresh"):
            raise RefusedError("refresh错误")
        fresh = self._store.sign_in(session.platform, self._world.clock.now(), self._options.session_life)
        return {"token": fresh.as_json()}


def _sign(params: Params, *, newer: bool) -> str:
    secret = ACCOUNT["app_secret"]
    text = secret
    for name in sorted(set(params) - {"sign"}, key=str.encode):
        value = params[name]
        if isinstance(value, str) and (newer or not value.startswith("@")):
            text += name + value
        elif newer and isinstance(value, bool):
            text += name + ("1" if value else "")
        elif newer and isinstance(value, int | float):
            text += f"{name}{value}"
    return hashlib.md5(f"{text}{secret}".encode()).hexdigest()


def _path_params(path: str) -> dict[str, str]:
    """The parameters of a path: /api/v1/CONTROLLER/name/value/..., perhaps with .html at its end."""
    match = _ROUTE.fullmatch(path)
    if not match or not match[2]:
        return {}
    parts = match[2].removesuffix("/").removesuffix(".html").split("/")
    return dict(zip(parts[::2], parts[1::2], strict=False))


def _calls(scope: Scope) -> tuple[str, ...]:
    if scope["path"].startswith("/uploads/"):
        return ("file",)
    query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
    name = OPERATIONS.get({**query, **_path_params(scope["path"])}.get("method", ""))
    return (name,) if name else ()


def _broken(_: Scope, status: int) -> Response:
    # Not the shop's own answer but that of the proxy before it.
    return Response(f"<html><body><h1>{status}</h1></body></html>", status, media_type="text/html")


def _providers(urls: Mapping[str, str]) -> Mapping[str, Mapping[str, object]]:
    shop = {
        "broker": "careyshop",
        "api": f"{urls['careyshop']}/api/v1",
        **{name: ACCOUNT[name] for name in ("app_key", "app_secret", "username", "password")},
    }
    return {
        "careyshop": shop,
        "careyshop-qiniu": {**shop, "module": "qiniu"},
        "careyshop-aliyun": {**shop, "module": "aliyun", "request": "get"},
        "careyshop-sts": {
            **shop,
            "module": "aliyun",
            "terminal": "app",
            "endpoint": urls["oss"],
            "region": REGION,
            "addressing": "path",
        },
    }


VENDOR = Vendor(
    name="careyshop",
    services=(Service("careyshop", "careyshop", CALLS),),
    faults={
        **dict.fromkeys(("closed", "inner-error"), tuple(f"careyshop.{name}" for name in CALLS if name != "file")),
        "no-permission": tuple(f"careyshop.{name}" for name in ("token", "upload", "url", "module", "list")),
        "shrinks": ("careyshop.list",),
        "signed-out": ("careyshop.token", "careyshop.upload", "careyshop.list"),
        "refused-item": ("careyshop.upload",),
        "truncated": tuple(f"careyshop.{name}" for name in ("token", "login", "upload", "list")),
    },
    deferred={},
    secrets=("sign", "token", "password", "refresh"),
    options=CareyShopOptions,
    accounts=ACCOUNT,
    build=lambda world: {"careyshop": CareyShop(world).endpoint()},
    providers=_providers,
    plant=lambda world, members: CareyShop(world).files.plant(members),
)
