"""Watching real folders with the real kernel."""

import asyncio
import ctypes
import errno
import inspect
import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers import inotify_c
from watchdog.observers.inotify_c import CallbackId, InotifyEvent, InotifyFD, Mask, WatchDescriptor

from asynchronous import on_loop
from dumbwaiter.files import roots
from dumbwaiter.files.ignore import Rules
from dumbwaiter.files.roots import Root, RootState, inspect_folder
from dumbwaiter.kernel_limits import limit as limit_of
from dumbwaiter.model import Sighting
from dumbwaiter.watch import canary, inotify_reader, listener, watched_root, watcher
from dumbwaiter.watch.canary import Canary
from dumbwaiter.watch.watcher import Watcher

BOUND = 30.0  # seconds until a wait has failed
QUEUE = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


class Ear:
    """A watcher, and all that it said."""

    def __init__(self, *roots: Root, bird: Canary | None = None) -> None:
        self.sightings: list[Sighting] = []
        self.doubts: list[tuple[str, str]] = []
        self.changes: list[str] = []
        self.ruled: list[str] = []
        self.news = asyncio.Event()
        self.thread = threading.get_ident()
        self.watcher = Watcher(
            roots,
            self._seen,
            self._doubt,
            asyncio.get_running_loop(),
            lambda name: self._tell(self.changes, name),
            lambda name: self._tell(self.ruled, name),
            bird,
        )

    def _tell(self, where: list[Any], *what: Any) -> None:
        assert threading.get_ident() == self.thread
        where.extend(what)
        self.news.set()

    def _seen(self, sightings: list[Sighting]) -> None:
        self._tell(self.sightings, *sightings)

    def _doubt(self, name: str, reason: str) -> None:
        self._tell(self.doubts, (name, reason))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(BOUND):
            while not holds():
                self.news.clear()
                await self.news.wait()

    @property
    def paths(self) -> set[str]:
        return {sighting.path for sighting in self.sightings}

    @property
    def closed(self) -> set[str]:
        return {sighting.path for sighting in self.sightings if sighting.closed}

    async def hears(self, folder: Path, path: str = "fence") -> None:
        """Makes a file and waits for it: what happened before has been told by then."""
        (folder / path).write_bytes(b"x")
        await self.until(lambda: path in self.paths)

    def state(self, name: str = "w") -> RootState:
        return self.watcher.states()[name]

    async def until_state(self, state: str) -> None:
        """A change may be told before the check that is waited for, so the check is told too."""
        self.watcher.check()
        await self.until(lambda: self.state().state == state)


@asynccontextmanager
async def listening(*roots: Root, bird: Canary | None = None) -> AsyncIterator[Ear]:
    ear = Ear(*roots, bird=bird)
    ear.watcher.start()
    try:
        yield ear
    finally:
        ear.watcher.close()


def root(path: Path, rules: Rules | None = None, polling: bool | None = None) -> Root:
    return Root("w", str(path), rules or Rules(), polling)


def call(*command: str | Path) -> None:
    subprocess.run(command, check=True)


async def run(script: str, *args: object) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, *map(str, args))
    assert await process.wait() == 0


def test_watchdog_still_has_what_is_used_of_it() -> None:
    parameters: dict[Callable[..., Any], list[str]] = {
        InotifyFD.__init__: ["self"],
        InotifyFD.add_callback: ["self", "path", "mask", "callback", "id_"],
        InotifyFD.remove_callbacks: ["self", "callbacks"],
        InotifyFD.stop: ["self"],
        InotifyFD.start: ["self"],
        inotify_c.WatchCallback.on_event: ["self", "event"],
        inotify_c.WatchCallback.on_watch_deleted: ["self", "wd"],
        inotify_c.WatchCallback.on_queue_overflow: ["self"],
    }
    for function, names in parameters.items():
        assert list(inspect.signature(function).parameters) == names, function
    assert issubclass(InotifyFD, threading.Thread)
    assert {"wd", "mask", "name"} <= set(InotifyEvent.__dataclass_fields__)
    assert inotify_c.InotifyConstants.IN_CLOSE_WRITE == 8
    for name in vars(inotify_c.WatchCallback):
        if name.startswith("on_"):
            assert callable(getattr(Watcher, name)), name


@on_loop
async def test_create_close_and_move_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "whole").write_bytes(b"x")
    async with listening(root(tmp_path / "w")) as ear:
        descriptor = os.open(tmp_path / "w/slow", os.O_CREAT | os.O_WRONLY)
        await ear.until(lambda: "slow" in ear.paths)
        assert "slow" not in ear.closed
        os.close(descriptor)
        await ear.until(lambda: "slow" in ear.closed)
        (tmp_path / "whole").rename(tmp_path / "w/whole")
        await ear.until(lambda: "whole" in ear.closed)
        os.link(tmp_path / "w/whole", tmp_path / "w/linked")
        await ear.until(lambda: "linked" in ear.paths)
        (tmp_path / "w/x.part").write_bytes(b"x")
        (tmp_path / "w/x.part").rename(tmp_path / "w/x.jpg")
        await ear.until(lambda: "x.jpg" in ear.closed)
        assert "x.part" not in ear.paths
        assert ear.state() == RootState("watching", 1, 0, 0, "")
        assert ear.doubts == []


BURST = """
import os, sys
root, count = sys.argv[1], int(sys.argv[2])
for number in range(count):
    descriptor = os.open(f"{root}/f{number}", os.O_CREAT | os.O_WRONLY)
    os.write(descriptor, b"x")
    os.close(descriptor)
"""


@on_loop
async def test_a_burst_of_files_is_heard_whole(tmp_path: Path) -> None:
    """On a machine too busy to read in time the kernel may drop some, but never without a word."""
    async with listening(root(tmp_path)) as ear:
        await run(BURST, tmp_path, 20_000)
        await ear.until(lambda: len(ear.closed) >= 20_000 or bool(ear.doubts))
        if not ear.state().overflows:
            assert ear.closed == {f"f{number}" for number in range(20_000)}


RACE = """
import os, sys
root, count = sys.argv[1], int(sys.argv[2])
for number in range(count):
    os.makedirs(f"{root}/{number}/b/c")
    with open(f"{root}/{number}/b/c/f", "wb") as file:
        file.write(b"x")
"""


@on_loop
async def test_files_in_folders_made_a_moment_before_are_heard(tmp_path: Path) -> None:
    async with listening(root(tmp_path)) as ear:
        await run(RACE, tmp_path, 500)
        await ear.until(lambda: len(ear.paths) >= 500)
        assert ear.paths == {f"{number}/b/c/f" for number in range(500)}
        await ear.until(lambda: ear.state().folders == 1501)
        await ear.hears(tmp_path, "77/b/c/later")


@on_loop
async def test_trees_copied_and_moved_in_are_heard(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"from/{number % 7}/{number % 3}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"from/{number % 7}/{number % 3}/{number}").write_bytes(b"x")
    files = {str(path.relative_to(tmp_path / "from")) for path in (tmp_path / "from").rglob("*") if path.is_file()}
    (tmp_path / "w").mkdir()
    async with listening(root(tmp_path / "w")) as ear:
        process = await asyncio.create_subprocess_exec("cp", "-r", tmp_path / "from", tmp_path / "w/copy")
        await process.wait()
        (tmp_path / "from").rename(tmp_path / "w/moved")
        wanted = {f"{folder}/{path}" for folder in ("copy", "moved") for path in files}
        await ear.until(lambda: ear.paths >= wanted)
        await ear.hears(tmp_path / "w", "moved/1/1/later")
        await ear.hears(tmp_path / "w", "copy/1/1/later")


@on_loop
async def test_a_folder_moved_out_falls_silent_and_one_moved_within_speaks_under_its_new_name(
    tmp_path: Path,
) -> None:
    (tmp_path / "w/out/deep").mkdir(parents=True)
    (tmp_path / "w/old/deep").mkdir(parents=True)
    async with listening(root(tmp_path / "w")) as ear:
        assert ear.state().folders == 5
        (tmp_path / "w/out").rename(tmp_path / "gone")
        (tmp_path / "w/old").rename(tmp_path / "w/new")
        await ear.hears(tmp_path / "w")
        for path in ("gone/a", "gone/deep/a", "w/new/a", "w/new/deep/a"):
            (tmp_path / path).write_bytes(b"x")
        await ear.hears(tmp_path / "w", "fence2")
        await ear.until(lambda: {"new/a", "new/deep/a"} <= ear.paths)  # the folder may be looked at still
        assert ear.paths == {"fence", "fence2", "new/a", "new/deep/a"}
        assert ear.state().folders == 3
        (tmp_path / "gone").rename(tmp_path / "w/back")
        await ear.hears(tmp_path / "w", "back/deep/b")


@on_loop
async def test_two_folders_that_change_places_are_both_heard_under_their_new_names(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    async with listening(root(tmp_path)) as ear:
        exchange = ctypes.CDLL(None, use_errno=True).renameat2
        assert exchange(-100, os.fsencode(tmp_path / "a"), -100, os.fsencode(tmp_path / "b"), 2) == 0
        await ear.hears(tmp_path)
        for path in ("a/one", "b/two"):
            await ear.hears(tmp_path, path)
        assert ear.state().folders == 3


@on_loop
async def test_a_folder_that_is_renamed_while_it_is_looked_at_is_heard_under_its_new_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a/deep").mkdir(parents=True)
    async with listening(root(tmp_path)) as ear:
        listen = ear.watcher._listener._listen

        def late(root: Any, path: str, descriptor: int) -> bool:
            if path == "a/deep" and (tmp_path / "a").exists():
                (tmp_path / "a").rename(tmp_path / "c")
                deadline = time.monotonic() + BOUND
                while ("c", False) not in root.changed_folders:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
            return listen(root, path, descriptor)

        monkeypatch.setattr(ear.watcher._listener, "_listen", late)
        ear.watcher._walk_all("an overflow")
        await ear.until(lambda: bool(ear.doubts))
        await ear.hears(tmp_path, "c/deep/file")


@on_loop
async def test_an_ignore_file_is_heard_once_it_is_whole_and_when_it_goes(tmp_path: Path) -> None:
    async with listening(root(tmp_path)) as ear:
        with (tmp_path / ".dumbwaiterignore").open("w") as file:
            file.write("secret*\n")
            file.flush()
            await ear.hears(tmp_path)
            assert ear.ruled == []
        await ear.until(lambda: ear.ruled == ["w"])
        (tmp_path / ".dumbwaiterignore").rename(tmp_path / "aside")
        await ear.until(lambda: ear.ruled == ["w", "w"])
        (tmp_path / "aside").rename(tmp_path / ".dumbwaiterignore")
        await ear.until(lambda: ear.ruled == ["w"] * 3)
        (tmp_path / ".dumbwaiterignore").unlink()
        await ear.until(lambda: ear.ruled == ["w"] * 4)


@on_loop
async def test_folders_that_come_and_go_leave_nothing_behind(tmp_path: Path) -> None:
    async with listening(root(tmp_path)) as ear:
        for _ in range(30):
            (tmp_path / "a/b/c").mkdir(parents=True)
            (tmp_path / "a/b").rename(tmp_path / "b")
            shutil.rmtree(tmp_path / "a")
            shutil.rmtree(tmp_path / "b")
        async with asyncio.timeout(BOUND):
            fences = itertools.count()
            while ear.state().folders > 1 or ear.watcher._roots[0].top.children:  # what came may be looked at still
                await ear.hears(tmp_path, f"fence {next(fences)}")
        assert len(ear.watcher._inotify) == 1


@on_loop
async def test_a_folder_that_leaves_while_it_is_looked_at_is_not_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    async with listening(root(tmp_path / "in")) as ear:
        listen = ear.watcher._listener._listen
        listened: list[str] = []

        def late(root: Any, path: str, descriptor: int) -> bool:
            if path == "a" and (tmp_path / "in/a").exists():
                (tmp_path / "in/a").rename(tmp_path / "out")
                deadline = time.monotonic() + BOUND
                while not root.changed_folders:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
            heard = listen(root, path, descriptor)
            listened.append(path)
            return heard

        monkeypatch.setattr(ear.watcher._listener, "_listen", late)
        (tmp_path / "in/a").mkdir()
        async with asyncio.timeout(BOUND):
            fences = itertools.count()
            while "a" not in listened or ear.state().folders > 1:
                await ear.hears(tmp_path / "in", f"fence {next(fences)}")
        (tmp_path / "out/film").write_bytes(b"x")
        await ear.hears(tmp_path / "in", "last")
        assert not any(path.endswith("film") for path in ear.paths)


@on_loop
async def test_ignored_folders_are_not_listened_to(tmp_path: Path) -> None:
    (tmp_path / "cache/deep").mkdir(parents=True)
    async with listening(root(tmp_path, Rules(exclude=["cache/", "*.raw"]))) as ear:
        assert ear.state().folders == 1
        (tmp_path / "more/cache").mkdir(parents=True)
        for path in ("cache/a", "more/cache/a", "b.raw", "c.part"):
            (tmp_path / path).write_bytes(b"x")
        await ear.hears(tmp_path, "more/fence")
        assert ear.paths == {"more/fence"}
        assert ear.state().folders == 2


@on_loop
async def test_rules_can_be_changed(tmp_path: Path) -> None:
    (tmp_path / "a/deep").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    async with listening(root(tmp_path, Rules(exclude=["b/"]))) as ear:
        assert ear.state().folders == 3
        ear.watcher.adopt("w", Rules(exclude=["a/"]))
        await ear.until(lambda: ear.doubts == [("w", "its rules have changed")])
        assert ear.state().folders == 2
        (tmp_path / "a/deep/x").write_bytes(b"x")
        await ear.hears(tmp_path, "b/x")
        assert ear.paths == {"b/x"}


@on_loop
async def test_a_root_that_does_not_answer_is_away(tmp_path: Path) -> None:
    async with listening(root(tmp_path)) as ear:
        ear.watcher._roots[0].asked_at = time.monotonic() - watched_root.PATIENCE - 1
        assert ear.state().state == "away"
        assert "does not answer" in ear.state().sentence
        await ear.until_state("watching")


@on_loop
async def test_names_that_are_no_text_are_heard(tmp_path: Path) -> None:
    names = [b"\xff\xfe", b"a\nb", b"\x1b[0m", b"n" * 255]
    async with listening(root(tmp_path)) as ear:
        for name in names:
            folder = os.path.join(os.fsencode(tmp_path), b"d" + name[:200])
            os.mkdir(folder)
            os.close(os.open(os.path.join(folder, name), os.O_CREAT | os.O_WRONLY))
        await ear.until(lambda: len(ear.paths) >= len(names))
        assert {os.fsencode(path) for path in ear.paths} == {b"d" + name[:200] + b"/" + name for name in names}


@on_loop
async def test_a_folder_deeper_than_a_path_may_be_long_is_heard(tmp_path: Path) -> None:
    level, depth = "d" * 200, 30
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(level, dir_fd=at)
        below = os.open(level, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    async with listening(root(tmp_path)) as ear:
        assert ear.state().folders == depth + 1
        os.close(os.open("a", os.O_CREAT | os.O_WRONLY, dir_fd=at))
        os.mkdir("b", dir_fd=at)
        os.close(os.open("b/a", os.O_CREAT | os.O_WRONLY, dir_fd=at))
        await ear.until(lambda: ear.paths >= {f"{level}/" * depth + "a", f"{level}/" * depth + "b/a"})
    os.close(at)
    call("rm", "-rf", tmp_path / level)


@on_loop
async def test_links_inside_are_not_followed_and_a_link_as_root_is(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real/out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "real/loop").symlink_to("..")
    async with listening(root(tmp_path / "link")) as ear:
        (tmp_path / "real/out2").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere/a").write_bytes(b"x")
        await ear.hears(tmp_path / "real")
        assert ear.state().folders == 1
        assert "out/a" not in ear.paths
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to("elsewhere")
        ear.watcher.check()
        await ear.until(lambda: bool(ear.doubts))
        await ear.hears(tmp_path / "elsewhere", "b")


def hold(watcher: Watcher) -> threading.Event:
    """Holds the reader at its next event until the returned one is set."""
    go = threading.Event()
    real = watcher.on_event

    def held(event: InotifyEvent) -> None:
        go.wait(BOUND)
        real(event)

    watcher.on_event = held  # type: ignore[method-assign]
    return go


@on_loop
async def test_an_overflow_is_told_and_mended(tmp_path: Path) -> None:
    """The kernel throws away what it cannot keep: new folders, and those that left."""
    (tmp_path / "w/leaves").mkdir(parents=True)
    (tmp_path / "w/renamed/deep").mkdir(parents=True)
    (tmp_path / "w/many").mkdir()
    count = QUEUE // 2 + 3000
    other = Root("other", str(tmp_path / "other"), Rules())
    (tmp_path / "other").mkdir()
    async with listening(root(tmp_path / "w"), other) as ear:
        go = hold(ear.watcher)
        await run(BURST, tmp_path / "w/many", count)
        (tmp_path / "w/new/deep").mkdir(parents=True)
        (tmp_path / "w/leaves").rename(tmp_path / "left")
        (tmp_path / "w/renamed").rename(tmp_path / "w/now")
        go.set()
        await ear.until(lambda: {name for name, _ in ear.doubts} == {"w", "other"})
        assert ear.state().overflows > 0
        (tmp_path / "left/a").write_bytes(b"x")
        await ear.hears(tmp_path / "w", "new/deep/a")
        await ear.hears(tmp_path / "w", "now/deep/a")
        assert not {path for path in ear.paths if path.startswith(("leaves", "renamed"))}
        assert ear.state().folders == 6
        assert ear.state().state == "watching"


@on_loop
async def test_an_error_in_the_callback_leaves_the_reader_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(root(tmp_path)) as ear:
        real = ear.watcher._handover.note
        failures = iter([RuntimeWarning("made an error"), KeyError("x"), OSError(5, "x")])

        def fail(*args: Any, **named: Any) -> None:
            if (failure := next(failures, None)) is not None:
                raise failure
            real(*args, **named)

        monkeypatch.setattr(ear.watcher._handover, "note", fail)
        (tmp_path / "a").write_bytes(b"x")
        await ear.until(lambda: bool(ear.doubts))
        await ear.hears(tmp_path)
        assert ear.watcher._inotify.reader is not None
        assert ear.watcher._inotify.reader.is_alive()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@on_loop
async def test_a_dead_reader_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep/er").mkdir(parents=True)
    async with listening(root(tmp_path)) as ear:
        reader = ear.watcher._inotify.reader
        assert reader is not None

        def fail() -> list[InotifyEvent]:
            raise OSError(errno.EIO, "no more")

        monkeypatch.setattr(reader, "read_events", fail)
        (tmp_path / "lost").write_bytes(b"x")
        reader.join(BOUND)
        ear.watcher.check()
        await ear.until(lambda: bool(ear.doubts))
        assert ear.state().folders == 3
        await ear.hears(tmp_path, "deep/er/a")


@on_loop
async def test_t29_a_reader_that_hangs_is_noticed_by_the_canary_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w/deep").mkdir(parents=True)
    monkeypatch.setattr(canary, "PATIENCE", 0.2)
    go = threading.Event()
    async with listening(root(tmp_path / "w"), bird=Canary(str(tmp_path / "bird"))) as ear:
        reader = ear.watcher._inotify.reader
        assert reader is not None
        real = reader.handle_event

        def hang(event: InotifyEvent) -> None:
            go.wait(BOUND)
            real(event)

        monkeypatch.setattr(reader, "handle_event", hang)
        (tmp_path / "w/lost").write_bytes(b"x")
        async with asyncio.timeout(BOUND):
            while ("w", "the watcher had stopped hearing") not in ear.doubts:
                ear.watcher.check()
                await asyncio.sleep(0.05)
        assert ear.watcher._inotify.reader is not reader
        monkeypatch.setattr(canary, "PATIENCE", BOUND)
        await ear.hears(tmp_path / "w", "deep/a")
        go.set()


@on_loop
async def test_a_watcher_that_hears_its_canary_is_left_alone(tmp_path: Path) -> None:
    bird = Canary(str(tmp_path / "bird"))
    async with listening(root(tmp_path), bird=bird) as ear:
        reader = ear.watcher._inotify.reader
        for number in range(3):
            ear.watcher.check()
            await ear.hears(tmp_path, f"{number}")
            await ear.until(lambda: not ear.watcher.deaf_for)
        assert ear.watcher._inotify.reader is reader
        assert ear.doubts == []


@on_loop
async def test_who_asks_the_watcher_to_catch_up_knows_all_that_happened_before(tmp_path: Path) -> None:
    top = tmp_path / "w"
    top.mkdir()
    async with listening(root(top), bird=Canary(str(tmp_path / "bird"))) as ear:
        for turn in range(30):
            (top / f"{turn}/b/c").mkdir(parents=True)
            made = {f"{turn}/b/c/f", f"{turn}/b/f", f"{turn}.bin"}
            for path in made:
                (top / path).write_bytes(b"x")
            await ear.watcher.catch_up(BOUND)
            assert made <= ear.paths
    assert sorted(os.listdir(tmp_path / "bird")) in ([], ["song"])


@on_loop
async def test_a_watcher_that_does_not_hear_is_caught_up_with_by_nobody_and_for_no_longer_than_said(
    tmp_path: Path,
) -> None:
    (tmp_path / "w").mkdir()
    bird = Canary(str(tmp_path / "bird"))
    async with listening(root(tmp_path / "w"), bird=bird) as ear:
        (tmp_path / "bird").rename(tmp_path / "gone")
        await ear.watcher.catch_up(BOUND)  # nothing can be written there
        (tmp_path / "bird").mkdir()
        await ear.watcher.catch_up(0.1)


def test_nobody_else_reads_what_the_canary_writes(tmp_path: Path) -> None:
    Canary(str(tmp_path / "bird")).sound()
    assert [one.stat().st_mode & 0o777 for one in (tmp_path / "bird", tmp_path / "bird/song")] == [0o700, 0o600]


@on_loop
async def test_a_root_removed_and_made_again_is_away_and_back(tmp_path: Path) -> None:
    (tmp_path / "w/deep").mkdir(parents=True)
    async with listening(root(tmp_path / "w")) as ear:
        shutil.rmtree(tmp_path / "w")
        await ear.until_state("away")
        assert "no such file" in ear.state().sentence
        assert ear.state().folders == 0
        (tmp_path / "w/new").mkdir(parents=True)
        await ear.until_state("watching")
        await ear.until(lambda: bool(ear.doubts))
        await ear.hears(tmp_path / "w", "new/a")


@on_loop
async def test_a_root_replaced_at_once_is_noticed_without_a_check(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    async with listening(root(tmp_path / "w")) as ear:
        for number in range(5):
            shutil.rmtree(tmp_path / "w")
            (tmp_path / "w").mkdir()
            ear.doubts.clear()
            (tmp_path / "w/early").write_bytes(b"x")
            ear.watcher.check()
            await ear.until(lambda: bool(ear.doubts) and ear.state().folders == 1)
            await ear.hears(tmp_path / "w", f"a{number}")


@on_loop
async def test_a_root_renamed_is_away_and_its_new_name_is_not_heard(tmp_path: Path) -> None:
    (tmp_path / "w/deep").mkdir(parents=True)
    async with listening(root(tmp_path / "w")) as ear:
        (tmp_path / "w").rename(tmp_path / "other")
        await ear.until(lambda: ear.state().state == "away")
        (tmp_path / "other/deep/a").write_bytes(b"x")
        (tmp_path / "other").rename(tmp_path / "w")
        await ear.until_state("watching")
        await ear.until(lambda: bool(ear.doubts))
        await ear.hears(tmp_path / "w", "deep/b")
        assert "deep/a" not in ear.paths


@on_loop
async def test_a_root_that_is_not_there_at_the_start_is_heard_once_it_is(tmp_path: Path) -> None:
    async with listening(root(tmp_path / "w")) as ear:
        assert ear.state().state == "away"
        (tmp_path / "w").write_bytes(b"a file")
        ear.watcher.check()
        (tmp_path / "w").unlink()
        (tmp_path / "w").mkdir()
        await ear.until_state("watching")
        await ear.until(lambda: bool(ear.doubts))
        await ear.hears(tmp_path / "w")


def mount(path: Path, *what: str | Path) -> None:
    what = what or ("-t", "tmpfs", "none")
    if subprocess.run(["mount", *what, path], capture_output=True, check=False).returncode:
        pytest.skip("may not mount")


@on_loop
async def test_a_root_that_is_unmounted_is_away_until_it_is_mounted_again(tmp_path: Path) -> None:
    """The empty folder below must not be taken for the root: its files would seem deleted."""
    (tmp_path / "w").mkdir()
    mount(tmp_path / "w")
    try:
        (tmp_path / "w/deep").mkdir()
        async with listening(root(tmp_path / "w")) as ear:
            call("umount", tmp_path / "w")
            await ear.until_state("away")
            assert "nothing is mounted there" in ear.state().sentence
            assert ear.doubts == []
            mount(tmp_path / "w")
            await ear.until_state("watching")
            await ear.until(lambda: bool(ear.doubts))
            await ear.hears(tmp_path / "w")
    finally:
        call("umount", tmp_path / "w")


@on_loop
async def test_a_root_that_was_mounted_when_last_seen_is_away_until_a_person_says_otherwise(tmp_path: Path) -> None:
    async with listening(root(tmp_path)._replace(mounted=True)) as ear:
        assert ear.state().state == "away"
        assert "`dumbwaiter rescan w`" in ear.state().sentence
        assert ear.watcher.away("w")
        ear.watcher.accept("w")
        await ear.until_state("watching")
        assert not ear.watcher.away("w")
        assert ear.watcher.mounted() == {"w": False}
        await ear.hears(tmp_path)


@on_loop
async def test_a_folder_mounted_over_another_of_its_file_system_is_told_apart(tmp_path: Path) -> None:
    for name in ("w", "other"):
        (tmp_path / name).mkdir()
    mount(tmp_path / "w", "--bind", tmp_path / "other")
    try:
        assert inspect_folder(str(tmp_path / "w")).mounted
        async with listening(root(tmp_path / "w")) as ear:
            call("umount", tmp_path / "w")
            await ear.until_state("away")
            assert ear.watcher.away("w")
            mount(tmp_path / "w", "--bind", tmp_path / "other")
            await ear.until_state("watching")
    finally:
        call("umount", tmp_path / "w")


@on_loop
async def test_a_folder_mounted_over_itself_is_no_disk_that_could_go_away(tmp_path: Path) -> None:
    folder = tmp_path / "a w"  # as systemd mounts what a service may write to
    folder.mkdir()
    mount(folder, "--bind", folder)
    try:
        assert not inspect_folder(str(folder)).mounted
        async with listening(root(folder)) as ear:
            assert ear.watcher.mounted() == {"w": False}
        async with listening(root(folder)._replace(mounted=True)) as ear:
            assert ear.state().state == "away"  # its disk is not there
            mount(folder)
            await ear.until_state("watching")
            call("umount", folder)
            await ear.until_state("away")
    finally:
        call("umount", folder)


@on_loop
async def test_another_file_system_below_is_named(tmp_path: Path) -> None:
    (tmp_path / "w/disk").mkdir(parents=True)
    async with listening(root(tmp_path / "w")) as ear:
        assert ear.state().sentence == ""
        mount(tmp_path / "w/disk")
        try:
            ear.watcher._walk_all("an overflow")
            await ear.until(lambda: bool(ear.doubts))
            assert ear.state() == RootState(
                "watching", 1, 0, 0,
                f"{tmp_path}/w/disk is another file system and left out: mount or bind it outside of this folder, "
                "and give that place a watch.",
            )  # fmt: skip
        finally:
            call("umount", tmp_path / "w/disk")


@on_loop
async def test_a_root_that_may_not_be_read_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "RETRY", 0.0)
    walk, closed = listener.walk, [True]

    def refused(*values: Any, **named: Any) -> Any:
        if closed:
            raise PermissionError(errno.EACCES, "Permission denied")
        return walk(*values, **named)

    monkeypatch.setattr(listener, "walk", refused)
    async with listening(root(tmp_path)) as ear:
        assert ear.state().missing == 1
        assert ear.state().sentence == f"{tmp_path} cannot be read: give this user the right to."
        closed.clear()
        ear.watcher.check()
        await ear.until(lambda: ear.state().missing == 0)
        await ear.hears(tmp_path)


@on_loop
async def test_a_want_of_descriptors_says_nothing_of_a_root_and_what_it_hid_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = [True]

    def lacking(real: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*values: Any, **named: Any) -> Any:
            if short:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return real(*values, **named)

        return ask

    async with listening(root(tmp_path)) as ear:
        monkeypatch.setattr(listener, "walk", lacking(listener.walk))
        monkeypatch.setattr(watcher, "inspect_folder", lacking(inspect_folder))
        (tmp_path / "new").mkdir()
        await ear.hears(tmp_path)
        ear.watcher.check()
        await ear.watcher.catch_up(BOUND)
        assert ear.state().state == "watching"
        assert ear.doubts == []
        short.clear()
        ear.watcher.check()
        await ear.until(lambda: bool(ear.doubts))
        assert ear.doubts == [("w", "a folder could not be looked at")]
        await ear.hears(tmp_path, "new/a")


@pytest.mark.parametrize("fails", [1, 2, 3])
def test_without_a_descriptor_nobody_knows_whether_a_disk_is_mounted_at_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    opened, before = itertools.count(1), len(os.listdir("/proc/self/fd"))

    def lacking(*values: Any, **named: Any) -> Any:
        if next(opened) == fails:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return open(*values, **named)

    monkeypatch.setattr(roots, "open", lacking, raising=False)
    with pytest.raises(OSError, match="Too many open files"):
        inspect_folder(str(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == before


@on_loop
async def test_a_folder_that_is_bound_to_two_places_is_of_one_watch(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    mount(tmp_path / "b", "--bind", tmp_path / "a")
    try:
        async with listening(Root("a", str(tmp_path / "a"), Rules()), Root("b", str(tmp_path / "b"), Rules())) as ear:
            assert [ear.state(name).state for name in "ab"] == ["watching", "away"]
            assert "that is the folder of watch a as well" in ear.state("b").sentence
            await ear.hears(tmp_path / "b")
            assert {one.watch for one in ear.sightings} == {"a"}
    finally:
        call("umount", tmp_path / "b")


@on_loop
async def test_our_own_mount_is_never_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roots, "_kind", lambda _mount: "fuse.dumbwaiter")
    async with listening(root(tmp_path)) as ear:
        assert ear.state().state == "away"
        assert "own mount" in ear.state().sentence


@on_loop
async def test_a_root_that_is_mounted_over_is_heard_anew_each_time(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    async with listening(root(tmp_path / "w")) as ear:
        mount(tmp_path / "w")
        try:
            ear.watcher.check()
            await ear.until(lambda: bool(ear.doubts))
            await ear.hears(tmp_path / "w", "above")
            ear.doubts.clear()
        finally:
            call("umount", tmp_path / "w")
        ear.watcher.check()
        await ear.until(lambda: bool(ear.doubts))
        await ear.hears(tmp_path / "w", "below")


Add = Callable[[InotifyFD, bytes, Mask, Any, CallbackId], WatchDescriptor]


def limit(monkeypatch: pytest.MonkeyPatch, allowed: list[int], code: int = errno.ENOSPC) -> None:
    """Lets the kernel refuse watches beyond a number; with EACCES as watchdog tells it, which is not at all."""
    real: Add = InotifyFD.add_callback
    refuse: Add = InotifyFD._add_callback if code == errno.EACCES else InotifyFD.add_callback

    def add(self: InotifyFD, path: bytes, mask: Mask, callback: Any, id_: CallbackId) -> WatchDescriptor:
        if len(self._watch_for_wd) < allowed[0]:
            return real(self, path, mask, callback, id_)
        if code == errno.EACCES:
            with monkeypatch.context() as patch:
                patch.setattr(inotify_c, "inotify_add_watch", lambda *_: -1)
                patch.setattr(InotifyFD, "_raise_error", lambda **_: None)
                return refuse(self, path, mask, callback, id_)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(InotifyFD, "add_callback", add)


@on_loop
async def test_a_disk_that_dies_while_a_folder_begins_to_be_heard_stops_nobody_who_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Add = InotifyFD.add_callback
    dies, back = threading.Event(), threading.Event()

    def add(self: InotifyFD, path: bytes, mask: Mask, callback: Any, id_: CallbackId) -> WatchDescriptor:
        if dies.is_set():
            with self._lock:
                assert back.wait(BOUND)
        return real(self, path, mask, callback, id_)

    monkeypatch.setattr(InotifyFD, "add_callback", add)
    monkeypatch.setattr(watched_root, "PATIENCE", 0.2)
    monkeypatch.setattr(watcher, "BOUND", 0.2)
    async with listening(root(tmp_path)) as ear:
        await ear.hears(tmp_path)
        try:
            dies.set()
            (tmp_path / "new").mkdir()
            while ear.state().state != "away":  # noqa: ASYNC110 - who would tell of it is the one that hangs
                await asyncio.sleep(0.02)
            assert "does not answer" in ear.state().sentence
            ear.watcher.close()
        finally:
            back.set()


@on_loop
async def test_folders_beyond_the_limit_are_counted_and_heard_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        (tmp_path / f"{number}/deep").mkdir(parents=True)
    allowed = [7]
    limit(monkeypatch, allowed)
    monkeypatch.setattr(watcher, "RETRY", 0.0)
    async with listening(root(tmp_path)) as ear:
        state = ear.state()
        assert (state.state, state.folders, state.missing) == ("watching", 7, 12)
        assert "19 watches are needed" in state.sentence
        assert limit_of("watches").shown in state.sentence
        (tmp_path / "new").mkdir()
        await ear.until(lambda: ear.state().missing == 13)
        allowed[0] = 100
        ear.watcher.check()
        await ear.until(lambda: bool(ear.doubts) and "w" in ear.changes and ear.state().missing == 0)
        assert ear.state() == RootState("watching", 20, 0, 0, "")
        await ear.hears(tmp_path, "8/deep/a")


@on_loop
async def test_folders_that_may_not_be_watched_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        (tmp_path / str(number)).mkdir()
    limit(monkeypatch, [2], errno.EACCES)
    async with listening(root(tmp_path)) as ear:
        assert ear.state().missing == 3
        told = ear.state().sentence
        assert told.startswith(f"3 folders cannot be read, such as {tmp_path}/")
        await ear.hears(tmp_path)


@pytest.fixture
def ordinary() -> Iterator[None]:
    """Takes from this thread, and from those it starts, what lets root pass over rights (capabilities(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, sets) == 0
    before = sets[0]
    sets[0] = before & ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, sets) == 0
    try:
        yield
    finally:
        sets[0] = before
        assert libc.capset(header, sets) == 0


@pytest.mark.usefixtures("ordinary")
@on_loop
async def test_a_folder_that_may_be_listed_and_not_entered_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "RETRY", 0.0)
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o444)
    async with listening(root(tmp_path)) as ear:
        told = f"{closed} cannot be read: give this user the right to."
        assert ear.state().sentence == told
        closed.chmod(0o755)
        ear.watcher.check()
        await ear.until(lambda: ear.state().sentence == "")
        await ear.hears(tmp_path, "closed/a")


@on_loop
async def test_without_an_inotify_instance_the_watch_is_polled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_class: object) -> int:
        raise OSError(errno.EMFILE, "inotify instance limit reached")

    with monkeypatch.context() as patch:
        patch.setattr(InotifyFD, "_create_inotify_fd", classmethod(none))
        patch.setattr(inotify_reader, "RETRY", 0.0)
        async with listening(root(tmp_path)) as ear:
            assert ear.state().state == "polling"
            assert limit_of("instances").setting in ear.state().sentence
            patch.undo()
            await ear.until_state("watching")
            await ear.until(lambda: bool(ear.doubts))
            await ear.hears(tmp_path)


@on_loop
async def test_a_polled_root_is_not_listened_to_but_looked_after(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    async with listening(root(tmp_path / "w", polling=True)) as ear:
        assert ear.state() == RootState("polling", 0, 0, 0, "Scans only, as configured.")
        assert ear.watcher._inotify.reader is None
        (tmp_path / "w").rename(tmp_path / "v")
        await ear.until_state("away")
        (tmp_path / "v").rename(tmp_path / "w")
        await ear.until_state("polling")
        await ear.until(lambda: bool(ear.doubts))


@on_loop
async def test_a_remote_file_system_is_heard_and_polled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roots, "_kind", lambda _mount: "nfs4")
    async with listening(root(tmp_path)) as ear:
        assert ear.state().state == "polling"
        assert "nfs4" in ear.state().sentence
        await ear.hears(tmp_path)
    async with listening(root(tmp_path, polling=False)) as ear:
        assert ear.state().state == "watching"


def test_this_disk_is_not_remote(tmp_path: Path) -> None:
    here = inspect_folder(str(tmp_path))
    assert here.kind
    assert not here.remote
    assert not here.trouble


@on_loop
async def test_many_roots_share_one_reader(tmp_path: Path) -> None:
    roots = [Root(name, str(tmp_path / name), Rules()) for name in "abc"]
    for name in "abc":
        (tmp_path / name).mkdir()
    async with listening(*roots) as ear:
        for name in "abc":
            (tmp_path / name / "x").write_bytes(b"x")
        await ear.until(lambda: {sighting.watch for sighting in ear.sightings} == set("abc"))
        shutil.rmtree(tmp_path / "b")
        ear.watcher.check()
        await ear.until(lambda: ear.state("b").state == "away")
        assert ear.state("a").state == ear.state("c").state == "watching"


@on_loop
async def test_closing_ends_both_threads_and_says_nothing_more(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with listening(root(tmp_path)) as ear:
        (tmp_path / "a").write_bytes(b"x")
        ear.watcher.close()
        ear.watcher.close()
        assert ear.watcher._inotify.reader is not None
        assert not ear.watcher._inotify.reader.is_alive()
        assert not any(thread.is_alive() for thread in ear.watcher._threads)
        assert len(os.listdir("/proc/self/fd")) == before
        ear.sightings.clear()
        for _ in range(5):
            await asyncio.sleep(0)
        assert ear.sightings == []
        assert ear.doubts == []


@on_loop
async def test_a_loop_that_was_busy_gets_each_path_once(tmp_path: Path) -> None:
    async with listening(root(tmp_path)) as ear:
        for _ in range(20):
            for number in range(50):
                (tmp_path / str(number)).write_bytes(b"x")
        await ear.hears(tmp_path)
        await ear.until(lambda: len(ear.closed) == 51)
        assert len(ear.sightings) < 2000


def test_where_links_lead_is_what_the_system_says(tmp_path: Path) -> None:
    (tmp_path / "real/inner").mkdir(parents=True)
    for name, target in {
        "absolute": tmp_path / "real",
        "relative": "real/inner",
        "up": "real/../real/inner/..",
        "twice": "absolute/inner",
        "round": "round",
        "real/back": "..",
        "nowhere": "missing/folder",
    }.items():
        (tmp_path / name).symlink_to(target)
    paths = ["/", "/proc/self/cwd/..", "/no such folder/a"]
    paths += [
        f"{tmp_path}/{name}" for name in ("real", "absolute/inner/x", "relative/x/y", "up", "twice/a", "nowhere/a")
    ]
    paths += [f"{tmp_path}/real/back/absolute", f"{tmp_path}//real/./inner/../back"]
    for path in paths:
        assert roots.resolved(path) == os.path.realpath(path)
    assert roots.resolved(f"{tmp_path}/round/a").endswith("/a")


def test_where_links_lead_is_found_without_asking_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nas").mkdir()
    (tmp_path / "drop").symlink_to("nas/drop")
    (tmp_path / "nas/drop").symlink_to("elsewhere")
    monkeypatch.setattr(roots, "mounts", lambda: iter([(f"{tmp_path}/nas", "nfs4"), ("/", "ext4")]))
    (tmp_path / "below").mkdir()
    (tmp_path / "below/drop").symlink_to("../nas/drop")
    readlink = os.readlink

    def local(path: str) -> str:
        assert not f"{path}/".startswith(f"{tmp_path}/nas/")
        return readlink(path)

    monkeypatch.setattr(os, "readlink", local)
    for way in ("drop", "below/drop"):
        assert roots.resolved(f"{tmp_path}/{way}/a") == f"{tmp_path}/nas/drop/a"
