"""Jimeng's sign-in: the cookie that is made from a refresh token, and answers that come packed.

The service is that of the Jimeng and Dreamina web pages. A token that begins with "us-" is one of the international
service, which knows it without those three characters.
"""

import zlib

from dumbwaiter.errors import Retry
from dumbwaiter.wire.message import Reply

UNPACKED_MAX = 1 << 20  # an answer is small; a small packed one need not be
# The date is a constant of the page that does not follow the time; the server does not look at it.
_GUARD = "%7C5184000%7CMon%2C+03-Feb-2025+08%3A17%3A09+GMT"


def international(refresh_token: str) -> bool:
    """True for a token of the international service."""
    return refresh_token.lower().startswith("us-")


def session(refresh_token: str) -> str:
    """Returns the session in a refresh token."""
    return refresh_token[3:] if international(refresh_token) else refresh_token


def cookie(refresh_token: str, now: float, web: str, user: str) -> str:
    """Returns the cookie; `web` and `user` are made up once a process: a long number, and 32 hexadecimal digits."""
    token = session(refresh_token)
    return "; ".join(
        (
            f"_tea_web_id={web}",
            "is_staff_user=false",
            f"store-region={'us' if international(refresh_token) else 'cn-gd'}",
            "store-region-src=uid",
            f"sid_guard={token}%7C{int(now)}{_GUARD}",
            f"uid_tt={user}",
            f"uid_tt_ss={user}",
            f"sid_tt={token}",
            f"sessionid={token}",
            f"sessionid_ss={token}",
            f"sid_tt={token}",
        )
    )


def unpacked(reply: Reply) -> Reply:
    """Returns a reply whose body is as it was before gzip or deflate. Raises `Retry` for any other packing."""
    packing = reply.headers.get("content-encoding", "").strip().lower()
    if packing in {"", "identity"}:
        return reply
    if packing not in {"gzip", "x-gzip", "deflate"}:
        raise Retry(f'the server packed its answer as "{packing[:20]}", which nobody asked for')
    for bits in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):  # some servers send deflate without its frame
        decoder = zlib.decompressobj(bits)
        try:
            body = decoder.decompress(reply.body, UNPACKED_MAX)
        except zlib.error:
            continue
        if decoder.eof and not decoder.unconsumed_tail:
            return Reply(reply.status, reply.headers, body, reply.after)
        break
    raise Retry("the server's packed answer is damaged or too large")
