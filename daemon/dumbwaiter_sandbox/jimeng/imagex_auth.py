"""The permission string of an upload: a prefix that names the service and a JSON web token for one object.

RFC 7519 with HS256. The rule: it is good for the one object it names and until its end, and for nothing else.
"""

import base64
import hashlib
import hmac
import json
import re
from typing import Any

_AUTH = re.compile(
    r"SpaceKey/(?P<service>[^/]+)/1/:version:v2:(?P<token>[\w-]+\.(?P<payload>[\w-]+)\.(?P<sign>[\w-]+))"
)


def make(key: str, service: str, uri: str, expires: float) -> str:
    """A permission to upload one object."""
    bucket, _, name = uri.partition("/")
    payload = {
        "exp": int(expires),
        "signatureInfo": {
            "accessKey": "fake_access_key",
            "bucket": bucket,
            "expire": int(expires),
            "fileInfos": [{"okey": name, "fileType": "1"}],
            "extra": {"account_product": "imagex", "space": service},
        },
    }
    text = ".".join(_encoded(part) for part in ({"alg": "HS256", "typ": "JWT"}, payload))
    return f"SpaceKey/{service}/1/:version:v2:{text}.{_signature(key, text)}"


def problem(auth: str, key: str, uri: str, now: float) -> str | None:
    """What is wrong with a permission for this object now, None if nothing."""
    match = _AUTH.fullmatch(auth)
    if not match:
        return "the permission is malformed"
    text = match["token"].rpartition(".")[0]
    if not hmac.compare_digest(_signature(key, text), match["sign"]):
        return "the permission was not issued here"
    payload = _decoded(match["payload"])
    info = payload["signatureInfo"]
    if now >= payload["exp"]:
        return "the permission is expired"
    if uri not in {f"{info['bucket']}/{one['okey']}" for one in info["fileInfos"]}:
        return "the permission is for another object"
    return None


def _encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode().rstrip("=")


def _decoded(text: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return value


def _signature(key: str, text: str) -> str:
    digest = hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
