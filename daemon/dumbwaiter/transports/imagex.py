"""ImageX: small files in one request, large ones in parts side by side, a CRC-32 with each; the broker commits.

What an upload host took is not stored before the commit, which `Upload.confirm` makes and may repeat. The hosts speak
two dialects: that of the vendor's web page, and that of its SDKs, in which they list the parts they have. Our own
record says which parts are in, and a list that is to be had corrects it. An upload goes on at the host it began at,
unless another one knows it. Volcengine's veImageX manual and official SDKs show the requests.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar
from urllib.parse import quote

from msgspec import Struct, field
from msgspec.structs import replace

from dumbwaiter.doors import Upload
from dumbwaiter.errors import Reauth, Reject, Restart, Retry, Verdict
from dumbwaiter.model import MIB, Receipt
from dumbwaiter.tickets import ImageXTicket
from dumbwaiter.wire.imagex import Crc32, merge_list, same
from dumbwaiter.wire.message import FileSlice, Reply, Request

T = TypeVar("T")
PICTURES = {"image/jpeg", "image/png", "image/gif", "image/webp"}  # of which ImageX tells whether it keeps them
PART = 20 * MIB  # as the SDKs have it; what is not longer goes in one request
PARTS_MAX = 10_000
CHECKSUM, MERGE_LIST, MERGING, MERGED = 4007, 4019, 4024, 4025  # error codes of a host


class Checkpoint(Struct, frozen=True, omit_defaults=True):
    """What the hosts have. The length of a part stays as it was begun with."""

    host: str = ""
    upload: str = ""  # the host's name for it; empty for a file in one request
    length: int = 0
    parts: dict[int, str] = {}  # checksum by number, the first being 0
    merging: bool = False  # the parts were asked to be joined; the answer may be lost
    whole: bool = False  # all bytes are there
    unproven: bool = False  # a part was taken without a word about its checksum


class Dialect(Struct, frozen=True):
    """How a host is asked to take parts."""

    base: str  # in front of the object's path
    method: str
    first: int  # the number of the first part
    init: str
    part: str
    merge: str
    headers: Mapping[str, str] = {}
    lists: bool = True  # it can say which parts it has


_SDK = Dialect("/", "PUT", 1, "uploads", "partNumber={number}&uploadID={upload}", "uploadID={upload}")
# The SDKs number in two ways, with a header that tells the host which; the page in a third.
DIALECTS = {
    "gateway": replace(_SDK, headers={"x-storage-mode": "gateway"}),
    "plain": replace(_SDK, first=0),
    "v1": Dialect(
        "/upload/v1/",
        "POST",
        1,
        "uploadmode=part&phase=init",
        "uploadmode=part&phase=transfer&part_number={number}&uploadid={upload}",
        "uploadmode=part&phase=finish&uploadid={upload}",
        lists=False,
    ),
}


class _Part(Struct):
    number: int = field(name="partNumber", default=-1)
    other_number: int = field(name="part_number", default=-1)
    crc32: str | None = None


class _Payload(Struct):
    """What both dialects say, under the names of either."""

    upload: str | None = field(name="uploadID", default=None)
    other_upload: str | None = field(name="uploadid", default=None)
    crc32: str | None = None
    hash: str | None = None
    parts: tuple[_Part, ...] | None = field(name="partList", default=None)


class _Error(Struct):
    name: str | None = field(name="error", default=None)
    number: int | None = field(name="error_code", default=None)
    message: str | None = None


class _Answer(Struct):
    code: int | None = None
    message: str | None = None
    data: _Payload | None = None
    success: int | None = None
    error: _Error | None = None
    payload: _Payload | None = None


class _Refused(Exception):
    """A host's own error about the upload as it stands."""

    def __init__(self, number: int, words: str) -> None:
        super().__init__(words)
        self.number = number


async def send(upload: Upload[ImageXTicket, Checkpoint]) -> Receipt:
    """Sends the file, or what an earlier attempt left, and has it committed."""
    point, doubt = upload.checkpoint or Checkpoint(), None
    if not point.whole:
        if upload.size <= PART:
            await _single(upload)
        else:
            parts = _Parts(upload)
            point, doubt = await parts.send(point), parts.doubt
        if doubt is None:
            await upload.whole()
            await upload.save(replace(point, whole=True), upload.size, sure=True)
    bucket, _, key = upload.ticket.uri.partition("/")
    verified = "" if point.unproven else "crc32"
    receipt = Receipt(key, verified=verified, facts={"bucket": bucket, "uri": upload.ticket.uri})
    committed = await upload.confirm()
    if committed is not None:
        return receipt.with_facts(**committed.facts)
    if doubt is not None:
        raise doubt
    if upload.mime in PICTURES:
        raise Retry("ImageX does not say yet that it keeps the file")
    return receipt


async def _checksum(upload: Upload[ImageXTicket, Checkpoint], piece: FileSlice) -> str:
    crc = Crc32()
    if piece.data is not None:
        crc.update(piece.data)
    else:
        await upload.digested(piece.offset, piece.length, crc)
    return crc.text()


async def _single(upload: Upload[ImageXTicket, Checkpoint]) -> None:
    piece = await upload.read(0, upload.size)
    crc = await _checksum(upload, piece)
    try:
        echoed = await _first_that_answers(upload, lambda host: _put(upload, host, piece, crc))
    except _Refused as refused:
        raise Reauth(f"the upload host will not take the file under this permission: {refused}") from None
    if not echoed:
        raise Retry("the upload host's answer holds no checksum")


async def _put(upload: Upload[ImageXTicket, Checkpoint], host: str, piece: FileSlice, crc: str) -> bool:
    said = await _ask(upload, "file", host, "POST", "/upload/v1/", "", {"content-crc32": crc}, piece)
    return _echoed(said, crc)


async def _first_that_answers(upload: Upload[ImageXTicket, Checkpoint], ask: Callable[[str], Awaitable[T]]) -> T:
    """Asks one host after another until one is not in trouble. Raises the last one's."""
    trouble = Retry("there is no upload host")
    for host in upload.order(upload.ticket.hosts):
        try:
            return await ask(host)
        except Retry as error:
            trouble = error
    raise trouble


class _Parts:
    """A file on its way in parts."""

    def __init__(self, upload: Upload[ImageXTicket, Checkpoint]) -> None:
        self._upload = upload
        self._dialect = DIALECTS[upload.ticket.multipart]
        self._point = Checkpoint()
        self.doubt: Verdict | None = None  # the answer to the joining was lost: to be raised unless the commit tells

    async def send(self, point: Checkpoint) -> Checkpoint:
        """Sends what is missing, joins it all and returns the last point."""
        self._point = point
        if not point.upload or point.length <= 0:
            await self._begin()
        elif not point.merging:
            await self._correct()
        for again in (False, True):
            try:
                if not self._point.merging:
                    await self._send_missing()
                await self._merge()
            except _Refused as refused:
                if refused.number in {MERGING, MERGED} and self._point.merging:
                    if refused.number == MERGING:
                        self.doubt = Retry("ImageX does not say yet that it keeps the file")
                    break
                if refused.number != MERGE_LIST:
                    raise Reauth(f"the upload host has this object already: {refused}") from None
                if again or not self._dialect.lists:
                    raise Restart(f"the upload host cannot join the parts: {refused}") from None
                self._point = replace(self._point, merging=False)
                await self._correct()
            else:
                break
        return self._point

    async def _begin(self) -> None:
        upload = self._upload
        length = max(PART, -(-upload.size // PARTS_MAX))

        async def begin(host: str) -> _Payload:
            said = await self._ask("upload", host, self._dialect.method, self._dialect.init)
            self._point = Checkpoint(host, said.upload or said.other_upload or "", length)
            return said

        try:
            await _first_that_answers(upload, begin)
        except _Refused as refused:
            raise Reauth(f"the upload host will not begin under this permission: {refused}") from None
        if not self._point.upload:
            raise Retry("the upload host gave the upload no name")
        await upload.save(self._point, 0, sure=True)

    async def _correct(self) -> None:
        """Makes the record agree with what the host lists; a part that only one of the two knows is sent again."""
        if not self._dialect.lists:
            return
        there = await self._listed()
        kept = {
            number: crc
            for number, crc in self._point.parts.items()
            if number in there and same(there[number] or crc, crc)
        }
        if kept != self._point.parts:
            self._point = replace(self._point, parts=kept)
            await self._upload.save(self._point, self._sent(), sure=True)

    async def _listed(self) -> dict[int, str | None]:
        """Asks where the upload began; when that host is in trouble, any other that knows the upload will do."""
        own = self._point.host
        trouble: Retry | None = None
        for host in (own, *(one for one in self._upload.order(self._upload.ticket.hosts) if one != own)):
            try:
                said = await self._ask("list of parts", host, "GET", f"uploadID={quote(self._point.upload, safe='')}")
            except _Refused as refused:
                raise Restart(f"the upload host cannot say which parts it has: {refused}") from None
            except Restart:
                if trouble is None:
                    raise
            except Retry as error:
                trouble = trouble or error
            else:
                self._point = replace(self._point, host=host)
                first = self._dialect.first
                return {max(part.number, part.other_number) - first: part.crc32 for part in said.parts or ()}
        assert trouble is not None
        raise trouble

    async def _send_missing(self) -> None:
        count = -(-self._upload.size // self._point.length)
        missing = [number for number in range(count) if number not in self._point.parts]
        await self._upload.parts(missing, self._send_one, self._note)

    async def _send_one(self, number: int) -> tuple[str, bool]:
        piece = await self._upload.read(number * self._point.length, self._point.length)
        crc = await _checksum(self._upload, piece)
        search = self._filled(self._dialect.part, number + self._dialect.first)
        headers = {"content-crc32": crc}
        said = await self._ask("part", self._point.host, self._dialect.method, search, headers, piece)
        return crc, _echoed(said, crc)

    async def _note(self, number: int, sent: tuple[str, bool]) -> None:
        crc, echoed = sent
        unproven = self._point.unproven or not echoed
        self._point = replace(self._point, parts={**self._point.parts, number: crc}, unproven=unproven)
        await self._upload.save(self._point, self._sent())

    async def _merge(self) -> None:
        if not self._point.merging:
            await self._upload.whole()
            self._point = replace(self._point, merging=True)
            await self._upload.save(self._point, self._upload.size, sure=True)
            lost = False
        else:
            lost = True
        body = merge_list(self._point.parts, self._dialect.first)
        search = self._filled(self._dialect.merge)
        headers = {"content-type": "text/plain"}
        try:
            await self._ask("joining of parts", self._point.host, self._dialect.method, search, headers, body)
        except Restart as forgotten:
            if not lost:
                raise
            self.doubt = forgotten  # a host forgets what it has joined as well

    def _sent(self) -> int:
        length, size = self._point.length, self._upload.size
        return sum(min(length, size - number * length) for number in self._point.parts)

    def _filled(self, search: str, number: int = 0) -> str:
        return search.format(number=number, upload=quote(self._point.upload, safe=""))

    async def _ask(
        self,
        what: str,
        host: str,
        method: str,
        search: str,
        headers: Mapping[str, str] = {},
        body: bytes | FileSlice = b"",
    ) -> _Payload:
        every = {**self._dialect.headers, **headers}
        return await _ask(self._upload, what, host, method, self._dialect.base, search, every, body)


async def _ask(
    upload: Upload[ImageXTicket, Checkpoint],
    what: str,
    host: str,
    method: str,
    base: str,
    search: str,
    headers: Mapping[str, str],
    body: bytes | FileSlice = b"",
) -> _Payload:
    """Sends one request to a host and returns what an accepted one says; raises what any other means."""
    ticket = upload.ticket
    url = f"{host.rstrip('/')}{base}{quote(ticket.uri)}{f'?{search}' if search else ''}"
    every = {"content-type": "application/octet-stream", **ticket.headers, **headers, "authorization": ticket.auth}
    return _read(await upload.call(Request(what, method, url, every, body)), search != "")


def _read(reply: Reply, named: bool) -> _Payload:
    if reply.status in {401, 403}:
        raise Reauth("the upload host refuses the permission to upload")
    if reply.status == 404 and named:
        raise Restart("the upload host no longer knows this upload")
    if reply.is_temporary or reply.status == 404:
        raise Retry(f"the upload host answers {reply.status}", after=reply.after)
    answer = reply.json(_Answer)
    if reply.status < 300 and (answer.code == 2000 or answer.success == 0):
        return answer.data or answer.payload or _Payload()
    raise _meaning(reply, answer)


def _meaning(reply: Reply, answer: _Answer) -> Exception:
    error = answer.error or _Error()
    number = error.number or answer.code or 0
    words = f"{error.name or 'error'} {number}: {(error.message or answer.message or '')[:200]}"
    if number == CHECKSUM:
        return Retry(f"the upload host received other bytes than were sent ({words})")
    if number in {MERGE_LIST, MERGING, MERGED}:
        return _Refused(number, words)
    if 4000 <= number < 5000 or 400 <= reply.status < 500:
        return Reject(f"the upload host refuses the file: {words}")
    return Retry(f"the upload host answers {words}")


def _echoed(said: _Payload, crc: str) -> bool:
    """Whether the host tells the checksum of what it received. Raises Retry when it is another than was sent."""
    echo = said.crc32 or said.hash
    if echo is not None and not same(echo, crc):
        raise Retry("the upload host has other bytes than were sent")
    return echo is not None
