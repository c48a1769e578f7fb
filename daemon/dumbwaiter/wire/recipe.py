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
