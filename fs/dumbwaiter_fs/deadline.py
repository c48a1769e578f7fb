"""An httpx transport with one deadline for a whole request; httpx itself has a limit for each read only.

With that, a server that drips bytes, header lines or interim replies could hold a reader for ever. Here the stream
under the HTTP parser looks at the deadline before each read. Connecting keeps to it too: the C library looks up a name
without a limit, and each address of a name could take a whole timeout.
"""

import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from math import inf
from typing import Any

import httpcore
import httpx

_limit = threading.local()


@contextmanager
def until(moment: float) -> Iterator[None]:
    """A deadline, by `time.monotonic`, for all network calls of this thread inside the `with`."""
    _limit.moment = moment
    try:
        yield
    finally:
        del _limit.moment


def left(timeout: float) -> float:
    """Returns `timeout`, or the time left until the deadline of `until` where that is less."""
    moment = getattr(_limit, "moment", None)
    return timeout if moment is None else max(0.0, min(timeout, moment - time.monotonic()))


def _left(timeout: float | None, late: type[Exception]) -> float | None:
    rest = left(inf if timeout is None else timeout)
    if rest <= 0:
        raise late("the deadline is over")
    return None if rest == inf else rest


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _left(timeout, httpcore.ConnectTimeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Names:
    """Looks up what names stand for, each in a thread of its own that ends when the C library does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: dict[tuple[str, int], Future[list[str]]] = {}

    def addresses(self, host: str, port: int) -> list[str]:
        """Returns the addresses of a name; whoever asks meanwhile shares the answer."""
        with self._lock:
            answer = self._asked.get((host, port))
            if answer is None:
                answer = Future()
                threading.Thread(target=self._ask, args=(host, port, answer), name="names", daemon=True).start()
                self._asked[host, port] = answer
        try:
            return answer.result(_left(None, httpcore.ConnectTimeout))
        except TimeoutError:
            raise httpcore.ConnectTimeout("the name is not found in time") from None
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from None

    def _ask(self, host: str, port: int, answer: "Future[list[str]]") -> None:
        try:
            found = [str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            answer.set_exception(error)
        else:
            answer.set_result(found)
        with self._lock:
            del self._asked[host, port]


class _Backend(httpcore.NetworkBackend):
    def __init__(self) -> None:
        self._backend = httpcore.SyncBackend()
        self._names = _Names()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connects to the first address that answers, each within `timeout` and all by the deadline."""
        failure: Exception = httpcore.ConnectError("the name has no address")
        for address in self._names.addresses(host, port):
            try:
                left = _left(timeout, httpcore.ConnectTimeout)
                return _Stream(self._backend.connect_tcp(address, port, left, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _Body(httpx.SyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        self._stream.close()


class Transport(httpx.BaseTransport):
    """Plain HTTP/1.1 over a pool. Errors are httpcore's."""

    def __init__(self) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=None,  # the number of open streams is limited above, where it is known which is idle
            max_keepalive_connections=16,
            keepalive_expiry=30,
            network_backend=_Backend(),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        reply = self._pool.handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            reply.status, headers=reply.headers, stream=_Body(reply.stream), extensions=reply.extensions
        )

    def close(self) -> None:
        self._pool.close()
