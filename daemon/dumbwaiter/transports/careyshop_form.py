"""CareyShop's own upload: a signed form to the shop, which names the file and answers with its SHA-1.

Every form that reached the shop makes another file there. So after a lost answer the shop's list is asked first, and
only a file that is not in it is sent again. The wire format is in CareyShop's API manual, "upload resources".
"""

from contextlib import suppress
from hashlib import sha1
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from dumbwaiter.doors import Upload
from dumbwaiter.errors import Blocked, Reauth, Reject, Retry
from dumbwaiter.model import Receipt
from dumbwaiter.naming import shown
from dumbwaiter.tickets import CareyShopTicket
from dumbwaiter.wire.careyshop import ACCOUNT, LATE, SIGN_IN, envelope, item
from dumbwaiter.wire.message import Request, form

AGAIN = frozenset({"异常错误，请重新尝试上传"})


class Checkpoint(Struct, frozen=True):
    """A form was sent; whether it arrived is not known."""


async def send(upload: Upload[CareyShopTicket, Checkpoint]) -> Receipt:
    """Sends the form, unless the shop has the file from an earlier one."""
    if upload.checkpoint is not None and (found := await _listed(upload)) is not None:
        return found
    digest = sha1(usedforsecurity=False)

    piece = (await upload.read(0, upload.size)).observed_by(lambda _offset, data: digest.update(data))
    ticket = upload.ticket
    kind, body = form(ticket.fields, ticket.file, upload.name, upload.mime, piece)
    await upload.save(Checkpoint(), 0)
    reply = await upload.call(Request("form", "POST", ticket.url, {"content-type": kind}, body))
    whole = envelope(reply)
    if whole.status != 200:
        refusal = _refusal(whole.status, whole.message)
        if isinstance(refusal, Reject):
            with suppress(Blocked):  # an account that may send need not be one that may list
                await upload.confirm()  # a shop that its owner closed says the same to this, which raises `Retry`
        raise refusal
    stored = item(reply.body.decode("utf-8", "replace"))
    if stored.status not in {None, 200}:
        raise _refusal(stored.status, stored.message)
    etag = (stored.hash or "").lower()
    if stored.size not in {None, upload.size} or etag not in {"", digest.hexdigest()}:
        raise Retry("the shop received other bytes than were sent")
    return Receipt(
        (stored.path or "").lstrip("/"),
        etag=etag,
        verified="sha1" if etag else "size" if stored.size is not None else "",
        facts={**ticket.facts, "answer": reply.body.decode("utf-8", "replace")},
    )


async def _listed(upload: Upload[CareyShopTicket, Any]) -> Receipt | None:
    receipt = await upload.confirm()
    if receipt is None:
        return None
    digest = sha1(usedforsecurity=False)
    await upload.digested(0, upload.size, digest)
    return replace(receipt, verified="sha1") if receipt.etag.lower() == digest.hexdigest() else None


def _refusal(status: int, message: str) -> Exception:
    words = shown(message[:200])
    if status in {401, 403} or message in SIGN_IN or message in ACCOUNT or message == LATE:  # no word on the file
        return Reauth(f"the shop refuses the upload: {words}")
    if message in AGAIN or (status >= 500 and not message):
        return Retry(f"the shop could not store the file: {words}")
    return Reject(f"the shop refuses the file: {words}")
