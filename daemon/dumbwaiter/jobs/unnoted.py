"""What the journal did not take, its disk being full, say: the next attempt notes it, and nothing is sent or asked twice."""

from dataclasses import dataclass, field
from typing import NamedTuple

from dumbwaiter.model import FollowUp, Receipt, Stamp


class Version(NamedTuple):
    """What an upload was of: the number of a job that was forgotten may be another file's by now."""

    job: int
    place: str
    provider: str
    stamp: Stamp


class Stored(NamedTuple):
    """What came of an upload, as `Lease.store` takes it."""

    receipt: Receipt
    digest: str
    more: int = 0
    resent: int = 0
    given: str | None = None


@dataclass
class Unnoted:
    """Kept as long as the process lives; any thread may add."""

    stored: dict[Version, Stored] = field(default_factory=dict)
    followed: dict[Version, FollowUp] = field(default_factory=dict)
