"""An httpx transport for bulk bytes: blocking sockets for worker threads, and file slices that Python never copies.

A slice goes through one reused buffer per thread, and is digested there: what was digested is what was sent.
(`sendfile` saves a copy, and costs it again for the digest.) Connections are kept in a stack per origin: the last used
is the first taken, in one step. Sending has a limit on silence, none on the whole: a slow peer that moves is not broken,
and what it acknowledges is what moves, for the kernel holds more than a slow line takes in a minute. The answer, which is
small, has a limit on the whole, from the last byte that was acknowledged.
"""

import errno
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import h11
import httpx

from dumbwaiter.model import KIB, MIB
from dumbwaiter.net.abort import Abort
from dumbwaiter.net.reach import Reach
from dumbwaiter.net.slices import GATHER, Pace, SliceStream, paced
from dumbwaiter.wire.message import FileSlice

BUFFER = MIB  # what one thread reads at a time: smaller, the threads take turns too often; larger, it leaves the cache
REPLY_MAX = MIB  # an answer larger than this is none of a vendor's
ANSWER = 180.0  # seconds from the last byte acknowledged to a complete answer
LOOKS = 6  # times in the limit of silence that a call which gets nowhere returns, to see what was acknowledged
LONG = 3600.0  # seconds, for a limit where there is none
INTERIM_MAX = 16  # "100 Continue" and the like before an answer

# A connection at rest is asked for a sign of life: routers forget one that is silent, and nobody is told. It is over after 50 seconds.
KEEP = ((socket.TCP_KEEPIDLE, 20), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))

RESTED = 60.0  # seconds that a connection is kept for the next file

_Origin = tuple[str, str, int]
_LONG_TIMES = {66, 67}  # SO_RCVTIMEO_NEW, SO_SNDTIMEO_NEW
_ACKNOWLEDGED = struct.Struct("@120xQ")  # tcpi_bytes_acked of the kernel's struct tcp_info


class _Connection(NamedTuple):
    """One connection."""

    sock: socket.socket
    protocol: h11.Connection
    generation: int  # how often the transport had been renewed when it was made


class _Idle(NamedTuple):
    """A connection at rest."""

    connection: _Connection
    since: float  # by the monotonic clock


class _Silence:
    """Since when the other side has taken nothing and said nothing, in one exchange."""

    def __init__(self, sock: socket.socket, limits: dict[str, float | None]) -> None:
        self._sock = sock
        self._limits = limits
        self._taken = _acknowledged(sock)
        self.broken()

    def broken(self) -> None:
        """Begins anew: bytes left."""
        self.since = self.taken_at = time.monotonic()

    def lasts(self, what: str) -> bool:
        """Returns whether it lasts too long to write, or to read; what was acknowledged meanwhile broke it."""
        taken = _acknowledged(self._sock)
        if taken != self._taken:
            self._taken = taken
            self.broken()
        limit = self._limits.get(what)
        return limit is not None and time.monotonic() - self.since >= limit


class BulkTransport(httpx.BaseTransport):
    """Sends requests whose body may be a `SliceStream`; any thread may call, one connection an exchange.

    The request's extension "abort" may hold an `Abort`. Raises httpx's own exceptions,
    `Inside`, `Unreadable` and `Stopped`.
    """

    def __init__(self, context: ssl.SSLContext | None = None, reach: Reach | None = None) -> None:
        self._context = context
        self._reach = reach or Reach()
        self._idle: dict[_Origin, list[_Idle]] = {}
        self._generation = 0
        self._closed = False
        self._lock = threading.Lock()
        self._local = threading.local()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        origin = (url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80))
        limits = request.extensions.get("timeout", {})
        abort = request.extensions.get("abort") or Abort()
        connection = self._take(origin) or self._connect(origin, limits)
        try:
            with abort.over(connection.sock):
                response, whole = self._exchange(connection, request)
        except BaseException:
            connection.sock.close()
            raise
        if whole:
            self._give(origin, connection)
        else:
            connection.sock.close()
        return response

    def close(self) -> None:
        """Closes the connections: those at rest now, those in use after their exchange."""
        self._closed = True
        self.renew()

    def renew(self) -> None:
        """Does the same, and goes on with new ones."""
        with self._lock:
            self._generation += 1
        self.tidy(0.0)

    def tidy(self, seconds: float = RESTED) -> None:
        """Closes the connections that nobody used for so long: many files at once left them, and servers may keep them for ever."""
        until = time.monotonic() - seconds
        with self._lock:
            idle, self._idle = self._idle, {}
            for origin, stack in idle.items():
                if kept := [one for one in stack if one.since > until]:
                    self._idle[origin] = kept
        for one in (one for stack in idle.values() for one in stack if one.since <= until):
            one.connection.sock.close()

    def _take(self, origin: _Origin) -> _Connection | None:
        while True:
            with self._lock:
                stack = self._idle.get(origin)
                if not stack:
                    return None
                connection = stack.pop().connection
            # Anything readable on an idle connection is its end. (`select` takes no descriptor above 1023.)
            poll = select.poll()
            poll.register(connection.sock, select.POLLIN)
            if not poll.poll(0):
                return connection
            connection.sock.close()

    def _give(self, origin: _Origin, connection: _Connection) -> None:
        with self._lock:
            if connection.generation == self._generation and not self._closed:
                self._idle.setdefault(origin, []).append(_Idle(connection, time.monotonic()))
                return
        connection.sock.close()

    def _connect(self, origin: _Origin, limits: dict[str, float | None]) -> _Connection:
        scheme, host, port = origin
        generation = self._generation
        try:
            timeout = limits.get("connect")
            sock = self._reach.connect(
                host, port, lambda address: socket.create_connection((address, port), timeout=timeout), OSError
            )
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in ((socket.TCP_NODELAY, 1), *KEEP):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
            if scheme == "https":
                if self._context is None:
                    self._context = httpx.create_ssl_context()
                sock = self._context.wrap_socket(sock, server_hostname=host)
        except TimeoutError as error:
            raise httpx.ConnectTimeout("no answer to the connection") from error
        except OSError as error:
            raise httpx.ConnectError(error.strerror or str(error)) from error
        step = min(limits.get("write") or LONG, limits.get("read") or LONG) / LOOKS
        if scheme == "https":  # the TLS layer waits for ever on a socket that has no limit of its own
            sock.settimeout(step)
        else:  # the kernel keeps the time: a blocking call is one call, however much it moves
            sock.settimeout(None)
            _limit(sock, socket.SO_SNDTIMEO, step)
            _limit(sock, socket.SO_RCVTIMEO, step)
        return _Connection(sock, h11.Connection(h11.CLIENT, max_incomplete_event_size=64 * KIB), generation)

    def _exchange(self, connection: _Connection, request: httpx.Request) -> tuple[httpx.Response, bool]:
        sent = True
        silence = _Silence(connection.sock, request.extensions.get("timeout", {}))
        try:
            self._send(connection, request, silence)
        except (BlockingIOError, TimeoutError) as error:
            raise httpx.WriteTimeout("the server takes no more bytes") from error
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from error
        except OSError as error:
            failure = httpx.WriteError(error.strerror or str(error))
            # Of this machine's own trouble the server knows nothing: it waits for the rest.
            if not isinstance(error, ConnectionError | ssl.SSLError):
                raise failure from error
            # A server that refuses early answers and hangs up; the answer says more than the broken pipe.
            sent = False
        try:
            return self._receive(connection, silence, reusable=sent)
        except httpx.TransportError:
            if not sent:
                raise failure from None
            raise

    def _send(self, connection: _Connection, request: httpx.Request, silence: _Silence) -> None:
        def push(data: bytes | memoryview, flags: int = 0) -> None:
            """Sends all of it, however long that takes while some is acknowledged."""
            left = memoryview(data)
            silence.broken()  # for a limit of the bandwidth the other side cannot help
            while left:
                try:
                    left = left[connection.sock.send(left, flags) :]
                except (BlockingIOError, TimeoutError) as error:  # TLS has begun with the piece, and goes on inside it
                    if error.errno == errno.ETIMEDOUT or silence.lasts("write"):
                        raise
                else:
                    silence.broken()

        head = connection.protocol.send(
            h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
        )
        assert head is not None
        if isinstance(request.stream, SliceStream):
            piece = request.stream.piece
            if len(request.stream):
                # h11 counts the bytes; they do not pass through it.
                connection.protocol.send_with_data_passthrough(h11.Data(data=request.stream))  # type: ignore[arg-type]
            plain = not isinstance(connection.sock, ssl.SSLSocket)
            self._send_slice(push, head, piece, request.stream.pace, socket.MSG_MORE if plain else 0)
        else:
            assert isinstance(request.stream, httpx.SyncByteStream)
            body = b"".join(request.stream)
            data = connection.protocol.send(h11.Data(data=body)) if body else b""
            push(head + (data or b""))
        tail = connection.protocol.send(h11.EndOfMessage())
        if tail:
            push(tail)

    def _send_slice(self, push: Callable[..., None], head: bytes, piece: FileSlice, pace: Pace, more: int) -> None:
        if piece.data is not None and len(piece.data) <= GATHER:
            push(b"".join((head, piece.before, *paced(piece, self._buffer(), pace), piece.after)))
            return
        # The head waits for the body's first segment, so that they leave as one.
        push(head + piece.before, more if piece.length else 0)
        for view in paced(piece, self._buffer(), pace):
            push(view)
        if piece.after:
            push(piece.after)

    def _buffer(self) -> memoryview:
        """One buffer a thread: large blocks from malloc cost a page fault every 4 KiB, each time."""
        buffer: memoryview | None = getattr(self._local, "buffer", None)
        if buffer is None:
            buffer = self._local.buffer = memoryview(bytearray(BUFFER))
        return buffer

    def _receive(self, connection: _Connection, silence: _Silence, *, reusable: bool) -> tuple[httpx.Response, bool]:
        response: h11.Response | None = None
        body = bytearray()
        interim = 0
        while True:
            event = self._event(connection, silence)
            if isinstance(event, h11.InformationalResponse):
                interim += 1
                if interim > INTERIM_MAX:
                    raise httpx.RemoteProtocolError("endless interim answers")
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > REPLY_MAX:
                    raise httpx.RemoteProtocolError("the answer is too large")
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                raise httpx.RemoteProtocolError("the server hung up before its answer")
        assert response is not None
        if reusable and connection.protocol.our_state is h11.DONE and connection.protocol.their_state is h11.DONE:
            connection.protocol.start_next_cycle()
        else:
            reusable = False
        # A stream and no content: httpx would unpack that, however large it becomes.
        answer = httpx.Response(
            response.status_code, headers=response.headers.raw_items(), stream=httpx.ByteStream(bytes(body))
        )
        return answer, reusable

    def _event(self, connection: _Connection, silence: _Silence) -> object:
        try:
            while (event := connection.protocol.next_event()) is h11.NEED_DATA:
                if time.monotonic() > silence.taken_at + ANSWER:
                    raise httpx.ReadTimeout("the answer takes too long")
                try:
                    connection.protocol.receive_data(connection.sock.recv(64 * KIB))
                except (BlockingIOError, TimeoutError) as error:
                    if error.errno == errno.ETIMEDOUT or silence.lasts("read"):  # the first: the kernel gave it up
                        raise httpx.ReadTimeout("the server does not answer") from error
                else:
                    silence.since = time.monotonic()
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(str(error)) from error
        except OSError as error:
            raise httpx.ReadError(error.strerror or str(error)) from error
        return event


def _acknowledged(sock: socket.socket) -> int:
    """Returns how many bytes of ours the other side has confirmed."""
    told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKNOWLEDGED.size)
    return int(_ACKNOWLEDGED.unpack(told.ljust(_ACKNOWLEDGED.size, b"\0"))[0])


def _limit(sock: socket.socket, option: int, seconds: float) -> None:
    # On 32-bit machines whose time has 64 bits, an option of its own takes it (the kernel's asm-generic/socket.h).
    layout = "=qq" if option in _LONG_TIMES else "@ll"
    sock.setsockopt(socket.SOL_SOCKET, option, struct.pack(layout, int(seconds), int(seconds % 1 * 1_000_000)))
