"""Opening files with conditions that only the kernel can hold a path to (openat2, Linux 5.6), however long the path is."""

import ctypes
import errno
import os
from collections.abc import Callable

PATH_MAX = 4096  # bytes that one call takes, with the zero at the end
_OPENAT2 = 437  # on every architecture
_STAY = 0x01 | 0x02 | 0x04 | 0x08  # no other file system, no magic links, no symbolic links, not above the folder
_CACHED = 0x20  # only what the kernel knows without asking the disk (Linux 5.12)
_WAY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_open = ctypes.CDLL(None, use_errno=True).syscall
_open.restype = ctypes.c_long
_open.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_How), ctypes.c_size_t]
_HERE = -100  # AT_FDCWD


def below(base: int, path: str, flags: int) -> int:
    """Opens a path that stays in its folder, its file system, and clear of links; where the kernel can see to it."""
    return _in_steps(_staying, base, os.fsencode(path), flags)


def anywhere(path: str, flags: int) -> int:
    """Opens an absolute path by whatever links are on its way."""
    return _in_steps(_following, _HERE, os.fsencode(path), flags)


def open_nowait(path: str) -> int:
    """Opens a file to read if that needs no look at the disk. Raises OSError: EAGAIN where it does."""
    return _opened(_HERE, os.fsencode(path), _READ_CACHED)


def _in_steps(one: Callable[[int, bytes, int], int], base: int, path: bytes, flags: int) -> int:
    """Opens a path by as many calls of `one` as its length takes."""
    at = base
    try:
        while len(path) >= PATH_MAX and (end := path.rfind(b"/", 0, PATH_MAX)) > 0:
            further = one(at, path[:end], _WAY)
            if at != base:
                os.close(at)
            at, path = further, path[end + 1 :]
        return one(at, path, flags)
    finally:
        if at != base:
            os.close(at)


def _staying(base: int, path: bytes, flags: int) -> int:
    try:
        return _opened(base, path, _How(flags | os.O_LARGEFILE, 0, _STAY))
    except OSError as error:
        if error.errno in {errno.ENOSYS, errno.EPERM}:  # a kernel before 5.6, or a sandbox that does not know the call
            return _following(base, path, flags)
        raise


def _following(base: int, path: bytes, flags: int) -> int:
    return os.open(path, flags, dir_fd=base)


def _opened(base: int, path: bytes, how: _How) -> int:
    descriptor = int(_open(_OPENAT2, base, path, how, _SIZE))
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return descriptor


_SIZE = ctypes.sizeof(_How)
_READ_CACHED = _How(os.O_RDONLY | os.O_LARGEFILE | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _CACHED)
