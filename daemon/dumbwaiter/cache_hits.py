"""How often the mount's cache had what was wanted. The mount counts, the daemon tells: a file joins the two processes."""

import errno
import os
import stat
import struct
import threading
from fcntl import LOCK_EX, LOCK_NB, flock

REST = 1.0  # seconds that counts may wait in memory

_TOTALS = struct.Struct("<QQ")


def read(cache: str) -> tuple[int, int]:
    """Returns blocks that were in the cache, and blocks that had to be fetched, since there is a cache folder."""
    try:
        with open(_opened(_path(cache), os.O_RDONLY), "rb") as file:
            hits, misses = _TOTALS.unpack(file.read(_TOTALS.size))
    except (OSError, struct.error):
        return 0, 0
    return hits, misses


class Hits:
    """What one mount counts; several may share the folder. Never raises: a count is not worth a read."""

    def __init__(self, cache: str) -> None:
        self._path = _path(cache)
        self._lock = threading.Lock()
        self._hits = self._misses = 0
        self._telling: threading.Timer | None = None

    def add(self, *, hits: int = 0, misses: int = 0) -> None:
        """Counts; the file follows within a second of use."""
        with self._lock:
            self._hits += hits
            self._misses += misses
            if self._telling is None:
                self._telling = threading.Timer(REST, self.close)
                self._telling.daemon = True
                self._telling.start()

    def close(self) -> None:
        """Writes what is left."""
        with self._lock:
            if self._telling is not None:
                self._telling.cancel()
            self._telling = None
            hits, misses = self._hits, self._misses
            self._hits = self._misses = 0
        if not hits and not misses:
            return
        try:  # without the lock: whoever reads must not wait for a disk
            self._tell(hits, misses)
        except OSError:
            with self._lock:
                self._hits += hits
                self._misses += misses

    def _tell(self, more_hits: int, more_misses: int) -> None:
        os.makedirs(os.path.dirname(self._path), 0o700, exist_ok=True)
        with open(_opened(self._path, os.O_RDWR | os.O_CREAT), "r+b") as file:
            flock(file, LOCK_EX | LOCK_NB)  # another mount may hold it, or a lock server be gone
            content = file.read(_TOTALS.size)
            hits, misses = _TOTALS.unpack(content) if len(content) == _TOTALS.size else (0, 0)
            file.seek(0)
            file.write(_TOTALS.pack(hits + more_hits, misses + more_misses))


def _opened(path: str, flags: int) -> int:
    """Opens a file of our own. Raises OSError for whatever somebody else may have put in its place."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_uid in {os.geteuid(), 0} and status.st_nlink <= 1:
        return fd
    os.close(fd)
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)


def _path(cache: str) -> str:
    return os.path.join(cache, "hits")
