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
    """Returns a reply whose body is as it was before it was packed, as the page lets servers do. Raises `Retry`."""
    packing = reply.headers.get("content-encoding", "").strip().lower()
    match packing:
        case "" | "identity":
            return reply
        case "gzip" | "x-gzip" | "deflate":
            body = _inflated(reply.body)
        case "br":
            body = _from_brotli(reply.body)
        case "zstd":
            body = _from_zstd(reply.body)
        case _:
            raise Retry(f'the server packed its answer as "{packing[:20]}", which nobody asked for')
    if body is None:
        raise Retry("the server's packed answer is damaged or too large")
    return Reply(reply.status, reply.headers, body, reply.after)


def _inflated(body: bytes) -> bytes | None:
    for bits in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):  # some servers send deflate without its frame
        decoder = zlib.decompressobj(bits)
        try:
            found = decoder.decompress(body, UNPACKED_MAX)
        except zlib.error:
            continue
        return found if decoder.eof and not decoder.unconsumed_tail else None
    return None


def _from_brotli(body: bytes) -> bytes | None:
    import brotli

    decoder = brotli.Decompressor()
    try:
        found: bytes = decoder.process(body, output_buffer_limit=UNPACKED_MAX)
    except brotli.error:
        return None
    return found if decoder.is_finished() else None


def _from_zstd(body: bytes) -> bytes | None:
    import zstandard

    try:
        if zstandard.frame_content_size(body) > UNPACKED_MAX:
            return None
        return zstandard.ZstdDecompressor().decompress(body, max_output_size=UNPACKED_MAX)
    except zstandard.ZstdError:
        return None
