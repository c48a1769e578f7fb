"""A server made of a script: plain sockets, one function a connection."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

PATIENCE = 20.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Connection:
    """One accepted connection."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number  # from 1
        self._rest = b""

    def head(self) -> bytes:
        """Reads up to the end of a request's head. Raises EOFError when the client is gone."""
        while b"\r\n\r\n" not in self._rest:
            self._more()
        head, self._rest = self._rest.split(b"\r\n\r\n", 1)
        return head

    def body(self, length: int) -> bytes:
        while len(self._rest) < length:
            self._more()
        body, self._rest = self._rest[:length], self._rest[length:]
        return body

    def request(self) -> tuple[bytes, bytes]:
        """Reads a whole request."""
        head = self.head()
        return head, self.body(length_of(head))

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def wait_for_the_end(self) -> None:
        """Returns when the client has hung up."""
        with suppress(OSError):
            while self.sock.recv(65536):
                pass

    def _more(self) -> None:
        data = self.sock.recv(1 << 20)
        if not data:
            raise EOFError
        self._rest += data


def length_of(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


class Peer:
    """Listens on loopback and runs the script for each connection, on a thread of its own."""

    def __init__(self, script: Callable[[Connection], Any]) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.connections: list[Connection] = []
        self.requests: list[tuple[bytes, bytes]] = []
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE)
            connection = Connection(sock, len(self.connections) + 1)
            self.connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: Connection) -> None:
        with connection.sock, suppress(OSError, EOFError):
            self._script(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(PATIENCE)
        for connection in self.connections:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def answer(body: bytes, status: int = 200) -> bytes:
    """Returns an answer in JSON."""
    head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(body)) + body


def echo(peer_requests: list[tuple[bytes, bytes]], answer: bytes = OK) -> Callable[[Connection], None]:
    """A script that notes every request and gives each the same answer."""

    def script(connection: Connection) -> None:
        while True:
            peer_requests.append(connection.request())
            connection.send(answer)

    return script
