"""Where a catalogued file can be read now, where its provider gives addresses that end.

An address is kept until shortly before its end, and asked for once however many want it; nothing is asked for ahead of a
reader. It is a secret for its life: it stays in memory.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from dumbwaiter.errors import Exit, Failure, Verdict, exit_of
from dumbwaiter.model import Entry, Link, browsable
from dumbwaiter.naming import shown
from dumbwaiter.providers.provider import Provider

MARGIN = 60.0  # seconds of life that an address must have left
KEPT = 10_000  # addresses


class Addresses:
    """The addresses of all providers. Belongs to the daemon's loop."""

    def __init__(self, providers: Mapping[str, Provider], clock: Callable[[], float] = time.time) -> None:
        self._providers = providers
        self._clock = clock
        self._flights: OrderedDict[tuple[int, str, str], asyncio.Task[Link]] = OrderedDict()

    async def link(self, entry: Entry, refused: str | None = None) -> Link:
        """Returns an address other than the one that was `refused`. Raises `Failure` when there is none."""
        which = (entry.id, entry.provider, entry.key)  # a database gives a row's number to another
        flight = self._flights.get(which)
        if flight is not None and flight.done() and not self._good(flight, refused):
            flight = None
        if flight is None:
            flight = self._flights[which] = asyncio.create_task(self._ask(entry))
            flight.add_done_callback(lambda task: task.cancelled() or task.exception())
            while len(self._flights) > KEPT:
                self._flights.popitem(last=False)
        return await asyncio.shield(flight)

    def _good(self, flight: asyncio.Task[Link], refused: str | None) -> bool:
        if flight.cancelled() or flight.exception() is not None:
            return False
        link = flight.result()
        return link.url != refused and (link.expires_at is None or link.expires_at > self._clock() + MARGIN)

    async def _ask(self, entry: Entry) -> Link:
        place = shown(entry.place)
        provider = self._providers.get(entry.provider)
        if provider is None:
            raise Failure(f'{place}: no provider named "{entry.provider}" is configured', Exit.USAGE)
        try:
            link = await provider.broker.link(entry, provider)
        except Verdict as verdict:
            raise Failure(f"{place}: {verdict}", exit_of(verdict)) from None
        if link is None or not browsable(link.url):
            raise Failure(f"{place}: the provider gives no {'other ' if entry.url else ''}way to read it back")
        return link
