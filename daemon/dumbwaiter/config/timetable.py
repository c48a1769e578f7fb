"""How many bytes a second may leave, by the clock on the wall. Pure.

A day has 23 or 25 hours twice a year: changes are reckoned in the zone, day by day, never by adding 24 hours.
"""

import re
from datetime import UTC, datetime, time, timedelta, tzinfo

from dumbwaiter.config.values import size

TICK = 0.001  # seconds: the clock has no finer ones that a person can tell


def rate(text: str) -> float | None:
    """Returns the bytes a second of "10M" or "512k", None for "off". Raises `ValueError`."""
    if text == "off":
        return None
    try:
        value = size(text)
    except ValueError:
        raise ValueError(f'"{text}" is no rate: write "off", or a number and k, M or G, like "2M"') from None
    if not value:
        raise ValueError('a rate of 0 would never end: write "off" for no limit, or pause instead')
    return float(value)


def _moments(clock: datetime) -> set[float]:
    """Returns when the clock on the wall shows a time, or passes it: it is put forward over one, or back before it."""
    moments = {clock.replace(fold=fold).timestamp() for fold in (0, 1)}
    if len(moments) == 1:
        return moments
    before, after = map(int, sorted(moments))
    offset = _offset(before, clock.tzinfo)
    while after - before > 1:  # the clock is put between the two
        middle = (before + after) // 2
        before, after = (middle, after) if _offset(middle, clock.tzinfo) == offset else (before, middle)
    return {*moments, float(after)}


def _offset(now: float, zone: tzinfo | None) -> timedelta:
    """Returns how far the clock on the wall is ahead of UTC."""
    return datetime.fromtimestamp(now, zone).replace(tzinfo=None) - datetime.fromtimestamp(now, UTC).replace(
        tzinfo=None
    )


class Timetable:
    """One rate for all day, or one from each of several times of day on."""

    __slots__ = ("_rows", "text")

    def __init__(self, text: str) -> None:
        """Raises `ValueError` unless `text` is like "10M", "off" or "08:00,512k 19:00,off"."""
        self.text = text
        if "," not in text:
            self._rows = [(time(0, 0), rate(text.strip()))]
            return
        rows: dict[time, float | None] = {}
        for row in text.split():
            match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d),(.+)", row)
            if not match:
                raise ValueError(f'"{row}" is no row of a timetable: write "08:00,512k 19:00,off"')
            start = time(int(match[1]), int(match[2]))
            if start in rows:
                raise ValueError(f'"{text}" says twice what holds from {start:%H:%M} on')
            rows[start] = rate(match[3])
        self._rows = sorted(rows.items())

    def at(self, now: float, zone: tzinfo | None = None) -> float | None:
        """Returns the rate that holds at `now`, by the clock of the machine, or of a zone; None is no limit."""
        clock = datetime.fromtimestamp(now, zone).time()
        held = self._rows[-1][1]  # since yesterday
        for start, value in self._rows:
            if start <= clock:
                held = value
        return held

    def changes_at(self, now: float, zone: tzinfo | None = None) -> float | None:
        """Returns when another rate begins to hold, None when there is but one."""
        today = datetime.fromtimestamp(now, zone).date()
        edges = {
            edge
            for days in (0, 1, 2)  # one may leave out all of them
            for start, _ in self._rows
            for edge in _moments(datetime.combine(today + timedelta(days), start, zone))
        }
        changes = (edge for edge in sorted(edges) if edge > now and self.at(edge, zone) != self.at(edge - TICK, zone))
        return next(changes, None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Timetable) and self._rows == other._rows

    def __hash__(self) -> int:
        return hash(tuple(self._rows))

    def __repr__(self) -> str:
        return f"Timetable({self.text!r})"
