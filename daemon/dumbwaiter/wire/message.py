"""HTTP requests and replies as brokers and transports see them: values, with no client behind them."""

import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dumbwaiter.errors import Offline, Retry

MARK = b"\xef\xbb\xbf"  # that some put before UTF-8: PHP, where a source file of its own begins with it
T = TypeVar("T")


class FileSlice(Struct, frozen=True):
    """`length` bytes of an open file from `offset`, as a body; who sends it chooses how to read it.

    `data` holds the bytes if they were read already. Each of `observers` is shown the bytes as they are sent, in order,
    with the position of each piece. `guard` is asked before the last of them leave, and may raise. `before` and `after`
    are what stands around them in a form.
    """

    fd: int
    offset: int
    length: int
    data: bytes | None = None
    observers: tuple[Callable[[int, bytes | memoryview], None], ...] = ()
    before: bytes = b""
    after: bytes = b""
    guard: Callable[[], None] | None = None

    @property
    def end(self) -> int:
        return self.offset + self.length

    def observed_by(self, observe: Callable[[int, bytes | memoryview], None]) -> "FileSlice":
        """Returns the same, shown to one more."""
        return replace(self, observers=(*self.observers, observe))

    @property
    def body_length(self) -> int:
        """Bytes of the whole body, what stands around the slice included."""
        return len(self.before) + self.length + len(self.after)


class Request(Struct, frozen=True):
    """One request. `what` names it in logs and sentences; URLs and headers may hold secrets and never get there."""

    what: str
    method: str
    url: str
    headers: Mapping[str, str] = {}
    body: bytes | FileSlice = b""


class Reply(Struct, frozen=True):
    """A complete answer: whatever the status, the body is all there (at most 1 MiB)."""

    status: int
    headers: Mapping[str, str] = {}  # names in lower case
    body: bytes = b""
    after: float | None = None  # seconds the server asks to wait

    @property
    def is_temporary(self) -> bool:
        """True for a status that says "not now", whatever else the answer holds."""
        return self.status >= 500 or self.status in {408, 425, 429}

    @property
    def text(self) -> bytes:
        """The body of an answer in words, without a mark of its encoding."""
        return self.body.removeprefix(MARK)

    def json(self, shape: type[T]) -> T:
        """Returns the body as `shape`; a member that is null and may be missing counts as missing.

        Raises `Retry` for anything else, `Offline` for a page.
        """
        try:
            try:
                return msgspec.json.decode(self.text, type=shape, strict=False)
            except msgspec.ValidationError:
                told = msgspec.json.encode(_without_nulls(msgspec.json.decode(self.text)))
                return msgspec.json.decode(told, type=shape, strict=False)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self.foreign(
                f"the server answered {self.status} with something that is not the expected JSON"
            ) from error

    @property
    def members(self) -> dict[str, Any] | None:
        """The JSON object that the body is; None where it is none."""
        try:
            found = msgspec.json.decode(self.text)
        except (ValueError, RecursionError, msgspec.DecodeError):
            return None
        return found if isinstance(found, dict) else None

    @property
    def page(self) -> bool:
        """True for a web page: as a portal's, or a proxy's."""
        return self.text.lstrip()[:9].lower().startswith((b"<!doctype", b"<html"))

    def foreign(self, sentence: str) -> Retry:
        """Returns what it means that somebody else answered: a page, as of a portal, that the network leads nowhere."""
        page = 200 <= self.status < 300 and self.text.lstrip()[:1] == b"<"
        return Offline(sentence) if page else Retry(sentence, after=self.after)


def _without_nulls(value: Any) -> Any:
    match value:
        case dict():
            return {name: _without_nulls(one) for name, one in value.items() if one is not None}
        case list():
            return [_without_nulls(one) for one in value]
    return value


def query(parameters: Iterable[tuple[str, Any]]) -> str:
    """Returns an encoded query string. A parameter whose value is None stands without "="."""
    return "&".join(
        quote(name, safe="") if value is None else f"{quote(name, safe='')}={quote(str(value), safe='')}"
        for name, value in parameters
    )


def form(
    fields: Iterable[tuple[str, str]], file_field: str, name: str, mime: str, piece: FileSlice
) -> tuple[str, FileSlice]:
    """Returns content type and body of a form (RFC 7578) whose last field is a file."""
    # Nobody can foretell it: one that is in the file ends it there, and what follows are fields of the file's author.
    boundary = f"dumbwaiter{secrets.token_hex(16)}"
    lines = []
    for field, value in fields:
        lines.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(field)}"\r\n\r\n{value}\r\n')
    lines.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(file_field)}"; filename="{_quoted(name)}"\r\n'
        f"Content-Type: {mime}\r\n\r\n"
    )
    before = "".join(lines).encode("utf-8", "surrogateescape")
    after = f"\r\n--{boundary}--\r\n".encode()
    return f"multipart/form-data; boundary={boundary}", replace(piece, before=before, after=after)


def _quoted(name: str) -> str:
    """Escapes a name as browsers do, and a backslash at its end, which would take the quote after it along."""
    if name.endswith("\\"):
        name = f"{name[:-1]}%5C"
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
