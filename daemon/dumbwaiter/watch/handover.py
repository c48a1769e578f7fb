"""From the watcher's threads to the loop: what was seen, in batches, so that a burst wakes it once and does not hold it."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import islice

from dumbwaiter.files.ignore import IGNORE_FILE, Rules
from dumbwaiter.model import Sighting

CHUNK = 1000  # sightings handed over in one turn of the loop
LATER = 0.02  # seconds until a file that is only begun is news: mostly it is closed by then, and told of once


class Handover:
    """Tells `seen` of files that the rules of their watch take, and `ruled` of a watch whose own ignore file was closed.

    `note` and `post` are for any thread, the others for the loop's. `rules` may change meanwhile.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        rules: Mapping[str, Rules],
        seen: Callable[[list[Sighting]], None],
        ruled: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._rules = rules
        self._seen = seen
        self._ruled = ruled
        self._closed = False
        self._gate = threading.Lock()  # the three below
        self._batch: dict[tuple[str, str], bool] = {}
        self._scheduled = False
        self._delayed = False
        self._rest: Iterator[tuple[tuple[str, str], bool]] = iter(())

    def note(self, watch: str, path: str, *, closed: bool) -> None:
        """Has the loop told of a file, soon."""
        with self._gate:
            self._batch[watch, path] = closed
            wake = not (self._scheduled or (self._delayed and not closed))
            if wake:
                self._scheduled, self._delayed = self._scheduled or closed, self._delayed or not closed
        if wake:
            self.post(self._deliver if closed else self._delay)

    def post(self, call: Callable[..., None], *values: str) -> None:
        """Has the loop call something."""
        if not self._closed:
            with suppress(RuntimeError):  # the loop has ended first
                self._loop.call_soon_threadsafe(self._call, call, *values)

    @property
    def pending(self) -> bool:
        """Whether there is more to tell in the loop's next turns."""
        return self._scheduled and not self._closed

    def hurry(self) -> None:
        """Begins to tell of what waits for its close as well."""
        with self._gate:
            self._delayed = False
            wake = bool(self._batch) and not self._scheduled
            self._scheduled = self._scheduled or wake
        if wake:
            self._deliver()

    def close(self) -> None:
        """Calls nothing any more. For any thread."""
        self._closed = True

    def _call(self, call: Callable[..., None], *values: str) -> None:
        if not self._closed:
            call(*values)

    def _delay(self) -> None:
        self._loop.call_later(LATER, self._call, self.hurry)

    def _deliver(self) -> None:
        """Hands over what has come together, some of it in each turn so that the loop stays free."""
        chunk = list(islice(self._rest, CHUNK))
        if not chunk:
            with self._gate:
                batch, self._batch = self._batch, {}
                self._scheduled = bool(batch)
            self._rest = iter(batch.items())
            chunk = list(islice(self._rest, CHUNK))
        if not chunk or self._closed:
            return
        self._loop.call_soon(self._deliver)
        for (watch, path), closed in chunk:
            if path == IGNORE_FILE and closed:  # it may be half written before
                self._ruled(watch)
        wanted = [Sighting(watch, path, closed) for (watch, path), closed in chunk if self._rules[watch].takes(path)]
        if wanted:
            self._seen(wanted)
