"""AWS Signature Version 4, as ImageX wants it: a few chosen headers are signed, and the host need not be one of them.

AWS's manual, "Create a signed AWS API request", describes it; its public test suite gives the known answers. The query
that is signed is the query that is sent, so both come from the same pairs.
"""

import hmac
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote

from msgspec import Struct

from dumbwaiter.model import Secret

ALGORITHM = "AWS4-HMAC-SHA256"
Pairs = Sequence[tuple[str, str]]


class Keys(Struct, frozen=True):
    """An access key with its secret, and the session token of temporary ones."""

    id: str
    secret: Secret
    token: Secret | None = None


def authorization(
    keys: Keys,
    region: str,
    service: str,
    stamp: str,
    method: str,
    path: str,
    query: Pairs,
    headers: Mapping[str, str],
    payload: bytes = b"",
) -> str:
    """Returns the `Authorization` header. All of `headers` are signed, `x-amz-date` must be among them.

    `path` is encoded already; `query` is not.
    """
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    canonical = canonical_request(method, path, query, headers, payload)
    text = f"{ALGORITHM}\n{stamp}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    key = signing_key(keys.secret, stamp[:8], region, service)
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return f"{ALGORITHM} Credential={keys.id}/{scope}, SignedHeaders={_names(headers)}, Signature={signature}"


def canonical_request(method: str, path: str, query: Pairs, headers: Mapping[str, str], payload: bytes = b"") -> str:
    """Returns the text whose digest is signed."""
    lines = sorted(f"{name.lower()}:{' '.join(value.split())}\n" for name, value in headers.items())
    return "\n".join((method, path, canonical_query(query), "".join(lines), _names(headers), digest(payload)))


def canonical_query(query: Pairs) -> str:
    """Returns the query sorted by encoded name and value, which puts capitals before small letters."""
    return "&".join(
        f"{name}={value}" for name, value in sorted((_quoted(name), _quoted(value)) for name, value in query)
    )


def signing_key(secret: Secret, date: str, region: str, service: str) -> bytes:
    """Returns the key of one day, region and service."""
    key = f"AWS4{secret.reveal()}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def digest(payload: bytes) -> str:
    """Returns the `x-amz-content-sha256` of a body."""
    return sha256(payload).hexdigest()


def stamp(now: float) -> str:
    """Returns a time as `x-amz-date` has it."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")


def _names(headers: Iterable[str]) -> str:
    return ";".join(sorted(name.lower() for name in headers))


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")
