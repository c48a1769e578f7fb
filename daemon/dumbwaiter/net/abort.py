"""Ending, from anywhere, what threads are doing on the network."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import httpx

from dumbwaiter.errors import Stopped

T = TypeVar("T")


class Abort:
    """Ends what threads are doing: their sockets are shut down, their waits are over, and what they begin fails."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._children: list[Abort] = []
        self._called: Future[None] = Future()

    @property
    def called(self) -> bool:
        return self._called.done()

    def child(self) -> "Abort":
        """Returns one that ends with this one, and may end before."""
        child = Abort()
        with self._lock:
            self._children.append(child)
        if self.called:
            child()
        return child

    @contextmanager
    def over(self, sock: socket.socket) -> Iterator[None]:
        """While inside `with`, calling the abort shuts this socket down. Raises httpx.WriteError when it was called before."""
        with self._lock:
            self._sockets.add(sock)
        try:
            if self.called:
                raise httpx.WriteError("the transfer was ended")
            yield
        finally:
            with self._lock:
                self._sockets.discard(sock)

    def wait(self, seconds: float, until: "Future[None] | None" = None) -> None:
        """Sleeps, or until a future is done. Raises `Stopped` when it is ended meanwhile."""
        wait((self._called,) if until is None else (self._called, until), seconds, FIRST_COMPLETED)
        if self.called:
            raise Stopped

    def result(self, future: "Future[T]") -> T:
        """Waits for a future of another thread and returns its result. Raises `Stopped` when it is ended meanwhile."""
        either: tuple[Future[Any], ...] = (future, self._called)
        wait(either, return_when=FIRST_COMPLETED)
        if not future.done():
            raise Stopped
        return future.result()

    def __call__(self) -> None:
        with self._lock:
            if self.called:
                return
            self._called.set_result(None)
            for sock in self._sockets:
                with suppress(OSError):  # it is closed already
                    # Below TLS: the thread may be inside the TLS layer's own call.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
            children = list(self._children)
        for child in children:
            child()
