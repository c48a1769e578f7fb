"""The process: what it says when it cannot mount, how it ends, and what a crash leaves behind."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dumbwaiter.config import Config
from dumbwaiter.errors import Failure
from dumbwaiter_fs import mount as program
from dumbwaiter_fs import mount_point
from fs.world import LIBFUSE3, OVER_LIBFUSE3, Mounted, Shelf, also_libfuse3, command, until
from stranger import UID, needs_root

pytestmark = pytest.mark.fuse

Mount = Callable[..., Mounted]


def run(shelf: Shelf, *flags: str, **environment: str) -> tuple[int, str]:
    """Runs the program to its end; returns code and what it said."""
    done = subprocess.run(
        command(shelf, *flags), capture_output=True, text=True, timeout=30, env={**os.environ, **environment}
    )
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def one_sentence(said: str) -> str:
    assert said.count("\n") == 1, said
    return said


def test_no_mount_point_is_one_sentence(shelf: Shelf) -> None:
    code, said = run(shelf, f"{shelf.root}/none")
    assert code == 2
    assert "does not exist" in one_sentence(said)
    assert not os.path.exists(f"{shelf.root}/none")


def test_a_full_mount_point_is_one_sentence(shelf: Shelf) -> None:
    with open(f"{shelf.mount}/x", "w"):
        pass
    code, said = run(shelf)
    assert code == 2
    assert "not empty: move what lies in it elsewhere, or choose" in one_sentence(said)


def test_a_file_as_mount_point_is_one_sentence(shelf: Shelf) -> None:
    code, said = run(shelf, shelf.config)
    assert code == 2
    assert "no folder" in one_sentence(said)


@pytest.mark.parametrize("flags", [["x"], ["--unmount", "x"], ["--state", "x"]], ids=" ".join)
def test_a_folder_to_stand_in_that_is_gone_is_one_sentence(shelf: Shelf, flags: list[str]) -> None:
    os.mkdir(gone := f"{shelf.root}/gone")
    words = ["sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', gone, *command(shelf, *flags)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert one_sentence(done.stderr) == "dumbwaiter: No such file or directory\n"


def test_no_configuration_is_one_sentence(shelf: Shelf) -> None:
    os.unlink(shelf.config)
    code, said = run(shelf)
    assert code == 2
    assert "configuration" in one_sentence(said)


@pytest.mark.parametrize("folder", ["drop/in", "."])
def test_a_mount_in_a_watch_or_round_one_is_refused(shelf: Shelf, folder: str) -> None:
    os.mkdir(f"{shelf.drop}/in")
    os.symlink(os.path.join(shelf.root, folder), f"{shelf.root}/link")
    code, said = run(shelf, f"{shelf.root}/link")
    assert code == 2
    assert "uploaded into itself" in one_sentence(said)


def test_a_mount_over_the_state_folder_is_refused(shelf: Shelf) -> None:
    code, said = run(shelf, shelf.state)
    assert code == 2
    assert "would hide it" in one_sentence(said)


@needs_root
def test_a_cache_folder_of_somebody_else_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    os.chown(tmp_path, UID, UID)
    code, said = run(shelf, "--cache", str(tmp_path))
    assert code == 2
    assert "belongs to somebody else: name another one with --cache" in one_sentence(said)
    with open(shelf.config, "a", encoding="utf-8") as file:
        file.write('cache_size = "0"\n')  # none is used
    assert run(shelf, "--cache", str(tmp_path), "--check") == (0, "")


def test_a_library_that_is_missing_or_too_new_is_named(shelf: Shelf) -> None:
    for library in ("/nonexistent/libfuse.so", "libc.so.6"):
        code, said = run(shelf, FUSE_LIBRARY_PATH=library)
        assert code == 1
        assert "libfuse2" in one_sentence(said)


def test_an_ordinary_user_without_fusermount_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(mount_point.shutil, "which", lambda *args, **more: None)
    with pytest.raises(Failure, match="fusermount: install the package"):
        program._check_fuse(Config())


def test_a_signal_before_the_mount_is_there_leaves_nothing(shelf: Shelf) -> None:
    for delay in (0.1, 0.3, 0.5, 0.7, 0.9):
        mounted = Mounted(shelf)
        try:
            # Some of these come before the handlers, some amid mounting, some after.
            with suppress(subprocess.TimeoutExpired):
                mounted.process.wait(delay)
            assert mounted.stop() in {0, -signal.SIGTERM}
            assert mount_point.kind(mounted.path) is None
        finally:
            mounted.clear()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_and_takes_the_mount_off(mount: Mount, number: int) -> None:
    mounted = mount()
    assert os.listdir(mounted.path) == ["keys", "files", "outbox"]
    assert mounted.stop(number) == 0
    assert mount_point.kind(mounted.path) is None


def test_a_mount_whose_folder_has_another_place_by_now_is_taken_off_there(shelf: Shelf, mount: Mount) -> None:
    above, moved = f"{shelf.root}/above", f"{shelf.root}/moved"
    shelf.mount = f"{above}/mnt"
    os.makedirs(shelf.mount)
    mounted = mount(shelf.mount)
    os.rename(above, moved)
    try:
        assert mounted.stop() == 0
        assert mount_point.kind(f"{moved}/mnt") is None
    finally:
        if mount_point.kind(f"{moved}/mnt") == mount_point.KIND:
            mount_point.unmount(f"{moved}/mnt", lazy=True)


def test_one_that_was_taken_off_lazily_leaves_the_next_on_its_folder_alone(shelf: Shelf, mount: Mount) -> None:
    shelf.entry("a", shelf.write("a", b"x" * 100))
    first = mount()
    descriptor = os.open(first.at("files/w/a"), os.O_RDONLY)
    try:
        mount_point.unmount(first.path, lazy=True)
        second = mount()
        assert first.stop() == 0
        assert second.read("files/w/a") == b"x" * 100
    finally:
        with suppress(OSError):  # its file system is gone
            os.close(descriptor)
    assert second.stop() == 0


def test_a_signal_ends_it_while_a_file_is_open(shelf: Shelf, mount: Mount) -> None:
    shelf.entry("a", shelf.write("a", b"x" * 100))
    mounted = mount()
    descriptor = os.open(mounted.at("files/w/a"), os.O_RDONLY)
    try:
        assert mounted.stop() == 0
        assert mount_point.kind(mounted.path) is None
    finally:
        with suppress(OSError):  # its file system is gone
            os.close(descriptor)


def test_a_signal_ends_it_while_a_read_hangs(shelf: Shelf, mount: Mount, origin: Any) -> None:
    shelf.entry("a", 100, url=origin.put("a", b"x" * 100, hang=True))
    mounted = mount(deadline=30.0)
    reader = subprocess.Popen(["cat", mounted.at("files/w/a")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: origin.requests)
        assert mounted.stop() == 0
        assert mount_point.kind(mounted.path) is None
        assert reader.wait(10) != 0
    finally:
        reader.kill()
        reader.wait()


def test_unmounting_from_outside_ends_it(shelf: Shelf, mount: Mount) -> None:
    mounted = mount()
    assert run(shelf, "--unmount") == (0, "")  # the configured one
    assert mounted.process.wait(10) == 0
    assert '"error"' not in mounted.said()
    code, said = run(shelf, "--unmount", mounted.path)
    assert code == 1
    assert "is not mounted" in one_sentence(said)


def test_unmounting_while_a_file_is_open_says_so(shelf: Shelf, mount: Mount) -> None:
    shelf.entry("a", shelf.write("a", b"x"))
    mounted = mount()
    with open(mounted.at("files/w/a"), "rb") as file:
        code, said = run(shelf, "--unmount", mounted.path)
        assert code == 5
        assert "in use" in one_sentence(said)
        assert file.read() == b"x"


def test_a_second_mount_on_the_same_folder_is_refused(shelf: Shelf, mount: Mount) -> None:
    mount()
    code, said = run(shelf)
    assert code == 1
    assert "mounted already" in one_sentence(said)
    assert os.listdir(shelf.mount)


def test_a_second_mount_where_one_does_not_answer_is_refused(
    shelf: Shelf, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount().process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(mount_point, "ANSWER", 0.1)
    with pytest.raises(Failure, match="does not answer: end it first"):
        mount_point.prepare(shelf.mount)


@pytest.mark.parametrize("linked", [False, True], ids=["by its name", "through a link"])
def test_a_mount_that_does_not_answer_is_taken_off(shelf: Shelf, mount: Mount, linked: bool) -> None:
    os.symlink("mount", f"{shelf.root}/link")
    mount().process.send_signal(signal.SIGSTOP)
    assert run(shelf, "--unmount", f"{shelf.root}/link" if linked else shelf.mount) == (0, "")
    assert mount_point.kind(shelf.mount) is None


def test_a_dead_mount_is_cleared_at_the_next_start(shelf: Shelf, mount: Mount) -> None:
    first = mount()
    os.stat(first.path)  # the kernel keeps that for a while, also from one that is no more
    first.process.kill()
    first.process.wait()
    with pytest.raises(OSError, match="not connected"):
        os.statvfs(first.path)
    second = mount()
    assert os.listdir(second.path) == ["keys", "files", "outbox"]
    assert second.stop() == 0
    assert os.listdir(shelf.mount) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a foreign file system")
def test_a_foreign_mount_is_left_alone(shelf: Shelf) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "none", shelf.mount], check=True)
    try:
        code, said = run(shelf)
        assert code == 2
        assert "tmpfs" in one_sentence(said)
        assert run(shelf, "--unmount", shelf.mount)[0] == 1
        assert mount_point.kind(shelf.mount) == "tmpfs"
    finally:
        subprocess.run(["umount", shelf.mount], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a foreign file system")
def test_a_foreign_mount_over_ours_is_left_alone_and_ours_below_it(shelf: Shelf, mount: Mount) -> None:
    shelf.mount = f"{shelf.root}/a mount"
    os.mkdir(shelf.mount)
    mounted = mount(shelf.mount)
    subprocess.run(["mount", "-t", "tmpfs", "none", shelf.mount], check=True)
    try:
        code, said = run(shelf, shelf.mount)
        assert code == 2
        assert "tmpfs" in one_sentence(said)
        code, said = run(shelf, "--unmount", shelf.mount)
        assert code == 1
        assert "is not mounted" in one_sentence(said)
        assert mount_point.kind(shelf.mount) == "tmpfs"
        assert mount_point.identity(shelf.mount) is None
    finally:
        subprocess.run(["umount", shelf.mount], check=True)
    assert os.listdir(shelf.mount) == ["keys", "files", "outbox"]
    assert run(shelf, "--unmount", shelf.mount) == (0, "")
    assert mounted.process.wait(10) == 0


def test_in_the_background_it_returns_when_the_mount_answers(shelf: Shelf) -> None:
    shelf.entry("a", shelf.write("a", b"x"))
    with open(f"{shelf.root}/log", "wb") as log:
        done = subprocess.run(command(shelf, "--background"), stdout=subprocess.PIPE, stderr=log, timeout=30)
    try:
        assert (done.returncode, done.stdout) == (0, b"")
        with open(f"{shelf.mount}/files/w/a", "rb") as file:
            assert file.read() == b"x"
    finally:
        assert run(shelf, "--unmount", shelf.mount) == (0, "")
    until(lambda: '"unmounted"' in text(f"{shelf.root}/log"))


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("program", ["dumbwaiter", "dumbwaiter_fs.mount"])
def test_in_the_background_it_mounts_without_streams_too(shelf: Shelf, program: str, closed: str) -> None:
    words = command(shelf, "--background")
    if program == "dumbwaiter":
        words = [*words[:2], program, *words[3:-1], "mount", words[-1]]
    try:
        assert subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *words], timeout=30).returncode == 0
        assert os.listdir(shelf.mount) == ["keys", "files", "outbox"]
    finally:
        if mount_point.kind(shelf.mount) == mount_point.KIND:
            mount_point.unmount(shelf.mount)


def test_in_the_background_it_says_nothing_when_asked_to_be_quiet(shelf: Shelf) -> None:
    words = command(shelf, "--background")
    words = [*words[:2], "dumbwaiter", "-q", *words[3:-1], "mount", words[-1]]
    try:
        done = subprocess.run(words, capture_output=True, timeout=30)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    finally:
        mount_point.unmount(shelf.mount)


def test_in_the_background_it_has_failed_when_it_is_ended_before_it_answers(shelf: Shelf) -> None:
    begin = (
        "import os, signal, sys; from dumbwaiter_fs import mount; "
        "mount._Life._serve = lambda *_: os.kill(os.getpid(), signal.SIGTERM); sys.exit(mount.main())"
    )
    words = command(shelf, "--background")
    done = subprocess.run([words[0], "-c", begin, *words[3:]], capture_output=True, timeout=30)
    assert done.returncode == 1
    assert mount_point.kind(shelf.mount) is None


def test_in_the_background_a_failure_has_its_code_and_sentence(shelf: Shelf) -> None:
    os.rmdir(shelf.mount)
    code, said = run(shelf, "--background")
    assert code == 2
    assert "does not exist" in one_sentence(said)


def test_systemd_is_told(shelf: Shelf, mount: Mount) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.settimeout(10)
        heard.bind(f"{shelf.root}/notify")
        mounted = mount(NOTIFY_SOCKET=f"{shelf.root}/notify")
        assert heard.recv(100) == b"READY=1"
        mounted.stop()
        assert heard.recv(100) == b"STOPPING=1"


def test_it_survives_that_the_journal_is_made_later(tmp_path: Any, mount: Mount) -> None:
    os.mkdir(root := os.path.realpath(tmp_path / "late"))
    shelf = Shelf(root, journal=False)
    mounted = mount(on=shelf)
    assert os.listdir(mounted.at("files")) == []
    shelf.create()
    shelf.entry("a", shelf.write("a", b"x"))
    until(lambda: os.path.exists(mounted.at("files/w/a")))
    assert mounted.read("files/w/a") == b"x"
    shelf.close()


def test_the_options_are_those_of_a_harmless_mount(mount: Mount) -> None:
    mounted = mount()
    line = next(line.split() for line in text("/proc/mounts").splitlines() if line.split()[1] == mounted.path)
    assert line[0] == "dumbwaiter"
    assert line[2] == "fuse.dumbwaiter"
    assert {"ro", "nosuid", "nodev", "default_permissions", "max_read=1048576"} <= set(line[3].split(","))
    assert "allow_other" not in line[3]


@also_libfuse3
def test_nothing_is_left_over_after_many_readers(shelf: Shelf, mount: Mount, origin: Any) -> None:
    for index in range(20):
        shelf.entry(f"f{index}", 1000, url=origin.put(f"f{index}", b"x" * 1000))
    mounted = mount()
    task = f"/proc/{mounted.process.pid}"

    def everybody() -> None:
        threads = [threading.Thread(target=mounted.read, args=(f"files/w/f{index}",)) for index in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    for _ in range(6):
        everybody()
    # SQLite keeps up to fifteen descriptors (one for each thread that asked at once), the pool sixteen connections.
    until(lambda: len(os.listdir(f"{task}/fd")) <= 15 + 2 * 5 + 16 + 8)
    until(lambda: len(os.listdir(f"{task}/task")) <= 16)


@pytest.mark.parametrize(
    ("session", "library"),
    [
        ("fast", {}),
        ("fusepy", {}),
        pytest.param("fast", OVER_LIBFUSE3, marks=pytest.mark.skipif(not LIBFUSE3, reason="no libfuse 3")),
    ],
)
def test_an_ordinary_user_mounts_and_unmounts(session: str, library: dict[str, str]) -> None:
    """The real program through the real fusermount, see `ordinary_user`."""
    apart = ["unshare", "--mount", "--propagation", "private"]
    tool = mount_point.fusermount()
    if os.geteuid() != 0 or tool is None or not os.stat(tool).st_mode & stat.S_ISUID:
        pytest.skip("needs root, to become somebody else, and a fusermount that becomes root")
    if not shutil.which("unshare") or subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("needs a mount namespace")
    with tempfile.TemporaryDirectory(prefix="dumbwaiter-user-") as folder:
        os.chmod(folder, 0o755)  # the way to that user's own folder in it
        done = subprocess.run(
            [*apart, sys.executable, "-m", "fs.ordinary_user", os.path.realpath(folder), session],
            capture_output=True,
            text=True,
            timeout=100,
            env={**os.environ, **library, "PYTHONPATH": os.path.dirname(os.path.dirname(__file__))},
        )
        assert done.returncode == 0, done.stderr


def test_a_signal_that_another_thread_of_the_mount_is_given_is_heard() -> None:
    """As is one that comes right before the main thread falls asleep: nothing interrupts its sleep."""
    program = (
        "import os, signal, threading, time\n"
        "from dumbwaiter_fs.events import Events\n"
        "events = Events([signal.SIGTERM])\n"
        "threading.Thread(target=lambda: (time.sleep(0.3), os.kill(os.getpid(), signal.SIGTERM))).start()\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"  # here alone: the kernel takes the other thread
        "print(events.next(0.01), events.next(None))\n"
        "events.put('mounted')\n"
        "print(events.next(None))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("None SIGTERM\nmounted\n", "")
