"""Blocks of remote files on disk: what was fetched once is not fetched again, after a restart neither.

A block is a file of its own, written aside and renamed. So several mounts may share the folder, and a crash leaves at
most a file that nobody looks for. Each block carries a digest over its name, its version's validator and its bytes; one that
does not agree is removed, and its bytes are fetched again. A file's modification time is when it was last used.

Why no library: diskcache, the kept one, writes to SQLite at every read, unpickles what it finds, and knows neither digests
nor free space.
"""

import contextlib
import errno
import os
import shutil
import stat
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from xxhash import xxh3_128

from dumbwaiter import log
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.model import KIB, MIB
from dumbwaiter.naming import shown
from dumbwaiter.places import foreign, private_folder
from dumbwaiter_fs.openat2 import open_nowait

BLOCK = 256 * KIB
AGE = 30 * 86400.0  # seconds without use
SPARE = 1024 * MIB  # bytes that stay free on the file system
FILES_MAX = 1 << 20  # 256 GiB of whole blocks; a sweep takes some seconds by then
REST = 60.0  # seconds without storing, after a sweep that made no room or a disk that refused
SWEEP = 0.5  # seconds that a block waits for a sweep, at most, to be stored
USED = 60.0  # seconds within which a block's use is noted once
LEFT = 3600.0  # seconds after which a file that was never renamed is nobody's any more

_HEAD = struct.Struct("<4s16sH")  # what it is, digest, length of the validator
VALIDATOR_MAX = 1024
LONGEST = _HEAD.size + VALIDATOR_MAX + BLOCK  # bytes of a file
_MAGIC = b"DWB1"
_log = log.get(__name__)


def check_owner(cache: str) -> None:
    """Raises `Failure` when the cache folder, or that of the blocks in it, is somebody else's, who could forge blocks."""
    for folder in (cache, blocks_of(cache)):
        if foreign(folder):
            raise Failure(
                f"the cache folder {shown(folder)} belongs to somebody else: name another one with --cache", Exit.USAGE
            )


def blocks_of(cache: str) -> str:
    """Returns where the blocks of a cache folder are."""
    return os.path.join(cache, "blocks")


class Block(NamedTuple):
    """Bytes, and the validator (ETag or date) of the version that they belong to."""

    validator: str
    data: bytes


class View(NamedTuple):
    """A block whose bytes lie in a buffer that will be used again."""

    validator: str
    data: memoryview


class Cache:
    """A folder of blocks, at most `limit` bytes; with a second mount on it, a tenth more. Any thread may call.

    Never raises: a cache that cannot be used holds nothing, and a folder in it that is somebody else's neither.
    """

    def __init__(self, folder: str, limit: int, *, spare: int = SPARE) -> None:
        self._folder = folder
        self._limit = limit
        self._spare = spare
        self._lock = threading.Condition()
        self._sweeping = False
        self._room = 0  # bytes that may be written before the next sweep
        self._places = 0  # files likewise
        self._rest_until = 0.0
        self._told = False
        self._ours: set[str] = set()  # folders in it

    def get(self, name: str, index: int) -> Block | None:
        """Returns block `index` of the version called `name`, None when it is not here whole."""
        path = self._path(name, index)
        if not self._own(os.path.dirname(path)):
            return None
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            status = os.fstat(descriptor)
            head = os.pread(descriptor, _HEAD.size + VALIDATOR_MAX, 0)
            data = os.pread(descriptor, BLOCK, _start(head))
            block = Block(_checked_validator(name, index, head, data), data)
            if abs(time.time() - status.st_mtime) > USED:
                with contextlib.suppress(OSError):  # a cache on a disk that became read-only is good to read from
                    os.utime(descriptor)
            return block
        except (OSError, ValueError, struct.error):
            _log.warning("damaged block removed", block=os.path.basename(path))
            _remove(path)
            return None
        finally:
            os.close(descriptor)

    def get_nowait(self, name: str, index: int, into: bytearray) -> View | None:
        """Returns a block, read into `into`, which takes `LONGEST` bytes, if the kernel has it in memory; else None.

        Notes no use, and leaves a damaged block to `get`.
        """
        path = self._path(name, index)
        if not self._own(os.path.dirname(path)):
            return None
        try:
            descriptor = open_nowait(path)
        except OSError:
            return None
        try:
            whole = memoryview(into)[: os.preadv(descriptor, [into], 0, os.RWF_NOWAIT)]
            data = whole[_start(whole) :]
            return View(_checked_validator(name, index, whole, data), data)
        except (OSError, ValueError, struct.error):
            return None
        finally:
            os.close(descriptor)

    def touch(self, blocks: Iterable[tuple[str, int]]) -> None:
        """Notes that blocks have been used; each is a version's name and an index."""
        for name, index in blocks:
            path = self._path(name, index)
            if not self._own(os.path.dirname(path)):
                continue
            with contextlib.suppress(OSError):
                if abs(time.time() - os.stat(path).st_mtime) > USED:
                    os.utime(path)

    def put(self, name: str, index: int, block: Block) -> None:
        """Keeps a block, if there is room and the disk lets us."""
        validator = block.validator.encode()
        size = _HEAD.size + len(validator) + len(block.data)
        if len(validator) > VALIDATOR_MAX or not self._admit(size):
            return
        path = self._path(name, index)
        folder = os.path.dirname(path)
        aside = f"{folder}/.{os.getpid()}-{threading.get_ident()}"
        try:
            private_folder(folder)
            if not self._own(folder):
                self._refused(PermissionError(errno.EPERM, f"{folder} belongs to somebody else"))
                return
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                head = _HEAD.pack(_MAGIC, _digest(name, index, validator, block.data), len(validator))
                if os.writev(descriptor, [head, validator, block.data]) != size:
                    raise OSError("the disk is full")
            finally:
                os.close(descriptor)
            os.rename(aside, path)
        except OSError as error:
            _remove(aside)
            self._refused(error)

    def drop(self, name: str) -> None:
        """Forgets a version."""
        folder = os.path.dirname(self._path(name, 0))
        for one in _listed(folder) if self._own(folder) else ():
            if one.name.startswith(f"{name}-"):
                _remove(one.path)

    def _own(self, folder: str) -> bool:
        """Says whether a folder of blocks is one of ours; what is not there is nobody's yet."""
        if folder in self._ours:
            return True
        try:
            status = os.lstat(folder)
        except OSError:
            return True
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in {os.geteuid(), 0}:
            return False
        self._ours.add(folder)
        return True

    def _path(self, name: str, index: int) -> str:
        return f"{self._folder}/{name[:2]}/{name}-{index:x}"

    def _admit(self, size: int) -> bool:
        """Takes `size` bytes of the room there is, after a sweep if need be."""
        with self._lock:
            if not self._lock.wait_for(lambda: not self._sweeping, SWEEP) or time.monotonic() < self._rest_until:
                return False
            if self._take(size):
                return True
            self._sweeping = True
        try:
            room, places = self._sweep()
        except OSError as error:
            room = places = 0
            self._refused(error)
        with self._lock:
            self._sweeping = False
            self._lock.notify_all()
            self._room, self._places = room, places
            taken = self._take(size)
            if not taken:
                self._rest_until = time.monotonic() + REST
        return taken

    def _take(self, size: int) -> bool:
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError:
            return False
        if size > self._room or not self._places or free < self._spare + size:
            return False
        self._room -= size
        self._places -= 1
        return True

    def _sweep(self) -> tuple[int, int]:
        """Removes what is old and, the longest unused first, what is too much; returns the room then.

        The blocks are gone through twice, since a million of them would not be held in memory: counted by the second of
        their last use, then removed up to the second that makes the room.
        """
        private_folder(self._folder)
        room = min(self._limit, max(self._limit // 10, 4 * BLOCK))
        sizes: Counter[int] = Counter()
        files: Counter[int] = Counter()
        for used, size, _ in self._blocks():
            sizes[used] += size
            files[used] += 1
        total, number = sizes.total(), files.total()
        free = shutil.disk_usage(self._folder).free
        much = max(total + room - self._limit, self._spare + min(room, total) - free)
        many = number - FILES_MAX * 9 // 10
        if (until := _reached(sizes, files, much, many)) is None:
            return room, FILES_MAX - number
        for used, size, path in self._blocks():
            if used < until or (used == until and (much > 0 or many > 0)):
                _remove(path)
                much, many, number = much - size, many - 1, number - 1
        return room, FILES_MAX - number

    def _blocks(self) -> Iterator[tuple[int, int, str]]:
        """Yields the second of its last use, size and path of each block; removes what nobody will use."""
        now = time.time()
        for folder in _listed(self._folder):
            for one in _listed(folder.path) if self._own(folder.path) else ():
                try:
                    status = one.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                left = one.name.startswith(".")
                if now - status.st_mtime > (LEFT if left else AGE):
                    _remove(one.path)
                elif not left:
                    yield int(status.st_mtime), max(status.st_size, status.st_blocks * 512), one.path

    def _refused(self, error: OSError) -> None:
        self._rest_until = time.monotonic() + REST
        if not self._told:
            self._told = True
            _log.warning("the cache cannot be written", path=self._folder, why=error.strerror or str(error))


def _reached(sizes: Mapping[int, int], files: Mapping[int, int], much: int, many: int) -> int | None:
    """Returns the second of last use up to which so many bytes and files were used, None if there are none too many."""
    until = None
    for second in sorted(sizes):
        if much <= 0 and many <= 0:
            break
        until = second
        much -= sizes[second]
        many -= files[second]
    return until


def _start(head: bytes | memoryview) -> int:
    """Returns where a block's own bytes begin. Raises ValueError or struct.error."""
    magic, _, length = _HEAD.unpack_from(head)
    if magic != _MAGIC:
        raise ValueError
    return _HEAD.size + int(length)


def _checked_validator(name: str, index: int, head: bytes | memoryview, data: bytes | memoryview) -> str:
    """Returns the validator of a block whose digest is right. Raises ValueError."""
    _, digest, length = _HEAD.unpack_from(head)
    validator = bytes(head[_HEAD.size : _HEAD.size + length])
    if _digest(name, index, validator, data) != digest:
        raise ValueError
    return validator.decode()


def _digest(name: str, index: int, validator: bytes, data: bytes | memoryview) -> bytes:
    digest = xxh3_128(f"{name}-{index}-{len(validator)}-".encode() + validator)
    digest.update(data)
    return digest.digest()


def _listed(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:
        return


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
