"""The switches of the Jimeng sandbox: where nothing public says how the vendor behaves, each choice is one of them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class JimengOptions:
    """Durations are seconds of the sandbox's clock."""

    # The token service.
    reply: Literal["envelope", "flat", "numeric"] = "envelope"  # numeric: an envelope whose ret is a number
    service_id: bool = True  # the reply names the service in both of its ways, or in one
    space_name: bool = True
    upload_domain: bool = True
    region: bool = True
    expired_time: Literal["text", "number", "rfc3339", "missing"] = "text"
    gzip: bool = False  # packs its answers when the client takes them so
    strict: bool = True  # looks at every header and at the whole cookie, and not only at its session
    keys_life: float = 3600
    # The API.
    auth_life: float = 21600
    window: float = 900  # that a request's time may be off
    rate: float = 100  # calls a second; 0 is no limit
    bare_hosts: bool = False  # names hosts without scheme, as the vendor does; then they are thought to have TLS
    host_order: tuple[Literal["tos1", "tos2"], ...] = ("tos1", "tos2")
    upload_header: Literal["null", "object", "list"] = "null"
    # The upload hosts.
    lists_crc: bool = True
    list_numbers: Literal["text", "number"] = "text"
    padded: bool = True  # a checksum must have its leading zeros
    exact_size: bool = True  # the file has the size that was announced
    part_min: int = 5 * 1024 * 1024  # of every part but the last
    upload_life: float = 86400  # of an unfinished upload in parts
