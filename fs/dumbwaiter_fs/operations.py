"""The file system as fusepy wants it: names to the catalog, bytes to `content`, and one adapter around everything.

The adapter lets two things out: an answer of the right shape, or an OSError with an errno from a fixed list. All else
would be a wrong answer: fusepy's own wrapper hands the kernel a random number for it.
"""

import codecs
import errno
import os
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from fuse import FuseOSError
from fuse import Operations as FuseOperations

from dumbwaiter import log
from dumbwaiter.catalog import Node, Waiting
from dumbwaiter.model import Entry
from dumbwaiter_fs import attributes
from dumbwaiter_fs.answers import Refused, code_of
from dumbwaiter_fs.attributes import Attributes
from dumbwaiter_fs.content import Contents
from dumbwaiter_fs.trees import Trees, inside

ENCODING = "dumbwaiter-names"  # for fusepy: UTF-8 in which any byte can stand

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


class Operations(FuseOperations):  # type: ignore[misc]
    """Every call of the kernel, as a method. Paths come with a leading slash, undecodable bytes as surrogates."""

    use_ns = True
    flush = None  # nothing to write back: the kernel learns that once and need not say so at each close

    def __init__(self, trees: Trees, contents: Contents, started: float, mounted: Callable[[], None]) -> None:
        self._trees = trees
        self._contents = contents
        self._started = started
        self._mounted = mounted

    def __call__(self, op: str, *args: Any) -> Any:
        """Runs one operation. Raises FuseOSError only."""
        try:
            return _shaped(op, args, getattr(self, op)(*args))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the kernel gets a number that means it
            code = code_of(error)
            _tell(op, args, error, code)
        if op in {"init", "destroy"}:
            return 0  # these two cannot be refused
        raise FuseOSError(code)

    def init(self, _path: str) -> None:
        self._mounted()

    # Names

    def getattr(self, path: str, _fi: Any = None) -> Attributes:
        path = path[1:]
        if (held := self._contents.held(path)) is not None:
            return attributes.of_file(path, held)
        node = self._node(path)
        if node.file is None:
            return attributes.of_folder(path, self._trees.changed_at(path) or self._started)
        now = self._contents.now(node.file) if isinstance(node.file, Waiting) else None
        return attributes.of_file(path, node.file, now)

    def access(self, path: str, mode: int) -> int:
        if mode & os.W_OK:
            raise Refused(errno.EROFS)
        if mode & os.X_OK and not self._node(path[1:]).folder:
            raise Refused(errno.EACCES)
        return 0

    def opendir(self, path: str) -> int:
        if not self._node(path[1:]).folder:
            raise Refused(errno.ENOTDIR)
        return 0

    def readdir(self, path: str, _fh: int) -> list[tuple[str, Attributes | None, int]]:
        folder = path[1:]
        names: list[tuple[str, Attributes | None, int]] = [(".", None, 0), ("..", None, 0)]
        for name, node in self._trees.children(folder).items():
            names.append((name, attributes.brief(inside(folder, name), node), 0))
        return names

    def readlink(self, path: str) -> str:
        self._node(path[1:])
        raise Refused(errno.EINVAL)

    def statfs(self, _path: str) -> dict[str, int]:
        return attributes.of_system(*self._trees.totals())

    def getxattr(self, path: str, name: str, _position: int = 0) -> bytes:
        if not name.startswith(attributes.PREFIX):
            raise Refused(errno.ENODATA)
        value = attributes.extended(self._file(path[1:])).get(name)
        if value is None:
            raise Refused(errno.ENODATA)
        return value

    def listxattr(self, path: str) -> list[str]:
        return list(attributes.extended(self._file(path[1:])))

    # Bytes

    def open(self, path: str, fi: Any) -> int:
        if fi.flags & (os.O_ACCMODE | os.O_TRUNC | os.O_APPEND) != os.O_RDONLY:
            raise Refused(errno.EROFS)
        file = self._file(path[1:])
        if file is None:
            raise Refused(errno.EISDIR)
        fi.fh, past = self._contents.open(path[1:], file)
        fi.direct_io = int(past)
        fi.keep_cache = int(self._contents.keeps(fi.fh))
        return 0

    def read(self, _path: str, size: int, offset: int, fi: Any) -> bytes:
        return self._contents.read(fi.fh, size, offset)

    def release(self, _path: str, fi: Any) -> int:
        self._contents.release(fi.fh)
        return 0

    def _node(self, path: str) -> Node:
        node = self._trees.node(path)
        if node is None:
            raise Refused(errno.ENOENT)
        return node

    def _file(self, path: str) -> Entry | Waiting | None:
        return self._contents.held(path) or self._node(path).file

    # Writes, which the kernel refuses by itself on a mount that is read-only

    def _refuse(self, *_args: Any) -> int:
        raise Refused(errno.EROFS)

    create = mkdir = mknod = symlink = link = _refuse
    unlink = rmdir = rename = _refuse
    write = truncate = _refuse
    chmod = chown = utimens = setxattr = removexattr = _refuse


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


def _tell(op: str, args: tuple[Any, ...], error: BaseException, code: int) -> None:
    """Logs what a person may want to know: kind and place, never an exception's text, which may quote a url."""
    try:
        path = args[0] if args and isinstance(args[0], str) else ""
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
