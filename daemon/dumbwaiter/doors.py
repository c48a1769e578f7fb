"""The doors that brokers and transports have to the world; they see nothing else of it.

So a broker or transport is protocol and nothing more, and runs against a sandbox or a test as it runs in the daemon.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from dumbwaiter.model import Receipt
from dumbwaiter.wire.message import FileSlice, Reply, Request

Ticket = TypeVar("Ticket", covariant=True)
Point = TypeVar("Point")
T = TypeVar("T")


class Desk(Protocol):
    """What a broker works with."""

    async def call(self, request: Request) -> Reply:
        """Sends a request to the provider. Raises `Retry` for network trouble."""
        ...

    def now(self, url: str) -> float:
        """Returns the time as the server at `url` has it, as far as known."""
        ...

    def skew(self, url: str) -> float:
        """Returns how many seconds that clock is ahead of ours."""
        ...

    async def kept(self, name: str, life: float, fetch: Callable[[], Awaitable[T]]) -> T:
        """Returns what `fetch` gave, for `life` seconds.

        It is fetched again ahead of the end, once for all who ask meanwhile; should that fail, the old value stays.
        """
        ...

    def nonce(self) -> str:
        """Returns a random text that was never returned before."""
        ...


class Upload(Protocol[Ticket, Point]):
    """What a transport works with: one file, one ticket, and where an earlier attempt came to."""

    @property
    def ticket(self) -> Ticket: ...
    @property
    def checkpoint(self) -> Point | None: ...
    @property
    def key(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def mime(self) -> str: ...

    async def read(self, offset: int, length: int) -> FileSlice:
        """Returns the next piece, shorter at the end of the file.

        The piece that ends the file holds its bytes, read before the stamp is checked: once they are sent, all that
        went before was this version too. Raises `Changed`.
        """
        ...

    async def call(self, request: Request) -> Reply:
        """Sends a request. Raises `Retry` for network trouble."""
        ...

    async def save(self, point: Point, sent: int) -> None:
        """Journals where to go on; `sent` bytes are acknowledged in all."""
        ...

    async def confirm(self) -> Receipt | None:
        """Asks the provider by another way whether the object is there whole; None when it cannot tell yet."""
        ...

    def order(self, urls: tuple[str, ...]) -> list[str]:
        """Returns base URLs, those that could not be reached lately last."""
        ...
