"""A CareyShop's files: uploaded to its own disk, reported by a storage service, listed, removed, and planted.

CareyShop's API manual, 'upload', 'storage'.
"""

import base64
import hashlib
import hmac
import mimetypes
import os
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dumbwaiter_sandbox import multipart
from dumbwaiter_sandbox.careyshop.options import CareyShopOptions
from dumbwaiter_sandbox.careyshop.refusal import RefusedError
from dumbwaiter_sandbox.careyshop.store import Store
from dumbwaiter_sandbox.careyshop.tokens import ZONE, Params, Tokens
from dumbwaiter_sandbox.kodo import accounts as kodo_accounts
from dumbwaiter_sandbox.oss import accounts as oss_accounts
from dumbwaiter_sandbox.storage import StoredObject
from dumbwaiter_sandbox.world import World

BUCKET = "shop"  # where the shop's own disk is in the sandbox's store


class Files:
    """The shop's own disk, and the rows of all files."""

    def __init__(self, world: World, store: Store, tokens: Tokens, folder: str) -> None:
        self._world = world
        self._store = store
        self._tokens = tokens
        self._folder = folder

    @property
    def _options(self) -> CareyShopOptions:
        return cast("CareyShopOptions", self._world.options["careyshop"])

    def upload(self, params: Params, form: multipart.Form | None, path: str, *, refused: bool) -> object:
        if form is None or form.filename is None:
            raise RefusedError("请选择需要上传的附件...")
        suffix = form.filename.rpartition(".")[2].lower() if "." in form.filename else ""
        wrong = ""
        if form.size > self._tokens.limit:
            wrong = "上传文件大小不符！"
        elif refused or suffix not in f"{self._options.image_ext},{self._options.file_ext}".split(","):
            wrong = "上传文件后缀不允许"
        if wrong:
            if self._options.generation == 2:
                raise RefusedError(f"{form.filename}：{wrong}")
            return [{"status": 500, "message": wrong}]
        with open(path, "rb") as file:
            content = file.read()
        key = f"{self._tokens.dir()}{uuid.uuid4().hex}.{suffix}"
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

    def called_back(self, request: Request, params: Params, body: bytes) -> Response:
        """A storage service reports a file."""
        module = str(params.get("module", ""))
        target = unquote(request.scope["raw_path"].decode("latin-1"))
        search = request.scope["query_string"]
        signed = target.encode() + (b"?" + search if search else b"") + b"\n" + body
        given = request.headers.get("authorization", "")
        names = {"aliyun": "阿里云 OSS", "qiniu": "七牛云 KODO"}
        if module == "aliyun":
            key = base64.b64decode(request.headers.get("x-oss-pub-key-url", "")).decode("latin-1")
            right = key.startswith(f"{self._world.urls['oss']}/") and oss_accounts.rsa_verify(signed, given)
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
            place, name = f"{self._world.urls['oss']}/{oss_accounts.BUCKET}", values["path"].rpartition("/")[2]
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

    def listed(self, params: Params) -> object:
        items, total = self._store.items(
            number(params, "storage_id", 0),
            str(params.get("name", "")),
            str(params.get("order_field", "storage_id")),
            down=params.get("order_type") == "desc",
            page=max(1, number(params, "page_no", 1)),
            size=max(1, number(params, "page_size", 15)),
        )
        if not total:
            return {"total_result": 0, **({"items": []} if self._options.generation == 1 else {})}
        return {"items": items, "total_result": total}

    def delete(self, params: Params) -> object:
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
        key = f"{self._tokens.dir()}{uuid.uuid4().hex}"
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


def number(params: Params, name: str, default: int) -> int:
    """A parameter that is a number; what is none counts as left out."""
    text = str(params.get(name, default))
    return int(text) if text.isdigit() else default
