"""A form (RFC 7578) read as it comes: fields in memory, the file on disk.

The body must end with its closing boundary; whatever breaks off before that is no form.
"""

import os
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

HEAD_LIMIT = 16 * 1024
FIELD_LIMIT = 1024 * 1024
_BOUNDARY = re.compile(r'boundary="?([^";]{1,200})"?', re.IGNORECASE)
_PARAMETER = re.compile(r';\s*([a-z]+)="((?:[^"\\]|\\.)*)"', re.IGNORECASE)


class FormError(Exception):
    """The body is no form."""


@dataclass
class Form:
    """What a form held, at most one file. `order` names the parts as they came."""

    fields: dict[str, str] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    filename: str | None = None  # None: there was no file
    mime: str = ""
    size: int = 0


async def read(content_type: str, body: AsyncIterator[bytes], path: str) -> Form:
    """Read a body; the file of the form goes to `path`. Raises FormError."""
    match = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or not match:
        raise FormError("the body is no multipart/form-data")
    reader = _Reader(b"\r\n--" + match[1].encode(), path)
    try:
        async for data in body:
            reader.feed(data)
    finally:
        reader.close()
    if not reader.over:
        raise FormError("the form breaks off")
    return reader.form


class _Reader:
    """The state between two pieces of a body."""

    def __init__(self, delimiter: bytes, path: str) -> None:
        self.form = Form()
        self.over = False
        self._delimiter = delimiter
        self._path = path
        self._buffer = bytearray(b"\r\n")  # the first boundary has no line before it
        self._inside = False  # behind a part's head
        self._name = ""
        self._value = bytearray()
        self._file: int | None = None

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while not self.over and self._step():
            pass

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
            self._file = None

    def _step(self) -> bool:
        """Take what can be taken; False when more has to come."""
        return self._content() if self._inside else self._head()

    def _content(self) -> bool:
        at = self._buffer.find(self._delimiter)
        if at < 0:
            whole = len(self._buffer) - len(self._delimiter) + 1
            if whole > 0:
                self._take(bytes(self._buffer[:whole]))
                del self._buffer[:whole]
            return False
        self._take(bytes(self._buffer[:at]))
        del self._buffer[:at]
        self._finish()
        return True

    def _head(self) -> bool:
        start = len(self._delimiter)
        if len(self._buffer) < start + 2:
            return False
        if not self._buffer.startswith(self._delimiter):
            raise FormError("the form does not begin with its boundary")
        if self._buffer[start : start + 2] == b"--":
            self.over = True
            return False
        end = self._buffer.find(b"\r\n\r\n", start)
        if end < 0:
            if len(self._buffer) > HEAD_LIMIT:
                raise FormError("a part's head is too long")
            return False
        self._begin(bytes(self._buffer[start + 2 : end]).decode("utf-8", "surrogateescape"))
        del self._buffer[: end + 4]
        return True

    def _begin(self, head: str) -> None:
        lines = dict(line.split(":", 1) for line in head.split("\r\n") if ":" in line)
        headers = {name.strip().lower(): value.strip() for name, value in lines.items()}
        parameters = dict(_PARAMETER.findall(headers.get("content-disposition", "")))
        if "name" not in parameters:
            raise FormError("a part has no name")
        self._name, self._inside, self._value = parameters["name"], True, bytearray()
        self.form.order.append(self._name)
        if "filename" in parameters:
            if self.form.filename is not None:
                raise FormError("a form holds one file")
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            self.form.filename = parameters["filename"].replace("%22", '"').replace('\\"', '"')
            self.form.mime = headers.get("content-type", "")
            self.form.size = 0

    def _take(self, data: bytes) -> None:
        if self._file is not None:
            os.write(self._file, data)
            self.form.size += len(data)
            return
        self._value += data
        if len(self._value) > FIELD_LIMIT:
            raise FormError("a field is too long")

    def _finish(self) -> None:
        self._inside = False
        if self._file is not None:
            self.close()
        else:
            self.form.fields[self._name] = self._value.decode("utf-8", "replace")
