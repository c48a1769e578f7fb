"""CareyShop's formats: the signature of a call, the envelope of an answer, what an upload is answered with.

CareyShop's API manual, "signature", "get upload token", "upload resources". The JSON `status` is the truth: over
plain HTTP every answer has the HTTP status 200.
"""

from collections.abc import Mapping
from hashlib import md5
from typing import Any

from msgspec import Raw, Struct, field

from dumbwaiter.errors import Retry
from dumbwaiter.wire.message import Reply

SIGN_IN = frozenset({"token已过期", "token错误", "未授权或授权已过期", "权限不足"})  # a new session may do
LATE = "timestamp已过期"
ACCOUNT = {  # what the owner of the account has to see to: a new session changes nothing
    "appkey已禁用或不存在": "knows no such app_key, or has switched it off",
    "sign错误": "refuses the signature: check app_secret",
    "sign不存在": "finds no signature",
    "账号不存在": "knows no such username",
    "账号已禁用": "has switched this account off",
    "账号或密码错误": "refuses username or password",
}


def sign(secret: str, parameters: Mapping[str, str]) -> str:
    """Returns the `sign` parameter: every name with its text, by name in byte order, between two secrets."""
    text = "".join(f"{name}{parameters[name]}" for name in sorted(parameters, key=lambda name: name.encode()))
    return md5(f"{secret}{text}{secret}".encode(), usedforsecurity=False).hexdigest()


class Envelope(Struct, frozen=True):
    """An answer: 200, or why not."""

    status: int
    said: str | None = field(name="message", default=None)
    data: Raw = Raw(b"null")

    @property
    def message(self) -> str:
        return self.said or ""


class Item(Struct, frozen=True):
    """A stored file as the shop knows it; or, with another status than 200, why it has none."""

    status: int | None = 200
    said: str | None = field(name="message", default=None)
    storage_id: int | None = None
    name: str | None = None
    size: int | None = None
    hash: str | None = None
    path: str | None = None
    url: str | None = None
    protocol: str | None = None

    @property
    def message(self) -> str:
        return self.said or ""


class Row(Struct, frozen=True):
    """One line of the shop's list: a file, or a directory, of which most is empty."""

    storage_id: int | None = None
    parent_id: int | None = None
    type: int | None = None
    name: str | None = None
    size: int | None = None
    hash: str | None = None
    path: str | None = None
    url: str | None = None
    protocol: str | None = None
    create_time: str | None = None
    update_time: str | None = None

    @property
    def folder(self) -> bool:
        return self.type == 2

    @property
    def key(self) -> str:
        """The file's key, empty for what is none."""
        return "" if self.folder else (self.path or "").lstrip("/")


def envelope(reply: Reply) -> Envelope:
    """Reads an answer. Raises `Retry` for anything else: a proxy in front of the shop, a broken server."""
    if (reply.status >= 500 or reply.status == 429) and not reply.text.lstrip().startswith(b"{"):
        raise Retry(f"the shop answers {reply.status}", after=reply.after)
    return reply.json(Envelope)


def item(text: str) -> Item:
    """Reads what an upload of one file was answered with. Raises `Retry` for anything that is no such answer."""
    found = envelope(Reply(200, body=text.encode()))
    if found.status != 200:
        return Item(found.status, found.message)
    items: tuple[Item, ...] = decoded(found.data, tuple[Item, ...])
    if not items:
        raise Retry("the shop's answer names no file")
    return items[0]


def decoded(data: Raw, shape: Any) -> Any:
    """Returns an envelope's data as `shape`. Raises `Retry`."""
    return Reply(200, body=bytes(data)).json(shape)


def size(text: str) -> int | None:
    """Returns the bytes of a limit such as "2M"; None for no limit and for what cannot be read."""
    number, unit = text.strip().upper().removesuffix("B"), 1
    if number and number[-1] in "KMGT":
        unit = 1024 ** ("KMGT".index(number[-1]) + 1)
        number = number[:-1]
    try:
        return max(0, int(float(number) * unit)) or None
    except (ValueError, OverflowError):
        return None


def names(text: str) -> tuple[str, ...]:
    """Returns the members of a list such as "jpg,png"."""
    return tuple(part for part in (one.strip().lower().lstrip(".") for one in text.split(",")) if part)
