"""Xinhua image processing: the request token that a secret key signs, and what a client may read of the JWT it buys.

camera360's interface document "Xinhua image processing", "request token": `sig:AK:timestamp:life:models`, where sig is
the lower-case hex HMAC-SHA256 of all behind it. The JWT (RFC 7519) is opaque: it is the server's to judge, and only
its own times are read, as hints.
"""

import base64
import hmac
from collections.abc import Sequence

import msgspec
from msgspec import Struct

LIFE_MAX = 72 * 3600  # seconds; the longest that the vendor grants


class _Times(Struct):
    issued: float = msgspec.field(name="iat")
    expires: float = msgspec.field(name="exp")


def request_token(access_key: str, secret: str, now: float, life: float, models: Sequence[str]) -> str:
    """Returns the token that a JWT of `life` seconds for some models is asked for with; no model means all there are."""
    info = f"{access_key}:{int(now)}:{int(life)}:{','.join(models)}"
    return f"{hmac.digest(secret.encode(), info.encode(), 'sha256').hex()}:{info}"


def lifetime(jwt: str) -> float | None:
    """Returns how many seconds a JWT lives by its own word, None when that cannot be read.

    Counted from when it was issued, so that nobody's clock matters.
    """
    segments = jwt.split(".")
    if len(segments) != 3:
        return None
    try:
        payload = base64.b64decode(segments[1] + "=" * (-len(segments[1]) % 4), b"-_", validate=True)
        times = msgspec.json.decode(payload, type=_Times)
    except (ValueError, RecursionError, msgspec.DecodeError):
        return None
    seconds = times.expires - times.issued
    return seconds if seconds > 0 else None
