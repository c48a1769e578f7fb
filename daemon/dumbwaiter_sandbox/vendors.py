"""Every vendor of the sandbox, one row each. Ports follow the order of the rows and, within one, of its services."""

from dumbwaiter_sandbox import careyshop, jiandaoyun, jimeng, kodo, netease, oss, presign, xinhua
from dumbwaiter_sandbox.faults import Catalogue
from dumbwaiter_sandbox.world import Service, Vendor

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

SERVICES: tuple[Service, ...] = tuple(service for vendor in VENDORS for service in vendor.services)

SECRETS: tuple[str, ...] = (
    "authorization",
    "cookie",
    *(name for vendor in VENDORS for name in vendor.secrets),
)


def _merged() -> dict[str, tuple[str, ...]]:
    """Where each special fault can be had; vendors may use one word for the like."""
    places: dict[str, tuple[str, ...]] = {}
    for vendor in VENDORS:
        for fault, calls in vendor.faults.items():
            places[fault] = places.get(fault, ()) + calls
    return places


CATALOGUE = Catalogue(
    calls=frozenset(label for service in SERVICES for label in service.labels(*service.calls)),
    special=_merged(),
    deferred={place: label for vendor in VENDORS for place, label in vendor.deferred.items()},
)
