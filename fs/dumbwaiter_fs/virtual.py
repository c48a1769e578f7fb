"""Files that are not there and can be read: the links of a folder, and an internet shortcut for each file. Pure.

They stand in `files/` only, no listing shows them, and a real file of the same name comes first.
"""

from collections.abc import Sequence

from dumbwaiter.links import FORMS, filled
from dumbwaiter.model import Entry

LINKS = (b".links.md", b".links.txt")
SHORTCUT = b".url"


def may_be(name: bytes) -> bool:
    return name in LINKS or (name.endswith(SHORTCUT) and name != SHORTCUT)


def subject(name: bytes) -> bytes:
    """Returns the file that a shortcut is for."""
    return name.removesuffix(SHORTCUT)


def links(name: bytes, files: Sequence[Entry]) -> bytes:
    """Returns the links of a folder's files, one a line: Markdown, or the addresses alone. Files without one are left out."""
    found = [(file, url) for file in files if (url := _address(file))]
    markdown = name == LINKS[0]
    lines = [f"- {filled(file, FORMS['markdown'])}" if markdown else url for file, url in found]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def shortcut(file: Entry) -> bytes:
    """Returns what a desktop opens in the browser, nothing for a file without an address."""
    url = _address(file)
    return f"[InternetShortcut]\r\nURL={url}\r\n".encode("utf-8", "replace") if url else b""


def _address(file: Entry) -> str | None:
    """Returns a file's url, if it has one that stands in a line."""
    return None if not file.url or any(character in file.url for character in "\r\n") else file.url
