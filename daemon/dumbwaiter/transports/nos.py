"""NetEase NOS: one object, sent in order, at most 4 MiB a time.

After a break the server's offset is the truth; our own count is not. The context is the server's, opaque, and may
change with every answer; it is tied to the object and to no node. The wire format is in NetEase's VOD manual,
"upload by chunks" and "query the breakpoint".
"""

from hashlib import md5
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

from dumbwaiter.doors import Upload
from dumbwaiter.errors import Offline, Reauth, Reject, Restart, Retry
from dumbwaiter.model import MIB, Receipt
from dumbwaiter.naming import shown
from dumbwaiter.tickets import NosTicket
from dumbwaiter.wire.message import FileSlice, Reply, Request, query

CHUNK = 4 * MIB  # the server refuses more
MD5_MAX = MIB  # up to here the digest of the whole file costs next to nothing
STUCK = 3  # answers without progress before it counts as trouble
NAMES = {"code": "errCode", "message": "errMsg", "request": "requestId", "former": "requestID"}
DOUBTS = 5  # times to ask whether an upload that vanished is complete


class Checkpoint(Struct, frozen=True, omit_defaults=True):
    """Where the server told us to go on."""

    offset: int = 0
    context: str = ""  # empty until the first chunk is in
    doubts: int = 0  # the last chunk was sent, and its answer did not say that all is well
    said: str = ""  # the status and words of that answer


class _Answer(Struct, frozen=True):
    offset: int = -1  # not told
    context: str | None = None


class _Trouble(Struct, frozen=True, rename=NAMES):
    code: str = ""
    message: str = ""
    request: str = ""  # the number that NetEase's support asks for
    former: str = ""  # the same, as other pages of the manual spell it


async def send(upload: Upload[NosTicket, Checkpoint]) -> Receipt:
    """Sends the file, going on where the server says an earlier attempt came to."""
    nodes = _Nodes(upload)
    point = upload.checkpoint or Checkpoint()
    if point.doubts:
        return await _doubt(upload, point)
    try:
        if point.context:
            point = await nodes.resume(point)
            await _note(upload, point)
        return await _send_from(upload, nodes, point)
    except _Vanished as vanished:
        # A finished upload is forgotten like an expired one; only the last chunk's turn leaves room for doubt.
        if vanished.point.offset + CHUNK < upload.size:
            raise Restart("NetEase no longer knows this upload") from None
        return await _doubt(upload, vanished.point)


async def _send_from(upload: Upload[NosTicket, Checkpoint], nodes: "_Nodes", point: Checkpoint) -> Receipt:
    stuck, furthest = 0, point.offset
    while True:
        chunk = await upload.read(point.offset, CHUNK)
        try:
            reached, ended = await nodes.put(point, chunk)
        except Retry as trouble:
            nodes.switch(trouble)
            if point.context:
                point = await nodes.resume(point)
                furthest = point.offset
                await _note(upload, point)
            continue
        if ended:
            return Receipt(
                upload.ticket.object,
                verified="md5" if chunk.length == upload.size <= MD5_MAX else "",
                facts={"bucket": upload.ticket.bucket},
            )
        stuck = stuck + 1 if reached.offset <= furthest else 0
        furthest = max(furthest, reached.offset)
        if stuck == STUCK:
            raise Retry("NetEase takes the bytes but does not get on")
        point = reached
        await _note(upload, point)


async def _note(upload: Upload[NosTicket, Checkpoint], point: Checkpoint) -> None:
    """Journals where the server is; for sure before the last chunk, or a finished upload would look like a lost one."""
    last = point.offset + CHUNK >= upload.size
    if last:
        await upload.whole()
    await upload.save(point, point.offset, sure=last)


async def _doubt(upload: Upload[NosTicket, Checkpoint], point: Checkpoint) -> Receipt:
    """The upload is gone from the server: complete or lost. Asks elsewhere, a few times, then begins anew."""
    receipt = await upload.confirm()
    if receipt is not None:
        return receipt
    if point.doubts >= DOUBTS:
        raise Restart("NetEase has neither the upload nor the object")
    await upload.save(replace(point, doubts=point.doubts + 1), point.offset, sure=True)
    unseen = "NetEase does not show the finished object yet"
    sentence = f"NetEase's upload node answers {point.said}" if point.said else unseen
    raise Retry(sentence, after=2.0**point.doubts)


class _Vanished(Exception):
    """The server does not know the context any more, or could not tell our side that all is stored."""

    def __init__(self, point: Checkpoint) -> None:
        self.point = point


class _Nodes:
    """The upload nodes, one in use; another one after each trouble, until all had their turn."""

    def __init__(self, upload: Upload[NosTicket, Checkpoint]) -> None:
        self._upload = upload
        self._urls = upload.order(upload.ticket.nodes)
        self._failures = 0

    def switch(self, trouble: Retry) -> None:
        """Turns to the next node. Raises `trouble` when none is left that was not tried since the last progress."""
        self._failures += 1
        if self._failures >= len(self._urls):
            raise trouble
        self._urls.append(self._urls.pop(0))

    async def put(self, point: Checkpoint, chunk: FileSlice) -> tuple[Checkpoint, bool]:
        """Sends one chunk; returns where the server is now, and whether it has said that this is all."""
        upload = self._upload
        last = chunk.end == upload.size
        headers = {"x-nos-token": upload.ticket.token, "content-type": upload.mime}
        if chunk.data is not None and chunk.length == upload.size <= MD5_MAX:
            headers["content-md5"] = md5(chunk.data, usedforsecurity=False).hexdigest()
        request = Request(
            "chunk",
            "POST",
            self._url(
                ("offset", point.offset),
                ("complete", "true" if last else "false"),
                *([("context", point.context)] if point.context else []),
                ("version", "1.0"),
            ),
            headers,
            chunk,
        )
        reply = await self._ask(request)
        if reply.status == 400 and not point.context:  # it did not come whole, says the manual
            reply = await self._ask(request)
        if reply.status == 520 and last:
            raise _Vanished(replace(point, said=f"520{_said(reply)}"))
        if reply.status == 400 and point.context:
            reached = await self.resume(point)
            if reached == point:
                raise Restart("NetEase refuses to go on with this upload")
            return reached, False
        if reply.status == 404:
            raise Restart("NetEase no longer knows this upload")
        answer = self._read(reply, point)
        if answer.offset > chunk.end:
            raise Restart("NetEase claims to have more than was sent")
        self._failures = 0
        context = answer.context if answer.context not in {None, "", "null"} else point.context
        if not context and answer.offset < upload.size:
            raise Retry("NetEase gave no context to go on with")
        return Checkpoint(answer.offset, context or ""), last and answer.offset == upload.size

    async def resume(self, point: Checkpoint) -> Checkpoint:
        """Asks where the server is, any node that answers."""
        while True:
            try:
                reply = await self._ask(
                    Request(
                        "breakpoint",
                        "GET",
                        self._url(("uploadContext", None), ("context", point.context), ("version", "1.0")),
                        {"x-nos-token": self._upload.ticket.token},
                    )
                )
                if reply.status == 400:
                    raise Restart("NetEase says the upload belongs to another object")
                answer = self._read(reply, point)
            except Retry as trouble:
                self.switch(trouble)
            else:
                if answer.offset > self._upload.size:
                    raise Restart("NetEase claims to have more than the file holds")
                return replace(point, offset=answer.offset)

    async def _ask(self, request: Request) -> Reply:
        """Returns a node's answer: a portal's page, whatever its status, says nothing of the upload."""
        reply = await self._upload.call(request)
        if reply.page and 300 <= reply.status < 500:
            raise Offline("something other than NetEase answered in its place")
        return reply

    def _url(self, *parameters: tuple[str, object]) -> str:
        ticket = self._upload.ticket
        path = f"{quote(ticket.bucket, safe='')}/{quote(ticket.object, safe='')}"
        return f"{self._urls[0].rstrip('/')}/{path}?{query(parameters)}"

    def _read(self, reply: Reply, point: Checkpoint) -> _Answer:
        """Returns an accepted answer; raises what any other means."""
        match reply.status:
            case 200:
                answer = reply.json(_Answer)
                if answer.offset < 0:
                    raise Retry("NetEase's answer holds no offset")
                return answer
            case 403:
                raise Reauth(f"NetEase refuses the upload token{_said(reply)}")
            case 404:
                raise _Vanished(point)
            case 400 | 401 | 405 | 411 | 413 | 414 | 415:
                raise Reject(f"NetEase refuses the file: {_words(reply) or f'status {reply.status}'}")
        raise Retry(f"NetEase's upload node answers {reply.status}{_said(reply)}", after=reply.after)


def _said(reply: Reply) -> str:
    words = _words(reply)
    return f": {words}" if words else ""


def _words(reply: Reply) -> str:
    try:
        trouble = reply.json(_Trouble)
    except Retry:
        return ""
    number = trouble.request or trouble.former
    parts = (trouble.code, trouble.message[:200], number and f"(request {number[:64]})")
    return shown(" ".join(part for part in parts if part))
