"""What every broker is, with the defaults of a vendor that asks for nothing special."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from dumbwaiter.doors import Desk
from dumbwaiter.model import Ask, FollowUp, Grant, Receipt


class Broker(ABC):
    """Knows one vendor's sign-in API and moves no file. Raises the verdicts of `errors`."""

    requests: float = 20.0  # a second, that the vendor lets one account make of its API
    uploads: float | None = None  # a second, where the vendor counts those too
    batch: int = 1  # files that one call can ask for

    @abstractmethod
    async def grants(self, asks: Sequence[Ask], desk: Desk) -> Sequence[Grant]:
        """Returns a grant for each of at most `batch` asks, in their order.

        What comes after those is kept for later asks; such a grant must be good for any file.
        """

    async def resume(self, grant: Grant, desk: Desk) -> Grant:
        """Returns a grant from the journal as it can be used now."""
        return grant

    async def confirm(self, grant: Grant, size: int, desk: Desk) -> Receipt | None:
        """Returns a receipt if the provider shows the object whole, None if it does not, or not yet."""
        return None

    async def follow_up(self, ask: Ask, receipt: Receipt, tries: int, desk: Desk) -> FollowUp:
        """Does what is left to do at the vendor once the file is stored; `tries` counts the earlier calls."""
        return FollowUp(receipt)
