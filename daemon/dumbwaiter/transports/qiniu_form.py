"""Qiniu Kodo, one form for a whole file: small files, and large ones where the provider takes no parts.

The file is the form's last field, its CRC-32 goes ahead of it, and its content hash is compared with the answer's. The
same token with the same bytes gives the same object, so a lost answer is asked for once more. Qiniu's developer
manual: "form upload" and "error response".
"""

from urllib.parse import urlsplit
from zlib import crc32

from dumbwaiter.doors import Upload
from dumbwaiter.errors import Retry
from dumbwaiter.model import Receipt
from dumbwaiter.tickets import QiniuTicket
from dumbwaiter.wire import qiniu
from dumbwaiter.wire.message import FileSlice, Reply, Request, form


class _Sums:
    """What is to be known of the bytes before they go."""

    def __init__(self) -> None:
        self.etag = qiniu.Etag()
        self.crc = 0

    def update(self, data: bytes) -> None:
        self.etag.update(data)
        self.crc = crc32(data, self.crc)


async def send(upload: Upload[QiniuTicket, None]) -> Receipt:
    """Sends the file in one request."""
    ticket = upload.ticket
    piece = await upload.read(0, upload.size)
    sums = _Sums()
    if piece.data is None:
        await upload.digested(0, upload.size, sums)
    else:
        sums.update(piece.data)
    policy = qiniu.policy(ticket.token)
    etag = sums.etag.text()
    reply, answer = await _deliver(upload, piece, policy, etag, sums.crc)
    if reply.status == qiniu.EXISTS:
        return qiniu.compared(await upload.confirm(), etag, policy, ticket.key, ticket.facts, own=ticket.own)
    if answer is None:
        facts = {**ticket.facts, "callback": "failed"}
        return qiniu.receipt(policy, ticket.key, qiniu.Answer(), etag, "crc32", facts)
    sure = "crc32" if qiniu.from_qiniu(reply) else ""  # no other server is known to look at that field
    return qiniu.receipt(policy, ticket.key, answer, etag, sure, ticket.facts)


async def _deliver(
    upload: Upload[QiniuTicket, None], piece: FileSlice, policy: qiniu.Policy | None, etag: str, crc: int
) -> tuple[Reply, qiniu.Answer | None]:
    """Returns the reply that settles the matter, with what it says of a success."""
    ticket = upload.ticket
    fields = [("token", ticket.token)]
    if ticket.key is not None and not (policy and policy.forced):
        fields.append(("key", ticket.key))
    fields += ticket.fields.items()
    fields.sort(key=lambda field: ticket.order.index(field[0]) if field[0] in ticket.order else -1)
    fields.append(("crc32", str(crc)))
    name = qiniu.plain(upload.name)
    kind, body = form(fields, "file", name, upload.mime, piece)
    ours = {etag, ticket.key, policy.final(ticket.key) if policy else None}
    urls = upload.order(ticket.urls)
    if len(urls) == 1:
        urls *= 2  # an answer may be lost anywhere
    moved = False
    while True:
        url = urls.pop(0)
        try:
            reply = await upload.call(
                Request("form", "POST", url if urlsplit(url).path else f"{url}/", {"content-type": kind}, body)
            )
            answer = qiniu.answer(reply, ours)
        except Retry:
            if not urls:
                raise
            continue
        if answer is not None or reply.status in {qiniu.STORED, qiniu.EXISTS}:
            return reply, answer
        if not moved and (better := qiniu.better_host(reply, url)) is not None:
            moved = True
            upload.better(url, better)
            urls.insert(0, better)
            continue
        trouble = qiniu.trouble(reply)
        urls = [other for other in urls if other != url]
        if not urls or not isinstance(trouble, Retry) or trouble.after is not None:
            raise trouble
