"""A first configuration: init. What no option says is asked for on a terminal; every answer is a key of the reference."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import click
import msgspec

from dumbwaiter.cli.session import Session, json_option, not_empty
from dumbwaiter.config.file import parse
from dumbwaiter.config.reader import PROVIDERS
from dumbwaiter.config.values import SecretSource
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.naming import legible, shown

NEEDED = {"recipe": ("transport", "request.url", "reply.url")}  # of the others: whatever has no default


@click.command()
@click.option("--broker", type=click.Choice(PROVIDERS), help="Whose service it is; netease if nothing is said.")
@click.option(
    "--provider",
    metavar="NAME",
    callback=not_empty,
    help='A name for the provider; by default the broker\'s, "vod" for netease.',
)
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="A key of the provider; may be repeated.")
@click.option("--app-key", help="The same as --set app_key=…")
@click.option("--secret-file", metavar="FILE", help="File that holds the provider's first secret.")
@click.option("--secret-env", metavar="NAME", help="Environment variable that holds it.")
@click.option(
    "--watch",
    "watches",
    metavar="DIR",
    multiple=True,
    callback=not_empty,
    help="Folder to watch; made if it is not there.",
)
@click.option(
    "--mount",
    metavar="DIR",
    callback=not_empty,
    help="Empty folder that shows what is uploaded; made if it is not there.",
)
@click.option("--force", is_flag=True, help="Write over an existing configuration.")
@json_option
@click.pass_obj
def init(
    session: Session,
    broker: str | None,
    provider: str | None,
    settings: Sequence[str],
    app_key: str | None,
    secret_file: str | None,
    secret_env: str | None,
    watches: Sequence[str],
    mount: str | None,
    *,
    force: bool,
) -> None:
    """Writes a first configuration: asks on a terminal for what no option says.

    \b
    dumbwaiter init
    dumbwaiter init --app-key K --secret-env VOD_SECRET --watch ~/Drop
    dumbwaiter init --broker jiandaoyun --set api_key=env:JDY_KEY --set app_id=A --set entry_id=E --watch ~/Drop

    A secret is env:NAME, file:PATH, credential:NAME (systemd) or keyring:SERVICE/USER. One that is typed in itself goes
    into a file beside the configuration that nobody else can read. Which keys a broker needs stands in
    docs/reference.md.
    """
    path = session.places.config
    if os.path.exists(path) and not force:
        raise Failure(f"{path} is there already: edit it, or use --force", Exit.USAGE)
    if len(watches) > 1:
        raise Failure(
            "one --watch to begin with: add a [watch.NAME] table to the file for each other folder", Exit.USAGE
        )
    if broker is None:
        broker = click.prompt("Broker", "netease", type=click.Choice(PROVIDERS), err=True) if _terminal() else "netease"
    name = provider or ("vod" if broker == "netease" else broker)
    given = _given(broker, settings, app_key, secret_env, secret_file)
    typed = _ask_missing(broker, given, os.path.join(os.path.dirname(path), name))
    folders = _folders(watches, mount)
    text = _text(broker, name, given, folders)
    _check(text, path)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    for file, secret in typed.items():
        _write_private(file, f"{secret}\n")
    for folder in folders:
        os.makedirs(os.path.expanduser(folder), exist_ok=True)
    _write_private(path, text)
    if session.json:
        session.facts({"config": path})
    session.say(f"wrote {path}: dumbwaiter check says whether it is usable")


def _given(
    broker: str, settings: Sequence[str], app_key: str | None, secret_env: str | None, secret_file: str | None
) -> dict[str, str]:
    """Returns the keys of the provider that options say. Raises `Failure` for one that is said twice."""
    given: dict[str, str] = {}
    for key, value in _options(broker, settings, app_key, secret_env, secret_file):
        if key in given:
            raise Failure(f"{key} is said more than once: say it with one option alone", Exit.USAGE)
        given[key] = value
    return given


def _ask_missing(broker: str, given: dict[str, str], beside: str) -> dict[str, str]:
    """Asks for the needed keys that are not given, and adds them.

    Returns the secrets that were typed in themselves, by the files that they are to be written to: `beside` and the key.
    """
    secrets = _secrets(broker)
    typed = {}
    for key in [one for one in _needed(broker) if one not in given]:
        if key in secrets:
            given[key] = _ask_secret(key)
            if _whereabouts(given[key]) is None:
                file = f"{beside}.{key}"
                typed[file] = given[key]
                given[key] = f"file:{file}"
        else:
            given[key] = _ask(key, "--app-key" if key == "app_key" else f"--set {key}=…")
    return typed


def _folders(watches: Sequence[str], mount: str | None) -> list[str]:
    """Returns the folder to watch and, if one is wanted, that of the mount. Raises `Failure` for what is no folder."""
    folders = [
        _folder(*watches or [_ask("Folder to watch", "--watch", "~/Drop")]),
        *([_folder(mount)] if mount else []),
    ]
    for folder in folders:
        if os.path.exists(os.path.expanduser(folder)) and not os.path.isdir(os.path.expanduser(folder)):
            raise Failure(f"{shown(folder)} is no folder: name one, or a place where it is to be made", Exit.USAGE)
    return folders


def _check(text: str, path: str) -> None:
    """Raises `Failure` for what is no configuration."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        odd = shown(text[: error.end].rpartition('"')[2])
        raise Failure(f"{odd} is no UTF-8, which a configuration is: give it another name", Exit.USAGE) from None
    try:
        parse(text, path)
    except Failure as failure:
        said = str(failure).replace(legible(path), "what these options make is no configuration", 1)
        raise Failure(said, failure.code) from None


def _options(
    broker: str, settings: Sequence[str], app_key: str | None, secret_env: str | None, secret_file: str | None
) -> Iterator[tuple[str, str]]:
    """Yields the keys of the provider that options say."""
    yield from map(_setting, settings)
    if app_key:
        yield "app_key", app_key
    first = next(iter(_secrets(broker)), None)
    for secret in (f"env:{secret_env}" if secret_env else "", f"file:{secret_file}" if secret_file else ""):
        if secret and first is None:
            raise Failure(f"a {broker} has secrets of any name: say --set secrets.NAME={secret}", Exit.USAGE)
        if secret and first:
            yield first, secret


def _text(broker: str, name: str, given: dict[str, str], folders: Sequence[str]) -> str:
    text = f"[provider.{_key(name)}]\nbroker = {_toml(broker)}\n"
    tree: dict[str, Any] = {}
    for key, value in given.items():
        *tables, last = key.split(".")
        table = tree
        for one in tables:
            table = table.setdefault(one, {})
            if not isinstance(table, dict):
                raise Failure(f"--set {key}: {one} is set to something else already", Exit.USAGE)
        table[last] = _value(broker, key, value)
    text += "".join(f"{_key(key)} = {_inline(value)}\n" for key, value in tree.items())
    text += f"\n[watch.drop]\npath = {_toml(folders[0])}\nprovider = {_toml(name)}\n"
    return text + (f"\n[mount]\npath = {_toml(folders[1])}\n" if folders[1:] else "")


def _value(broker: str, key: str, value: str) -> str:
    """Returns a setting as TOML writes it."""
    if key in _secrets(broker) or key.startswith("secrets."):
        if found := _whereabouts(value):
            kind, where = found
            return f"{{ {kind} = {_toml(_folder(where) if kind == 'file' else where)} }}"
        raise Failure(f"{key} is a secret: say --set {key}=env:NAME, or file:, credential:, keyring:", Exit.USAGE)
    wanted: Any = {one.name: one.type for one in msgspec.structs.fields(PROVIDERS[broker])}.get(key)
    if wanted == list[str] | None and not value.startswith("["):
        return f"[{', '.join(_toml(one.strip()) for one in value.split(','))}]"
    return value if wanted in (bool, int, float, list[str] | None) else _toml(value)


def _inline(value: str | dict[str, Any]) -> str:
    if isinstance(value, str):
        return value
    return "{ " + ", ".join(f"{_key(key)} = {_inline(one)}" for key, one in value.items()) + " }"


def _needed(broker: str) -> Iterator[str]:
    """Yields the keys without which no such provider works."""
    yield from NEEDED.get(broker, [one.name for one in msgspec.structs.fields(PROVIDERS[broker]) if one.required])


def _secrets(broker: str) -> list[str]:
    return [one.name for one in msgspec.structs.fields(PROVIDERS[broker]) if one.type is SecretSource]


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise Failure(f'--set {text}: write KEY=VALUE, like "app_id=12"', Exit.USAGE)
    return key, value


def _terminal() -> bool:
    return sys.stdin.isatty()


def _ask(what: str, option: str, default: str | None = None) -> str:
    if not _terminal():
        raise Failure(f"without a terminal, say {option}", Exit.USAGE)
    return str(click.prompt(what, default=default, err=True))


def _ask_secret(key: str) -> str:
    if not _terminal():
        raise Failure(f"without a terminal, say where {key} is: --set {key}=env:NAME, or file:PATH", Exit.USAGE)
    return str(click.prompt(f"{key} (or where it is, like env:NAME)", hide_input=True, err=True))


def _whereabouts(value: str) -> tuple[str, str] | None:
    """Returns how and where a secret is kept, None for what is one itself."""
    kind, colon, where = value.partition(":")
    return (kind, where) if kind in SecretSource.KINDS and colon else None


def _folder(path: str) -> str:
    """Returns a path that means the same wherever the daemon is started."""
    return path if path.startswith("~") else os.path.abspath(path)


def _write_private(path: str, text: str) -> None:
    """Writes a file whole, for its owner only, or leaves what was there. Raises `Failure`."""
    there = os.path.realpath(path)
    aside = f"{there}.new"
    try:
        with suppress(FileNotFoundError):
            os.unlink(aside)
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(text.encode())
        os.replace(aside, there)
    except OSError as error:
        with suppress(OSError):
            os.unlink(aside)
        raise Failure(f"{shown(path)} cannot be written: {error.strerror}") from None


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _toml(key)


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a JSON string is a TOML basic string
