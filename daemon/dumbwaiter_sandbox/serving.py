"""Ports: a consecutive block on loopback, one uvicorn server each, all in one event loop.

A connection can be cut for real: the application finds it in its scope's state and resets it, and no byte of a reply follows.
A port can be closed and opened again while the others serve. Nothing is logged and no signal is touched here.
"""

import asyncio
import contextlib
import importlib
import random
import socket
import struct
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

HOST = "127.0.0.1"
KEEP_ALIVE = 75  # seconds; a pooled connection must not close just as its next request leaves
SEARCH = (15_000, 30_000)  # below the ports that the system hands to outgoing connections
TRIES = 200
GATHERED = 4 * 1024 * 1024  # bytes of a body that may wait in memory


class Connection:
    """The TCP connection of one request."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def reset(self) -> None:
        """Cut it: the other side sees a reset, unsent bytes are lost."""
        sock = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def close(self) -> None:
        """Send what is written, then close."""
        self._transport.close()


class _Reachable(asyncio.Protocol):
    """Mixed into uvicorn's protocol: puts the connection into the state that each scope copies."""

    app_state: dict[str, Any]
    flow: FlowControl
    cycle: Any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        made = cast("asyncio.Transport", transport)
        self.app_state = {**self.app_state, "connection": Connection(made)}
        super().connection_made(transport)
        self.flow = _Flow(made, self)


class _Flow(FlowControl):
    """Lets one chunk of a body gather before it stops reading.

    uvicorn stops at 64 KiB, thus after every read, and each stop costs two system calls that are slower than the read.
    """

    def __init__(self, transport: asyncio.Transport, protocol: _Reachable) -> None:
        super().__init__(transport)
        self._protocol = protocol

    def pause_reading(self) -> None:
        cycle = self._protocol.cycle
        if cycle is None or cycle.response_complete or len(cycle.body) > GATHERED:
            super().pause_reading()


def _protocol() -> type[asyncio.Protocol]:
    base: type[asyncio.Protocol] = H11Protocol
    # Qiniu answers with statuses that HTTP does not know, and uvicorn looks each one up.
    STATUS_PHRASES.update(dict.fromkeys(range(600, 1000), b""))
    with contextlib.suppress(ImportError):
        tools = importlib.import_module("uvicorn.protocols.http.httptools_impl")
        tools.STATUS_LINE.update({status: b"HTTP/1.1 %d \r\n" % status for status in range(600, 1000)})
        base = tools.HttpToolsProtocol
    return type("ReachableProtocol", (_Reachable, base), {})


PROTOCOL = _protocol()


def connection_of(scope: Scope) -> Connection:
    """The connection that a request came by."""
    connection: Connection = scope["state"]["connection"]
    return connection


def reserve(port: int, count: int) -> list[socket.socket]:
    """Bind `count` ports from `port` on, or a free block when it is 0. Raises OSError when they are taken."""
    if port:
        return _block(port, count, again=True)
    for _ in range(TRIES):
        with contextlib.suppress(OSError):
            return _block(random.randrange(*SEARCH), count, again=False)
    raise OSError(f"no block of {count} free ports was found on {HOST}")


def _block(port: int, count: int, *, again: bool) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for number in range(port, port + count):
            sockets.append(_bind(number, again=again))  # noqa: PERF401 - those bound so far must be closed on failure
    except (OSError, OverflowError) as error:
        for sock in sockets:
            sock.close()
        raise OSError(f"port {port + len(sockets)} on {HOST} cannot be had: {error}") from error
    return sockets


def _bind(port: int, *, again: bool) -> socket.socket:
    """Bind a port; `again` also when connections of an earlier server linger on it.

    Two who bind "again" may both get a port and the second learns it only when it listens: no way to search for a free one.
    """
    # asyncio switches off Nagle's delay only on a socket that names its protocol.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, again)
        sock.bind((HOST, port))
        # Its connections inherit this: one that lingers does not keep a closed port from being bound again.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
    except BaseException:
        sock.close()
        raise
    return sock


class Port:
    """One port and the server behind it. A closed port stays bound, so that nobody else takes it."""

    def __init__(self, sock: socket.socket, app: ASGIApp) -> None:
        self.number: int = sock.getsockname()[1]
        self._sock = sock
        self._config = uvicorn.Config(
            app,
            http=PROTOCOL,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE,
        )
        self._server: uvicorn.Server | None = None

    @property
    def accepts(self) -> bool:
        """Whether it takes connections."""
        return self._server is not None

    async def open(self) -> None:
        """Take connections; nothing happens when it does already."""
        if self._server is not None:
            return
        if not self._config.loaded:
            self._config.load()
        server = uvicorn.Server(self._config)
        server.lifespan = self._config.lifespan_class(self._config)
        await server.startup(sockets=[self._sock])
        self._server = server

    async def close(self, *, keep: bool = False) -> None:
        """Refuse connections and cut those there are; `keep` holds the port for another `open`."""
        server, self._server = self._server, None
        if server is None:
            if not keep:
                self._sock.close()
            return
        for listener in server.servers:
            for sock in listener.sockets:
                asyncio.get_running_loop().remove_reader(sock)
        for _ in range(2):  # turns of the loop; asyncio forgets one that it accepted and whose listener closes before
            await asyncio.sleep(0)
        for listener in server.servers:
            listener.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # one turn of the loop closes the aborted sockets
        await _finish(server.server_state.tasks)
        if keep:
            self._sock = _bind(self.number, again=True)


async def _finish(tasks: set[asyncio.Task[None]]) -> None:
    """Let the requests notice that their connections are gone; what still runs after that is cancelled."""
    if not tasks:
        return
    _, running = await asyncio.wait(set(tasks), timeout=1)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
