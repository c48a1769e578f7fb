"""Who sends a request to OSS: signatures of version 1 (header and address) and version 4, temporary keys and what they may do.

OSS's manual, 'include signatures in the authorization header', 'include a V4 signature', 'access control by STS'. A signature
that does not match is answered with the text that should have been signed.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from dumbwaiter_sandbox.oss import accounts
from dumbwaiter_sandbox.oss.options import OssOptions
from dumbwaiter_sandbox.oss.refusal import RefusedError

SUBRESOURCES = set(
    """response-content-type response-content-language response-cache-control logging response-content-encoding acl uploadId
    uploads partNumber group link delete website location objectInfo objectMeta response-expires response-content-disposition cors
    lifecycle restore qos referer stat bucketInfo append position security-token live comp status vod startTime endTime
    x-oss-process symlink callback callback-var tagging encryption versions versioning versionId policy continuation-token
    sequential""".split()  # noqa: SIM905 - read as one list
)
_V1 = re.compile(r"OSS ([^:\s]+):(\S+)")
_V4 = re.compile(
    r"OSS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([a-z0-9-]+)/oss/aliyun_v4_request,\s*"
    r"(?:AdditionalHeaders=([^,]*),\s*)?Signature=([0-9a-f]{64})"
)


@dataclass(frozen=True)
class Asked:
    """What of a request is signed."""

    method: str
    bucket: str
    key: str
    query: Mapping[str, str]  # decoded; a name alone has an empty value
    headers: Mapping[str, str]  # names in lower case


@dataclass(frozen=True)
class Caller:
    """Who it is: nobody, the account, or a temporary key of it."""

    access_key: str = ""
    session: accounts.Session | None = None

    def may(self, action: str, options: OssOptions) -> bool:
        """Whether the session policy allows an action such as PutObject."""
        if self.session is None or options.allow_extra_actions:
            return True
        for statement in json.loads(self.session.policy)["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            if statement["Effect"] == "Allow" and {"*", "oss:*", f"oss:{action}"} & set(actions):
                return True
        return False


def caller(asked: Asked, options: OssOptions, now: float) -> Caller:
    """Who sends this. Raises RefusedError."""
    text = asked.headers.get("authorization", "")
    if "Signature" in asked.query and not text:
        return _by_address(asked, now)
    if not text:
        return Caller()
    if text.startswith("OSS4-"):
        return _by_v4(asked, text, options, now)
    return _by_v1(asked, text, options, now)


def secret_of(access_key: str, token: str, now: float) -> tuple[str, Caller]:
    """The secret of a key pair. Raises RefusedError for an unknown, expired or mixed one."""
    if access_key == accounts.ACCESS_KEY and not token:
        return accounts.SECRET, Caller(access_key)
    if not token:
        raise RefusedError(
            403, "InvalidAccessKeyId", "The OSS Access Key Id you provided does not exist in our records."
        )
    session = accounts.session(token)
    if session is None:
        raise RefusedError(403, "InvalidSecurityToken", "The security token you provided is invalid.")
    if session.access_key != access_key:
        raise RefusedError(403, "AccessKeyIdAndSecurityTokenNotMatch", "The key and the security token do not match.")
    if now >= session.expires:
        raise RefusedError(403, "SecurityTokenExpired", "The security token you provided has expired.")
    return session.secret, Caller(access_key, session)


def _by_v1(asked: Asked, text: str, options: OssOptions, now: float) -> Caller:
    match = _V1.fullmatch(text)
    if not match:
        raise RefusedError(400, "InvalidArgument", "Authorization header is invalid.")
    if not options.v1:
        raise RefusedError(403, "AccessDenied", "This bucket takes signatures of version 4 only.")
    date = asked.headers.get("x-oss-date") or asked.headers.get("date", "")
    try:
        stamp = parsedate_to_datetime(date).timestamp()
    except ValueError:
        raise RefusedError(403, "AccessDenied", "OSS authentication requires a valid Date.") from None
    # The vendor's newer client sends the token without the prefix in version 1, so that it is not signed.
    token = asked.headers.get("x-oss-security-token") or asked.headers.get("security-token", "")
    secret, who = secret_of(match[1], token, now)
    _in_time(stamp, options, now)
    wanted = _text_v1(asked, date)
    _compare(_mac_v1(secret, wanted), match[2], wanted, match[1])
    return who


def _by_address(asked: Asked, now: float) -> Caller:
    expires = asked.query.get("Expires", "")
    secret, who = secret_of(asked.query.get("OSSAccessKeyId", ""), asked.query.get("security-token", ""), now)
    if not expires.isdigit() or now > int(expires):
        raise RefusedError(403, "AccessDenied", "Request has expired.")
    wanted = _text_v1(asked, expires)
    _compare(_mac_v1(secret, wanted), asked.query["Signature"], wanted, who.access_key)
    return who


def _text_v1(asked: Asked, date: str) -> str:
    own = "".join(
        f"{name}:{asked.headers[name].strip()}\n" for name in sorted(asked.headers) if name.startswith("x-oss-")
    )
    taken = sorted((name, value) for name, value in asked.query.items() if name in SUBRESOURCES)
    search = "&".join(name + (f"={value}" if value else "") for name, value in taken)
    place = f"/{asked.bucket}/{asked.key}" if asked.bucket else "/"
    kind, md5 = asked.headers.get("content-type", ""), asked.headers.get("content-md5", "")
    return f"{asked.method}\n{md5}\n{kind}\n{date}\n{own}{place}{'?' + search if search else ''}"


def _mac_v1(secret: str, text: str) -> str:
    return base64.b64encode(hmac.digest(secret.encode(), text.encode(), hashlib.sha1)).decode()


def _by_v4(asked: Asked, text: str, options: OssOptions, now: float) -> Caller:
    match = _V4.fullmatch(text)
    if not match:
        raise RefusedError(400, "InvalidArgument", "Authorization header is invalid.")
    access_key, day, region, additional, given = match.groups()
    date = asked.headers.get("x-oss-date", "")
    try:
        stamp = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise RefusedError(403, "AccessDenied", "x-oss-date is missing or wrong.") from None
    if region != accounts.REGION or not date.startswith(day):
        raise RefusedError(400, "InvalidArgument", "The credential is for another region or day.")
    if asked.headers.get("x-oss-content-sha256") != "UNSIGNED-PAYLOAD":
        raise RefusedError(400, "InvalidArgument", "x-oss-content-sha256 must be UNSIGNED-PAYLOAD.")
    secret, who = secret_of(access_key, asked.headers.get("x-oss-security-token", ""), now)
    _in_time(stamp, options, now)
    more = [name for name in (additional or "").lower().split(";") if name]
    canonical = _canonical_v4(asked, more)
    scope = f"{day}/{region}/oss/aliyun_v4_request"
    wanted = f"OSS4-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = ("aliyun_v4" + secret).encode()
    for step in (day, region, "oss", "aliyun_v4_request", wanted):
        key = hmac.digest(key, step.encode(), hashlib.sha256)
    _compare(key.hex(), given, wanted, access_key, CanonicalRequest=canonical)
    return who


def _canonical_v4(asked: Asked, additional: list[str]) -> str:
    place = f"/{asked.bucket}/{asked.key}" if asked.bucket else "/"
    pairs = sorted((quote(name, safe=""), quote(value, safe="")) for name, value in asked.query.items())
    search = "&".join(name + (f"={value}" if value else "") for name, value in pairs)
    taken = sorted(
        name
        for name in asked.headers
        if name in {"content-type", "content-md5", *additional} or name.startswith("x-oss-")
    )
    block = "".join(f"{name}:{asked.headers[name].strip()}\n" for name in taken)
    return "\n".join(
        (asked.method, quote(place, safe="/"), search, block, ";".join(sorted(additional)), "UNSIGNED-PAYLOAD")
    )


def _in_time(stamp: float, options: OssOptions, now: float) -> None:
    if abs(stamp - now) > options.skew:
        raise RefusedError(403, "RequestTimeTooSkewed", "The difference between request and server time is too large.")


def _compare(right: str, given: str, text: str, access_key: str, **extra: str) -> None:
    if not hmac.compare_digest(right.encode(), given.encode()):
        raise RefusedError(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided.",
            StringToSign=text,
            StringToSignBytes=text.encode().hex(" "),
            SignatureProvided=given,
            OSSAccessKeyId=access_key,
            **extra,
        )
