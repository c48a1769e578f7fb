"""What a program is given to read and to print to."""

from __future__ import annotations

import io
import os
import sys

TYPE_CHECKING = False  # see `cli.quick_status`
if TYPE_CHECKING:
    from typing import TextIO


def have_utf8() -> None:
    """Sees to it that names of files are read as UTF-8, as the journal keeps them.

    Begins the program anew where the locale says otherwise.
    """
    if sys.getfilesystemencoding() == "utf-8":
        return
    try:
        with open("/proc/self/cmdline", "rb") as line:  # `sys.argv` was read by the locale
            python, *words = line.read().split(b"\0")[:-1]
        os.execv(os.readlink("/proc/self/exe"), [python, b"-X", b"utf8", *words])
    except OSError:  # no /proc: then as it is
        return


def have_streams() -> None:
    """Sees to it that the first three descriptors are taken, and that any name can be printed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed by whoever started us: the next file opened would take its place
            null = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(null, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115 - for good
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a C locale cannot print every name; that is nothing to fail over
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def in_journal(stream: TextIO) -> bool:
    """Says whether a stream leads into systemd's journal, which takes a "<3>" before a line for how grave it is."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # it has no descriptor
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def failed(sentence: str) -> None:
    """Prints what the program ends with."""
    print(f"{'<3>' if in_journal(sys.stderr) else ''}dumbwaiter: {sentence}", file=sys.stderr)  # noqa: T201
