"""Disks that answer nothing: file systems of our own, one that only its end wakes, and one that dies and comes back."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from dumbwaiter_fs import mount_point

FUSERMOUNT = mount_point.fusermount() or "fusermount"
PATIENCE = 60.0
LIFE = 90.0  # less than a test's timeout: whoever waits for it in the kernel can be ended by nothing else
_DISK = """
import os, sys, threading
from dumbwaiter_fs import binding
class Dead(binding.Operations):
    def __call__(self, op, *arguments):
        return 0 if op in ("init", "destroy") else threading.Event().wait()
end = threading.Timer(float(sys.argv[2]), os._exit, (1,))
end.daemon = True
end.start()
binding.serve(Dead(), sys.argv[1], "utf-8", {})
"""
_MIRROR = """
import os, sys
from dumbwaiter_fs import binding
class Mirror(binding.Operations):
    def __call__(self, op, *arguments):
        return getattr(self, op)(*arguments)
    def getattr(self, path, info=None):
        found = os.lstat(sys.argv[2] + path)
        return {key: getattr(found, key) for key in dir(found) if key.startswith("st_")}
    def readdir(self, path, info):
        return os.listdir(sys.argv[2] + path)
    def open(self, path, info):
        info.fh = os.open(sys.argv[2] + path, info.flags)
        return 0
    def read(self, path, size, offset, info):
        return os.pread(info.fh, size, offset)
    def release(self, path, info):
        os.close(info.fh)
binding.serve(Mirror(), sys.argv[1], "utf-8", {})
"""


def dead_disk(folder: str | Path) -> "AbstractContextManager[subprocess.Popen[bytes]]":
    """Mounts a disk that is dead from the beginning; whoever waits for it is let go in the end."""
    return _mounted(_DISK, folder, str(LIFE))


def mirror_disk(folder: str | Path, source: str | Path) -> "AbstractContextManager[subprocess.Popen[bytes]]":
    """Mounts one that has the files of `source`; it is dead while its process is stopped."""
    return _mounted(_MIRROR, folder, source)


@contextmanager
def _mounted(program: str, folder: str | Path, *words: str | Path) -> Iterator["subprocess.Popen[bytes]"]:
    disk = subprocess.Popen([sys.executable, "-c", program, folder, *words])
    try:
        end = time.monotonic() + PATIENCE
        while f" {folder} fuse" not in Path("/proc/self/mounts").read_text():
            assert time.monotonic() < end
            time.sleep(0.02)
        yield disk
    finally:
        subprocess.run([FUSERMOUNT, "-uzq", folder], check=False)
        disk.kill()
        disk.wait(PATIENCE)
