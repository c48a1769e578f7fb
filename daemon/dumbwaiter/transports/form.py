"""A form with one file (RFC 7578), sent whole: for a service that the configuration describes.

There is nothing to resume: a form that broke off is sent again. The fields come first, as the grant gave them, and the
file last.
"""

from hashlib import md5

from dumbwaiter.doors import Upload
from dumbwaiter.model import Receipt
from dumbwaiter.tickets import FormTicket
from dumbwaiter.wire.message import Request, form
from dumbwaiter.wire.store_replies import compared, is_taken, raise_for_status, receipt


async def send(upload: Upload[FormTicket, None]) -> Receipt:
    """Sends the file and reads from the answer what the recipe says stands there."""
    ticket = upload.ticket
    piece = await upload.read(0, max(upload.size, 1))
    kind, body = form(ticket.fields.items(), ticket.file_field, upload.name, upload.mime, piece)
    reply = await upload.call(Request("form", "POST", ticket.url, {"content-type": kind}, body))
    if upload.fresh and is_taken(reply):
        digest = md5(usedforsecurity=False)
        await upload.digested(0, upload.size, digest)
        return compared(await upload.confirm(), digest.hexdigest(), upload.key or "the name")
    raise_for_status(reply)
    return receipt(
        reply, ticket.stored, key=ticket.key or upload.key or f"{upload.seed}/{upload.name}", link=ticket.link
    )
