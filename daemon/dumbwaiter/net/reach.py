"""Where a connection may lead: into our own network only if the configuration names the host.

A vendor's answer says where files go, and whoever forges an answer or a name's address could make us talk to machines
that trust this one. A name, or an address in its place, is looked up once, what it stands for is judged, and the
connection goes to the very address that was judged.
"""

import ipaddress
import re
import socket
import time
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatchcase
from math import inf
from typing import Any, TypeVar
from urllib.parse import urlsplit

from msgspec import Struct

from dumbwaiter.config.values import BaseUrl
from dumbwaiter.naming import shown
from dumbwaiter.wire.address import public

T = TypeVar("T")

MISSED = 300.0  # seconds for which an address that did not answer goes last
# Set aside for tests of networks; proxies on many desktops answer for the whole internet from here.
STAND_INS = ipaddress.ip_network("198.18.0.0/15")


class Inside(Exception):
    """A name leads into our own network, and nobody said that it may. The message is a sentence."""


class Reach:
    """Judges addresses. `hosts` may be anywhere; "*.corp.example" names all below."""

    def __init__(self, hosts: Collection[str] = ("*",)) -> None:
        self._hosts = [host.lower().rstrip(".") for host in hosts]
        self._missed: dict[str, float] = {}  # addresses that did not answer, and since when

    def trusts(self, host: str) -> bool:
        """True for a host that may be anywhere."""
        host = host.lower().rstrip(".")
        return any(fnmatchcase(host, one) for one in self._hosts)

    def addresses(self, host: str, port: int) -> list[str]:
        """Returns what a name stands for, as far as we may connect to it. Raises `Inside`, or OSError."""
        found = [str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        good = found if self.trusts(host) else [address for address in found if _outside(address)]
        if not good:
            raise Inside(
                f"{shown(host)} leads into your own network, to {', '.join(found)}; if it is meant to, "
                f'add [network] inside = ["{shown(host)}"] to the configuration'
            )
        since = time.monotonic() - MISSED
        return sorted(good, key=lambda address: self._missed.get(address, -inf) > since)

    def connect(self, host: str, port: int, connect: Callable[[str], T], *failures: type[Exception]) -> T:
        """Connects by `connect` to the first address that does not fail so.

        Raises `Inside`, OSError where the name stands for nothing, or what connecting to the last address raises.
        """
        *others, last = self.addresses(host, port)
        for address in others:
            try:
                return connect(address)
            except failures:
                self.missed(address)
        return connect(last)

    def missed(self, address: str) -> None:
        """Has an address go last for a while: of two, every new connection would wait for the dead one first."""
        self._missed[address] = time.monotonic()

    def renew(self) -> None:
        """Thinks no address dead: the network is another one."""
        self._missed.clear()


def hosts(value: Any) -> Iterator[str]:
    """Yields the host of every address that stands in a configuration."""
    if isinstance(value, BaseUrl):
        # A blank stands for one name; a host that is all blank names nothing.
        host = urlsplit(re.sub(r"\{[^{}]*\}", "x--blank", value)).hostname or ""
        if host != "x--blank":
            yield host.replace("x--blank", "*")
    elif isinstance(value, Struct):
        for name in value.__struct_fields__:
            yield from hosts(getattr(value, name))
    elif isinstance(value, dict):
        for one in value.values():
            yield from hosts(one)


def _outside(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    return public(ip) or ip in STAND_INS
