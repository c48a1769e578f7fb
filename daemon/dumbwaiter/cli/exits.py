"""Ends of the program that no command decides: its reader has enough, somebody stops it, or nothing can be printed."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # see `quick_status`
if TYPE_CHECKING:
    from typing import NoReturn


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
