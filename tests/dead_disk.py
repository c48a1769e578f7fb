"""A disk that answers nothing: a file system of our own that only its end wakes."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 60.0
LIFE = 90.0  # less than a test's timeout: whoever waits for it in the kernel can be ended by nothing else
_DISK = """
import os, sys, threading, fuse
class Dead(fuse.Operations):
    def __call__(self, op, *arguments):
        return 0 if op in ("init", "destroy") else threading.Event().wait()
end = threading.Timer(float(sys.argv[2]), os._exit, (1,))
end.daemon = True
end.start()
fuse.FUSE(Dead(), sys.argv[1], foreground=True, nothreads=False)
"""


@contextmanager
def dead_disk(folder: str | Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Mounts one; whoever waits for it is let go in the end."""
    disk = subprocess.Popen([sys.executable, "-c", _DISK, folder, str(LIFE)])
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
