"""Names: what a file is called at the remote, and how any name is shown to people. Pure."""

import re
from collections.abc import Iterable
from functools import cache

_CONTROL = (
    r"\x00-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb"
    r"\ud800-\udfff\U000e0000-\U000e007f"  # what shows nothing; but letters and emoji need joiners and variants
)
_UNSAFE = rf"[{_CONTROL}\\]"
_UNREADABLE = rf"[{_CONTROL}]"
_AWKWARD = r"[%\x00-\x1f\x7f]"
_ESCAPED = r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U(000e00[0-7][0-9a-f])|\\)"
TREES = ("keys", "files", "outbox")  # what the catalog is shown as
NAME_MAX = 255  # bytes in one name, on every file system that matters


@cache
def _pattern(text: str) -> re.Pattern[str]:
    """Compiles when it is needed: a short command may need none."""
    return re.compile(text)


def shown(name: str) -> str:
    """Returns `name` fit for a terminal, a log and strict JSON, and unlike any other name's.

    Control characters (those that turn the direction of writing too), characters that show nothing and bytes that are no
    UTF-8 become backslash escapes, a backslash is doubled. The joiners of letters and emoji, and their variants, stay.
    """
    return _pattern(_UNSAFE).sub(_backslashed, name)


def _backslashed(match: re.Match[str]) -> str:
    character = match.group()
    if character == "\\":
        return "\\\\"
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python carries an undecodable byte
        return f"\\x{code - 0xDC00:02x}"
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"


def _quoted(match: re.Match[str]) -> str:
    """Does the same as far as JSON has words for it: what is quoted stays JSON."""
    code = ord(match.group())
    if code > 0xFFFF:
        return f"\\u{0xD7C0 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return "\\u007f" if code == 0x7F else _backslashed(match)


def legible(text: str) -> str:
    """Returns a sentence, with others' words in it, on one line and fit for a terminal and for any database."""
    return _pattern(_UNREADABLE).sub(_quoted, " ".join(text.splitlines()))


def in_json(text: str) -> str:
    """Returns a JSON document of one line so that a terminal takes nothing in it for an order; it means the same.

    Bytes that are no UTF-8, which no JSON can hold, stand as `shown` has them.
    """
    return _pattern(_UNREADABLE).sub(_in_json, text)


def _in_json(match: re.Match[str]) -> str:
    return f"\\{_backslashed(match)}" if "\ud800" <= match.group() <= "\udfff" else _quoted(match)


def unshown(text: str) -> str:
    """Returns the name that `shown` made `text` of; text that it did not make is returned as it is."""
    name = _pattern(_ESCAPED).sub(_unescaped, text)
    return name if shown(name) == text else text


def _unescaped(match: re.Match[str]) -> str:
    code = match.group(1) or match.group(2) or match.group(3)
    if code is None:
        return "\\"
    number = int(code, 16)
    return chr(number + 0xDC00) if match.group(1) and number >= 0x80 else chr(number)


def split(path: str) -> tuple[str, str]:
    """Splits a path into parent and name; the parent of a single name is empty."""
    parent, _, name = path.rpartition("/")
    return parent, name


def split_suffix(name: str) -> tuple[str, str]:
    """Splits a name into stem and suffix, which has its dot; ".profile" has no suffix."""
    stem, dot, suffix = name.rpartition(".")
    return (stem, dot + suffix) if stem else (name, "")


def join(*parts: str) -> str:
    """Joins path parts with "/", leaving out the empty ones."""
    return "/".join(part for part in parts if part)


def inside(folder: str) -> tuple[str, str]:
    """Returns the bounds of all paths inside a folder, however deep: from the first on, before the second."""
    return f"{folder}/", f"{folder}0"  # "0" is the character after "/"


def key_path(key: str) -> str:
    """Returns a remote key as a path that a file system can hold.

    Different keys give different paths: "%" and control characters are percent-escaped, and so is any name that a
    folder cannot hold: empty, ".", "..", or longer than 255 bytes (cut, with a digest of the whole).
    """
    return "/".join(_component(part) for part in key.split("/"))


def _component(part: str) -> str:
    if part in {"", ".", ".."}:
        return "%" + part.replace(".", "%2E")
    escaped = _pattern(_AWKWARD).sub(lambda match: f"%{ord(match.group()):02X}", part)
    encoded = escaped.encode("utf-8", "surrogateescape")
    if len(encoded) <= NAME_MAX:
        return escaped
    from hashlib import blake2s

    tail = f"%~{blake2s(encoded, digest_size=8).hexdigest()}"
    return encoded[: NAME_MAX - len(tail)].decode("utf-8", "ignore") + tail


def propose(path: str) -> str:
    """Returns the key for a file: its path below the watch, as UTF-8 can say it."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns the end of a sentence about a word that is none of those known."""
    import difflib  # for who mistypes alone

    known = sorted(known)
    close = difflib.get_close_matches(word, known, 1)
    return f'; did you mean "{close[0]}"?' if close else f"; known: {', '.join(known)}"


def counted(count: int, one: str, many: str = "") -> str:
    """Returns "1 file" or "2 files"; `many` where an "s" is not all that changes."""
    return f"{count} {one}" if count == 1 else f"{count} {many or one + 's'}"
