"""The configuration's text: where in it a problem stands, and the sentence that says so."""

import os
import re
from collections.abc import Sequence

from dumbwaiter.errors import Exit, Failure
from dumbwaiter.naming import shown


class ConfigText:
    """The file's text, to show where a problem stands."""

    def __init__(self, text: str, path: str) -> None:
        self._lines = text.split("\n")  # TOML knows no other end of a line
        self._path = path

    @property
    def folder(self) -> str:
        """Where relative paths begin."""
        return os.path.dirname(os.path.abspath(self._path))

    def failure(self, keys: Sequence[str], what: str) -> Failure:
        """Returns the sentence for a problem at `keys`."""
        return Failure(f"{self.location(keys)} {what}", Exit.USAGE)

    def location(self, keys: Sequence[str]) -> str:
        """Returns file, line and key."""
        line = self._line(keys)
        return f"{self._path}{f', line {line}' if line else ''}: [{shown('.'.join(keys))}]"

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


_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\.(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")


def key_beside(text: str, error: str) -> str:
    """Returns which key stands where the text is no TOML. All else in the line may be a secret."""
    found = re.search(r"at line (\d+)", error)
    key = _KEY.match(text.split("\n")[int(found[1]) - 1]) if found else None
    if key is None:
        return ""
    return f', beside the key "{shown(key[1])}": a text stands in quotes, a key once in its table'
