"""The trees over both databases, and what the mount hears of a change without asking."""

import os
import resource
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import URL, insert

import journals
from dumbwaiter.errors import JournalTrouble
from dumbwaiter.store.database import journal_url
from dumbwaiter.store.tables import listings
from dumbwaiter_fs import news as module
from dumbwaiter_fs.index import Change, Position
from dumbwaiter_fs.news import News
from dumbwaiter_fs.trees import CatalogState, Trees
from fs.world import until
from journals import Book

postgres = journals.postgres
database = journals.database


class Ears:
    def __init__(self) -> None:
        self.trusted = threading.Event()
        self.heard: list[bytes] = []
        self.changes = 0
        self.looks = 0

    def trust(self, *, told: bool) -> None:
        if told:
            self.trusted.set()
        else:
            self.trusted.clear()

    def changing(self) -> None:
        self.changes += 1

    def invalidate_all(self) -> None:
        assert self.changes, "what is asked of the catalog meanwhile would be kept"
        self.heard.append(b"")

    def invalidate(self, path: bytes) -> None:
        assert self.changes
        self.heard.append(path)

    def invalidate_open(self) -> None:
        self.looks += 1


def test_either_database_is_asked_alike_and_tells_of_a_change(database: URL) -> None:
    ears, trees = Ears(), Trees(database)
    news = News(database, trees, ears)
    with Book(database) as book:
        news.start()
        try:
            assert ears.trusted.wait(10)
            book.done("a/film.mov")
            until(lambda: b"files/w/a/film.mov" in ears.heard)
        finally:
            news.close()
        ((name, number, folder),) = trees.names(b"files/w/a")
        inode = trees.inode(b"files/w/a/film.mov")
        assert (name, folder) == (b"film.mov", False)
        assert inode is not None
        assert (inode.number, inode.size) == (number, 10)
        assert trees.by_number(number) == inode
        assert [name for name, _, _ in trees.names(b"files/w")] == [b"a"]
        assert trees.totals() == (1, 10)
        assert trees.times(b"files/w/a", 0.0) > (0, 0)
    trees.close()


class Late(Trees):
    """Trees of a disk that takes its time: until `reached`, the last commit cannot be seen."""

    def __init__(self, url: URL) -> None:
        super().__init__(url)
        self.reached = threading.Event()
        self._seen: CatalogState | None = None

    def state(self) -> CatalogState:
        if self._seen is None or self.reached.is_set():
            self._seen = super().state()
        return self._seen


def test_a_commit_that_takes_seconds_to_reach_the_disk_is_heard_then(tmp_path: Path) -> None:
    journals.in_file(tmp_path)
    url = journal_url(str(tmp_path))
    ears, trees = Ears(), Late(url)
    news = News(url, trees, ears)
    with Book(url) as book:
        news.start()
        try:
            assert ears.trusted.wait(10)
            book.done("a/film.mov")
            time.sleep(1.5)
            assert not ears.heard
            trees.reached.set()
            until(lambda: b"files/w/a/film.mov" in ears.heard)
        finally:
            news.close()
            trees.close()


def test_a_change_is_told_once_whatever_comes_after_it(tmp_path: Path) -> None:
    journals.in_file(tmp_path)
    url = journal_url(str(tmp_path))
    ears, trees = Ears(), Trees(url)
    news = News(url, trees, ears)
    names = [f"files/w/{name}".encode() for name in ("a", "b", "c")]
    with Book(url) as book:
        news.start()
        try:
            assert ears.trusted.wait(10)
            for number, name in enumerate(("a", "b", "c"), 1):
                book.done(name)
                until(lambda number=number: (ears.looks, news._position) == (number, trees.newest()))
        finally:
            news.close()
            trees.close()
    assert [path for path in ears.heard if path.startswith(b"files")] == names


def test_what_a_walk_through_a_providers_list_finds_is_told_once_as_a_whole(tmp_path: Path) -> None:
    journals.in_file(tmp_path)
    url = journal_url(str(tmp_path))
    ears, trees = Ears(), Trees(url)
    news = News(url, trees, ears)
    walk = insert(listings).values(provider="p", started_at=1.0, whole=True)
    with Book(url) as book:
        news.start()
        try:
            assert ears.trusted.wait(10)
            book.run(lambda connection: connection.execute(walk) and None)
            until(lambda: ears.heard == [b""])
            book.done("a")
            until(lambda: b"files/w/a" in ears.heard)
        finally:
            news.close()
            trees.close()
    assert ears.heard.count(b"") == 1


def test_many_changes_are_told_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MANY", 1)
    journals.in_file(tmp_path)
    url = journal_url(str(tmp_path))
    ears, trees = Ears(), Trees(url)
    news = News(url, trees, ears)
    with Book(url) as book:
        news.start()
        try:
            assert ears.trusted.wait(10)
            book.done("a")
            until(lambda: ears.heard == [b""])
        finally:
            news.close()
            trees.close()


class Fails(Trees):
    """Trees of a database that has trouble, for a moment, when it is asked what came."""

    def __init__(self, url: URL) -> None:
        super().__init__(url)
        self.failed = threading.Event()

    def since(self, position: Position) -> list[Change]:
        if not self.failed.is_set():
            self.failed.set()
            raise JournalTrouble("the journal cannot be read: database is locked")
        return super().since(position)


def test_a_change_is_told_although_the_database_cannot_say_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY", 0.05)
    journals.in_file(tmp_path)
    url = journal_url(str(tmp_path))
    ears, trees = Ears(), Fails(url)
    news = News(url, trees, ears)
    with Book(url) as book:
        news.start()
        try:
            assert ears.trusted.wait(10)
            for number in (1, 2):
                trees.failed.clear()
                book.done(f"a/{number}")
                until(lambda number=number: ears.heard.count(b"") == number and ears.trusted.is_set())
        finally:
            news.close()
            trees.close()


def test_a_minute_after_the_last_change_the_mount_rests() -> None:
    assert 60_000 <= sum(module.AGAIN) < 61_000


# What the kernel is told of a connection.
LIMITS = ("KEEPIDLE", "KEEPINTVL", "KEEPCNT", "USER_TIMEOUT")


def connected(server: socket.socket) -> Iterator[socket.socket]:
    """Yields the ends in this process of connections to a server of its own."""
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(number))) as end:
            if end.getpeername() == server.getsockname():
                yield end


def test_a_server_behind_a_network_that_drops_packets_is_given_up_in_half_a_minute(tmp_path: Path) -> None:
    trees = Trees(journal_url(str(tmp_path)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        news = News(URL.create("postgresql+psycopg", "u", "p", *server.getsockname(), "d"), trees, Ears())
        news.start()
        try:
            peer, _ = server.accept()
            with peer:
                assert peer.recv(8)  # the driver has made its settings before it says a word
                (settings,) = [
                    [end.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}")) for name in LIMITS]
                    for end in connected(server)
                ]
        finally:
            news.close()
            trees.close()
    assert settings == [15, 5, 3, 30_000]


@contextmanager
def heard(state: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ears]:
    monkeypatch.setattr(module, "RETRY", 0.05)
    url = journal_url(str(state))
    ears, trees = Ears(), Trees(url)
    news = News(url, trees, ears)
    news.start()
    try:
        yield ears
    finally:
        news.close()
        trees.close()


def is_heard(state: Path, name: str, ears: Ears) -> None:
    assert ears.trusted.wait(10)
    with Book(journal_url(str(state))) as book:
        book.done(f"a/{name}")
        until(lambda: f"files/w/a/{name}".encode() in ears.heard)


@pytest.mark.parametrize("kept", [True, False], ids=["moved away", "removed"])
def test_another_state_folder_is_heard_of_and_heard_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    state, backup = tmp_path / "state", tmp_path / "backup"
    journals.in_file(state)
    journals.in_file(backup)
    with heard(state, monkeypatch) as ears:
        is_heard(state, "first", ears)
        if kept:
            os.rename(state, tmp_path / "before")
        else:
            shutil.rmtree(state)
        until(lambda: b"" in ears.heard and not ears.trusted.is_set())
        os.rename(backup, state)
        is_heard(state, "second", ears)


def test_a_state_folder_that_comes_later_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with heard(tmp_path / "state", monkeypatch) as ears:
        until(lambda: b"" in ears.heard)
        assert not ears.trusted.is_set()
        journals.in_file(tmp_path / "state")
        is_heard(tmp_path / "state", "first", ears)


def test_a_mount_with_a_thousand_open_files_hears_as_well(database: URL, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limits[1]), limits[1]))
    taken = [os.open(tmp_path, os.O_RDONLY) for _ in range(1100)]
    ears, trees = Ears(), Trees(database)
    news = News(database, trees, ears)
    news.start()
    try:
        assert ears.trusted.wait(10)
        with Book(database) as book:
            book.done("a/film.mov")
        until(lambda: b"files/w/a/film.mov" in ears.heard)
    finally:
        news.close()
        trees.close()
        for one in taken:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_damaged_journal_is_heard_again_once_it_is_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "state"
    journals.in_file(state)
    with heard(state, monkeypatch) as ears:
        is_heard(state, "first", ears)
        (state / "damaged").write_bytes(b"no database" * 1000)
        os.replace(state / "damaged", state / "journal.db")
        for suffix in ("-wal", "-shm"):  # a log that a reader kept from being folded in may hold all pages
            (state / f"journal.db{suffix}").unlink(missing_ok=True)
        until(lambda: not ears.trusted.is_set())
        journals.in_file(tmp_path / "sound")
        os.replace(tmp_path / "sound/journal.db", state / "journal.db")
        is_heard(state, "second", ears)
