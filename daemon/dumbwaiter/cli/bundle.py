"""The zip that a person may send to somebody who helps.

It holds no secret: settings are written anew from the checked configuration, in which a secret is no text, and
whatever is put in goes through the redaction of the log, loses the query of every address, and is searched for each
secret that can be read here.
"""

import base64
import json
import os
import platform
import re
import sys
import zipfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.metadata import distributions
from typing import Any
from urllib.parse import quote

import msgspec
from sqlalchemy import make_url

from dumbwaiter.cli.session import Session
from dumbwaiter.config import HOOKS
from dumbwaiter.config.checks import JOURNAL_SECRETS, journal_secrets
from dumbwaiter.config.values import SecretSource
from dumbwaiter.errors import Exit, Failure, JournalTrouble
from dumbwaiter.naming import shown
from dumbwaiter.redaction import redact
from dumbwaiter.wire.recipe import BLANK

LINES = 5000  # of the log
SHORTEST = 4  # characters; what is shorter would be found in every other word


def write(session: Session, findings: Sequence[Any], path: str) -> None:
    """Writes the zip, for its owner only. Raises `Failure` when it cannot be written."""
    clean = _Cleaner(_known(session))
    parts = {
        "doctor.json": clean.document([one._asdict() for one in findings]),
        "config.json": clean.document(_settings(session)),
        "status.json": clean.document(_status(session)),
        "system.txt": clean(_system(session)),
        "log.txt": clean(_log()),
    }
    if os.path.lexists(path) and (os.path.islink(path) or not os.path.isfile(path)):
        raise Failure(f"{shown(path)} is no regular file: name another", Exit.USAGE)
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)  # others may have been let in
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
            for name, text in parts.items():
                bundle.writestr(name, text)
    except OSError as error:
        raise Failure(f"{shown(path)} cannot be written: {error.strerror}") from None


class _Cleaner:
    """Takes out what must not be given away."""

    def __init__(self, known: Iterable[str]) -> None:
        forms = {form for one in known for form in _forms(one) if len(form) >= SHORTEST}
        self._known = re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True))) or r"(?!)")

    def __call__(self, text: str) -> str:
        text = re.sub(r"""(https?://[^\s"'?\\]+)\?[^\s"'\\]*""", r"\1?***", text)
        return self._known.sub("***", redact(text))

    def document(self, value: Any) -> str:
        """Returns a value as JSON, each text in it cleaned by itself."""
        return json.dumps(self._cleaned(value), indent=1, ensure_ascii=False)

    def _cleaned(self, value: Any) -> Any:
        match value:
            case str():
                return self(value)
            case dict():
                return {self(key): self._cleaned(one) for key, one in value.items()}
            case list() | tuple():
                return [self._cleaned(one) for one in value]
        return value


def _forms(secret: str) -> Iterable[str]:
    """Yields a secret as it stands, and as addresses, headers and JSON hold it."""
    yield from (secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1])
    for shift in range(3):  # wherever in a longer text it begins
        coded = base64.b64encode(b" " * shift + secret.encode()).decode().rstrip("=")
        yield coded[4 if shift else 0 : -2]


def _known(session: Session) -> list[str]:
    known = []
    try:
        for _, source in session.config.secrets():
            try:
                known.append(source.read().reveal())
            except Failure:
                continue  # what cannot be read here cannot get in either
        if session.config.journal:
            known += journal_secrets(session.config.journal)
    except Failure:
        pass
    return [one for one in known if one]


def _settings(session: Session) -> Any:
    try:
        plain = msgspec.to_builtins(session.config, enc_hook=_plain)
    except Failure as failure:
        return str(failure)
    if plain.get("journal"):
        plain["journal"] = make_url(plain["journal"]).difference_update_query(JOURNAL_SECRETS).render_as_string()
    for options in plain["provider"].values():
        request = options.get("request")
        if isinstance(request, dict):  # a recipe's; what it sends beside its blanks may be a key
            request["headers"] = dict.fromkeys(request.get("headers") or (), "***")
            request["body"] = "***"
    for watch in plain["watch"].values():
        for event in HOOKS:
            watch[event] = _hook(watch[event])
    return plain


def _plain(value: Any) -> Any:
    """Returns what stands in the file for a value of ours."""
    match value:
        case SecretSource():
            return repr(value)  # where it is
        case str():
            return str(value)
        case float() | int():
            return value + 0
    return value.text


def _hook(hook: Any) -> Any:
    """Returns who is told, without what may be a key: a webhook's path, and arguments that are no blank."""
    match hook:
        case [program, *words]:
            return [program, *(word if BLANK.fullmatch(word) else "***" for word in words)]
        case dict():
            url = hook["url"] and f"{'/'.join(hook['url'].split('/')[:3]).partition('?')[0]}/***"
            return hook | {"url": url, "command": _hook(hook["command"])}
    return hook


def _status(session: Session) -> Any:
    try:
        return session.ask("GET", "/status")
    except (Failure, JournalTrouble) as trouble:
        return str(trouble)


def _system(session: Session) -> str:
    packages = sorted(f"{one.metadata['Name']} {one.version}" for one in distributions())
    return "\n".join(
        [
            platform.platform(),
            sys.version,
            *(f"{name}: {path}" for name, path in vars(session.places).items()),
            *packages,
            "",
        ]
    )


def _log() -> str:
    from dumbwaiter.cli.systemd import own_target, run

    texts = [
        run("journalctl", *scope, "-u", own_target()._replace(system=not scope).unit(kind), "-n", str(LINES), "-o", "short-iso").stdout
        for scope in ([], ["--user"])
        for kind in ("dumbwaiter", "dumbwaiter-mount")
    ]  # fmt: skip
    return "\n".join(texts)
