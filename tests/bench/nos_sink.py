"""A raw sink: an upload node of NetEase NOS that drops what it is sent, so that only the sender is measured.

The kernel drops a body (MSG_TRUNC, Linux): one call a chunk, and no byte gets to this process. Tokens are not looked at,
limits not kept, objects not stored; the offset in an answer is the request's own offset and the length of its body, whatever
came before. The chunk protocol is in NetEase's VOD manual, 'upload by chunks' and 'query the breakpoint'.

`python -m tests.bench.nos_sink` says "ready URL", and then tells of each object in one line of JSON (`Arrival`).
"""

import json
import mmap
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from urllib.parse import parse_qs

from dumbwaiter_sandbox.serving import HOST

CONTEXT = "sink"
HEAD_PIECE = 4096  # a body's beginning is read along with its head; little enough not to count
DROP_PIECE = 4 * 1024 * 1024
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
EXPECTS = re.compile(rb"\r\nexpect:[ \t]*100-continue", re.IGNORECASE)


@dataclass
class Arrival:
    """What came of one object. The times are seconds of CLOCK_MONOTONIC, which all processes share."""

    path: str
    first: float  # its first byte was here
    last: float = 0.0  # the chunk that completes it was here, and its answer not yet sent
    bytes: int = 0
    requests: int = 0
    connections: set[int] = field(default_factory=set)

    def as_json(self) -> str:
        return json.dumps({**asdict(self), "connections": len(self.connections)})


class Sink:
    """Serves on a port of its own until `close`; each connection has its thread. `tell` hears of every complete object."""

    def __init__(self, tell: Callable[[Arrival], None]) -> None:
        self._tell = tell
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self._lock = threading.Lock()
        self._arrivals: dict[str, Arrival] = {}
        self._connections = 0
        self.url = f"http://{HOST}:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        """Accept connections; returns after `close`."""
        with suppress(OSError):  # how accept ends when the listener is shut
            while True:
                sock, _ = self._listener.accept()
                self._connections += 1
                threading.Thread(target=self._converse, args=(sock, self._connections), daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _converse(self, sock: socket.socket, number: int) -> None:
        # Gives a drop its length and is never written, so that it takes no memory.
        scrap = memoryview(mmap.mmap(-1, DROP_PIECE))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A sender that dies is the sender's affair.
        with sock, suppress(OSError):
            held = b""
            while taken := _head(sock, held):
                head, held, came = taken
                match = LENGTH.search(head)
                length = int(match[1]) if match else 0
                if EXPECTS.search(head):
                    sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                left = length - len(held)
                held = held[length:]
                if left > 0:
                    _drop(sock, scrap, left)
                sock.sendall(self._answer(head, length, came, number))

    def _answer(self, head: bytes, length: int, came: float, number: int) -> bytes:
        method, target = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")[:2]
        path, _, search = target.partition("?")
        query = parse_qs(search, keep_blank_values=True)
        if method == "GET" and "uploadContext" in query:
            with self._lock:
                known = self._arrivals.get(path)
            return _reply(known.bytes) if known else _reply(None)
        arrival = self._note(path, length, came, number)
        if query.get("complete") == ["true"]:
            with self._lock:
                del self._arrivals[path]
            arrival.last = time.monotonic()
            self._tell(arrival)
        return _reply(int(query.get("offset", ["0"])[0]) + length)

    def _note(self, path: str, length: int, came: float, number: int) -> Arrival:
        with self._lock:
            arrival = self._arrivals.setdefault(path, Arrival(path, came))
            arrival.bytes += length
            arrival.requests += 1
            arrival.connections.add(number)
            return arrival


def _head(sock: socket.socket, held: bytes) -> tuple[bytes, bytes, float] | None:
    """Read one request's head: it, what came behind it, and when its beginning was there. None at the end."""
    came = time.monotonic()
    while b"\r\n\r\n" not in held:
        data = sock.recv(HEAD_PIECE)
        if not data:
            return None
        if not held:
            came = time.monotonic()
        held += data
    head, _, rest = held.partition(b"\r\n\r\n")
    return head, rest, came


def _drop(sock: socket.socket, scrap: memoryview, left: int) -> None:
    while left > 0:
        count = sock.recv_into(scrap, min(left, len(scrap)), socket.MSG_TRUNC | socket.MSG_WAITALL)
        if count == 0:
            raise ConnectionError("the body broke off")
        left -= count


def _reply(offset: int | None) -> bytes:
    """The answer to a chunk or a breakpoint query; None: the context is unknown."""
    status = "200 OK" if offset is not None else "404 Not Found"
    members = (
        {"requestId": "sink", "offset": offset, "context": CONTEXT}
        if offset is not None
        else {"requestId": "sink", "errCode": "NoSuchUpload", "errMsg": "the context is unknown"}
    )
    body = json.dumps(members).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def main() -> None:
    """Serve until the process is ended."""
    sink = Sink(lambda arrival: print(arrival.as_json(), flush=True))
    print(f"ready {sink.url}", flush=True)
    with suppress(KeyboardInterrupt):
        sink.serve()


if __name__ == "__main__":
    main()
