"""Downloads under way: what their programs keep beside a file that is not all there yet."""

import errno
import os
import time
from contextlib import closing

from dumbwaiter.files.scan import FILE, Branch
from dumbwaiter.naming import split

# What aria2 and lftp (and axel, in NAME.st) keep beside a file, aria2 also beside a torrent's folder, until all of it is there. They fetch it in
# pieces, so it may have its full size long before.
NOTES = (".aria2", ".lftp-pget-status")
# Of a name: nothing stands there, or what this user may not see, or nothing can.
_NONE = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EACCES,
    errno.EPERM,
    errno.ENXIO,
    errno.EAGAIN,
    errno.EISDIR,
}
LOADING = 900.0  # seconds without a byte after which a download has been given up


def notes_beside(root: str, path: str) -> str:
    """Returns the path of the notes on a download that stand beside a file or a folder, or are that file; empty without any.

    Raises OSError when that could not be found out: what is downloaded in part must not be taken for whole.
    """
    beside = (path + suffix for suffix in NOTES if _is_there(f"{root}/{path}{suffix}"))
    axels = (one for one in (f"{path}.st", path) if _is_axels(root, one))
    return next(beside, "") or next(axels, "")


def _is_there(path: str) -> bool:
    with _NothingThere():
        os.lstat(path)
        return True
    return False


class _NothingThere:
    """Passes over that there is nothing to see under a name; another OSError says nothing of that, and is raised."""

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        return isinstance(error, OSError) and error.errno in _NONE


def _is_axels(root: str, path: str) -> bool:
    """Says whether a file is axel's notes: the number of its connections, ten bytes with the sum, and sixteen for each."""
    if not path.endswith(".st"):
        return False
    with _NothingThere():
        descriptor = os.open(f"{root}/{path}", FILE)
        try:
            return os.fstat(descriptor).st_size == 10 + 16 * int.from_bytes(os.read(descriptor, 2), "little")
        finally:
            os.close(descriptor)
    return False


def notes_of_download(root: str, path: str) -> str:
    """Returns the path of the notes that say that a file is not all there; they may be those of a folder that it is in.

    Raises OSError, as `notes_beside` does.
    """
    notes = ""
    while path and not notes:
        notes, path = notes_beside(root, path), split(path)[0]
    return notes


class Downloads:
    """What is known of downloads while some files are looked at: each folder is asked once."""

    def __init__(self) -> None:
        self._notes: dict[tuple[str, str], str] = {}
        self._parts: dict[tuple[str, str], list[str]] = {}

    def notes(self, root: str, path: str) -> str:
        """Returns the path of the notes that say that a file is not all there, empty without any. Raises OSError."""
        folder, _ = split(path)
        if (root, folder) not in self._notes:
            self._notes[root, folder] = notes_of_download(root, folder)
        return self._notes[root, folder] or notes_beside(root, path)

    def is_written_beside(self, root: str, path: str) -> bool:
        """Says whether a browser writes beside an empty file what is to be in it. Raises OSError."""
        folder, name = split(path)
        if (root, folder) not in self._parts:
            self._parts[root, folder] = _under_way(root, folder)
        stem = name.rpartition(".")[0] or name
        return any(one.startswith(f"{stem}.") for one in self._parts[root, folder])


def _under_way(root: str, folder: str) -> list[str]:
    """Returns the names of a browser's downloads in a folder that go on; the real names may stand there, still empty."""
    found = []
    with _NothingThere(), closing(Branch(root)) as branch:
        place = branch.open(folder)
        for name in os.listdir(place):
            if name.endswith(".part"):
                with _NothingThere():  # it has ended since
                    if time.time() - os.stat(name, dir_fd=place, follow_symlinks=False).st_mtime < LOADING:
                        found.append(name)
    return found
