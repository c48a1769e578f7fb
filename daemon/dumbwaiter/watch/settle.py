"""Decides when a file is finished: it is quiet, two stamps agree, and nobody is seen writing.

Pure: sightings, stamps and the time go in; paths to look at, finished files and the next wake-up come out. How long a
file has to be quiet:

- closed: a short wait, since its writer has said that it is done;
- not closed: twice the longest pause that it made so far, so that a slow copy is not taken half-way;
- not closed where no writer can be seen: a minute at least;
- empty: five times the settle time, since many programs make a name before they have anything to write;
- dated in whole seconds: as long as these dates are coarse, since a write within them leaves the stamp as it was;
- old when it is first seen: two equal stamps are enough. From then on only the stamps tell, because the clock of a file
  server may be another one.

A plain sighting may come from a scan, and scans repeat: it prolongs only the short wait after a close, for whoever
closed may have begun again.

A file that is finished again and again, as a log is that is opened for each line, is let through less and less often: each
version is sent as a whole. One whose changes outrun its uploads has to be quiet for as long as these took together.
"""

from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping
from heapq import heappop, heappush
from math import inf
from typing import NamedTuple

from dumbwaiter.model import Sighting, Stamp

SETTLE = 2.0  # seconds, for a watch that says nothing
RECHECK = 0.2  # seconds between the two stamps after a close
MOMENT = 0.02  # seconds; a kernel's file times are no finer than its tick, so closer stamps agree without meaning
COARSE = 2.0  # seconds; FAT's dates are no finer, those of sshfs, exFAT and an old ext4 are of one
CALM = 5  # times the settle time: for an empty file to stay empty, and for a closed one to be taken away
LONGEST = 60.0  # seconds; no file has to be quiet longer, unless its watch says so or it outran its uploads
OFTEN = 5  # versions of a file that follow one another at once; from then on each waits twice as long as the one before
OUTRUN_MAX = 3600.0  # seconds that a file has to be quiet at most because its changes outran its uploads
OUTRUN_FOR = 7200.0  # and for which that holds
REMEMBERED = 10_000  # files of which it is known how often they were finished, or outran their uploads

Name = tuple[str, str]  # watch, path


class Ready(NamedTuple):
    """A finished file: this version of it may be read."""

    watch: str
    path: str
    stamp: Stamp
    closed: bool = False  # its writer was heard to say that it is done


class _Wait:
    """What is known of one path that is not finished."""

    __slots__ = ("closed", "closed_at", "due", "heard", "held_until", "pause", "queued", "since", "stamp")

    def __init__(self, held_until: float) -> None:
        self.held_until = held_until  # not looked at before: its last version was let through lately
        self.closed = False
        self.heard = False  # that it was closed, which an old file only looks like
        self.closed_at = 0.0
        self.stamp: Stamp | None = None
        self.since = 0.0  # when that stamp was first seen
        self.pause = 0.0  # the longest between two changes
        self.due = inf  # when to look; never while somebody looks
        self.queued = inf  # the earliest line in the queue that stands for it


class Settle:
    """The paths that are waiting to become quiet. `seconds` is the settle time of each watch.

    In those of `each` every version of a file counts, however many there are.
    """

    def __init__(self, seconds: Mapping[str, float], each: Collection[str] = ()) -> None:
        self._seconds = dict(seconds)
        self._each = frozenset(each)
        self._finished: OrderedDict[Name, tuple[float, int]] = OrderedDict()  # when last, and how often in a row
        self._waits: dict[Name, _Wait] = {}
        self._queue: list[tuple[float, Name]] = []
        self._counts: Counter[str] = Counter()
        self._open: dict[Name, float] = {}  # what somebody has open for writing, and since when it is as it is
        # Files that changed while they were sent: for how many seconds that went on in all, and when it last ended.
        self._outrun: OrderedDict[Name, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waits)

    def pending(self, watch: str) -> int:
        """Returns how many files of a watch are waiting."""
        return self._counts[watch]

    def held(self, watch: str, now: float) -> list[str]:
        """Returns what would be taken but for a program that keeps it open for writing and writes no more. In any thread."""
        return [path for (one, path), since in [*self._open.items()] if one == watch and now - since > LONGEST]

    def outrun(self, watch: str, path: str, seconds: float, now: float) -> None:
        """Notes that a file changed while it was sent, which had taken so long and was in vain."""
        name = (watch, path)
        seconds += self._lost(name, now)
        self._outrun.pop(name, None)
        self._outrun[name] = min(seconds, OUTRUN_MAX), now
        if len(self._outrun) > REMEMBERED:
            self._outrun.popitem(last=False)

    def restless(self, watch: str, now: float) -> list[tuple[str, float]]:
        """Returns what waits for long since it outran its uploads, and for how many seconds it has to be quiet. In any thread."""
        names = [name for name in [*self._outrun] if name[0] == watch and name in self._waits]
        return [(name[1], seconds) for name in names if (seconds := self._lost(name, now)) > LONGEST]

    def _lost(self, name: Name, now: float) -> float:
        seconds, at = self._outrun.get(name, (0.0, 0.0))
        return seconds if now - at < OUTRUN_FOR else 0.0

    def sight(self, sighting: Sighting, now: float) -> None:
        """Begins to wait for a path, or notes that more has happened to it."""
        name = (sighting.watch, sighting.path)
        wait = self._waits.get(name)
        is_new = wait is None
        if wait is None:
            wait = self._waits[name] = _Wait(self._free_at(name))
            self._counts[sighting.watch] += 1
        if wait.held_until:  # what happened meanwhile is no pause of a slow copy
            wait.closed = False
            if wait.held_until <= now:
                wait.held_until = 0.0
        if sighting.closed or (sighting.old and is_new):
            self._close(wait, now)
            wait.heard = sighting.closed
            self._plan(name, wait, max(now, wait.held_until))
        else:
            wait.closed = False
            # the close mostly follows at once, and saves this look
            self._plan(name, wait, max(min(wait.due, now + self._step(name[0])), wait.held_until))

    @staticmethod
    def _close(wait: _Wait, now: float) -> None:
        # A first close ends whatever pauses there were; one after another is a writer that opens again and again.
        wait.pause = max(wait.pause, now - wait.closed_at) if wait.closed and not _is_empty(wait) else 0.0
        wait.closed = True
        wait.closed_at = now
        wait.stamp = None

    def due(self, now: float) -> list[Name]:
        """Returns the paths to look at now. Each is out until `observe` is told of it, or it is sighted again."""
        out: list[Name] = []
        while self._first() <= now:
            name = heappop(self._queue)[1]
            wait = self._waits[name]
            wait.due = wait.queued = inf
            out.append(name)
        return out

    def put_off(self, name: Name, when: float) -> None:
        """Looks at a path then, and not before."""
        if (wait := self._waits.get(name)) is not None:
            self._plan(name, wait, when)

    def next_wake(self) -> float | None:
        """Returns when `due` will have something, None if nothing is waiting."""
        first = self._first()
        return None if first == inf else first

    def observe(
        self, watch: str, path: str, stamp: Stamp | None, now: float, writing: bool | None = None
    ) -> Ready | None:
        """Takes what a look at the path has found and returns the file if it is finished.

        No stamp means that there is no such file, and the path is forgotten. `writing` is whether somebody has the
        file open for writing, None if that cannot be known.
        """
        name = (watch, path)
        wait = self._waits.get(name)
        if wait is None:
            return None
        if stamp is None:
            if wait.due == inf:  # else it was sighted again since somebody looked
                self._drop(name)
            return None
        if stamp != wait.stamp:
            self._change(wait, stamp, now)
        if writing and stamp.size:
            self._open[name] = wait.since
        else:
            self._open.pop(name, None)
        quiet_at = wait.since + max(self._quiet(watch, wait, seen=writing is not None), self._lost(name, now))
        if writing:
            quiet_at = max(quiet_at, now + max(self._settle(watch), RECHECK))
        elif quiet_at <= now:
            self._drop(name)
            self._note_finished(name, now)
            return Ready(watch, path, stamp, wait.closed and wait.heard)
        self._plan(name, wait, quiet_at)
        return None

    def _change(self, wait: _Wait, stamp: Stamp, now: float) -> None:
        if wait.stamp is not None:
            wait.pause = 0.0 if _is_empty(wait) else max(wait.pause, now - wait.since)
            wait.closed = False  # somebody else goes on with it, whose close is still to come
        wait.stamp = stamp
        wait.since = now

    def _note_finished(self, name: Name, now: float) -> None:
        if name[0] in self._each:
            return
        at, times = self._finished.pop(name, (-inf, 0))
        self._finished[name] = now, times + 1 if now - at < 2 * self._apart_max(name[0]) else 1
        if len(self._finished) > REMEMBERED:
            self._finished.popitem(last=False)

    def _free_at(self, name: Name) -> float:
        """Returns before when no further version of a file is let through."""
        at, times = self._finished.get(name, (0.0, 0))
        if times < OFTEN:
            return 0.0
        seconds = min(self._settle(name[0]), SETTLE) * 2.0 ** min(times - OFTEN, 10)
        return at + min(seconds, self._apart_max(name[0]))

    def _apart_max(self, watch: str) -> float:
        settle = self._settle(watch)
        return max(settle, min(LONGEST, LONGEST / SETTLE * settle))

    def _settle(self, watch: str) -> float:
        return self._seconds.get(watch, SETTLE)

    def _step(self, watch: str) -> float:
        """Returns the shortest time between two looks."""
        return max(MOMENT, min(self._settle(watch), RECHECK))

    def _quiet(self, watch: str, wait: _Wait, *, seen: bool) -> float:
        """Returns how long the path has to show the same stamp; `seen` tells whether writers would be."""
        least = self._step(watch) if wait.closed else self._settle(watch)
        if _is_empty(wait):
            least = CALM * self._settle(watch)
        if wait.stamp is not None and wait.stamp.coarse:
            least = max(least, COARSE)
        return max(MOMENT, least, min(LONGEST, 2 * wait.pause) if wait.closed or seen else LONGEST)

    def _drop(self, name: Name) -> None:
        self._open.pop(name, None)
        del self._waits[name]  # its lines in the queue find nothing, and fall out
        self._counts[name[0]] -= 1

    def _plan(self, name: Name, wait: _Wait, when: float) -> None:
        """Sets the next look. A line is added only for an earlier time, so the queue stays as long as the waits."""
        wait.due = when
        if when < wait.queued:
            wait.queued = when
            heappush(self._queue, (when, name))

    def _first(self) -> float:
        """Brings the next look to the top of the queue and returns its time."""
        while self._queue:
            when, name = self._queue[0]
            wait = self._waits.get(name)
            if wait is not None and when == wait.queued == wait.due:
                return when
            heappop(self._queue)
            if wait is not None and when == wait.queued:
                wait.queued = inf
                self._plan(name, wait, wait.due)
        return inf


def _is_empty(wait: _Wait) -> bool:
    return wait.stamp is not None and not wait.stamp.size
