"""The configuration's file: TOML in, checked structs out, and one clear sentence for whatever is wrong with it.

Everything is checked before anything starts. A problem names file, line and key, says what was found and what is
allowed, and the nearest known key.
"""

import grp
import os
import pwd
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from dumbwaiter.config import A_HOOK, HOOKS, RESERVED, Config, Watch, absolute, nested, within
from dumbwaiter.config_values import Address, Duration, Hosts, Listen, Size, Source, duration, size
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.ignore import Rules
from dumbwaiter.keys import Template
from dumbwaiter.naming import NAME_MAX, nearest, shown
from dumbwaiter.options import Jiandaoyun, Provider, is_rate, names_objects, replaces_nothing, shows_nothing
from dumbwaiter.places import trash
from dumbwaiter.timetable import Timetable
from dumbwaiter.window import Window
from dumbwaiter.wire.recipe import Expression

LARGEST = 1 << 20  # bytes of a file that is read
JOURNAL_SECRETS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")  # libpq's
_QUOTED = r"'([^']*)'"


def load(path: str) -> Config:
    """Reads and checks a file. Raises `Failure` (exit code 2) with the first thing that is wrong."""
    try:
        # Without O_NONBLOCK a pipe that nobody writes to would be waited for.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise Failure(f"{path} is no regular file", Exit.USAGE)
            content = file.read(LARGEST + 1)
            if len(content) > LARGEST:
                raise Failure(f"{path} has more than {LARGEST} bytes, which is no configuration", Exit.USAGE)
            text = content.decode("utf-8-sig")  # editors on Windows begin with a mark
    except FileNotFoundError:
        raise Failure(
            f"there is no configuration at {path}: `dumbwaiter init` writes a first one", Exit.USAGE
        ) from None
    except OSError as error:
        raise Failure(f"{path} cannot be read: {error.strerror}", Exit.USAGE) from None
    except UnicodeDecodeError:
        raise Failure(f"{path} is no UTF-8 text", Exit.USAGE) from None
    return parse(text, path, private=not stat.S_IMODE(mode) & 0o077)


def parse(text: str, path: str, *, private: bool = True) -> Config:
    """Checks the text of a configuration. `private`: nobody but the owner can read the file."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # It writes a table's name as Python would.
        said = re.sub(r"\('.*?\)", lambda name: f"[{'.'.join(re.findall(_QUOTED, name[0]))}]", str(error))
        raise Failure(f"{path}: {said}{_beside(text, said)}", Exit.USAGE) from None
    except RecursionError:
        raise Failure(f"{path}: arrays or tables lie too deep in one another", Exit.USAGE) from None
    text_of = _Text(text, path)
    read = _Reader(text_of, private)
    known = {f.name: f.type for f in msgspec.structs.fields(Config)}
    values: dict[str, Any] = {}
    for name, value in raw.items():
        if name not in known:
            raise text_of.failure([name], f'unknown key "{shown(name)}"{nearest(name, known)}')
        one = {"provider": Provider, "watch": Watch}.get(name)
        values[name] = read.tables(name, value, one) if one else read.value([name], value, known[name])
    config = Config(**values)
    if config.journal is not None:
        _check_journal(config.journal, text_of, private)
    return _checked(config, text_of)


def exposed(path: str) -> Iterator[str]:
    """Yields a sentence for whatever lets somebody else write a file that can have commands run: it, and its folder."""
    real = os.path.realpath(path)
    for one in dict.fromkeys((real, os.path.dirname(real), os.path.dirname(os.path.abspath(path)))):
        status = os.stat(one)
        if status.st_uid not in {0, os.geteuid()}:
            yield f"{one} belongs to somebody else, who could have commands run as you: name another one with --config"
        elif _written_by_others(status):
            yield f"others can write {one}, and so have commands run as you: chmod go-w {one}"


def _written_by_others(status: os.stat_result) -> bool:
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
        return False  # as in /tmp: what is there can be replaced by its owner alone
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and status.st_gid != 0 and not _private_group(status.st_gid)


def _private_group(gid: int) -> bool:
    """Says whether a group is the one that many systems make for each user."""
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_gid == gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def place(path: str, *keys: str) -> str:
    """Returns file, line and key of what a configuration says there, for what only this machine can tell of it."""
    with open(path, encoding="utf-8-sig") as file:
        return _Text(file.read(), path).place(keys)


class _Text:
    """The file's text, to show where a problem stands."""

    def __init__(self, text: str, path: str) -> None:
        self._lines = text.splitlines()
        self._path = path

    @property
    def folder(self) -> str:
        """Where relative paths begin."""
        return os.path.dirname(os.path.abspath(self._path))

    def failure(self, keys: Sequence[str], what: str) -> Failure:
        """Returns the sentence for a problem at `keys`."""
        return Failure(f"{self.place(keys)} {what}", Exit.USAGE)

    def place(self, keys: Sequence[str]) -> str:
        """Returns file, line and key."""
        line = self._line(keys)
        return f"{self._path}{f', line {line}' if line else ''}: [{shown('.'.join(keys))}]"

    def _line(self, keys: Sequence[str]) -> int | None:
        """Finds the line of the deepest of `keys`: as the head of a table, else as a key in the table above it."""
        for depth in range(len(keys), 0, -1):
            head = r"\s*\.\s*".join(_bare(key) for key in keys[:depth])
            start = self._find(rf"\s*\[\s*{head}\s*\]", 0)
            if start is not None:
                inside = self._find(rf"\s*{_bare(keys[depth])}\s*[=.]", start) if depth < len(keys) else None
                return (start if inside is None else inside) + 1
        top = self._find(rf"\s*\[*\s*{_bare(keys[0])}\s*[=.\]]", -1)
        return None if top is None else top + 1

    def _find(self, pattern: str, after: int) -> int | None:
        """Returns the index of the first line that matches; below a table's head only up to the next head."""
        for index in range(max(after, 0), len(self._lines)):
            line = self._lines[index]
            if re.match(pattern, line):
                return index
            if 0 < after < index and line.lstrip().startswith("["):
                return None
        return None


def _bare(key: str) -> str:
    return rf"[\"']?{re.escape(key)}[\"']?"


_WANTED = {
    Duration: 'a time like "2s"',
    Size: 'a size like "10GiB"',
    Expression: 'a JMESPath expression like "data.token"',
    Hosts: 'a host like "store.corp.example"',
    Listen: 'an address like "127.0.0.1:8384"',
    Template: 'a key like "{dir}/{name}"',
    Timetable: 'a rate like "2M", or a timetable like "08:00,512k 19:00,off"',
    Window: 'two times of day like "19:00-07:00"',
}


class _Reader:
    """Turns plain TOML values into typed ones."""

    def __init__(self, text: _Text, private: bool) -> None:
        self._text = text
        self._private = private

    def tables(self, name: str, value: Any, kind: Any) -> dict[str, Any]:
        """Reads `[name.X]` for every X."""
        if not isinstance(value, dict) or not all(isinstance(table, dict) for table in value.values()):
            raise self._text.failure([name], f"give it a name: [{name}.NAME]")
        return {key: self.value([name, key], table, kind) for key, table in value.items()}

    def value(self, keys: list[str], value: Any, kind: Any) -> Any:
        try:
            made = msgspec.convert(value, kind, dec_hook=self._decode)
        except msgspec.ValidationError as error:
            raise self._problem(keys, str(error), kind, value) from None
        self._place_sources(keys, made)
        return made

    def _place_sources(self, keys: Sequence[str], value: Any) -> None:
        """Tells each secret where it is written."""
        if isinstance(value, Source):
            value.stands(self._text.place(keys), self._text.folder)
        elif isinstance(value, Struct | dict):
            inner = value.items() if isinstance(value, dict) else msgspec.structs.asdict(value).items()
            for key, one in inner:
                self._place_sources([*keys, key], one)

    def _decode(self, kind: type, value: Any) -> Any:
        if kind is Duration and isinstance(value, str):
            return Duration(duration(value))
        if kind is Size and (isinstance(value, str) or value == 0):
            return Size(size(str(value)))
        if issubclass(kind, Address) and isinstance(value, str):
            return kind.of(value)
        if issubclass(kind, Source):
            return kind(*self._source(value))
        if kind in {Expression, Hosts, Listen, Template, Timetable, Window} and isinstance(value, str):
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
            case dict() if len(value) == 1 and (kind := next(iter(value))) in Source.KINDS:
                if isinstance(value[kind], str):
                    if not value[kind].strip():
                        raise ValueError(f'{kind} = "" does not say where the secret is')
                    if kind == "credential" and not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", value[kind]):
                        raise ValueError(
                            f'"{shown(value[kind])}" is no name of a credential: letters, digits, ".", "-" and "_"'
                        )
                    return kind, value[kind]
        raise ValueError('a secret is "text" or a table with one of ' + ", ".join(Source.KINDS))

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
                what += f"; known: {', '.join(BROKERS)}"
        elif wrong := re.search(r"^Invalid value '(.*)'$", what):
            what = f'unknown broker "{wrong[1]}"{nearest(wrong[1], BROKERS)}'
        elif (
            what.startswith("Expected") and inner and (choices := _choices(_table(kind, value, inner[:-1]), inner[-1]))
        ):
            what = f"allowed: {choices}"
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


BROKERS = tuple(str(kind.__struct_config__.tag) for kind in (get_args(Provider) or (Provider,)))


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


def journal_secrets(url: str) -> list[str]:
    """Returns the secrets in the URL of a journal's server."""
    from sqlalchemy import make_url  # where the journal is on a server, which is seldom

    parts = make_url(url)
    asked = parts.normalized_query
    found = [value for name in JOURNAL_SECRETS for value in asked.get(name, ())]
    return [*found, str(parts.password)] if parts.password else found


def _check_journal(url: str, text: _Text, private: bool) -> None:
    try:
        usable = url.startswith("postgresql+psycopg://") and urlsplit(url).port != 0
    except ValueError:  # the port is no number
        usable = False
    if not usable:
        raise text.failure(["journal"], 'must be a URL like "postgresql+psycopg://USER@HOST/DATABASE"')
    if not private and journal_secrets(url):
        raise text.failure(
            ["journal"],
            "holds a password and stands in a file that others can read: chmod 600 the file, or move the password "
            "to ~/.pgpass",
        )


def _checked(config: Config, text: _Text) -> Config:
    """Finds what is wrong between values, and makes paths absolute."""
    for section, names in (("provider", config.provider), ("watch", config.watch)):
        for name in names:
            if name == RESERVED:
                raise text.failure([section, name], f'"{name}" cannot be a name: what the command put uploads has it')
            if name in {"", ".", ".."} or "/" in name or shown(name) != name or len(name.encode()) > NAME_MAX:
                raise text.failure(
                    [section, name],
                    f'"{shown(name)}" cannot be a name: a folder of the mount has it, so it is not ".", ".." or empty, has '
                    f"no slash, backslash or control character, and {NAME_MAX} bytes at most",
                )
    watches: dict[str, Watch] = {}
    for name, watch in config.watch.items():
        if watch.provider not in config.provider:
            known = ", ".join(config.provider) or "none is configured"
            raise text.failure(["watch", name, "provider"], f'there is no provider "{watch.provider}"; known: {known}')
        for key, patterns in (("include", (watch.include, [])), ("exclude", ([], watch.exclude))):
            try:
                Rules(*patterns)
            except Failure as failure:
                raise text.failure(["watch", name, key], str(failure)) from None
        if watch.rescan < 1:
            raise text.failure(["watch", name, "rescan"], f'{watch.rescan:g} seconds are too few: "1s" at least')
        if watch.key is not None and (why := names_objects(config.provider[watch.provider])):
            raise text.failure(
                ["watch", name, "key"], f"cannot be said for provider.{watch.provider}: {why}; leave the key out"
            )
        if watch.on_conflict == "replace" and (why := replaces_nothing(config.provider[watch.provider])):
            raise text.failure(
                ["watch", name, "on_conflict"],
                f'found "replace", and {why}; allowed for provider.{watch.provider}: "rename", "skip", "refuse"',
            )
        path = _path(text, ["watch", name, "path"], watch.path)
        for other, taken in watches.items():
            if nested(path, taken.path):
                raise text.failure(
                    ["watch", name, "path"],
                    f"{path} and the folder of watch.{other}, {taken.path}, lie in one another: "
                    "a file would belong to both",
                )
        watches[name] = msgspec.structs.replace(watch, path=path, after=_after(text, name, watch.after))
        provider = config.provider[watch.provider]
        if isinstance(provider, Jiandaoyun) and watch.after != "keep" and (why := shows_nothing(provider)):
            raise text.failure(
                ["watch", name, "after"],
                f'found "{watch.after}", and {why}; allowed for provider.{watch.provider}: "keep"',
            )
    _check_targets(watches, text)
    for name in ("transfers", "parts"):
        if not 1 <= (count := getattr(config.limits, name)) <= 64:
            raise text.failure(["limits", name], f"found {count}; allowed: 1 to 64")
    for name, rate in config.limits.requests.items():
        if name not in config.provider:
            raise text.failure(
                ["limits", "requests", name], f'there is no provider "{name}"{nearest(name, config.provider)}'
            )
        if not is_rate(rate):
            raise text.failure(["limits", "requests", name], f"{rate:g} is no number of requests a second: more than 0")
    if (listen := config.web.listen) is not None and not listen.host.is_loopback and config.web.token is None:
        raise text.failure(
            ["web", "listen"],
            f"{listen} can be reached from other machines: give [web] a token, or listen on 127.0.0.1:{listen.port}",
        )
    mount = config.mount
    if mount.path is not None:
        mount = msgspec.structs.replace(mount, path=_path(text, ["mount", "path"], mount.path))
        for name, watch in watches.items():
            if nested(mount.path or "", watch.path):
                raise text.failure(
                    ["mount", "path"],
                    f"{mount.path} and the folder of watch.{name}, {watch.path}, lie in one another: "
                    "the mount would be uploaded into itself",
                )
    return msgspec.structs.replace(config, watch=watches, mount=mount)


def _after(text: _Text, name: str, action: str) -> str:
    """Returns a checked `after`, its folder absolute."""
    kind, colon, folder = action.partition(":")
    if action in {"keep", "trash", "delete"}:
        return action
    if kind != "move" or not colon or not folder.startswith(("/", "~")):
        raise text.failure(
            ["watch", name, "after"],
            f'found "{action}"; allowed: "keep", "trash", "delete", "move:DIR" with the whole path of a folder',
        )
    return f"move:{_path(text, ['watch', name, 'after'], folder)}"


def _check_targets(watches: Mapping[str, Watch], text: _Text) -> None:
    """Refuses to move files to where they would be taken again."""
    for name, watch in watches.items():
        if watch.after in {"keep", "delete"}:
            continue
        target = trash() if watch.after == "trash" else watch.after.removeprefix("move:")
        for other, one in watches.items():
            inner = within(target, one.path) if watch.after == "trash" else None
            ignored = inner is not None and not Rules(one.include, one.exclude).enters(inner)
            if nested(target, one.path) and not ignored:
                raise text.failure(
                    ["watch", name, "after"],
                    f"{target} and the folder of watch.{other}, {one.path}, lie in one another: "
                    "what is moved there would be uploaded again",
                )


def _path(text: _Text, keys: Sequence[str], path: str) -> str:
    if not path or "\0" in path:
        raise text.failure(keys, f'"{shown(path)}" names no folder')
    return absolute(path, text.folder)


def _beside(text: str, error: str) -> str:
    """Returns which key stands where the text is no TOML. Its value may be a secret."""
    found = re.search(r"at line (\d+)", error)
    key, equals, _ = text.splitlines()[int(found[1]) - 1].partition("=") if found else ("", "", "")
    if not equals or not key.strip():
        return ""
    return f', beside the key "{shown(key.strip())}": a text stands in quotes, a key once in its table'
