"""CareyShop: a shop's upload tokens for its own disk, Qiniu or Aliyun OSS.

Signed in once, with a platform name of our own: a second sign-in under one name ends the first. A token is good for
any number of files until `expires`; the name of each object is ours, below the directory that the token gives. What
the storage's callback was answered with tells the address of the file. The wire format is in CareyShop's API manual,
"get upload token" and "get upload address". `shop` makes the calls, `directories` walks through the shop's list.
"""

import os
import platform
from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b, sha256
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dumbwaiter.broker import Broker
from dumbwaiter.brokers.careyshop.directories import ANSWER, SIZE_MAX, Place, Rows
from dumbwaiter.brokers.careyshop.shop import Shop
from dumbwaiter.config.options import CareyShop as Options
from dumbwaiter.doors import Desk
from dumbwaiter.errors import Blocked, Retry
from dumbwaiter.model import Ask, Entry, FollowUp, Grant, Limits, Link, Listed, Page, Receipt, Secret
from dumbwaiter.naming import shown
from dumbwaiter.tickets import CareyShopTicket, OssPostTicket, OssStsTicket, QiniuTicket
from dumbwaiter.wire import careyshop, oss, qiniu
from dumbwaiter.wire.address import allowed, expires_at
from dumbwaiter.wire.times import BEIJING, moment

ADDRESS_LIFE = 7200.0  # the shop itself keeps it for two hours
WINDOW = 600.0  # seconds by which the time of a call may be off, either way
AHEAD = 480.0  # of them, by which a form is dated ahead: its time is looked at when all of it has come
LEFT = 120.0  # seconds of life with which the shop's own form is used no more
FOLDER = "uploads/files/"
SUFFIX_MAX = 10  # letters and digits
PAGE = 50  # rows in which a file is looked for
UNSIGNED = "@"  # a value that begins with it is in no signature, of older shops


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


class CareyShop(Broker):
    """One administrator's account in one shop."""

    follows = True
    lists = True
    requests = 10.0  # a shop runs on PHP, and is there for its customers

    def __init__(self, options: Options) -> None:
        self._options = options
        self._api = options.api.rstrip("/")
        self._secret = options.app_secret.read()
        self._shop = Shop(options, self._secret, options.password.read(), self._platform)
        self._form: tuple[_Granted, float | None] | None = None  # the shop's own form, and until when

    async def grants(self, asks: Sequence[Ask], desk: Desk) -> Sequence[Grant]:
        (ask,) = asks
        if self._form is not None:
            granted, end = self._form
            if end is None or end > desk.now(self._api) + LEFT:
                return [await self._own(granted, ask, desk)]
            self._form = None
        wanted: dict[str, str] = {"module": self._options.module, "type": self._options.terminal}
        granted = await self._shop.call(desk, "upload", "get.upload.token", wanted, _Granted)
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
        found = await self._shop.call(desk, "storage", "get.storage.list", wanted, ANSWER) or Rows()
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
        if qiniu.is_etag(item.hash) and qiniu.is_etag(plain.etag) and item.hash != plain.etag:
            return FollowUp(replace(told, verified="").with_facts(hash_at_provider=item.hash))
        return FollowUp(replace(told, verified=told.verified or ("size" if item.size is not None else "")))

    async def listing(self, cursor: str | None, desk: Desk) -> Page:
        """Reads one page of one directory."""
        at = msgspec.json.decode(cursor, type=Place) if cursor else Place()
        found = await self._shop.call(desk, "storage", "get.storage.list", at.wanted, ANSWER) or Rows()
        after, whole = at.after(found)
        items = tuple(self._listed(one, desk) for one in found.items if one.key)
        return Page(items, msgspec.json.encode(after).decode() if after else None, whole)

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
        item = await self._shop.call(desk, "storage", "get.storage.item", wanted, careyshop.Row | tuple[()] | None)
        url = self._link(item.url or "") if item else ""
        if not url:
            return None
        end = expires_at(url)
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
        session = await self._shop.sign_in(desk)
        fields, file = _filled(granted, address)
        own = {
            **dict(fields),
            "x:filename": "" if ask.name.startswith(UNSIGNED) else ask.name,  # empty: the name that the file's part has
            "x:parent_id": str(self._options.parent),
        }
        filled = self._shop.signed(desk, "add.upload.list", own, session.token, ahead=AHEAD)
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
            address = await desk.cached("address", ADDRESS_LIFE, lambda: self._where(desk))
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
        address: _Address = await self._shop.call(desk, "upload", "get.upload.url", {"module": "aliyun"}, _Address)
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

    def _platform(self) -> str:
        """Returns the name of the sign-in, of 50 characters at most."""
        options = self._options
        if options.platform and not self.aside:
            return options.platform
        own = f"{platform.node()}/{os.getuid()}/{options.api}/{options.username}/{self.own}/{self.aside}"
        return f"dumbwaiter-{sha256(own.encode()).hexdigest()[:16]}"

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
