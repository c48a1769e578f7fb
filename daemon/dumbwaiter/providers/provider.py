"""A provider at work: its broker, the desk the broker works at, and what all of its files share."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TypeVar
from weakref import WeakValueDictionary

from dumbwaiter.broker import SLOWER, Broker
from dumbwaiter.errors import Blocked, JournalTrouble, Verdict
from dumbwaiter.model import MIB, Ask, Receipt
from dumbwaiter.net.abort import Abort
from dumbwaiter.net.http import Http
from dumbwaiter.net.pace import Abreast, Bandwidth, Bucket
from dumbwaiter.policy import PAUSE
from dumbwaiter.providers.grants import Grants
from dumbwaiter.providers.health import Health
from dumbwaiter.providers.refresh_ahead import RefreshAhead
from dumbwaiter.wire.message import FileSlice, Reply, Request

T = TypeVar("T")
Tell = Callable[[str, str], Awaitable[None]]  # a person, of a provider and a sentence


async def _nothing(*_question: object) -> Mapping[str, Receipt]:
    return {}


class Provider:
    """One configured provider; brokers see it as their `doors.Desk`."""

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
        siblings: Callable[[str, str, str, str], Awaitable[Mapping[str, Receipt]]] = _nothing,
        of_size: Callable[[str, int, str, str], Awaitable[Mapping[str, Receipt]]] = _nothing,
    ) -> None:
        self.name = name
        self.broker = broker
        self.health = Health(clock)
        self.grants = Grants(broker, self, self.health, clock=clock, requested=requested)
        self.abreast = Abreast(bandwidth)
        self._http = http
        self._clock = clock
        self._siblings = siblings
        self._of_size = of_size
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._cache = RefreshAhead()
        self._pace = Bucket(requests or broker.requests)
        self._uploads = Bucket(broker.uploads) if broker.uploads else None
        self._rate: float | None = None  # bytes a second, of late
        self._ending: set[str] = set()  # what could not be renewed and is good until its end; a person was told
        self._better: dict[str, str] = {}  # upload nodes that named another one

    # The desk

    async def call(self, request: Request) -> Reply:
        await asyncio.sleep(self._pace.take())
        return await self._http.call(request)

    def now(self, url: str) -> float:
        return self._clock() + self._http.skew(url)

    def skew(self, url: str) -> float:
        return self._http.skew(url)

    async def cached(self, name: str, life: float, fetch: Callable[[], Awaitable[T]]) -> T:
        return await self._cache.get(name, life, fetch)

    def forget(self, name: str, value: object) -> None:
        self._cache.forget(name, value)

    async def siblings(self, ask: Ask, fact: str, value: str) -> Mapping[str, Receipt]:
        return await self._siblings(self.name, ask.place, fact, value)

    async def of_size(self, size: int, fact: str, value: str) -> Mapping[str, Receipt]:
        return await self._of_size(self.name, size, fact, value)

    def drop_grants(self) -> None:
        self.grants.drop()

    def nonce(self) -> str:
        return secrets.token_hex(16)

    # For transports, from their threads

    def exchange(self, request: Request, abort: Abort) -> Reply:
        """Sends a request of a transport, no faster than the vendor counts uploads."""
        if self._uploads is not None and isinstance(request.body, FileSlice):
            abort.wait(self._uploads.take())
        reply = self._http.exchange(request, abort)
        if reply.status == 429:
            self.health.node_rests(reply.after or SLOWER)
        return reply

    def order(self, urls: Sequence[str]) -> list[str]:
        """Returns the upload nodes in the order in which a transport is to try them."""
        return self._http.order([*dict.fromkeys(one for url in urls for one in (self._better.get(url, url), url))])

    def better(self, url: str, other: str) -> None:
        """Has `other` tried before `url` from now on."""
        self._better[url] = other

    # For attempts

    def alone(self, group: str | None) -> AbstractAsyncContextManager[None]:
        """Waits for the others of a group (`Broker.together`) to be through."""
        if group is None:
            return nullcontext()
        return self._turns.setdefault(group, asyncio.Lock())

    def seconds_for(self, size: int) -> float:
        """Returns how many seconds `size` bytes take, going by the latest uploads; 0 before the first."""
        return size / self._rate if self._rate else 0.0

    def learn_rate(self, size: int, seconds: float) -> None:
        """Learns from an upload how fast bytes go; small ones say little about large ones."""
        if size >= MIB and seconds > 0:
            rate = size / seconds
            self._rate = rate if self._rate is None else self._rate + (rate - self._rate) / 4

    # The account

    @property
    def refreshes(self) -> int:
        """How often a session or the like was fetched."""
        return self._cache.refreshes

    async def refresh(self, tell: Tell) -> None:
        """Renews what is near its end, so that no upload has to wait for it; `tell` as for `block`."""
        for name in self._cache.due():
            if self.health.paused_until > self._clock():
                return  # a vendor that has just refused us is not asked again and again
            try:
                await self._cache.renew(name)
            except Verdict as verdict:
                self.health.trouble = str(verdict)
                if not isinstance(verdict, Blocked):
                    continue
                if self._cache.is_over(name):
                    await self.block(str(verdict), self._clock() + PAUSE, tell)
                elif name not in self._ending:  # files go on with it, and there is time to see to the account
                    await tell(self.name, str(verdict))
                    self._ending.add(name)
            else:
                self._ending.discard(name)

    async def block(self, sentence: str, until: float, tell: Tell) -> None:
        """Rests, for the account is refused; a person is told once. Raises `JournalTrouble`: then the next one tells."""
        health = self.health
        told, health.blocked = health.blocked, True  # at once: others may come to the same
        health.trouble, health.paused_until = sentence, until
        if not told:
            try:
                await tell(self.name, sentence)
            except JournalTrouble:
                health.blocked = False
                raise
