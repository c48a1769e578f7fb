"""Key templates: what a file is to be called at the provider, as its watch says it.

A key depends on nothing but the file and its job, so every attempt comes to the same one; the journal keeps it before
the first byte goes. Whatever a name may hold, the key has only what every provider takes.
"""

import difflib
import hashlib
import os
import re
import string
import uuid
from datetime import datetime
from functools import cached_property

from dumbwaiter.files import exif
from dumbwaiter.naming import NAME_MAX, join, propose, split, split_suffix

KEY_MAX = 750  # bytes: Qiniu's limit, the lowest of those known
SUFFIX_MAX = 17  # bytes with the dot: what is longer tells no type, and may be cut
PIECE = 1 << 20
PATH = "{dir}/{stem}{suffix}"  # what goes without saying
LEVELS = 9
NUMBERED = 8  # further names that only count; the next one has the job's own digits
SINGLE = ("stem", "name", "hash", "uuid")  # each of these tells files of one folder apart
FIRST_DAY, LAST_DAY = -62135337600.0, 253401955200.0  # seconds, of a calendar of the years 1 to 9999 in every zone
MOMENTS = {"date": "%Y-%m-%d", "time": "%H%M%S", "exif": "%Y-%m-%d", "mtime": "%Y-%m-%d"}
TEXTS = ("dir", *(f"dir{level}" for level in range(1, LEVELS + 1)), "stem", "suffix", "name", "watch")
DIGITS = ("hash", "uuid")
FIELDS = (*TEXTS, *DIGITS, *MOMENTS)
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\\]")
_TAKEN = ("EXIF DateTimeOriginal", "EXIF DateTimeDigitized", "Image DateTime")


class Subject:
    """A file as a template sees it. What has to be read from its content is read when it is asked for, once.

    `fd` is the open file; `created_at` the time of its job, `seed` the job's own digits.
    """

    def __init__(self, watch: str, path: str, fd: int, created_at: float, seed: str) -> None:
        self.watch = watch
        self.path = propose(path)
        self.seed = seed
        self._fd = fd
        self._created = datetime.fromtimestamp(created_at)  # noqa: DTZ006 - names are in local time, as people's are

    def text(self, field: str) -> str:
        """Returns the text for a field of `TEXTS`."""
        folder, name = split(self.path)
        stem, suffix = split_suffix(name)
        if field == "dir":
            return folder
        if field.startswith("dir"):
            levels = folder.split("/")
            level = int(field[3:])
            return levels[level - 1] if level <= len(levels) else ""
        return {"stem": stem, "suffix": suffix, "name": name, "watch": self.watch}[field]

    def digits(self, field: str) -> str:
        """Returns SHA-256 of the content, or a UUID that is the job's own."""
        return self._hash if field == "hash" else str(uuid.uuid5(uuid.NAMESPACE_OID, self.seed))

    def moment(self, field: str) -> datetime:
        """Returns the time of the job, of the photograph, or of the last change."""
        if field == "mtime":
            return self._changed
        return self._exif if field == "exif" else self._created

    @cached_property
    def _hash(self) -> str:
        digest, offset = hashlib.sha256(), 0
        while data := os.pread(self._fd, PIECE, offset):
            digest.update(data)
            offset += len(data)
        return digest.hexdigest()

    @cached_property
    def _changed(self) -> datetime:
        seconds = min(max(os.fstat(self._fd).st_mtime, FIRST_DAY), LAST_DAY)
        return datetime.fromtimestamp(seconds)  # noqa: DTZ006 - as above

    @cached_property
    def _exif(self) -> datetime:
        return _photographed(self._fd) or self._changed


class Template:
    """A checked template."""

    __slots__ = ("_parts", "text")

    def __init__(self, text: str) -> None:
        """Raises `ValueError` when it is none, or does not tell files apart."""
        self.text = text
        try:
            self._parts = [
                (before, field, form or "", spec or "") for before, field, spec, form in string.Formatter().parse(text)
            ]
        except ValueError as error:
            raise ValueError(f'"{text}" is no template: {error}; a brace itself is written {{{{ or }}}}') from None
        for _, field, conversion, form in self._parts:
            if field is not None:
                _check(field, conversion, form)
        if not any(field in SINGLE for _, field, _, _ in self._parts):
            fields = ", ".join(f"{{{field}}}" for field in SINGLE)
            raise ValueError(f'"{text}" gives different files one key: it needs one of {fields}')

    def key(self, subject: Subject) -> str:
        """Returns the key, with at most `KEY_MAX` bytes."""
        filled = "".join(
            before + ("" if field is None else _value(subject, field, form)) for before, field, _, form in self._parts
        )
        return fitted(filled)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Template({self.text!r})"


def _check(field: str, conversion: str, form: str) -> None:
    if field not in FIELDS:
        known = difflib.get_close_matches(field, FIELDS, 1)
        hint = (
            f"did you mean {{{known[0]}}}?"
            if known
            else f"known: {', '.join(FIELDS[:2])} … {', '.join(FIELDS[LEVELS:])}"
        )
        raise ValueError(f"unknown field {{{field}}}; {hint}")
    if conversion:
        raise ValueError(f"{{{field}!{conversion}}} is not known: write {{{field}}}")
    if field in TEXTS and form:
        raise ValueError(f"{{{field}:{form}}} is not known: write {{{field}}}")
    if field in DIGITS and form and not (form.isdecimal() and 4 <= int(form) <= 64):
        raise ValueError(f"{{{field}:{form}}}: the number of digits is from 4 to 64")
    if field in MOMENTS and form and not re.fullmatch(r"(?:[^%]|%[YmdHMSjyGVuBbAa%])+", form):
        raise ValueError(f"{{{field}:{form}}}: write a time as with strftime, like {{{field}:%Y/%m}}")


def _value(subject: Subject, field: str, form: str) -> str:
    if field in MOMENTS:
        return subject.moment(field).strftime(form or MOMENTS[field])
    if field in DIGITS:
        return subject.digits(field)[: int(form or 64)]
    return subject.text(field)


def fitted(text: str) -> str:
    """Returns `text` as a key: no control characters, no empty level, no "." or "..", no level over 255 bytes."""
    levels = [_level(_UNSAFE.sub("_", level)) for level in text.split("/") if level]
    key = join(*levels) or "_"
    return key if len(key.encode()) <= KEY_MAX else _cut(key, KEY_MAX)


def _level(level: str) -> str:
    if level in {".", ".."}:
        return "_" * len(level)
    return level if len(level.encode()) <= NAME_MAX else _cut(level, NAME_MAX)


def _cut(text: str, limit: int) -> str:
    """Shortens a name in the middle: what ends it tells its type, and a digest of the whole tells it from others."""
    tail = f"~{hashlib.blake2s(text.encode(), digest_size=6).hexdigest()}{_suffix(split(text)[1])}"
    return text.encode()[: limit - len(tail.encode())].decode("utf-8", "ignore").rstrip("/") + tail


def _suffix(name: str) -> str:
    suffix = split_suffix(name)[1]
    return suffix if len(suffix.encode()) <= SUFFIX_MAX else ""


def further(key: str, number: int, seed: str) -> str | None:
    """Returns the name to try when `number` names were taken: "film-1.mov", ...; at last one that only this job has."""
    if number > NUMBERED + 1:
        return None
    parent, name = split(key)
    suffix = _suffix(name)
    stem = name.removesuffix(suffix) if suffix else name
    return fitted(join(parent, f"{stem}-{number if number <= NUMBERED else seed[:12]}{suffix}"))


def _photographed(fd: int) -> datetime | None:
    """Reads when a photograph was taken, by the camera's own clock; None when it does not say."""
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        told = exif.tags(file)
    for tag in _TAKEN:
        try:
            return datetime.strptime(str(told[tag]).strip(), "%Y:%m:%d %H:%M:%S")  # noqa: DTZ007 - no zone is said
        except (KeyError, ValueError):
            continue
    return None
