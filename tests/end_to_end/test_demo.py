"""What `make demo` shows holds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.fuse
def test_the_demo_holds_and_leaves_nothing_behind() -> None:
    as_it_is = [
        f"VENV={sys.prefix}",
        f"--assume-old={sys.prefix}/.ready",
    ]  # the environment is there: this test runs in it
    # Not as a part of `make test`: a make within a make says so among the demo's lines.
    alone = {name: value for name, value in os.environ.items() if name not in {"MAKELEVEL", "MAKEFLAGS", "MFLAGS"}}
    done = subprocess.run(
        ["make", "demo", *as_it_is], cwd=ROOT, env=alone, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout.splitlines()[1:]  # the first line is what make runs
    steps = [line.split()[0] for line in told]
    assert steps[-1] == "held"
    assert {"kill", "result", "record"} <= set(steps)
    folder = next(line.split()[-1] for line in told if line.split()[0] == "mount")
    assert not os.path.exists(folder)
    with open("/proc/mounts", encoding="utf-8") as mounts:
        assert folder not in mounts.read()
