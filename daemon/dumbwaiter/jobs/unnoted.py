"""What the journal did not take, its disk being full, say: the next attempt notes it, and nothing is sent or asked twice."""

from dataclasses import dataclass, field
from typing import NamedTuple, Self

from dumbwaiter.model import FollowUp, Job, Receipt, Stamp


class Version(NamedTuple):
    """What an upload was of: the number of a job that is gone may be another one's by now."""

    job: int
    created_at: float
    stamp: Stamp

    @classmethod
    def of(cls, job: Job) -> Self:
        return cls(job.id, job.created_at, job.stamp)


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
    followed: dict[tuple[Version, int], FollowUp] = field(default_factory=dict)  # by attempt too
