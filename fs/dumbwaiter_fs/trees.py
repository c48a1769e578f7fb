"""The catalog as the mount asks for it: nodes by path, and listings in which every name can be held by a folder.

Nothing is kept but the latest few listings, for a second or two: the attributes that `ls -l` asks for one by one
after a listing are answered from it. A journal that is not there yet is an empty catalog.
"""

import hashlib
import os
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import URL

from dumbwaiter.catalog import TREES, Catalog, Node
from dumbwaiter.errors import JournalTrouble
from dumbwaiter.naming import NAME_MAX, join, split

T = TypeVar("T")

FRESH = 1.0  # seconds that a listing may answer for
KEPT = 20_000  # names in all kept listings: bounds memory at some 20 MiB
TOTALS_FRESH = 5.0  # adding up a million rows takes a noticeable part of a second
UNDEFINED_TABLE = "42P01"  # PostgreSQL


class Trees:
    """The three trees. Paths are relative, "" is the root. Any thread may call."""

    def __init__(self, url: URL, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._lock = threading.Lock()
        self._catalog: Catalog | None = None
        self._file: tuple[int, int] | None = None
        self._answered = False
        self._listings: OrderedDict[str, tuple[float, dict[str, Node]]] = OrderedDict()
        self._totals = (-TOTALS_FRESH, (0, 0))

    def node(self, path: str) -> Node | None:
        """Returns what stands at `path`, None when nothing does."""
        if not path or path in TREES:
            return Node(path)
        parent, name = split(path)
        if (listing := self._fresh(parent)) is not None:
            return listing.get(name)
        if name.startswith(_MARK):
            return self.children(parent).get(name)
        return self._ask(lambda catalog: catalog.find(path), None)

    def children(self, path: str) -> dict[str, Node]:
        """Returns a folder's nodes under the names it shows them by, straight from the catalog."""
        if not path:
            return {name: Node(name) for name in TREES}
        none: list[Node] = []
        nodes = self._ask(lambda catalog: catalog.children(path), none)
        listing = {holdable(node.name): node for node in nodes if node.name}
        with self._lock:
            self._listings[path] = (self._clock(), listing)
            self._listings.move_to_end(path)
            while self._listings and sum(len(names) for _, names in self._listings.values()) > KEPT:
                self._listings.popitem(last=False)
        return listing

    def changed_at(self, path: str) -> float:
        """Returns when a folder's own files last changed, 0.0 when that is not known."""
        return self._ask(lambda catalog: catalog.changed_at(path), 0.0) if path else 0.0

    def totals(self) -> tuple[int, int]:
        """Returns number and bytes of all files, some seconds old at most."""
        at, totals = self._totals
        if self._clock() - at >= TOTALS_FRESH:
            totals = self._ask(lambda catalog: catalog.totals(), (0, 0))
            self._totals = (self._clock(), totals)
        return totals

    def close(self) -> None:
        with self._lock:
            if self._catalog is not None:
                self._catalog.close()
                self._catalog = None

    def _fresh(self, folder: str) -> dict[str, Node] | None:
        with self._lock:
            kept = self._listings.get(folder)
            if kept is None:
                return None
            at, listing = kept
            if self._clock() - at < FRESH:
                return listing
            del self._listings[folder]
            return None

    def _ask(self, query: Callable[[Catalog], T], empty: T) -> T:
        catalog = self._open()
        if catalog is None:
            return empty
        try:
            answer = query(catalog)
        except JournalTrouble as trouble:
            if not self._answered and _no_table(trouble.__cause__):
                return empty  # its creator has not come that far
            raise
        self._answered = True
        return answer

    def _open(self) -> Catalog | None:
        """Returns the catalog of the journal that is at the url now; a restored one is another file."""
        found: tuple[int, int] | None = None
        if self._url.get_backend_name() == "sqlite":
            try:
                status = os.stat(self._url.database or "")
            except FileNotFoundError:
                return None
            found = status.st_dev, status.st_ino
        with self._lock:
            if self._catalog is None or found != self._file:
                if self._catalog is not None:
                    self._catalog.close()
                self._catalog, self._file, self._answered = Catalog.at(self._url), found, False
            return self._catalog


def _no_table(error: BaseException | None) -> bool:
    """True for the answer of a database in which the schema has not been made."""
    if getattr(error, "sqlstate", None) == UNDEFINED_TABLE:
        return True
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR


_MARK = "%~"


def holdable(name: str) -> str:
    """Returns `name`, or for one that no folder can hold a name of its own that says what it was like.

    A listing with one impossible name in it fails as a whole, so none may pass. Looking up such a name goes through
    the listing; nothing has to be decoded.
    """
    encoded = name.encode("utf-8", "surrogateescape")
    if name not in {".", ".."} and b"/" not in encoded and b"\0" not in encoded and len(encoded) <= NAME_MAX:
        return name
    readable = encoded.replace(b"/", b"_").replace(b"\0", b"_")[: NAME_MAX - 20].decode("utf-8", "ignore")
    return f"{_MARK}{hashlib.blake2s(encoded, digest_size=8).hexdigest()}-{readable}"


def inside(folder: str, name: str) -> str:
    return join(folder, name)
