"""What every broker is, with the defaults of a vendor that asks for nothing special."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence

from dumbwaiter.doors import Desk
from dumbwaiter.errors import Reject
from dumbwaiter.model import Ask, Entry, FollowUp, Grant, Link, Page, Receipt

SLOWER = 5.0  # seconds to wait when asked for a slower pace and not told how slow


class Broker(ABC):
    """Knows one vendor's sign-in API and moves no file. Raises the verdicts of `errors`."""

    requests: float = 20.0  # a second, that the vendor lets one account make of its API
    uploads: float | None = None  # a second, where the vendor counts those too
    shares: bool = False  # one object may stand for several files, and `still` can tell whether it is there
    batch: int = 1  # files that one call can ask for
    mints: bool = False  # each grant is for a new object, which the vendor names
    lists: bool = False  # whether the vendor tells what it has
    names_late: bool = False  # the answer to an upload may name the object, and may name one that is there
    follows: bool = False  # `follow_up` asks the vendor; where it does not, a stored file is a finished one
    binds: bool = False  # what is stored is of no use until `follow_up` has put it where it belongs
    warnings: Sequence[str] = ()  # what a person should know of these options, told once at the start
    own: str = ""  # the same at each start, and no other provider's here or in another installation
    aside: bool = False  # it works beside the daemon, which has the same account, and is not to disturb it

    @abstractmethod
    async def grants(self, asks: Sequence[Ask], desk: Desk) -> Sequence[Grant]:
        """Returns a grant for each of at most `batch` asks, in their order.

        What comes after those is kept for later asks; such a grant must be good for any file.
        """

    def key(self, proposed: str, *, named: bool) -> str | None:
        """Returns the key that a file will get; None where the provider names objects.

        `named`: the watch has a template, so `proposed` is a person's wish and not just the file's path.
        """
        return None

    def fit(self, grant: Grant, ask: Ask) -> Grant:
        """Returns a grant that is good for many files as one file needs it, the same each time.

        May raise `Reject`; `Retry` where it is good for none.
        """
        return grant

    def refused(self) -> None:  # noqa: B027 - most keep nothing that it could be the fault of
        """Is told that the provider refused a grant, before another one is asked for."""

    async def resume(self, grant: Grant, desk: Desk) -> Grant:
        """Returns a grant from the journal as it can be used now."""
        return grant

    async def confirm(self, grant: Grant, size: int, desk: Desk) -> Receipt | None:
        """Returns a receipt if the provider shows the object whole, None if it does not, or not yet.

        Where an upload has to be committed, this commits it, and may be called again.
        """
        return None

    async def still(self, entry: Entry, desk: Desk) -> Receipt | None:
        """Returns a receipt if the provider shows a catalogued object today, None if it does not."""
        return None

    async def follow_up(self, ask: Ask, receipt: Receipt, tries: int, desk: Desk) -> FollowUp:
        """Does what is left to do at the vendor once the file is stored; `tries` counts the earlier calls."""
        return FollowUp(receipt)

    def together(self, ask: Ask) -> str | None:
        """Names the versions or files whose follow-ups go one after the other, each catalogued before the next begins."""
        return None

    async def link(self, entry: Entry, desk: Desk) -> Link | None:
        """Returns where a stored file can be read now, None where the vendor says no more than the catalog has."""
        return None

    async def claim(self, entry: Entry, intend: Callable[[], Awaitable[None]], desk: Desk) -> Receipt:
        """Fetches what the vendor sells beside a stored file, at a person's word only; the result has a label.

        `intend` is awaited right before the one call that costs: it makes the intention durable. `Blocked`, `Reject`
        and a void `Retry` say that the call cost nothing; after any other failure it may have.
        """
        raise Reject("this provider has nothing to claim")

    async def listing(self, cursor: str | None, desk: Desk) -> Page:
        """Returns what the vendor has from `cursor` on, from the beginning with None; one request of the vendor."""
        raise Reject("this provider gives no list of what it has")
