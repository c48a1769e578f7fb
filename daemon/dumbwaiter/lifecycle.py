"""The life of a job as one table: which event leads from which state to which, and what that says of the remote.

`store.lease` and `store.queue` make each transition in one commit. A crash leaves no state to repair: the lease ends
and the job is claimed again.
"""

from enum import StrEnum

from dumbwaiter.model import State


class Event(StrEnum):
    """What can happen to a job once it is enqueued."""

    NAME = "name"  # the key is settled, before the first byte
    ADVANCE = "advance"  # the server acknowledged more
    DELAY = "delay"  # later again
    STORE = "store"  # the remote has it all
    NOTE = "note"  # a follow-up got somewhere
    FINISH = "finish"  # catalogued
    RESEND = "resend"  # what the remote has can no longer be used: its follow-up came too late
    SUPERSEDE = "supersede"  # the file is another version now, or gone
    REJECT = "reject"  # never, as it is
    RETRY = "retry"  # a person acted


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.PENDING, Event.NAME): State.PENDING,
    (State.PENDING, Event.ADVANCE): State.PENDING,
    (State.PENDING, Event.DELAY): State.PENDING,
    (State.PENDING, Event.STORE): State.STORED,
    (State.PENDING, Event.SUPERSEDE): State.SUPERSEDED,
    (State.PENDING, Event.REJECT): State.REJECTED,
    (State.PENDING, Event.RETRY): State.PENDING,
    (State.STORED, Event.NOTE): State.STORED,
    (State.STORED, Event.DELAY): State.STORED,
    (State.STORED, Event.FINISH): State.DONE,
    (State.STORED, Event.RETRY): State.STORED,
    (State.STORED, Event.RESEND): State.PENDING,
    (State.STORED, Event.REJECT): State.REJECTED,
    (State.REJECTED, Event.RETRY): State.PENDING,
    (State.REJECTED, Event.SUPERSEDE): State.SUPERSEDED,
}

OPEN = (State.PENDING, State.STORED)  # there is work left

# Why a job was superseded; stands in its error column.
REPLACED = "replaced by a newer version"
GONE = "gone before it was sent"
UNASKED = "its watch is not configured any more, or for another provider"
FORGOTTEN = "forgotten"

UNSENT = (GONE, UNASKED)  # these are as new should the very same version be seen again


def sources(event: Event) -> tuple[State, ...]:
    """Returns the states that `event` may find a job in."""
    return tuple(state for (state, happening) in TRANSITIONS if happening is event)
