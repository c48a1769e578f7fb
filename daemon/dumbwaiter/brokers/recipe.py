"""A provider described in the configuration: one request for a grant, and where in its reply the grant stands.

There is no vendor's manual here; docs/recipes.md says what the configuration can say.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from dumbwaiter.broker import SLOWER, Broker
from dumbwaiter.config.options import Recipe as Options
from dumbwaiter.doors import Desk
from dumbwaiter.errors import Blocked, Reject, Retry
from dumbwaiter.model import Ask, FollowUp, Grant, Limits, Receipt
from dumbwaiter.tickets import FormTicket, OssPostTicket, PutTicket, QiniuTicket
from dumbwaiter.wire import qiniu
from dumbwaiter.wire.address import allowed, check_redirect
from dumbwaiter.wire.message import Reply, Request
from dumbwaiter.wire.recipe import CONTROL, Expression, blanks, fill, fill_in
from dumbwaiter.wire.times import moment

ABOUT_THE_FILE = {"name", "path", "size", "mime", "seed"}  # blanks that make a grant one file's own
MILLISECONDS = 1e11  # a larger time since the epoch is not in seconds


class Recipe(Broker):
    """One provider in words."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._secrets = {name: source.read() for name, source in options.secrets.items()}
        self.requests = options.requests
        self.names_late = options.stored.key is not None
        asked = options.request
        self._blanks = blanks([asked.url, asked.headers, asked.body])

    async def grants(self, asks: Sequence[Ask], desk: Desk) -> Sequence[Grant]:
        (ask,) = asks
        request = self._request(ask, desk)
        reply = await desk.call(request)
        # What fills a blank may be a secret, and a redirect repeats it.
        written = not blanks(self._options.request.url)
        check_redirect(reply, request.url, base=request.url, key="request.url", path=written)
        answer = _answer(reply)
        found = self._options.reply.grants.find(answer)
        now = desk.now(self._options.request.url)
        grants = []
        for one in found if isinstance(found, list) else [found]:
            key = self._key_of(one, ask)
            grants.append(self._grant(one, key, ask, now, desk))
            if key is not None and _text(self._options.reply.key, one) is None:
                break  # it is this file's: no other is to get it
        if not grants:
            raise Retry("the reply holds no grant")
        return grants

    def key(self, proposed: str, *, named: bool) -> str | None:
        return proposed if self._options.asks_for_key else None

    async def confirm(self, grant: Grant, size: int, desk: Desk) -> Receipt | None:
        """Looks at the address to read from, if there is one that anybody may ask."""
        link = _link(grant.ticket)
        if link is None:
            return None
        try:
            reply = await desk.call(Request("object", "HEAD", link))
        except Retry:
            return None
        if reply.status != 200 or reply.headers.get("content-length") != str(size):
            return None
        return Receipt(grant.key or "", reply.headers.get("etag", "").strip('"'), link)

    async def follow_up(self, ask: Ask, receipt: Receipt, tries: int, desk: Desk) -> FollowUp:
        """Takes the address out of what a ticket had no other place for."""
        facts = {name: value for name, value in receipt.facts.items() if name != "link"}
        return FollowUp(replace(receipt, url=receipt.url or receipt.facts.get("link"), facts=facts))

    def _request(self, ask: Ask, desk: Desk) -> Request:
        asked = self._options.request
        values = {
            "key": ask.key,
            "name": ask.name,
            "path": ask.path,
            "size": str(ask.size),
            "mime": ask.mime,
            "seed": ask.seed,
            "uuid": _uuid(desk.nonce()),
            **{f"secret.{name}": secret.reveal() for name, secret in self._secrets.items()},
        }
        headers = {name: fill(value, values, _one_line) for name, value in asked.headers.items()}
        body = b""
        if isinstance(asked.body, str):
            body = fill(asked.body, values).encode()
        elif asked.body is not None:
            body = msgspec.json.encode(fill_in(asked.body, values))
            headers = {"content-type": "application/json"} | headers
        url = fill(asked.url, values, lambda value: quote(value, safe=""))
        return Request("grant", asked.method, url, headers, body)

    def _key_of(self, one: Any, ask: Ask) -> str | None:
        """Returns the key that the reply names, or that Qiniu's token is for: one alone, or those below a prefix."""
        key = _text(self._options.reply.key, one)
        token = _text(self._options.reply.token, one)
        if key is not None or token is None or self._options.transport != "qiniu" or self._options.many:
            return key
        policy = qiniu.policy(token) or qiniu.Policy("")
        return policy.key if policy.prefix is None else f"{policy.prefix}{ask.seed}/{ask.name}"

    def _grant(self, one: Any, key: str | None, ask: Ask, now: float, desk: Desk) -> Grant:
        reply = self._options.reply
        url = _text(reply.url, one)
        token = _text(reply.token, one)
        link = _text(reply.link, one)
        if url is None or not allowed(url, base=self._options.request.url, path=True):
            raise Retry("the reply holds no address to upload to")
        ticket, limits, expires_at = self._ticket(one, url, token, key, link)
        end = self._end(one, now) or expires_at
        end = None if end is None else end - desk.skew(self._options.request.url)
        return Grant(ticket, key or self._own_key(ask), end, limits, many=self._options.many)

    def _own_key(self, ask: Ask) -> str | None:
        """Returns a key for a grant whose reply names none: None if the request said nothing of the file."""
        if "key" in self._blanks:
            return ask.key
        return f"{ask.seed}/{ask.name}" if self._blanks & ABOUT_THE_FILE else None

    def _ticket(
        self, one: Any, url: str, token: str | None, key: str | None, link: str | None
    ) -> tuple[Any, Limits, float | None]:
        """Returns a ticket for the chosen transport, and what the token itself says of limits and life."""
        options = self._options
        fields = _texts(options.reply.fields, one)
        match options.transport:
            case "qiniu":
                if token is None:
                    raise Retry("the reply holds no upload token")
                policy = qiniu.policy(token)
                limits = policy.limits if policy else Limits()
                facts = {"link": link} if link else {}
                return QiniuTicket((url,), token, key, fields, facts), limits, policy.deadline if policy else None
            case "oss":
                facts = {"link": link} if link else {}
                return OssPostTicket(url, tuple(fields.items()), facts=facts), Limits(), None
            case "put":
                return PutTicket(url, fields, key, link, options.stored), Limits(), None
        if token is not None:
            fields = {**fields, options.token_field: token}
        return FormTicket(url, fields, options.file_field, key, link, options.stored), Limits(), None

    def _end(self, one: Any, now: float) -> float | None:
        """Returns when a grant ends, by the service's clock."""
        reply = self._options.reply
        if (seconds := _number(reply.expires_in, one)) is not None:
            return now + seconds
        if (end := _moment(reply.expires_at, one)) is not None:
            return end
        return None if self._options.life is None else now + self._options.life


def _link(ticket: FormTicket | PutTicket | QiniuTicket | OssPostTicket) -> str | None:
    if isinstance(ticket, FormTicket | PutTicket):
        return ticket.link
    return ticket.facts.get("link")


def _answer(reply: Reply) -> Any:
    match reply.status:
        case 401 | 403:
            raise Blocked(f"the token service refuses the account (status {reply.status})")
        case 404:
            raise Blocked("the token service has nothing at this address (status 404): check request.url")
        case 408 | 425 | 429:
            after = reply.after or (SLOWER if reply.status == 429 else None)
            raise Retry(f"the token service asks to wait (status {reply.status})", after=after)
        case status if 400 <= status < 500:
            raise Reject(f"the token service refuses the file (status {status})")
        case status if status // 100 != 2:
            raise Retry(f"the token service answers {status}", after=reply.after)
    return reply.json(object)


def _text(expression: Expression | None, value: Any) -> str | None:
    return None if expression is None else expression.text_of(value)


def _texts(expression: Expression | None, value: Any) -> dict[str, str]:
    """Reads form fields or headers: an object, or a list of objects with "key" or "name" and "value"."""
    found = None if expression is None else expression.find(value)
    if isinstance(found, Mapping):
        return {str(name): str(one) for name, one in found.items() if isinstance(one, str | int | float)}
    if isinstance(found, list):
        return {
            str(one.get("key", one.get("name"))): str(one.get("value", "")) for one in found if isinstance(one, Mapping)
        }
    return {}


def _number(expression: Expression | None, value: Any) -> float | None:
    try:
        number = float(_text(expression, value) or "")
    except ValueError:
        return None
    return number if isfinite(number) else None


def _moment(expression: Expression | None, value: Any) -> float | None:
    """Reads a time: seconds or milliseconds since the epoch, or ISO 8601, of UTC where it names no zone."""
    if (number := _number(expression, value)) is not None:
        return number / 1000 if number > MILLISECONDS else number
    return moment(_text(expression, value))


def _one_line(value: str) -> str:
    return CONTROL.sub("", value)


def _uuid(nonce: str) -> str:
    """Returns 32 hex digits as a random UUID (RFC 9562, version 4)."""
    digits = f"{nonce[:12]}4{nonce[13:16]}{'89ab'[int(nonce[16], 16) % 4]}{nonce[17:]}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
