"""What an answer of OSS means for the upload: OSS's manual, "error responses" and the page of each call."""

from dumbwaiter.errors import Blocked, Conflict, Reauth, Reject, Restart, Retry, Verdict
from dumbwaiter.naming import shown
from dumbwaiter.wire.message import Reply
from dumbwaiter.wire.oss import Trouble, trouble

KEY_MAX = 1023  # bytes
EXPIRED = frozenset(
    {
        "SecurityTokenExpired",
        "InvalidSecurityToken",
        "InvalidAccessKeyId",
        "AccessKeyIdAndSecurityTokenNotMatch",
        "SignatureDoesNotMatch",  # of a triple whose members come from two answers, too
    }
)
ACCOUNT = frozenset(
    {
        "AccessDenied",
        "NoSuchBucket",
        "InvalidBucketName",
        "UserDisable",
        "BucketDisable",
        "SecondLevelDomainForbidden",
        "PermanentRedirect",
        "TemporaryRedirect",
    }
)
AGAIN = frozenset({"RequestTimeout", "BadRequest", "InvalidDigest", "RequestTimeTooSkewed"})
ANEW = frozenset({"NoSuchUpload", "InvalidPart", "InvalidPartOrder", "MalformedXML", "EntityTooSmall"})


def check_key(key: str) -> None:
    """Raises `Reject` for a key that OSS does not take."""
    length = len(key.encode())
    if not 0 < length <= KEY_MAX:
        raise Reject(f"the key has {length} bytes; OSS takes 1 to {KEY_MAX}")


def verdict(reply: Reply, *, form: bool = False) -> Verdict:
    """Returns what follows an answer that is no success. `form`: of a form, which has a policy and no parts."""
    found = trouble(reply.body)
    words = _words(found, reply.status)
    if reply.is_temporary or found.code in AGAIN or not found.code:
        return Retry(f"OSS answers {words}", after=reply.after)
    if found.code in EXPIRED or "expired" in found.message.lower():
        return Reauth(f"OSS refuses the credentials: {words}")
    if form and "Policy" in found.message:
        return Reject(f"the upload policy does not allow this file: {words}")
    if not form and found.code in ANEW:
        return Restart(f"OSS cannot go on with this upload: {words}")
    if found.code == "FileAlreadyExists":
        return Conflict(f"OSS has another object of this name: {words}")
    if found.code in ACCOUNT:
        return Blocked(f"OSS refuses the account: {words}")
    if reply.status < 400:  # an error within a success is of OSS's making
        return Retry(f"OSS answers {words}")
    return Reject(f"OSS refuses the file: {words}")


def check_genuine(reply: Reply) -> Reply:
    """Returns an answer that shows it is OSS's own. Raises what `Reply.foreign` returns: a portal's page has status 200 too."""
    names = reply.headers.keys()
    if "etag" not in names and not any(name.startswith("x-oss-") for name in names):
        raise reply.foreign("something other than OSS answered in its place")
    return reply


def compared(reply: Reply, crc: int) -> str:
    """Returns "crc64" if the answer shows that our bytes arrived, nothing if it does not say. Raises `Retry`."""
    theirs = reply.headers.get("x-oss-hash-crc64ecma", "")
    if not theirs.isdecimal():
        return ""
    if len(theirs) > 20 or int(theirs) != crc:  # more digits, no number of 64 bits has
        raise Retry("OSS received other bytes than were sent")
    return "crc64"


def tag(reply: Reply) -> str:
    """Returns the ETag without its quotes, empty without one."""
    return reply.headers.get("etag", "").strip('"')


def answer(reply: Reply) -> dict[str, str]:
    """Returns, as facts of the receipt, what became of the callback."""
    if reply.status == 203:
        return {"callback": "failed", "callback_said": shown(_words(trouble(reply.body), 203))}
    return {"answer": reply.body.decode("utf-8", "replace")}


def _words(found: Trouble, status: int) -> str:
    return " ".join(part for part in (found.code, found.message[:200]) if part) or f"status {status}"
