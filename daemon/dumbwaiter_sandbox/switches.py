"""The switches of the vendors: in which of the ways that reality has each of them answers."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from dumbwaiter_sandbox.world import Vendor


class Switches:
    """How they stand, by vendor."""

    def __init__(self, vendors: Sequence[Vendor], changes: Mapping[str, Any]) -> None:
        self._vendors = vendors
        self.held: dict[str, Any] = {}
        self.reset()
        self.change(changes)

    def as_json(self) -> dict[str, dict[str, Any]]:
        """The switches by vendor and name."""
        return {name: dataclasses.asdict(held) for name, held in self.held.items()}

    def change(self, changes: Mapping[str, Any]) -> None:
        """Change the named switches of the named vendors. Raises ValueError, and then changes nothing."""
        self.held.update({name: self._changed(name, members) for name, members in changes.items()})

    def reset(self) -> None:
        """Put every switch back."""
        self.held.update({vendor.name: vendor.options() for vendor in self._vendors})

    def _changed(self, vendor: str, members: object) -> Any:
        if vendor not in self.held:
            raise ValueError(f"{vendor!r} is no vendor: choose from {', '.join(self.held)}")
        if not isinstance(members, Mapping):
            raise ValueError(f"the switches of {vendor} are not an object")  # noqa: TRY004 - answered like every wrong value
        held = dataclasses.asdict(self.held[vendor])
        if unknown := members.keys() - held.keys():
            raise ValueError(f"{vendor} has no switch {min(unknown)!r}: choose from {', '.join(held)}")
        try:
            return msgspec.convert({**held, **members}, type(self.held[vendor]))
        except msgspec.ValidationError as error:
            raise ValueError(f"a switch of {vendor} has a wrong value: {error}") from error
