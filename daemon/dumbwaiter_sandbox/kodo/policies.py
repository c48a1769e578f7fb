"""Upload tokens as Kodo checks them, and what a put policy says of one object.

Qiniu's developer manual, 'upload policy', 'upload token' and 'variables'. The rule: whether a key may be used, and
whether it may replace an object, is the policy's to say at the moment the object is created.
"""

import base64
import fnmatch
import hmac
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from time import gmtime, strftime
from typing import Any
from urllib.parse import quote_plus

from dumbwaiter_sandbox.kodo import accounts
from dumbwaiter_sandbox.kodo.accounts import Account
from dumbwaiter_sandbox.world import RefusedError

KEY_LIMIT = 750
_VARIABLE = re.compile(r"\$\(([^()]*)\)|\$\{([^{}]*)\}")
MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF8", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
)


@dataclass(frozen=True)
class Policy:
    """A put policy whose token is genuine."""

    account: Account
    members: Mapping[str, Any]
    bucket: str
    right: str | None  # what stands behind the colon of the scope

    def flag(self, name: str) -> bool:
        return self.members.get(name) in (True, 1, "1", "true")

    def number(self, name: str) -> int:
        value = self.members.get(name, 0)
        return value if isinstance(value, int) else 0

    def text(self, name: str) -> str:
        value = self.members.get(name, "")
        return value if isinstance(value, str) else ""

    @property
    def creates_only(self) -> bool:
        """Whether an object of another content stays: unless the scope is one key and says nothing else."""
        return self.flag("insertOnly") or self.right is None or self.flag("isPrefixalScope")

    def check_time(self, now: float) -> None:
        """Raises RefusedError once the deadline is over."""
        if now >= float(self.members["deadline"]):
            raise RefusedError(401, "expired token")

    def check_key(self, key: str | None) -> None:
        """Raises RefusedError when the client's key is none that the token is for."""
        if self.flag("forceSaveKey"):
            return
        allowed = self.members.get("keylimit")
        if self.right is not None:
            if key is None and not self.text("saveKey"):
                raise RefusedError(403, "key doesn't match scope")
            prefixal = self.flag("isPrefixalScope")
            if key is not None and not (key.startswith(self.right) if prefixal else key == self.right):
                raise RefusedError(403, "key doesn't match scope")
        if isinstance(allowed, list) and key not in allowed:
            raise RefusedError(403, "key doesn't match keylimit")

    def check_size(self, size: int) -> None:
        """Raises RefusedError for a file of the wrong size."""
        if self.number("fsizeLimit") and size > self.number("fsizeLimit"):
            raise RefusedError(413, "request entity too large")
        if size < self.number("fsizeMin"):
            raise RefusedError(403, f"file size {size} is less than fsizeMin {self.number('fsizeMin')}")

    def check_mime(self, head: bytes) -> None:
        """Raises RefusedError when the content is of a type that the token does not allow."""
        limit = self.text("mimeLimit")
        if not limit:
            return
        kind = sniffed(head)
        denied = limit.startswith("!")
        fits = any(fnmatch.fnmatchcase(kind, pattern) for pattern in limit.removeprefix("!").split(";"))
        if fits == denied:
            raise RefusedError(403, f"limited mimeType: this file type ({kind}) is forbidden to upload")

    def name(self, key: str | None, variables: Mapping[str, object]) -> str:
        """The object's key. Raises RefusedError for one that cannot be."""
        save = self.text("saveKey")
        if save and (key is None or self.flag("forceSaveKey")):
            key = filled(save, variables)
        key = key if key is not None else str(variables["etag"])
        if len(key.encode()) > KEY_LIMIT or "\0" in key:
            raise RefusedError(400, "key must not contain null byte" if "\0" in key else "key is too long")
        return key


def check(token: str, now: float) -> Policy:
    """The policy of a genuine token. Raises RefusedError."""
    if not token:
        raise RefusedError(401, "token not specified")
    segments = token.split(":")
    account = accounts.by_key(segments[0]) if len(segments) == 3 else None
    if account is None:
        raise RefusedError(401, "bad token")
    encoded = segments[2]
    if not hmac.compare_digest(segments[1].encode(), accounts.sign(account, encoded).encode()):
        raise RefusedError(401, "bad token")
    try:
        members = json.loads(base64.b64decode(encoded, b"-_", validate=True))
        bucket, colon, right = members["scope"].partition(":")
        policy = Policy(account, members, bucket, right if colon else None)
        policy.check_time(now)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusedError(401, "bad token") from error
    if bucket not in account.buckets:
        raise RefusedError(631, "no such bucket")
    return policy


def sniffed(head: bytes) -> str:
    """The type that the first bytes of a content show."""
    for magic, kind in MAGIC:
        if head.startswith(magic):
            return kind
    if head[4:8] == b"ftyp":
        return "video/mp4"
    try:
        head.decode("ascii")
    except UnicodeDecodeError:
        return "application/octet-stream"
    return "text/plain"


def filled(template: str, variables: Mapping[str, object]) -> str:
    """A template for a key: a variable without a value is left out."""
    return _VARIABLE.sub(lambda match: str(variables.get(match[1] or match[2] or "", "")), template)


def filled_form(template: str, variables: Mapping[str, object]) -> str:
    """A template for a form's body: values are percent-encoded."""
    return _VARIABLE.sub(lambda match: quote_plus(str(variables.get(match[1] or match[2] or "", ""))), template)


def filled_json(template: str, variables: Mapping[str, object]) -> str:
    """A template for JSON: a variable in quotes becomes bare text, one without becomes a JSON value or null."""

    def value(match: "re.Match[str]") -> str:
        known = variables.get(match[1] or match[2] or "")
        quoted = template[match.start() - 1 : match.start()] == '"' == template[match.end() : match.end() + 1]
        if not quoted:
            return json.dumps(known, ensure_ascii=False)
        text = "" if known is None else str(known)
        return json.dumps(text, ensure_ascii=False)[1:-1]

    return _VARIABLE.sub(value, template)


def moment(now: float) -> dict[str, object]:
    """The variables of the time, and a number of its own."""
    names = {"year": "%Y", "mon": "%m", "day": "%d", "hour": "%H", "min": "%M", "sec": "%S"}
    return {"uuid": str(uuid.uuid4()), **{name: strftime(form, gmtime(now)) for name, form in names.items()}}
