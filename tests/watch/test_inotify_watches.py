"""Which folders the kernel was asked to watch, as they move, go and come back, without any thread that listens."""

import ctypes
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from watchdog.observers.inotify_c import InotifyEvent, InotifyFD, WatchDescriptor

from dumbwaiter.watch.inotify_watches import InotifyWatches, RootFolder
from stranger import needs_root


class Deaf:
    """Is told of events, which nobody reads here."""

    def on_event(self, event: InotifyEvent) -> None: ...
    def on_watch_deleted(self, wd: WatchDescriptor) -> None: ...
    def on_queue_overflow(self) -> None: ...


class Tree:
    """Watches of a root on a real reader of the kernel's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.top, self.other = RootFolder(str(folder)), RootFolder(str(folder / "a"))
        self.stopped = False
        self.watches = InotifyWatches(Deaf(), [self.top, self.other], lambda: self.stopped)
        self._readers: list[InotifyFD] = []

    def renew(self) -> None:
        self._readers.append(InotifyFD())
        self.watches.use(self._readers[-1])

    def listen(self, path: str, at: str | None = None, top: RootFolder | None = None) -> bool:
        """Listens to the folder `path`, which may stand elsewhere by now."""
        descriptor = os.open(self.folder / (path if at is None else at), os.O_RDONLY)
        try:
            return self.watches.listen(top or self.top, path, descriptor)
        finally:
            os.close(descriptor)

    def listen_all(self, *paths: str) -> None:
        self.watches.begin_round(self.top)
        for path in paths:
            self.listen(path)
        self.watches.end_round(self.top)

    def let_go(self, path: str) -> None:
        """The kernel removes the watch of a folder, and says so."""
        folder, reader = self.watches.find(self.top, path) if path else self.top, self.watches.reader
        assert reader is not None
        assert folder is not None
        assert folder.number is not None
        number = folder.number
        reader.remove_callbacks([(number, folder.serial)])
        assert self.watches.removed(number) is folder
        assert self.watches.removed(number) is None

    def heard(self) -> set[str]:
        """Returns the paths whose number the kernel knows, as a count, the tree and the kernel say."""
        found: set[str] = set()
        ahead = [self.top]
        while ahead:
            folder = ahead.pop()
            ahead.extend((folder.children or {}).values())  # type: ignore[arg-type]
            if folder.number is not None:
                assert self.watches.at(folder.number) is folder
                found.add(folder.path)
        assert self.top.heard == len(found)
        assert len(self.watches) == len(found) + self.other.heard
        with open(f"/proc/self/fdinfo/{self._readers[-1]._inotify_fd}", encoding="ascii") as lines:
            assert sum(line.startswith("inotify ") for line in lines) == len(self.watches)
        return found

    def close(self) -> None:
        for reader in self._readers:
            with suppress(OSError):
                reader._is_reading = False  # no thread does
                reader.close()


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "d").mkdir()
    made = Tree(tmp_path)
    made.renew()
    yield made
    made.close()


ALL = ("", "a", "a/b", "a/b/c", "d")


def test_a_folder_is_heard_once(tree: Tree) -> None:
    assert [tree.listen(path) for path in ALL] == [True] * 5
    assert [tree.listen(path) for path in ALL] == [False] * 5
    assert tree.heard() == set(ALL)


def test_a_round_leaves_what_it_finds_and_counts_what_is_new(tree: Tree) -> None:
    tree.listen("a", "a", tree.other)
    tree.listen_all("", "d")
    assert (tree.heard(), tree.top.gained, tree.other.heard) == ({"", "d"}, 2, 1)
    tree.listen_all("", "a/b", "a/b/c", "d")
    assert (tree.heard(), tree.top.gained) == ({"", "a/b", "a/b/c", "d"}, 2)
    tree.listen_all("", "a/b")
    assert (tree.heard(), tree.top.gained, tree.other.heard) == ({"", "a/b"}, 0, 1)
    assert tree.watches.find(tree.top, "a/b") is not None
    assert tree.watches.find(tree.top, "d") is None


def test_what_the_kernel_has_let_go_of_stays_for_the_sake_of_what_is_below(tree: Tree) -> None:
    for path in ALL:
        tree.listen(path)
    tree.let_go("a/b")
    assert tree.heard() == {"", "a", "a/b/c", "d"}
    tree.let_go("a/b/c")
    assert tree.heard() == {"", "a", "d"}
    assert tree.watches.find(tree.top, "a/b") is None
    assert tree.watches.find(tree.top, "a") is not None
    tree.let_go("")
    assert tree.heard() == {"a", "d"}


def test_with_a_folder_goes_all_that_is_below_it(tree: Tree) -> None:
    for path in ("", "a/b", "a/b/c", "d"):
        tree.listen(path)
    folder = tree.watches.find(tree.top, "a/b")
    assert folder is not None
    shutil.rmtree(tree.folder / "a/b")  # and the kernel's word of that is not read yet
    tree.watches.drop(folder)
    assert tree.heard() == {"", "d"}
    assert tree.watches.find(tree.top, "a") is None


@needs_root
def test_a_folder_that_stands_in_two_places_is_heard_in_the_first(tree: Tree) -> None:
    subprocess.run(["mount", "--bind", tree.folder / "a/b", tree.folder / "d"], check=True)
    try:
        for _ in range(2):
            for path in ALL:
                tree.listen(path)
            assert tree.heard() == {"", "a", "a/b", "a/b/c"}
    finally:
        subprocess.run(["umount", tree.folder / "d"], check=True)


def test_a_folder_that_was_moved_is_heard_where_it_is_now(tree: Tree) -> None:
    for path in ALL:
        tree.listen(path)
    (tree.folder / "a/b").rename(tree.folder / "e")
    assert not tree.listen("d", "e")  # nobody has looked at where it is by now
    assert tree.heard() == set(ALL)
    assert tree.listen("e")
    assert tree.heard() == {"", "a", "d", "e"}
    assert not tree.listen("d", "e")  # it has gone on since it was opened there
    assert tree.heard() == {"", "a", "d", "e"}


@pytest.mark.parametrize("told", [False, True])
def test_of_another_folder_in_the_place_of_one_all_is_heard_anew(tree: Tree, told: bool) -> None:
    for path in ALL:
        tree.listen(path)
    if told:
        tree.let_go("a")
    (tree.folder / "a").rename(tree.folder.parent / f"{tree.folder.name} aside")
    (tree.folder / "a").mkdir()
    assert tree.listen("a")
    assert tree.heard() == {"", "a", "d"}
    again = tree.watches.find(tree.top, "a")
    assert again is not None
    assert again.children is None


def test_a_folder_of_a_reader_that_is_gone_takes_none_of_the_next_ones(tree: Tree) -> None:
    for path in ("", "a"):
        tree.listen(path)
    before = tree.watches.find(tree.top, "a")
    assert before is not None
    tree.renew()
    assert tree.heard() == set()
    for path in ("", "d"):
        tree.listen(path)
    tree.watches.drop(before)
    assert tree.heard() == {"", "d"}


def test_nothing_is_heard_any_more_once_all_ends(tree: Tree) -> None:
    tree.stopped = True
    assert not tree.listen("a")
    assert tree.heard() == set()


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOSPC])
def test_a_folder_that_may_not_be_heard_says_so(tree: Tree, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = tree.watches.reader
    assert reader is not None

    def refuse(*_: object) -> int:
        ctypes.set_errno(code)
        return -1

    with monkeypatch.context() as patch:
        patch.setattr("watchdog.observers.inotify_c.inotify_add_watch", refuse)
        with pytest.raises(OSError, match=r"denied|No space|limit") as raised:
            tree.listen("a")
        assert raised.value.errno == code
    assert (tree.top.added_at, dict(reader._watch_for_wd)) == (None, {})
    assert tree.listen("a")
