"""A CareyShop: sign-in, upload tokens for its own disk, Qiniu and Aliyun OSS, its own upload, the callbacks of both, its list.

CareyShop's API manual, 'call conventions', 'upload', 'storage'. The rule: the status in the envelope is the truth, and over plain
HTTP every answer is 200; whoever signs, signs every text that is no file.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import mimetypes
import os
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from dumbwaiter_sandbox import cdn, kodo_accounts, multipart, oss_account, oss_policy
from dumbwaiter_sandbox.careyshop_options import CareyShopOptions
from dumbwaiter_sandbox.careyshop_store import Store
from dumbwaiter_sandbox.storage import StoredObject
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
MODULES = {"careyshop": "CareyShop(本地上传)", "qiniu": "七牛云 KODO", "aliyun": "阿里云 OSS"}
BUCKET = "shop"  # where the shop's own disk is in the sandbox's store
FOLDER = "uploads/files/"
ZONE = timedelta(hours=8)
WINDOW = 600
OPEN = frozenset({"login", "callback"})  # need no sign-in
OWN_FAULTS = frozenset({"inner-error", "no-permission", "signed-out", "refused-item", "truncated", "shrinks"})
_ROUTE = re.compile(r"/api/v1/([a-z]+)(?:/(.*))?")

Params = Mapping[str, Any]


class RefusedError(Exception):
    """The operation is refused: its message, and the status of the newer servers."""

    def __init__(self, message: str, newer: int = 500) -> None:
        super().__init__(message)
        self.newer = newer


class CareyShop:
    """One shop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._store = Store(world.database)
        self._folder = os.path.join(world.data, "sandbox", "careyshop")
        os.makedirs(self._folder, exist_ok=True)

    @property
    def _options(self) -> CareyShopOptions:
        return cast("CareyShopOptions", self._world.options["careyshop"])

    def endpoint(self) -> Endpoint:
        """The server: the API, and the shop's own files."""
        files = cdn.endpoint(self._world, lambda request, bucket, key: True).app

        async def file(scope: Scope, receive: Any, send: Any) -> None:
            await files(
                {**scope, "raw_path": f"/{BUCKET}".encode() + scope["raw_path"], "root_path": ""}, receive, send
            )

        class File:
            """An ASGI application, as a route wants it: not a function."""

            async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
                await file(scope, receive, send)

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
            return self._called_back(request, params, await request.body())
        self._admit(name, params)
        calls: dict[str, Callable[[Params], object]] = {
            "login": self._sign_in,
            "refresh": self._refresh,
            "module": self._modules,
            "url": lambda given: self._address(self._module(given)),
            "token": self._token,
            "list": self._list,
            "item": lambda given: self._store.item(_number(given, "storage_id", 0)),
            "delete": self._delete,
        }
        if name == "upload":
            data = self._upload(params, form, path, refused=bool(fault and fault.name == "refused-item"))
        else:
            data = calls[name](params)
        reply = JSONResponse({"status": 200, "message": "success", "data": data})
        if fault and fault.name == "shrinks":
            self._store.remove(self._store.first(_number(params, "storage_id", 0)))
        if fault and fault.name == "truncated":
            return Response(bytes(reply.body)[:-7], media_type="application/json")
        return reply

    def _strike(self, fault: str) -> None:
        match fault:
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

    # Upload tokens

    def _modules(self, _: Params) -> object:
        default = self._options.default_module
        newer = self._options.generation == 2
        return [
            {"name": name, "module": module, **({"default": int(module == default)} if newer else {})}
            for module, name in MODULES.items()
        ]

    def _module(self, params: Params) -> str:
        module = params.get("module") or self._options.default_module
        if module not in MODULES:
            raise RefusedError(f"上传模块名 {module} 不存在")
        return str(module)

    def _address(self, module: str) -> dict[str, object]:
        newer = self._options.generation == 2
        base = self._world.urls
        names: tuple[str, ...] = ("x:replace", "x:parent_id", "x:filename")
        if module == "careyshop":
            url = f"{base['careyshop']}/api/v1/upload/method/add.upload.list.html"
            names += ("x:is_actual", "key", "token") if newer else ("token",)
        elif module == "qiniu":
            url = f"{base['up1']}/"
            names += ("key", "token")
        else:
            url = f"{base['oss']}/{oss_account.BUCKET}/"
            names += ("OSSAccessKeyId", "policy", "Signature", "callback", "key", "success_action_status")
        defaults = {"x:parent_id": 0, "x:is_actual": 0, "success_action_status": 200}
        fields = [{"name": name, "type": "hidden", "default": defaults.get(name, "")} for name in names]
        return {
            "upload_url": url,
            "module": module,
            "param": [*fields, {"name": "file", "type": "file", "default": ""}],
        }

    def _token(self, params: Params) -> object:
        module = self._module(params)
        if params.get("type", "web") not in {"web", "app"}:
            raise RefusedError("type必须在 web,app 范围内")
        expires = int(self._world.clock.now()) + self._options.token_life
        if module == "aliyun" and params.get("type") == "app":
            return {**self._sts(expires), **self._settings()}
        if module == "careyshop":
            given: dict[str, object] = {"token": "careyshop"}
            if self._options.generation == 1:
                expires = 0
            else:
                given["dir"] = ""
        elif module == "qiniu":
            given = {"token": self._qiniu(expires - 1), "dir": self._dir()}
        else:
            given = {**self._oss(expires), "dir": self._dir()}
        return {"token": {"upload_url": self._address(module), **given}, "expires": expires, **self._settings()}

    def _settings(self) -> dict[str, object]:
        options = self._options
        if options.generation == 1:
            return {}
        return {"image_ext": options.image_ext, "file_ext": options.file_ext, "file_size": f"{options.file_size}M"}

    def _dir(self) -> str:
        return f"{FOLDER}{datetime.fromtimestamp(self._world.clock.now(), UTC) + ZONE:%Y%m%d}/"

    @property
    def _limit(self) -> int:
        return self._options.file_size * 1024 * 1024

    def _callback_url(self, module: str) -> str:
        return f"{self._world.urls['careyshop']}/api/v1/upload/method/put.upload.data/module/{module}.html"

    def _end(self, expires: int) -> int:
        """When the policy inside ends."""
        life = self._options.policy_life
        return expires if life is None else expires - self._options.token_life + life

    def _qiniu(self, deadline: int) -> str:
        policy = {
            "fsizeLimit": self._limit,
            "isPrefixalScope": 1,
            "callbackUrl": self._callback_url("qiniu"),
            "callbackBody": (
                "replace=$(x:replace)&parent_id=$(x:parent_id)&filename=$(x:filename)&mime=$(mimeType)&path=$(key)"
                "&size=$(fsize)&name=$(fname)&width=$(imageInfo.width)&height=$(imageInfo.height)&hash=$(etag)"
            ),
            "callbackBodyType": "application/x-www-form-urlencoded",
            "scope": f"{kodo_accounts.ACCOUNTS['careyshop'].buckets[0]}:{self._dir()}",
            "deadline": self._end(deadline),
        }
        return kodo_accounts.upload_token(kodo_accounts.ACCOUNTS["careyshop"], _php(policy))

    def _oss(self, expires: int) -> dict[str, object]:
        end = datetime.fromtimestamp(self._end(expires) + self._options.utc_offset, UTC)
        document = {
            "expiration": f"{end:%Y-%m-%dT%H:%M:%SZ}",
            "conditions": [["content-length-range", 0, self._limit], ["starts-with", "$key", self._dir()]],
        }
        policy = base64.b64encode(_php(document).encode()).decode()
        return {
            "OSSAccessKeyId": oss_account.ACCESS_KEY,
            "policy": policy,
            "Signature": oss_policy.signature(oss_account.SECRET, policy),
            "callback": base64.b64encode(self._callback().encode()).decode(),
        }

    def _callback(self) -> str:
        body = (
            "replace=${x:replace}&parent_id=${x:parent_id}&filename=${x:filename}&mime=${mimeType}&size=${size}"
            "&width=${imageInfo.width}&height=${imageInfo.height}&path=${object}&hash=${etag}"
        )
        kind = "application/x-www-form-urlencoded"
        return _php({"callbackUrl": self._callback_url("aliyun"), "callbackBody": body, "callbackBodyType": kind})

    def _sts(self, expires: int) -> dict[str, object]:
        session = oss_account.mint(self._end(expires) - 1)
        return {
            "assumed_role_user": {
                "assumed_role_id": "343070050315638201:temp_user",
                "arn": "acs:ram::1763866338345155:role/aliyunosstokengeneratorrole/temp_user",
            },
            "credentials": {
                "access_key_id": session.access_key,
                "access_key_secret": session.secret,
                "security_token": session.token,
                "expiration": f"{datetime.fromtimestamp(session.expires, UTC):%Y-%m-%dT%H:%M:%SZ}",
            },
            "policy": session.policy,
            "bucket": oss_account.BUCKET,
            "callback": self._callback(),
            "callback_url": self._callback_url("aliyun"),
            "expires": expires,
        }

    # Files

    def _upload(self, params: Params, form: multipart.Form | None, path: str, *, refused: bool) -> object:
        if form is None or form.filename is None:
            raise RefusedError("请选择需要上传的附件...")
        suffix = form.filename.rpartition(".")[2].lower() if "." in form.filename else ""
        wrong = ""
        if form.size > self._limit:
            wrong = "上传文件大小不符！"
        elif refused or suffix not in f"{self._options.image_ext},{self._options.file_ext}".split(","):
            wrong = "上传文件后缀不允许"
        if wrong:
            if self._options.generation == 2:
                raise RefusedError(f"{form.filename}：{wrong}")
            return [{"status": 500, "message": wrong}]
        with open(path, "rb") as file:
            content = file.read()
        key = f"{self._dir()}{uuid.uuid4().hex}.{suffix}"
        stored = StoredObject(
            BUCKET, key, form.size, hashlib.md5(content).hexdigest(), form.mime, self._world.clock.now()
        )
        self._world.objects.publish(path, stored)
        item = self._item(
            params.get("x:parent_id") or 0,
            params.get("x:filename") or form.filename,
            form.mime,
            form.size,
            hashlib.sha1(content).hexdigest(),
            f"/{key}",
            f"{urlsplit(self._world.urls['careyshop']).netloc}/{quote(key)}?type=careyshop",
            "careyshop",
        )
        return [self._shown(self._store.keep(item))]

    def _item(
        self, parent: Any, name: str, mime: str, size: int, hash_: str, path: str, url: str, protocol: str
    ) -> dict[str, object]:
        now = f"{datetime.fromtimestamp(self._world.clock.now(), UTC) + ZONE:%Y-%m-%d %H:%M:%S}"
        return {
            "parent_id": int(parent),
            "name": name[:255],
            "mime": mime,
            "ext": path.rpartition(".")[2][:6] if "." in path.rpartition("/")[2] else "",
            "size": size,
            "hash": hash_,
            "path": path,
            "url": url,
            "protocol": protocol,
            "type": 0 if mime.startswith("image/") else 1,
            "create_time": now,
            "update_time": now,
        }

    def _shown(self, row: Mapping[str, object]) -> dict[str, object]:
        """A row as an upload is answered with it."""
        host = urlsplit(self._world.urls["careyshop"]).netloc
        shown = {**row, "pixel": [], "status": 200, "oss": f"{host}/oss?url="}
        if self._options.generation == 1:
            del shown["mime"]
        return shown

    def _called_back(self, request: Request, params: Params, body: bytes) -> Response:
        """A storage service reports a file."""
        module = str(params.get("module", ""))
        target = unquote(request.scope["raw_path"].decode("latin-1"))
        search = request.scope["query_string"]
        signed = target.encode() + (b"?" + search if search else b"") + b"\n" + body
        given = request.headers.get("authorization", "")
        names = {"aliyun": "阿里云 OSS", "qiniu": "七牛云 KODO"}
        if module == "aliyun":
            key = base64.b64decode(request.headers.get("x-oss-pub-key-url", "")).decode("latin-1")
            right = key.startswith(f"{self._world.urls['oss']}/") and oss_account.rsa_verify(signed, given)
        elif module == "qiniu":
            account = kodo_accounts.ACCOUNTS["careyshop"]
            wanted = kodo_accounts.callback_authorization(account, target, body.decode(), form=True)
            right = hmac.compare_digest(wanted.encode(), given.encode())
        else:
            raise RefusedError("模块异常访问!")
        if not right:
            raise RefusedError(f"{names[module]}模块非法访问!")
        values = dict(parse_qsl(body.decode(), keep_blank_values=True))
        if module == "aliyun":
            place, name = f"{self._world.urls['oss']}/{oss_account.BUCKET}", values["path"].rpartition("/")[2]
        else:
            place = f"{self._world.urls['io']}/{kodo_accounts.ACCOUNTS['careyshop'].buckets[0]}"
            name = values.get("name") or values["path"].rpartition("/")[2]
        item = self._item(
            values.get("parent_id") or 0,
            values.get("filename") or name,
            values.get("mime") or mimetypes.guess_type(name)[0] or "",
            int(values["size"]),
            values["hash"],
            values["path"],
            f"{place.removeprefix('http://')}/{quote(values['path'])}?type={module}",
            module,
        )
        same = ("path", "protocol") if module == "aliyun" else ("path", "protocol", "hash")
        row = self._shown(self._store.keep(item, same=same))
        return JSONResponse({"status": 200, "message": "success", "data": [row]})

    def _list(self, params: Params) -> object:
        items, total = self._store.items(
            _number(params, "storage_id", 0),
            str(params.get("name", "")),
            str(params.get("order_field", "storage_id")),
            down=params.get("order_type") == "desc",
            page=max(1, _number(params, "page_no", 1)),
            size=max(1, _number(params, "page_size", 15)),
        )
        if not total:
            return {"total_result": 0, **({"items": []} if self._options.generation == 1 else {})}
        return {"items": items, "total_result": total}

    def _delete(self, params: Params) -> object:
        ids = params.get("storage_id", params.get("storage_id[]", ""))
        self._remove(int(one) for one in (ids if isinstance(ids, list) else [ids]) if str(one).isdigit())
        return True

    def _remove(self, ids: Iterable[int]) -> None:
        for path in self._store.remove(ids):
            self._world.objects.remove(BUCKET, path.lstrip("/"))

    def plant(self, members: Mapping[str, Any]) -> object:
        """Files of somebody else: {"path": "banner/a.jpg", "content": text, "times": n}; or {"remove": [storage_id]}.

        The directories of the path are made. Of several files, named a-1.jpg and so on, the first alone has bytes.
        """
        match members:
            case {"remove": [*ids], **rest} if not rest:
                self._remove(int(one) for one in ids)
                return {"removed": len(ids)}
            case {"path": str() as path, "content": str() as content, "times": int() as times, **rest} if not rest:
                return self._planted(path, content.encode(), times)
            case {"path": str() as path, "content": str() as content, **rest} if not rest:
                return self._planted(path, content.encode(), 1)
        raise ValueError('plant {"path": "folder/name.jpg", "content": "text", "times": 1}, or {"remove": [number]}')

    def _planted(self, path: str, content: bytes, times: int) -> object:
        *folders, name = path.split("/")
        parent = 0
        for folder in folders:
            inside = self._store.inside(parent, folder)
            if inside is None:
                made = self._store.keep({**self._item(parent, folder, "", 0, "", "", "", ""), "type": 2})
                inside = int(str(made["storage_id"]))
            parent = inside
        mime = mimetypes.guess_type(name)[0] or "application/octet-stream"
        suffix = name.rpartition(".")[2].lower() if "." in name else "bin"
        key = f"{self._dir()}{uuid.uuid4().hex}"
        aside = os.path.join(self._folder, uuid.uuid4().hex)
        with open(aside, "wb") as file:
            file.write(content)
        now = self._world.clock.now()
        stored = StoredObject(BUCKET, f"{key}.{suffix}", len(content), hashlib.md5(content).hexdigest(), mime, now)
        self._world.objects.publish(aside, stored)
        place = urlsplit(self._world.urls["careyshop"]).netloc
        stem, dot, ending = name.rpartition(".")

        def item(number: int) -> dict[str, object]:
            own = f"{key}-{number}.{suffix}" if number else stored.key
            shown = (f"{stem}-{number}{dot}{ending}" if stem else f"{name}-{number}") if number else name
            return self._item(
                parent,
                shown,
                mime,
                len(content),
                hashlib.sha1(content).hexdigest(),
                f"/{own}",
                f"{place}/{own}?type=careyshop",
                "careyshop",
            )

        self._store.add(item(number) for number in range(times))
        return {"key": stored.key, "planted": times}


def _number(params: Params, name: str, default: int) -> int:
    text = str(params.get(name, default))
    return int(text) if text.isdigit() else default


def _php(members: Mapping[str, object]) -> str:
    """JSON as PHP writes it."""
    return json.dumps(members, separators=(",", ":")).replace("/", "\\/")


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
            "region": oss_account.REGION,
            "addressing": "path",
        },
    }


VENDOR = Vendor(
    name="careyshop",
    services=(Service("careyshop", "careyshop", CALLS),),
    faults={
        "inner-error": tuple(f"careyshop.{name}" for name in CALLS if name != "file"),
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
    plant=lambda world, members: CareyShop(world).plant(members),
)
