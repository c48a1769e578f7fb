"""A provider in words: text with blanks, and where in a reply a value stands.

Blanks are `{name}`; what fills one is escaped for the place it stands in. Places in a reply are JMESPath expressions
(the language and its grammar: jmespath.org, "specification").
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from msgspec import Struct
from msgspec.structs import replace

from dumbwaiter.errors import Conflict, Reauth, Reject, Retry
from dumbwaiter.model import Receipt
from dumbwaiter.wire.message import Reply
from dumbwaiter.wire.oss import trouble

CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # what no header can hold (RFC 9110, "Field Values")
BLANK = re.compile(r"\{([a-z_]+(?:\.[A-Za-z0-9_-]+)?)\}")


class Expression:
    """A checked JMESPath expression."""

    __slots__ = ("_compiled", "text")

    def __init__(self, text: str) -> None:
        """Raises `ValueError` when `text` is none."""
        self.text = text
        try:
            self._compiled = jmespath.compile(text)
        except JMESPathError as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f'"{text}" is no JMESPath expression: {reason}') from None
        except RecursionError:
            raise ValueError(f'"{text}" is no JMESPath expression: it is too deep') from None

    def find(self, value: Any) -> Any:
        """Returns what stands there, None for nothing."""
        try:
            return self._compiled.search(value)
        except Exception:  # noqa: BLE001 - a function met a value that it does not take, and not every one says so itself
            return None

    def text_of(self, value: Any) -> str | None:
        """Returns what stands there if it is a text or a number."""
        found = self.find(value)
        if isinstance(found, bool) or not isinstance(found, str | int | float):
            return None
        return str(found) or None

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


class Stored(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the answer to an upload says what is stored."""

    key: Expression | None = None
    etag: Expression | None = None
    link: Expression | None = None

    def text(self, name: str, answer: Any) -> str | None:
        """Returns what the answer says of "key", "etag" or "link"."""
        place: Expression | None = getattr(self, name)
        return None if place is None else place.text_of(answer)


def fill(text: str, values: Mapping[str, str], escape: Callable[[str], str] = str) -> str:
    """Returns `text` with its blanks filled. A blank that `values` does not know stays as it is."""
    return BLANK.sub(lambda match: escape(values[match[1]]) if match[1] in values else match[0], text)


def fill_in(value: Any, values: Mapping[str, str]) -> Any:
    """Fills the texts in a TOML value; a text that is nothing but `{size}` becomes a number."""
    match value:
        case "{size}":
            return int(values["size"])
        case str():
            return fill(value, values)
        case list():
            return [fill_in(one, values) for one in value]
        case dict():
            return {name: fill_in(one, values) for name, one in value.items()}
    return value


def blanks(value: Any) -> set[str]:
    """Returns the names of all blanks in a TOML value."""
    match value:
        case str():
            return set(BLANK.findall(value))
        case list():
            return set().union(*map(blanks, value))
        case dict():
            return set().union(*map(blanks, value.values()))
    return set()


# S3's API reference, "error responses"; OSS has some of them too.
AGAIN = frozenset(
    {
        "BadDigest",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "OperationAborted",
        "RequestTimeTooSkewed",
        "RequestTimeout",
        "SlowDown",
    }
)
_EXISTS = frozenset({409, 412})  # what HTTP has for "not over that which is there"


def compared(there: Receipt | None, md5: str, key: str) -> Receipt:
    """Returns the receipt for an object that was there already and is this very file. Raises `Conflict` for any other."""
    if there is None or not there.etag:
        raise Conflict(f"the provider has {key} already, and whether it is this file cannot be seen")
    if there.etag.lower() != md5:
        raise Conflict(f"the provider has another file as {key}")
    return replace(there, verified="md5")


def asks_again(reply: Reply) -> bool:
    """Says whether a store that is S3's kind asks for the same again with a status that otherwise refuses the file."""
    return 400 <= reply.status < 500 and trouble(reply.body).code in AGAIN


def is_taken(reply: Reply) -> bool:
    """Says whether an answer refuses to replace what is there."""
    return reply.status in _EXISTS and not asks_again(reply)


def raise_for_status(reply: Reply) -> None:
    """Raises what an answer other than success means."""
    if asks_again(reply):
        raise Retry(f"the provider asks to try again ({trouble(reply.body).code})", after=reply.after)
    match reply.status:
        case status if 200 <= status < 300:
            return
        case 401 | 403:
            raise Reauth(f"the upload permission is refused (status {reply.status})")
        case 408 | 425 | 429:
            raise Retry(f"the provider asks to wait (status {reply.status})", after=reply.after)
        case status if 400 <= status < 500:
            raise Reject(f"the provider refuses the file (status {status})")
    raise Retry(f"the provider answers {reply.status}", after=reply.after)


def receipt(reply: Reply, stored: Stored, *, key: str, link: str | None) -> Receipt:
    """Returns what an answer says of the stored file. Raises `Retry` for one that another server gave in its place.

    An answer may be empty or no JSON where nothing is to be read from it, but no web page.
    """
    try:
        answer = reply.json(object)
    except Retry:
        if stored != Stored() or reply.headers.get("content-type", "").startswith("text/html"):
            raise
        answer = None
    return Receipt(
        stored.text("key", answer) or key,
        etag=stored.text("etag", answer) or "",
        url=stored.text("link", answer) or link,
    )
