"""Qiniu Kodo's formats: upload token and put policy, content hash ("qetag"), names in paths, and what an answer means.

Qiniu's developer manual: "upload policy" and "upload token" (`access-key:signature:policy`, the policy being JSON in
URL-safe base64), "form upload", "chunked upload v2" and "v1", "error response"; the hash is described with its public
tool qetag. The token is opaque to a client: what cannot be read of it is the server's to judge.
"""

import base64
import re
from collections.abc import Collection, Mapping
from hashlib import sha1
from math import isfinite
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dumbwaiter.errors import Blocked, Conflict, Reauth, Reject, Restart, Retry, Verdict
from dumbwaiter.model import MIB, Limits, Receipt
from dumbwaiter.wire.message import Reply

BLOCK = 4 * MIB  # what the content hash is made of
PARTS_MAX = 10_000
STORED = 579  # a status: the object is there, and the provider's own server could not be told
EXISTS = 614  # likewise: other content has the key, or the same
_ETAG = re.compile(r"[Fln][A-Za-z0-9_-]{27}")
_BETTER = re.compile(r"please use ([A-Za-z0-9.-]+(?::\d{1,5})?)")
_UNQUOTABLE = re.compile(r"[\"\\\x00-\x1f\x7f]")
_OWN = (".qiniup.com", ".qiniu.com", ".qbox.me")


def urlsafe(data: bytes) -> str:
    """Returns URL-safe base64 with its padding, as every name and number in Qiniu's paths is written."""
    return base64.urlsafe_b64encode(data).decode()


def entry(key: str | None) -> str:
    """Returns a key as a segment of a v2 path; "~" stands for none."""
    return "~" if key is None else urlsafe(key.encode())


class Etag:
    """The content hash of a file fed in order: SHA-1 of each 4 MiB, and SHA-1 over those if there are several."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self._block = sha1(usedforsecurity=False)
        self._filled = 0

    def update(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            if self._filled == BLOCK:
                self._close()
            piece = view[: BLOCK - self._filled]
            self._block.update(piece)
            self._filled += len(piece)
            view = view[len(piece) :]

    def _close(self) -> None:
        self._blocks.append(self._block.digest())
        self._block, self._filled = sha1(usedforsecurity=False), 0

    def digest(self) -> bytes:
        """Returns the 20 bytes behind the prefix."""
        return self._whole()[1:]

    def text(self) -> str:
        return urlsafe(self._whole())

    def _whole(self) -> bytes:
        return _joined([*self._blocks, self._block.digest()], b"\x96")


def etag_of_parts(parts: list[bytes], standard: bool) -> str:
    """Returns the content hash of an object made of parts, from the digest of each.

    `standard`: every part but the last has 4 MiB; then it is the hash of the same file sent whole.
    """
    return urlsafe(_joined(parts, b"\x96" if standard else b"\x9e"))


def _joined(digests: list[bytes], prefix: bytes) -> bytes:
    if len(digests) == 1:
        return b"\x16" + digests[0]
    return prefix + sha1(b"".join(digests), usedforsecurity=False).digest()


def is_etag(text: object) -> bool:
    """True for a text that has the form of a content hash."""
    return isinstance(text, str) and _ETAG.fullmatch(text) is not None


def part_size(size: int) -> int:
    """Returns how large a file's parts are: 4 MiB, so that its hash is the usual one, or as few more as it takes."""
    blocks = -(-size // BLOCK)
    return BLOCK * max(1, -(-blocks // PARTS_MAX))


class Policy(Struct, frozen=True):
    """What an upload token permits, as far as a client has to know."""

    bucket: str
    key: str | None = None  # the only one
    prefix: str | None = None  # of every key
    deadline: float | None = None
    insert_only: bool = False
    save_key: str | None = None  # a template
    forced: bool = False  # the template wins over the client's key
    size_min: int | None = None
    size_max: int | None = None
    mime_limit: str = ""

    @property
    def limits(self) -> Limits:
        """What can be checked before a byte is sent. What is denied by type is left to the server: it looks inside."""
        mime = () if self.mime_limit.startswith("!") else tuple(filter(None, self.mime_limit.split(";")))
        return Limits(self.size_min, self.size_max, mime)

    @property
    def own_key(self) -> str | None:
        """The key that the token itself gives, None when it gives none or only the server can work it out."""
        if self.save_key and "$" not in self.save_key:
            return self.save_key
        return None

    def final(self, key: str | None) -> str | None:
        """Returns the key that the object gets if the client proposes `key`; None when only the server can tell."""
        if key is not None and not self.forced:
            return key
        return self.own_key

    @property
    def once(self) -> bool:
        """True when no upload with this token can replace an object, whichever way it is sent."""
        return self.insert_only or (self.forced and self.own_key is not None)


def policy(token: str) -> Policy | None:
    """Reads the put policy in a token, None when it cannot be read: the server may know better.

    A field of an unexpected type counts as absent, unknown ones are passed over; a number may be written as text.
    """
    segments = token.split(":")
    if len(segments) < 3:
        return None
    encoded = segments[2] if len(segments) == 3 else segments[-1]
    try:
        members = msgspec.json.decode(base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True))
    except (ValueError, RecursionError, msgspec.DecodeError):
        return None
    if not isinstance(members, dict) or not isinstance(members.get("scope"), str):
        return None
    bucket, colon, rest = members["scope"].partition(":")
    prefixal = _flag(members, "isPrefixalScope")
    return Policy(
        bucket,
        rest if colon and not prefixal else None,
        rest if colon and prefixal else None,
        _number(members, "deadline"),
        _flag(members, "insertOnly"),
        _text(members, "saveKey") or None,
        _flag(members, "forceSaveKey"),
        _whole(members, "fsizeMin"),
        _whole(members, "fsizeLimit"),
        _text(members, "mimeLimit"),
    )


def access_key(token: str) -> str:
    """Returns the access key that a token names; together with the bucket it tells which hosts take the upload."""
    segments = token.split(":")
    return segments[0] if len(segments) <= 3 else segments[1]


def _flag(members: Mapping[str, Any], name: str) -> bool:
    value = members.get(name)
    return value in {"1", "true"} if isinstance(value, str) else isinstance(value, int | float) and value != 0


def _number(members: Mapping[str, Any], name: str) -> float | None:
    """Reads a number; some write it as text."""
    value = members.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if isfinite(number) else None


def _whole(members: Mapping[str, Any], name: str) -> int | None:
    value = members.get(name)
    number = value if isinstance(value, int) and not isinstance(value, bool) else int(_number(members, name) or 0)
    return number if number > 0 else None


def _text(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    return value if isinstance(value, str) else ""


class Answer(Struct, frozen=True):
    """What a finished upload was answered. The vendor's policy decides its shape: any member may be missing."""

    key: str | None = None
    etag: str | None = None
    foreign: str = ""  # the whole of it, cut short, where it names no key: a vendor's own words


def answer(reply: Reply, ours: Collection[str | None] = ()) -> Answer | None:
    """Reads a success, None if it is none. Raises `Retry` when it cannot have come from Qiniu whole.

    One without Qiniu's mark is believed if its key or hash is one of `ours`: nobody in between knows them.
    """
    if not from_qiniu(reply) and not _names(reply, ours):
        raise Retry(f"something between here and Qiniu answered {reply.status}")
    if reply.status not in {200, 303}:
        return None
    body = reply.text
    try:
        if reply.status == 303:
            # The browser's way: a redirect that carries the answer along and is never followed.
            given = parse_qs(urlsplit(reply.headers.get("location", "")).query).get("upload_ret")
            if not given:
                return None
            body = base64.urlsafe_b64decode(given[0] + "=" * (-len(given[0]) % 4))
        members = msgspec.json.decode(body)
    except (ValueError, RecursionError, msgspec.DecodeError):
        raise Retry("Qiniu's answer is not the expected JSON") from None
    if not isinstance(members, dict):
        return Answer(foreign=_short(body))
    key, etag = members.get("key"), members.get("hash")
    named = isinstance(key, str) and bool(key)
    return Answer(key if named else None, etag if is_etag(etag) else None, "" if named else _short(body))


def _names(reply: Reply, ours: Collection[str | None]) -> bool:
    members = reply.members
    if reply.status != 200 or members is None or "error" in members:
        return False
    etag = members.get("hash")
    return etag in ours if is_etag(etag) else bool(members.get("key")) and members["key"] in ours


def _short(body: bytes) -> str:
    return body[:2000].decode("utf-8", "replace")


def from_qiniu(reply: Reply) -> bool:
    """True when an answer bears Qiniu's mark; a proxy's or a portal's does not."""
    return "x-reqid" in reply.headers or "x-log" in reply.headers


def better_host(reply: Reply, url: str) -> str | None:
    """Returns the base URL that a refusal for the wrong region names, if `url` may be left for it."""
    if reply.status != 400 or "incorrect region" not in (words := _words(reply)):
        return None
    named = _BETTER.search(words)
    if named is None:
        return None
    here = urlsplit(url)
    host = named[1].lower().rpartition(":")[0] or named[1].lower()
    if host.endswith(_OWN) or host == here.hostname:
        better = f"{here.scheme}://{named[1]}"
        return better if better != url.rstrip("/") else None
    return None


ACCOUNT = {419: "has frozen the account", 630: "counts too many buckets", 631: "does not know the bucket"}
NEVER = frozenset({501, 509, 616, 618, 619, 632, 640})
THROTTLED = 30.0  # seconds to leave a host alone that is asked too often


def trouble(reply: Reply) -> Verdict:
    """Returns what any answer but a success means. `STORED` and `EXISTS` are the caller's: the object is there."""
    if not from_qiniu(reply):
        return reply.foreign(f"something between here and Qiniu answered {reply.status}")
    status, words = reply.status, _words(reply)
    said = f": {words}" if words else ""
    if status == 401 and "scope" not in words:
        return Reauth("Qiniu refuses the upload token")
    if status == 403 and ("ExpUser" in words or words == "not allowed"):
        return Blocked(f"Qiniu takes nothing more from the provider's account{said}")
    if status in ACCOUNT:
        return Blocked(f"Qiniu {ACCOUNT[status]}{said}")
    if status == 400 and "incorrect region" in words:
        return Blocked(f"Qiniu keeps the provider's bucket in another region{said}")
    if status in {612, 701}:
        return Restart(f"Qiniu no longer knows this upload{said}")
    if status == 406:
        return Retry("the bytes reached Qiniu damaged")
    if status in {429, 571, 573}:
        return Retry(f"Qiniu asks for a slower pace (status {status})", after=reply.after or THROTTLED)
    if status == 413:
        return Reject(f"Qiniu refuses the file as too large{said}")
    if (400 <= status < 500 and not reply.is_temporary) or status in NEVER:
        return Reject(f"Qiniu refuses the file (status {status}{said})")
    return Retry(f"Qiniu answers {status}", after=reply.after)


def _words(reply: Reply) -> str:
    """Returns the sentence in an error. The body itself may hold a token and is never shown."""
    words = (reply.members or {}).get("error")
    return words[:200] if isinstance(words, str) else ""


def receipt(
    policy: Policy | None, key: str | None, given: Answer, etag: str, sure: str, facts: Mapping[str, str]
) -> Receipt:
    """Returns the receipt for an object that was just made of a file with the hash `etag`.

    `sure` says how the bytes were checked on their way, for an answer without a hash. Raises `Restart` when Qiniu
    stored something else.
    """
    if given.etag is not None and given.etag != etag:
        raise Restart("what Qiniu stored is not what the file holds")
    known = {"bucket": policy.bucket} if policy else {}
    told = {"answer": given.foreign} if given.foreign else {}
    name = given.key or (policy.final(key) if policy else key) or etag
    return Receipt(name, etag, verified=sure if given.etag is None else "qetag", facts={**known, **facts, **told})


def compared(
    there: Receipt | None,
    etag: str,
    policy: Policy | None,
    key: str | None,
    facts: Mapping[str, str],
    *,
    own: bool = False,
) -> Receipt:
    """Returns the receipt for an object that was there already and is this very file.

    `there` is what the provider shows of it; where it shows nothing, a key that is this file's `own` says as much, and
    not whether its application heard of it. Raises `Conflict` for any other, `Reauth` where another token means another
    name.
    """
    if policy is not None and policy.forced:
        raise Reauth("the upload token was used for another file")
    name = policy.final(key) if policy else key
    known = {**({"bucket": policy.bucket} if policy else {}), **facts}
    if there is None and own and name:
        return Receipt(name, etag, facts={**known, "callback": "unknown"})
    name = name or "the same name"
    if there is None or not there.etag:
        raise Conflict(
            f"Qiniu has {name} already, and whether it is this file cannot be seen: give the file another name"
        )
    if there.etag != etag:
        raise Conflict(f"Qiniu has another file as {name} already: give this one another name, or remove that one")
    return replace(there, verified="qetag", facts={**known, **there.facts, **facts})


def plain(name: str) -> str:
    """Returns a file's name as it can stand in any template of the vendor's, which may quote nothing."""
    return _UNQUOTABLE.sub("_", name)
