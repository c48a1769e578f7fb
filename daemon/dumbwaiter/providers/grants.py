"""Permission to upload: grants at hand, and the calls that bring more.

A grant lives in memory; the journal has it only where its ticket is a session ticket.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from math import inf
from typing import NamedTuple

import msgspec
from msgspec import Struct

from dumbwaiter.broker import Broker
from dumbwaiter.doors import Desk
from dumbwaiter.errors import Blocked, Reject, Retry
from dumbwaiter.model import UNKNOWN, Ask, Grant
from dumbwaiter.naming import shown
from dumbwaiter.providers.health import Health
from dumbwaiter.providers.refresh_ahead import RENEW
from dumbwaiter.transports import TRANSPORTS, Transport

MARGIN = 30.0  # seconds of life that an upload needs beyond its own time
OVER = (
    "the permission was over before it came: the provider's clock or this machine's is wrong, or a cache stands between"
)
OVER_APART = 3600.0  # seconds until another one that is over is tried all the same: whose clock is wrong nobody knows
FLIGHTS = 4  # calls for grants at once, where one call brings one file's


class _Asking(NamedTuple):
    """A file that waits for a grant."""

    ask: Ask
    seconds: float  # that its upload takes
    future: asyncio.Future[Grant]


class Grants:
    """The grants of one provider. `requested` is awaited before each call, with how many there are."""

    def __init__(
        self,
        broker: Broker,
        desk: Desk,
        health: Health,
        *,
        clock: Callable[[], float] = time.time,
        requested: Callable[[int], Awaitable[None]],
    ) -> None:
        self.expires_at: float | None = None  # of the latest grant
        self._broker = broker
        self._desk = desk
        self._health = health
        self._clock = clock
        self._requested = requested
        self._spare: list[Grant] = []  # good for any file
        self._life = inf  # seconds, of the latest grants
        self._asking: list[_Asking] = []
        self._flights: set[asyncio.Task[None]] = set()
        self._over_refused_at = -inf  # when one was refused that was over before it came
        self._single = False  # the latest call brought one grant for one file, as the next will

    async def obtain(self, ask: Ask, seconds: float = 0.0) -> Grant:
        """Asks for permission for one file whose upload takes `seconds`.

        Raises a verdict; `Reject` when the grant's limits exclude the file, `Retry` when one like it was over and refused.
        """
        whole = self._take_spare(seconds) or await self._ask(ask, seconds)
        try:
            grant = self._broker.fit(whole, ask) if whole.many else whole
        except Retry:  # nor would it fit the next
            self._spare = [one for one in self._spare if one is not whole]
            raise
        self.expires_at = grant.expires_at
        now = self._clock()
        if not _lives(grant, now) and now < self._over_refused_at + OVER_APART:
            raise Retry(OVER)
        try:
            _check(grant, ask)
        except Reject:
            if grant.key is None and not grant.many:
                self._spare.append(grant)  # another file may fit
            raise
        return grant

    def refuse(self, grant: Grant, ask: Ask, used_at: float) -> bool:
        """Forgets a grant that the provider refused for a file, and those that end with it: they came together.

        Returns True when it was over before it was used, at `used_at`, which says nothing of the account.
        """
        self._broker.refused()
        self._spare = [
            one
            for one in self._spare
            if (grant.expires_at is None or one.expires_at != grant.expires_at)
            and grant != (self._broker.fit(one, ask) if one.many else one)
        ]
        over = not _lives(grant, used_at)
        if over:
            self._over_refused_at = self._clock()
        return over

    def drop(self) -> None:
        """Forgets all that are at hand."""
        self._spare.clear()

    @property
    def spare(self) -> int:
        """How many grants are at hand."""
        now = self._clock()
        return sum(_lives(one, now + MARGIN) for one in self._spare)

    def _at_most(self, seconds: float) -> float:
        """Returns what life can be wanted of a grant: the vendor gives none that live longer than the latest."""
        return min(seconds, max(0.0, self._life * RENEW - MARGIN))

    def _take_spare(self, seconds: float) -> Grant | None:
        """Returns a grant at hand that lives long enough; one that ends too soon for this file may do for another."""
        until = self._clock() + MARGIN
        seconds = self._at_most(seconds)
        index = 0
        while index < len(self._spare):
            one = self._spare[index]
            if not _lives(one, until):
                del self._spare[index]
            elif _lives(one, until + seconds):
                if not one.many:
                    del self._spare[index]
                return one
            else:
                index += 1
        return None

    async def _ask(self, ask: Ask, seconds: float) -> Grant:
        """Asks for one file; those who ask meanwhile share the next call, as far as the vendor takes several."""
        self._health.check_rest()
        future: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        self._asking.append(_Asking(ask, seconds, future))
        if len(self._flights) < (FLIGHTS if self._single else 1):
            self._flights.add(asyncio.create_task(self._ask_all()))
        return await future

    async def _ask_all(self) -> None:
        try:
            while self._asking:
                group = self._asking[: self._broker.batch]
                del self._asking[: len(group)]
                await self._ask_together(group)
        finally:  # at once: whoever asks next looks whether one is under way
            self._flights = {flight for flight in self._flights if flight is not asyncio.current_task()}

    async def _ask_together(self, group: list[_Asking]) -> None:
        waiting = []
        for one in group:
            if one.future.done():
                continue
            if (spare := self._take_spare(one.seconds)) is not None:  # what another call left over
                one.future.set_result(spare)
            else:
                waiting.append(one)
        if not waiting:
            return
        try:
            await self._requested(1)
            grants = await self._broker.grants([one.ask for one in waiting], self._desk)
        except Exception as error:  # noqa: BLE001 - raised again, by each who asked
            if isinstance(error, Blocked | Retry):  # whoever waits would meet the same, one call after the other
                waiting += self._asking
                self._asking.clear()
            if isinstance(error, Retry) and error.after:
                self._health.service_rests(error.after, str(error))
            for one in waiting:
                if not one.future.done():
                    one.future.set_exception(error)
            return
        self._single = self._broker.batch == 1 and not any(grant.many for grant in grants)
        self._life = min((grant.expires_at - self._clock() for grant in grants if grant.expires_at), default=inf)
        for one, grant in zip(waiting, grants, strict=False):
            if grant.many and grant not in self._spare:
                self._spare.append(grant)
            if not one.future.done():
                one.future.set_result(grant)
        for one in waiting[len(grants) :]:
            if not one.future.done():
                one.future.set_exception(Retry("the provider gave fewer permissions than were asked for"))
        self._spare += grants[len(waiting) :]

    async def restore(self, stored: str, seconds: float) -> Grant | None:
        """Returns a journalled grant ready for use, None when its life ends within `seconds`."""
        try:
            grant = thaw(stored)
        except (msgspec.DecodeError, LookupError):
            return None  # another version of the program wrote it
        if grant.expires_at is not None and grant.expires_at < self._clock() + self._at_most(seconds) + MARGIN:
            return None
        return await self._broker.resume(grant, self._desk)


def _lives(grant: Grant, until: float) -> bool:
    return grant.expires_at is None or grant.expires_at > until


class _Stored(Struct):
    """A grant as the journal has it."""

    kind: str
    grant: msgspec.Raw


def freeze(grant: Grant, transport: Transport) -> str:
    """Writes a grant whose ticket is a session ticket."""
    raw = msgspec.Raw(msgspec.json.encode(grant))
    return msgspec.json.encode(_Stored(transport.name, raw)).decode()


def thaw(text: str) -> Grant:
    """Reads a journalled grant. Raises `LookupError` or `msgspec.DecodeError` for one that this program does not know."""
    stored = msgspec.json.decode(text, type=_Stored)
    grant = msgspec.json.decode(stored.grant, type=Grant)
    kinds = {row.name: row.ticket for row in TRANSPORTS}
    return msgspec.structs.replace(grant, ticket=msgspec.convert(grant.ticket, kinds[stored.kind]))


def _check(grant: Grant, ask: Ask) -> None:
    limits = grant.limits
    if limits.size_max is not None and ask.size > limits.size_max:
        raise Reject(f"{shown(ask.name)} has {ask.size} bytes; the provider takes {limits.size_max} at most")
    if limits.size_min is not None and ask.size < limits.size_min:
        raise Reject(f"{shown(ask.name)} has {ask.size} bytes; the provider wants {limits.size_min} at least")
    if limits.suffixes and ask.name.lower().rpartition(".")[2] not in limits.suffixes:
        raise Reject(
            f"the provider does not take {shown(ask.name)}: its suffix is none of {', '.join(limits.suffixes)}"
        )
    # What a name tells nothing of is the server's to judge: it looks inside.
    if limits.mime and ask.mime != UNKNOWN and not any(_fits(ask.mime, pattern) for pattern in limits.mime):
        raise Reject(f"{shown(ask.name)} is {ask.mime}; the provider takes {', '.join(limits.mime)}")


def _fits(mime: str, pattern: str) -> bool:
    return pattern in {mime, "*/*"} or (pattern.endswith("/*") and mime.startswith(pattern[:-1]))
