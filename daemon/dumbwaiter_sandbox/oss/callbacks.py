"""The callback that OSS makes after an object is stored, and what its answer has to be.

OSS's manual, 'callback'. The rule: the object stays whatever comes of it; an answer that is not 200 with a length and valid JSON,
in five seconds, is a failure, and nothing is tried again.
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

import httpx

from dumbwaiter_sandbox.callback import CallbackFailedError, caller
from dumbwaiter_sandbox.oss import accounts
from dumbwaiter_sandbox.oss.refusal import RefusedError
from dumbwaiter_sandbox.storage import StoredObject

FORM = "application/x-www-form-urlencoded"
LIMIT = 5 * 1024
ANSWER_LIMIT = 1024 * 1024
_VARIABLE = re.compile(r"\$\{([^}]*)\}")


@dataclass(frozen=True)
class Callback:
    """What to send, and where."""

    urls: tuple[str, ...]
    body: str
    kind: str = FORM
    variables: Mapping[str, str] | None = None


def read(encoded: str | None, variables: Mapping[str, str]) -> Callback | None:
    """The callback of a request, None without one. Raises RefusedError when it is malformed."""
    if not encoded:
        return None
    if len(encoded) > LIMIT:
        raise RefusedError(400, "InvalidArgument", "The callback configuration is too long.")
    try:
        members = json.loads(base64.b64decode(encoded, validate=True))
        urls, body = members["callbackUrl"], members["callbackBody"]
        kind = members.get("callbackBodyType", FORM)
        if not urls or not body or kind not in {FORM, "application/json"}:
            raise ValueError("members")
    except (ValueError, KeyError, TypeError):
        raise RefusedError(400, "InvalidArgument", "The callback configuration is not json format.") from None
    return Callback(tuple(urls.split(";")), body, kind, variables)


def variables(encoded: str | None) -> dict[str, str]:
    """The custom variables of a header. Raises RefusedError."""
    if not encoded:
        return {}
    try:
        members = json.loads(base64.b64decode(encoded, validate=True))
    except ValueError:
        raise RefusedError(400, "InvalidArgument", "The callback variables are not json format.") from None
    if not isinstance(members, dict) or not all(
        name.startswith("x:") and name == name.lower() and isinstance(value, str) for name, value in members.items()
    ):
        raise RefusedError(400, "InvalidArgument", "The callback variables are not valid.")
    return members


def filled(callback: Callback, stored: StoredObject) -> str:
    """The body with every variable put in; an unknown one is empty."""
    known = {
        "bucket": stored.bucket,
        "object": stored.key,
        "etag": stored.etag,
        "size": str(stored.size),
        "mimeType": stored.content_type,
        "crc64": stored.meta.get("x-oss-hash-crc64ecma", ""),
        **(callback.variables or {}),
    }

    def one(match: re.Match[str]) -> str:
        value = known.get(match[1], "")
        return quote(value, safe="") if callback.kind == FORM else json.dumps(value, ensure_ascii=False)

    return _VARIABLE.sub(one, callback.body)


async def send(callback: Callback, stored: StoredObject, key_url: str, patience: float) -> bytes:
    """The application server's answer. Raises CallbackFailedError."""
    body = filled(callback, stored).encode()
    trouble = CallbackFailedError("Error Status : -1.OSS can not connect to your callbackUrl.")
    async with caller(patience) as client:
        for url in callback.urls:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            signed = unquote(parts.path) + (f"?{parts.query}" if parts.query else "") + "\n"
            headers = {
                "content-type": callback.kind,
                "user-agent": "aliyun-oss-callback",
                "authorization": accounts.rsa_sign(signed.encode() + body),
                "x-oss-pub-key-url": base64.b64encode(key_url.encode()).decode(),
            }
            try:
                return _checked(await client.post(parts.geturl(), content=body, headers=headers))
            except httpx.TimeoutException:
                trouble = CallbackFailedError("Cost too long time.")
            except (httpx.HTTPError, httpx.InvalidURL):
                trouble = CallbackFailedError("Error Status : -1.OSS can not connect to your callbackUrl.")
            except CallbackFailedError as error:
                trouble = error
    raise trouble


def _checked(reply: httpx.Response) -> bytes:
    if reply.status_code != 200:
        raise CallbackFailedError(f"Error Status : {reply.status_code}.")
    if "content-length" not in reply.headers:
        raise CallbackFailedError("Error Status : 400.User server missing content-length.")
    try:
        json.loads(reply.content)
    except ValueError:
        raise CallbackFailedError("Response body is not valid json format.") from None
    if len(reply.content) > ANSWER_LIMIT:
        raise CallbackFailedError("Response body is too large.")
    return reply.content
