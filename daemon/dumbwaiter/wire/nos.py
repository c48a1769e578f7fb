"""NetEase's formats: the checksum of a VOD call and the upload token of NOS.

The VOD server manual describes the checksum ("interface authentication"), the NOS manual the token ("upload
policy"): `UPLOAD access-key:signature:policy`, the policy being JSON in base64.
"""

import base64
from hashlib import sha1

import msgspec
from msgspec import Struct


def checksum(secret: str, nonce: str, seconds: str) -> str:
    """Returns the `CheckSum` header for a call made at `seconds` since the epoch."""
    return sha1(f"{secret}{nonce}{seconds}".encode(), usedforsecurity=False).hexdigest()


class Policy(Struct, frozen=True, rename="pascal"):
    """What an upload token permits."""

    bucket: str
    object: str
    expires: float | None = None
    object_size_min: int | None = None
    object_size_max: int | None = None
    mime_limit: str = ""


def policy(token: str) -> Policy | None:
    """Reads the policy in a token, None when it cannot be read: the token itself is opaque to a client."""
    try:
        encoded = token.split(":", 2)[2]
        return msgspec.json.decode(base64.b64decode(encoded, validate=True), type=Policy)
    except (IndexError, ValueError, RecursionError, msgspec.DecodeError):
        return None
