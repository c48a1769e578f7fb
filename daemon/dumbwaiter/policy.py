"""What follows a verdict: a pure function of the verdict, what went before, the time and a random number.

No broker and no transport holds a back-off of its own.
"""

from collections.abc import Callable
from typing import NamedTuple

from tenacity import RetryCallState, Retrying, wait_exponential

from dumbwaiter.errors import Blocked, Changed, Gone, Reauth, Reject, Restart, Retry, Skipped, Verdict
from dumbwaiter.lifecycle import GONE, REPLACED

BACK_OFF = wait_exponential(multiplier=1, max=300)
AFTER_MAX = 3600.0  # a server's Retry-After is obeyed up to this
DEAR = 3600.0  # up to which a file waits that has cost much in vain
PAUSE = 900.0  # a refused account is tried again after this; a person's `retry` is sooner
AT_ONCE = 3  # times that one attempt may go on without waiting


class Delay(NamedTuple):
    """Later again, with another grant or from the first byte if so marked."""

    due_at: float
    new_grant: bool = False
    from_start: bool = False


class Again(NamedTuple):
    """At once again, marked as above."""

    new_grant: bool = False
    from_start: bool = False


class Rejected(NamedTuple):
    """Never, until a person acts."""


class Superseded(NamedTuple):
    """This version of the file is no more."""

    reason: str


class Pause(NamedTuple):
    """No job of this provider before `until`; a person is told."""

    until: float


Decision = Delay | Again | Rejected | Superseded | Pause


def decide(
    verdict: Verdict,
    attempts: int,
    now: float,
    random: Callable[[], float],
    *,
    fresh: bool,
    again: int,
    dear: bool = False,
) -> Decision:
    """Returns what to do after `verdict`.

    `attempts` counts the failures in a row before this one, `again` how often this attempt already went on at once;
    `random` gives a number from 0 to 1. `fresh`: the grant in use was asked for in this attempt, so that a refusal
    of it says more than that it grew old. `dear`: the file was sent in vain so often that the next try may be one more.
    """
    new_grant = isinstance(verdict, Reauth)
    from_start = isinstance(verdict, Restart)
    match verdict:
        case Gone():
            return Superseded(GONE)
        case Changed():
            return Superseded(REPLACED)
        case Skipped():
            return Superseded(str(verdict))
        case Reject():
            return Rejected()
        case Blocked():
            return Pause(now + PAUSE)
        case Reauth() if not fresh and again < AT_ONCE:
            return Again(new_grant=True)
        case Restart() if again < AT_ONCE:
            return Again(from_start=True)
        case Retry(after=after) if after is not None:
            return Delay(now + max(min(after, AFTER_MAX), random() * DEAR if dear else 0.0))
        case _:
            return Delay(now + random() * (DEAR if dear else ceiling(attempts)), new_grant, from_start)


def ceiling(attempts: int) -> float:
    """Returns the longest wait after so many failures in a row; full jitter draws from zero up to it."""
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempts + 1
    return BACK_OFF(state)
