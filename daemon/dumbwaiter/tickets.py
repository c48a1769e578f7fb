"""What a broker gives and a transport takes: the type of a ticket is the whole join between the two."""

from collections.abc import Mapping

from msgspec import Struct

from dumbwaiter.model import Secret
from dumbwaiter.wire.recipe import Stored


class Ticket(Struct, frozen=True):
    """Never shows what is in it: tokens, signatures, signed addresses."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"


class NosTicket(Ticket, frozen=True):
    """A token for one object of one bucket, and the nodes that take it, best first."""

    bucket: str
    object: str
    token: str
    nodes: tuple[str, ...]


class QiniuTicket(Ticket, frozen=True):
    """A put policy's upload token, the hosts that take it (best first), and what goes along with the file."""

    urls: tuple[str, ...]
    token: str
    key: str | None = None  # None: the token names the object
    fields: Mapping[str, str] = {}  # of the form: x:variables and x-qn-meta-*, as the vendor wants them
    facts: Mapping[str, str] = {}  # travel to the receipt, for the broker's follow-up
    order: tuple[str, ...] = ()  # of the form's fields, where it matters
    own: bool = False  # the key has a random part of this job's: what has it already can only be this file


class ImageXTicket(Ticket, frozen=True):
    """The permission to upload one object, the hosts that take it (best first), and what commits it afterwards.

    `auth` and `session` were made for this object and end with it; no key of the account is here.
    """

    hosts: tuple[str, ...]
    uri: str  # bucket and key
    auth: str
    session: str
    service: str  # whose object it is
    headers: Mapping[str, str] = {}  # go with every request to those hosts
    multipart: str = "gateway"  # how a large file is sent: a row of the transport's table


class OssPostTicket(Ticket, frozen=True):
    """A form for OSS as the broker wants it filled: the bucket's address and the fields in their order, but for the file."""

    url: str
    fields: tuple[tuple[str, str], ...]
    file: str = "file"  # name of the field that holds it
    prefix: str = ""  # that every key has to begin with
    facts: Mapping[str, str] = {}  # travel to the receipt, for the broker's follow-up


class OssStsTicket(Ticket, frozen=True):
    """Temporary credentials for OSS. Its secrets have no JSON form: it cannot be journalled."""

    endpoint: str  # scheme and host, without the bucket
    bucket: str
    access_key: str
    secret: Secret
    token: Secret
    region: str = ""  # needed for version 4
    version: int = 1  # of the signature
    path_style: bool = False  # the bucket stands in the path and not in the host name
    callback: str = ""  # JSON, as OSS is to have it
    variables: Mapping[str, str] = {}  # x:names that the callback's body uses
    facts: Mapping[str, str] = {}  # travel to the receipt, for the broker's follow-up


class CareyShopTicket(Ticket, frozen=True):
    """A signed form for a shop's own upload."""

    url: str
    fields: tuple[tuple[str, str], ...]
    file: str = "file"
    facts: Mapping[str, str] = {}  # travel to the receipt, for the broker's follow-up
    name: str = ""  # of the file as the shop shows it


class FormTicket(Ticket, frozen=True):
    """An address that takes a form, as a recipe found it."""

    url: str
    fields: Mapping[str, str]
    file_field: str
    key: str | None
    link: str | None
    stored: Stored


class PutTicket(Ticket, frozen=True):
    """An address that takes the bytes by PUT, signed by the service that gave it."""

    url: str
    headers: Mapping[str, str]
    key: str | None
    link: str | None
    stored: Stored
