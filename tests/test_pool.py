"""Looks at work for threads on a machine that does not allow for all of them."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dumbwaiter.errors import Local
from dumbwaiter.jobs.threads import OpenFile, Threads
from dumbwaiter.net.abort import Abort
from dumbwaiter.pool import NO_THREAD, NoThread, Pool
from program import Program

BOUND = 30.0


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_work_waits_for_the_threads_there_are_and_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, done = threading.Event(), list[int]()
    with Pool(2) as pool:
        first = pool.submit(go_on.wait, BOUND)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        second = pool.submit(done.append, 2)
        go_on.set()
        assert first.result(BOUND)
        second.result(BOUND)
    assert done == [2]


def test_without_a_thread_work_is_refused_and_never_done(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    with Pool(2) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(NoThread):
                pool.submit(done.append, 1)
        pool.submit(done.append, 2).result(BOUND)
    assert done == [2]


def test_a_file_without_a_thread_waits_and_is_closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "film.mov").write_bytes(b"film")

    async def test() -> None:
        await asyncio.to_thread(int)  # closes the file
        threads = Threads(1, 1)
        fd = os.open(tmp_path / "film.mov", os.O_RDONLY)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(Local) as told:
            await threads.run(lambda: None, Abort(), OpenFile(fd, str(tmp_path)), last=True)
        assert str(told.value) == NO_THREAD
        monkeypatch.undo()
        await threads.look(str(tmp_path), int, lambda _nothing: None)  # behind what closes it
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
        threads.close()

    asyncio.run(test())


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        ('RuntimeError("can\'t start new thread")', NO_THREAD),
        ("MemoryError()", "there is not enough memory: end other programs, or raise this one's limit"),
    ],
)
def test_a_command_says_in_a_sentence_what_the_machine_has_too_little_of(
    program: Program, trouble: str, sentence: str
) -> None:
    started = (
        "import sys, threading\n"
        "from dumbwaiter.cli import main\n"
        f"def refuse(thread):\n    raise {trouble}\n"
        "threading.Thread.start = refuse\n"
        f"sys.argv[1:] = {['--config', str(program.config), 'check']!r}\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", started], capture_output=True, text=True, timeout=BOUND, check=False)
    assert done.stderr == f"dumbwaiter: {sentence}\n"
    assert done.returncode == 5
