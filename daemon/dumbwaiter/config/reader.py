"""TOML's plain values as the typed ones of `config`, and msgspec's errors as sentences for people."""

import re
from collections.abc import Sequence
from functools import reduce
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from dumbwaiter.config import A_HOOK, HOOKS
from dumbwaiter.config.options import Provider
from dumbwaiter.config.text import ConfigText
from dumbwaiter.config.timetable import Timetable
from dumbwaiter.config.values import BaseUrl, Duration, HostPattern, Listen, SecretSource, Size, duration, size
from dumbwaiter.config.window import Window
from dumbwaiter.errors import Failure
from dumbwaiter.keys import Template
from dumbwaiter.naming import nearest, shown
from dumbwaiter.wire.recipe import Expression

PROVIDERS = {str(kind.__struct_config__.tag): kind for kind in get_args(Provider)}  # by broker
_WANTED = {
    Duration: 'a time like "2s"',
    Size: 'a size like "10GiB"',
    Expression: 'a JMESPath expression like "data.token"',
    HostPattern: 'a host like "store.corp.example"',
    Listen: 'an address like "127.0.0.1:8384"',
    Template: 'a key like "{dir}/{name}"',
    Timetable: 'a rate like "2M", or a timetable like "08:00,512k 19:00,off"',
    Window: 'two times of day like "19:00-07:00"',
}


class Reader:
    """Turns plain TOML values into typed ones."""

    def __init__(self, text: ConfigText, private: bool) -> None:
        self._text = text
        self._private = private

    def tables(self, name: str, value: Any, kind: Any) -> dict[str, Any]:
        """Reads `[name.X]` for every X."""
        if not isinstance(value, dict) or not all(isinstance(table, dict) for table in value.values()):
            raise self._text.failure([name], f"give it a name: [{name}.NAME]")
        return {key: self.value([name, key], table, kind) for key, table in value.items()}

    def value(self, keys: list[str], value: Any, kind: Any) -> Any:
        """Returns a value as `kind`. Raises `Failure` with what is wrong at `keys`, or below."""
        try:
            made = msgspec.convert(value, kind, dec_hook=self._decode)
        except msgspec.ValidationError as error:
            raise self._problem(keys, str(error), kind, value) from None
        self._place_sources(keys, made)
        return made

    def _place_sources(self, keys: Sequence[str], value: Any) -> None:
        """Tells each secret where it is written."""
        if isinstance(value, SecretSource):
            value.locate(self._text.location(keys), self._text.folder)
        elif isinstance(value, Struct | dict):
            inner = value.items() if isinstance(value, dict) else msgspec.structs.asdict(value).items()
            for key, one in inner:
                self._place_sources([*keys, key], one)

    def _decode(self, kind: type, value: Any) -> Any:
        if kind is Duration and isinstance(value, str):
            return Duration(duration(value))
        if kind is Size and (isinstance(value, str) or value == 0):
            return Size(size(str(value)))
        if issubclass(kind, BaseUrl) and isinstance(value, str):
            return kind.of(value)
        if issubclass(kind, SecretSource):
            return kind(*self._source(value))
        if kind in {Expression, HostPattern, Listen, Template, Timetable, Window} and isinstance(value, str):
            return kind(value)
        wanted = _WANTED.get(kind, "a text")
        raise ValueError(f"Expected {wanted}, got `{value}`")

    def _source(self, value: Any) -> tuple[str, str]:
        """Returns kind and name of where a secret is."""
        match value:
            case str() if not value.strip():
                raise ValueError("a secret is missing between the quotes")
            case str():
                if not self._private:
                    raise ValueError(
                        "a secret stands in a file that others can read: chmod 600 the file, or move the secret "
                        'out with { file = "…" }, { env = "…" }, { credential = "…" } or { keyring = "…" }'
                    )
                return "literal", value
            case dict() if len(value) == 1 and (kind := next(iter(value))) in SecretSource.KINDS:
                if isinstance(value[kind], str):
                    if not value[kind].strip():
                        raise ValueError(f'{kind} = "" does not say where the secret is')
                    if kind == "credential" and not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", value[kind]):
                        raise ValueError(
                            f'"{shown(value[kind])}" is no name of a credential: letters, digits, ".", "-" and "_"'
                        )
                    return kind, value[kind]
            case dict() if strange := next((key for key in value if key not in SecretSource.KINDS), None):
                raise ValueError(f'unknown key "{shown(strange)}"{nearest(strange, SecretSource.KINDS)}')
        found = "several of them" if isinstance(value, dict) and len(value) > 1 else _found(value)
        raise ValueError(f'a secret is "text" or a table with one of {", ".join(SecretSource.KINDS)}; found {found}')

    def _problem(self, keys: list[str], message: str, kind: Any, value: Any) -> Failure:
        what, _, where = message.partition(" - at ")
        inner = re.findall(r"\.(\w+)", where.strip("`"))
        if where.endswith("[...]`") and (named := self._member(message, kind, value, inner)) is not None:
            return self._text.failure([*keys, *inner, named], _said(what))
        keys = [*keys, *inner]
        if unknown := re.search(r"(?s)unknown field `(.*)`", what):
            options = [one.encode_name for one in msgspec.structs.fields(_table(kind, value, inner))]
            return self._text.failure(
                [*keys, unknown[1]], f'unknown key "{shown(unknown[1])}"{nearest(unknown[1], options)}'
            )
        if missing := re.search(r"missing required field `(.*)`", what):
            what = f'the key "{missing[1]}" is missing'
            if missing[1] == "broker":
                what += f"; known: {', '.join(PROVIDERS)}"
        elif wrong := re.search(r"^Invalid value '(.*)'$", what):
            what = f'unknown broker "{wrong[1]}"{nearest(wrong[1], PROVIDERS)}'
        elif (
            what.startswith("Expected") and inner and (choices := _choices(_table(kind, value, inner[:-1]), inner[-1]))
        ):
            what = f"found {what.rpartition(', got ')[2]}; allowed: {choices}"
        elif keys[-1] in HOOKS and what.startswith("Expected"):
            what = A_HOOK
        elif wrong := re.search(r"^Invalid enum value '?(.*?)'?$", what):
            what = f'found "{wrong[1]}"; allowed: {_choices(_table(kind, value, inner[:-1]), inner[-1])}'
        return self._text.failure(keys, _said(what))

    def _member(self, message: str, kind: Any, value: Any, inner: Sequence[str]) -> str | None:
        """Returns which key of the table at `inner` has that problem: where any name may be a key, msgspec tells none."""
        table = reduce(lambda outer, key: outer[key], inner, value)
        for name in table if isinstance(table, dict) else ():
            alone: Any = {name: table[name]}
            for depth in range(len(inner) - 1, -1, -1):
                alone = {**reduce(lambda outer, key: outer[key], inner[:depth], value), inner[depth]: alone}
            try:
                msgspec.convert(alone, kind, dec_hook=self._decode)
            except msgspec.ValidationError as error:
                if str(error) == message:
                    return str(name)
        return None


def _said(what: str) -> str:
    """Returns msgspec's words as ours go."""
    what = re.sub(r"`([^`]*)`", lambda kinds: _kinds(kinds[1]), what)
    return what[0].lower() + what[1:]


def _found(value: Any) -> str:
    """Says of which kind a value is that must not be shown."""
    if isinstance(value, dict):
        return next((f"{shown(key)} = {_found(one)}" for key, one in value.items()), "an empty table")
    names = {str: "str", bool: "bool", int: "int", float: "float", list: "array"}
    return _kinds(names.get(type(value), type(value).__name__))


_KINDS = {
    "str": 'a text like "…"',
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": 'a list like ["…"]',
    "object": "a table",
    "null": "nothing",
}


def _kinds(text: str) -> str:
    """Says in words what msgspec calls by the names of types; anything else stays in its quotes."""
    words = [_KINDS.get(one) for one in text.split(" | ")]
    return " or ".join(word for word in words if word) if all(words) else f"`{text}`"


def _table(kind: Any, value: Any, inner: Sequence[str]) -> Any:
    """Returns the struct for a table, or for the one at `inner` in it; for a provider, that of its broker."""
    for one in get_args(kind) or (kind,):
        if not hasattr(one, "__struct_config__"):
            continue
        settings = one.__struct_config__
        if settings.tag is None or value.get(settings.tag_field) == settings.tag:
            return _table(get_type_hints(one)[inner[0]], value, inner[1:]) if inner else one
    return kind


def _choices(kind: Any, key: str) -> str:
    """Returns the words that a key may hold, as they are written in the file."""
    one = get_type_hints(kind).get(key) if hasattr(kind, "__struct_config__") else None
    words = [word for part in (one, *get_args(one)) if get_origin(part) is Literal for word in get_args(part)]
    return ", ".join([*(f'"{word}"' for word in words), *(["true", "false"] if bool in get_args(one) else [])])
