"""A watched folder on a disk that answers nothing."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dead_disk import PATIENCE, dead_disk
from program import Program

DEAD = "jimeng"


@pytest.fixture
def dead(program: Program) -> Iterator[subprocess.Popen[bytes]]:
    """The file system in the place of a watch's folder; the daemon is not running yet."""
    with dead_disk(folder(program)) as disk:
        yield disk
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
