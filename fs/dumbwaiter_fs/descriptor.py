"""The descriptor on which the kernel speaks FUSE, as libfuse opens it: for root by itself, else through fusermount."""

import ctypes
import os
from typing import Any


class _Arguments(ctypes.Structure):
    _fields_ = (
        ("argc", ctypes.c_int),
        ("argv", ctypes.POINTER(ctypes.c_char_p)),
        ("allocated", ctypes.c_int),
    )


def mounted(library: Any, folder: str, options: dict[str, Any]) -> int:
    """Mounts on a folder and returns the descriptor. Raises OSError where libfuse cannot or will not."""
    words = [name if value is True else f"{name}={value}" for name, value in options.items() if value is not False]
    opened = _opened_by_3 if hasattr(library, "fuse_open_channel") else _opened_by_2
    descriptor = opened(library, os.fsencode(folder), ",".join(words).encode())
    if descriptor < 0:
        raise OSError("libfuse gave no channel")
    os.set_inheritable(descriptor, False)
    return descriptor


def _opened_by_3(library: Any, folder: bytes, options: bytes) -> int:
    library.fuse_open_channel.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    return int(library.fuse_open_channel(folder, options))


def _opened_by_2(library: Any, folder: bytes, options: bytes) -> int:
    argv = (ctypes.c_char_p * 3)(b"dumbwaiter", b"-o" + options, None)
    mount, number = library.fuse_mount, library.fuse_chan_fd
    mount.restype, mount.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.POINTER(_Arguments)]
    number.restype, number.argtypes = ctypes.c_int, [ctypes.c_void_p]
    channel = mount(folder, ctypes.byref(_Arguments(2, argv, 0)))
    return int(number(channel)) if channel else -1
