"""One line of the doctor's: what was looked at, how it is, and the remedy."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from dumbwaiter.errors import Failure


class Finding(NamedTuple):
    """One line."""

    check: str
    level: Literal["ok", "warn", "fail"]
    says: str
    remedy: str = ""


Findings = Iterator[Finding]


def failing(check: str, failure: Failure) -> Finding:
    """Takes a sentence apart that ends with its remedy."""
    says, _, remedy = str(failure).partition(": ")
    return Finding(check, "fail", says, remedy)
