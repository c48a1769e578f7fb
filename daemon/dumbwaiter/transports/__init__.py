"""Every way to move a file's bytes: one row each. `choose` takes the first that fits ticket and size."""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from dumbwaiter.errors import Reject
from dumbwaiter.model import Receipt
from dumbwaiter.tickets import NosTicket
from dumbwaiter.transports import nos


class Transport(Struct, frozen=True):
    """A coroutine that sends, and what it works with."""

    name: str
    send: Callable[[Any], Awaitable[Receipt]]
    ticket: type
    checkpoint: type
    session: bool = False  # the vendor issues no second ticket for an object: it is journalled until the end
    size_max: int | None = None


TRANSPORTS = (Transport("nos", nos.send, NosTicket, nos.Point, session=True),)


def choose(ticket: object, size: int) -> Transport:
    """Returns the transport for a ticket. Raises `Reject` when none takes a file of this size."""
    for row in TRANSPORTS:
        if isinstance(ticket, row.ticket) and (row.size_max is None or size <= row.size_max):
            return row
    raise Reject(f"no way to upload {size} bytes with a {type(ticket).__name__}")
