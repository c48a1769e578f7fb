"""A CareyShop's upload tokens: for its own disk, Qiniu and Aliyun OSS.

CareyShop's API manual, 'upload'.
"""

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from dumbwaiter_sandbox.careyshop.options import CareyShopOptions
from dumbwaiter_sandbox.careyshop.refusal import RefusedError
from dumbwaiter_sandbox.kodo import accounts as kodo_accounts
from dumbwaiter_sandbox.oss import accounts as oss_accounts
from dumbwaiter_sandbox.oss.policies import signature
from dumbwaiter_sandbox.world import World

MODULES = {"careyshop": "CareyShop(本地上传)", "qiniu": "七牛云 KODO", "aliyun": "阿里云 OSS"}
FOLDER = "uploads/files/"
ZONE = timedelta(hours=8)

Params = Mapping[str, Any]


class Tokens:
    """Who may upload, where, and with which policy."""

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def _options(self) -> CareyShopOptions:
        return cast("CareyShopOptions", self._world.options["careyshop"])

    def modules(self, _: Params) -> object:
        default = self._options.default_module
        newer = self._options.generation == 2
        return [
            {"name": name, "module": module, **({"default": int(module == default)} if newer else {})}
            for module, name in MODULES.items()
        ]

    def module(self, params: Params) -> str:
        module = params.get("module") or self._options.default_module
        if module not in MODULES:
            raise RefusedError(f"上传模块名 {module} 不存在")
        return str(module)

    def address(self, module: str) -> dict[str, object]:
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
            url = f"{base['oss']}/{oss_accounts.BUCKET}/"
            names += ("OSSAccessKeyId", "policy", "Signature", "callback", "key", "success_action_status")
        defaults = {"x:parent_id": 0, "x:is_actual": 0, "success_action_status": 200}
        fields = [{"name": name, "type": "hidden", "default": defaults.get(name, "")} for name in names]
        return {
            "upload_url": url,
            "module": module,
            "param": [*fields, {"name": "file", "type": "file", "default": ""}],
        }

    def token(self, params: Params) -> object:
        module = self.module(params)
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
            given = {"token": self._qiniu(expires - 1), "dir": self.dir()}
        else:
            given = {**self._oss(expires), "dir": self.dir()}
        return {"token": {"upload_url": self.address(module), **given}, "expires": expires, **self._settings()}

    def _settings(self) -> dict[str, object]:
        options = self._options
        if options.generation == 1:
            return {}
        return {"image_ext": options.image_ext, "file_ext": options.file_ext, "file_size": f"{options.file_size}M"}

    def dir(self) -> str:
        return f"{FOLDER}{datetime.fromtimestamp(self._world.clock.now(), UTC) + ZONE:%Y%m%d}/"

    @property
    def limit(self) -> int:
        return self._options.file_size * 1024 * 1024

    def _callback_url(self, module: str) -> str:
        return f"{self._world.urls['careyshop']}/api/v1/upload/method/put.upload.data/module/{module}.html"

    def _end(self, expires: int) -> int:
        """When the policy inside ends."""
        life = self._options.policy_life
        return expires if life is None else expires - self._options.token_life + life

    def _qiniu(self, deadline: int) -> str:
        policy = {
            "fsizeLimit": self.limit,
            "isPrefixalScope": 1,
            "callbackUrl": self._callback_url("qiniu"),
            "callbackBody": (
                "replace=$(x:replace)&parent_id=$(x:parent_id)&filename=$(x:filename)&mime=$(mimeType)&path=$(key)"
                "&size=$(fsize)&name=$(fname)&width=$(imageInfo.width)&height=$(imageInfo.height)&hash=$(etag)"
            ),
            "callbackBodyType": "application/x-www-form-urlencoded",
            "scope": f"{kodo_accounts.ACCOUNTS['careyshop'].buckets[0]}:{self.dir()}",
            "deadline": self._end(deadline),
        }
        return kodo_accounts.upload_token(kodo_accounts.ACCOUNTS["careyshop"], _php(policy))

    def _oss(self, expires: int) -> dict[str, object]:
        end = datetime.fromtimestamp(self._end(expires) + self._options.utc_offset, UTC)
        document = {
            "expiration": f"{end:%Y-%m-%dT%H:%M:%SZ}",
            "conditions": [["content-length-range", 0, self.limit], ["starts-with", "$key", self.dir()]],
        }
        policy = base64.b64encode(_php(document).encode()).decode()
        return {
            "OSSAccessKeyId": oss_accounts.ACCESS_KEY,
            "policy": policy,
            "Signature": signature(oss_accounts.SECRET, policy),
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
        session = oss_accounts.mint(self._end(expires) - 1)
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
            "bucket": oss_accounts.BUCKET,
            "callback": self._callback(),
            "callback_url": self._callback_url("aliyun"),
            "expires": expires,
        }


def _php(members: Mapping[str, object]) -> str:
    """JSON as PHP writes it."""
    return json.dumps(members, separators=(",", ":")).replace("/", "\\/")
