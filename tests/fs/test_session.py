"""The fast session: its messages without a kernel, and what only it promises on a real mount."""

import ctypes
import errno
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.model import Receipt, Stamp
from dumbwaiter.store.database import journal_url
from dumbwaiter_fs import wire
from dumbwaiter_fs.content import Contents
from dumbwaiter_fs.index import MANY
from dumbwaiter_fs.inodes import NAMED, Inode, number_of
from dumbwaiter_fs.packing import AHEAD
from dumbwaiter_fs.remote import Remote
from dumbwaiter_fs.trees import Trees
from dumbwaiter_fs.wire import Op
from fs.world import LIBFUSE3, OVER_LIBFUSE3, STORED, Mounted, Origin, Shelf, until
from journals import WORKER, Book

pytestmark = pytest.mark.fuse  # importing the binding loads libfuse

Mount = Callable[..., Mounted]
FLAGS = 0xFFFFFFFF


class Kernel:
    """The other end of a session's descriptor."""

    def __init__(self, trees: Trees, folder_of: Callable[[str], str | None] = lambda _: None) -> None:
        from dumbwaiter_fs.invalidation import Invalidation
        from dumbwaiter_fs.operations import Operations
        from dumbwaiter_fs.session import Session

        self._end, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._end.settimeout(10)
        self.mounted = threading.Event()
        operations = Operations(trees, Contents(folder_of, Remote(2.0)), self.mounted.set)
        self.session = Session(self._theirs.fileno(), operations, trees)
        self.told = Invalidation(
            self._theirs.fileno(), self.session.known, self.session.freshness, operations, lambda: None
        )
        self._thread = threading.Thread(target=self.session.run)
        self._thread.start()
        self._unique = 0

    def send(self, op: int, number: int, body: bytes) -> int:
        self._unique += 1
        self._end.send(wire.IN.pack(wire.IN.size + len(body), op, self._unique, number, 0, 0, 0, 0, 0) + body)
        return self._unique

    def ask(self, op: int, number: int = 1, body: bytes = b"") -> tuple[int, bytes]:
        """Returns errno and payload."""
        unique = self.send(op, number, body)
        answered, error, payload = self.answer()
        assert answered == unique
        return error, payload

    def answer(self) -> tuple[int, int, bytes]:
        """Returns which question is answered, errno and payload."""
        reply = self._end.recv(1 << 20)
        length, error, answered = wire.OUT.unpack_from(reply)
        assert length == len(reply)
        return answered, -error, reply[wire.OUT.size :]

    def look_up(self, path: bytes) -> int:
        number = 1
        for name in path.split(b"/"):
            error, payload = self.ask(Op.LOOKUP, number, name + b"\0")
            assert error == 0
            (number,) = wire.LONG.unpack_from(payload)
        return number

    def list(self, path: bytes) -> list[bytes]:
        """Returns the names in a folder, as a walker gets them: from its beginning to its end."""
        folder = self.look_up(path)
        handle = wire.LONG.unpack_from(self.ask(Op.OPENDIR, folder, bytes(8))[1])[0]
        names: list[bytes] = []
        while part := self.ask(Op.READDIRPLUS, folder, wire.READ_IN.pack(handle, len(names), 4096))[1]:
            while part:
                name = wire.name_of(part)
                names.append(name)
                part = part[wire.HEAD + 24 + (len(name) + 7 & ~7) :]
        self.ask(Op.RELEASEDIR, folder, wire.LONG.pack(handle))
        return names[2:]

    def close(self) -> None:
        self._end.close()
        self._thread.join()
        self._theirs.close()


class Walker:
    """An open folder of the C library."""

    def __init__(self, path: str) -> None:
        self._c = ctypes.CDLL(None)
        self._c.opendir.restype = self._c.readdir.restype = ctypes.c_void_p
        self._c.telldir.restype = ctypes.c_long
        self._folder = ctypes.c_void_p(self._c.opendir(os.fsencode(path)))
        assert self._folder

    def read(self) -> bytes | None:
        """Returns the next name that is none of the dots, None behind the last."""
        while entry := self._c.readdir(self._folder):
            name = ctypes.string_at(entry + 19)
            if name not in {b".", b".."}:
                return name
        return None

    def tell(self) -> int:
        return int(self._c.telldir(self._folder))

    def seek(self, place: int) -> None:
        self._c.seekdir(self._folder, ctypes.c_long(place))

    def rewind(self) -> None:
        self._c.rewinddir(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._c.closedir(self._folder)


@pytest.fixture
def kernel(shelf: Shelf) -> Iterator[Kernel]:
    trees = Trees(journal_url(shelf.state))
    kernel = Kernel(trees)
    yield kernel
    kernel.close()
    trees.close()


def test_the_greeting_is_answered_with_what_both_know(kernel: Kernel) -> None:
    error, payload = kernel.ask(Op.INIT, 0, wire.INIT_IN.pack(7, 99, 1 << 30, FLAGS) + bytes(48))
    assert error == 0
    assert len(payload) == 64
    assert wire.INIT_IN.unpack_from(payload) == (7, wire.MINOR, wire.READ_MAX, wire.WISHES)
    assert kernel.mounted.is_set()


def test_a_kernel_that_is_too_old_is_refused(kernel: Kernel) -> None:
    assert kernel.ask(Op.INIT, 0, wire.INIT_IN.pack(7, 9, 0, 0))[0] == errno.EIO
    assert not kernel.mounted.is_set()


@pytest.mark.parametrize("op", sorted(wire.WRITES))
def test_every_write_is_refused_as_read_only(kernel: Kernel, op: int) -> None:
    assert kernel.ask(op, 1, bytes(100)) == (errno.EROFS, b"")


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR])
def test_who_opens_a_file_to_write_is_told_so_at_once(shelf: Shelf, kernel: Kernel, flags: int) -> None:
    """Also where somebody has told the kernel that the mount is not read-only."""
    shelf.entry("a", 1, url="https://h/a")
    assert kernel.ask(Op.OPEN, kernel.look_up(b"files/w/a"), wire.OPEN_IN.pack(flags, 0)) == (errno.EROFS, b"")


def test_what_nobody_knows_is_enosys(kernel: Kernel) -> None:
    assert kernel.ask(99) == (errno.ENOSYS, b"")
    assert kernel.ask(Op.READLINK) == (errno.EINVAL, b"")


@pytest.mark.parametrize("op", [Op.LOOKUP, Op.OPEN, Op.READ, Op.GETXATTR, Op.READDIRPLUS, Op.RELEASE, Op.INIT])
def test_a_message_that_ends_early_is_an_error_and_not_the_end(kernel: Kernel, op: int) -> None:
    assert kernel.ask(op, 1, b"")[0] in {errno.EIO, errno.EISDIR}
    assert kernel.ask(Op.GETATTR)[0] == 0


def test_a_number_that_was_never_given_is_stale(kernel: Kernel) -> None:
    for number in (NAMED | 5, 12 << 2 | 2, 4):
        assert kernel.ask(Op.GETATTR, number)[0] == errno.ESTALE
    assert kernel.ask(Op.OPENDIR, NAMED | 5, bytes(8))[0] == errno.ESTALE


def test_an_attribute_needs_room_for_all_of_it(
    shelf: Shelf, kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    shelf.entry("a", 1)
    number = kernel.look_up(b"files/w/a")
    assert kernel.ask(Op.OPENDIR, number, bytes(8))[0] == errno.ENOTDIR
    for op, body in ((Op.LISTXATTR, b""), (Op.GETXATTR, b"user.dumbwaiter.key\0")):
        length, _ = wire.SIZE_IN.unpack(kernel.ask(op, number, wire.SIZE_IN.pack(0, 0) + body)[1])
        error, value = kernel.ask(op, number, wire.SIZE_IN.pack(length, 0) + body)
        assert (error, len(value)) == (0, length)
        assert kernel.ask(op, number, wire.SIZE_IN.pack(length - 1, 0) + body) == (errno.ERANGE, b"")
    assert value == b"k/a"
    assert "failed" not in capsys.readouterr().out, "programs ask again with more room"


def test_a_folder_is_known_until_it_is_forgotten_as_often_as_it_was_told(shelf: Shelf, kernel: Kernel) -> None:
    shelf.entry("d/a", 1)
    number = kernel.look_up(b"files/w/d")
    assert kernel.look_up(b"files/w/d") == number == number_of(b"files/w/d")
    kernel.send(Op.FORGET, number, wire.LONG.pack(1))
    assert kernel.ask(Op.GETATTR, number)[0] == 0
    kernel.send(Op.BATCH_FORGET, 0, wire.SIZE_IN.pack(2, 0) + wire.PAIR.pack(number, 1) + wire.PAIR.pack(1, 99))
    assert kernel.ask(Op.GETATTR, number)[0] == errno.ESTALE
    assert kernel.ask(Op.GETATTR, 1)[0] == 0, "the root is never forgotten"


def test_a_folder_that_was_listed_is_known_and_its_listing_ends_with_the_walk(shelf: Shelf, kernel: Kernel) -> None:
    shelf.entry("d/a", 1)
    assert kernel.list(b"files/w") == [b"d"]
    assert kernel.ask(Op.GETATTR, number_of(b"files/w/d"))[0] == 0
    assert not kernel.session._listings


def test_a_walk_finds_the_next_folder_packed_and_never_an_old_one(shelf: Shelf, kernel: Kernel) -> None:
    for name in ("a", "b", "c", "d", "e", "e/deeper"):
        shelf.entry(f"{name}/file", 1)
    shelf.many([shelf.row(f"f/{number}", 1) for number in range(AHEAD + 1)])
    kept = kernel.session._packing._kept
    assert [kernel.list(b"files/w/a"), kernel.list(b"files/w/b")] == [[b"file"]] * 2
    until(lambda: b"files/w/c" in kept)
    assert b"files/w/d" not in kept, "one is enough"
    before = kept[b"files/w/c"]
    assert kernel.list(b"files/w/c") == [b"file"]
    assert kept[b"files/w/c"] is before, "the catalog is not asked again"
    until(lambda: b"files/w/d" in kept)
    shelf.entry("d/new", 1)
    assert kernel.list(b"files/w/d") == [b"file", b"new"]
    assert kernel.list(b"files/w") == [b"a", b"b", b"c", b"d", b"e", b"f"]
    assert b"files/w/e" not in kept, "folders in it could be many"
    assert [kernel.list(b"files/w/e"), kernel.list(b"files/w/e/deeper")] == [[b"deeper", b"file"], [b"file"]]
    assert kernel.ask(Op.GETATTR)[0] == 0
    assert b"files/w/f" not in kept, "so many files are left until they are wanted"
    assert len(kernel.list(b"files/w/f")) == AHEAD + 1


def test_an_answer_that_may_be_old_already_is_not_to_be_kept(shelf: Shelf, kernel: Kernel) -> None:
    shelf.entry("a", 1)
    kernel.told.trust(told=True)
    folder = kernel.look_up(b"files/w")
    valid = wire.PAIR.size  # entry_valid stands behind number and generation
    assert wire.LONG.unpack_from(kernel.ask(Op.LOOKUP, folder, b"a\0")[1], valid) == (60,)
    kernel.told.trust(told=False)
    assert wire.LONG.unpack_from(kernel.ask(Op.LOOKUP, folder, b"a\0")[1], valid) == (1,)
    handle = wire.LONG.unpack_from(kernel.ask(Op.OPENDIR, folder)[1])[0]
    listed = kernel.ask(Op.READDIRPLUS, folder, wire.READ_IN.pack(handle, 0, 400))[1]
    kernel.told.changing()
    again = kernel.ask(Op.READDIRPLUS, folder, wire.READ_IN.pack(handle, 2, 4000))[1]
    assert wire.name_of(again) == b"a"
    assert wire.LONG.unpack_from(again) == (0,), "the kernel gets the name and has to ask"
    assert len(listed) == 2 * (wire.HEAD + 32)


def valid_for(kernel: Kernel, op: int, number: int, name: bytes = b"") -> int:
    """Returns for how many seconds the kernel may keep what it is told of a number, or of a name there."""
    error, payload = kernel.ask(op, number, name + b"\0" if op == Op.LOOKUP else bytes(16))
    assert error == 0
    (seconds,) = wire.LONG.unpack_from(payload, wire.PAIR.size if op == Op.LOOKUP else 0)
    return int(seconds)


@pytest.mark.parametrize("op", [Op.LOOKUP, Op.GETATTR])
def test_an_answer_that_a_change_came_into_is_not_to_be_kept(
    shelf: Shelf, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, op: int
) -> None:
    """Of that change the kernel is told before it has the answer, which may be old."""
    shelf.entry("d/a", 1)
    kernel.told.trust(told=True)
    above, find = kernel.look_up(b"files/w"), Trees.inode
    number = above if op == Op.LOOKUP else kernel.look_up(b"files/w/d")
    assert valid_for(kernel, op, number, b"d") == 60

    def meanwhile(trees: Trees, path: bytes) -> Inode | None:
        inode = find(trees, path)
        kernel.told.changing()
        return inode

    monkeypatch.setattr(Trees, "inode", meanwhile)
    assert valid_for(kernel, op, number, b"d") == 0


def test_what_changes_unheard_is_not_to_be_kept(shelf: Shelf) -> None:
    """A file that is written, and one that is made up of what is known by now."""
    shelf.entry("a", 1, url="https://h/a")
    shelf.job("b", shelf.write("b", b"1"))
    with hanging(shelf, shelf.drop) as (kernel, there):
        there.set()
        kernel.told.trust(told=True)
        for folder, name, seconds in ((b"files/w", b"a", 60), (b"files/w", b"a.url", 0), (b"outbox/w", b"b", 0)):
            assert valid_for(kernel, Op.LOOKUP, kernel.look_up(folder), name) == seconds
            assert valid_for(kernel, Op.GETATTR, kernel.look_up(folder + b"/" + name)) == seconds


@contextmanager
def hanging(shelf: Shelf, folder: str | None = None) -> Iterator[tuple[Kernel, threading.Event]]:
    """A session whose watched folders answer, with `folder`, once the event is set."""
    there = threading.Event()

    def folder_of(_watch: str) -> str | None:
        there.wait(10)
        return folder

    trees = Trees(journal_url(shelf.state))
    kernel = Kernel(trees, folder_of)
    try:
        yield kernel, there
    finally:
        there.set()
        kernel.close()
        trees.close()


@pytest.mark.parametrize(
    ("op", "body"), [(Op.LISTXATTR, b""), (Op.GETXATTR, b"user.dumbwaiter.error\0")], ids=["list", "get"]
)
def test_a_watched_folder_that_does_not_answer_holds_up_only_who_asks_for_it(
    shelf: Shelf, op: int, body: bytes
) -> None:
    shelf.entry("a", 1)
    with hanging(shelf) as (kernel, there):
        number = kernel.look_up(b"files/w/a")
        asked = kernel.send(op, number, wire.SIZE_IN.pack(4096, 0) + body)
        assert kernel.list(b"keys/p") == [b"k"]
        there.set()
        answered, error, payload = kernel.answer()
        assert (answered, error) == (asked, 0)
        assert b"user.dumbwaiter.error\0" in payload or payload.startswith(b"the original is gone")


@pytest.mark.parametrize("op", [Op.LOOKUP, Op.GETATTR])
def test_a_file_of_the_outbox_whose_folder_does_not_answer_holds_up_only_who_looks_at_it(shelf: Shelf, op: int) -> None:
    shelf.entry("a", 1)
    shelf.job("b", Stamp(7, 10, 1, 1))
    with hanging(shelf) as (kernel, there):
        folder = kernel.look_up(b"outbox/w")
        handle = wire.LONG.unpack_from(kernel.ask(Op.OPENDIR, folder, bytes(8))[1])[0]
        listed = kernel.ask(Op.READDIR, folder, wire.READ_IN.pack(handle, 2, 4096))[1]
        number = wire.LONG.unpack_from(listed)[0]
        asked = kernel.send(Op.LOOKUP, folder, b"b\0") if op == Op.LOOKUP else kernel.send(op, number, bytes(16))
        assert kernel.list(b"keys/p") == [b"k"]
        there.set()
        assert kernel.answer()[0] == asked


def test_more_calls_than_threads_are_answered_one_after_the_other(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dumbwaiter_fs.session.THREADS", 2)
    shelf.entry("a", 1)
    with hanging(shelf) as (kernel, there):
        number = kernel.look_up(b"files/w/a")
        asked = {kernel.send(Op.LISTXATTR, number, wire.SIZE_IN.pack(4096, 0)) for _ in range(6)}
        assert kernel.list(b"keys/p") == [b"k"]
        there.set()
        assert {kernel.answer()[:2] for _ in asked} == {(one, 0) for one in asked}


def test_a_fault_in_what_is_tried_first_ends_nothing(
    shelf: Shelf, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise ZeroDivisionError

    shelf.entry("a", 1, url="https://h/a")
    monkeypatch.setattr(Contents, "read_nowait", fails)
    monkeypatch.setattr(Contents, "read", lambda *_: b"x")
    opened = kernel.ask(Op.OPEN, kernel.look_up(b"files/w/a"), wire.OPEN_IN.pack(os.O_RDONLY, 0))[1]
    body = wire.READ_IN.pack(*wire.LONG.unpack_from(opened), 0, 1)
    assert kernel.ask(Op.READ, 1, body) == (0, b"x")


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EINTR, errno.EAGAIN])
def test_a_call_whose_caller_is_gone_before_it_is_taken_ends_nothing(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    failures = [OSError(number, "")]
    readv = os.readv

    def failing(descriptor: int, into: Any) -> int:
        length = readv(descriptor, into)
        if failures and wire.IN.unpack_from(into[0])[1] == Op.STATFS:
            raise failures.pop()
        return length

    monkeypatch.setattr(os, "readv", failing)
    assert kernel.ask(Op.GETATTR)[0] == 0  # the next one is read by that
    kernel.send(Op.STATFS, 1, b"")
    assert kernel.ask(Op.GETATTR)[0] == 0
    assert not failures


def test_where_the_system_has_no_thread_to_give_calls_are_answered_all_the_same(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert kernel.ask(Op.STATFS)[0] == 0
    assert kernel.ask(Op.GETATTR)[0] == 0


def test_where_the_system_has_no_more_threads_a_call_waits_for_one_and_holds_up_nobody(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    shelf.entry("a", 1)
    with hanging(shelf) as (kernel, there):
        number = kernel.look_up(b"files/w/a")
        asked = {kernel.send(Op.LISTXATTR, number, wire.SIZE_IN.pack(4096, 0))}
        kernel.list(b"keys")  # by the thread that took over
        monkeypatch.setattr(threading.Thread, "start", refuse)
        asked.add(kernel.send(Op.LISTXATTR, number, wire.SIZE_IN.pack(4096, 0)))
        assert kernel.list(b"keys/p") == [b"k"]
        there.set()
        assert {kernel.answer()[:2] for _ in asked} == {(one, 0) for one in asked}


def test_an_open_that_was_given_up_leaves_nothing_open(shelf: Shelf) -> None:
    shelf.entry("a", shelf.write("a", b"x"))
    with hanging(shelf, shelf.drop) as (kernel, there):
        contents, in_progress = kernel.session._operations._contents, kernel.session._in_progress
        number = kernel.look_up(b"files/w/a")
        asked = kernel.send(Op.OPEN, number, wire.OPEN_IN.pack(os.O_RDONLY, 0))
        kernel.send(Op.INTERRUPT, 0, wire.LONG.pack(asked + 99))  # nobody's
        kernel.send(Op.INTERRUPT, 0, wire.LONG.pack(asked))
        assert kernel.answer() == (asked, errno.EINTR, b"")
        there.set()
        until(lambda: not in_progress and not contents.opened())
        assert next(contents._numbers) == 2, "it had been opened"
        assert kernel.ask(Op.GETATTR)[0] == 0


def test_a_look_up_that_was_given_up_leaves_nothing_behind(
    shelf: Shelf, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.entry("a", 1, url="https://h/a")
    folder, there, find = kernel.look_up(b"files/w"), threading.Event(), Trees.inode

    def slowly(trees: Trees, path: bytes) -> Inode | None:
        if path.endswith(b".url"):
            there.wait(10)
        return find(trees, path)

    monkeypatch.setattr(Trees, "inode", slowly)
    known = kernel.session.known._told
    before, in_progress = dict(known), kernel.session._in_progress
    asked = kernel.send(Op.LOOKUP, folder, b"a.url\0")
    kernel.send(Op.INTERRUPT, 0, wire.LONG.pack(asked))
    assert kernel.answer() == (asked, errno.EINTR, b"")
    there.set()
    until(lambda: not in_progress and known == before)
    assert kernel.ask(Op.LOOKUP, folder, b"a.url\0")[0] == 0
    assert number_of(b"files/w/a.url") in known


@given(st.binary(min_size=1, max_size=255), st.integers(1, 2**63 - 1), st.integers(-(2**63), 2**63 - 1), st.booleans())
def test_an_entry_of_a_listing_can_be_taken_apart(name: bytes, number: int, time_ns: int, folder: bool) -> None:
    (entry,) = wire.Packer(1, 2).listed([(name, number, 4, time_ns, time_ns // 1_000_000)], 2, 5, folder=folder)
    assert (wire.name_of(entry), *wire.LONG.unpack_from(entry)) == (name, number)
    assert len(entry) % 8 == 0
    assert wire.without_attributes(entry)[wire.HEAD :] == entry[wire.HEAD :]
    assert list(wire.split_entries(2 * entry[wire.HEAD :])) == [wire.without_attributes(entry)] * 2


# On a real mount


@pytest.mark.parametrize("mount", ["fast"], indirect=True)
def test_another_version_is_seen_at_once_though_the_kernel_keeps_the_first(shelf: Shelf, mount: Mount) -> None:
    shelf.entry("d/a", 10, key="d/a")
    mounted = mount()
    paths = [mounted.at("files/w/d/a"), mounted.at("keys/p/d/a")]
    for size in range(11, 30):
        assert [os.stat(path).st_size for path in paths] == [size - 1] * 2
        if size % 2:
            shelf.replace("d/a", size, STORED + size)
        else:
            shelf.entry("d/a", size, key=f"d/{size}", stored_at=STORED + size)
            paths[1] = mounted.at(f"keys/p/d/{size}")
            assert os.path.exists(paths[1])
        until(lambda size=size: [os.stat(path).st_size for path in paths] == [size] * 2, 5.0)  # type: ignore[misc]


@pytest.mark.parametrize("opened", [False, True], ids=["by nobody", "by somebody"])
def test_what_a_provider_made_of_a_former_version_is_opened_no_more(
    shelf: Shelf, mount: Mount, origin: Origin, opened: bool
) -> None:
    mounted = mount()
    with Book(journal_url(shelf.state)) as book, ExitStack() as stack:
        first = book.stored("d/a.jpg")
        made = Receipt("made", url=origin.put("made", b"made"), facts={"of": "first"}, label="watermark", size=4)
        book.lease(WORKER, first).finish(100.0, receipt=Receipt("first"), results=[made])
        path = mounted.at("files/w/d/a.watermark.jpg")
        until(lambda: os.path.exists(path))
        assert mounted.read(path) == b"made"
        held = stack.enter_context(open(path, "rb")) if opened else None
        book.done("d/a.jpg", 200.0, Receipt("second"), version=2)
        until(lambda: os.getxattr(mounted.at("files/w/d/a.jpg"), "user.dumbwaiter.key") == b"second")
        if held:
            until(lambda: not os.path.exists(path), 5.0)
        if held and mounted.session == "fast":  # libfuse's asks by path
            assert (held.read(), mounted.read(f"/proc/self/fd/{held.fileno()}")) == (b"made", b"made")
        for ask in (open, os.listxattr):
            with pytest.raises(FileNotFoundError):
                ask(path)
        assert os.listdir(mounted.at("files/w/d")) == ["a.jpg"]
        assert mounted.read("keys/vod/made") == b"made"


@pytest.mark.parametrize("mount", ["fast"], indirect=True)
def test_another_version_of_an_open_file_is_seen_at_once_also_among_many_changes(shelf: Shelf, mount: Mount) -> None:
    shelf.many([shelf.row(f"many/{index}", 1) for index in range(MANY)])  # each further change comes with all of these
    shelf.entry("d/a", shelf.write("d/a", b"first"), key="d/a")
    shelf.entry("d/same", shelf.write("d/same", b"same"))
    mounted = mount()
    paths = [mounted.at("files/w/d/a"), mounted.at("keys/p/d/a")]
    with open(paths[0], "rb") as one, open(paths[1], "rb") as other, open(mounted.at("files/w/d/same"), "rb") as same:
        shelf.replace("d/a", 6, STORED + 1)
        until(lambda: [os.stat(path).st_size for path in paths] == [6] * 2, 5.0)
        assert [os.fstat(file.fileno()).st_size for file in (one, other)] == [5] * 2
        assert os.readlink(f"/proc/self/fd/{same.fileno()}") == same.name, "it has its name still"


@pytest.mark.parametrize("mount", ["fast"], indirect=True)
def test_who_works_in_a_tree_still_does_after_many_changes(shelf: Shelf, mount: Mount) -> None:
    """Also where nobody looks it up by name, as in a container that has this folder only."""
    shelf.entry("d/a", 10)
    mounted = mount()
    folder = os.open(mounted.at("files"), os.O_PATH)
    try:
        assert os.stat("w/d/a", dir_fd=folder).st_size == 10
        shelf.many([shelf.row(f"many/{index}", 1) for index in range(MANY)])
        shelf.replace("d/a", 11, STORED + 1)
        until(lambda: os.stat("w/d/a", dir_fd=folder).st_size == 11, 5.0)
        until(lambda: os.readlink(f"/proc/self/fd/{folder}") == mounted.at("files"), 5.0)
    finally:
        os.close(folder)


@pytest.mark.parametrize("mount", ["fast"], indirect=True)
def test_another_state_folder_is_seen_and_then_heard(shelf: Shelf, mount: Mount, tmp_path: Any) -> None:
    os.mkdir(tmp_path / "other")
    other = Shelf(os.path.realpath(tmp_path / "other"))
    other.entry("d/a", 20)
    other.close()
    shelf.entry("d/a", 10)
    path = mount().at("files/w/d/a")
    until(lambda: os.stat(path).st_size == 10)
    shelf.close()
    os.rename(shelf.state, f"{shelf.root}/before")
    os.rename(other.state, shelf.state)
    until(lambda: os.path.exists(path) and os.stat(path).st_size == 20)
    shelf.open()
    for size in range(21, 30):
        shelf.replace("d/a", size, STORED + size)
        until(lambda size=size: os.stat(path).st_size == size)  # type: ignore[misc]


@pytest.mark.parametrize("mount", ["fast"], indirect=True)
def test_a_folder_in_the_place_of_a_file_is_seen_at_once(shelf: Shelf, mount: Mount) -> None:
    shelf.entry("a", 10)
    mounted = mount()
    assert os.path.isfile(mounted.at("files/w/a"))
    shelf.entry("a/b", 10)
    until(lambda: os.path.isdir(mounted.at("files/w/a")))
    assert sorted(os.listdir(mounted.at("files/w"))) == ["a", "a%"]


@pytest.mark.parametrize("mount", ["fast"], indirect=True)
@pytest.mark.parametrize("name", ["a", "n" * 300], ids=["a folder's", "too long"])
def test_another_version_is_seen_at_once_also_under_a_name_that_stands_for_another(
    shelf: Shelf, mount: Mount, name: str
) -> None:
    shelf.entry("a/b", 5)
    shelf.entry(name, 10, key="k")
    mounted = mount()
    (path,) = [mounted.at("files/w", shown) for shown in os.listdir(mounted.at("files/w")) if shown != "a"]
    for size in range(11, 14):
        assert os.stat(path).st_size == size - 1
        shelf.replace(name, size, STORED + size)
        until(lambda size=size: os.stat(path).st_size == size, 5.0)  # type: ignore[misc]


@pytest.mark.parametrize("mount", ["fast"], indirect=True)
@pytest.mark.parametrize("listed", [True, False], ids=["listed", "looked up"])
def test_a_folder_of_the_outbox_is_gone_with_its_last_file(shelf: Shelf, mount: Mount, listed: bool) -> None:
    shelf.job("d/e/a", shelf.write("d/e/a", b"x"))
    mounted = mount()
    above, folder = mounted.at("outbox/w/d"), mounted.at("outbox/w/d/e")
    if listed:
        assert [one.stat().st_ino for one in os.scandir(above)] == [number_of(b"outbox/w/d/e")]
    assert os.path.isdir(folder)
    shelf.settle("d/e/a")
    assert not os.path.exists(folder)
    assert not os.path.exists(above)
    assert os.listdir(mounted.at("outbox")) == []


@pytest.mark.parametrize("mount", ["fast"], indirect=True)
def test_a_killed_reader_ends_at_once(shelf: Shelf, mount: Mount, origin: Origin) -> None:
    shelf.entry("a", 100, url=origin.put("a", b"x" * 100, hang=True))
    mounted = mount(deadline=60.0)
    reader = subprocess.Popen(["cat", mounted.at("files/w/a")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: origin.requests)
    reader.kill()
    assert reader.wait(10) != 0
    assert os.listdir(mounted.at("files/w")) == ["a"]


def test_links_and_shortcuts_are_read_and_not_listed(shelf: Shelf, mount: Mount) -> None:
    shelf.entry("d/a.txt", 1, url="https://h/a (1)")
    shelf.entry("d/b.url", shelf.write("d/b.url", b"my own"), url="https://h/b")
    shelf.entry("d/c", 1)
    for name, end in (("e", "\n"), ("f", "\r")):
        shelf.entry(f"d/{name}", 1, url=f"https://h/{name}{end}https://elsewhere/")
    mounted = mount()
    assert sorted(os.listdir(mounted.at("files/w/d"))) == ["a.txt", "b.url", "c", "e", "f"]
    for name, text in {
        ".links.txt": b"https://h/a (1)\nhttps://h/b\n",
        ".links.md": b"- [a.txt](https://h/a%20%281%29)\n- [b.url](https://h/b)\n",
        "a.txt.url": b"[InternetShortcut]\r\nURL=https://h/a (1)\r\n",
        "b.url": b"my own",
    }.items():
        assert mounted.read("files/w/d", name) == text
        assert os.stat(mounted.at("files/w/d", name)).st_size == len(text)
        assert os.listxattr(mounted.at("files/w/d", name)) == [] or name == "b.url"
    assert mounted.read("files/w/.links.txt") == b""
    for absent in ("c.url", "e.url", "f.url", ".url", "a.txt.url.url", "none/.links.md"):
        assert not os.path.exists(mounted.at("files/w/d", absent))
    assert not os.path.exists(mounted.at("keys/p/.links.md"))


def test_names_that_differ_in_case_or_form_are_all_there(shelf: Shelf, mount: Mount) -> None:
    names = ["name", "NAME", "Name", "\u00e9", "e\u0301"]
    for size, name in enumerate(names, 1):
        shelf.entry(name, size)
    mounted = mount()
    assert {name: os.stat(mounted.at("files/w", name)).st_size for name in os.listdir(mounted.at("files/w"))} == {
        name: size for size, name in enumerate(names, 1)
    }


def test_a_file_of_any_time_stands_beside_the_others(shelf: Shelf, mount: Mount) -> None:
    times = {"old": -1, "scan": -147_000_000_123_456_789, "new": 1_600_000_000_000_000_000, "late": 2**63 - 1}
    for name, time_ns in times.items():
        shelf.entry(f"d/{name}", 1, mtime_ns=time_ns)
        shelf.write(f"d/{name}", b"x")
        os.utime(shelf.local(f"d/{name}"), ns=(time_ns, time_ns))
        shelf.job(f"d/{name}", Stamp.of(os.stat(shelf.local(f"d/{name}"))))
    mounted = mount()
    for folder in ("files/w/d", "keys/p/k/d"):
        with os.scandir(mounted.at(folder)) as found:
            assert {file.name: file.stat().st_mtime_ns for file in found} == times
    with os.scandir(mounted.at("outbox/w/d")) as found:
        assert {file.name: file.stat().st_mtime_ns for file in found} == {
            name: os.stat(shelf.local(f"d/{name}")).st_mtime_ns for name in times
        }


def test_a_folder_can_be_read_from_any_place_again(shelf: Shelf, mount: Mount, tmp_path: Any) -> None:
    shelf.many([shelf.row(f"d/{index:05}", index) for index in range(9000)])
    mounted = mount()
    program = (
        "import ctypes, os, sys\n"
        "c = ctypes.CDLL(None); c.fdopendir.restype = c.readdir.restype = ctypes.c_void_p\n"
        "for f in (c.readdir, c.telldir, c.rewinddir): f.argtypes = [ctypes.c_void_p]\n"
        "c.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]; c.telldir.restype = ctypes.c_long\n"
        "d = c.fdopendir(os.open(sys.argv[1], os.O_RDONLY))\n"
        "def read():\n    e = c.readdir(d)\n    return ctypes.string_at(e + 19) if e else None\n"
        "first = [read() for _ in range(3000)]; place = c.telldir(d)\n"
        "rest = []\n"
        "while name := read(): rest.append(name)\n"
        "c.seekdir(d, place); again = []\n"
        "while name := read(): again.append(name)\n"
        "assert again == rest and len(set(first + rest)) == 9002, (len(again), len(rest))\n"
        "c.rewinddir(d); assert [read() for _ in range(3000)] == first\n"
    )
    done = subprocess.run(["python3", "-c", program, mounted.at("files/w/d")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_place_in_an_open_folder_stays_the_same_place_while_the_folder_changes(shelf: Shelf, mount: Mount) -> None:
    shelf.many([shelf.row(f"d/{index:05}", index) for index in range(0, 30000, 2)])
    mounted = mount()
    with Walker(mounted.at("files/w/d")) as walker:
        first = [walker.read() for _ in range(3000)]
        place = walker.tell()
        between = [walker.read() for _ in range(5000)]
        later = walker.tell()
        rest = list(iter(walker.read, None))
        gone = {b"00004", b"05998", b"06002", b"20000"}
        shelf.many([shelf.row(f"d/{index:05}", index) for index in range(1, 30000, 200)])
        for name in gone:
            shelf.remove(f"d/{name.decode()}")
        for name in ("00000", "06004", "29998"):
            shelf.entry(f"d/{name}", 7, key=f"new/{name}")

        def there_all_along(names: Iterable[bytes | None]) -> list[bytes | None]:
            return [name for name in names if name not in gone and (name is None or int(name) % 2 == 0)]

        for _ in range(2):
            walker.seek(later)
            assert there_all_along(iter(walker.read, None)) == there_all_along(rest)
            walker.seek(place)
            assert there_all_along(walker.read() for _ in range(5000)) == there_all_along(between)
            assert walker.tell() == later
        walker.rewind()
        again = {*iter(walker.read, None)}
    assert not gone & again
    assert {b"00001", b"00201", b"29801"} <= again
    assert len(again) == len({*first, *between, *rest}) - len(gone) + 150


def test_a_storm_of_walkers_sees_no_error_while_the_catalog_grows(shelf: Shelf, mount: Mount) -> None:
    for index in range(40):
        shelf.entry(f"d{index % 8}/{index}", shelf.write(f"d{index % 8}/{index}", b"%d" % index))
    mounted = mount()
    walks = [
        subprocess.Popen(command, cwd=mounted.path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for command in (["ls", "-lR"], ["find", ".", "-size", "+1c"], ["grep", "-r", "none", "files"], ["du", "-a"]) * 2
    ]
    for index in range(40, 60):
        shelf.entry(f"d{index % 8}/{index}", shelf.write(f"d{index % 8}/{index}", b"%d" % index))
    said = [walk.communicate(timeout=60)[1] for walk in walks]
    assert said == [b""] * len(walks)
    assert len([name for _, _, names in os.walk(mounted.at("files")) for name in names]) == 60


@pytest.mark.parametrize("mount", ["fast"], indirect=True)
def test_the_kernel_reads_ahead_as_much_as_one_request_may_ask_for(mount: Mount) -> None:
    device = os.stat(mount().path).st_dev
    setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    if not os.access(setting, os.W_OK):
        pytest.skip("needs root, and a /sys that can be written")
    assert int(setting.read_text(encoding="ascii")) << 10 == wire.READ_MAX


def test_the_twin_binding_serves_the_same_mount(shelf: Shelf) -> None:
    """Over libfuse 2, which is what tests can count on; over libfuse 3 run those that say `also_libfuse3`."""
    shelf.entry("d/a", shelf.write("d/a", b"bytes"), url="https://h/a")
    shelf.choose("fusepy")
    mounted = Mounted(shelf, DUMBWAITER_FUSE="mfusepy")
    try:
        mounted.wait()
        assert sorted(os.listdir(mounted.path)) == ["files", "keys", "outbox"]
        assert mounted.read("files/w/d/a") == b"bytes"
        assert os.getxattr(mounted.at("files/w/d/a"), "user.dumbwaiter.url") == b"https://h/a"
        assert mounted.read("files/w/d/.links.txt") == b"https://h/a\n"
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir(mounted.at("files/w/new"))
        with pytest.raises(OSError, match="No such file"):
            os.stat(mounted.at("files/w/none"))
        assert mounted.stop() == 0
    finally:
        mounted.clear()


@pytest.mark.skipif(not LIBFUSE3, reason="no libfuse 3")
def test_the_fast_session_runs_over_libfuse_3_too(shelf: Shelf) -> None:
    shelf.entry("d/a", shelf.write("d/a", b"bytes"))
    shelf.choose("fast")
    mounted = Mounted(shelf, **OVER_LIBFUSE3)
    try:
        mounted.wait()
        assert mounted.read("files/w/d/a") == b"bytes"
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir(mounted.at("files/w/new"))
        assert mounted.stop() == 0
    finally:
        mounted.clear()
