"""What a program is given to read and to print to, and the end of it."""

import io
import os
import sys
from typing import NoReturn


def have_streams() -> None:
    """Sees to it that the first three descriptors are taken, and that any name can be printed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed by whoever started us: the next file opened would take its place
            null = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(null, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115 - for good
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a C locale cannot print every name; that is nothing to fail over
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def seen_enough() -> NoReturn:
    """Ends well: whoever read our output wants no more of it."""
    drop_output()
    sys.exit(0)


def stopped() -> NoReturn:
    """Ends because somebody said so, before there was anything to end."""
    print("dumbwaiter: stopped", file=sys.stderr)
    sys.exit(1)


def cannot_print(error: OSError) -> NoReturn:
    """Ends because nothing can be written to where the output goes: a full disk, say."""
    drop_output()
    print(f"dumbwaiter: the output cannot be written: {error.strerror or error}", file=sys.stderr)
    sys.exit(1)


def drop_output() -> None:
    """What is left in the buffer would fail once more at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
