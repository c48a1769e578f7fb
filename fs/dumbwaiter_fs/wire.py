"""The kernel's FUSE protocol, version 7.31: numbers and layouts of its messages. Pure.

As in the kernel's `include/uapi/linux/fuse.h`. Little or big endian as the machine is; nothing is aligned beyond what
the layouts say.
"""

import stat
import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum

MAJOR, MINOR = 7, 31
OLDEST = 23  # the minor from which a reply to INIT has today's length (Linux 3.15)
MAX_WRITE = 4096  # nothing is ever written; the kernel wants a buffer for a message of that size
BUFFER = 1 << 16  # what one message may take: a batch of forgotten numbers is cut to fit
READ_MAX = 1 << 20
PAGE = 4096


class Op(IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    COPY_FILE_RANGE = 47
    TMPFILE = 51


WRITES = frozenset(
    {
        Op.SETATTR,
        Op.SYMLINK,
        Op.MKNOD,
        Op.MKDIR,
        Op.UNLINK,
        Op.RMDIR,
        Op.RENAME,
        Op.LINK,
        Op.WRITE,
        Op.SETXATTR,
        Op.REMOVEXATTR,
        Op.CREATE,
        Op.FALLOCATE,
        Op.RENAME2,
        Op.COPY_FILE_RANGE,
        Op.TMPFILE,
    }
)

# What the kernel is asked to do, where it can: read ahead without waiting, look again at pages of a file whose size or
# time changed, list with attributes (always: left to choose, it asks for each name of what `find` reads before it looks),
# look up names side by side, read a MiB at a time.
ASYNC_READ, AUTO_INVAL_DATA, READDIRPLUS = 1 << 0, 1 << 12, 1 << 13
PARALLEL_DIROPS, MAX_PAGES = 1 << 18, 1 << 22
WISHES = ASYNC_READ | AUTO_INVAL_DATA | READDIRPLUS | PARALLEL_DIROPS | MAX_PAGES

DIRECT_IO, KEEP_CACHE = 1, 2  # in a reply to OPEN
NOTIFY_INODE, NOTIFY_ENTRY = 2, 3

IN = struct.Struct("=IIQQIIIHH")  # length opcode unique nodeid uid gid pid extensions -
OUT = struct.Struct("=IiQ")  # length error unique
INIT_IN = struct.Struct("=IIII")  # major minor readahead flags
INIT_OUT = struct.Struct("=IIIIHHIIHHII24x")
LONG = struct.Struct("=Q")
PAIR = struct.Struct("=QQ")
OPEN_IN = struct.Struct("=II")  # flags -
OPEN_OUT = struct.Struct("=QIi")  # handle flags -
READ_IN = struct.Struct("=QQI")  # handle offset size
SIZE_IN = struct.Struct("=II")  # of GETXATTR and LISTXATTR
STATFS_OUT = struct.Struct("=QQQQQIIII24x")
INODE_OUT = struct.Struct("=Qqq")  # number offset length
NAME_OUT = struct.Struct("=QII")  # folder length -

# ino size blocks atime mtime ctime (negative before 1970), their nanoseconds, mode nlink uid gid rdev blksize -
_ATTRIBUTES = "QQQqqqIIIIIIIIII"
# nodeid generation, entry_valid attr_valid (seconds), and nanoseconds
_ENTRY = "QQQQII"
_ATTR_OUT = struct.Struct(f"=QII{_ATTRIBUTES}")
_ENTRY_OUT = struct.Struct(f"={_ENTRY}{_ATTRIBUTES}")
_NAMED = struct.Struct(f"={_ENTRY}{_ATTRIBUTES}QQII")  # and number, next offset, length of the name, kind
HEAD = _ENTRY_OUT.size  # of a listing's entry with attributes, what comes before the entry without

# A copy takes its mode from here, and its owner has to be able to change it. Here the mount, being read-only, lets nobody.
FILE, FOLDER = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755
_SECOND = 1_000_000_000


def init(kernel_minor: int, flags: int, background: int) -> bytes:
    """Returns the answer to the kernel's greeting."""
    congested = background * 3 // 4
    return INIT_OUT.pack(
        MAJOR,
        min(MINOR, kernel_minor),
        READ_MAX,  # of read-ahead at most; how much it is, `mount_point.read_ahead` says
        WISHES & flags,
        background,
        congested,
        MAX_WRITE,
        1,  # times are exact to the nanosecond
        READ_MAX // PAGE,
        0,
        0,
        0,
    )


class Packer:
    """Packs entries and attributes for the kernel. All files have one owner, who is given once."""

    def __init__(self, uid: int, gid: int) -> None:
        self._uid = uid
        self._gid = gid

    def entry(self, number: int, folder: bool, size: int, mtime_ns: int, ctime_ms: int, valid: int) -> bytes:
        """Answers LOOKUP. `valid`: seconds that the kernel need not ask again (its `entry_valid` and `attr_valid`)."""
        return _ENTRY_OUT.pack(number, 0, valid, valid, 0, 0, *self._fields(number, folder, size, mtime_ns, ctime_ms))

    def attributes(self, number: int, folder: bool, size: int, mtime_ns: int, ctime_ms: int, valid: int) -> bytes:
        """Answers GETATTR."""
        return _ATTR_OUT.pack(valid, 0, 0, *self._fields(number, folder, size, mtime_ns, ctime_ms))

    def listed(
        self, lines: Iterable[tuple[bytes, int, int, int, int]], offset: int, valid: int, *, folder: bool = False
    ) -> list[bytes]:
        """Returns entries of a listing with attributes; from `HEAD` on they are entries without.

        A line is name, number, size, mtime_ns and ctime_ms; `offset` is that of the first.
        """
        pack, uid, gid = _NAMED.pack, self._uid, self._gid
        mode, kind = (FOLDER, 4) if folder else (FILE, 8)
        entries = []
        for after, (name, number, size, mtime_ns, ctime_ms) in enumerate(lines, offset + 1):
            length = len(name)
            seconds, rest = divmod(mtime_ns, _SECOND)
            ctime, part = divmod(ctime_ms, 1000)
            entries.append(
                pack(
                    number, 0, valid, valid, 0, 0,
                    number, size, (size + 511) >> 9, seconds, seconds, ctime, rest, rest, part * 1_000_000,
                    mode, 1, uid, gid, 0, PAGE, 0,
                    number, after, length, kind,
                )
                + name
                + _PAD[length & 7]
            )  # fmt: skip
        return entries

    def _fields(self, number: int, folder: bool, size: int, mtime_ns: int, ctime_ms: int) -> tuple[int, ...]:
        seconds, rest = divmod(mtime_ns, _SECOND)
        ctime, part = divmod(ctime_ms, 1000)
        blocks, mode = (size + 511) >> 9, FOLDER if folder else FILE
        # One link means "not counted": 2 would tell `find` that there are no folders inside.
        times = (seconds, seconds, ctime, rest, rest, part * 1_000_000)
        return (number, size, blocks, *times, mode, 1, self._uid, self._gid, 0, PAGE, 0)


_PAD = [b"\0" * (-length % 8) for length in range(8)]
_NOBODY = bytes(HEAD)


def name_of(named: bytes) -> bytes:
    """Returns the name in an entry of a listing."""
    length = SIZE_IN.unpack_from(named, HEAD + PAIR.size)[0]
    return named[_NAMED.size : _NAMED.size + length]


def without_attributes(named: bytes) -> bytes:
    """Returns a listing's entry of which the kernel gets the name and kind only, and asks when it wants more."""
    return _NOBODY + named[HEAD:]


def split_entries(names: bytes) -> Iterator[bytes]:
    """Splits entries that were cut off before `HEAD` and joined; yields each as `without_attributes` gives it."""
    at = 0
    while at < len(names):
        length = SIZE_IN.unpack_from(names, at + PAIR.size)[0]
        end = at + (_NAMED.size - HEAD + length + 7 & ~7)
        yield _NOBODY + names[at:end]
        at = end


def batch_forget(body: bytes) -> Iterator[tuple[int, int]]:
    """Yields number and count of each line of BATCH_FORGET."""
    count = SIZE_IN.unpack_from(body)[0]
    yield from PAIR.iter_unpack(body[SIZE_IN.size : SIZE_IN.size + count * PAIR.size])


def notify_inval_inode(number: int) -> bytes:
    """Tells the kernel that a file's attributes are not what they were; its bytes are."""
    return _notice(NOTIFY_INODE, INODE_OUT.pack(number, -1, 0))


def notify_inval_entry(folder: int, name: bytes) -> bytes:
    """Tells the kernel that another thing stands under a name."""
    return _notice(NOTIFY_ENTRY, NAME_OUT.pack(folder, len(name), 0) + name + b"\0")


def _notice(code: int, payload: bytes) -> bytes:
    return OUT.pack(OUT.size + len(payload), code, 0) + payload
