"""The adapter lets out an answer of the right shape or an errno from the list, whatever happens inside."""

import asyncio
import concurrent.futures
import errno
import os
from types import SimpleNamespace
from typing import Any

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from dumbwaiter_fs.errnos import ALLOWED, Refused, code_of
from dumbwaiter_fs.inodes import Inode

pytestmark = pytest.mark.fuse  # importing the binding loads libfuse

FI = SimpleNamespace(fh=1, flags=os.O_RDONLY)
CALLS: dict[str, tuple[Any, ...]] = {
    "access": ("/x", os.R_OK),
    "chmod": ("/x", 0o644),
    "chown": ("/x", 0, 0),
    "create": ("/x", 0o644, FI),
    "destroy": ("/",),
    "fsync": ("/x", 0, FI),
    "fsyncdir": ("/x", 0, 1),
    "getattr": ("/x", None),
    "getxattr": ("/x", "user.dumbwaiter.url"),
    "init": ("/",),
    "ioctl": ("/x", 0, None, FI, 0, None),
    "link": ("/x", "/y"),
    "listxattr": ("/x",),
    "mkdir": ("/x", 0o755),
    "mknod": ("/x", 0o644, 0),
    "open": ("/x", FI),
    "opendir": ("/x",),
    "read": ("/x", 10, 0, FI),
    "readdir": ("/x", 1),
    "readlink": ("/x",),
    "release": ("/x", FI),
    "releasedir": ("/x", 1),
    "removexattr": ("/x", "user.a"),
    "rename": ("/x", "/y"),
    "rmdir": ("/x",),
    "setxattr": ("/x", "user.a", b"", 0),
    "statfs": ("/",),
    "symlink": ("/x", "/y"),
    "truncate": ("/x", 0, FI),
    "unlink": ("/x",),
    "utimens": ("/x", None),
    "write": ("/x", b"", 0, FI),
}
WRITES = [
    "chmod",
    "chown",
    "create",
    "link",
    "mkdir",
    "mknod",
    "removexattr",
    "rename",
    "rmdir",
    "setxattr",
    "symlink",
    "truncate",
    "unlink",
    "utimens",
    "write",
]
ERRORS: list[tuple[BaseException, int]] = [
    (OSError(), errno.EIO),
    (OSError("no number"), errno.EIO),
    (OSError(-5, "negative"), errno.EIO),
    (OSError(0, "zero"), errno.EIO),
    (OSError(100_000, "unknown"), errno.EIO),
    (OSError(errno.EAGAIN, "not in the list"), errno.EIO),
    (OSError(errno.EMFILE, "in the list"), errno.EMFILE),
    (TimeoutError(), errno.ETIMEDOUT),
    (httpcore.ReadTimeout(), errno.EIO),
    (concurrent.futures.CancelledError(), errno.EIO),
    (asyncio.CancelledError(), errno.EIO),
    (httpcore.RemoteProtocolError("https://host/?token=SECRET"), errno.EIO),
    (OperationalError("SELECT", {}, Exception("SECRET")), errno.EIO),
    (KeyboardInterrupt(), errno.EIO),
    (SystemExit(0), errno.EIO),
    (GeneratorExit(), errno.EIO),
    (StopIteration(), errno.EIO),
    (MemoryError(), errno.EIO),
    (RecursionError(), errno.EIO),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), errno.EIO),
    (AttributeError("x"), errno.EIO),
]


def operations(**parts: Any) -> Any:
    from dumbwaiter_fs.operations import Operations

    return Operations(parts.get("trees"), parts.get("contents"), parts.get("mounted", lambda: None))  # type: ignore[arg-type]


def test_every_operation_that_the_binding_may_call_is_in_the_table() -> None:
    from dumbwaiter_fs import binding

    ours = {name: getattr(operations(), name, None) for name, *_ in binding.module.fuse_operations._fields_}
    known = {name for name, one in ours.items() if callable(one) and not getattr(one, "libfuse_ignore", False)}
    assert known - {"getdir", "utime"} <= set(CALLS)


@pytest.mark.parametrize("op", CALLS)
def test_whatever_is_raised_becomes_a_positive_errno(op: str, capsys: pytest.CaptureFixture[str]) -> None:
    from dumbwaiter_fs.binding import FuseOSError

    ops = operations()
    for error, code in ERRORS:

        def fails(*args: Any, error: BaseException = error) -> None:
            raise error

        setattr(ops, op, fails)
        if op in {"init", "destroy"}:
            assert ops(op, *CALLS[op]) == 0
            continue
        with pytest.raises(FuseOSError) as raised:
            ops(op, *CALLS[op])
        assert raised.value.errno == code, repr(error)
        assert raised.value.errno in ALLOWED
    said = capsys.readouterr()
    assert "SECRET" not in said.out + said.err


@pytest.mark.parametrize("op", WRITES)
def test_every_write_is_refused_as_read_only(op: str) -> None:
    with pytest.raises(OSError, match="Read-only"):
        operations()(op, *CALLS[op])


@pytest.mark.parametrize(
    ("op", "answer"),
    [
        ("read", b"longer than asked"),
        ("read", None),
        ("read", "text"),
        ("read", bytearray(b"x")),
        ("getxattr", None),
        ("getxattr", "text"),
        ("getattr", None),
        ("getattr", {"st_size": 1.5}),
        ("getattr", {"st_size": None}),
        ("statfs", None),
        ("readdir", None),
        ("listxattr", [b"x"]),
        ("readlink", None),
        ("open", -1),
        ("open", "0"),
        ("access", -13),
        ("release", object()),
    ],
)
def test_an_answer_of_the_wrong_shape_is_eio(op: str, answer: Any) -> None:
    ops = operations()
    setattr(ops, op, lambda *args: answer)
    with pytest.raises(OSError, match="Input/output"):
        ops(op, *CALLS[op])


def test_an_operation_that_does_not_exist_is_eio() -> None:
    with pytest.raises(OSError, match="Input/output"):
        operations()("nothing")


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND])
def test_opening_for_writing_is_refused_as_read_only(flags: int) -> None:
    with pytest.raises(OSError, match="Read-only"):
        operations()("open", "/x", SimpleNamespace(flags=flags))


def test_access_answers_by_kind() -> None:
    class Trees:
        def inode(self, path: bytes) -> Inode | None:
            return Inode(5, folder=True) if path == b"folder" else None

    ops = operations(trees=Trees())
    assert ops("access", "/folder", os.X_OK) == 0
    for path, mode, words in (("/folder", os.W_OK, "Read-only"), ("/none", os.X_OK, "No such file")):
        with pytest.raises(OSError, match=words):
            ops("access", path, mode)


@given(st.binary())
def test_names_survive_the_codec_whatever_their_bytes(raw: bytes) -> None:
    from dumbwaiter_fs.operations import ENCODING

    assert raw.decode(ENCODING).encode(ENCODING) == raw
    assert raw.decode(ENCODING) == os.fsdecode(raw)


@given(st.one_of(st.integers(), st.none(), st.text()))
def test_no_errno_outside_the_list_is_let_out(number: Any) -> None:
    assert code_of(OSError(number, "")) in ALLOWED
    assert code_of(Refused(errno.ESTALE)) == errno.ESTALE
