"""What a person tells the daemon while it runs: rest, go on, send no faster than this. What rests does so over a restart."""

import time
from collections.abc import Callable, Collection, Mapping
from math import inf

from dumbwaiter.config.timetable import Timetable, rate
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.net.pace import Bandwidth
from dumbwaiter.store.pauses import Pauses

ALL = ""  # the name under which everything rests


class Steering:
    """The pauses and the bandwidth of one daemon."""

    def __init__(
        self,
        kept: Pauses,
        bandwidth: Bandwidth,
        timetable: Timetable,
        *,
        providers: Collection[str],
        watches: Collection[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kept = kept
        self._bandwidth = bandwidth
        self._timetable = timetable
        self._providers = providers
        self._watches = watches
        self._clock = clock
        self._pauses: Mapping[str, float | None] = {}
        self.ordered: str | None = None  # a rate that a person ordered: it holds instead of the timetable

    async def load(self) -> None:
        """Takes up what was paused before the daemon was restarted."""
        self._pauses = await self._kept.all()

    async def pause(self, name: str, seconds: float | None) -> None:
        """Lets a provider, a watch or everything rest, for `seconds` or until `resume`. Raises `Failure`."""
        await self._kept.begin(self._known(name), None if seconds is None else self._clock() + seconds)
        await self.load()

    async def resume(self, name: str | None) -> None:
        """Ends a pause; all of them with None. Raises `Failure`."""
        # What was paused may have another name by now.
        await self._kept.end(name if name is None or name in self._pauses else self._known(name))
        await self.load()

    def paused(self, now: float) -> dict[str, float]:
        """Returns until when what rests; infinity stands for "until a person says otherwise"."""
        ends = {name: inf if until is None else until for name, until in self._pauses.items()}
        return {name: until for name, until in ends.items() if until > now}

    def providers(self, now: float) -> dict[str, float]:
        """Returns which providers rest, and until when."""
        paused = self.paused(now)
        everything = paused.get(ALL, 0.0)
        ends = {name: max(everything, paused.get(name, 0.0)) for name in self._providers}
        return {name: until for name, until in ends.items() if until > now}

    def watches(self, now: float) -> dict[str, float]:
        """Returns which watches rest, and until when."""
        return {name: until for name, until in self.paused(now).items() if name in self._watches}

    def order(self, text: str | None) -> None:
        """Holds a rate such as "2M" or "off" from now on; with None the timetable holds again. Raises `Failure`."""
        try:
            limit = None if text is None else rate(text)
        except ValueError as error:
            raise Failure(str(error), Exit.USAGE) from None
        self.ordered = text
        if text is not None:
            self._bandwidth.set(limit)
        else:
            self.keep_time()

    def keep_time(self) -> float | None:
        """Sets the rate that the timetable has for now; returns when that changes."""
        now = self._clock()
        if self.ordered is None:
            self._bandwidth.set(self._timetable.at(now))
        return self._timetable.changes_at(now)

    @property
    def rate(self) -> float | None:
        """The bytes a second that may leave now; None is no limit."""
        return self._bandwidth.rate

    def _known(self, name: str) -> str:
        if name != ALL and name not in self._providers and name not in self._watches:
            raise Failure(f'there is no provider and no watch "{name}"', Exit.USAGE)
        return name
