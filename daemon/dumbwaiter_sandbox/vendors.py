"""Every vendor of the sandbox, one row each. Ports follow the order of the rows and, within one, of its services."""

from dumbwaiter_sandbox import netease
from dumbwaiter_sandbox.faults import Catalogue
from dumbwaiter_sandbox.world import Service, Vendor

VENDORS: tuple[Vendor, ...] = (netease.VENDOR,)

SERVICES: tuple[Service, ...] = tuple(service for vendor in VENDORS for service in vendor.services)

SECRETS: tuple[str, ...] = (
    "authorization",
    "cookie",
    *(name for vendor in VENDORS for name in vendor.secrets),
)

CATALOGUE = Catalogue(
    calls=frozenset(label for service in SERVICES for label in service.labels(*service.calls)),
    special={fault: calls for vendor in VENDORS for fault, calls in vendor.faults.items()},
    deferred={place: label for vendor in VENDORS for place, label in vendor.deferred.items()},
)
