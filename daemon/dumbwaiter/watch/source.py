"""A watch, as far as its files are found, settle and become jobs."""

from typing import NamedTuple

from dumbwaiter.files.ignore import Rules


class Source(NamedTuple):
    """Where a watch's files come from and go to."""

    root: str
    provider: str
    rules: Rules
    settle: float
    after: str = "keep"  # what becomes of a file once it is done
