"""A terminal of its own for a program that stays, or that asks."""

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from program import PATIENCE

CTRL_C = "\x03"


def until(
    words: Sequence[str],
    wanted: str,
    answer: str = CTRL_C,
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    """Starts a program, types `answer` once it has said what is wanted, and returns all that it said when it ended."""
    ours, theirs = pty.openpty()
    starts = ["setsid", "--ctty", "--wait", *words]
    running = subprocess.Popen(starts, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=folder)
    os.close(theirs)
    said = ""
    deadline = time.monotonic() + PATIENCE
    try:
        while not re.search(wanted, said):
            ready, _, _ = select.select([ours], [], [], max(0, deadline - time.monotonic()))
            assert ready, said
            said += os.read(ours, 10_000).decode(errors="replace")
        os.write(ours, answer.encode())
        with suppress(OSError):  # the terminal's end
            while more := os.read(ours, 10_000):
                said += more.decode(errors="replace")
        running.wait(PATIENCE)
    finally:
        running.kill()
        running.wait()
        os.close(ours)
    assert "Traceback" not in said
    return said
