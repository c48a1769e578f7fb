"""Folders packed for the kernel, names together with attributes, and kept while the catalog is the same.

A page at a time is packed, when it is asked for, but for what a walk comes to next: that is packed while the walker
looks at what he got. What is kept in all is bounded; besides, an open folder holds the names that were read of it.
"""

import zlib
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import accumulate, islice
from operator import itemgetter
from typing import NamedTuple

from dumbwaiter_fs import wire
from dumbwaiter_fs.inodes import number_of
from dumbwaiter_fs.trees import PAGE, Trees

KEPT = 16 << 20  # bytes of packed folders in all
AHEAD = 256  # files of a folder that is packed before it is asked for: they take less than a millisecond
SHORT = 1  # seconds for which the kernel may keep names and attributes while nothing tells of changes
LONG = 60  # and while something does
_FOLDERS = 256  # in one page: each costs a question to the catalog


class Freshness:
    """How far the kernel may trust an answer; `Invalidation` says so, also while a folder is being packed."""

    __slots__ = ("changes", "valid")

    def __init__(self) -> None:
        self.valid = SHORT  # seconds for which the kernel may keep names and attributes
        self.changes = 0  # how often something has changed


class Page(NamedTuple):
    """Part of a listing, packed. `ends[i]`: bytes of the first i + 1 entries."""

    first: int  # offset of its first entry
    packed: bytes
    ends: "array[int]"
    folders: list[int]  # numbers that the kernel comes to know by it, in the place of each entry; empty for files
    change: int  # the count of changes before the catalog was asked; -1: long ago

    @property
    def end(self) -> int:
        return self.first + len(self.ends)

    @property
    def size(self) -> int:
        return len(self.packed) + 4 * len(self.ends)

    def start(self, index: int) -> int:
        return self.ends[index - 1] if index else 0

    def some(self, start: int, stop: int) -> list[bytes]:
        return [self.packed[self.start(index) : self.ends[index]] for index in range(start, stop)]


def _page(before: Page | None, first: int, entries: list[bytes], folders: list[int], change: int) -> Page:
    """Packs a page, behind another one where that is to go out with it."""
    if before is None:
        return Page(first, b"".join(entries), array("I", accumulate(map(len, entries))), folders, change)
    folders = [*before.folders, *[0] * len(entries)] if any(before.folders) else []
    ends = before.ends + array("I", islice(accumulate(map(len, entries), initial=len(before.packed)), 1, None))
    return Page(before.first, before.packed + b"".join(entries), ends, folders, before.change)


class _Kept(NamedTuple):
    """All pages of a folder, and the state that they are of."""

    state: object
    pages: list[Page]
    size: int


class Listing:
    """An open folder: pages are packed as they are asked for. Of one that has been read only names and kinds are kept,
    so that every offset means what it meant until the listing begins anew."""

    def __init__(self, begin: Callable[[], Iterator[Page]]) -> None:
        self._begin = begin
        self._pages = begin()
        self._page: Page | None = None  # the last one that was asked for
        self._back: Page | None = None  # one before it, for who goes back
        self._left: list[tuple[int, bytes]] = []  # those before it: offset of the first entry, and names

    def at(self, offset: int) -> Page | None:
        """Returns the page that holds the entry at `offset`, None behind the last one."""
        if offset == 0:
            self._pages, self._page, self._back, self._left = self._begin(), None, None, []
        page, back = self._page, self._back
        if page is not None and offset < page.first:
            if back is None or not back.first <= offset < back.end:
                first, names = self._left[bisect_right(self._left, offset, key=itemgetter(0)) - 1]
                entries = list(wire.split_entries(zlib.decompress(names)))
                self._back = back = _page(None, first, entries, [], change=-1)
            return back
        while page is None or offset >= page.end:
            following = next(self._pages, None)
            if following is None:
                return None
            if page is not None:
                names = b"".join([entry[wire.HEAD :] for entry in page.some(0, len(page.ends))])
                self._left.append((page.first, zlib.compress(names, 1)))
            self._page = page = following
        return page


class Packing:
    """The folders of one mount. One caller at a time."""

    def __init__(self, packer: wire.Packer, trees: Trees, freshness: Freshness) -> None:
        self._packer = packer
        self._trees = trees
        self._freshness = freshness
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._kept_size = 0
        self._expected: bytes | None = None  # what a walk would list after the folder before

    def pages(self, path: bytes) -> Iterator[Page]:
        """Yields a folder's pages: as kept while the catalog is the same, else asked for and packed anew."""
        state = self._state()
        kept = self._kept.get(path)
        if kept is not None and kept.state == state:
            self._kept.move_to_end(path)
            yield from (page._replace(change=self._freshness.changes) for page in kept.pages)
            return
        pages, size, whole = [], 0, True
        for page in self._packed(path):
            size += page.size
            whole = whole and size < KEPT // 8
            if whole:
                pages.append(page)
            else:
                pages.clear()
            yield page
        if whole:
            self._keep(path, _Kept(state, pages, size))

    def walk_on(self, path: bytes) -> None:
        """Packs what a walker will list after `path`, if that is a few files, while he looks at what he got."""
        with suppress(Exception):  # whatever it is, the walker meets it too
            walks, state = path == self._expected, self._state()
            self._expected, leaf = self._trees.next_folder(path)
            if not walks or not leaf or (following := self._expected) is None:
                return
            if (kept := self._kept.get(following)) is not None and kept.state == state:
                return
            pages = list(islice(self._packed(following, AHEAD, leaf=True), 2))
            if len(pages) == 1 and len(pages[0].ends) < AHEAD:
                self._keep(following, _Kept(state, pages, pages[0].size))

    def _state(self) -> object:
        """Returns what is equal as long as a listing would be."""
        return self._trees.state(), self._freshness.valid, self._freshness.changes

    def _keep(self, path: bytes, kept: _Kept) -> None:
        before = self._kept.pop(path, None)
        self._kept_size += kept.size - (before.size if before else 0)
        self._kept[path] = kept
        while self._kept_size > KEPT:
            _, oldest = self._kept.popitem(last=False)
            self._kept_size -= oldest.size

    def _packed(self, path: bytes, at_a_time: int = PAGE, *, leaf: bool = False) -> Iterator[Page]:
        change, valid, trees = self._freshness.changes, self._freshness.valid, self._trees
        names = [] if leaf else trees.folders(path)
        before: Page | None = None  # the last one goes out together with the first files
        for page in self._packed_folders(path, names, change, valid):
            if before is not None:
                yield before
            before = page
        offset = len(names) + 2
        outbox = path.startswith(b"outbox")
        for lines in trees.files(path, set(names), at_a_time):
            entries = self._packer.listed(lines, offset, valid)
            if outbox:  # sizes are those of local files, which a listing does not look at
                entries = [wire.without_attributes(entry) for entry in entries]
            yield _page(before, offset, entries, [], change)
            offset += len(lines)
            before, change = None, self._freshness.changes
        if before is not None:
            yield before

    def _packed_folders(self, path: bytes, names: list[bytes], change: int, valid: int) -> Iterator[Page]:
        """Yields the pages with a folder's folders; the first begins with the folder itself and the one above."""
        where = (b".", path), (b"..", path.rpartition(b"/")[0])
        dots = self._packer.listed([(name, number_of(at), 0, 0, 0) for name, at in where], 0, 0, folder=True)
        entries, numbers = [wire.without_attributes(entry) for entry in dots], [0, 0]
        offset = 0
        if path.startswith(b"outbox"):  # they go with the last file in them, of which nobody tells
            valid = 0
        for begin in range(0, max(len(names), 1), _FOLDERS):
            lines, latest = [], self._trees.latest(path)
            for name in names[begin : begin + _FOLDERS]:
                below = path + b"/" + name if path else name
                lines.append((name, number_of(below), 0, *self._trees.times(below, latest)))
            entries += self._packer.listed(lines, offset + len(entries), valid, folder=True)
            numbers += [line[1] for line in lines]
            yield _page(None, offset, entries, numbers, change)
            offset += len(entries)
            entries, numbers, change = [], [], self._freshness.changes
