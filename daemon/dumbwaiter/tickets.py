"""What a broker gives and a transport takes: the type of a ticket is the whole join between the two."""

from msgspec import Struct


class NosTicket(Struct, frozen=True):
    """A token for one object of one bucket, and the nodes that take it, best first."""

    bucket: str
    object: str
    token: str
    nodes: tuple[str, ...]
