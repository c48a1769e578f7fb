"""Qiniu Kodo in parts, side by side: version 2 of its interface, version 1 where a private cloud has no other.

Parts have 4 MiB, so that the object's hash is the usual one. After a break the server's list of parts is the truth
(version 1 has none: there our own record is). A part counts for whoever has a token for the same object, so another
token may take over at any time; the one that completes decides key and callback. Qiniu's developer manual: "chunked
upload v2" (initiate, upload part, list parts, complete) and "v1" (mkblk, mkfile).
"""

from hashlib import md5
from urllib.parse import quote, urlsplit
from zlib import crc32

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dumbwaiter.doors import Upload
from dumbwaiter.errors import Reject, Restart, Retry, Unfit
from dumbwaiter.model import Receipt
from dumbwaiter.tickets import QiniuTicket
from dumbwaiter.wire import qiniu
from dumbwaiter.wire.message import FileSlice, Reply, Request, query

GONE = {612, 701}
LACKING = {404, 405, 501}  # this version of the interface is not there
PAGE = 1000  # parts in one answer


class Checkpoint(Struct, frozen=True, omit_defaults=True):
    """An upload that the server knows. The server lists the parts of version 2.

    Noted are only those whose mark is no hash of their content: a refused one looks in the list like any other.
    """

    url: str
    bucket: str
    object: str
    id: str = ""  # empty: version 1
    sent: int = 0
    blocks: dict[int, str] = {}  # what the server gave for a part, by number
    unproved: bool = False  # the server said nothing of a part that could be compared


class _Begun(Struct):
    id: str = msgspec.field(name="uploadId")


class _Stored(Struct):
    etag: str
    md5: str = ""


class _Part(Struct):
    number: int = msgspec.field(name="partNumber")
    etag: str
    size: int


class _Parts(Struct):
    parts: tuple[_Part, ...] = ()
    marker: int = msgspec.field(name="partNumberMarker", default=0)


class _Block(Struct):
    context: str = msgspec.field(name="ctx")
    crc32: int | None = None


async def send(upload: Upload[QiniuTicket, Checkpoint]) -> Receipt:
    """Sends the file, leaving out what the server has of an earlier attempt."""
    policy = qiniu.policy(upload.ticket.token)
    if policy is None:
        raise Unfit("the upload token does not say which bucket it is for")
    if any(urlsplit(url).path.strip("/") for url in upload.ticket.urls):
        raise Unfit("the provider's upload address is that of a form")
    return await _Sender(upload, policy).run()


class _Lost(Exception):
    """The server does not know the upload: it is complete, or it is gone."""


class _Sender:
    """One attempt."""

    def __init__(self, upload: Upload[QiniuTicket, Checkpoint], policy: qiniu.Policy) -> None:
        self._upload = upload
        self._ticket = upload.ticket
        self._policy = policy
        self._object = qiniu.entry(None if policy.forced else upload.ticket.key)
        self._size = qiniu.part_size(upload.size)
        self._count = -(-upload.size // self._size)
        self._urls = upload.order(upload.ticket.urls)
        self._hashes: dict[int, qiniu.Etag] = {}  # of the parts sent or read by this attempt
        self._marks: dict[int, str] = {}  # what the server gave for each part: etag, or context
        self._listed: set[int] = set()  # parts of which the list alone tells
        self._resumed = False  # an earlier attempt began it

    async def run(self) -> Receipt:
        point = self._upload.checkpoint
        if point is None or (point.bucket, point.object) != (self._policy.bucket, self._object):
            point = await self._begin()
        else:
            self._resumed = True
            # Kept by the region, not by the host; where it began it is known at once.
            self._urls = [point.url, *(url for url in self._urls if url != point.url)]
            if point.id:
                try:
                    await self._list(point)
                except _Lost:
                    return await self._vanished(point)
            else:
                self._marks = dict(point.blocks)
        self._sent = sum(map(self._length, self._marks))
        self._unproved = point.unproved
        self._point = replace(point, sent=self._sent)
        await self._send_missing()
        if await self._drop_damaged():
            await self._send_missing()
        return await self._finish()

    async def _send_missing(self) -> None:
        missing = [number for number in range(1, self._count + 1) if number not in self._marks]
        try:
            await self._upload.parts(missing, self._part if self._point.id else self._block, self._done)
        except _Lost:
            raise Restart("Qiniu no longer knows this upload") from None

    async def _drop_damaged(self) -> bool:
        """Leaves out those of the listed parts that hold other bytes than the file; returns whether there are any."""
        damaged = [
            number for number in sorted(self._listed) if self._marks[number] != (await self._hash(number)).text()
        ]
        for number in damaged:
            del self._marks[number]
            self._sent -= self._length(number)
        self._listed.clear()
        return bool(damaged)

    def _length(self, number: int) -> int:
        return min(self._size, self._upload.size - (number - 1) * self._size)

    # Beginning, and going on

    async def _begin(self) -> Checkpoint:
        reply = await self._call("begin", "POST", self._path())
        url = self._urls[0]
        if not qiniu.from_qiniu(reply):
            raise Unfit("the provider takes no uploads in parts")
        if reply.status == 200:
            return Checkpoint(url, self._policy.bucket, self._object, reply.json(_Begun).id)
        trouble = qiniu.trouble(reply)
        if reply.status in LACKING and (self._policy.once or self._policy.key is not None):
            # Version 1 replaces whatever has the name, unless the token forbids it or means just that.
            return Checkpoint(url, self._policy.bucket, self._object)
        if isinstance(trouble, Reject) or reply.status in LACKING:
            raise Unfit("the provider takes no uploads in parts")
        raise trouble

    async def _list(self, point: Checkpoint) -> None:
        """Learns which parts the server has. Raises `_Lost`."""
        marker = 0
        while True:
            search = query([("max-parts", PAGE), ("part-number-marker", marker)])
            reply = await self._call("parts", "GET", f"{self._path(point.id)}?{search}")
            if reply.status in GONE:
                raise _Lost
            if reply.status != 200:
                raise (
                    Restart("Qiniu does not say what it has of the file")
                    if reply.status in LACKING | {400}
                    else qiniu.trouble(reply)
                )
            page = reply.json(_Parts)
            for part in page.parts:
                if not 1 <= part.number <= self._count or part.size != self._length(part.number):
                    continue
                if part.etag == point.blocks.get(part.number):
                    self._marks[part.number] = part.etag
                elif qiniu.is_etag(part.etag):
                    self._marks[part.number] = part.etag
                    self._listed.add(part.number)
            if page.marker <= marker:
                return
            marker = page.marker

    async def _vanished(self, point: Checkpoint) -> Receipt:
        """Tells a finished upload from one that is gone: only after the last part can it be finished."""
        if point.sent == self._upload.size and (there := await self._upload.confirm()) is not None:
            etag = await self._etag()
            if there.etag == etag:
                return qiniu.compared(there, etag, None, self._ticket.key, self._facts())
        raise Restart("Qiniu no longer knows this upload")

    # Parts

    async def _part(self, number: int) -> str:
        sums = _Sums()
        start = (number - 1) * self._size
        piece = await self._upload.read(start, self._size)
        path = f"{self._path(self._point.id)}/{number}"
        reply = await self._call("part", "PUT", path, piece, sums)
        stored = self._accepted(reply).json(_Stored)
        self._hashes[number] = sums.etag
        if stored.etag == sums.etag.text():
            return stored.etag
        if stored.md5:  # no hash of the content: then its MD5, which costs more
            whole = md5(usedforsecurity=False)
            await self._upload.digested(start, piece.length, whole)
            if stored.md5.lower() != whole.hexdigest():
                raise Retry("the bytes reached Qiniu damaged")
        else:
            self._unproved = True
        return stored.etag

    async def _block(self, number: int) -> str:
        sums = _Sums(with_crc=True)
        piece = await self._upload.read((number - 1) * self._size, self._size)
        reply = await self._call("block", "POST", f"/mkblk/{piece.length}", piece, sums)
        if reply.status in LACKING:
            raise Unfit("the provider takes no uploads in parts")
        stored = self._accepted(reply).json(_Block)
        if stored.crc32 is None:
            self._unproved = True
        elif stored.crc32 != sums.crc:
            raise Retry("the bytes reached Qiniu damaged")
        self._hashes[number] = sums.etag
        return stored.context

    def _accepted(self, reply: Reply) -> Reply:
        if reply.status in GONE:
            raise _Lost
        if reply.status == 400 and self._resumed:
            raise Restart("Qiniu does not go on with this upload")
        if reply.status != 200:
            raise qiniu.trouble(reply)
        return reply

    async def _done(self, number: int, mark: str) -> None:
        self._marks[number] = mark
        self._sent += self._length(number)
        blocks = self._point.blocks
        if not self._point.id or mark != self._hashes[number].text():
            blocks = {**blocks, number: mark}
        self._point = replace(self._point, sent=self._sent, blocks=blocks, unproved=self._unproved)
        await self._upload.save(self._point, self._sent)

    # The end

    async def _finish(self) -> Receipt:
        etag = await self._etag()
        await self._upload.whole()
        # Only who knows that all was sent may say that it was joined.
        await self._upload.save(self._point, self._sent, sure=True)
        asked = False
        while True:
            try:
                reply = await (self._complete() if self._point.id else self._make_file())
                answer = qiniu.answer(reply)
            except Retry:
                if asked:
                    raise
                asked = True  # the answer was lost, or never given
                continue
            if answer is not None or reply.status == qiniu.STORED:
                facts = self._facts() if answer is not None else {**self._facts(), "callback": "failed"}
                sure = "" if self._unproved else "md5" if self._point.id else "crc32"
                return qiniu.receipt(self._policy, self._ticket.key, answer or qiniu.Answer(), etag, sure, facts)
            if reply.status == qiniu.EXISTS:
                there = await self._upload.confirm()
                return qiniu.compared(there, etag, self._policy, self._ticket.key, self._facts(), own=self._ticket.own)
            if reply.status in GONE:
                return await self._vanished(replace(self._point, sent=self._upload.size))
            if reply.status == 400:
                raise (Restart if self._resumed else Unfit)("Qiniu does not take the parts as they are")
            raise qiniu.trouble(reply)

    async def _complete(self) -> Reply:
        fields = self._ticket.fields
        body = {
            "parts": [{"partNumber": number, "etag": self._marks[number]} for number in range(1, self._count + 1)],
            "fname": self._name,
            "mimeType": self._upload.mime,
            "customVars": {name: value for name, value in fields.items() if name.startswith("x:")},
            "metadata": {name: value for name, value in fields.items() if name.startswith("x-qn-meta-")},
        }
        return await self._call("complete", "POST", self._path(self._point.id), msgspec.json.encode(body))

    async def _make_file(self) -> Reply:
        pairs = [("fname", self._name), ("mimeType", self._upload.mime), *self._ticket.fields.items()]
        if self._ticket.key is not None and not self._policy.forced:
            pairs.insert(0, ("key", self._ticket.key))
        path = "".join(f"/{name}/{qiniu.urlsafe(value.encode())}" for name, value in pairs)
        contexts = ",".join(self._marks[number] for number in range(1, self._count + 1))
        return await self._call("make file", "POST", f"/mkfile/{self._upload.size}{path}", contexts.encode())

    @property
    def _name(self) -> str:
        return qiniu.plain(self._upload.name)

    def _facts(self) -> dict[str, str]:
        return {"bucket": self._policy.bucket, **self._ticket.facts}

    async def _etag(self) -> str:
        """Returns the hash of the whole; what an earlier attempt sent is read once more."""
        digests = [(await self._hash(number)).digest() for number in range(1, self._count + 1)]
        return qiniu.etag_of_parts(digests, standard=self._size == qiniu.BLOCK)

    async def _hash(self, number: int) -> qiniu.Etag:
        etag = self._hashes.get(number)
        if etag is None:
            etag = self._hashes[number] = qiniu.Etag()
            await self._upload.digested((number - 1) * self._size, self._length(number), etag)
        return etag

    # Requests

    def _path(self, id_: str = "") -> str:
        path = f"/buckets/{quote(self._policy.bucket, safe='')}/objects/{self._object}/uploads"
        return f"{path}/{quote(id_, safe='')}" if id_ else path

    async def _call(
        self, what: str, method: str, path: str, body: bytes | FileSlice = b"", sums: "_Sums | None" = None
    ) -> Reply:
        """Sends a request to the host in use; to the others in turn while there is trouble on the way."""
        headers = {"authorization": f"UpToken {self._ticket.token}"}
        if body or method == "POST":
            headers["content-type"] = "application/octet-stream" if isinstance(body, FileSlice) else "application/json"
        tries, moved, whole = len(self._urls), False, body
        while True:
            url = self._urls[0]
            if sums is not None and isinstance(whole, FileSlice):
                sums.reset()
                body = whole.observed_by(sums.observe)
            try:
                reply = await self._upload.call(Request(what, method, f"{url.rstrip('/')}{path}", headers, body))
                # A server of somebody's own that knows the form only has no mark either.
                lacks = what == "begin" and tries == 1 and reply.status in LACKING
                if (not qiniu.from_qiniu(reply) and not lacks) or reply.status in {502, 503, 504, 599}:
                    trouble = qiniu.trouble(reply)
                    assert isinstance(trouble, Retry)
                    raise trouble
            except Retry:
                tries -= 1
                if tries <= 0:
                    raise
                self._switch(url)
                continue
            better = None if moved else qiniu.better_host(reply, url)
            if better is None:
                return reply
            moved = True
            self._upload.better(url, better)
            self._urls = [better, *(other for other in self._urls if other != better)]

    def _switch(self, url: str) -> None:
        """Turns to the next host, unless another part has done so already."""
        if self._urls[0] == url:
            self._urls.append(self._urls.pop(0))


class _Sums:
    """What is known of a part once it was sent."""

    def __init__(self, *, with_crc: bool = False) -> None:
        self._with_crc = with_crc
        self.reset()

    def reset(self) -> None:
        self.etag = qiniu.Etag()
        self.crc = 0

    def observe(self, _offset: int, data: bytes | memoryview) -> None:
        self.etag.update(data)
        if self._with_crc:
            self.crc = crc32(data, self.crc)
