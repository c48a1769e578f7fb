"""Accounts of Qiniu Kodo: whose key pairs sign upload tokens, for which buckets, and how a vendor makes its tokens.

A vendor of the sandbox that stores at Kodo has one row here and signs with `upload_token`. Qiniu's developer manual,
'upload token', 'download token' and 'callback': HMAC-SHA1, URL-safe base64 with its padding.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True)
class Account:
    """One key pair and its buckets; an object of a private bucket is read with a signed address only."""

    access_key: str
    secret_key: str
    buckets: tuple[str, ...]
    private: tuple[str, ...] = ()
    file_last: bool = False  # its owner's manual says that a form's file comes last


# Made up: they open nothing but this sandbox.
ACCOUNTS: dict[str, Account] = {
    "kodo": Account(
        "dumbwaiter-kodo-access-key-0000000000001",
        "dumbwaiter-kodo-secret-0001",
        ("demo-bucket", "demo-private"),
        ("demo-private",),
    ),
    "jiandaoyun": Account(
        "dumbwaiter-forms-access-key-000000000001",
        "dumbwaiter-forms-secret-0001",
        ("demo-jdy-upload",),
        ("demo-jdy-upload",),
        file_last=True,
    ),
    "xinhua": Account("dumbwaiter-image-access-key-000000000000001", "dumbwaiter-image-secret-0001", ("demo-c360",)),
    "careyshop": Account("DUMBWAITERTESTAK0001", "dumbwaiter-test-secret-0001", ("careyshop",)),
}


def by_key(access_key: str) -> Account | None:
    """The account that an access key belongs to."""
    return next((one for one in ACCOUNTS.values() if one.access_key == access_key), None)


def of_bucket(bucket: str) -> Account | None:
    """The account that owns a bucket."""
    return next((one for one in ACCOUNTS.values() if bucket in one.buckets), None)


def sign(account: Account, text: str) -> str:
    """The signature of a text."""
    made = hmac.digest(account.secret_key.encode(), text.encode(), hashlib.sha1)
    return base64.urlsafe_b64encode(made).decode()


def upload_token(account: Account, policy: Mapping[str, object] | str) -> str:
    """The upload token for a put policy, which may be text that is JSON already."""
    text = policy if isinstance(policy, str) else json.dumps(policy, ensure_ascii=False, separators=(",", ":"))
    encoded = base64.urlsafe_b64encode(text.encode()).decode()
    return f"{account.access_key}:{sign(account, encoded)}:{encoded}"


def download_url(account: Account, base: str, bucket: str, key: str, deadline: float) -> str:
    """The signed address of an object; `base` is the download service's address."""
    url = f"{base}/{quote(bucket)}/{quote(key)}?e={int(deadline)}"
    return f"{url}&token={account.access_key}:{sign(account, url)}"


def callback_authorization(account: Account, path: str, body: str, *, form: bool) -> str:
    """The Authorization header of a callback; the body counts when it is a form's."""
    return f"QBox {account.access_key}:{sign(account, path + chr(10) + (body if form else ''))}"
