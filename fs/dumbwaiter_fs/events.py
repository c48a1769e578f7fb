"""What the main thread of a mount waits for: signals, and what other threads tell."""

import select
import signal
import socket
import time
from collections.abc import Collection
from contextlib import suppress
from queue import Empty, SimpleQueue


class Events:
    """The events of one process, by their names. Made, and waited for, in its main thread.

    That thread must sleep in `poll`. Asleep in a lock (as `SimpleQueue.get` is), it would not hear of a signal that came right
    before, or that the kernel gave to another thread: Python's handlers run in the main thread alone. What the
    interpreter writes to the bell at once wakes it.
    """

    def __init__(self, signals: Collection[signal.Signals]) -> None:
        # Put from signal handlers and other threads alike, which no lock but this queue's allows.
        self._names: SimpleQueue[str] = SimpleQueue()
        self._heard, self._bell = socket.socketpair()
        for end in (self._heard, self._bell):
            end.setblocking(False)
        signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, lambda number, _frame: self.put(signal.Signals(number).name))

    def put(self, name: str) -> None:
        """Tells of an event, from any thread."""
        self._names.put(name)
        with suppress(BlockingIOError):  # it rings already
            self._bell.send(b"!")

    def next(self, timeout: float | None) -> str | None:
        """Returns the name of the next event, of a signal for one; None after so many seconds without any."""
        end = None if timeout is None else time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._heard, select.POLLIN)
        while True:
            with suppress(Empty):
                return self._names.get_nowait()
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return None
            poll.poll(None if left is None else left * 1000)
            with suppress(BlockingIOError):
                self._heard.recv(4096)
