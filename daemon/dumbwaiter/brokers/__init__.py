"""Every provider we can ask for permission to upload: one row each, by the type of its options."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from dumbwaiter import config
from dumbwaiter.brokers import netease
from dumbwaiter.doors import Desk
from dumbwaiter.model import Ask, FollowUp, Grant, Receipt


class Broker(Protocol):
    """Knows one vendor's sign-in API and moves no file. Raises the verdicts of `errors`."""

    @property
    def requests(self) -> float:
        """How many requests a second the vendor lets one account make."""
        ...

    async def grants(self, ask: Ask, desk: Desk) -> Sequence[Grant]:
        """Returns permission for the file asked about, and for more if the vendor gives several at once."""
        ...

    async def resume(self, grant: Grant, desk: Desk) -> Grant:
        """Returns a grant from the journal as it can be used now."""
        ...

    async def confirm(self, grant: Grant, size: int, desk: Desk) -> Receipt | None:
        """Returns a receipt if the provider shows the object whole, None if it does not, or not yet."""
        ...

    async def follow_up(self, receipt: Receipt, size: int, tries: int, desk: Desk) -> FollowUp:
        """Does what is left to do at the vendor once the file is stored; `tries` counts the earlier calls."""
        ...


BROKERS: dict[type[config.Provider], Callable[[Any], Broker]] = {
    config.NetEase: netease.NetEase,
}


def broker(options: config.Provider) -> Broker:
    """Returns the broker for a provider. Raises `Failure` when one of its secrets cannot be had."""
    return BROKERS[type(options)](options)
