"""The file system: names to the catalog, bytes to `content`, and one adapter around everything.

Both sessions serve this object. libfuse's asks by path, through the adapter; the fast one by place and number, through
the methods under "Places", and has an adapter of its own.

The adapter lets two things out: an answer of the right shape, or an OSError with an errno from a fixed list. All else
would be a wrong answer: fusepy's own wrapper hands the kernel a random number for it.
"""

import codecs
import errno
import itertools
import os
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from dumbwaiter import log
from dumbwaiter.catalog import Waiting
from dumbwaiter.model import Entry
from dumbwaiter.naming import NAME_MAX
from dumbwaiter_fs import attributes
from dumbwaiter_fs.attributes import Attributes
from dumbwaiter_fs.binding import FuseOSError
from dumbwaiter_fs.binding import Operations as FuseOperations
from dumbwaiter_fs.content import Contents
from dumbwaiter_fs.errnos import Refused, code_of
from dumbwaiter_fs.inodes import BY_CODE, Inode, ctime_ms, path_of, row_of
from dumbwaiter_fs.trees import Trees

ENCODING = "dumbwaiter-names"  # for fusepy: UTF-8 in which any byte can stand

TOLD = 4096  # paths; of one that is forgotten the kernel's cache is passed by
_MADE_UP = 1 << 62  # handles from here on are texts that stand in no file

_log = log.get(__name__)


def _codec(name: str) -> codecs.CodecInfo | None:
    if name.replace("_", "-") != ENCODING:
        return None
    return codecs.CodecInfo(
        encode=lambda text, _errors="": (text.encode("utf-8", "surrogateescape"), len(text)),
        decode=lambda raw, _errors="": (bytes(raw).decode("utf-8", "surrogateescape"), len(raw)),
        name=ENCODING,
    )


codecs.register(_codec)


class Opened(NamedTuple):
    """An open file, and how the kernel is to treat it."""

    handle: int
    direct_io: bool  # its reads must go past the page cache
    keep_cache: bool  # what the page cache still holds of it is of this version
    size: int | None = None  # of this version; None where it may grow


class Operations(FuseOperations):  # type: ignore[misc]
    """Every call of the kernel, as a method. Paths come with a leading slash, undecodable bytes as surrogates."""

    use_ns = True
    flush = None  # nothing to write back: the kernel learns that once and need not say so at each close

    def __init__(self, trees: Trees, contents: Contents, mounted: Callable[[], None]) -> None:
        self._trees = trees
        self._contents = contents
        self._mounted = mounted
        self._lock = threading.Lock()
        self._texts: dict[int, bytes] = {}
        self._told: OrderedDict[str, Inode] = OrderedDict()  # what libfuse's kernel knows of a path
        self._numbers = itertools.count(_MADE_UP)

    def __call__(self, op: str, *args: Any) -> Any:
        """Runs one operation. Raises FuseOSError only."""
        try:
            return _shaped(op, args, getattr(self, op)(*args))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the kernel gets a number that means it
            code = code_of(error)
            tell(op, args[0] if args else "", error, code)
        if op in {"init", "destroy"}:
            return 0  # these two cannot be refused
        raise FuseOSError(code)

    def init(self, _path: str) -> None:
        self._mounted()

    # Places

    def find(self, path: bytes, held: str = "") -> Inode:
        """Returns what stands at a path, as `held` by who has it open. Raises ENOENT or ENAMETOOLONG."""
        inode = self._trees.inode(path)
        if inode is None:
            raise Refused(errno.ENOENT if len(path.rpartition(b"/")[2]) <= NAME_MAX else errno.ENAMETOOLONG)
        return self.as_it_is(inode, held)

    def by_number(self, number: int) -> Inode:
        """Returns the file with a number. Raises ESTALE for one that is gone: the kernel looks again by name."""
        inode = self._trees.by_number(number)
        if inode is None and (entry := self._contents.held(name_of(number))) is not None:
            ctime = ctime_ms(entry.stored_at)
            inode = Inode(number, False, entry.size, entry.stamp.mtime_ns, ctime, BY_CODE[number & 3])
        if inode is None and (now := self._contents.live(name_of(number))) is not None:
            inode = _like(Inode(number, False, tree=BY_CODE[number & 3]), now)
        if inode is None:
            raise Refused(errno.ESTALE)
        return self.as_it_is(inode)

    def as_it_is(self, inode: Inode, held: str = "") -> Inode:
        """Returns a place with the size and time that a reader would find."""
        if inode.tree is None:
            return inode
        entry = self._contents.held(held or name_of(inode.number))
        if entry is not None:
            told = self._told.get(held)
            if told is not None and (row_of(told.number), told.ctime_ms) == (entry.id, ctime_ms(entry.stored_at)):
                inode = told  # and not what the path stands for as soon as nobody has it open
            return inode._replace(size=entry.size, mtime_ns=entry.stamp.mtime_ns)
        if inode.waiting:
            file = self._trees.whole(inode)
            now = self._contents.now(file) if isinstance(file, Waiting) else None
            if now is not None:
                return _like(inode, now)
        return inode

    def open_inode(self, inode: Inode, held: str = "") -> Opened:
        """Opens a file, as the version that `held` stands for. Raises an errno."""
        if inode.folder:
            raise Refused(errno.EISDIR)
        if inode.text is not None:
            with self._lock:
                handle = next(self._numbers)
                self._texts[handle] = inode.text
            return Opened(handle, direct_io=True, keep_cache=False)
        name = held or name_of(inode.number)
        handle, direct_io = self._contents.open(name, self._contents.held(name) or self._whole(inode))
        return Opened(handle, direct_io, self._contents.keeps(handle), self._contents.size(handle))

    def outdated(self) -> list[bytes]:
        """Returns where files stood that somebody has open by number, those that the catalog shows no more."""
        opened = {int(name[1:]): entry for name, entry in self._contents.opened().items() if name.startswith("#")}
        with suppress(Exception):  # a catalog that cannot be asked may show none of them
            opened = {number: entry for number, entry in opened.items() if self._trees.by_number(number) is None}
        return [path_of(BY_CODE[number & 3], entry) for number, entry in opened.items()]

    def read_handle(self, handle: int, size: int, offset: int) -> bytes:
        """Returns `size` bytes, fewer only at the end of the file. Raises an errno."""
        if handle >= _MADE_UP:
            return self._texts[handle][offset : offset + size]
        return self._contents.read(handle, size, offset)

    def read_nowait(self, handle: int, size: int, offset: int) -> list[memoryview] | None:
        """Returns the same in pieces if all of it is in memory, else None. One caller at a time, see `Contents`."""
        return None if handle >= _MADE_UP else self._contents.read_nowait(handle, size, offset)

    def prefetch(self, handle: int, offset: int) -> None:
        """Gets what may be asked for next, see `Contents`."""
        self._contents.prefetch(handle, offset)

    def release_handle(self, handle: int) -> None:
        if handle >= _MADE_UP:
            self._texts.pop(handle, None)
        else:
            self._contents.release(handle)

    def facts(self, inode: Inode, held: str = "") -> dict[str, bytes]:
        """Returns the extended attributes of a place."""
        if inode.tree is None:
            return {}
        name = held or name_of(inode.number)
        file = self._contents.held(name) or self._whole(inode)
        return attributes.extended(file, self._contents.trouble(name, file) if isinstance(file, Entry) else None)

    def fact(self, inode: Inode, name: str, held: str = "") -> bytes:
        """Returns one extended attribute. Raises ENODATA."""
        value = self.facts(inode, held).get(name) if name.startswith(attributes.PREFIX) else None
        if value is None:
            raise Refused(errno.ENODATA)
        return value

    def _whole(self, inode: Inode) -> Entry | Waiting:
        file = self._trees.whole(inode)
        if file is None:
            raise Refused(errno.ENOENT)
        return file

    # Names

    def getattr(self, path: str, fi: Any = None) -> Attributes:
        try:
            inode = self.find(_raw(path), path)
        except Refused:
            entry = self._contents.held(path) if fi else None
            if entry is None:
                raise
            # Who has it open reads on though its name is gone; the kernel asks about the file before it reads.
            known = self._told.get(path, Inode(0, False, ctime_ms=ctime_ms(entry.stored_at)))
            inode = known._replace(size=entry.size, mtime_ns=entry.stamp.mtime_ns)
        with self._lock:
            self._told[path] = inode
            self._told.move_to_end(path)
            if len(self._told) > TOLD:
                self._told.popitem(last=False)
        return attributes.complete(inode)

    def access(self, path: str, mode: int) -> int:
        if mode & os.W_OK:
            raise Refused(errno.EROFS)
        if mode & os.X_OK and not self.find(_raw(path)).folder:
            raise Refused(errno.EACCES)
        return 0

    def opendir(self, path: str) -> int:
        if not self.find(_raw(path)).folder:
            raise Refused(errno.ENOTDIR)
        return 0

    def readdir(self, path: str, _fh: int) -> list[tuple[str, Attributes | None, int]]:
        folder = _raw(path)
        names: list[tuple[str, Attributes | None, int]] = [(".", None, 0), ("..", None, 0)]
        for name, number, is_folder in self._trees.names(folder):
            names.append((_text(name), attributes.brief(number, folder=is_folder), 0))
        return names

    def readlink(self, path: str) -> str:
        self.find(_raw(path))
        raise Refused(errno.EINVAL)

    def statfs(self, _path: str) -> dict[str, int]:
        return attributes.of_system(*self._trees.totals())

    def getxattr(self, path: str, name: str, _position: int = 0) -> bytes:
        refuse_foreign(name)
        return self.fact(self.find(_raw(path)), name, path)

    def listxattr(self, path: str) -> list[str]:
        return list(self.facts(self.find(_raw(path)), path))

    # Bytes

    def open(self, path: str, fi: Any) -> int:
        refuse_writing(fi.flags)
        inode = self.find(_raw(path), path)
        opened = self.open_inode(inode, path)
        # The kernel gives nothing beyond the size that it was told, and this may be another version by now.
        told = self._told.get(path, Inode(-1, False, -1))
        if not inode.waiting and (told.number != inode.number or told.size not in {opened.size, inode.size}):
            # Read past its cache it gives more to `read` alone, not to splice or mmap. So it looks again, and comes back.
            self.release_handle(opened.handle)
            raise Refused(errno.ESTALE)
        cut = (told.number, told.size) != (inode.number, opened.size)
        fi.fh, fi.direct_io = opened.handle, int(opened.direct_io or cut)
        fi.keep_cache = int(opened.keep_cache)
        return 0

    def read(self, _path: str, size: int, offset: int, fi: Any) -> bytes:
        return self.read_handle(fi.fh, size, offset)

    def release(self, _path: str, fi: Any) -> int:
        self.release_handle(fi.fh)
        return 0

    def ioctl(self, _path: str, *_rest: Any) -> int:
        raise Refused(errno.ENOTTY)  # asked by whoever wants to know whether it is a terminal

    # Writes, which the kernel refuses by itself on a mount that is read-only

    def _refuse(self, *_args: Any) -> int:
        raise Refused(errno.EROFS)

    create = mkdir = mknod = symlink = link = _refuse
    unlink = rmdir = rename = _refuse
    write = truncate = _refuse
    chmod = chown = utimens = setxattr = removexattr = _refuse


def name_of(number: int) -> str:
    """Returns the name by which a file that was asked for by number is held open."""
    return f"#{number}"


def refuse_foreign(name: str) -> None:
    """Says that access lists and labels are unknown here, which `ls` takes for all files and asks no more."""
    if not name.startswith("user."):
        raise Refused(errno.EOPNOTSUPP)


def refuse_writing(flags: int) -> None:
    if flags & (os.O_ACCMODE | os.O_TRUNC | os.O_APPEND) != os.O_RDONLY:
        raise Refused(errno.EROFS)


def _like(inode: Inode, local: os.stat_result) -> Inode:
    return inode._replace(size=local.st_size, mtime_ns=local.st_mtime_ns, ctime_ms=local.st_ctime_ns // 1_000_000)


def _raw(path: str) -> bytes:
    return path[1:].encode("utf-8", "surrogateescape")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _shaped(op: str, args: tuple[Any, ...], answer: Any) -> Any:
    """Returns `answer` if it is one that fusepy can hand to the kernel. Raises EIO."""
    match op:
        case "read":
            good = type(answer) is bytes and len(answer) <= args[1]
        case "getxattr":
            good = type(answer) is bytes
        case "getattr" | "statfs":
            good = isinstance(answer, dict) and all(isinstance(value, int) for value in answer.values())
        case "readdir":
            good = isinstance(answer, list)
        case "listxattr":
            good = isinstance(answer, list) and all(isinstance(name, str) for name in answer)
        case "readlink":
            good = isinstance(answer, str)
        case _:
            good = answer is None or (isinstance(answer, int) and answer >= 0)
    if not good:
        raise Refused(errno.EIO, f"{op} has no answer of the right shape")
    return answer


def tell(op: str, path: object, error: BaseException, code: int) -> None:
    """Logs what a person may want to know: kind and place, never an exception's text, which may quote a url."""
    try:
        path = path if isinstance(path, str) else ""
        number = errno.errorcode[code]
        if not isinstance(error, Refused):
            where = "".join(f"{os.path.basename(f.filename)}:{f.lineno} " for f in _last(error)).strip()
            _log.error("operation failed", op=op, path=path, errno=number, kind=type(error).__name__, where=where)
        elif error.why:
            _log.warning("operation refused", op=op, path=path, errno=number, why=error.why)
    except BaseException:  # noqa: BLE001, S110 - a log line is not worth a wrong answer
        pass


def _last(error: BaseException) -> Iterator[traceback.FrameSummary]:
    yield from traceback.extract_tb(error.__traceback__)[-3:]
