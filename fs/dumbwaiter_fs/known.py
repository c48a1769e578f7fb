"""What the kernel knows by number: folders and made-up files, each until it forgets it as often as it was told of it."""

import threading

from dumbwaiter_fs.inodes import ROOT


class Known:
    """Their paths. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paths = {ROOT: b""}
        self._told = {ROOT: 1}

    def __contains__(self, number: int) -> bool:
        return number in self._paths

    def path(self, number: int) -> bytes | None:
        """Returns the path of a number, None where it is a file's or not known any more."""
        return self._paths.get(number)

    def add(self, number: int, path: bytes) -> None:
        """Notes that the kernel was told of it once more."""
        with self._lock:
            self._paths.setdefault(number, path)
            self._told[number] = self._told.get(number, 0) + 1

    def forget(self, number: int, times: int) -> None:
        """Notes that the kernel forgets so many times that it was told of it; the root stays."""
        with self._lock:
            if number == ROOT or number not in self._told:
                return
            self._told[number] -= times
            if self._told[number] <= 0:
                del self._paths[number], self._told[number]


def below(folder: bytes, name: bytes) -> bytes:
    """Returns the path of a name in a folder; the root's path is empty."""
    return folder + b"/" + name if folder else name
