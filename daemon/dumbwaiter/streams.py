"""What a program is given to read and to print to."""

import io
import os
import sys


def have_streams() -> None:
    """Sees to it that the first three descriptors are taken, and that any name can be printed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed by whoever started us: the next file opened would take its place
            null = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(null, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115 - for good
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a C locale cannot print every name; that is nothing to fail over
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
