"""The bytes by PUT to a signed address, sent whole: how S3 and its relatives take a file.

There is nothing to resume: a PUT that broke off is sent again and replaces what the first one left. Where nothing may
be replaced, it says so (RFC 9110, "If-None-Match"), and what is there already is compared. Where the answer's
ETag is an MD5, as S3's manual says of plain objects ("PutObject"), it is compared.
"""

from hashlib import md5

from msgspec.structs import replace

from dumbwaiter.doors import Upload
from dumbwaiter.model import Receipt
from dumbwaiter.tickets import PutTicket
from dumbwaiter.wire.message import Request
from dumbwaiter.wire.store_replies import compared, is_taken, raise_for_status, receipt


async def send(upload: Upload[PutTicket, None]) -> Receipt:
    """Sends the file and compares digests where the answer has one."""
    ticket = upload.ticket
    digest = md5(usedforsecurity=False)
    piece = (await upload.read(0, max(upload.size, 1))).observed_by(lambda _offset, data: digest.update(data))
    headers = {"content-type": upload.mime} | {name.lower(): value for name, value in ticket.headers.items()}
    if upload.fresh:
        headers["if-none-match"] = "*"
    reply = await upload.call(Request("file", "PUT", ticket.url, headers, piece))
    if upload.fresh and is_taken(reply):
        whole = md5(usedforsecurity=False)
        await upload.digested(0, upload.size, whole)
        return compared(await upload.confirm(), whole.hexdigest(), upload.key or "the name")
    raise_for_status(reply)
    made = receipt(
        reply, ticket.stored, key=ticket.key or upload.key or f"{upload.seed}/{upload.name}", link=ticket.link
    )
    etag = made.etag or reply.headers.get("etag", "").strip('"')
    return replace(made, etag=etag, verified="md5" if etag.lower() == digest.hexdigest() else "")
