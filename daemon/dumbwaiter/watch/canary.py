"""A private folder in which a file is written now and then: as long as that is heard, the watcher hears.

A reader that died, hangs, or lost its kernel queue is silent, and so is a folder in which nothing happens; this tells
them apart.
"""

import os
import threading
import time
from contextlib import suppress
from itertools import count
from typing import Any

PATIENCE = 15.0  # seconds from a sound until nobody seems to hear; a full queue is read in less than one


class Canary:
    """Makes sounds, by writing files, and hears them. `on_...` are for watchdog's thread, all others may be called in any."""

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self.folder = folder
        self._lock = threading.Lock()
        self._sounded_at: float | None = None  # and not heard yet
        self._numbers = count()
        self._awaited: dict[bytes, threading.Event] = {}  # by name, the calls that are not heard yet

    def sound(self) -> None:
        """Makes a sound, unless the last one is still on its way. Raises OSError."""
        with self._lock:
            if self._sounded_at is not None:
                return
            self._sounded_at = time.monotonic()
        self._write("song")

    def wait_until_heard(self, seconds: float) -> None:
        """Returns once a sound of now is heard, and with it all that there was to hear before; or after so many seconds.

        Raises OSError.
        """
        name = f"call-{next(self._numbers)}"
        heard = self._awaited[name.encode()] = threading.Event()
        try:
            self._write(name)
            heard.wait(seconds)
        finally:
            del self._awaited[name.encode()]
            with suppress(OSError):
                os.unlink(os.path.join(self.folder, name))

    def _write(self, name: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        os.close(os.open(os.path.join(self.folder, name), flags, 0o600))

    def silent_for(self) -> float:
        """Returns for how many seconds a sound has not been heard."""
        sounded_at = self._sounded_at
        return 0.0 if sounded_at is None else time.monotonic() - sounded_at

    def reset(self) -> None:
        """Forgets the sound on its way: another will listen."""
        self._sounded_at = None

    def on_event(self, event: Any) -> None:
        self._sounded_at = None
        if heard := self._awaited.get(event.name):
            heard.set()

    def on_watch_deleted(self, _wd: int) -> None:
        """Somebody removed the folder; the next sound fails to be written, or is not heard."""

    def on_queue_overflow(self) -> None:
        """The watcher is told too."""
