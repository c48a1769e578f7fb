"""Every vendor of the sandbox, one row each. Ports follow the order of the rows and, within one, of its services."""

from collections.abc import Sequence

from dumbwaiter_sandbox import careyshop, jiandaoyun, jimeng, kodo, netease, oss, presign, xinhua
from dumbwaiter_sandbox.faults import Catalogue
from dumbwaiter_sandbox.world import Vendor

VENDORS: tuple[Vendor, ...] = (
    netease.VENDOR,
    kodo.VENDOR,
    jiandaoyun.VENDOR,
    presign.VENDOR,
    jimeng.VENDOR,
    oss.VENDOR,
    careyshop.VENDOR,
    xinhua.VENDOR,
)


def catalogue(vendors: Sequence[Vendor]) -> Catalogue:
    """The calls and faults of all these vendors."""
    return Catalogue(
        calls=frozenset(label for vendor in vendors for one in vendor.services for label in one.labels(*one.calls)),
        special=_merged(vendors),
        deferred={place: label for vendor in vendors for place, label in vendor.deferred.items()},
    )


def secrets(vendors: Sequence[Vendor]) -> tuple[str, ...]:
    """The names of what no log may show."""
    return ("authorization", "cookie", *(name for vendor in vendors for name in vendor.secrets))


def _merged(vendors: Sequence[Vendor]) -> dict[str, tuple[str, ...]]:
    """Where each special fault can be had; vendors may use one word for the like."""
    places: dict[str, tuple[str, ...]] = {}
    for vendor in vendors:
        for fault, calls in vendor.faults.items():
            places[fault] = places.get(fault, ()) + calls
    return places
