"""A disk that answers nothing: a file system of our own that only its end wakes."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 60.0
_DISK = """
import sys, threading, fuse
class Dead(fuse.Operations):
    def __call__(self, op, *arguments):
        return 0 if op in ("init", "destroy") else threading.Event().wait()
fuse.FUSE(Dead(), sys.argv[1], foreground=True, nothreads=False)
"""


@contextmanager
def dead_disk(folder: str | Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Mounts one; whoever waits for it is let go in the end."""
    disk = subprocess.Popen([sys.executable, "-c", _DISK, folder])
    try:
        end = time.monotonic() + PATIENCE
        while f" {folder} fuse" not in Path("/proc/self/mounts").read_text():
            assert time.monotonic() < end
            time.sleep(0.02)
        yield disk
    finally:
        subprocess.run(["fusermount", "-uzq", folder], check=False)
        disk.kill()
        disk.wait(PATIENCE)
