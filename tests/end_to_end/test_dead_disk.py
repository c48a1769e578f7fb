"""A watched folder on a disk that answers nothing."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from dead_disk import FUSERMOUNT, PATIENCE, dead_disk, mirror_disk
from dumbwaiter.client import Connection
from dumbwaiter.errors import Exit
from dumbwaiter.model import MIB
from program import Program, digest

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
    subprocess.run([FUSERMOUNT, "-uz", folder(program)], check=True)
    # Until it is looked through, its ignore file is one that could not be read.
    program.until(lambda: (watch(program)["state"], watch(program)["message"]) == ("watching", ""))
    assert program.stop() == 0


@pytest.mark.torture
def test_t14_a_daemon_whose_folder_hangs_ends_but_for_threads_that_the_kernel_holds(
    program: Program, dead: subprocess.Popen[bytes]
) -> None:
    hangs(program)
    assert program("rescan").returncode == 0
    assert program("wait", "--timeout", "30s").returncode == 0  # nothing that can be done is left
    assert program.daemon is not None
    program.daemon.terminate()
    of_it = Path(f"/proc/{program.daemon.pid}/stat")
    program.until(lambda: of_it.read_text().rpartition(")")[2].split()[0] == "Z")
    dead.kill()
    assert program.daemon.wait(PATIENCE) == 0
    assert "raised an exception" not in program.log.read_text()


def order(program: Program, path: Path) -> None:
    """Is `put` of one who does not wait for the answer."""
    wish = {"paths": [str(path)], "provider": "netease", "watch": None}
    with (
        closing(Connection(str(program.state / "run/control.sock"), str(program.state), 1.0)) as connection,
        suppress(TimeoutError),
    ):
        connection.request("POST", "/put", json.dumps(wish))
        connection.getresponse()


def jobs(program: Program) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = program.status()["jobs"]
    return found


def watch(program: Program) -> dict[str, str]:
    (found,) = (one for one in program.status()["watches"] if one["name"] == DEAD)
    return dict(found)


def test_orders_for_files_on_a_dead_disk_keep_nothing_else_waiting(program: Program) -> None:
    nas = program.folder / "nas"
    nas.mkdir()
    with dead_disk(nas) as disk:
        program.start()
        with ThreadPoolExecutor(40) as callers:
            list(callers.map(lambda number: order(program, nas / f"{number}.bin"), range(40)))
        program.write("film.mov", b"film")
        program.until(lambda: len(program.stored()) == 1)
        assert program("put", "--provider", "netease", nas / "a.bin").stderr == (
            f"dumbwaiter: {nas}/a.bin: its folder does not answer\n"
        )
        assert program.daemon is not None
        program.daemon.send_signal(signal.SIGTERM)
        program.until(lambda: "stopping" in program.log.read_text())
        disk.kill()
        assert program.daemon.wait(PATIENCE) == 0


def test_who_uploads_from_a_dead_disk_without_a_daemon_is_told_so(program: Program) -> None:
    nas = program.folder / "nas"
    nas.mkdir()
    with dead_disk(nas) as disk:
        words = [sys.executable, "-m", "dumbwaiter", "put", "--provider", "netease", str(nas / "a.bin")]
        put = subprocess.Popen(words, env=program.environment, stderr=subprocess.PIPE, text=True)
        try:
            assert put.stderr is not None
            assert put.stderr.readline() == f"dumbwaiter: {nas}/a.bin: its folder does not answer\n"
            disk.kill()  # what waits for it in the kernel cannot be ended before
            assert put.wait(PATIENCE) == Exit.TEMPORARY
        finally:
            put.kill()
            put.communicate()


@pytest.mark.torture
def test_t14_a_disk_that_dies_while_its_files_are_sent_keeps_no_other_file_from_it(program: Program) -> None:
    nas, there = program.folder / "nas", program.folder / "there"
    nas.mkdir()
    there.mkdir()
    contents = {f"{number}.bin": os.urandom(32 * MIB) for number in range(2)}
    for name, content in contents.items():
        (there / name).write_bytes(content)
    program.config.write_text(program.config.read_text() + '\n[limits]\ntransfers = 2\nbandwidth = "8M"\n')
    with mirror_disk(nas, there) as disk:
        program.start()
        for name in contents:
            order(program, nas / name)
        program.until(lambda: sum(job["sent"] > 0 for job in program.status()["jobs"]) == 2)
        disk.send_signal(signal.SIGSTOP)
        film = program.write("film.mov", b"film").read_bytes()
        program.until(lambda: program.stored().get("film.mov") == digest(film))
        program.until(lambda: all(job["error"] == f"the folder {nas} does not answer" for job in jobs(program)))
        disk.send_signal(signal.SIGCONT)
        assert program("retry", "--all").returncode == 0
        program.until(lambda: len(program.catalogued()) == 3)
        assert set(program.stored().values()) == {digest(one) for one in [film, *contents.values()]}
        assert program.totals()["bytes_resent"] <= 2 * 4 * MIB  # what was on its way
        assert program.stop() == 0
