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
from importlib.metadata import distributions
from typing import Any
from urllib.parse import quote

import msgspec

from dumbwaiter import log
from dumbwaiter.cli.session import Session
from dumbwaiter.errors import Failure, JournalTrouble
from dumbwaiter.options import secrets

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
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from None
    with open(descriptor, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, text in parts.items():
            bundle.writestr(name, text)


class _Cleaner:
    """Takes out what must not be given away."""

    def __init__(self, known: Iterable[str]) -> None:
        forms = {form for one in known for form in _forms(one) if len(form) >= SHORTEST}
        self._known = re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True))) or r"(?!)")

    def __call__(self, text: str) -> str:
        text = re.sub(r"""(https?://[^\s"'?\\]+)\?[^\s"'\\]*""", r"\1?***", text)
        return self._known.sub("***", log.redact(text))

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
        config = session.config
        sources = [source for options in config.provider.values() for source in secrets(options)]
        for source in (*sources, *([config.web.token] if config.web.token else [])):
            try:
                known.append(source.read().reveal())
            except Failure:
                continue  # what cannot be read here cannot get in either
    except Failure:
        pass
    return [one for one in known if one]


def _settings(session: Session) -> Any:
    try:
        plain = msgspec.to_builtins(session.config, enc_hook=repr)
    except Failure as failure:
        return str(failure)
    if plain.get("journal"):
        plain["journal"] = re.sub(r"//[^/@]*@", "//***@", plain["journal"])
    for options in plain["provider"].values():
        request = options.get("request")
        if isinstance(request, dict):  # a recipe's; what it sends beside its blanks may be a key
            request["headers"] = dict.fromkeys(request.get("headers") or (), "***")
            request["body"] = "***"
    return plain


def _status(session: Session) -> Any:
    try:
        return session.ask("GET", "/status")
    except (Failure, JournalTrouble) as trouble:
        return str(trouble)


def _system(session: Session) -> str:
    packages = sorted(f"{one.metadata['Name']} {one.version}" for one in distributions())
    return "\n".join([platform.platform(), sys.version, str(session.places), *packages, ""])


def _log() -> str:
    from dumbwaiter.cli.service import own_target, run

    texts = [
        run("journalctl", *scope, "-u", own_target()._replace(system=not scope).unit(kind), "-n", str(LINES), "-o", "short-iso").stdout
        for scope in ([], ["--user"])
        for kind in ("dumbwaiter", "dumbwaiter-mount")
    ]  # fmt: skip
    return "\n".join(texts)
