"""Aliyun OSS with temporary credentials: one PutObject for a small file, parts side by side for a large one.

The credentials may put objects and nothing else: no list of parts, no abort, no look at the object. So the journal
says which parts are in, and an upload id is used as long as it lives; it belongs to the object and outlives the
credentials. The wire format is in OSS's manual, "PutObject", "InitiateMultipartUpload", "UploadPart",
"CompleteMultipartUpload", "callback".
"""

from hashlib import md5
from urllib.parse import quote

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dumbwaiter.doors import Upload
from dumbwaiter.errors import Reject, Restart, Retry
from dumbwaiter.model import KIB, MIB, Receipt
from dumbwaiter.tickets import OssStsTicket
from dumbwaiter.wire import oss
from dumbwaiter.wire.message import FileSlice, Reply, Request, query
from dumbwaiter.wire.oss_replies import answer, check_genuine, check_key, compared, tag, verdict

SMALL = 4 * MIB  # up to here one request holds the file
PART = 4 * MIB  # at least; a kill costs those under way
PARTS = 1000  # the journal holds a line for each, with every save
PART_MAX = 5 * KIB * MIB
STEP = 64 * KIB  # part sizes are multiples of it

_Upload = Upload[OssStsTicket, "Checkpoint"]


class Part(Struct, frozen=True, array_like=True):
    """A part that is in."""

    tag: str
    crc: int


class Checkpoint(Struct, frozen=True, omit_defaults=True):
    """An upload that OSS knows, and what it has of it."""

    bucket: str
    id: str
    part: int  # bytes in each but the last
    parts: dict[int, Part] = {}
    completing: bool = False  # asked to join the parts


async def send(upload: _Upload) -> Receipt:
    """Sends the file, going on with the parts that the journal does not have."""
    check_key(upload.key or "")
    if upload.size <= SMALL:
        return await _put(upload)
    point = upload.checkpoint
    if point is None or point.bucket != upload.ticket.bucket or not _fits(upload, point):
        point = await _begin(upload)
    if not point.completing:
        point = await _parts(upload, point)
    return await _complete(upload, point)


async def _put(upload: _Upload) -> Receipt:
    crc = oss.Crc()
    piece = (await upload.read(0, upload.size)).observed_by(crc.observe)
    reply = await _call(upload, "object", "PUT", (), {"content-type": upload.mime, **_callback(upload.ticket)}, piece)
    if reply.status not in {200, 203}:
        raise verdict(reply)
    return _receipt(upload, reply, crc.value)


async def _begin(upload: _Upload) -> Checkpoint:
    reply = await _call(upload, "begin", "POST", (("uploads", None),), {"content-type": upload.mime})
    if reply.status != 200:
        raise verdict(reply)
    id_ = oss.element(reply.body, "UploadId")
    if not id_:
        raise Retry("OSS's answer names no upload")
    part = max(PART, -(-upload.size // PARTS // STEP) * STEP)
    if part > PART_MAX:
        raise Reject(f"the file has {upload.size} bytes; OSS takes {PARTS * PART_MAX} in the parts we can journal")
    point = Checkpoint(upload.ticket.bucket, id_, part)
    await upload.save(point, 0, sure=True)
    return point


async def _parts(upload: _Upload, point: Checkpoint) -> Checkpoint:
    numbers = range(1, -(-upload.size // point.part) + 1)
    sent = sum(_length(upload, point, number) for number in point.parts)

    async def send_one(number: int) -> Part:
        return await _part(upload, point, number)

    async def done(number: int, part: Part) -> None:
        nonlocal point, sent
        point = replace(point, parts={**point.parts, number: part})
        sent += _length(upload, point, number)
        await upload.save(point, sent)

    await upload.parts([number for number in numbers if number not in point.parts], send_one, done)
    return point


def _fits(upload: _Upload, point: Checkpoint) -> bool:
    """False for a checkpoint of parts that the file does not have: a journal may be damaged."""
    return point.part >= STEP and all(number > 0 and _length(upload, point, number) > 0 for number in point.parts)


def _length(upload: _Upload, point: Checkpoint, number: int) -> int:
    return min(point.part, upload.size - (number - 1) * point.part)


async def _part(upload: _Upload, point: Checkpoint, number: int) -> Part:
    crc = oss.Crc()
    start, length = (number - 1) * point.part, _length(upload, point, number)
    piece = (await upload.read(start, length)).observed_by(crc.observe)
    reply = await _call(upload, "part", "PUT", (("partNumber", str(number)), ("uploadId", point.id)), {}, piece)
    if reply.status != 200:
        raise verdict(reply)
    compared(reply, crc.value)
    name = tag(reply)
    if not name:
        digest = md5(usedforsecurity=False)
        await upload.digested(start, length, digest)
        name = digest.hexdigest().upper()
    return Part(name, crc.value)


async def _complete(upload: _Upload, point: Checkpoint) -> Receipt:
    await upload.whole()
    crc = 0
    for number in sorted(point.parts):
        crc = oss.combined(crc, point.parts[number].crc, _length(upload, point, number))
    if not point.completing:
        point = replace(point, completing=True)
        await upload.save(point, upload.size, sure=True)
    body = oss.complete((number, point.parts[number].tag) for number in sorted(point.parts))
    headers = {"content-type": "application/xml", **_callback(upload.ticket)}
    reply = await _call(upload, "complete", "POST", (("uploadId", point.id),), headers, body)
    found = oss.trouble(reply.body)
    if reply.status == 404 and found.code == "NoSuchUpload":
        return await _look(upload, crc)
    if reply.status not in {200, 203} or (reply.status == 200 and found.code):
        raise verdict(reply)
    return _receipt(upload, reply, crc)


async def _look(upload: _Upload, crc: int) -> Receipt:
    """A finished upload is forgotten like a lost one: the object tells. Credentials may not look, but anybody may."""
    for reply in (
        await upload.call(Request("look", "HEAD", _url(upload, ()))),
        await _call(upload, "look", "HEAD", (), {}),
    ):
        if reply.status != 200:
            continue
        if reply.headers.get("content-length") == str(upload.size) and (verified := _same(reply, crc)):
            return await _told(upload, Receipt(upload.key or "", tag(reply), _url(upload, ()), verified))
        break
    receipt = await upload.confirm()
    if receipt is not None:
        return receipt
    raise Restart("OSS has neither the upload nor the whole object")


async def _told(upload: _Upload, there: Receipt) -> Receipt:
    """Asks the broker whether it knows of an object that is there: what its callback said went with the lost answer."""
    facts = dict(upload.ticket.facts)
    if not upload.ticket.callback:
        return replace(there, facts=facts)
    known = await upload.confirm()
    if known is None:
        return replace(there, facts={**facts, "callback": "unknown"})
    return replace(known, etag=there.etag or known.etag, verified=there.verified)


def _same(reply: Reply, crc: int) -> str:
    try:
        return compared(reply, crc)
    except Retry:
        return ""


def _receipt(upload: _Upload, reply: Reply, crc: int) -> Receipt:
    called = upload.ticket.callback or reply.status == 203
    return Receipt(
        upload.key or "",
        etag=tag(reply) or oss.element(reply.body, "ETag").strip('"'),
        url=_url(upload, ()),
        verified=compared(reply, crc),
        facts={**upload.ticket.facts, **(answer(reply) if called else {})},
    )


def _callback(ticket: OssStsTicket) -> dict[str, str]:
    if not ticket.callback:
        return {}
    headers = {"x-oss-callback": oss.in_base64(ticket.callback)}
    if ticket.variables:
        headers["x-oss-callback-var"] = oss.in_base64(msgspec.json.encode(ticket.variables).decode())
    return headers


def _url(upload: _Upload, parameters: oss.Query) -> str:
    ticket = upload.ticket
    scheme, _, host = ticket.endpoint.rstrip("/").partition("://")
    place = f"{host}/{ticket.bucket}" if ticket.path_style else f"{ticket.bucket}.{host}"
    search = query(parameters)
    return f"{scheme}://{place}/{quote(upload.key or '')}{'?' if search else ''}{search}"


async def _call(
    upload: _Upload,
    what: str,
    method: str,
    parameters: tuple[tuple[str, str | None], ...],
    headers: dict[str, str],
    body: bytes | FileSlice = b"",
) -> Reply:
    """Sends a signed request and returns OSS's own answer."""
    ticket = upload.ticket
    url = _url(upload, parameters)
    account = oss.Account(ticket.access_key, ticket.secret.reveal(), ticket.token.reveal())
    place = (account, method, ticket.bucket, upload.key or "", parameters, headers, upload.now(url))
    signed = oss.signed_v4(*place, region=ticket.region) if ticket.version == 4 else oss.signed_v1(*place)
    reply = await upload.call(Request(what, method, url, signed, body))
    return check_genuine(reply) if reply.status < 300 else reply
