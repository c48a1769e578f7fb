"""Checks requests signed with AWS Signature Version 4, or with Volcengine's variant of it.

AWS's manual, 'Create a signed AWS API request', and Volcengine's, 'signature method'. The rule: what the client lists as signed
is what is checked; region and service are taken from its scope; the query is rebuilt from what arrived.
"""

import calendar
import hashlib
import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from starlette.requests import Request

_AUTHORIZATION = re.compile(
    r"(?P<algorithm>[A-Z0-9-]+) Credential=(?P<key>[^/, ]+)/(?P<date>\d{8})/(?P<region>[^/, ]+)/(?P<service>[^/, ]+)/"
    r"(?P<end>[a-z0-9_]+), ?SignedHeaders=(?P<signed>[a-z0-9;-]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True)
class Scheme:
    """One of the two: its name, the end of its scope, what stands in front of the secret, and its headers' prefix."""

    algorithm: str
    end: str
    prefix: str
    headers: str


AWS = Scheme("AWS4-HMAC-SHA256", "aws4_request", "AWS4", "x-amz-")
VOLCENGINE = Scheme("HMAC-SHA256", "request", "", "x-")


@dataclass(frozen=True)
class Credentials:
    """What an access key was issued with."""

    secret: str
    token: str
    expires: float


class SignatureError(Exception):
    """The request is refused under this code."""

    def __init__(self, status: int, number: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.number = number
        self.code = code


def check(
    request: Request,
    body: bytes,
    scheme: Scheme,
    find: Callable[[str], Credentials | None],
    now: float,
    window: float,
) -> str:
    """The access key of a rightly signed request. Raises SignatureError."""
    header = request.headers.get("authorization")
    if header is None:
        raise SignatureError(401, 100003, "MissingAuthenticationToken", "the request has no Authorization")
    match = _AUTHORIZATION.fullmatch(header)
    if not match or (match["algorithm"], match["end"]) != (scheme.algorithm, scheme.end):
        raise SignatureError(
            400, 100024, "InvalidAuthorization", f"Authorization is not of the form {scheme.algorithm}"
        )
    if match["service"].lower() != "imagex":
        raise SignatureError(404, 100007, "ServiceNotFound", "the scope names another service")
    date = _timely(request, scheme, match["date"], now, window)
    found = find(match["key"])
    if found is None:
        raise SignatureError(401, 100009, "InvalidAccessKey", "the access key is unknown")
    signed = match["signed"].split(";")
    _check_token(request, scheme, found, signed, now)
    digest = hashlib.sha256(body).hexdigest()
    if request.headers.get(f"{scheme.headers}content-sha256", digest) != digest:
        raise SignatureError(401, 100010, "SignatureDoesNotMatch", "the digest is not the body's")
    canonical = _canonical(request, signed, digest)
    scope = "/".join((match["date"], match["region"], match["service"], match["end"]))
    text = "\n".join((scheme.algorithm, date, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = (scheme.prefix + found.secret).encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    if not hmac.compare_digest(hmac.new(key, text.encode(), hashlib.sha256).hexdigest(), match["signature"]):
        raise SignatureError(401, 100010, "SignatureDoesNotMatch", "the signature does not match")
    return match["key"]


def _timely(request: Request, scheme: Scheme, day: str, now: float, window: float) -> str:
    date = request.headers.get(f"{scheme.headers}date", "")
    if not re.fullmatch(r"\d{8}T\d{6}Z", date) or date[:8] != day:
        raise SignatureError(400, 100024, "InvalidAuthorization", "the date is malformed or not that of the scope")
    try:
        then = calendar.timegm(time.strptime(date, "%Y%m%dT%H%M%SZ"))
    except ValueError as error:
        raise SignatureError(400, 100024, "InvalidAuthorization", "there is no such date") from error
    if abs(now - then) > window:
        raise SignatureError(400, 100006, "InvalidTimestamp", "the request is expired or its clock is wrong")
    return date


def _check_token(request: Request, scheme: Scheme, found: Credentials, signed: list[str], now: float) -> None:
    needed = {f"{scheme.headers}date", *([f"{scheme.headers}security-token"] if found.token else [])}
    if missing := needed - set(signed):
        raise SignatureError(400, 100024, "InvalidAuthorization", f"{min(missing)} is not signed")
    if missing := {name for name in signed if name not in request.headers}:
        raise SignatureError(400, 100024, "InvalidAuthorization", f"{min(missing)} is signed and not there")
    token = request.headers.get(f"{scheme.headers}security-token", "")
    if not hmac.compare_digest(token.encode(), found.token.encode()) or now >= found.expires:
        raise SignatureError(401, 100026, "InvalidSecretToken", "the session token is invalid or expired")


def _canonical(request: Request, signed: list[str], digest: str) -> str:
    lines = "".join(f"{name}:{_trimmed(request.headers[name])}\n" for name in sorted(signed))
    query = request.scope["query_string"].decode("latin-1")
    return "\n".join((request.method, "/", _query(query), lines, ";".join(sorted(signed)), digest))


def _trimmed(value: str) -> str:
    return re.sub(" +", " ", value.strip())


def _query(text: str) -> str:
    pairs = []
    for part in filter(None, text.split("&")):
        name, _, value = part.partition("=")
        pairs.append((_recoded(name), _recoded(value)))
    return "&".join("=".join(pair) for pair in sorted(pairs))


def _recoded(text: str) -> str:
    return quote(unquote_to_bytes(text.replace("+", "%20")), safe="-_.~")
