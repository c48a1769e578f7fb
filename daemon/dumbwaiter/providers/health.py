"""How a provider fares: whether the network reaches it, whether it refuses the account, until when it is to rest."""

import time
from collections.abc import Callable
from math import inf

from dumbwaiter.errors import Retry
from dumbwaiter.policy import AFTER_MAX, ceiling

PROBE = 60.0  # seconds at most until a provider that nothing succeeds at is tried again
FAILING = 5  # failures in a row, of whichever files, that say something of the provider
LOST = 3  # failures of the network in a row after which nobody waits for it
REFUSALS = 4  # of new grants, until a person is asked to look
REFUSED_APART = 10.0  # seconds that these lie apart at least: a vendor's bad moment is over by then


class Health:
    """What the attempts at one provider's files learn of it, so that others need not meet the same."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.trouble: str | None = None  # what its latest failure was, until something succeeds
        self.paused_until = 0.0
        self.blocked = False  # a person is needed
        self.offline = False  # its latest failure was the network's
        self.losses = 0  # of those, in a row
        self.failures = 0  # of both kinds, in a row
        self.probe_at = 0.0  # before this, no other file tries what lets none through
        self.chances = 0  # times that something may have changed: what began before says nothing of now
        self.refusals = 0  # of grants that were new, since something last succeeded
        self._refused_at = -inf
        self._clock = clock
        self._service_rests: tuple[float, str] = (0.0, "")  # until when, and in which words it asked for that
        self._node_rests = 0.0  # until when an upload node wants no other file, unless another one takes some

    @property
    def rests_until(self) -> float:
        """Before this, no file is tried: the account is refused, or the service asked to wait."""
        return max(self.paused_until, self._service_rests[0], self._node_rests)

    @property
    def next_at(self) -> float:
        """Before this, no file is tried, though no person is needed: it asked to wait, or nothing gets through."""
        return max(self._service_rests[0], self._node_rests, self.probe_at)

    @property
    def is_probed(self) -> bool:
        """True while one file at a time tries whether anything gets through: each other one would be sent in vain."""
        return self.offline or self.failures > FAILING

    @property
    def is_lost(self) -> bool:
        """True while nobody waits for it: it fails time and again, or the network does."""
        return self.losses >= LOST or self.failures > FAILING

    def state(self, now: float) -> str:
        if self.blocked and self.paused_until:  # else it has another chance, and may be well by now
            return "blocked"
        return "paused" if self.paused_until > now else "ready"

    def well(self, now: float) -> None:
        """Notes a success; one that was under way when the account was refused says nothing of the account."""
        self.offline, self.losses, self.failures, self.probe_at = False, 0, 0, 0.0
        self.refusals, self._node_rests = 0, 0.0
        if self.paused_until <= now:
            self.trouble, self.blocked = None, False

    def failed(self, sentence: str, *, offline: bool, random: float) -> None:
        """Notes a failure that passes, the network's or the provider's own; `random` is from 0 to 1.

        The more of them follow one another, the longer no file is tried at all: once is nothing, of either kind.
        """
        self.trouble, self.offline = sentence, offline
        self.failures += 1
        self.losses = self.losses + 1 if offline else 0
        times = max(self.losses - 1, self.failures - FAILING)
        self.probe_at = self._clock() + min(random * ceiling(times - 1), PROBE) if times > 0 else 0.0

    def refused(self, asked_at: float) -> bool:
        """Notes that a grant was refused which was asked for at `asked_at`; True when that can only be the account's fault.

        Those that were asked for at about the same time count as one.
        """
        if asked_at > self._refused_at + REFUSED_APART:
            self.refusals, self._refused_at = self.refusals + 1, self._clock()
        return self.refusals >= REFUSALS

    def service_rests(self, seconds: float, words: str) -> None:
        """Notes that the service asked to wait: it said so of one file, and means all."""
        self._service_rests = self._clock() + min(seconds, AFTER_MAX), words

    def check_rest(self) -> None:
        """Raises `Retry`, in the service's own words, until its rest is over."""
        until, words = self._service_rests
        if (left := until - self._clock()) > 0:
            raise Retry(words, after=left)

    def node_rests(self, seconds: float) -> None:
        """Notes that an upload node asked to wait. From any thread."""
        self._node_rests = max(self._node_rests, self._clock() + min(seconds, AFTER_MAX))

    def again(self) -> None:
        """Gives it another chance at once: a person, or another network, may have changed something."""
        self.paused_until = self.probe_at = self._node_rests = 0.0
        self._service_rests = (0.0, "")
        self._refused_at = min(self._refused_at, self._clock())  # by a clock that was ahead none would count any more
        self.chances += 1
