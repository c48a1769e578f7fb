"""NetEase's signatures, checked and made from their descriptions alone.

The upload token is in NetEase's VOD manual, 'upload token': `UPLOAD AccessKey:sign:policy64`, where sign is the base64 of
HMAC-SHA256 over the policy64 text as received; the text is never serialised again to check it. CheckSum is in its 'call
conventions': lower-case hex SHA1 of AppSecret, Nonce and CurTime.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

PREFIX = "UPLOAD "


class TokenError(Exception):
    """The token is refused; the sentence says why."""


@dataclass(frozen=True)
class Policy:
    """What a token allows. Its signature identifies it."""

    bucket: str
    object: str
    expires: float
    sign: str
    size_min: int = 0
    size_max: int | None = None
    mime_limit: tuple[str, ...] = ()
    callback_url: str = ""
    callback_body: str = ""


def sign(secret_key: str, text: str) -> str:
    """Standard base64 of HMAC-SHA256."""
    return base64.b64encode(hmac.digest(secret_key.encode(), text.encode(), "sha256")).decode()


def checksum(app_secret: str, nonce: str, curtime: str) -> str:
    """The CheckSum header of a VOD call."""
    return hashlib.sha1(f"{app_secret}{nonce}{curtime}".encode()).hexdigest()


def mint(access_key: str, secret_key: str, policy: Mapping[str, Any]) -> str:
    """The whole token for a policy; compact JSON, not ASCII-escaped."""
    text = json.dumps(policy, ensure_ascii=False, separators=(",", ":"))
    policy64 = base64.b64encode(text.encode()).decode()
    return f"{PREFIX}{access_key}:{sign(secret_key, policy64)}:{policy64}"


def check(token: str, access_key: str, secret_key: str, now: float) -> Policy:
    """The policy of a genuine token that is still valid at `now`. Raises TokenError."""
    parts = token.removeprefix(PREFIX).split(":", 2)
    if not token.startswith(PREFIX) or len(parts) != 3:
        raise TokenError("x-nos-token is not of the form UPLOAD AccessKey:sign:policy")
    key, signature, policy64 = parts
    if key != access_key:
        raise TokenError("the AccessKey is unknown")
    if not hmac.compare_digest(sign(secret_key, policy64).encode(), signature.encode("utf-8", "replace")):
        raise TokenError("the signature does not match")
    policy = _policy(policy64, signature)
    if now >= policy.expires:
        raise TokenError("the token has expired")
    return policy


def _policy(policy64: str, signature: str) -> Policy:
    try:
        members = json.loads(base64.b64decode(policy64, validate=True))
        return Policy(
            bucket=_text(members["Bucket"]),
            object=_text(members["Object"]),
            expires=float(members["Expires"]),
            sign=signature,
            size_min=int(members.get("ObjectSizeMin", 0)),
            size_max=int(members["ObjectSizeMax"]) if "ObjectSizeMax" in members else None,
            mime_limit=tuple(filter(None, _text(members.get("MimeLimit", "")).split(";"))),
            callback_url=_text(members.get("CallbackUrl", "")),
            callback_body=_text(members.get("CallbackBody", "")),
        )
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError) as error:
        raise TokenError("the policy is malformed") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is needed")
    value.encode()  # half a surrogate pair is JSON and yet no text
    return value


def download_signature(secret_key: str, expires: str, bucket: str, key: str) -> str:
    """The Signature parameter of a private download."""
    return sign(secret_key, f"GET\n\n\n{expires}\n/{bucket}/{quote(key, safe='')}")
