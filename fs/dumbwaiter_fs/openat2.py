"""Opening files with conditions that only the kernel can hold a path to (openat2, Linux 5.6)."""

import ctypes
import errno
import os

_OPENAT2 = 437  # on every architecture
_STAY = 0x01 | 0x02 | 0x04 | 0x08  # no other file system, no magic links, no symbolic links, not above the folder
_CACHED = 0x20  # only what the kernel knows without asking the disk (Linux 5.12)


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_open = ctypes.CDLL(None, use_errno=True).syscall
_open.restype = ctypes.c_long
_open.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_How), ctypes.c_size_t]
_HERE = -100  # AT_FDCWD


def below(base: int, path: str, flags: int) -> int:
    """Opens a path that stays in its folder, its file system, and clear of links; where the kernel can see to it."""
    try:
        return _opened(base, path, _How(flags, 0, _STAY))
    except OSError as error:
        if error.errno in {errno.ENOSYS, errno.EPERM}:  # a kernel before 5.6, or a sandbox that does not know the call
            return os.open(path, flags, dir_fd=base)
        raise


def without_waiting(path: str) -> int:
    """Opens a file to read if that needs no look at the disk. Raises OSError: EAGAIN where it does."""
    return _opened(_HERE, path, _READ_CACHED)


def _opened(base: int, path: str, how: _How) -> int:
    descriptor = int(_open(_OPENAT2, base, os.fsencode(path), how, _SIZE))
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return descriptor


_SIZE = ctypes.sizeof(_How)
_READ_CACHED = _How(os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _CACHED)
