"""Jimeng and Dreamina: a session cookie becomes temporary keys, these a permission for one object, and a commit stores it.

The keys (an AWS-like triple, an hour long) live in memory only. What the permission holds was made for one object: it
stays in the journal until the upload ends. The token service is that of the vendor's web pages, which documents
nothing; the other calls are in Volcengine's veImageX manual ("ApplyImageUpload", "CommitImageUpload", "error codes").
There is no way to read an object back: what is known of it is checksums and the commit's word.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw, Struct, field

from dumbwaiter.broker import Broker
from dumbwaiter.config.options import Jimeng as Options
from dumbwaiter.doors import Desk
from dumbwaiter.errors import Blocked, Reauth, Reject, Retry, Verdict
from dumbwaiter.model import Ask, Grant, Limits, Receipt, Secret
from dumbwaiter.naming import shown
from dumbwaiter.tickets import ImageXTicket
from dumbwaiter.wire import imagex, jimeng, sigv4
from dumbwaiter.wire.address import allowed, check_redirect
from dumbwaiter.wire.message import Reply, Request, query

LIFE = 3600.0  # of the keys, when the answer does not say
SPARE = 300.0  # seconds before their end at which keys are no longer used
APPLY, COMMIT, VERSION = "ApplyImageUpload", "CommitImageUpload", "2018-08-01"
STORED, FAILED, UNTOLD = 2000, 2001, 0
OWN = ("jianying.com", "capcut.com")  # the vendor's own domains


class Site(Struct, frozen=True):
    """One of the two services, with its defaults."""

    api: str
    app: str  # `Appid`
    imagex: str
    region: str
    service: str
    query: tuple[tuple[str, str], ...] = ()  # goes with the sign-in
    apply: tuple[tuple[str, str], ...] = ()  # goes with ApplyImageUpload
    origin: str = ""  # told where another address is asked than the vendor's own


CHINA = Site(
    "https://jimeng.jianying.com",
    "513695",
    "https://imagex.bytedanceapi.com",
    "cn-north-1",
    "tb4s082cfz",
    origin="https://jimeng.jianying.com",
)
INTERNATIONAL = Site(
    "https://dreamina-api.us.capcut.com",
    "513641",
    "https://imagex16-normal-us-ttp.capcutapi.us",
    "us-east-1",
    "wopfjsm1ax",
    (("aid", "513641"), ("web_version", "7.5.0"), ("da_version", "3.3.2"), ("aigc_features", "app_lip_sync")),
    (("device_platform", "web"),),
    origin="https://api-proxy-1.deno.dev",
)
REGIONS = {"cn": "cn-north-1"}  # as the token service says it, and as it is signed

# The page's own.
BROWSER = {
    "Accept": "application/json, text/plain, */*",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-language": "zh-CN,zh;q=0.9",
    "Cache-control": "no-cache",
    "Pragma": "no-cache",
    "Priority": "u=1, i",
    "Sec-Ch-Ua": '"Google Chrome";v="131", "Chromium";v="131", "Not_A Brand";v="24"',
    "Sec-Ch-Ua-Mobile": "?0",
    "Sec-Ch-Ua-Platform": '"Windows"',
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "same-origin",
    "User-Agent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/131.0.0.0 Safari/537.36",
}

BUSY = frozenset({"1", "1010", "1057", "2014", "2020", "10020"})
SUSPICIOUS = frozenset({"1018", "1019", "1021", "2035", "-4"})
# Errors of the API gateway and of ImageX behind it.
CLOCK = 100006
KEYS = frozenset({100009, 100010, 100026})
TRANSIENT = frozenset({600006, 600007, 600010, 600011, 600014, 601006})
PARAMETER = 600003
RIGHTS = frozenset({100012, 100013, 601002, 601008, 601009})  # of the account or its service, whatever is called
RIGHTS_NAMES = frozenset({"AccessDenied", "LackPolicy"})


class _Envelope(Struct):
    ret: str | int | None = None
    words: str | None = field(name="errmsg", default=None)
    data: Raw = Raw(b"null")


class _Token(Struct):
    access_key_id: str = ""
    secret_access_key: str = ""
    session_token: str = ""
    service_id: str | None = None
    space_name: str | None = None
    upload_domain: str | None = None
    region: str | None = None
    expired_time: str | float | None = None
    current_time: str | float | None = None


class Access(Struct, frozen=True):
    """Keys, and where and for what they are good. In memory only."""

    keys: sigv4.Keys
    base: str
    region: str
    service: str
    expires_at: float


class _Trouble(Struct, rename="pascal"):
    code_n: int | None = None
    code: str | None = None
    message: str | None = None


class _Metadata(Struct, rename="pascal"):
    request_id: str | None = None
    error: _Trouble | None = None


class _Api(Struct):
    metadata: _Metadata = field(name="ResponseMetadata", default_factory=_Metadata)
    result: Raw = field(name="Result", default=Raw(b"null"))


class _Store(Struct):
    uri: str = field(name="StoreUri")
    auth: str = field(name="Auth")


class _Address(Struct):
    session: str = field(name="SessionKey")
    stores: tuple[_Store, ...] = field(name="StoreInfos")
    hosts: tuple[str, ...] = field(name="UploadHosts")
    headers: Any = field(name="UploadHeader", default=None)


class _Applied(Struct):
    address: _Address = field(name="UploadAddress")


class _Stored(Struct, rename="pascal"):
    uri: str | None = None
    uri_status: int | None = None


class _Picture(Struct, rename="pascal"):
    image_width: int | None = None
    image_height: int | None = None
    image_format: str | None = None
    image_size: int | None = None


class _Committed(Struct):
    results: tuple[_Stored, ...] | None = field(name="Results", default=None)
    plugins: Any = field(name="PluginResult", default=None)


class _Refused(Exception):
    """The gateway refuses the keys."""


class Jimeng(Broker):
    """One session of one of the two services."""

    mints = True
    requests = 10.0  # the vendor says nothing, and takes haste for a robot's

    def __init__(self, options: Options) -> None:
        self._options = options
        self._token = options.refresh_token.read()
        text = self._token.reveal()
        whole = jimeng.session(text) and not text.startswith("sessionid") and text.isascii() and text.isprintable()
        if not whole or set(text) & set(' ;,"\\'):
            raise options.refresh_token.failure('it is no session id of Jimeng\'s: copy the cookie "sessionid" alone')
        self._site = INTERNATIONAL if jimeng.international(text) else CHINA
        self._api = (options.api or self._site.api).rstrip("/")
        self.warnings = _warnings(self._api)
        self._web = self._user = ""  # what the page makes up once

    async def grants(self, asks: Sequence[Ask], desk: Desk) -> Sequence[Grant]:
        (ask,) = asks
        if ask.size == 0:
            raise Reject(f"{shown(ask.name)} has 0 bytes; ImageX takes no empty file")
        applied = await self._imagex(desk, APPLY, _Applied, ask=ask)
        address, access = applied
        if len(address.address.stores) != 1:
            raise Retry("ImageX gave no permission for one file")
        (store,) = address.address.stores
        base = access.base
        hosts = tuple(_with_scheme(host) for host in address.address.hosts)
        ticket = ImageXTicket(
            tuple(host for host in hosts if allowed(host, base=base)),
            store.uri,
            store.auth,
            address.address.session,
            access.service,
            _headers(address.address.headers),
            self._options.multipart,
        )
        bucket, _, key = store.uri.partition("/")
        if not ticket.hosts or not bucket or not key or not _plain(store.auth):
            raise Retry("ImageX's permission names no object or no host that can be used")
        end = imagex.expires_at(store.auth)
        return [Grant(ticket, key, None if end is None else end - desk.skew(base), Limits(size_min=1))]

    async def confirm(self, grant: Grant, size: int, desk: Desk) -> Receipt | None:
        """Commits the object. A second time says the same, should the first answer be lost."""
        ticket: ImageXTicket = grant.ticket
        committed, _ = await self._imagex(desk, COMMIT, _Committed, ticket=ticket)
        status = next((one.uri_status for one in committed.results or () if one.uri in {None, "", ticket.uri}), None)
        if status == FAILED:
            raise Reauth("ImageX did not keep the file")
        picture = _picture(committed.plugins)
        if picture.image_size not in {None, 0, size}:
            raise Reauth(f"ImageX has {picture.image_size} bytes of the file's {size}")
        if status in {None, UNTOLD}:
            return None  # of what is no picture it may say nothing
        if status != STORED:
            raise Retry(f"ImageX says {status} of the file, which nobody has written down")
        facts = {"width": picture.image_width, "height": picture.image_height, "format": picture.image_format}
        key = ticket.uri.partition("/")[2]
        return Receipt(key, verified="size", facts={name: str(value) for name, value in facts.items() if value})

    # The token service

    async def _access(self, desk: Desk) -> Access:
        access = await desk.cached("keys", LIFE - SPARE, lambda: self._sign_in(desk))
        if access.expires_at < desk.now(access.base):
            desk.forget("keys", access)
            access = await desk.cached("keys", LIFE - SPARE, lambda: self._sign_in(desk))
        return access

    async def _sign_in(self, desk: Desk) -> Access:
        url = f"{self._api}/mweb/v1/get_upload_token{'?' if self._site.query else ''}{query(self._parameters())}"
        reply = await desk.call(Request("upload token", "POST", url, self._sign_in_headers(desk), b'{"scene":2}'))
        check_redirect(reply, url, base=self._api, key="api")
        if reply.status in {401, 403}:
            raise Blocked(f"Jimeng refuses the session (status {reply.status}): put a new one into refresh_token")
        if reply.is_temporary:
            raise Retry(f"Jimeng answers {reply.status}", after=reply.after)
        reply = jimeng.unpacked(reply)
        envelope = reply.json(_Envelope)
        if str(envelope.ret if envelope.ret is not None else 0) != "0":
            raise _refusal(str(envelope.ret), envelope.words or "")
        inside = bytes(envelope.data)
        token = (Reply(200, body=inside) if inside.lstrip().startswith(b"{") else reply).json(_Token)
        if not (token.access_key_id and token.secret_access_key and token.session_token):
            raise Retry(f"Jimeng's answer (status {reply.status}) holds no keys")
        return self._opened(token, desk)

    def _opened(self, token: _Token, desk: Desk) -> Access:
        site = self._site
        names = (token.service_id, token.space_name)
        service = next((name for name in (reversed(names) if site is INTERNATIONAL else names) if name), site.service)
        base = (self._options.imagex or "").rstrip("/")
        if not base and token.upload_domain:
            base = _with_scheme(token.upload_domain)
            base = base if allowed(base, base=self._api) else ""
        base = base or site.imagex
        region = self._options.region or token.region or site.region
        now = desk.now(self._api)
        end, current = imagex.instant(token.expired_time), imagex.instant(token.current_time)
        life = LIFE if end is None else end - (now if current is None else current)
        keys = sigv4.Keys(token.access_key_id, Secret(token.secret_access_key), Secret(token.session_token))
        return Access(keys, base, REGIONS.get(region, region), service, desk.now(base) + max(life - SPARE, life / 2))

    def _parameters(self) -> list[tuple[str, str]]:
        chosen = {"web_version": self._options.web_version, "da_version": self._options.da_version}
        return [(name, chosen.get(name) or value) for name, value in self._site.query]

    def _sign_in_headers(self, desk: Desk) -> Mapping[str, str]:
        if not self._user:
            self._user = desk.nonce()
            self._web = str(7 * 10**18 + int(desk.nonce(), 16) % 10**18)
        origin = self._api if self._api == self._site.api else self._site.origin
        return {
            **BROWSER,
            "Content-Type": "application/json",
            "Origin": origin,
            "Referer": f"{origin}/",
            "Appid": self._site.app,
            "Cookie": jimeng.cookie(self._token.reveal(), desk.now(self._api), self._web, self._user),
        }

    # ImageX

    async def _imagex(
        self, desk: Desk, action: str, shape: type[Any], *, ask: Ask | None = None, ticket: ImageXTicket | None = None
    ) -> tuple[Any, Access]:
        """Calls ImageX. Refused keys are replaced, and a refused time put right, once."""
        clock: float | None = None
        for last in (False, True):
            access = await self._access(desk)
            service = ticket.service if ticket else access.service
            parameters = [("Action", action), ("Version", VERSION), ("ServiceId", service)]
            if ask:
                parameters += [("FileSize", str(ask.size)), ("s", desk.nonce()[:11]), *self._site.apply]
            body = {"SessionKey": ticket.session, "SuccessOids": [ticket.uri]} if ticket else None
            reply = await desk.call(_signed(access, action, parameters, body, clock or desk.now(access.base)))
            try:
                return _result(reply, action, shape), access
            except _Refused as refused:
                desk.forget("keys", access)
                if last:
                    raise Retry(f"ImageX refuses keys that were made a moment ago ({refused})") from None
            except _WrongTime as wrong:
                clock = wrong.time
                if last:
                    raise Retry("ImageX's clock and ours differ too much") from None
        raise AssertionError("unreachable")


def _warnings(api: str) -> Sequence[str]:
    host = (urlsplit(api).hostname or "").lower()
    if any(host == own or host.endswith(f".{own}") for own in OWN):
        return ()
    return (f"{host} is not Jimeng's own: whoever runs it reads the session and can act as its owner",)


class _WrongTime(Exception):
    """The gateway finds the request too old or too new; its own time, if it said so."""

    def __init__(self, time: float | None) -> None:
        super().__init__()
        self.time = time


def _signed(
    access: Access, action: str, parameters: list[tuple[str, str]], body: dict[str, Any] | None, now: float
) -> Request:
    stamp = sigv4.stamp(now)
    token = access.keys.token
    assert token is not None
    signed = {"x-amz-date": stamp, "x-amz-security-token": token.reveal()}
    content = b"" if body is None else msgspec.json.encode(body)
    if body is not None:
        signed["x-amz-content-sha256"] = sigv4.digest(content)
    method = "GET" if body is None else "POST"
    authorization = sigv4.authorization(
        access.keys, access.region, "imagex", stamp, method, "/", parameters, signed, content
    )
    headers = {**signed, "authorization": authorization}
    if body is not None:
        headers["content-type"] = "application/json"
    return Request(action, method, f"{access.base}/?{query(parameters)}", headers, content)


def _result(reply: Reply, action: str, shape: type[Any]) -> Any:
    """Returns what an accepted call says; an error may come with any status."""
    try:
        answer = reply.json(_Api)
    except Retry:
        raise Retry(f"ImageX answers {action} with status {reply.status}", after=reply.after) from None
    trouble = answer.metadata.error
    if trouble is not None:
        raise _meaning(trouble, reply, imagex.server_time(answer.metadata.request_id or ""), action)
    if reply.status != 200:
        raise Retry(f"ImageX answers {action} with status {reply.status}", after=reply.after)
    return Reply(200, body=bytes(answer.result)).json(shape)


def _meaning(trouble: _Trouble, reply: Reply, time: float | None, action: str) -> Exception:
    code = trouble.code or ""
    name = f"{code or 'error'} {trouble.code_n or 0}"
    words = f"ImageX refuses {action}: {name}{_said(trouble.message)}"
    about_keys = any(part in code for part in ("Token", "Expired", "AccessKey", "Credential"))
    if trouble.code_n == CLOCK or "Timestamp" in code:
        return _WrongTime(time)
    if trouble.code_n in KEYS or (reply.status in {400, 401, 403} and about_keys):
        return _Refused(name)
    if reply.is_temporary or reply.status // 100 == 3 or trouble.code_n in TRANSIENT:
        return Retry(words, after=reply.after)
    if trouble.code_n in RIGHTS or code in RIGHTS_NAMES:
        return Blocked(words)  # what was sent counts: it is committed once the account may
    if action == COMMIT:
        return Reauth(words)  # another permission may do; if none is to be had, that is said next
    if trouble.code_n == PARAMETER:
        return Reject(words)
    return Blocked(words)


def _refusal(ret: str, words: str) -> Verdict:
    said = f"ret {ret[:20]}{_said(words)}"
    if ret == "1015":
        return Blocked(f"Jimeng's session is over ({said}): log in again and put the new sessionid into refresh_token")
    if ret in BUSY:
        return Retry(f"Jimeng has too many requests ({said})", after=30.0)
    if ret in SUSPICIOUS:
        return Blocked(f"Jimeng takes us for a robot ({said}): open its page in a browser, then `dumbwaiter retry`")
    if re.fullmatch("[1-9][0-9]{3,18}", ret):
        return Blocked(f"Jimeng refuses to give an upload token ({said})")
    return Retry(f"Jimeng answers {said}")


def _said(words: str | None) -> str:
    return f": {words[:200]}" if words else ""


def _with_scheme(host: str) -> str:
    """Returns a base URL for a host that may come without scheme; then it has TLS."""
    return host.rstrip("/") if "://" in host else f"https://{host.rstrip('/')}"


def _headers(given: Any) -> dict[str, str]:
    """Reads UploadHeader: nothing, an object, or a list of names and values."""
    if isinstance(given, list):
        given = {str(one.get("Key", "")): one.get("Value", "") for one in given if isinstance(one, dict)}
    if not isinstance(given, dict):
        return {}
    return {
        str(name).lower(): str(value)
        for name, value in given.items()
        if name and _plain(str(name)) and _plain(str(value)) and value is not None
    }


def _plain(text: str) -> bool:
    """True for what can stand in a header."""
    return text.isascii() and text.isprintable()


def _picture(given: Any) -> _Picture:
    """Reads PluginResult: a list, or the text of one; what is no picture says nothing."""
    try:
        if isinstance(given, str):
            given = msgspec.json.decode(given)
        return msgspec.convert(given[0], _Picture, strict=False)
    except (msgspec.DecodeError, TypeError, LookupError, RecursionError):
        return _Picture()
