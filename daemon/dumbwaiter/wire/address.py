"""Which addresses a provider may send us to."""

import ipaddress
from urllib.parse import urlsplit


def allowed(url: str, *, base: str) -> bool:
    """True when `url`, which an answer from `base` named, is one to send a file to.

    It must be plain scheme and host. An address inside (loopback, private, link-local) is allowed only when the
    configured `base` is one itself: else a forged answer could make us talk to our own network.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        return False
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        return False
    return not inside(parts.hostname) or inside(urlsplit(base).hostname or "")


def inside(host: str) -> bool:
    """True for a host that is, by its spelling, not on the public internet."""
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        # "0x7f.1" and "2130706433" are addresses too, to some resolvers.
        return host.replace(".", "").isdigit() or host.lower().startswith("0x")
