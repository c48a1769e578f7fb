"""What a person orders from a running daemon, by a command, a script or the page."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from math import inf
from typing import Any

from dumbwaiter import log, report
from dumbwaiter.app import App
from dumbwaiter.catalog import Catalog
from dumbwaiter.errors import Exit, Failure, Verdict
from dumbwaiter.jobs.by_hand import candidate, looked_at
from dumbwaiter.lifecycle import Event, sources
from dumbwaiter.model import Entry, Link
from dumbwaiter.naming import shown
from dumbwaiter.providers.claims import claim
from dumbwaiter.wire.address import expires_at


class Orders:
    """The orders that a running app takes. Whatever cannot be done raises `Failure`."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._log = log.get("orders")

    async def put(
        self,
        paths: Sequence[str],
        provider: str | None,
        watch: str | None,
        *,
        again: bool = False,
        alone: bool = False,
    ) -> list[int]:
        """Makes jobs of files right away and returns their ids. Raises `Failure` when one is no file.

        They come before all others; `again`, also those whose upload is done; `alone`, nothing else is worked on.
        """
        if provider is not None and watch is not None:
            raise Failure("say --provider or --watch, not both: a watch has its provider", Exit.USAGE)
        if alone:
            await self._app.steering.load()  # before anything is asked of a provider that rests
        look = partial(candidate, self._app.config, provider=provider, watch=watch)
        candidates = await looked_at(paths, look, self._app.engine.context.threads)
        await self._app.journal.arrivals.enqueue(candidates, time.time(), again=again)
        ids = await self._app.journal.arrivals.ids(candidates)
        if alone:
            self._app.engine.only = ids
        await self.retry(ids)
        return ids

    async def retry(self, ids: Sequence[int] | None, *, waiting: bool = True) -> int:
        """Makes jobs due at once, as `Queue.retry` does, and gives paused providers another chance."""
        for provider in self._app.providers.values():
            provider.health.again()
        count = await self._app.journal.queue.retry(ids, time.time(), waiting=waiting)
        self._app.look_for_work()
        self._app.errands.kick()
        return count

    async def forget(self, ids: Sequence[int]) -> int:
        """Ends jobs for good, with what is being sent for them; returns how many."""
        known = await asyncio.to_thread(report.jobs_by_id, self._app.reader, ids)
        # What is asked of a vendor about a stored file goes on: it may cost, and has to be heard.
        async with self._app.engine.without(one.id for one in known if one.state in sources(Event.SUPERSEDE)):
            return await self._app.journal.queue.forget(ids, time.time())

    async def claim(self, path: str) -> dict[str, Any]:
        """Fetches what the provider sells beside a catalogued file, once; returns what `claims.claim` does."""
        found = await asyncio.to_thread(Catalog(self._app.reader).find, path)
        if found is None or not isinstance(found.file, Entry):
            raise Failure(f"{shown(path)} is not at any provider")
        provider = self._app.providers.get(found.file.provider)
        if provider is None:
            raise Failure(f'no provider named "{found.file.provider}" is configured', Exit.USAGE)
        return await claim(self._app.journal, provider, found.file)

    async def link(self, number: int, refused: str | None) -> Link:
        """Returns where the entry with this id can be read now. Raises `Failure`."""
        entry = await self.entry(number)
        if refused is None and entry.url is not None and (expires_at(entry.url) or inf) > time.time():
            return Link(entry.url, expires_at(entry.url))
        return await self._app.addresses.link(entry, refused)

    async def entry(self, number: int) -> Entry:
        """Returns the catalogued file with this id. Raises `Failure` when there is none."""
        entry = await asyncio.to_thread(Catalog(self._app.reader).entry, number)
        if entry is None:
            raise Failure(f"the catalog has no entry {number}")
        return entry

    async def still(self, number: int) -> bool | None:
        """Returns whether the vendor has the entry with this id; None where it does not tell. Raises `Failure`."""
        entry = await asyncio.to_thread(Catalog(self._app.reader).entry, number)
        provider = self._app.providers.get(entry.provider) if entry else None
        if entry is None or provider is None or not provider.broker.shares:
            return None
        try:
            return await provider.broker.still(entry, provider) is not None
        except Verdict as verdict:
            raise Failure(f"{shown(entry.place)}: {verdict}", Exit.TEMPORARY) from None

    async def pause(self, name: str, seconds: float | None) -> dict[str, Any]:
        """Lets a provider, a watch or everything rest; returns what rests."""
        await self._app.steering.pause(name, seconds)
        return self._steered()

    async def resume(self, name: str | None) -> dict[str, Any]:
        """Ends a pause, or all of them, and gives refused providers another chance; returns what rests still."""
        await self._app.steering.resume(name)
        for each, provider in self._app.providers.items():
            if name in {None, each}:
                provider.health.again()
        return self._steered()

    def bandwidth(self, rate: str | None) -> dict[str, Any]:
        """Sets the limit of all uploads, "auto" for what is configured, None to ask; returns what holds."""
        if rate is not None:
            self._app.steering.order(None if rate == "auto" else rate)
            self._log.info("bandwidth", rate=rate)
        return self._steered()

    def _steered(self) -> dict[str, Any]:
        self._app.look_for_work()
        return {"paused": self._app.status.paused(), "bytes_per_second": self._app.steering.rate}
