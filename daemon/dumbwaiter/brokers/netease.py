"""NetEase VOD: mints a token for one new object, and says where objects are.

Each `upload/init` makes a new object; no call gives a second token for an old one, so a token is a session ticket and
stays in the journal until its upload ends. The wire format is in NetEase's VOD server manual ("interface
authentication", "upload initialisation", "query by object name"); upload nodes come from the LBS it names.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from dumbwaiter.broker import SLOWER, Broker
from dumbwaiter.config.options import NetEase as Options
from dumbwaiter.doors import Desk
from dumbwaiter.errors import Blocked, Reject, Retry
from dumbwaiter.model import Ask, Entry, FollowUp, Grant, Limits, Link, Receipt
from dumbwaiter.naming import shown
from dumbwaiter.tickets import NosTicket
from dumbwaiter.wire import nos
from dumbwaiter.wire.address import allowed, check_redirect, expires_at
from dumbwaiter.wire.message import Reply, Request, query

NODES_LIFE = 900.0  # vendor clients keep nodes for two hours, and ask anew when all of them fail
DOUBTED = 60.0  # seconds that they are good for where an upload did not get through
SUFFIX_MAX = 8  # letters and digits
INIT = "upload/init"
NEVER = frozenset({403, 404, 407, 501, 613, 614, 615, 616, 702})  # to one's own request for an upload
VISIBLE = 6  # times to ask for a video; VOD learns of it some time after NOS has it
UNTOLD = 2  # times to ask when NOS could not tell VOD
REFUSED = {
    710: "refuses AppKey or AppSecret: check app_key and app_secret",
    720: "has too little balance on this account",
    721: "has not opened the service for this account",
    722: "is still reviewing this account",
}
T = TypeVar("T")


class _Envelope(Struct):
    code: int
    msg: str | None = None
    ret: Raw = Raw(b"null")


class _Init(Struct):
    bucket: str
    object: str
    token: str = msgspec.field(name="xNosToken")


class _Nodes(Struct):
    upload: tuple[str, ...] = ()
    lbs: str = ""
    code: str = msgspec.field(name="Code", default="")
    message: str = msgspec.field(name="Message", default="")


class _Listed(Struct):
    object: str = msgspec.field(name="objectName", default="")
    vid: int | None = None
    image: int | None = msgspec.field(name="imgId", default=None)


class _List(Struct):
    list: tuple[_Listed, ...] = ()


class _Video(Struct):
    url: str | None = msgspec.field(name="origUrl", default=None)
    download: str | None = msgspec.field(name="downloadOrigUrl", default=None)  # signed where the bucket is private
    size: int | None = msgspec.field(name="initialSize", default=None)


class NetEase(Broker):
    """One application's account."""

    follows = True
    mints = True
    shares = True  # an object has no name but its own
    requests = 40.0  # half of what the manual allows: another program may share the account, and bursts count

    def __init__(self, options: Options) -> None:
        self._options = options
        self._secret = options.app_secret.read()
        self._lbs: tuple[str, ...] = ()  # by address, as the last answer gave it: saves a look-up that may fail

    async def grants(self, asks: Sequence[Ask], desk: Desk) -> Sequence[Grant]:
        (ask,) = asks
        made = await self._vod(desk, INIT, {"originFileName": _with_suffix(ask.name)}, _Init)
        policy = nos.policy(made.token)
        if policy is not None and (policy.bucket, policy.object) != (made.bucket, made.object):
            raise Retry("NetEase gave a token for another object than it named")
        ticket = NosTicket(made.bucket, made.object, made.token, await self._nodes(made.bucket, desk))
        if policy is None:
            return [Grant(ticket, made.object)]
        skew = desk.skew(self._options.api)
        return [
            Grant(
                ticket,
                made.object,
                None if policy.expires is None else policy.expires - skew,
                Limits(
                    policy.object_size_min,
                    policy.object_size_max,
                    tuple(part for part in policy.mime_limit.split(";") if part),
                ),
            )
        ]

    async def resume(self, grant: Grant, desk: Desk) -> Grant:
        """The token is as good as it was; the nodes may be the trouble."""
        ticket: NosTicket = grant.ticket
        return replace(grant, ticket=replace(ticket, nodes=await self._nodes(ticket.bucket, desk, DOUBTED)))

    async def confirm(self, grant: Grant, size: int, desk: Desk) -> Receipt | None:
        ticket: NosTicket = grant.ticket
        receipt = Receipt(ticket.object, facts={"bucket": ticket.bucket})
        listed = await self._listed(receipt.key, desk)
        if listed is not None:
            return receipt
        try:
            reply = await desk.call(Request("object", "HEAD", self._url(receipt)))
        except Retry:
            return None  # not every object is public, and not every network lets us look
        if reply.status == 200 and reply.headers.get("content-length") == str(size):
            return replace(receipt, verified="size").with_facts(callback="failed")
        return None

    async def still(self, entry: Entry, desk: Desk) -> Receipt | None:
        listed = await self._listed(entry.key, desk)
        if listed is None:
            return None
        receipt = Receipt(entry.key, entry.etag, facts={"bucket": entry.facts.get("bucket", "")})
        if listed.vid is not None:
            receipt = receipt.with_facts(vid=listed.vid)
        with suppress(Retry):  # a private object is not shown, and not every network lets us look
            if (await desk.call(Request("object", "HEAD", self._url(receipt)))).status == 404:
                return None  # VOD keeps the entry of an object that was taken out of the bucket
        return receipt

    async def follow_up(self, ask: Ask, receipt: Receipt, tries: int, desk: Desk) -> FollowUp:
        """Learns the video's number and address, and compares its size with the file's."""
        receipt = replace(receipt, url=receipt.url or self._url(receipt))
        if "vid" not in receipt.facts:  # `still` has learned it already
            listed = await self._listed(receipt.key, desk)
            if listed is None:
                if tries < (UNTOLD if "callback" in receipt.facts else VISIBLE):
                    return FollowUp(receipt, later=2.0**tries, error="NetEase VOD does not list the object yet")
                return FollowUp(receipt.with_facts(registered="no"))
            heard = {name: value for name, value in receipt.facts.items() if name != "callback"}
            receipt = replace(receipt, facts=heard)
            if listed.vid is None:
                return FollowUp(receipt.with_facts(image=listed.image))
            receipt = receipt.with_facts(vid=listed.vid)
        video = await self._vod(desk, "video/get", {"vid": int(receipt.facts["vid"])}, _Video)
        receipt = replace(receipt, url=video.url or receipt.url)
        if video.size == ask.size:
            return FollowUp(replace(receipt, verified=receipt.verified or "size"))
        if video.size is not None:
            receipt = replace(receipt, verified="").with_facts(size_at_provider=video.size)
        return FollowUp(receipt)

    async def link(self, entry: Entry, desk: Desk) -> Link | None:
        """Asks for the address of the original as it is now."""
        if "vid" not in entry.facts:
            return None
        video = await self._vod(desk, "video/get", {"vid": int(entry.facts["vid"])}, _Video)
        url = video.download or video.url
        if not url:
            return None
        end = expires_at(url)
        return Link(url, None if end is None else end - desk.skew(self._options.api))

    async def _listed(self, key: str, desk: Desk) -> _Listed | None:
        found = await self._vod(desk, "video/query", {"objectNames": [key]}, _List)
        return next((one for one in found.list if one.object == key), None)

    def _url(self, receipt: Receipt) -> str:
        base = self._options.cdn.replace("{bucket}", receipt.facts.get("bucket", ""))
        return f"{base.rstrip('/')}/{quote(receipt.key)}"

    async def _nodes(self, bucket: str, desk: Desk, life: float = NODES_LIFE) -> tuple[str, ...]:
        return await desk.cached(f"nodes of {bucket}", life, lambda: self._ask_lbs(bucket, desk))

    async def _ask_lbs(self, bucket: str, desk: Desk) -> tuple[str, ...]:
        trouble: Retry | None = None
        search = query([("version", "1.0"), ("bucketname", bucket)])
        for address in (*self._lbs, f"{self._options.lbs.rstrip('/')}/lbs"):
            try:
                answer = (await desk.call(Request("upload nodes", "GET", f"{address}?{search}"))).json(_Nodes)
            except Retry as error:
                trouble = error
                continue
            nodes = tuple(url for url in answer.upload if allowed(url, base=self._options.lbs))
            if nodes:
                by_address = answer.lbs.removesuffix("/lbs")
                self._lbs = (answer.lbs,) if allowed(by_address, base=self._options.lbs) else ()
                return nodes
            words = shown(f"{answer.code} {answer.message}".strip()[:200])
            trouble = Retry(f"NetEase names no upload node{words and f': {words}'}")
        assert trouble is not None
        raise trouble

    async def _vod(self, desk: Desk, what: str, arguments: dict[str, Any], shape: type[T]) -> T:
        """Calls the VOD API. A refused signature is tried a second time: the answer has set our clock right."""
        envelope = await self._signed(desk, what, arguments)
        if envelope.code == 710:
            envelope = await self._signed(desk, what, arguments)
        match envelope.code:
            case 200:
                return Reply(200, body=bytes(envelope.ret)).json(shape)
            case code if code in REFUSED:
                raise Blocked(f"NetEase {REFUSED[code]} (code {code}{_said(envelope)})")
            case code if code in {400, 414} or (code in NEVER and what == INIT):
                raise Reject(f"NetEase refuses {what}: code {envelope.code}{_said(envelope)}")
            case 723:
                raise Retry(f"NetEase's quota is used up (code 723{_said(envelope)})", after=60.0)
        raise Retry(f"NetEase answers {what} with code {envelope.code}{_said(envelope)}")

    async def _signed(self, desk: Desk, what: str, arguments: dict[str, Any]) -> _Envelope:
        nonce = desk.nonce()
        seconds = str(int(desk.now(self._options.api)))
        url = f"{self._options.api.rstrip('/')}/app/vod/{what}"
        reply = await desk.call(
            Request(
                what,
                "POST",
                url,
                {
                    "AppKey": self._options.app_key,
                    "Nonce": nonce,
                    "CurTime": seconds,
                    "CheckSum": nos.checksum(self._secret.reveal(), nonce, seconds),
                    "Content-Type": "application/json;charset=utf-8",
                },
                msgspec.json.encode(arguments),
            )
        )
        check_redirect(reply, url, base=self._options.api, key="api")
        if reply.status in {401, 403}:
            raise Blocked(f"NetEase refuses the account (status {reply.status})")
        if reply.status != 200:
            after = reply.after or (SLOWER if reply.status == 429 else None)
            raise Retry(f"NetEase's VOD service answers {reply.status}", after=after)
        return reply.json(_Envelope)


def _with_suffix(name: str) -> str:
    """VOD wants a name with a suffix, which the object's name then ends in."""
    suffix = name.rpartition(".")[2] if "." in name.lstrip(".") else ""
    return name if suffix.isalnum() and len(suffix) <= SUFFIX_MAX else f"{name}.bin"


def _said(envelope: _Envelope) -> str:
    return f": {shown(envelope.msg[:200])}" if envelope.msg else ""
