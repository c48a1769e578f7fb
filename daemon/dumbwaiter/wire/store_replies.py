"""What a store answers that only a recipe describes: by its status, by an error as S3 words it, and as the recipe says."""

from msgspec.structs import replace

from dumbwaiter.errors import Conflict, Reauth, Reject, Retry
from dumbwaiter.model import Receipt
from dumbwaiter.wire.message import Reply
from dumbwaiter.wire.oss import trouble
from dumbwaiter.wire.recipe import Stored

# S3's API reference, "error responses"; OSS has some of them too.
AGAIN = frozenset(
    {
        "BadDigest",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "OperationAborted",
        "RequestTimeTooSkewed",
        "RequestTimeout",
        "SlowDown",
    }
)
_EXISTS = frozenset({409, 412})  # what HTTP has for "not over that which is there"


def compared(there: Receipt | None, md5: str, key: str) -> Receipt:
    """Returns the receipt for an object that was there already and is this very file. Raises `Conflict` for any other."""
    if there is None or not there.etag:
        raise Conflict(f"the provider has {key} already, and whether it is this file cannot be seen")
    if there.etag.lower() != md5:
        raise Conflict(f"the provider has another file as {key}")
    return replace(there, verified="md5")


def asks_again(reply: Reply) -> bool:
    """Says whether a store that is S3's kind asks for the same again with a status that otherwise refuses the file."""
    return 400 <= reply.status < 500 and trouble(reply.body).code in AGAIN


def is_taken(reply: Reply) -> bool:
    """Says whether an answer refuses to replace what is there."""
    return reply.status in _EXISTS and not asks_again(reply)


def raise_for_status(reply: Reply) -> None:
    """Raises what an answer other than success means."""
    if asks_again(reply):
        raise Retry(f"the provider asks to try again ({trouble(reply.body).code})", after=reply.after)
    match reply.status:
        case status if 200 <= status < 300:
            return
        case 401 | 403:
            raise Reauth(f"the upload permission is refused (status {reply.status})")
        case 408 | 425 | 429:
            raise Retry(f"the provider asks to wait (status {reply.status})", after=reply.after)
        case status if 400 <= status < 500:
            raise Reject(f"the provider refuses the file (status {status})")
    raise Retry(f"the provider answers {reply.status}", after=reply.after)


def receipt(reply: Reply, stored: Stored, *, key: str, link: str | None) -> Receipt:
    """Returns what an answer says of the stored file. Raises `Retry` for one that another server gave in its place.

    An answer may be empty or no JSON where nothing is to be read from it, but no web page.
    """
    try:
        answer = reply.json(object)
    except Retry:
        if stored != Stored() or reply.headers.get("content-type", "").startswith("text/html"):
            raise
        answer = None
    return Receipt(
        stored.text("key", answer) or key,
        etag=stored.text("etag", answer) or "",
        url=stored.text("link", answer) or link,
    )
