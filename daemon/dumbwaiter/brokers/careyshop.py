"""CareyShop: a shop's upload tokens for its own disk, Qiniu or Aliyun OSS.

Signed in once, with a platform name of our own: a second sign-in under one name ends the first. A token is good for
any number of files until `expires`; the name of each object is ours, below the directory that the token gives. What
the storage's callback was answered with tells the address of the file. The wire format is in CareyShop's API manual,
"get upload token", "get upload address", "administrator sign-in".
"""

import os
import platform
from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b, sha256
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dumbwaiter.broker import Broker
from dumbwaiter.doors import Desk
from dumbwaiter.errors import Blocked, Retry
from dumbwaiter.model import Ask, Entry, FollowUp, Grant, Limits, Link, Listed, Page, Receipt, Secret
from dumbwaiter.naming import shown
from dumbwaiter.options import CareyShop as Options
from dumbwaiter.tickets import CareyShopTicket, OssPostTicket, OssStsTicket, QiniuTicket
from dumbwaiter.wire import careyshop, oss, qiniu
from dumbwaiter.wire.address import allowed, ends, moved
from dumbwaiter.wire.message import Request, query
from dumbwaiter.wire.times import BEIJING, moment

SESSION = 86400.0  # seconds until the first renewal, should the shop not say
ADDRESS_LIFE = 7200.0  # the shop itself keeps it for two hours
WINDOW = 600.0  # seconds by which the time of a call may be off, either way
AHEAD = 480.0  # of them, by which a form is dated ahead: its time is looked at when all of it has come
LEFT = 120.0  # seconds of life with which the shop's own form is used no more
FOLDER = "uploads/files/"
SUFFIX_MAX = 10  # letters and digits
PAGE = 50
LIST_PAGE = 200
DIRECTORIES, DEPTH = 100_000, 64  # a list with more, or deeper ones, has no end
AGAIN = 3  # times that a directory is listed anew because something was deleted from it meanwhile
SIZE_MAX = 2**63 - 1
GET_MAX = 1023  # characters of an address that every server takes
UNSIGNED = "@"  # a value that begins with it is in no signature, of older shops
NO_METHOD = "method成员方法不存在"  # what every address of a shop says that is none of its API's
ACCOUNT = {
    "appkey已禁用或不存在": "knows no such app_key, or has switched it off",
    "sign错误": "refuses the signature: check app_secret",
    "sign不存在": "finds no signature",
    "账号不存在": "knows no such username",
    "账号已禁用": "has switched this account off",
    "账号或密码错误": "refuses username or password",
}
T = TypeVar("T")


class _Token(Struct):
    token: str
    refresh: str = ""
    token_expires: float = 0.0


class _SignedIn(Struct):
    token: _Token


class _Field(Struct):
    name: str
    type: str = "hidden"
    default: Any = ""


class _Address(Struct):
    upload_url: str
    module: str = ""
    param: tuple[_Field, ...] = ()


class _Credentials(Struct):
    access_key_id: str
    access_key_secret: str
    security_token: str
    expiration: str = ""


class _Granted(Struct):
    expires: float = 0.0
    token: dict[str, Any] | None = None
    credentials: _Credentials | None = None
    bucket: str = ""
    callback: str = ""
    image_ext: str = ""
    file_ext: str = ""
    file_size: str = ""


class _Module(Struct):
    name: str = ""
    module: str = ""


class _Rows(Struct):
    items: tuple[careyshop.Row, ...] = ()
    total_result: int = 0


# A directory with nothing in it is answered with nothing, and PHP has several.
LISTING: Any = _Rows | tuple[()] | None


class _Place(Struct, frozen=True, omit_defaults=True):
    """Where in the shop's directories a walk is. The list shows one directory at a time."""

    folder: int = 0
    page: int = 1
    seen: int = 0  # rows on this directory's earlier pages
    total: int = 0  # rows that it has, as the page before said
    again: int = 0  # times that this directory was begun anew
    depth: int = 0  # directories above this one
    met: int = 0  # directories so far
    deeper: int = 0  # of those to come, the last ones, which lie in others of this one's depth
    left: tuple[int, ...] = ()  # directories to come

    def next(self) -> "_Place | None":
        """Returns the first page of the next directory."""
        if not self.left:
            return None
        down = self.deeper == len(self.left)
        depth, deeper = (self.depth + 1, 0) if down else (self.depth, self.deeper)
        return _Place(self.left[0], depth=depth, met=self.met, deeper=deeper, left=self.left[1:])


class CareyShop(Broker):
    """One administrator's account in one shop."""

    follows = True
    lists = True
    requests = 10.0  # a shop runs on PHP, and is there for its customers

    def __init__(self, options: Options) -> None:
        self._options = options
        self._api = options.api.rstrip("/")
        self._secret = options.app_secret.read()
        self._password = options.password.read()
        self._session: _Token | None = None
        self._life = SESSION
        self._form: tuple[_Granted, float | None] | None = None  # the shop's own form, and until when

    async def grants(self, asks: Sequence[Ask], desk: Desk) -> Sequence[Grant]:
        (ask,) = asks
        if self._form is not None:
            granted, end = self._form
            if end is None or end > desk.now(self._api) + LEFT:
                return [await self._own(granted, ask, desk)]
            self._form = None
        wanted: dict[str, str] = {"module": self._options.module, "type": self._options.terminal}
        granted = await self._call(desk, "upload", "get.upload.token", wanted, _Granted)
        if granted.credentials is not None:
            return [await self._sts(granted, granted.credentials, desk)]
        address = _address(granted)
        match address.module:
            case "careyshop":
                self._form = (granted, granted.expires or None)
                return [await self._own(granted, ask, desk)]
            case "aliyun":
                return [self._oss(granted, address, desk)]
            case "qiniu":
                return [self._qiniu(granted, address, desk)]
        raise Blocked(f'the shop\'s module "{shown(address.module)}" is none that dumbwaiter knows')

    def refused(self) -> None:
        """Asks the shop for its form anew: should the session it is signed with be the reason, that call makes another."""
        self._form = None

    def fit(self, grant: Grant, ask: Ask) -> Grant:
        """Names the object: the directory of the token, a random name that is the job's own, the file's suffix."""
        ticket = grant.ticket
        parent = str(self._options.parent)
        match ticket:
            case OssPostTicket():
                key = self._key(ticket.prefix, ask)
                own = {"key": key, "x:filename": ask.name, "x:parent_id": parent}
                filled = tuple((name, own.get(name, value)) for name, value in ticket.fields)
                policy = oss.policy(dict(filled).get("policy", ""))
                if policy is not None and not policy.covers(key):
                    raise Retry("the shop's upload policy is for another folder than the shop names")
                return replace(grant, key=key, ticket=replace(ticket, fields=filled))
            case OssStsTicket():
                variables = {**ticket.variables, "x:filename": ask.name}
                held = ask.held if ask.held is not None and ask.held.startswith(FOLDER) else None
                key = held or self._key(ticket.facts["dir"], ask)
                return replace(grant, key=key, ticket=replace(ticket, variables=variables))
            case QiniuTicket():
                key = self._key(ticket.facts["dir"], ask)
                own = {"x:filename": ask.name, "x:parent_id": parent}
                fields = {name: own.get(name, value) for name, value in ticket.fields.items()}
                return replace(grant, key=key, ticket=replace(ticket, key=key, fields=fields, own=True))
        return grant

    async def confirm(self, grant: Grant, size: int, desk: Desk) -> Receipt | None:
        """Looks for the file in the shop's list: under the key that is its own, else the newest of its name and size."""
        ticket = grant.ticket
        match ticket:
            case CareyShopTicket():
                name = ticket.name
            case QiniuTicket():
                name = ticket.fields.get("x:filename", "")
            case OssStsTicket():
                name = ticket.variables.get("x:filename", "")
            case _:
                return None
        wanted = {"name": name.lstrip(UNSIGNED), "order_field": "storage_id", "order_type": "desc"}
        wanted |= {"page_no": "1", "page_size": str(PAGE)}
        found = await self._call(desk, "storage", "get.storage.list", wanted, LISTING) or _Rows()
        for one in found.items:
            named = one.name == name and one.protocol in {None, "", "careyshop"}
            if one.key and one.size == size and (one.key == grant.key if grant.key else named):
                verified = "size" if grant.key else ""
                return self._told(Receipt(one.key, one.hash or "", verified=verified, facts=dict(ticket.facts)), one)
        return None

    async def follow_up(self, ask: Ask, receipt: Receipt, tries: int, desk: Desk) -> FollowUp:
        """Reads what the storage's callback, or the shop itself, said of the file. Nothing is asked again."""
        facts = {name: value for name, value in receipt.facts.items() if name not in {"answer", "dir"}}
        plain = replace(receipt, facts=facts)
        if "answer" not in receipt.facts:
            return FollowUp(plain)
        try:
            item = careyshop.item(receipt.facts["answer"])
        except Retry:
            return FollowUp(plain.with_facts(registered="unknown"))
        if item.status not in {None, 200}:
            return FollowUp(plain.with_facts(registered="no", shop_said=shown(item.message[:200])))
        if item.size is not None and item.size != ask.size:
            return FollowUp(replace(self._told(plain, item), verified="").with_facts(size_at_provider=item.size))
        told = self._told(plain, item)
        return FollowUp(replace(told, verified=told.verified or ("size" if item.size is not None else "")))

    async def listing(self, cursor: str | None, desk: Desk) -> Page:
        """Reads one page of one directory. Rows come by their number: what is added meanwhile comes at the end."""
        at = msgspec.json.decode(cursor, type=_Place) if cursor else _Place()
        wanted = {"storage_id": str(at.folder), "order_field": "storage_id", "order_type": "asc"}
        wanted |= {"page_no": str(at.page), "page_size": str(LIST_PAGE)}
        found = await self._call(desk, "storage", "get.storage.list", wanted, LISTING) or _Rows()
        seen, total = at.seen + len(found.items), found.total_result
        rows = (one.storage_id for one in found.items if one.folder and one.parent_id in {None, at.folder})
        inner = (id_ for id_ in rows if id_ is not None and id_ != at.folder and abs(id_) <= SIZE_MAX)
        left = tuple(dict.fromkeys([*at.left, *inner]))
        fresh = len(left) - len(at.left)
        here = replace(at, met=at.met + fresh, deeper=at.deeper + fresh, left=left)
        if here.met > DIRECTORIES or (fresh and at.depth >= DEPTH):
            raise Blocked(
                f"the shop's list has more than {DIRECTORIES} directories, or some {DEPTH} deep in one another: no shop's has"
            )
        shrunk = total < at.total or (not found.items and seen < total)  # what follows has moved to earlier pages
        after: _Place | None
        if shrunk and at.again < AGAIN:
            after = replace(here, page=1, seen=0, total=0, again=at.again + 1)
        elif found.items and seen < total:
            after = replace(here, page=at.page + 1, seen=seen, total=total)
        else:
            after = here.next()
        items = tuple(self._listed(one, desk) for one in found.items if one.key)
        return Page(items, msgspec.json.encode(after).decode() if after else None, not shrunk or at.again < AGAIN)

    def _listed(self, item: careyshop.Row, desk: Desk) -> Listed:
        stored = moment(item.create_time, BEIJING)
        stored = desk.now(self._api) if stored is None else stored
        changed = moment(item.update_time, BEIJING)
        url = quote(self._link(item.url or ""), safe="%/:?&=+,;@~!$'()*[]#")
        return Listed(
            key=_plain(item.key),
            size=min(max(item.size or 0, 0), SIZE_MAX),
            stored_at=stored,
            changed_at=stored if changed is None else changed,
            etag=_plain(item.hash or ""),
            url=url if allowed(url, base=self._api, path=True) else None,
            facts={
                name: str(value)
                for name in ("name", "storage_id", "protocol")
                if (value := getattr(item, name)) not in {None, ""}
            },
        )

    async def link(self, entry: Entry, desk: Desk) -> Link | None:
        """Asks the shop where it serves the file now: its domain may be another since."""
        if "storage_id" not in entry.facts:
            return None
        wanted = {"storage_id": entry.facts["storage_id"]}
        item = await self._call(desk, "storage", "get.storage.item", wanted, careyshop.Row | tuple[()] | None)
        url = self._link(item.url or "") if item else ""
        if not url:
            return None
        end = ends(url)
        return Link(url, None if end is None else end - desk.skew(self._api))

    def _link(self, url: str) -> str:
        """Returns the whole address; the shop leaves the scheme out."""
        return f"{urlsplit(self._api).scheme}://{url.lstrip('/')}" if url and "://" not in url else url

    def _told(self, receipt: Receipt, item: careyshop.Item | careyshop.Row) -> Receipt:
        url = self._link(item.url or "")
        if item.storage_id is not None:
            receipt = receipt.with_facts(storage_id=item.storage_id)
        return replace(receipt, url=url or receipt.url)

    # What the three kinds of storage need

    async def _own(self, granted: _Granted, ask: Ask, desk: Desk) -> Grant:
        """Signs a form for the shop itself, for as long a time as the shop lets it be on its way."""
        address = _address(granted)
        session = await self._sign_in(desk)
        own = {
            "x:filename": "" if ask.name.startswith(UNSIGNED) else ask.name,  # empty: the name that the file's part has
            "x:parent_id": str(self._options.parent),
            **self._public("add.upload.list", desk, session.token, AHEAD),
        }
        fields, file = _filled(granted, address)
        filled = {**dict(fields), **own}
        filled["sign"] = careyshop.sign(self._secret.reveal(), filled)
        facts = {"bucket": "shop"}  # it has no other name
        until = desk.now(self._api) + AHEAD + WINDOW - desk.skew(self._api)
        ticket = CareyShopTicket(self._checked(address.upload_url), tuple(filled.items()), file, facts, ask.name)
        return Grant(ticket, None, until, _limits(granted))

    def _oss(self, granted: _Granted, address: _Address, desk: Desk) -> Grant:
        fields, file = _filled(granted, address)
        policy = oss.policy(dict(fields).get("policy", "")) or oss.Policy()
        url = self._checked(address.upload_url)
        facts = {"bucket": _bucket(url)}
        limits = _limits(granted, policy.size_min, policy.size_max)
        prefix = _text((granted.token or {}).get("dir", ""))
        ticket = OssPostTicket(url, fields, file, prefix, facts)
        return Grant(ticket, None, self._end(desk, granted.expires, policy.expires), limits, many=True)

    def _qiniu(self, granted: _Granted, address: _Address, desk: Desk) -> Grant:
        fields, _ = _filled(granted, address)
        values = dict(fields)
        token = values.get("token", "")
        policy = qiniu.policy(token) or qiniu.Policy("")
        facts = {"dir": _text((granted.token or {}).get("dir", "")), "bucket": policy.bucket}
        own = {name: value for name, value in values.items() if name not in {"key", "token"}}
        ticket = QiniuTicket((self._checked(address.upload_url),), token, None, own, facts, tuple(values))
        limits = replace(_limits(granted, policy.size_min, policy.size_max), mime=policy.limits.mime)
        return Grant(ticket, None, self._end(desk, granted.expires, policy.deadline), limits, many=True)

    async def _sts(self, granted: _Granted, credentials: _Credentials, desk: Desk) -> Grant:
        options = self._options
        endpoint: str = options.endpoint or ""
        if not endpoint:
            address = await desk.kept("address", ADDRESS_LIFE, lambda: self._where(desk))
            scheme, _, host = self._checked(address.upload_url).rstrip("/").partition("://")
            endpoint = f"{scheme}://{host.removeprefix(f'{granted.bucket}.')}"
        host = urlsplit(endpoint).hostname or ""
        region = options.region or host.split(".")[0].removeprefix("oss-").removesuffix("-internal")
        today = datetime.fromtimestamp(desk.now(self._api), BEIJING)
        ticket = OssStsTicket(
            endpoint,
            granted.bucket,
            credentials.access_key_id,
            Secret(credentials.access_key_secret),
            Secret(credentials.security_token),
            region,
            4 if options.signature == "v4" else 1,
            options.addressing == "path",
            granted.callback,
            {"x:replace": "", "x:parent_id": str(options.parent), "x:filename": ""},
            {"bucket": granted.bucket, "dir": f"{FOLDER}{today:%Y%m%d}/"},
        )
        # The shop's limit of size is for forms; parts have none.
        limits = replace(_limits(granted), size_max=None)
        end = self._end(desk, granted.expires, moment(credentials.expiration))
        return Grant(ticket, None, end, limits, many=True)

    async def _where(self, desk: Desk) -> _Address:
        address: _Address = await self._call(desk, "upload", "get.upload.url", {"module": "aliyun"}, _Address)
        return address

    def _end(self, desk: Desk, *ends: float | None) -> float | None:
        """Returns the earliest end on our clock; zero is none."""
        said = [end for end in ends if end]
        return min(said) - desk.skew(self._api) if said else None

    def _key(self, folder: str, ask: Ask) -> str:
        suffix = ask.name.rpartition(".")[2] if "." in ask.name.lstrip(".") else ""
        ending = f".{suffix}" if suffix.isascii() and suffix.isalnum() and len(suffix) <= SUFFIX_MAX else ""
        secret = self._secret.reveal().encode()[:64]
        return f"{folder}{blake2b(ask.seed.encode(), key=secret, digest_size=16).hexdigest()}{ending}"

    def _checked(self, url: str) -> str:
        """Returns an address that the shop gave. Raises `Blocked` for one that no file is to be sent to."""
        if not allowed(url, base=self._api, path=True) or "?" in url or "#" in url:
            raise Blocked("the shop names an upload address that dumbwaiter does not send files to")
        own, given = urlsplit(self._api), urlsplit(url)
        same = given.hostname == own.hostname and given.port in {None, 80, own.port or 443}
        if same and (own.scheme, given.scheme) == ("https", "http"):
            # A shop behind a server that does TLS for it does not know; the session must not leave in the open.
            return given._replace(scheme="https", netloc=own.netloc).geturl()
        return url

    # The shop's API

    async def _call(self, desk: Desk, controller: str, method: str, wanted: dict[str, str], shape: Any) -> Any:
        """Calls an operation that needs a sign-in. A session that the shop ended is made anew, once."""
        session = await self._sign_in(desk)
        found = await self._signed(desk, controller, method, wanted, session.token)
        if found.status == 401 or found.message in careyshop.SIGN_IN:
            desk.forget("session", session)
            self._session = None
            session = await self._sign_in(desk)
            found = await self._signed(desk, controller, method, wanted, session.token)
        if found.status == 200:
            return careyshop.decoded(found.data, shape)
        if found.message.startswith("上传模块名"):
            raise Blocked(await self._no_module(desk, session, found.message))
        raise _refusal(found, method)

    async def _no_module(self, desk: Desk, session: _Token, said: str) -> str:
        try:
            found = await self._signed(desk, "upload", "get.upload.module", {}, session.token)
            known = careyshop.decoded(found.data, tuple[_Module, ...] | None) if found.status == 200 else ()
        except Retry:
            return f'the shop has no upload module "{self._options.module}": {shown(said[:200])}'
        names = ", ".join(shown(one.module) for one in known or ()) or "none"
        return f'the shop has no upload module "{self._options.module}"; it has: {names}'

    async def _sign_in(self, desk: Desk) -> _Token:
        return await desk.kept("session", self._life, lambda: self._session_anew(desk))

    async def _session_anew(self, desk: Desk) -> _Token:
        """Refreshes a session that still is good, or signs in."""
        now = desk.now(self._api)
        found = None
        if self._session is not None and self._session.refresh and self._session.token_expires > now:
            refresh = {"refresh": self._session.refresh}
            found = await self._signed(desk, "admin", "refresh.admin.token", refresh, self._session.token)
        if found is None or found.status != 200:
            wanted = {
                "username": self._options.username,
                "password": self._password.reveal(),
                "platform": self._platform(),
            }
            found = await self._signed(desk, "admin", "login.admin.user", wanted, "")
        if found.status != 200:
            raise _refusal(found, "sign-in")
        self._session = careyshop.decoded(found.data, _SignedIn).token
        if self._session.token_expires:
            self._life = max(60.0, self._session.token_expires - desk.now(self._api))
        return self._session

    def _platform(self) -> str:
        """Returns the name of the sign-in, of 50 characters at most."""
        options = self._options
        if options.platform and not self.aside:
            return options.platform
        own = f"{platform.node()}/{os.getuid()}/{options.api}/{options.username}/{self.own}/{self.aside}"
        return f"dumbwaiter-{sha256(own.encode()).hexdigest()[:16]}"

    def _public(self, method: str, desk: Desk, token: str, ahead: float = 0.0) -> dict[str, str]:
        values = {
            "appkey": self._options.app_key,
            "timestamp": str(int(desk.now(self._api) + ahead)),
            "format": "json",
            "method": method,
        }
        return {**values, "token": token} if token else values

    async def _signed(
        self, desk: Desk, controller: str, method: str, wanted: dict[str, str], token: str
    ) -> careyshop.Envelope:
        """Sends a signed call; a second time when only our clock was wrong, which the answer has set right."""
        found = await self._send(desk, controller, method, wanted, token)
        return await self._send(desk, controller, method, wanted, token) if found.message == careyshop.LATE else found

    async def _send(
        self, desk: Desk, controller: str, method: str, wanted: dict[str, str], token: str
    ) -> careyshop.Envelope:
        values = {**wanted, **self._public(method, desk, token)}
        values["sign"] = careyshop.sign(self._secret.reveal(), values)
        del values["method"]  # it stands in the path
        url = f"{self._api}/{controller}/method/{method}.html"
        text = query(values.items())
        if self._options.request == "get" and method != "login.admin.user" and len(url) + len(text) < GET_MAX:
            request = Request(method, "GET", f"{url}?{text}")
        else:
            headers = {"content-type": "application/x-www-form-urlencoded"}
            request = Request(method, "POST", url, headers, text.encode())
        reply = await desk.call(request)
        moved(reply, request.url, base=self._api, key="api")
        if reply.status in {404, 405} and not reply.text.lstrip().startswith(b"{"):
            raise Blocked(f"no CareyShop API answers at this address (status {reply.status}): check api")
        return careyshop.envelope(reply)


def _refusal(found: careyshop.Envelope, what: str) -> Exception:
    if found.message in ACCOUNT:
        return Blocked(f"the shop {ACCOUNT[found.message]} ({found.message})")
    words = f"{found.status} {shown(found.message[:200])}".strip()
    if found.message == NO_METHOD:
        return Blocked(f"the shop knows no {what} at this address ({words}): check api, which ends with its version")
    if found.status == 403 or found.message in careyshop.SIGN_IN:
        return Blocked(f"the shop does not let this account do {what}: {words}")
    return Retry(f"the shop answers {what} with {words}")


def _address(granted: _Granted) -> _Address:
    try:
        return msgspec.convert((granted.token or {}).get("upload_url"), _Address, strict=False)
    except msgspec.ValidationError:
        raise Retry("the shop's answer holds no upload address") from None


def _filled(granted: _Granted, address: _Address) -> tuple[tuple[tuple[str, str], ...], str]:
    """Returns the form's fields in the shop's order, each with the value it gave, and the name of the file's."""
    values = granted.token or {}
    file = next((one.name for one in address.param if one.type == "file"), "file")
    fields = [(one.name, _text(values.get(one.name, one.default))) for one in address.param if one.type != "file"]
    return tuple(fields), file


def _plain(text: str) -> str:
    """Leaves out what no database takes."""
    return text.replace("\0", "")


def _text(value: object) -> str:
    if value is None or isinstance(value, dict | list):
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value)


def _limits(granted: _Granted, low: int | None = None, high: int | None = None) -> Limits:
    said = [limit for limit in (high, careyshop.size(granted.file_size)) if limit is not None]
    suffixes = careyshop.names(f"{granted.image_ext},{granted.file_ext}")
    return Limits(low, min(said) if said else None, suffixes=suffixes)


def _bucket(url: str) -> str:
    """Reads the bucket from a form's address: the first name of the host, or the path where there is one."""
    parts = urlsplit(url)
    return parts.path.strip("/") or (parts.hostname or "").split(".")[0]
