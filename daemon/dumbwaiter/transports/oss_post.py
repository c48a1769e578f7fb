"""Aliyun OSS by form: one request, the fields as the broker gave them, the file last.

A form cannot be resumed; a broken one stores nothing, and a repeated one overwrites its own key. A 203 says that the
object is stored and the broker's callback failed: it is never a reason to send again. The wire format is in OSS's
manual, "PostObject" and "callback".
"""

from hashlib import md5
from urllib.parse import quote

from dumbwaiter.doors import Upload
from dumbwaiter.errors import Conflict, Reject
from dumbwaiter.model import Receipt
from dumbwaiter.tickets import OssPostTicket
from dumbwaiter.wire import store_replies
from dumbwaiter.wire.message import Request, form
from dumbwaiter.wire.oss import Crc, trouble
from dumbwaiter.wire.oss_replies import answer, check_genuine, check_key, compared, tag, verdict


async def send(upload: Upload[OssPostTicket, None]) -> Receipt:
    """Sends the form and reads OSS's answer, or the callback's."""
    ticket = upload.ticket
    key = upload.key or dict(ticket.fields).get("key", "")
    check_key(key)
    crc = Crc()
    piece = (await upload.read(0, upload.size)).observed_by(crc.observe)
    kind, body = form(ticket.fields, ticket.file, upload.name, upload.mime, piece)
    reply = await upload.call(Request("form", "POST", ticket.url, {"content-type": kind}, body))
    if reply.status not in {200, 201, 203, 204}:
        found = verdict(reply, form=True)
        if isinstance(found, Conflict):
            digest = md5(usedforsecurity=False)
            await upload.digested(0, upload.size, digest)
            return store_replies.compared(await upload.confirm(), digest.hexdigest(), key)
        raise _refusal(found, trouble(reply.body).code, upload)
    called = any(name == "callback" and value for name, value in ticket.fields)
    if not (
        called and reply.status == 200 and reply.members is not None
    ):  # the shop's own word shows where it comes from
        check_genuine(reply)
    return Receipt(
        key,
        etag=tag(reply),
        url=f"{ticket.url.rstrip('/')}/{quote(key)}",
        verified=compared(reply, crc.value),
        facts={**ticket.facts, **(answer(reply) if called or reply.status == 203 else {})},
    )


def _refusal(found: Exception, code: str, upload: Upload[OssPostTicket, None]) -> Exception:
    """Says the size where that is what OSS minds."""
    if code in {"EntityTooLarge", "EntityTooSmall"}:
        return Reject(f"the file has {upload.size} bytes, which the upload policy does not allow ({code})")
    return found
