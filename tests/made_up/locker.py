"""Lockers, a vendor that does not exist: a key opens one locker for one file, and a signed address takes it.

All that dumbwaiter has to know of a vendor: what the configuration can say of it, and how to ask for permission.
"""

from collections.abc import Sequence

from msgspec import Struct

from dumbwaiter.broker import Broker
from dumbwaiter.config.values import BaseUrl, SecretSource
from dumbwaiter.doors import Desk
from dumbwaiter.errors import Blocked, Retry
from dumbwaiter.model import Ask, Grant, Limits
from dumbwaiter.tickets import PutTicket
from dumbwaiter.wire.address import allowed
from dumbwaiter.wire.message import Request
from dumbwaiter.wire.recipe import Stored


class Options(Struct, frozen=True, forbid_unknown_fields=True, tag_field="broker", tag="locker"):
    """Lockers: one key for all of them."""

    api: BaseUrl
    key: SecretSource


class _Locker(Struct):
    address: str
    number: int
    most: int
    seconds: float


class Locker(Broker):
    """One customer's lockers."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._key = options.key.read()

    async def grants(self, asks: Sequence[Ask], desk: Desk) -> Sequence[Grant]:
        (ask,) = asks
        api = self._options.api
        reply = await desk.call(Request("locker", "POST", f"{api}/lockers", {"x-key": self._key.reveal()}))
        if reply.status == 403:
            raise Blocked("the lockers refuse the key: check key")
        if reply.status != 200:
            raise Retry(f"the lockers answer {reply.status}", after=reply.after)
        locker = reply.json(_Locker)
        if not allowed(locker.address, base=api, path=True):
            raise Retry("the lockers name no address that a file can go to")
        key = f"{locker.number}/{ask.name}"
        end = desk.now(api) - desk.skew(api) + locker.seconds
        ticket = PutTicket(locker.address, {}, key, None, Stored())
        return [Grant(ticket, key, end, Limits(size_max=locker.most))]
