"""The hours of the day in which a watch may begin uploads, as the clock on the wall shows them. Pure.

A day has 23 or 25 hours twice a year: edges are reckoned in the zone, day by day, never by adding 24 hours.
"""

import re
from collections.abc import Iterator
from datetime import datetime, time, timedelta, tzinfo


class Window:
    """From one time of day to another, over midnight where the second is the earlier."""

    __slots__ = ("_end", "_start", "text")

    def __init__(self, text: str) -> None:
        """Raises `ValueError` unless `text` is like "19:00-07:00"."""
        self.text = text
        match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)\s*-\s*([01]?\d|2[0-3]):([0-5]\d)", text.strip())
        if not match:
            raise ValueError(f'"{text}" is no window: write two times of day, like "19:00-07:00"')
        self._start = time(int(match[1]), int(match[2]))
        self._end = time(int(match[3]), int(match[4]))
        if self._start == self._end:
            raise ValueError(f'"{text}" is no window: it begins when it ends; leave the key out for the whole day')

    def opens_at(self, now: float, zone: tzinfo | None = None) -> float | None:
        """Returns when the window opens next, None while it is open; by the clock of the machine, or of a zone."""
        # One that lies in a missing hour does not come that day.
        spans = [(start, end) for start, end in self._spans(now, zone) if start < end]
        if any(start <= now < end for start, end in spans):
            return None
        return min(start for start, _ in spans if start > now)

    def _spans(self, now: float, zone: tzinfo | None) -> Iterator[tuple[float, float]]:
        today = datetime.fromtimestamp(now, zone).date()
        for days in (-1, 0, 1, 2):
            first = today + timedelta(days)
            last = first + timedelta(1) if self._end < self._start else first
            # An hour that comes twice is all inside: the first of it opens, the second closes. One that is missing
            # counts from its end, which is what the offset before it says.
            start = datetime.combine(first, self._start, zone)
            ends = (datetime.combine(last, self._end.replace(fold=fold), zone) for fold in (0, 1))
            yield start.timestamp(), max(end.timestamp() for end in ends)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Window) and (self._start, self._end) == (other._start, other._end)

    def __hash__(self) -> int:
        return hash((self._start, self._end))

    def __repr__(self) -> str:
        return f"Window({self.text!r})"
