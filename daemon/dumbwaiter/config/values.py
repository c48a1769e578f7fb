"""Where a secret is, how long a time is, how large a size, and where a server is, as the configuration writes them."""

import base64
import ipaddress
import os
import re
import stat
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Self
from urllib.parse import urlsplit

from dumbwaiter.errors import Exit, Failure, exit_at
from dumbwaiter.model import Secret
from dumbwaiter.naming import shown

LONGEST = 366 * 86400.0  # seconds; what is longer, a clock cannot add
UNLOCKED = 60.0  # seconds for a person to unlock the keyring: less than systemd gives a service to start
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> float:
    """Returns seconds of "200ms", "2s", "15m", "1h", "1d". Raises `ValueError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", text.strip())
    if not match:
        raise ValueError(f'"{text}" is no time: write a number and ms, s, m, h or d, like "2s"')
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > LONGEST:
        raise ValueError(f'"{text}" is too long: "366d" at most')
    return seconds


class Duration(float):
    """Seconds, written "2s" in the file."""


class BaseUrl(str):
    """The base URL of a server. Blanks may stand in it, like {bucket}."""

    __slots__ = ()
    _OPEN = r"[^?#]*[?#]?"  # of it, where a sentence shows one

    @classmethod
    def of(cls, text: str) -> Self:
        """Returns a URL that requests can go to. Raises `ValueError`."""
        if "@" in text.partition("://")[2].partition("/")[0]:
            raise ValueError("a name or password cannot stand in an address")
        said = f'"{shown(cls._open(text))}"'
        try:
            parts = urlsplit(re.sub(r"\{[^{}]*\}", "1", text))
            good = parts.port != 0
        except ValueError:  # a port that is no number, or brackets without their like
            good = False
        if not good:
            raise ValueError(f"{said} names no host, or a port that is none: 1 to 65535")
        if parts.scheme not in {"http", "https"} or not parts.hostname or re.search(r"[\s\x00-\x1f\x7f\\]", text):
            raise ValueError(f'{said} is no address: write it like "https://api.example.com"')
        if cls is BaseUrl and ("?" in text or "#" in text):
            raise ValueError(f'{said} goes too far: a base ends before "?" and "#"')
        return cls(text)

    @classmethod
    def _open(cls, text: str) -> str:
        """Returns what a sentence may show: what stands behind it may be a key."""
        part = re.match(cls._OPEN, text)
        return text if part is None or part[0] == text else f"{part[0]}…"


class RequestUrl(BaseUrl):
    """The whole URL of one request."""

    __slots__ = ()
    _OPEN = r"(?:[^/?#]*:)?/*[^/?#]*[/?#]?"  # the path of a webhook is mostly its key


class HostPattern(str):
    """A host: "store.corp.example", "*.corp.example" for all below, or one IP address."""

    __slots__ = ()

    def __init__(self, text: str) -> None:
        """Raises `ValueError` for anything else, such as a range of addresses."""
        with suppress(ValueError):
            ipaddress.ip_address(text)
            return
        labels = text.removesuffix(".").split(".")
        if not all(re.fullmatch(r"[\w*-]+", label) for label in labels) or labels[-1].isdigit():
            raise ValueError(
                f'"{shown(text)}" is no name of a host: write it like "store.corp.example" or "*.corp.example"'
            )


class Listen(str):
    """Where a server listens: "127.0.0.1:8384", "[::1]:8384", "localhost:8384"."""

    __slots__ = ("host", "port")

    def __init__(self, text: str) -> None:
        """Raises `ValueError` unless `text` is an IP address (or localhost) and a port."""
        host, _, port = text.rpartition(":")
        wrong = f'"{shown(text)}" is no place to listen: write an IP address and a port, like "127.0.0.1:8384"'
        if not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
            raise ValueError(wrong)
        self.port = int(port)
        host = "127.0.0.1" if host == "localhost" else host
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        try:
            self.host = ipaddress.ip_address(bare)
        except ValueError:
            raise ValueError(wrong) from None
        if (self.host.version == 6) == (bare == host):
            raise ValueError(wrong)


def size(text: str) -> int:
    """Returns the bytes of "512MiB", "10G", "0"; units count by 1024 however they are written. Raises `ValueError`."""
    match = re.fullmatch(r"(\d{1,12})\s*([KMGT]?)(?:I?B)?", text.strip().upper())
    if not match:
        raise ValueError(f'"{text}" is no size: write a number and KiB, MiB, GiB or TiB, like "10GiB"')
    return int(match[1]) << 10 * " KMGT".index(match[2] or " ")


class Size(int):
    """Bytes, written "10GiB" in the file."""


class SecretSource:
    """Where a secret is: written in the file, or in the environment, a file, a credential of systemd, the keyring."""

    __slots__ = ("_folder", "_key", "_kind", "_value")
    KINDS = ("env", "file", "credential", "keyring")

    def __init__(self, kind: str, value: str) -> None:
        self._kind = kind
        self._value = value
        self._key = ""
        self._folder = ""

    def locate(self, key: str, folder: str) -> None:
        """Notes at which key it is written, for the errors, and in which folder the file of that key is."""
        self._key, self._folder = f"{key} ", folder

    def __repr__(self) -> str:
        return "***" if self._kind == "literal" else f"{self._kind}:{self._value}"

    @property
    def place(self) -> tuple[str, str]:
        """Kind and name of where the secret is; the name of a literal stays empty."""
        return self._kind, "" if self._kind == "literal" else self._value

    @property
    def file(self) -> str | None:
        """The path of the file that holds it and nothing else, None for a secret that stands elsewhere."""
        return os.path.join(self._folder, os.path.expanduser(self._value)) if self._kind == "file" else None

    def read(self) -> Secret:
        """Fetches the secret. Raises `Failure` with where to put it."""
        try:
            return self._fetched()
        except Failure as failure:
            raise self.failure(str(failure), failure.code) from None

    def failure(self, what: str, code: Exit = Exit.USAGE) -> Failure:
        """Returns the sentence for what is wrong with the secret, with where it is written."""
        return Failure(f"{self._key}{what}", code)

    def _fetched(self) -> Secret:
        match self._kind:
            case "env":
                return _secret_from_environment(self._value)
            case "credential":
                return _secret_from_credential(self._value)
            case "keyring":
                return _secret_from_keyring(self._value)
            case "file":
                assert self.file is not None
                return _secret_from_file(self.file)
        return Secret(self._value)


class Token(SecretSource):
    """A secret that a browser sends in a header."""

    __slots__ = ()

    def _fetched(self) -> Secret:
        secret = super()._fetched()
        if not re.fullmatch(r"[!-~]([ -~]*[!-~])?", secret.reveal()):
            raise Failure(
                "no browser can send this token: it has letters, digits and signs of ASCII, and begins and ends with no blank",
                Exit.USAGE,
            )
        return secret


class SigningSecret(SecretSource):
    """A secret that signs webhooks."""

    __slots__ = ()

    def _fetched(self) -> Secret:
        secret = super()._fetched()
        try:
            signing_key(secret)
        except ValueError:
            raise Failure(
                'what follows "whsec_" is no base64: copy the whole secret, as it is shown to you', Exit.USAGE
            ) from None
        return secret


def signing_key(secret: Secret) -> bytes:
    """Returns what a webhook is signed with: the text, or what the base64 after "whsec_" means. Raises `ValueError`."""
    text = secret.reveal()
    if not text.startswith("whsec_"):
        return text.encode()
    text = text.removeprefix("whsec_").rstrip("=")  # many write no padding
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _secret_from_environment(name: str) -> Secret:
    if (value := os.environ.get(name, "")) and not value.isspace():
        return Secret(value)
    raise Failure(f"the environment variable {name}, which should hold a secret, is not set", Exit.USAGE)


def _secret_from_credential(name: str) -> Secret:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise Failure(
            f'the credential "{name}" is handed over by systemd only: start the service, or use '
            '{ file = "…" } or { env = "…" } outside of it',
            Exit.USAGE,
        )
    return _secret_from_file(os.path.join(folder, name), guarded=False)


def _secret_from_keyring(name: str) -> Secret:
    service, slash, user = name.partition("/")
    if not slash:
        raise Failure(f'keyring = "{name}" must read "SERVICE/USER"', Exit.USAGE)
    from keyring.errors import KeyringError, NoKeyringError

    try:
        value = _asked_of_keyring(service, user).result(UNLOCKED)
    except TimeoutError:
        raise Failure(
            f'the keyring did not answer for "{name}" within {UNLOCKED:g} seconds: unlock it and try again',
            Exit.TEMPORARY,
        ) from None
    except NoKeyringError:
        raise Failure(f'the keyring cannot be asked for "{name}": there is none here', Exit.USAGE) from None
    except KeyringError as error:
        raise Failure(f'the keyring cannot be asked for "{name}": {error}', Exit.USAGE) from error
    if not value:
        raise Failure(f'the keyring holds nothing for "{name}": keyring set {service} {user}', Exit.USAGE)
    return Secret(value)


def _asked_of_keyring(service: str, user: str) -> Future[str | None]:
    """Asks in a thread that may stay behind: a locked keyring asks its owner, who may not be there."""
    import keyring  # slow to load, and few need it

    answer: Future[str | None] = Future()

    def ask() -> None:
        try:
            answer.set_result(keyring.get_password(service, user))
        except BaseException as error:  # noqa: BLE001 - raised where the answer is waited for
            answer.set_exception(error)

    Thread(target=ask, name="keyring", daemon=True).start()
    return answer


def _secret_from_file(path: str, *, guarded: bool = True) -> Secret:
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            value = file.read(65536).strip()
    except FileNotFoundError:
        raise Failure(f"the secret file {path} does not exist", Exit.USAGE) from None
    except OSError as error:
        raise Failure(f"the secret file {path} cannot be read: {error.strerror}", exit_at(error)) from None
    except ValueError:  # or no name that a file can have
        raise Failure(f"the secret file {path} cannot be read: it is no UTF-8 text", Exit.USAGE) from None
    if guarded and stat.S_IMODE(mode) & 0o077:
        raise Failure(f"the secret file {path} can be read by others: chmod 600 {path}", Exit.USAGE)
    if not value:
        raise Failure(f"the secret file {path} is empty", Exit.USAGE)
    return Secret(value)
