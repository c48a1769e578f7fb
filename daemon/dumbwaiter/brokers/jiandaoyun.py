"""Jiandaoyun: a hundred upload tokens a call, bound to a transaction of one hour; a form's record shows the file.

Each token is for one file and names its object itself. Only a record written under the same transaction can take the
uploaded key, and writing an attachment field replaces what was in it: so a file has a record of its own, found again
by the field that holds its path, or shares one with the files of its folder that were uploaded in its transaction,
which the catalog tells and every write names anew. Jiandaoyun's open platform documentation: "file interface" and "form data
interface"; the upload itself is Qiniu's.
"""

import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from dumbwaiter.broker import Broker
from dumbwaiter.config.options import Jiandaoyun as Options
from dumbwaiter.doors import Desk
from dumbwaiter.errors import Blocked, Reject, Restart, Retry
from dumbwaiter.model import Ask, Entry, FollowUp, Grant, Limits, Link, Receipt
from dumbwaiter.naming import shown, split
from dumbwaiter.tickets import QiniuTicket
from dumbwaiter.wire import qiniu
from dumbwaiter.wire.address import allowed, check_redirect, expires_at
from dumbwaiter.wire.message import Reply, Request

HOUR = 3600.0  # of a transaction, from its first token on
LIFE = 3000.0  # of a token in our hands: upload and record have to fit into the hour as well
MORE = 3  # calls without a token before it counts as trouble
REFUSED = {
    2004: "does not know the app: check app_id",
    3000: "does not know the form: check entry_id",
    3042: "has trouble with a field's alias",
    7103: "says that the account has used up what it may",
    7206: "says that the account has used up what it may",
    7212: "takes no more records this month",
    7221: "takes no more records in this form",
    7216: "takes no more attachments: the account's quota is used up",
    7217: "takes no more attachments: the account's quota is used up",
    7218: "takes no more attachments: the account's quota is used up",
    7219: "takes no more attachments: the account's quota is used up",
    8017: "says that the company is missing or closed",
    8301: "refuses the key: check api_key",
    17018: "refuses the key: check api_key",
    8302: "does not let this key use this interface",
    17032: "cannot write one of the configured fields: check attachment and values",
    17034: "cannot write one of the configured fields: check attachment and values",
    17052: "does not let this key in from this address",
    17053: "does not let this key at the app: check app_id",
    17054: "does not let this key use this interface",
}
PACE = {8303, 8304}
NEVER = {1, 3005, 4815, 17017, 17023, 17024, 17033}
UNKNOWN = 17025  # the transaction
TAKEN = 17026  # the transaction was used for another record
GONE = 4001  # somebody removed the record
PAUSE = 60.0  # seconds until a file of which it was not told is sent again
LATE = "the hour in which a record could take the file is over, so it has to be sent again"
FILES_MAX = 10  # in one attachment field
PAGE = 100  # records in one answer
PAGES = 100  # of records that say the same
T = TypeVar("T")
_Fields = dict[str, Raw]  # a record as it is told: value by field


class _Pair(Struct):
    url: str
    token: str


class _Pairs(Struct):
    pairs: tuple[_Pair, ...] = msgspec.field(name="token_and_url_list", default=())


class _Trouble(Struct):
    code: int | None = None
    msg: str | None = None


class _Record(Struct):
    data: _Fields = {}


class _Records(Struct):
    data: tuple[_Fields, ...] = ()


class _Attached(Struct):
    name: str | None = None
    size: int | None = None
    url: str | None = None


class _Missing(Retry):
    """The record is no more."""


class _Taken(Restart):
    """The transaction has a record, and the vendor takes no second one."""


class Jiandaoyun(Broker):
    """One form of one app."""

    follows = True
    binds = True
    requests = 10.0  # half of what the manual allows: a burst counts, and another program may share the account
    uploads = 10.0
    batch = 100

    def __init__(self, options: Options) -> None:
        self._options = options
        self._key = options.api_key.read()
        if options.transaction == "per-file":
            self.batch = 1
        if options.record_kind != "none" and not options.identifying_values:
            blank = "{path}" if options.record_kind == "per-file" else "{folder}"
            self.warnings = [
                f"a lost answer can leave two records: let one of `values` be {blank}, so that one is found"
            ]
        self._place = {"app_id": options.app_id, "entry_id": options.entry_id}

    # Grants

    async def grants(self, asks: Sequence[Ask], desk: Desk) -> Sequence[Grant]:
        transaction = str(uuid.UUID(hex=desk.nonce(), version=4))
        api = self._options.api
        made: dict[str, Grant] = {}
        elsewhere = False
        for _ in range(MORE):
            pairs = await self._call(
                desk, "file/get_upload_token", {**self._place, "transaction_id": transaction}, _Pairs
            )
            # Only now: the answer has set our clock right.
            asked = desk.now(api)
            for pair in pairs.pairs:
                if allowed(pair.url, base=api, path=True):
                    made[pair.token] = self._grant(pair, transaction, asked, desk.skew(api))
                else:
                    elsewhere = True
            if len(made) >= len(asks):
                # One that cannot be read may be damaged, and a refusal counts for all of its call: it comes last.
                best = sorted(made, key=lambda token: qiniu.policy(token) is None)
                return [made[token] for token in best][: None if self.batch > 1 else 1]
        if elsewhere and not made:
            raise Blocked("Jiandaoyun names an upload address that dumbwaiter does not send files to")
        raise Retry("Jiandaoyun gives no upload tokens")

    @staticmethod
    def _grant(pair: _Pair, transaction: str, asked: float, skew: float) -> Grant:
        policy = qiniu.policy(pair.token)
        end = asked + LIFE
        if policy is not None and policy.deadline is not None:
            end = min(end, policy.deadline)
        facts = {"transaction": transaction, "asked": str(int(asked))}
        ticket = QiniuTicket((pair.url,), pair.token, facts=facts)
        return Grant(ticket, None, end - skew, policy.limits if policy else Limits())

    # The record

    def together(self, ask: Ask) -> str | None:
        return split(ask.place)[0] if self._options.record_kind == "per-folder" else ask.path

    async def follow_up(self, ask: Ask, receipt: Receipt, tries: int, desk: Desk) -> FollowUp:
        """Has a record show the file, within the hour of its transaction. Raises `Restart` when that is over."""
        answer = receipt.facts.get("answer")  # in place of a key
        if self._options.record_kind == "none":
            told = {name: value for name, value in receipt.facts.items() if name != "answer"}
            said = {} if answer is None else {"callback": "unknown", "callback_said": shown(answer[:200])}
            return FollowUp(replace(receipt, facts={**told, **said}))
        if "callback" in receipt.facts:
            raise Restart("Jiandaoyun was not told of the file, so it has to be sent again", after=PAUSE)
        if answer is not None:
            raise Reject(f"Jiandaoyun gives no key for the file, so no record can show it: {shown(answer[:200])}")
        bring = self._join if self._options.record_kind == "per-folder" else self._replace
        record = await bring(ask, receipt, await self._find(ask, receipt, desk), desk)
        name = _text(record, "_id")
        attached = self._attached(record, ask, receipt)
        if attached is None:
            read = await self._call(desk, "data/get", {**self._place, "data_id": name}, _Record)
            attached = self._attached(read.data, ask, receipt)
        if attached is None:
            raise Reject(f"the record {name} does not show the file")
        facts = {key: value for key, value in receipt.facts.items() if key != "asked"}
        verified = "qetag" if _last(attached) == receipt.etag else receipt.verified or "size"
        return FollowUp(replace(receipt, url=attached.url, verified=verified, facts={**facts, "record": name}))

    async def _replace(self, ask: Ask, receipt: Receipt, found: Sequence[_Fields], desk: Desk) -> _Fields:
        """Gives the file the record of its path that is not another file's, or a new one."""
        for one in reversed(found):
            attached = self._attached(one, ask, receipt)
            if attached is not None and _is_sure(attached, ask, receipt):
                return one
            record = _text(one, "_id")
            sizes = {file.size for file in self._files(one)}
            holders = [await desk.of_size(size, "record", record) for size in sizes if size is not None]
            if all(places.keys() <= {ask.place} for places in holders):
                return await self._write(record, [receipt.key], ask, receipt, desk)
        return await self._write(None, [receipt.key], ask, receipt, desk)

    async def _join(self, ask: Ask, receipt: Receipt, found: Sequence[_Fields], desk: Desk) -> _Fields:
        """Adds the file to a record of its folder and transaction that has room, or makes one.

        What the catalog does not know is looked for among the records `found`: one may have been made, and the file
        put into one, right before a crash.
        """
        beside = dict(await desk.siblings(ask, "transaction", receipt.facts.get("transaction", "")))
        older = beside.pop(ask.place, receipt).facts.get("record")
        keys: dict[str, list[str]] = {} if older is None else {older: []}  # of the other files, by record
        waiting: dict[str, str] = {}  # keys by name, of those that no record is known of
        for place, other in beside.items():
            if record := other.facts.get("record"):
                keys.setdefault(record, []).append(other.key)
            else:
                waiting[qiniu.plain(split(place)[1])] = other.key
        certain = any("{transaction}" in template for template in self._options.identifying_values.values())
        for one in found:
            stray = certain and _text(one, "_id") not in keys
            attached = self._attached(one, ask, receipt)
            if attached is not None and (_is_sure(attached, ask, receipt) or (stray and _is_named(attached, ask))):
                return one
            names = [file.name or "" for file in self._files(one)]
            if stray and names and waiting.keys() >= set(names):
                keys[_text(one, "_id")] = [waiting[name] for name in names]
        open_ = [record for record, others in keys.items() if len(others) < FILES_MAX]
        if open_:
            record = older if older in open_ else open_[-1]
            try:
                return await self._write(record, [*keys[record], receipt.key], ask, receipt, desk)
            except (Reject, _Missing):
                pass  # removed by a person, or a field that takes less: the file gets another record
        return await self._write(None, [receipt.key], ask, receipt, desk)

    async def _find(self, ask: Ask, receipt: Receipt, desk: Desk) -> Sequence[_Fields]:
        """Returns the records that may be the file's, oldest first, where their values tell."""
        wanted = {
            field: str(_value(template, ask, receipt)) for field, template in self._options.identifying_values.items()
        }
        conditions = [
            {"field": field, "type": "text", "method": "eq", "value": [value]}
            for field, value in wanted.items()
            if value
        ]
        if not conditions:
            return ()
        body = {
            **self._place,
            "limit": PAGE,
            "fields": [*wanted, self._options.attachment],
            "filter": {"rel": "and", "cond": conditions},
        }
        found: dict[str, _Fields] = {}
        for _ in range(PAGES):
            page = (await self._call(desk, "data/list", body, _Records)).data
            found |= {_text(record, "_id"): record for record in page}
            if len(page) < PAGE:
                break
            body["data_id"] = _text(page[-1], "_id")
        return [one for one in found.values() if all(_text(one, field) == value for field, value in wanted.items())]

    def _attached(self, record: _Fields, ask: Ask, receipt: Receipt) -> _Attached | None:
        """Returns the attachment that is most likely this file."""
        same = [one for one in self._files(record) if one.size == ask.size]
        return max(same, key=lambda one: (_is_sure(one, ask, receipt), _is_named(one, ask)), default=None)

    def _files(self, record: _Fields) -> tuple[_Attached, ...]:
        files = []
        with suppress(msgspec.DecodeError):
            for one in msgspec.json.decode(record.get(self._options.attachment or "", b"[]"), type=tuple[Raw, ...]):
                with suppress(msgspec.DecodeError):
                    files.append(msgspec.json.decode(one, type=_Attached, strict=False))
        return tuple(files)

    async def _write(self, record: str | None, keys: Sequence[str], ask: Ask, receipt: Receipt, desk: Desk) -> _Fields:
        """Has a record, or a new one, show exactly these files."""
        values = {field: _value(template, ask, receipt) for field, template in self._options.values.items()}
        body: dict[str, Any] = {
            **self._place,
            "transaction_id": receipt.facts.get("transaction", ""),
            "data": {
                **{field: {"value": value} for field, value in values.items()},
                self._options.attachment: {"value": keys},
            },
            "is_start_trigger": self._options.start_trigger,
        }
        if record is None:
            what, body = "data/create", {**body, "is_start_workflow": self._options.start_workflow}
        else:
            what, body = "data/update", {**body, "data_id": record}
        if self._age(receipt, desk) >= HOUR:
            raise Restart(LATE)
        try:
            return (await self._call(desk, what, body, _Record)).data
        except _Taken:
            # Nothing that was uploaded under it gets a record any more; from now on each file has a transaction of its own.
            self.batch = 1
            desk.drop_grants()
            raise
        except Reject:
            # The answer may have told the time, and what the vendor says of a lapsed transaction nobody has written down.
            if self._age(receipt, desk) >= LIFE:
                raise Restart(LATE) from None
            raise

    def _age(self, receipt: Receipt, desk: Desk) -> float:
        """Seconds since the transaction was begun."""
        return desk.now(self._options.api) - float(receipt.facts.get("asked", "inf"))

    async def link(self, entry: Entry, desk: Desk) -> Link | None:
        """Reads the file's record: each look gives an address that is good for another fifteen days."""
        if "record" not in entry.facts:
            return None
        try:
            read = await self._call(desk, "data/get", {**self._place, "data_id": entry.facts["record"]}, _Record)
        except _Missing:
            return None
        same = [one for one in self._files(read.data) if one.url and one.size == entry.size]
        found = [one for one in same if _last(one) in {entry.key, entry.etag}]
        if not found:  # the address does not tell: it must not be another one's
            others = dict(await desk.of_size(entry.size, "record", entry.facts["record"]))
            mine = others.pop(entry.place, None)
            if mine is not None and mine.key != entry.key:  # an older version, and the record shows the newer one
                return None
            name = qiniu.plain(split(entry.path)[1])
            if name not in {qiniu.plain(split(place)[1]) for place in others}:
                found = [one for one in same if one.name == name]
            found = found or ([] if others else same)
        if not found or found[0].url is None:
            return None
        end = expires_at(found[0].url)
        return Link(found[0].url, None if end is None else end - desk.skew(self._options.api))

    # Calls

    async def _call(self, desk: Desk, what: str, body: Mapping[str, Any], shape: type[T]) -> T:
        api = self._options.api
        url = f"{api.rstrip('/')}/v5/app/entry/{what}"
        reply = await desk.call(
            Request(
                what,
                "POST",
                url,
                {"authorization": f"Bearer {self._key.reveal()}", "content-type": "application/json"},
                msgspec.json.encode(body),
            )
        )
        check_redirect(reply, url, base=api, key="api")
        if reply.status == 200 and not _trouble(reply).code:
            return reply.json(shape)
        raise _verdict(reply, what)


def _trouble(reply: Reply) -> _Trouble:
    try:
        return reply.json(_Trouble)
    except Retry:
        return _Trouble()


def _verdict(reply: Reply, what: str) -> Exception:
    """Returns what an error means. Its code decides; the status only whether a refusal is one for ever."""
    if reply.status == 429:
        return Retry("Jiandaoyun asks for fewer calls at once", after=reply.after or 1.0)
    trouble = _trouble(reply)
    code = trouble.code or 0
    said = f" (code {code}{f': {trouble.msg[:200]}' if trouble.msg else ''})"
    if code == GONE:
        return _Missing(f"Jiandaoyun no longer has the record{said}")
    if code in PACE:
        return Retry("Jiandaoyun asks for a slower pace", after=reply.after or 1.0)
    if code in REFUSED:
        return Blocked(f"Jiandaoyun {REFUSED[code]}{said}")
    if code == TAKEN:
        return _Taken(f'Jiandaoyun takes one record a transaction: set record and transaction = "per-file"{said}')
    if code == UNKNOWN:
        return Restart(f"Jiandaoyun does not know the transaction of the file any more{said}")
    if code in NEVER and (reply.status == 200 or 400 <= reply.status < 500) and not reply.is_temporary:
        return Reject(f"Jiandaoyun refuses {what}{said}")
    if not code and reply.status in {401, 403}:
        return Blocked(f"Jiandaoyun refuses the key (status {reply.status}): check api_key")
    given = f"code {code}{f': {trouble.msg[:200]}' if trouble.msg else ''}" if code else f"status {reply.status}"
    return Retry(f"Jiandaoyun answers {what} with {given}", after=reply.after)


def _is_sure(attached: _Attached, ask: Ask, receipt: Receipt) -> bool:
    """True when an attachment is this very upload: its address ends in the key, or in the content hash under its name."""
    if attached.size != ask.size:
        return False
    last = _last(attached)
    return bool(last) and (last == receipt.key or (last == receipt.etag and _is_named(attached, ask)))


def _is_named(attached: _Attached, ask: Ask) -> bool:
    return attached.name == qiniu.plain(ask.name)


def _last(attached: _Attached) -> str:
    return (attached.url or "").partition("?")[0].rpartition("/")[2]


def _value(template: str, ask: Ask, receipt: Receipt) -> str | int:
    """Fills a configured value."""
    if template == "{size}":
        return ask.size  # for a field of numbers
    folder = ask.path.rpartition("/")[0]
    return template.format(
        path=ask.path,
        name=ask.name,
        folder=folder,
        watch=ask.watch,
        size=ask.size,
        mime=ask.mime,
        hash=receipt.etag,
        key=receipt.key,
        transaction=receipt.facts.get("transaction", ""),
    )


def _text(record: Mapping[str, Raw], name: str) -> str:
    try:
        return msgspec.json.decode(record.get(name, b'""'), type=str)
    except msgspec.DecodeError:
        return ""
