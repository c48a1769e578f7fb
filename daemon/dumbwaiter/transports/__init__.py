"""Every way to move a file's bytes: one row each. `choose` takes the first that fits ticket and size."""

from collections.abc import Callable, Collection, Coroutine
from typing import Any, Literal

from msgspec import Struct

from dumbwaiter.errors import Reject
from dumbwaiter.model import MIB, Receipt
from dumbwaiter.tickets import (
    CareyShopTicket,
    FormTicket,
    ImageXTicket,
    NosTicket,
    OssPostTicket,
    OssStsTicket,
    PutTicket,
    QiniuTicket,
)
from dumbwaiter.transports import (
    careyshop_form,
    form,
    imagex,
    nos,
    oss_multipart,
    oss_post,
    put,
    qiniu_form,
    qiniu_resumable,
)


class NoCheckpoint(Struct, frozen=True):
    """The checkpoint of a transport that sends a file whole: there is nothing to go on from."""


class Transport(Struct, frozen=True):
    """A coroutine that sends, and what it works with."""

    name: str
    send: Callable[[Any], Coroutine[Any, Any, Receipt]]
    ticket: type
    checkpoint: type
    session: bool = False  # the vendor issues no second ticket for an object: it is journalled until the end
    size_max: int | None = None
    at_risk: Literal["chunk", "parts", "file"] = "file"  # what is sent in vain when the process is cut off


TRANSPORTS = (
    Transport("nos", nos.send, NosTicket, nos.Checkpoint, session=True, at_risk="chunk"),
    Transport("form", form.send, FormTicket, NoCheckpoint),
    Transport("put", put.send, PutTicket, NoCheckpoint),
    Transport("imagex", imagex.send, ImageXTicket, imagex.Checkpoint, session=True, at_risk="parts"),
    Transport("oss_post", oss_post.send, OssPostTicket, NoCheckpoint),
    Transport("oss_multipart", oss_multipart.send, OssStsTicket, oss_multipart.Checkpoint, at_risk="parts"),
    Transport("careyshop_form", careyshop_form.send, CareyShopTicket, careyshop_form.Checkpoint),
    Transport("qiniu_form", qiniu_form.send, QiniuTicket, NoCheckpoint, size_max=4 * MIB),
    Transport("qiniu_resumable", qiniu_resumable.send, QiniuTicket, qiniu_resumable.Checkpoint, at_risk="parts"),
    Transport("qiniu_form_large", qiniu_form.send, QiniuTicket, NoCheckpoint),  # where parts are refused
)


def choose(ticket: object, size: int, unfit: Collection[str] = ()) -> Transport:
    """Returns the transport for a ticket, none of those that proved unfit. Raises `Reject` when no other is left."""
    for row in TRANSPORTS:
        if row.name not in unfit and isinstance(ticket, row.ticket) and (row.size_max is None or size <= row.size_max):
            return row
    raise Reject(f"no way to upload {size} bytes with a {type(ticket).__name__}")
