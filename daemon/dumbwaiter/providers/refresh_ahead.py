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
APART = 10.0  # seconds until a value is fetched again that could not be renewed, while the old one does


class Cached:
    """One value, how long it lives, and where it comes from."""

    def __init__(self, fetch: Callable[[], Awaitable[Any]], life: float) -> None:
        self.fetch = fetch
        self.life = life
        self.value: Any = None
        self.fetched_at: float | None = None  # by the monotonic clock
        self.failed_at = -inf  # when it could not be renewed; by the same
        self.flight: asyncio.Task[None] | None = None

    @property
    def age(self) -> float:
        return inf if self.fetched_at is None else time.monotonic() - self.fetched_at

    @property
    def is_over(self) -> bool:
        return self.age > self.life

    @property
    def waits(self) -> bool:
        """True while there is no use in fetching it once more: who asks does with the old one."""
        return self.fetched_at is not None and time.monotonic() < self.failed_at + APART

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
        if cached.waits:
            pass
        elif cached.is_over:
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

    def is_over(self, name: str) -> bool:
        """True when a value is at its end, and of use only as long as nobody has a better one."""
        return self._values[name].is_over

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
                cached.fetched_at, cached.failed_at = time.monotonic(), -inf
                self.refreshes += 1
            except Verdict:
                cached.failed_at = time.monotonic()
                raise
            finally:
                cached.flight = None

        if cached.flight is None:
            cached.flight = asyncio.create_task(renew())
            cached.flight.add_done_callback(lambda task: task.cancelled() or task.exception())
        return cached.flight
