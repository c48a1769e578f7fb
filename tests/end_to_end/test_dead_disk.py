"""A watched folder on a disk that answers nothing: a file system of our own that only its end wakes."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from program import PATIENCE, Program

DEAD = "jimeng"
DISK = """
import sys, threading, fuse
class Dead(fuse.Operations):
    def __call__(self, op, *arguments):
        return 0 if op in ("init", "destroy") else threading.Event().wait()
fuse.FUSE(Dead(), sys.argv[1], foreground=True, nothreads=False)
"""


@pytest.fixture
def dead(program: Program) -> Iterator[subprocess.Popen[bytes]]:
    """The file system in the place of a watch's folder; the daemon is not running yet."""
    disk = subprocess.Popen([sys.executable, "-c", DISK, folder(program)])
    try:
        program.until(lambda: f" {folder(program)} fuse" in Path("/proc/self/mounts").read_text())
        yield disk
    finally:
        subprocess.run(["fusermount", "-uzq", folder(program)], check=False)
        disk.kill()
        disk.wait(PATIENCE)
        program.kill()


def folder(program: Program) -> str:
    return f"{program.data}/drop/{DEAD}"


def hangs(program: Program) -> None:
    """Has the daemon start although the folder hangs, and see to others."""
    program.start()
    program.write("film.mov", b"film")
    program.until(lambda: len(program.stored()) == 1)
    program.until(lambda: watch(program)["state"] == "away")
    assert watch(program)["message"] == f"{folder(program)} does not answer; its files wait."


def test_t14_a_folder_that_hangs_at_the_start_keeps_nothing_else_waiting_and_is_watched_when_it_answers(
    program: Program, dead: subprocess.Popen[bytes]
) -> None:
    hangs(program)
    dead.kill()
    subprocess.run(["fusermount", "-uz", folder(program)], check=True)
    program.until(lambda: watch(program)["state"] == "watching")
    assert watch(program)["message"] == ""
    assert program.stop() == 0


@pytest.mark.torture
def test_t14_a_daemon_whose_folder_hangs_ends_but_for_threads_that_the_kernel_holds(
    program: Program, dead: subprocess.Popen[bytes]
) -> None:
    hangs(program)
    assert program.daemon is not None
    program.daemon.terminate()
    of_it = Path(f"/proc/{program.daemon.pid}/stat")
    program.until(lambda: of_it.read_text().rpartition(")")[2].split()[0] == "Z")
    dead.kill()
    assert program.daemon.wait(PATIENCE) == 0
    assert "raised an exception" not in program.log.read_text()


def watch(program: Program) -> dict[str, str]:
    (found,) = (one for one in program.status()["watches"] if one["name"] == DEAD)
    return dict(found)
