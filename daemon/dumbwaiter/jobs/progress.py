"""What a server acknowledged of one file, on its way to the journal: each commit takes all that is known by then."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import msgspec

from dumbwaiter.jobs.sent_bytes import SentBytes

LAG = 0.1  # seconds of sending that a crash may cost, at most, while the journal is slow
Save = Callable[[str, int, int, int], "Future[None]"]


class Progress:
    """The newest checkpoint of an upload, given to `save` with its bytes. Any thread may call."""

    def __init__(self, sent: SentBytes, save: Save) -> None:
        self.sent = sent
        self._save = save
        self._lock = threading.RLock()  # of the fields below
        self._point: tuple[Any, int] | None = None  # acknowledged, and not on its way to the journal yet
        self._commit: Future[None] | None = None
        self._committed_at = 0.0

    def note(self, point: Any, sent: int) -> "Future[None] | None":
        """Takes a checkpoint and how much is there in all; returns the commit to wait for, where the journal is slow.

        Raises what the last commit met.
        """
        with self._lock:
            self._point = (point, sent)
            self._push()
            return self._commit if time.monotonic() - self._committed_at > LAG else None

    def drop(self) -> None:
        """Forgets what is not on its way yet."""
        with self._lock:
            self._point = None

    def flush(self, wait: "Callable[[Future[None]], None]") -> None:
        """Has each commit waited for until all that is known is in the journal. Raises what one met."""
        while True:
            with self._lock:
                self._push()
                commit, more = self._commit, self._point is not None
            if commit is None:
                return
            wait(commit)
            if not more:
                return

    def _push(self) -> None:
        """Sends on what is known, unless an earlier commit is under way: no part has to wait for a disk."""
        if self._point is None or (self._commit is not None and not self._commit.done()):
            return
        if self._commit is not None:
            self._commit.result()
        (point, sent), self._point = self._point, None
        more, resent = self.sent.acknowledge(sent)
        self._committed_at = time.monotonic()
        self._commit = self._save(msgspec.json.encode(point).decode(), sent, more, resent)
        self._commit.add_done_callback(self._pushed)

    def _pushed(self, commit: "Future[None]") -> None:
        """Sends on what came while a commit was under way; in the journal's thread."""
        if not commit.cancelled() and commit.exception() is None:
            with self._lock:
                self._push()
