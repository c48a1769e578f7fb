"""HTTP on a socket that listens, in the daemon's own loop: how many callers there may be, and who goes for whom."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from dumbwaiter import log
from dumbwaiter.errors import LACKING

WAITING = 512  # connections not taken yet
CROWD = 256  # connections at once, whatever they wait for; no further one is let in
CALLERS = 64  # connections at once; a further one takes the place of one that owes a request, or takes no answer


class _Listener(socket.socket):
    """Says once that the system has nothing left for a further caller; asyncio tries again a second later.

    Else it would go on asking in the same turn of the loop, log each time, and try again later as often, which multiplies.
    """

    _lacks = _rests = False

    def accept(self) -> tuple[socket.socket, Any]:
        if self._rests:
            raise BlockingIOError
        try:
            accepted = super().accept()
        except OSError as error:
            if error.errno in LACKING:
                if not self._lacks:
                    log.get("control").error("nobody can be let in", error=error.strerror)
                self._lacks = self._rests = True
                asyncio.get_running_loop().call_soon(self._go_on)
            raise
        self._lacks = False
        return accepted

    def _go_on(self) -> None:
        self._rests = False


class Server(uvicorn.Server):
    """Leaves the signals to the daemon, lets many callers wait at the door, and sleeps until `end` is called."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ended = asyncio.Event()

    def end(self) -> None:
        self.should_exit = True
        self._ended.set()

    async def main_loop(self) -> None:
        await self._ended.wait()  # uvicorn's own looks ten times a second, for ever

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for one in sockets or ():
            one.listen(WAITING)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Caller(H11Protocol):
    """One connection among others: when there are too many, one goes that owes a request or takes no answer.

    Of these, the one that said nothing for longest.
    """

    heard = 0.0  # when something last came

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.heard = time.monotonic()
        super().connection_made(transport)
        others: list[Any] = [one for one in self.connections if one is not self and not one.transport.is_closing()]
        if len(others) >= CROWD:
            transport.abort()
        elif len(others) >= CALLERS and (owing := [one for one in others if one.silent or one.unfinished or one.deaf]):
            min(owing, key=lambda one: one.heard).transport.abort()

    def data_received(self, data: bytes) -> None:
        self.heard = time.monotonic()
        super().data_received(data)

    @property
    def silent(self) -> bool:
        """Whether it waits for nothing: no request came, or its last one is answered."""
        cycle: Any = self.cycle
        return cycle is None or bool(cycle.response_complete)

    @property
    def unfinished(self) -> bool:
        """Whether a request has begun to come and its body did not end."""
        cycle: Any = self.cycle
        return cycle is not None and bool(cycle.more_body)

    @property
    def deaf(self) -> bool:
        """Whether what it was told waits for it to read."""
        return self.flow.write_paused


@asynccontextmanager
async def answering(
    application: Starlette, listener: socket.socket, caller: type[Caller] = Caller
) -> AsyncIterator[None]:
    """Answers at a socket that listens, while the context lasts; it is closed afterwards."""
    door = _Listener(fileno=listener.detach())
    server = Server(
        uvicorn.Config(
            application,
            http=caller,
            ws="none",  # whatever is installed beside us
            backlog=CALLERS // 2,  # taken in one turn of the loop, before the first of them can be sent away
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=1,
        )
    )
    task = asyncio.create_task(server.serve([door]), name="server")
    try:
        yield
    finally:
        server.end()
        await asyncio.gather(task, return_exceptions=True)
        door.close()
