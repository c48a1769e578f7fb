"""The configuration: TOML in, frozen structs out, and one clear sentence for whatever is wrong with it.

Everything is checked before anything starts. A problem names file, line and key, says what was found and what is
allowed, and the nearest known key. A secret stays where it is until `Source.read` is called by the one who needs it.
"""

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct, field

from dumbwaiter.errors import Exit, Failure
from dumbwaiter.ignore import Rules
from dumbwaiter.model import Secret
from dumbwaiter.wire.hmac_token import LIFE_MAX
from dumbwaiter.wire.recipe import Expression, Stored

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")  # a folder in the mount carries it
RESERVED = "put"  # the watch of files named on the command line

LONGEST = 366 * 86400.0  # seconds; what is longer, a clock cannot add
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


class Source:
    """Where a secret is: written in the file, or in the environment, a file, a credential of systemd, the keyring."""

    __slots__ = ("_kind", "_value")
    KINDS = ("env", "file", "credential", "keyring")

    def __init__(self, kind: str, value: str) -> None:
        self._kind = kind
        self._value = value

    def __repr__(self) -> str:
        return "***" if self._kind == "literal" else f"{self._kind}:{self._value}"

    def read(self) -> Secret:
        """Fetches the secret. Raises `Failure` with where to put it."""
        match self._kind:
            case "env":
                return _secret_from_environment(self._value)
            case "credential":
                return _secret_from_credential(self._value)
            case "keyring":
                return _secret_from_keyring(self._value)
            case "file":
                return _secret_from_file(os.path.expanduser(self._value))
        return Secret(self._value)


def _secret_from_environment(name: str) -> Secret:
    if value := os.environ.get(name):
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
    import keyring  # slow to load, and few need it
    from keyring.errors import KeyringError

    try:
        value = keyring.get_password(service, user)
    except KeyringError as error:
        raise Failure(f'the keyring cannot be asked for "{name}": {error}', Exit.USAGE) from error
    if not value:
        raise Failure(f'the keyring holds nothing for "{name}": keyring set {service} {user}', Exit.USAGE)
    return Secret(value)


def _secret_from_file(path: str, *, guarded: bool = True) -> Secret:
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            value = file.read(65536).strip()
    except FileNotFoundError:
        raise Failure(f"the secret file {path} does not exist", Exit.USAGE) from None
    except (OSError, ValueError) as error:  # no UTF-8, or no name that a file can have
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise Failure(f"the secret file {path} cannot be read: {reason}", Exit.USAGE) from None
    if guarded and stat.S_IMODE(mode) & 0o077:
        raise Failure(f"the secret file {path} can be read by others: chmod 600 {path}", Exit.USAGE)
    if not value:
        raise Failure(f"the secret file {path} is empty", Exit.USAGE)
    return Secret(value)


class NetEase(Struct, frozen=True, forbid_unknown_fields=True, tag_field="broker", tag="netease"):
    """NetEase VOD: the application's key and secret mint tokens for NOS."""

    app_key: str
    app_secret: Source
    api: str = "https://vcloud.163.com"
    lbs: str = "http://wanproxy.127.net"  # documented without TLS
    cdn: str = "http://{bucket}.nosdn.127.net"  # where public objects are read


class RecipeRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """How a grant is asked for. Blanks: {key} {name} {path} {size} {mime} {seed} {uuid} {secret.NAME}."""

    url: str
    method: Literal["GET", "POST", "PUT"] = "POST"
    headers: dict[str, str] = {}
    body: str | dict[str, Any] | None = None  # a table is sent as JSON


class RecipeReply(Struct, frozen=True, forbid_unknown_fields=True):
    """Where in the reply a grant stands."""

    url: Expression
    grants: Expression = Expression("@")  # a list of grants, or the only one; the others are looked up in each
    token: Expression | None = None
    fields: Expression | None = None  # of the form; for PUT its headers
    key: Expression | None = None
    link: Expression | None = None
    expires_at: Expression | None = None
    expires_in: Expression | None = None


class Recipe(Struct, frozen=True, forbid_unknown_fields=True, tag_field="broker", tag="recipe"):
    """A provider described here, without code."""

    transport: Literal["form", "put", "qiniu", "oss"]
    request: RecipeRequest
    reply: RecipeReply
    stored: Stored = Stored()
    secrets: dict[str, Source] = {}
    token_field: str = "token"  # noqa: S105 - a field's name
    file_field: str = "file"
    many: bool = False  # one grant serves many files
    life: Duration | None = None  # of a grant that does not say
    requests: float = 20.0  # a second


class Jimeng(Struct, frozen=True, forbid_unknown_fields=True, tag_field="broker", tag="jimeng"):
    """Jimeng or Dreamina: a session cookie gives temporary keys for ImageX. A token "us-…" is the international one's."""

    refresh_token: Source
    api: str | None = None  # signs in; by default the vendor's own of the token's region
    imagex: str | None = None  # by default what signing in names
    region: str | None = None  # as the keys are used; by default what signing in names
    multipart: Literal["gateway", "plain", "v1"] = "gateway"  # how large files are sent: three ways, one of them known
    web_version: str | None = None  # of the page that we sign in as (international)
    da_version: str | None = None


class CareyShop(Struct, frozen=True, forbid_unknown_fields=True, tag_field="broker", tag="careyshop"):
    """CareyShop: an administrator's sign-in gives tokens for the shop's own disk, Qiniu or Aliyun OSS."""

    api: str  # with its version: "https://shop.example/api/v1"
    app_key: str
    app_secret: Source
    username: str
    password: Source
    module: Literal["", "careyshop", "qiniu", "aliyun"] = ""  # empty: the shop's default
    terminal: Literal["web", "app"] = "web"  # app: temporary credentials for OSS, and parts for large files
    request: Literal["post", "get"] = "post"  # how the shop is asked
    parent: int = 0  # number of the directory in the shop that files are listed in
    platform: str = ""  # name of the sign-in; a second one of the same name ends the first
    endpoint: str = ""  # of OSS for app, without the bucket; by default the shop is asked
    region: str = ""  # of OSS for signature v4; by default the endpoint's
    signature: Literal["v1", "v4"] = "v1"  # new buckets of OSS take v4 only
    addressing: Literal["virtual", "path"] = "virtual"  # where the bucket stands: in the host name, or in the path


FORBIDDEN = re.compile(r"\$[({][^)}]*[)}]")  # Qiniu would fill it in; Jiandaoyun refuses it
BLANKS = ("path", "name", "folder", "watch", "size", "mime", "hash", "key")


class Jiandaoyun(Struct, frozen=True, forbid_unknown_fields=True, tag_field="broker", tag="jiandaoyun"):
    """Jiandaoyun: files as attachments in the records of one form."""

    api_key: Source
    app_id: str
    entry_id: str  # of the form
    record: Literal["per-file", "none"] | None = None  # by default a record per file, once `attachment` is set
    attachment: str = ""  # the field that takes the file
    values: dict[str, str] = {}  # by field: text with {path} {name} {folder} {watch} {size} {mime} {hash} {key}
    transaction: Literal["shared", "per-file"] = "shared"  # per-file: a call for every file's token
    start_workflow: bool = False  # of a new record
    start_trigger: bool = False
    api: str = "https://api.jiandaoyun.com/api"

    def __post_init__(self) -> None:
        for name in ("app_id", "entry_id", "attachment"):
            if FORBIDDEN.search(getattr(self, name)):
                raise ValueError(f"{name} must not hold text like ${{…}} or $(…): Jiandaoyun refuses it")
        if self.records != "none" and not self.attachment:
            raise ValueError('a record needs the form\'s field for files: attachment = "_widget_…"')
        for name, template in self.values.items():
            try:
                template.format(**dict.fromkeys(BLANKS, ""))
            except (KeyError, IndexError, ValueError, AttributeError):
                known = " ".join(f"{{{blank}}}" for blank in BLANKS)
                raise ValueError(f'the value of "{name}" has a blank that is not known; known: {known}') from None

    @property
    def records(self) -> str:
        """Which records are written."""
        return self.record or ("per-file" if self.attachment else "none")

    @property
    def path_field(self) -> str | None:
        """The field by which a file's record is found again, None when no value tells one path from another."""
        return next((name for name, template in self.values.items() if "{path}" in template), None)


class Xinhua(Struct, frozen=True, forbid_unknown_fields=True, tag_field="broker", tag="xinhua"):
    """Xinhua image processing (camera360): a key pair buys a JWT, and that gives upload tokens for JPEG pictures."""

    access_key: str
    secret_key: Source
    models: list[str] = []  # that the JWT is good for; none: all of this account
    token_life: Duration = Duration(20 * 3600)
    process: bool = False  # have each picture processed, and catalogue the watermarked result
    api: str = "https://xinhua-api.camera360.com"
    upload: str | None = None  # Qiniu's upload host; by default Qiniu is asked which one the bucket has
    uc: str | None = None  # who is asked; by default Qiniu's own
    prefix: str = ""  # of keys: the bucket is shared with the account's other programs
    request: Literal["get", "post", "query"] = "get"  # how keys are named; the documented one is a GET with a body
    poll: Duration = Duration(2)  # until the first look at a task; later looks are further apart
    patience: Duration = Duration(900)  # with a task
    repeat_task: bool = False  # create a second task when the answer to the first was lost

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[^:\s]+", self.access_key):
            raise _at("access_key", "must not be empty, nor hold a colon or a space")
        if not all(re.fullmatch(r"[^:,\s]+", model) for model in self.models):
            raise _at("models", "must be identifiers without colon, comma or space")
        if not 1 <= self.token_life <= LIFE_MAX:
            raise _at("token_life", f'{self.token_life:g} seconds is no life for a token: "1s" at least, "72h" at most')
        if not re.fullmatch(r"[A-Za-z0-9_.-]{0,100}", self.prefix):
            raise _at("prefix", "may hold letters, digits and _.- only, 100 at most")


def _at(key: str, what: str) -> ValueError:
    """Returns a problem with one key of a table, as msgspec would say where it is."""
    return ValueError(f"{what} - at `$.{key}`")


Provider = NetEase | Jimeng | Recipe | CareyShop | Jiandaoyun | Xinhua  # tagged by broker


def secrets(provider: Provider) -> list[Source]:
    """Returns where the secrets of a provider are."""
    values: list[Any] = [getattr(provider, one.name) for one in msgspec.structs.fields(provider)]
    if isinstance(provider, Recipe):
        values += provider.secrets.values()
    return [value for value in values if isinstance(value, Source)]


class Watch(Struct, frozen=True, forbid_unknown_fields=True):
    """A folder, what is taken from it, and where that goes."""

    path: str
    provider: str
    include: list[str] = []
    exclude: list[str] = []
    settle: Duration = Duration(2)
    rescan: Duration = Duration(900)
    polling: Literal["auto"] | bool = "auto"


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """How much at once."""

    transfers: int = 4  # files
    parts: int = 4  # parts of one file, where the vendor takes them in any order


class Mount(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the catalog is shown."""

    path: str | None = None
    allow_other: bool = False


class Log(Struct, frozen=True, forbid_unknown_fields=True):
    """What is told, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """A checked configuration; paths are absolute."""

    provider: dict[str, Provider] = {}
    watch: dict[str, Watch] = {}
    journal: str | None = None
    limits: Limits = field(default_factory=Limits)
    mount: Mount = field(default_factory=Mount)
    log: Log = field(default_factory=Log)

    def folder_of(self, watch: str) -> str | None:
        """Returns the folder that a watch's paths are relative to, None for a watch that is no longer configured."""
        if watch == RESERVED:
            return "/"
        known = self.watch.get(watch)
        return known.path if known else None


def load(path: str) -> Config:
    """Reads and checks a file. Raises `Failure` (exit code 2) with the first thing that is wrong."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read().decode()
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
        raise Failure(f"{path}: {error}", Exit.USAGE) from None
    text_of = _Text(text, path)
    read = _Reader(text_of, private)
    known = {f.name: f.type for f in msgspec.structs.fields(Config)}
    values: dict[str, Any] = {}
    for name, value in raw.items():
        if name not in known:
            raise text_of.failure([name], f'unknown key "{name}"{_nearest(name, known)}')
        one = {"provider": Provider, "watch": Watch}.get(name)
        values[name] = read.tables(name, value, one) if one else read.value([name], value, known[name])
    config = Config(**values)
    if config.journal is not None:
        _check_journal(config.journal, text_of, private)
    return _checked(config, text_of)


class _Text:
    """The file's text, to show where a problem stands."""

    def __init__(self, text: str, path: str) -> None:
        self._lines = text.splitlines()
        self._path = path

    def failure(self, keys: Sequence[str], what: str) -> Failure:
        """Returns the sentence for a problem at `keys`."""
        line = self._line(keys)
        place = f"{self._path}, line {line}" if line else self._path
        return Failure(f"{place}: [{'.'.join(keys)}] {what}", Exit.USAGE)

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


_WANTED = {Duration: 'a time like "2s"', Expression: "a JMESPath expression"}


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
            return msgspec.convert(value, kind, dec_hook=self._decode)
        except msgspec.ValidationError as error:
            raise self._problem(keys, str(error), kind, value) from None

    def _decode(self, kind: type, value: Any) -> Any:
        if kind is Duration and isinstance(value, str):
            return Duration(duration(value))
        if kind is Source:
            return self._source(value)
        if kind is Expression and isinstance(value, str):
            return Expression(value)
        wanted = 'a time like "2s"' if kind is Duration else "a text"
        raise ValueError(f"Expected {wanted}, got `{value}`")

    def _source(self, value: Any) -> Source:
        match value:
            case str():
                if not self._private:
                    raise ValueError(
                        "a secret stands in a file that others can read: chmod 600 the file, or move the secret "
                        'out with { file = "…" }, { env = "…" }, { credential = "…" } or { keyring = "…" }'
                    )
                return Source("literal", value)
            case dict() if len(value) == 1 and (kind := next(iter(value))) in Source.KINDS:
                if isinstance(value[kind], str):
                    return Source(kind, value[kind])
        raise ValueError('a secret is "text" or a table with one of ' + ", ".join(Source.KINDS))

    def _problem(self, keys: list[str], message: str, kind: Any, value: Any) -> Failure:
        what, _, where = message.partition(" - at ")
        inner = re.findall(r"\.(\w+)", where.strip("`"))
        keys = [*keys, *inner]
        if unknown := re.search(r"unknown field `(.*)`", what):
            options = [one.encode_name for one in msgspec.structs.fields(_table(kind, value, inner))]
            return self._text.failure([*keys, unknown[1]], f'unknown key "{unknown[1]}"{_nearest(unknown[1], options)}')
        if missing := re.search(r"missing required field `(.*)`", what):
            what = f'the key "{missing[1]}" is missing'
        elif wrong := re.search(r"^Invalid value '(.*)'$", what):
            what = f'unknown broker "{wrong[1]}"{_nearest(wrong[1], BROKERS)}'
        elif what.startswith("Invalid enum value"):
            what += f"; allowed: {_choices(_table(kind, value, inner[:-1]), inner[-1])}"
        return self._text.failure(keys, what[0].lower() + what[1:])


BROKERS = tuple(str(kind.__struct_config__.tag) for kind in (get_args(Provider) or (Provider,)))


def _table(kind: Any, value: Any, inner: Sequence[str]) -> Any:
    """Returns the struct for a table, or for the one at `inner` in it; for a provider, that of its broker."""
    for one in get_args(kind) or (kind,):
        settings = one.__struct_config__
        if settings.tag is None or value.get(settings.tag_field) == settings.tag:
            return _table(get_type_hints(one)[inner[0]], value, inner[1:]) if inner else one
    return kind


def _choices(kind: Any, key: str) -> str:
    """Returns the words that a key may hold, as they are written in the file."""
    one = get_type_hints(kind)[key]
    words = [word for part in (one, *get_args(one)) if get_origin(part) is Literal for word in get_args(part)]
    return ", ".join([*(f'"{word}"' for word in words), *(["true", "false"] if bool in get_args(one) else [])])


def _nearest(word: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(word, known, 1)
    return f'; did you mean "{close[0]}"?' if close else f"; known: {', '.join(known)}"


def _check_journal(url: str, text: _Text, private: bool) -> None:
    if not url.startswith(("postgresql+psycopg://", "sqlite:///")):
        raise text.failure(["journal"], 'must be a URL like "postgresql+psycopg://USER@HOST/DATABASE"')
    if not private and re.match(r"[^/]+//[^/@]*:[^/]*@", url):
        raise text.failure(
            ["journal"],
            "holds a password and stands in a file that others can read: chmod 600 the file, or move the password "
            "to ~/.pgpass",
        )


def _checked(config: Config, text: _Text) -> Config:
    """Finds what is wrong between values, and makes paths absolute."""
    for section, names in (("provider", config.provider), ("watch", config.watch)):
        for name in names:
            if not NAME.match(name) or name == RESERVED:
                raise text.failure([section, name], f'"{name}" cannot be a name: it is a folder in the mount')
    watches: dict[str, Watch] = {}
    for name, watch in config.watch.items():
        if watch.provider not in config.provider:
            known = ", ".join(config.provider) or "none is configured"
            raise text.failure(["watch", name, "provider"], f'there is no provider "{watch.provider}"; known: {known}')
        try:
            Rules(watch.include, watch.exclude)
        except Failure as failure:
            raise text.failure(["watch", name], str(failure)) from None
        path = _path(text, ["watch", name, "path"], watch.path)
        for other, taken in watches.items():
            if nested(path, taken.path):
                raise text.failure(
                    ["watch", name, "path"],
                    f"{path} and the folder of watch.{other}, {taken.path}, lie in one another: "
                    "a file would belong to both",
                )
        watches[name] = msgspec.structs.replace(watch, path=path)
    for name in ("transfers", "parts"):
        if not 1 <= getattr(config.limits, name) <= 64:
            raise text.failure(["limits", name], "must be from 1 to 64")
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


def _path(text: _Text, keys: Sequence[str], path: str) -> str:
    if not path or "\0" in path:
        raise text.failure(keys, "names no folder")
    return absolute(path)


def absolute(path: str) -> str:
    """Returns `path` with "~" expanded, absolute, without a trailing slash."""
    return os.path.abspath(os.path.expanduser(path))


def nested(one: str, other: str) -> bool:
    """True when one folder is the other or lies in it, links resolved."""
    one, other = os.path.realpath(one), os.path.realpath(other)
    return os.path.commonpath([one, other]) in {one, other}
