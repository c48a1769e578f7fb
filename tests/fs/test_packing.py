"""Packed folders: every entry at its place whichever page it is in, and how much of them is kept."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from dumbwaiter_fs import packing as module
from dumbwaiter_fs import wire
from dumbwaiter_fs.index import Line
from dumbwaiter_fs.inodes import number_of
from dumbwaiter_fs.packing import Freshness, Listing, Packing, Page


class Trees:
    """Folders with folders and files in them; `asked` says whose files were asked for."""

    def __init__(self, tree: dict[bytes, tuple[list[bytes], list[bytes]]]) -> None:
        self.tree = tree
        self.asked: list[bytes] = []
        self.commit = 0

    def state(self) -> int:
        return self.commit

    def folders(self, path: bytes) -> list[bytes]:
        return self.tree[path][0]

    def files(self, path: bytes, _folders: set[bytes], _at_a_time: int) -> Iterator[list[Line]]:
        self.asked.append(path)
        files = self.tree[path][1]
        for begin in range(0, len(files), 3):
            yield [(name, 4 * begin + 1, 5, 0, 0) for name in files[begin : begin + 3]]

    def latest(self, _path: bytes) -> float:
        return 1.0

    def times(self, _path: bytes, _latest: float) -> tuple[int, int]:
        return 1, 1

    def next_folder(self, path: bytes) -> tuple[bytes | None, bool]:
        behind = [one for one in sorted(self.tree) if one > path]
        return (behind[0], not self.tree[behind[0]][0]) if behind else (None, False)


def packed(trees: Trees) -> Packing:
    return Packing(wire.Packer(0, 0), trees, Freshness())  # type: ignore[arg-type]


def names(count: int, kind: str) -> list[bytes]:
    return [f"{kind}{number}".encode() for number in range(count)]


def entry(page: Page | None, offset: int) -> tuple[bytes, int]:
    """Returns name and next offset of an entry."""
    assert page is not None
    assert page.first <= offset < page.end
    (one,) = page.some(offset - page.first, offset - page.first + 1)
    return wire.name_of(one), wire.PAIR.unpack_from(one, wire.HEAD)[1]


@pytest.mark.parametrize("folders", [0, 1, 256, 600])
@pytest.mark.parametrize("files", [0, 1, 10])
def test_every_entry_is_at_its_place_from_wherever_it_is_asked_for(folders: int, files: int) -> None:
    trees = Trees({b"files/w": (names(folders, "folder"), names(files, "file"))})
    all_ = [b".", b"..", *trees.tree[b"files/w"][0], *trees.tree[b"files/w"][1]]
    pages = packed(trees)
    for _ in range(2):  # packed anew, and as they were kept
        listing = Listing(lambda: pages.pages(b"files/w"))
        forwards = list(range(len(all_)))
        anywhere = random.Random(1).sample(forwards, len(all_))
        for offset in [*forwards, *reversed(forwards), *forwards, *anywhere]:
            assert entry(listing.at(offset), offset) == (all_[offset], offset + 1)
        assert listing.at(0) is not None
        assert listing.at(len(all_)) is None
    told = {
        wire.name_of(one): number
        for page in pages.pages(b"files/w")
        for one, number in zip(page.some(0, len(page.ends)), page.folders or [0] * len(page.ends), strict=True)
        if number
    }
    assert told == {name: number_of(b"files/w/" + name) for name in trees.tree[b"files/w"][0]}


def test_a_folder_is_packed_anew_only_after_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    trees = Trees({b"files/w": ([], [b"a"])})
    pages = packed(trees)
    for _ in range(2):
        list(pages.pages(b"files/w"))
    assert trees.asked == [b"files/w"]
    trees.commit += 1
    pages._freshness.changes += 1
    (page,) = pages.pages(b"files/w")
    assert (trees.asked, page.change) == ([b"files/w"] * 2, 1)


def test_what_is_kept_has_an_end_and_the_longest_unused_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [f"files/w/{number}".encode() for number in range(10)]
    trees = Trees({path: ([], [b"a"]) for path in folders})
    trees.tree[b"files/w/large"] = [], names(100, "file")
    pages = packed(trees)
    list(pages.pages(folders[0]))
    size = pages._kept_size
    assert size > 0
    monkeypatch.setattr(module, "KEPT", 9 * size)
    for path in (*folders[:9], b"files/w/large", folders[0], folders[9]):
        list(pages.pages(path))
    assert list(pages._kept) == [*folders[2:9], folders[0], folders[9]], "one is not to drive out all others"
    assert pages._kept_size == 9 * size


def walked(trees: Trees) -> list[bytes]:
    """Returns whose files were asked for after those that a walker lists, the first two."""
    pages = packed(trees)
    first, second, *_ = sorted(trees.tree)
    for path in (first, second):
        list(pages.pages(path))
        pages.walk_on(path)
    return trees.asked[2:]


def test_a_walk_has_the_next_folder_packed_if_that_is_a_few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AHEAD", 4)
    few: tuple[list[bytes], list[bytes]] = [], [b"a"]
    assert walked(Trees({b"files/a": few, b"files/b": few, b"files/c": few})) == [b"files/c"]
    assert walked(Trees({b"files/a": few, b"files/b": few, b"files/c": ([b"below"], [b"a"])})) == []
    assert walked(Trees({b"files/a": few, b"files/b": few})) == []
    trees = Trees({f"files/{name}".encode(): few for name in "abcd"})
    pages = packed(trees)
    for path in (b"files/a", b"files/c"):  # who leaps is no walker
        pages.walk_on(path)
    assert trees.asked == []
    list(pages.pages(b"files/d"))
    for path in (b"files/b", b"files/c"):
        pages.walk_on(path)
    assert trees.asked == [b"files/d"], "it was there already"
    for count, kept in ((1, True), (2, False), (6, False)):  # and the two dots
        pages = packed(Trees({b"files/a": few, b"files/b": few, b"files/c": ([], names(count, "file"))}))
        for path in (b"files/a", b"files/b"):
            pages.walk_on(path)
        assert (b"files/c" in pages._kept) is kept


def test_in_the_outbox_the_kernel_keeps_names_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for root, valid in ((b"outbox/w", 0), (b"files/w", module.SHORT)):
        pages: Any = packed(Trees({root: ([b"folder"], [b"file"])}))
        ((folder, file),) = [page.some(2, 4) for page in pages.pages(root)]
        assert (file == wire.without_attributes(file)) is (valid == 0)
        assert wire.LONG.unpack_from(folder, 16) == (valid,)
