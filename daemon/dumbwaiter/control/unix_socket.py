"""The daemon's control socket: HTTP on a Unix socket, for the owner and root.

Folder and socket keep others out, and the kernel's word on who calls is asked besides. Callers that say nothing make
room for those that do.
"""

import asyncio
import os
import select
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from starlette.applications import Starlette

from dumbwaiter import log
from dumbwaiter.app import App
from dumbwaiter.control.events import Feed
from dumbwaiter.control.routes import EXCEPTION_HANDLERS, Control
from dumbwaiter.control.serving import Caller, answering
from dumbwaiter.errors import Exit, Failure, exit_at
from dumbwaiter.peers import user
from dumbwaiter.places import Places, private_folder, short

LOOK = 10.0  # seconds between looks whether the socket is there


@asynccontextmanager
async def serve(app: App, feed: Feed, places: Places) -> AsyncIterator[None]:
    """Listens on the control socket while the context lasts. The caller holds the lock, so an old socket is dead.

    A socket that is removed meanwhile (with the folder of a session, say) is made anew.
    """
    application = Starlette(routes=Control(app, feed).routes(), exception_handlers=EXCEPTION_HANDLERS)
    async with AsyncExitStack() as door:
        await door.enter_async_context(_door(application, places))
        keeper = asyncio.create_task(_keep(door, application, places), name="control socket")
        try:
            yield
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)


async def _keep(door: AsyncExitStack, application: Starlette, places: Places) -> None:
    missed = False
    while True:
        await asyncio.sleep(LOOK)
        if await asyncio.to_thread(os.path.lexists, places.socket):
            missed = False
            continue
        if not await asyncio.to_thread(os.path.isdir, places.state):
            continue  # the daemon is about to end, and a new folder in its place would be in the way of the one that is put back
        await door.aclose()
        try:
            await door.enter_async_context(_door(application, places))
        except (OSError, Failure) as error:
            if not missed:
                log.get("control").error("no control socket", path=places.socket, error=str(error))
            missed = True
        else:
            log.get("control").warning("control socket made anew", path=places.socket)


@asynccontextmanager
async def _door(application: Starlette, places: Places) -> AsyncIterator[None]:
    _own(places.runtime)
    with suppress(FileNotFoundError):
        os.unlink(places.socket)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), 0o600)  # it is born with that
        with short(places.socket) as path:
            _bind(listener, path, places.socket)
        listener.listen(128)
        async with answering(application, listener, _Owner):
            yield
    finally:
        listener.close()
        with suppress(OSError):
            os.unlink(places.socket)


def _bind(listener: socket.socket, path: str, name: str) -> None:
    """Makes the socket. Raises `Failure` where it cannot be had: its disk is full, or its file system knows no sockets."""
    try:
        listener.bind(path)
    except OSError as error:
        raise Failure(
            f"the control socket {name} cannot be made ({error.strerror}): name a folder on another disk with --runtime",
            exit_at(error),
        ) from None


class _Owner(Caller):
    """A caller of the control socket: the owner, or root."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        uid = user(transport.get_extra_info("socket"))
        if uid not in {os.geteuid(), 0}:
            log.get("control").warning("caller refused", uid=uid)
            transport.abort()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Goes on answering one who has asked all and still listens."""
        answers = not self.silent and not self.unfinished and _listens(self.transport.get_extra_info("socket"))
        if answers:
            self.cycle.keep_alive = False
        return answers


def _listens(connection: socket.socket) -> bool:
    """True unless the other end is closed altogether."""
    look = select.poll()
    look.register(connection, 0)  # which asks for nothing but to be told of that
    return not look.poll(0)


def _own(folder: str) -> None:
    """Makes the socket's folder the owner's only. Raises `Failure` when it, or a link in its place, is somebody else's."""
    private_folder(folder)
    own = os.geteuid()
    place = folder if os.lstat(folder).st_uid not in {own, 0} else os.path.realpath(folder)
    fd = os.open(place, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)  # what was judged is what is changed
    try:
        status = os.fstat(fd)
        if status.st_uid != own or not stat.S_ISDIR(status.st_mode):
            raise Failure(
                f"the runtime folder {folder} belongs to somebody else: name another one with --runtime", Exit.USAGE
            )
        if stat.S_IMODE(status.st_mode) != 0o700:
            os.chmod(f"/proc/self/fd/{fd}", 0o700)
    finally:
        os.close(fd)
