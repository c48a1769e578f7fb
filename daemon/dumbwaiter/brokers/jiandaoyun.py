"""Jiandaoyun: a hundred upload tokens a call, bound to a transaction of one hour; a form's record shows the file.

Each token is for one file and names its object itself. Only a record written under the same transaction can take the
uploaded key, and writing an attachment field replaces what was in it: so each file has a record of its own, found
again by the field that holds its path. Jiandaoyun's open platform documentation: "file interface" and "form data
interface"; the upload itself is Qiniu's.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from dumbwaiter.broker import Broker
from dumbwaiter.doors import Desk
from dumbwaiter.errors import Blocked, Reject, Retry
from dumbwaiter.model import Ask, FollowUp, Grant, Limits, Receipt
from dumbwaiter.options import Jiandaoyun as Options
from dumbwaiter.tickets import QiniuTicket
from dumbwaiter.wire import qiniu
from dumbwaiter.wire.address import allowed
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
NEVER = {1, 3005, 4815, 17017, 17023, 17024, 17025, 17033}
TAKEN = 17026  # the transaction was used for another record
T = TypeVar("T")


class _Pair(Struct):
    url: str
    token: str


class _Pairs(Struct):
    pairs: tuple[_Pair, ...] = msgspec.field(name="token_and_url_list", default=())


class _Trouble(Struct):
    code: int = 0
    msg: str = ""


class _Record(Struct):
    data: dict[str, Raw] = {}


class _Records(Struct):
    data: tuple[dict[str, Raw], ...] = ()


class _Attached(Struct):
    name: str = ""
    size: int | None = None
    url: str | None = None


class Jiandaoyun(Broker):
    """One form of one app."""

    requests = 20.0
    uploads = 20.0
    batch = 100

    def __init__(self, options: Options) -> None:
        self._options = options
        self._key = options.api_key.read()
        if options.transaction == "per-file":
            self.batch = 1
        self._place = {"app_id": options.app_id, "entry_id": options.entry_id}

    # Grants

    async def grants(self, asks: Sequence[Ask], desk: Desk) -> Sequence[Grant]:
        transaction = str(uuid.UUID(hex=desk.nonce(), version=4))
        api = self._options.api
        made: dict[str, Grant] = {}
        for _ in range(MORE):
            pairs = await self._call(
                desk, "file/get_upload_token", {**self._place, "transaction_id": transaction}, _Pairs
            )
            # Only now: the answer has set our clock right.
            asked = desk.now(api)
            for pair in pairs.pairs:
                if allowed(pair.url, base=api):
                    made[pair.token] = self._grant(pair, transaction, asked, desk.skew(api))
            if len(made) >= len(asks):
                return list(made.values())[: None if self.batch > 1 else 1]
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

    async def follow_up(self, ask: Ask, receipt: Receipt, tries: int, desk: Desk) -> FollowUp:
        """Writes the file's record, within the hour of its transaction."""
        if self._options.records == "none":
            return FollowUp(receipt)
        if "callback" in receipt.facts or "answer" in receipt.facts:
            raise Reject("Jiandaoyun was not told of the file, so no record can show it")
        record = await self._find(ask, receipt, desk)
        attached = self._attached(record)
        if record is None or attached is None or not _is_sure(attached, ask, receipt):
            record = await self._write(record, ask, receipt, desk)
            attached = self._attached(record)
        name = _text(record, "_id")
        if attached is None:
            read = await self._call(desk, "data/get", {**self._place, "data_id": name}, _Record)
            attached = self._attached(read.data)
        if attached is None or attached.size != ask.size:
            raise Reject(f"the record {name} does not show the file")
        facts = {key: value for key, value in receipt.facts.items() if key != "asked"}
        verified = "qetag" if _last(attached) == receipt.etag else receipt.verified or "size"
        return FollowUp(replace(receipt, url=attached.url, verified=verified, facts={**facts, "record": name}))

    async def _find(self, ask: Ask, receipt: Receipt, desk: Desk) -> dict[str, Raw] | None:
        """Returns the record of this path, where a field tells."""
        field = self._options.path_field
        if field is None:
            return None
        wanted = str(_value(self._options.values[field], ask, receipt))
        condition = {"field": field, "type": "text", "method": "eq", "value": [wanted]}
        found = await self._call(
            desk,
            "data/list",
            {
                **self._place,
                "limit": 100,
                "fields": [field, self._options.attachment],
                "filter": {"rel": "and", "cond": [condition]},
            },
            _Records,
        )
        same = [record for record in found.data if _text(record, field) == wanted]
        return same[-1] if same else None

    def _attached(self, record: Mapping[str, Raw] | None) -> _Attached | None:
        """Returns the only attachment of a record."""
        try:
            files = msgspec.json.decode((record or {}).get(self._options.attachment, b"[]"), type=tuple[_Attached, ...])
        except msgspec.DecodeError:
            return None
        return files[0] if len(files) == 1 else None

    async def _write(self, record: Mapping[str, Raw] | None, ask: Ask, receipt: Receipt, desk: Desk) -> dict[str, Raw]:
        """Creates the record, or gives an old one the new file."""
        asked = float(receipt.facts.get("asked", "inf"))
        if desk.now(self._options.api) >= asked + HOUR:
            raise Reject(
                "the hour in which a record could take the file is over: change or touch the file to send it again"
            )
        values = {field: _value(template, ask, receipt) for field, template in self._options.values.items()}
        body: dict[str, Any] = {
            **self._place,
            "transaction_id": receipt.facts.get("transaction", ""),
            "data": {
                **{field: {"value": value} for field, value in values.items()},
                self._options.attachment: {"value": [receipt.key]},
            },
            "is_start_trigger": self._options.start_trigger,
        }
        if record is not None:
            return (await self._call(desk, "data/update", {**body, "data_id": _text(record, "_id")}, _Record)).data
        body["is_start_workflow"] = self._options.start_workflow
        return (await self._call(desk, "data/create", body, _Record)).data

    # Calls

    async def _call(self, desk: Desk, what: str, body: Mapping[str, Any], shape: type[T]) -> T:
        reply = await desk.call(
            Request(
                what,
                "POST",
                f"{self._options.api.rstrip('/')}/v5/app/entry/{what}",
                {"authorization": f"Bearer {self._key.reveal()}", "content-type": "application/json"},
                msgspec.json.encode(body),
            )
        )
        if reply.status == 200:
            return reply.json(shape)
        raise _verdict(reply, what)


def _verdict(reply: Reply, what: str) -> Exception:
    """Returns what an error means. Its code decides; the status only whether a refusal is one for ever."""
    if reply.status == 429:
        return Retry("Jiandaoyun asks for fewer calls at once", after=reply.after or 1.0)
    try:
        trouble = reply.json(_Trouble)
    except Retry:
        trouble = _Trouble()
    code, said = trouble.code, f" (code {trouble.code}{f': {trouble.msg[:200]}' if trouble.msg else ''})"
    if code in PACE:
        return Retry("Jiandaoyun asks for a slower pace", after=reply.after or 1.0)
    if code in REFUSED:
        return Blocked(f"Jiandaoyun {REFUSED[code]}{said}")
    if code == TAKEN:
        return Reject(f'Jiandaoyun takes one record a transaction: set transaction = "per-file"{said}')
    if code in NEVER and 400 <= reply.status < 500:
        return Reject(f"Jiandaoyun refuses {what}{said}")
    if not code and reply.status in {401, 403}:
        return Blocked(f"Jiandaoyun refuses the key (status {reply.status}): check api_key")
    return Retry(
        f"Jiandaoyun answers {what} with {f'code {code}' if code else f'status {reply.status}'}", after=reply.after
    )


def _is_sure(attached: _Attached, ask: Ask, receipt: Receipt) -> bool:
    """True when an attachment is this very upload: its address ends in the key or in the content hash."""
    return attached.size == ask.size and _last(attached) in {receipt.key, receipt.etag}


def _last(attached: _Attached) -> str:
    return urlsplit(attached.url or "").path.rpartition("/")[2]


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
    )


def _text(record: Mapping[str, Raw], name: str) -> str:
    try:
        return msgspec.json.decode(record.get(name, b'""'), type=str)
    except msgspec.DecodeError:
        return ""
