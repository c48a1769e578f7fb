"""EDGE watchdog: the thread that reads the kernel's queue, the canary that proves that it hears, and its replacement."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress

from watchdog.observers.inotify_c import CallbackId, InotifyFD, Mask

from dumbwaiter.kernel_limits import limit
from dumbwaiter.watch import canary
from dumbwaiter.watch.canary import Canary
from dumbwaiter.watch.inotify_watches import CLOSE_WRITE, InotifyWatches

RETRY = 60.0  # seconds until a reader that could not be had is asked for again


class Reader:
    """Has one of watchdog's readers at work for the watches of all roots. Every method may be called in any thread."""

    def __init__(self, watches: InotifyWatches, bird: Canary | None, stopped: Callable[[], bool]) -> None:
        self.deaf = ""  # why nothing is heard at all
        self._watches = watches
        self._canary = bird
        self._stopped = stopped
        self._heard: Canary | None = None  # while it is listened to
        self._retry_at = 0.0

    @property
    def deaf_for(self) -> float:
        """For how many seconds nothing was heard although something happened."""
        return self._heard.silent_for() if self._heard is not None else 0.0

    def prove(self) -> None:
        """Has the canary make a sound. May block for a moment, on its disk."""
        if self._heard is not None:
            with suppress(OSError):
                self._heard.sound()

    def catch_up(self, seconds: float) -> None:
        """Returns when all that happened before was read, or after so many seconds."""
        if self._heard is not None:
            with suppress(OSError):
                self._heard.wait_until_heard(seconds)

    def renew(self, now: float) -> bool:
        """Puts another in the place of one that does not hear, or of the first that could not be had; True when it did.

        For one thread at a time.
        """
        old = self._watches.reader
        hears = old is not None and old.is_alive() and self.deaf_for < canary.PATIENCE
        if self._stopped() or hears or now < self._retry_at:
            return False
        if old is not None:
            old.stop()  # before there is another, as the numbers of their watches are the same
            self._heard = None
        try:
            reader = InotifyFD()
        except OSError as error:
            most = limit("instances")
            reason = os.strerror(error.errno or errno.EIO).lower()
            self.deaf = f"the kernel gives no inotify instance ({reason}; {most.setting} is {most.shown})"
            self._retry_at = now + RETRY
            return False
        with self._watches.lock:
            if self._stopped():
                return False
            reader.start()
            self._watches.use(reader)
            self._listen_to_canary(reader)
            self.deaf = ""
        return True

    def _listen_to_canary(self, reader: InotifyFD) -> None:
        if self._canary is None:
            return
        self._canary.reset()
        with suppress(OSError):  # no watch is left even for it: nothing can be proved then
            place = os.fsencode(self._canary.folder)
            added = reader.add_callback(place, Mask(CLOSE_WRITE), self._canary, CallbackId(0)) != -1
            self._heard = self._canary if added else None
