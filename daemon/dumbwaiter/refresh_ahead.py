"""Values with an end, renewed ahead of it: what a broker keeps between its calls, a session or a list of nodes.

One request is in flight however many wait, and a value is replaced only when the new one is whole.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, TypeVar

from dumbwaiter.errors import Verdict

T = TypeVar("T")

RENEW = 0.8  # of its life, after which a value is renewed ahead of need


class Cached:
    """One value, how long it lives, and where it comes from."""

    def __init__(self, fetch: Callable[[], Awaitable[Any]], life: float) -> None:
        self.fetch = fetch
        self.life = life
        self.value: Any = None
        self.fetched_at: float | None = None  # by the monotonic clock
        self.flight: asyncio.Task[None] | None = None

    @property
    def age(self) -> float:
        return inf if self.fetched_at is None else time.monotonic() - self.fetched_at

    @property
    def is_due(self) -> bool:
        return self.age > self.life * RENEW


class RefreshAhead:
    """The values of one broker, by name."""

    def __init__(self) -> None:
        self.refreshes = 0
        self._values: dict[str, Cached] = {}

    async def get(self, name: str, life: float, fetch: Callable[[], Awaitable[T]]) -> T:
        """Returns what `fetch` gave, for `life` seconds; see `doors.Desk.cached`."""
        cached = self._values.setdefault(name, Cached(fetch, life))
        cached.fetch, cached.life = fetch, life
        if cached.age > life:
            try:
                await asyncio.shield(self._renew(cached))
            except Verdict:
                if cached.fetched_at is None:
                    raise
        elif cached.is_due:
            self._renew(cached)
        value: T = cached.value
        return value

    def forget(self, name: str, value: object) -> None:
        """Drops a value, if it still is this one."""
        cached = self._values.get(name)
        if cached is not None and cached.value == value:
            cached.fetched_at = None

    def due(self) -> list[str]:
        """Returns the names of values near their end. What was never fetched, or is forgotten, waits to be asked for."""
        return [name for name, cached in self._values.items() if cached.fetched_at is not None and cached.is_due]

    async def renew(self, name: str) -> None:
        """Fetches a value anew; one that cannot be had leaves the old one."""
        await asyncio.shield(self._renew(self._values[name]))

    def _renew(self, cached: Cached) -> asyncio.Task[None]:
        async def renew() -> None:
            try:
                cached.value = await cached.fetch()
                cached.fetched_at = time.monotonic()
                self.refreshes += 1
            finally:
                cached.flight = None

        if cached.flight is None:
            cached.flight = asyncio.create_task(renew())
            cached.flight.add_done_callback(lambda task: task.cancelled() or task.exception())
        return cached.flight
