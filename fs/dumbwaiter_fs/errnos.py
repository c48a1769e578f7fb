"""Answers that are no success: which errno the kernel gets for what went wrong. Pure.

The binding turns an exception that it does not expect into a random number, which the kernel takes for a length or
for success. So whatever happens inside becomes one of the numbers below, and EIO when nothing better is known.
"""

import errno
import os

ALLOWED = frozenset(
    {
        errno.EACCES,
        errno.EBADF,
        errno.EHOSTUNREACH,
        errno.EINVAL,
        errno.EIO,
        errno.EISDIR,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENAMETOOLONG,
        errno.ENODATA,
        errno.ENOENT,
        errno.ENOMEM,
        errno.ENOTDIR,
        errno.ENOTTY,
        errno.ENXIO,
        errno.EOPNOTSUPP,
        errno.EROFS,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)


class Refused(OSError):
    """The right answer to a call is this errno; nothing went wrong here. `why` is for the log."""

    def __init__(self, code: int, why: str = "") -> None:
        super().__init__(code, os.strerror(code))
        self.why = why


def code_of(error: BaseException) -> int:
    """Returns the errno to answer with, always one of `ALLOWED`."""
    if isinstance(error, OSError) and error.errno in ALLOWED:
        return int(error.errno or errno.EIO)
    return errno.ETIMEDOUT if isinstance(error, TimeoutError) else errno.EIO
