"""The policy of a form: signed over its base64 text, with an end and conditions on fields and size.

OSS's manual, 'PostObject'. What the policy does not mention is allowed.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dumbwaiter_sandbox.oss.refusal import RefusedError

TRIPLE = ("OSSAccessKeyId", "policy", "Signature")


@dataclass(frozen=True)
class Bounds:
    """How many bytes the file may have."""

    low: int = 0
    high: int = 5 * 1024**3

    def check(self, size: int) -> None:
        """Raises RefusedError."""
        if size > self.high:
            raise RefusedError(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size.")
        if size < self.low:
            raise RefusedError(400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size.")


def signature(secret: str, policy: str) -> str:
    """The signature of a policy, which is base64 already."""
    return base64.b64encode(hmac.digest(secret.encode(), policy.encode(), hashlib.sha1)).decode()


def check(fields: Mapping[str, str], secret: str, bucket: str, now: float) -> Bounds:
    """Hold a form's fields against its policy. Raises RefusedError."""
    encoded = fields["policy"]
    if not hmac.compare_digest(signature(secret, encoded).encode(), fields["Signature"].encode()):
        raise RefusedError(403, "SignatureDoesNotMatch", "The signature of the policy is wrong.", StringToSign=encoded)
    try:
        document = json.loads(base64.b64decode(encoded, validate=True))
        end = datetime.fromisoformat(document["expiration"]).replace(tzinfo=UTC).timestamp()
        conditions = document["conditions"]
        if not conditions or document.keys() - {"expiration", "conditions"}:
            raise ValueError("members")
    except (ValueError, KeyError, TypeError):
        raise RefusedError(400, "InvalidPolicyDocument", "The policy is not valid.") from None
    if now > end:
        raise RefusedError(403, "AccessDenied", "Invalid according to Policy: Policy expired.")
    bounds = Bounds()
    for condition in conditions:
        bounds = _hold(condition, {**fields, "bucket": bucket}, bounds)
    return bounds


def _hold(condition: Any, fields: Mapping[str, str], bounds: Bounds) -> Bounds:
    match condition:
        case ["content-length-range", int() as low, int() as high]:
            return Bounds(low, high)
        case ["eq", str() as name, str() as value] if name.startswith("$"):
            right = fields.get(name[1:]) == value
        case ["starts-with", str() as name, str() as prefix] if name.startswith("$"):
            right = fields.get(name[1:], "").startswith(prefix)
        case {} if len(condition) == 1:
            ((name, value),) = condition.items()
            right = fields.get(name) == value
        case _:
            raise RefusedError(400, "InvalidPolicyDocument", "A condition of the policy is not valid.")
    if not right:
        said = json.dumps(condition)
        raise RefusedError(403, "AccessDenied", f"Invalid according to Policy: Policy Condition failed: {said}")
    return bounds
