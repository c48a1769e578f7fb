"""What `make demo` shows holds."""

import os
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.fuse
def test_the_demo_holds_and_leaves_nothing_behind() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dumbwaiter", "demo"], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    steps = [line.split()[0] for line in done.stdout.splitlines()]
    assert steps[-1] == "held"
    assert {"kill", "result", "record"} <= set(steps)
    folder = next(line.split()[-1] for line in done.stdout.splitlines() if line.split()[0] == "mount")
    assert not os.path.exists(folder)
    with open("/proc/mounts", encoding="utf-8") as mounts:
        assert folder not in mounts.read()
