"""The three trees as the kernel asks for them: by path, by number, and folder by folder.

Nothing is kept: every answer is a question to the catalog's indexes. Names that no folder can hold get one that says
what they were like, and a file that shares its name with a folder stands beside it, so none is lost. A journal that
is not there yet is an empty catalog. Paths are bytes, relative, "" is the root.
"""

import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from sqlalchemy import URL

from dumbwaiter.catalog import HIDDEN, Waiting
from dumbwaiter.errors import JournalTrouble
from dumbwaiter.model import Entry
from dumbwaiter.naming import NAME_MAX
from dumbwaiter_fs import virtual
from dumbwaiter_fs.index import Change, Index, Line, Position
from dumbwaiter_fs.inodes import BY_CODE, TREES, FileRow, Inode, Tree, ctime_ms, number_of

T = TypeVar("T")

PAGE = 4096  # files of a folder at a time: bounds what a listing of a million holds
TOTALS_FRESH = 5.0  # seconds; adding up a million rows takes a noticeable part of one
_UNDEFINED_TABLE = "42P01"  # PostgreSQL
_NO_NAMES = frozenset({b"", b".", b".."})
_MARK = b"%~"
_HIDDEN = HIDDEN.encode()


class CatalogState(NamedTuple):
    """Which database it is, and which of its commits was the last."""

    journal: int
    commit: int


class Trees:
    """The three trees. Any thread may call."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._started = time.time()
        self._lock = threading.Lock()
        self._index: Index | None = None
        self._file: tuple[int, int] | None = None
        self._journal = 0
        self._answered = False
        self._totals = (-TOTALS_FRESH, (0, 0))

    def inode(self, path: bytes) -> Inode | None:
        """Returns what stands at a path, None when nothing does."""
        tree, inner = _tree(path)
        if tree is None:
            return self._folder(path) if not path else None
        if not inner:
            return self._folder(path)
        return self._ask(lambda index: self._find(index, tree, path, inner), None)

    def by_number(self, number: int) -> Inode | None:
        """Returns the file with a number, as its tree shows it now; None for one that is not there any more."""
        tree = BY_CODE.get(number & 3)
        if tree is None:
            return None
        found = self._ask(lambda index: index.by_number(tree, number), None)
        return Inode(number, False, found.size, found.mtime_ns, found.ctime_ms, tree) if found else None

    def whole(self, inode: Inode) -> Entry | Waiting | None:
        """Returns all that is known of a file; None for a made-up one, and for one that is gone since."""
        if (tree := inode.tree) is None:
            return None
        return self._ask(lambda index: index.whole(tree, inode.number), None)

    def folders(self, path: bytes) -> list[bytes]:
        """Returns the names of the folders in a folder."""
        tree, inner = _tree(path)
        if tree is None:
            return [name.encode() for name in TREES]
        none: list[bytes] = []
        return self._ask(lambda index: index.folders(tree, inner), none)

    def next_folder(self, path: bytes) -> tuple[bytes | None, bool]:
        """Returns the folder with files that a walk comes to after this one, and whether it holds nothing else."""
        tree, inner = _tree(path)
        if tree is None:
            return None, False
        none: tuple[bytes | None, bool] = (None, False)
        return self._ask(lambda index: _after(index, tree, inner), none)

    def files(self, path: bytes, folders: set[bytes], at_a_time: int = PAGE) -> Iterator[list[Line]]:
        """Yields the files of a folder page by page, under the names they are shown by; `folders` are those in it."""
        tree, inner = _tree(path)
        if tree is None:
            return
        after: bytes = b""
        while True:
            none: tuple[list[Line], bool] = ([], False)
            page, more = self._ask(lambda index, after=after: index.files(tree, inner, after, at_a_time), none)  # type: ignore[misc]
            if page:
                after = bytes(page[-1][0])
                yield self._shown(tree, inner, page, folders)
            if not more:
                return

    def names(self, path: bytes) -> Iterator[tuple[bytes, int, bool]]:
        """Yields name and number of all in a folder, its folders first, and whether it is one."""
        folders = self.folders(path)
        for name in folders:
            yield name, number_of(path + b"/" + name if path else name), True
        for page in self.files(path, set(folders)):
            for line in page:
                yield line[0], line[1], False

    def latest(self, path: bytes) -> float:
        """Returns when the newest of all files came to a path's tree, or when the mount was made."""
        tree = _tree(path)[0] or TREES["files"]
        return self._ask(lambda index: index.latest(tree), 0.0) or self._started

    def times(self, path: bytes, latest: float) -> tuple[int, int]:
        """Returns a folder's mtime_ns and ctime_ms: of the newest of its own files, and of what may be anywhere below."""
        tree, inner = _tree(path)
        own = self._ask(lambda index: index.changed_at(tree, inner), 0.0) if tree else 0.0
        return round((own or latest) * 1e9), ctime_ms(max(own, latest))

    def totals(self) -> tuple[int, int]:
        """Returns number and bytes of all files, some seconds old at most."""
        at, totals = self._totals
        if time.monotonic() - at >= TOTALS_FRESH:
            totals = self._ask(lambda index: index.totals(), (0, 0))
            self._totals = (time.monotonic(), totals)
        return totals

    def newest(self) -> Position:
        """Returns how far the catalog has come."""
        return self._ask(lambda index: index.newest(), Position(0, 0.0))

    def since(self, position: Position) -> list[Change]:
        """Returns what came since, some of what came shortly before too."""
        none: list[Change] = []
        return self._ask(lambda index: index.since(position), none)

    def walks(self) -> list[object]:
        """Returns what changes while a provider's own list is read into the catalog."""
        try:
            return self._ask(lambda index: index.walks(), list[object]())
        except JournalTrouble:  # a database from before there were any
            return []

    def state(self) -> CatalogState:
        """Returns what is equal as long as nothing in the catalog has changed."""
        commit = self._ask(lambda index: index.state() or int(time.monotonic()), 0)
        return CatalogState(self._journal, commit)

    def close(self) -> None:
        with self._lock:
            if self._index is not None:
                self._index.close()
                self._index = None

    def _folder(self, path: bytes) -> Inode:
        return Inode(number_of(path), True, 0, *self.times(path, self.latest(path)))

    def _find(self, index: Index, tree: Tree, path: bytes, inner: bytes) -> Inode | None:
        parent, _, name = inner.rpartition(b"/")
        if index.has_below(tree, inner):
            return self._folder(path)
        row = index.file(tree, parent, name)
        if row is None and name.endswith(_HIDDEN):
            row = _hidden(index, tree, parent, name)
        if row is not None:
            return Inode(row.number, False, *row[1:], tree)
        if name.startswith(_MARK):
            return self._marked(tree, path, name)
        if tree.name == "files" and virtual.may_be(name):
            return self._virtual(index, path, parent, name)
        return None

    def _marked(self, tree: Tree, path: bytes, name: bytes) -> Inode | None:
        """Finds a file under the name that stands for one which no folder can hold."""
        folder = path.rpartition(b"/")[0]
        for page in self.files(folder, set(self.folders(folder))):
            for line in page:
                if line[0] == name:
                    return Inode(line[1], False, *line[2:], tree)
        return None

    def _virtual(self, index: Index, path: bytes, parent: bytes, name: bytes) -> Inode | None:
        tree = TREES["files"]
        if name in virtual.LINKS:
            if parent and not index.has_below(tree, parent):
                return None
            text = virtual.links(name, [file for _, file in index.all_in(parent)])
            above = self._folder(path.rpartition(b"/")[0])
            return above._replace(number=number_of(path), folder=False, size=len(text), text=text)
        row = index.file(tree, parent, virtual.subject(name))
        entry = index.whole(tree, row.number) if row else None
        text = virtual.shortcut(entry) if isinstance(entry, Entry) else b""
        if not text or row is None:
            return None
        return Inode(number_of(path), False, len(text), row.mtime_ns, row.ctime_ms, text=text)

    def _shown(self, tree: Tree, folder: bytes, page: list[Line], folders: set[bytes]) -> list[Line]:
        """Gives a name that can stand in the folder to each file whose own cannot."""
        names = [line[0] for line in page]
        joined = b"".join(names)  # one look at all of them
        odd = b"/" in joined or b"\0" in joined or max(map(len, names)) > NAME_MAX or not _NO_NAMES.isdisjoint(names)
        if not odd and folders.isdisjoint(names):
            return page
        return [(self._name(tree, folder, bytes(line[0]), folders), *line[1:]) for line in page]

    def _name(self, tree: Tree, folder: bytes, name: bytes, folders: set[bytes]) -> bytes:
        if name in folders:
            name += _HIDDEN
            while name in folders or self._ask(lambda index, name=name: index.file(tree, folder, name), None):  # type: ignore[misc]
                name += _HIDDEN
        return holdable(name)

    def _ask(self, query: Callable[[Index], T], empty: T) -> T:
        index = self._open()
        if index is None:
            return empty
        try:
            answer = query(index)
        except JournalTrouble as trouble:
            if not self._answered and _no_table(trouble.__cause__):
                return empty  # its creator has not come that far
            raise
        self._answered = True
        return answer

    def _open(self) -> Index | None:
        """Returns the index of the journal that is at the url now; a restored one is another file."""
        found: tuple[int, int] | None = None
        if self._url.get_backend_name() == "sqlite":
            try:
                status = os.stat(self._url.database or "")
            except FileNotFoundError:
                if self._journal or os.path.exists(os.path.join(os.path.dirname(self._url.database or ""), "host")):
                    raise JournalTrouble("the journal is gone") from None  # no files is not what there is
                return None
            found = status.st_dev, status.st_ino
        with self._lock:
            if self._index is None or found != self._file:
                if self._index is not None:
                    self._index.close()
                self._index, self._file, self._answered = Index(self._url), found, False
                self._journal += 1
            return self._index


def _tree(path: bytes) -> tuple[Tree | None, bytes]:
    """Returns the tree that a path lies in, and the path below it."""
    name, _, inner = path.partition(b"/")
    return TREES.get(name.decode("utf-8", "replace")), inner


def _after(index: Index, tree: Tree, folder: bytes) -> tuple[bytes | None, bool]:
    found = index.next_folder(tree, folder)
    if found is None:
        return None, False
    return tree.name.encode() + b"/" + found, not index.has_folders(tree, found)


def _hidden(index: Index, tree: Tree, parent: bytes, shown: bytes) -> FileRow | None:
    """Finds the file that a folder of the same name has pushed aside, to where the first free name was."""
    name = shown
    while name.endswith(_HIDDEN):
        name = name[: -len(_HIDDEN)]
        folder = index.has_below(tree, parent + b"/" + name if parent else name)
        row = index.file(tree, parent, name)
        if folder and row:
            return row
        if not folder and not row:
            return None
    return None


def _no_table(error: BaseException | None) -> bool:
    """True for the answer of a database in which the schema has not been made."""
    if getattr(error, "sqlstate", None) == _UNDEFINED_TABLE:
        return True
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR and str(error).startswith("no such table")


def _plain(name: bytes) -> bool:
    return len(name) <= NAME_MAX and b"/" not in name and b"\0" not in name and name not in _NO_NAMES


def shown_as(name: bytes) -> set[bytes]:
    """Returns the names that a file is shown by: as nothing else has its own, or as a folder has it."""
    return {holdable(name), holdable(name + _HIDDEN)}


def holdable(name: bytes) -> bytes:
    """Returns `name`, or for one that no folder can hold a name of its own that says what it was like.

    A listing with one impossible name in it fails as a whole, so none may pass. Looking up such a name goes through
    the listing; nothing has to be decoded.
    """
    if _plain(name):
        return name
    readable = name.replace(b"/", b"_").replace(b"\0", b"_")[: NAME_MAX - 20].decode("utf-8", "ignore")
    return b"%s%s-%s" % (_MARK, hashlib.blake2s(name, digest_size=8).hexdigest().encode(), readable.encode())
