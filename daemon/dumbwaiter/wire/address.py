"""Which addresses a provider may send us to, and how long they are good."""

import ipaddress
from urllib.parse import parse_qs, urljoin, urlsplit

from dumbwaiter.errors import Blocked
from dumbwaiter.wire.message import Reply

# IPv6 addresses that stand for an IPv4 one in their last four bytes: mapped, translated, compatible, and behind NAT64.
_FOUR_IN_SIX = [
    ipaddress.IPv6Network(one)
    for one in ("::ffff:0:0/96", "::ffff:0:0:0/96", "::/96", "64:ff9b::/96", "64:ff9b:1::/48")
]
# Of IANA's registries of special addresses, what some versions of Python take for public.
_SPECIAL = [
    ipaddress.ip_network(one)
    for one in ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20", "5f00::/16")  # protocols, 6to4, examples, routes
]
FOR_GOOD = frozenset({301, 308})
FOR_NOW = frozenset({302, 303, 307})


def allowed(url: str, *, base: str, path: bool = False) -> bool:
    """True when `url`, which an answer from `base` named, is one to send a file to.

    It must be plain scheme and host, unless `path` permits more. An address inside (loopback, private, link-local) is allowed only when the
    configured `base` is one itself: else a forged answer could make us talk to our own network.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    # A name that is no ASCII may become an address once it is encoded: some full stops are not dots.
    if parts.scheme not in {"http", "https"} or not url.isascii():
        return False
    if not parts.hostname or parts.username is not None:
        return False
    if not path and (parts.path not in {"", "/"} or parts.query or parts.fragment):
        return False
    return not inside(parts.hostname) or inside(urlsplit(base).hostname or "")


def check_redirect(reply: Reply, url: str, *, base: str, key: str, path: bool = True) -> None:
    """Raises `Blocked` for a redirect that a person has to follow: the service at `base`, which stands in `key`, has moved.

    That is one for good, or to another place of the same host. Any other may be a portal's, which passes; so may one that
    leads from outside to an address inside. Shown is the new base, without a path unless that may be.
    """
    location = reply.headers.get("location", "")
    if not location or reply.status not in FOR_GOOD | FOR_NOW:
        return
    try:
        here, there = urlsplit(url), urlsplit(urljoin(url, location))
        name, own = there.hostname or "", here.hostname or ""
    except ValueError:
        return
    elsewhere = name != own and (reply.status in FOR_NOW or (inside(name) and not inside(own)))
    site = f"{there.scheme}://{there.netloc.rpartition('@')[2]}"
    if elsewhere or not name or f"{site}{there.path}" == f"{here.scheme}://{here.netloc}{here.path}":
        return
    rest = here.path.removeprefix(urlsplit(base).path.rstrip("/")) if url != base else ""
    place = f"{site}{there.path.removesuffix(rest)}" if path else site
    raise Blocked(f"the service has moved to {place[:200]} (status {reply.status}): set {key} accordingly")


def expires_at(url: str) -> float | None:
    """Returns when a signed address says that it ends, on the server's clock: Qiniu's `e`, `Expires` of NOS and OSS."""
    try:
        values = parse_qs(urlsplit(url).query)
    except ValueError:
        return None
    said = [values[name][0] for name in ("e", "Expires") if name in values]
    # A number with letters around it, or of 300 digits, is something else.
    return float(said[0]) if said and said[0].isascii() and said[0].isdigit() and len(said[0]) <= 12 else None


def inside(host: str) -> bool:
    """True for a host that is, by its spelling, not on the public internet."""
    host = host.lower().rstrip(".")
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        return not public(ipaddress.ip_address(host))
    except ValueError:
        # "127.0x1" and "2130706433" are addresses too, to some resolvers; "router" is found in our own domain.
        _, dot, last = host.rpartition(".")
        return not dot or last.isdigit() or last.startswith("0x")


def public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """True for an address on the public internet, whatever it is wrapped in."""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.is_site_local:
            return False
        if ip.sixtofour is not None or any(ip in network for network in _FOUR_IN_SIX):
            ip = ip.sixtofour or ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _SPECIAL)
