"""The doors that brokers and transports have to the world; they see nothing else of it.

So a broker or transport is protocol and nothing more, and runs against a sandbox or a test as it runs in the daemon.
"""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from dumbwaiter.model import Ask, Receipt
from dumbwaiter.wire.message import FileSlice, Reply, Request

Ticket = TypeVar("Ticket", covariant=True)
Checkpoint = TypeVar("Checkpoint")
T = TypeVar("T")


class Hash(Protocol):
    """What takes bytes in order: an object of hashlib, a checksum."""

    def update(self, data: bytes, /) -> object: ...


class Desk(Protocol):
    """What a broker works with."""

    async def call(self, request: Request) -> Reply:
        """Sends a request to the provider. Raises `Retry` for network trouble, `Blocked` for an address inside our network."""
        ...

    def now(self, url: str) -> float:
        """Returns the time as the server at `url` has it, as far as known."""
        ...

    def skew(self, url: str) -> float:
        """Returns how many seconds that clock is ahead of ours."""
        ...

    async def cached(self, name: str, life: float, fetch: Callable[[], Awaitable[T]]) -> T:
        """Returns what `fetch` gave, for `life` seconds.

        It is fetched again ahead of the end, once for all who ask meanwhile; should that fail, the old value stays.
        """
        ...

    def forget(self, name: str, value: object) -> None:
        """Drops what is cached under this name, if it still is `value`: the provider refused it."""
        ...

    async def siblings(self, ask: Ask, fact: str, value: str) -> Mapping[str, Receipt]:
        """Returns, by place, what this provider has of a file's folder with this very fact.

        That is what the catalog has, an older version of the file itself too, and what is stored and not catalogued.
        """
        ...

    async def of_size(self, size: int, fact: str, value: str) -> Mapping[str, Receipt]:
        """Returns, by place, the files of this provider in the catalog that have this size and this very fact."""
        ...

    def drop_grants(self) -> None:
        """Drops the grants at hand, which are of no use any more; the next file gets a new one."""
        ...

    def nonce(self) -> str:
        """Returns a random text that was never returned before."""
        ...


class Upload(Protocol[Ticket, Checkpoint]):
    """What a transport works with: one file, one ticket, and where an earlier attempt came to.

    A transport waits for nothing else than these doors: it runs in a thread, which they block.
    """

    @property
    def ticket(self) -> Ticket:
        """The permission, for this kind of transport."""
        ...

    @property
    def checkpoint(self) -> Checkpoint | None:
        """What `save` noted last; None where nothing counts yet."""
        ...

    @property
    def key(self) -> str | None:
        """Where the object goes; None where the provider names it."""
        ...

    @property
    def name(self) -> str:
        """The file's own name."""
        ...

    @property
    def seed(self) -> str:
        """24 hexadecimal digits: the same at every attempt, and no other job's."""
        ...

    @property
    def size(self) -> int:
        """Bytes of the version that is to be sent."""
        ...

    @property
    def mime(self) -> str:
        """The file's type, by its first bytes or its name."""
        ...

    @property
    def fresh(self) -> bool:
        """True where nothing may be replaced under the key."""
        ...

    async def read(self, offset: int, length: int) -> FileSlice:
        """Returns the next piece, shorter at the end of the file.

        A piece of at most 1 MiB that ends the file holds its bytes, read before the stamp is checked; of a longer one
        the end leaves after that: once it is sent, all that went before was this version too. Raises `Changed`.
        """
        ...

    async def call(self, request: Request) -> Reply:
        """Sends a request. Raises `Retry` for network trouble, `Blocked` for an address inside our network."""
        ...

    async def save(self, point: Checkpoint, sent: int, *, sure: bool = False) -> None:
        """Journals where to go on; `sent` bytes are acknowledged in all.

        Soon; `sure`, as an intention has to be, it is in the journal when this returns.
        """
        ...

    async def whole(self) -> None:
        """Is called before the parts are joined: nothing is read of the file after that.

        Raises `Changed` when they are of more than one version.
        """
        ...

    async def digested(self, offset: int, length: int, into: Hash) -> None:
        """Feeds `into` with a piece of the file, for a digest that has to be known before the bytes go. Raises `Changed`."""
        ...

    async def parts(
        self,
        numbers: Sequence[int],
        send: Callable[[int], Coroutine[Any, Any, T]],
        done: Callable[[int, T], Coroutine[Any, Any, None]],
    ) -> None:
        """Runs `send` for each number, several side by side, and `done` with each result, one at a time.

        The first exception ends them all and is raised.
        """
        ...

    async def confirm(self) -> Receipt | None:
        """Asks the provider by another way whether the object is there whole; None when it cannot tell yet."""
        ...

    def now(self, url: str) -> float:
        """Returns the time as the server at `url` has it, as far as known."""
        ...

    def order(self, urls: tuple[str, ...]) -> list[str]:
        """Returns base URLs, each after the `better` one, and those that could not be reached lately last."""
        ...

    def better(self, url: str, other: str) -> None:
        """Notes that the provider wants `other` asked in the place of `url`, for the files to come as well."""
        ...
