"""Providers at work: who may upload, with what, and until when.

A grant lives in memory; the journal has it only where its ticket is a session ticket. What a broker keeps between its
calls (a session, a list of nodes) is renewed ahead of its end, with one request in flight however many wait, and
replaced only when the new one is whole.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from math import inf
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import msgspec
from msgspec import Struct

from dumbwaiter.broker import SLOWER, Broker
from dumbwaiter.bulk import Abort
from dumbwaiter.errors import Blocked, JournalTrouble, Reject, Retry, Verdict
from dumbwaiter.http import Http
from dumbwaiter.model import MIB, UNKNOWN, Ask, Grant, Receipt
from dumbwaiter.naming import shown
from dumbwaiter.pace import Abreast, Bandwidth, Bucket
from dumbwaiter.policy import AFTER_MAX, PAUSE
from dumbwaiter.transports import TRANSPORTS, Transport
from dumbwaiter.wire.message import FileSlice, Reply, Request

T = TypeVar("T")
Tell = Callable[[str, str], Awaitable[None]]  # a person, of a provider and a sentence

RENEW = 0.8  # of its life, after which a value is renewed ahead of need
MARGIN = 30.0  # seconds of life that an upload needs beyond its own time
PROBE = 60.0  # seconds at most until a provider that the network does not reach is tried again
REFUSALS = 4  # of new grants, until a person is asked to look
REFUSED_APART = 10.0  # seconds that these lie apart at least: a vendor's bad moment is over by then
FLIGHTS = 4  # calls for grants at once, where one call brings one file's


class _Kept:
    """A value with an end."""

    def __init__(self, fetch: Callable[[], Awaitable[Any]], life: float) -> None:
        self.fetch = fetch
        self.life = life
        self.value: Any = None
        self.fetched_at: float | None = None
        self.flight: asyncio.Task[None] | None = None

    def age(self, now: float) -> float:
        return inf if self.fetched_at is None else now - self.fetched_at


class _Asking(NamedTuple):
    """A file that waits for a grant."""

    ask: Ask
    seconds: float  # that its upload takes
    future: asyncio.Future[Grant]


async def _nothing(*_question: object) -> Mapping[str, Receipt]:
    return {}


class Provider:
    """One configured provider: its broker, and the desk the broker works at (`doors.Desk`)."""

    def __init__(
        self,
        name: str,
        broker: Broker,
        http: Http,
        *,
        clock: Callable[[], float] = time.time,
        requested: Callable[[int], Awaitable[None]],
        requests: float | None = None,
        bandwidth: Bandwidth | None = None,
        beside: Callable[[str, str, str, str], Awaitable[Mapping[str, Receipt]]] = _nothing,
        holders: Callable[[str, int, str, str], Awaitable[Mapping[str, Receipt]]] = _nothing,
    ) -> None:
        self.name = name
        self.broker = broker
        self.paused_until = 0.0
        self.trouble: str | None = None  # what its latest failure was, until something succeeds
        self.blocked = False  # a person is needed
        self.offline = False  # its latest failure was the network's
        self.losses = 0  # of those, in a row
        self.probe_at = 0.0  # before this, no other file tries what the network does not let through
        self.chances = 0  # times that something may have changed: what began before says nothing of now
        self.refusals = 0  # of grants that were new, since something last succeeded
        self.refused_at = -inf
        self.refreshes = 0  # of what the broker keeps between its calls
        self.expires_at: float | None = None  # of the latest grant
        self.abreast = Abreast(bandwidth)
        self._http = http
        self._clock = clock
        self._requested = requested
        self._beside = beside
        self._holders = holders
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._kept: dict[str, _Kept] = {}
        self._pace = Bucket(requests or broker.requests)
        self._uploads = Bucket(broker.uploads) if broker.uploads else None
        self._rate: float | None = None  # bytes a second, of late
        self._spare: list[Grant] = []  # good for any file
        self._life = inf  # seconds, of the latest grants
        self._asking: list[_Asking] = []
        self._asked_to_wait: tuple[float, str] = (0.0, "")  # until when, and in which words
        self._node_rests = 0.0  # until when an upload node wants no other file, unless another one takes some
        self._flights: set[asyncio.Task[None]] = set()
        self._single = False  # the latest call brought one grant for one file, as the next will
        self._better: dict[str, str] = {}  # upload nodes that named another one

    # The desk

    async def call(self, request: Request) -> Reply:
        await asyncio.sleep(self._pace.take())
        return await self._http.call(request)

    def exchange(self, request: Request, abort: Abort) -> Reply:
        """Sends a request of a transport from its thread, no faster than the vendor counts uploads."""
        if self._uploads is not None and isinstance(request.body, FileSlice):
            abort.wait(self._uploads.take())
        reply = self._http.exchange(request, abort)
        if reply.status == 429:
            self._node_rests = max(self._node_rests, self._clock() + min(reply.after or SLOWER, AFTER_MAX))
        return reply

    def order(self, urls: Sequence[str]) -> list[str]:
        """Returns the upload nodes in the order in which a transport is to try them. From any thread, as the next."""
        return self._http.order([*dict.fromkeys(one for url in urls for one in (self._better.get(url, url), url))])

    def better(self, url: str, other: str) -> None:
        """Has `other` tried before `url` from now on."""
        self._better[url] = other

    def now(self, url: str) -> float:
        return self._clock() + self._http.skew(url)

    def skew(self, url: str) -> float:
        return self._http.skew(url)

    async def beside(self, ask: Ask, fact: str, value: str) -> Mapping[str, Receipt]:
        return await self._beside(self.name, ask.place, fact, value)

    async def holders(self, size: int, fact: str, value: str) -> Mapping[str, Receipt]:
        return await self._holders(self.name, size, fact, value)

    def nonce(self) -> str:
        return secrets.token_hex(16)

    async def kept(self, name: str, life: float, fetch: Callable[[], Awaitable[T]]) -> T:
        kept = self._kept.setdefault(name, _Kept(fetch, life))
        kept.fetch, kept.life = fetch, life
        age = kept.age(time.monotonic())
        if age > life:
            try:
                await asyncio.shield(self._renew(kept))
            except Verdict:
                if kept.fetched_at is None:
                    raise
        elif age > life * RENEW:
            self._renew(kept)
        value: T = kept.value
        return value

    def forget(self, name: str, value: object) -> None:
        kept = self._kept.get(name)
        if kept is not None and kept.value == value:
            kept.fetched_at = None

    def _renew(self, kept: _Kept) -> asyncio.Task[None]:
        async def renew() -> None:
            try:
                kept.value = await kept.fetch()
                kept.fetched_at = time.monotonic()
                self.refreshes += 1
            finally:
                kept.flight = None

        if kept.flight is None:
            kept.flight = asyncio.create_task(renew())
            kept.flight.add_done_callback(lambda task: task.cancelled() or task.exception())
        return kept.flight

    def alone(self, group: str | None) -> AbstractAsyncContextManager[None]:
        """Waits for the others of a group (`Broker.together`) to be through."""
        if group is None:
            return nullcontext()
        return self._turns.setdefault(group, asyncio.Lock())

    async def refresh(self, tell: Tell) -> None:
        """Renews what is near its end, so that no upload has to wait for it; `tell` as for `block`."""
        now = time.monotonic()
        for kept in list(self._kept.values()):
            if self.paused_until > self._clock():
                return  # a vendor that has just refused us is not asked again and again
            if kept.fetched_at is not None and kept.age(now) > kept.life * RENEW:
                try:
                    await asyncio.shield(self._renew(kept))
                except Verdict as verdict:
                    self.trouble = str(verdict)
                    if isinstance(verdict, Blocked):
                        await self.block(str(verdict), self._clock() + PAUSE, tell)

    # Grants

    async def grant(self, ask: Ask, seconds: float = 0.0) -> Grant:
        """Asks for permission for one file whose upload takes `seconds`.

        Raises a verdict; `Reject` when the grant's limits exclude the file.
        """
        whole = self._take_spare(seconds) or await self._ask(ask, seconds)
        try:
            grant = self.broker.fit(whole, ask) if whole.many else whole
        except Retry:  # nor would it fit the next
            self._spare = [one for one in self._spare if one is not whole]
            raise
        self.expires_at = grant.expires_at
        try:
            _check(grant, ask)
        except Reject:
            if grant.key is None and not grant.many:
                self._spare.append(grant)  # another file may fit
            raise
        return grant

    def refuse(self, grant: Grant, ask: Ask) -> None:
        """Forgets a grant that the provider refused for a file, and those that end with it: they came together."""
        self.broker.refused()
        self._spare = [
            one
            for one in self._spare
            if (grant.expires_at is None or one.expires_at != grant.expires_at)
            and grant != (self.broker.fit(one, ask) if one.many else one)
        ]

    def refused(self, asked_at: float) -> bool:
        """Notes that a grant was refused which was asked for at `asked_at`; True when that can only be the account's fault.

        Those that were asked for at about the same time count as one.
        """
        if asked_at > self.refused_at + REFUSED_APART:
            self.refusals, self.refused_at = self.refusals + 1, self._clock()
        return self.refusals >= REFUSALS

    def takes(self, size: int) -> float:
        """Returns how many seconds `size` bytes take, going by the latest uploads; 0 before the first."""
        return size / self._rate if self._rate else 0.0

    def moved(self, size: int, seconds: float) -> None:
        """Learns from an upload how fast bytes go; small ones say little about large ones."""
        if size >= MIB and seconds > 0:
            rate = size / seconds
            self._rate = rate if self._rate is None else self._rate + (rate - self._rate) / 4

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
        until, words = self._asked_to_wait
        if (left := until - self._clock()) > 0:  # it said so of one file, and means all
            raise Retry(words, after=left)
        future: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        self._asking.append(_Asking(ask, seconds, future))
        if len(self._flights) < (FLIGHTS if self._single else 1):
            self._flights.add(asyncio.create_task(self._ask_all()))
        return await future

    async def _ask_all(self) -> None:
        try:
            while self._asking:
                group = self._asking[: self.broker.batch]
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
            grants = await self.broker.grants([one.ask for one in waiting], self)
        except Exception as error:  # noqa: BLE001 - raised again, by each who asked
            if isinstance(error, Blocked | Retry):  # whoever waits would meet the same, one call after the other
                waiting += self._asking
                self._asking.clear()
            if isinstance(error, Retry) and error.after:
                self._asked_to_wait = self._clock() + min(error.after, AFTER_MAX), str(error)
            for one in waiting:
                if not one.future.done():
                    one.future.set_exception(error)
            return
        self._single = self.broker.batch == 1 and not any(grant.many for grant in grants)
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
        return await self.broker.resume(grant, self)

    async def block(self, sentence: str, until: float, tell: Tell) -> None:
        """Rests, for the account is refused; a person is told once. Raises `JournalTrouble`: then the next one tells."""
        told, self.blocked = self.blocked, True  # at once: others may come to the same
        self.trouble, self.paused_until = sentence, until
        if not told:
            try:
                await tell(self.name, sentence)
            except JournalTrouble:
                self.blocked = False
                raise

    def well(self, now: float) -> None:
        """Notes a success; one that was under way when the account was refused says nothing of the account."""
        self._reached()
        self.refusals, self._node_rests = 0, 0.0
        if self.paused_until <= now:
            self.trouble, self.blocked = None, False

    def failed(self, sentence: str, *, offline: bool, wait: float) -> None:
        """Notes a failure that passes. Where it is the network's again, the next try of any file is `wait` seconds off."""
        self.trouble = sentence
        if not offline:
            self._reached()
            return
        self.offline = True
        self.losses += 1
        if self.losses > 1:
            self.probe_at = self._clock() + min(wait, PROBE)

    def _reached(self) -> None:
        self.offline, self.losses, self.probe_at = False, 0, 0.0

    @property
    def rests_until(self) -> float:
        """Before this, no file is tried: the account is refused, or the service asked to wait."""
        return max(self.paused_until, self._asked_to_wait[0], self._node_rests)

    def again(self) -> None:
        """Gives it another chance at once: a person, or another network, may have changed something."""
        self.paused_until = self.probe_at = self._node_rests = 0.0
        self._asked_to_wait = (0.0, "")
        self.chances += 1

    def state(self, now: float) -> str:
        if self.blocked and self.paused_until:  # else it has another chance, and may be well by now
            return "blocked"
        return "paused" if self.paused_until > now else "ready"


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
