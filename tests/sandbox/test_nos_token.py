"""Known answers: the examples that NetEase's manual publishes, and others computed apart from this code.

They stand in for NetEase's own client, nos-python-sdk: its last version runs on Python 2 only (urllib2, iteritems), and it
signs with the account's key pair in an Authorization header, which is not the interface that takes tokens.
"""

import base64
import json

import pytest

from dumbwaiter_sandbox.netease import nos_token
from dumbwaiter_sandbox.netease.nos_token import TokenError

POLICY64 = "eyJCdWNrZXQiOiJkb2MiLCJPYmplY3QiOiJhbm5lLmpwZyIsIkV4cGlyZXMiOjE0NTE0OTEyMDB9"
ACCESS = "nosak0000000000000000000000000001"
SECRET = "nossk0000000000000000000000000001"
CLIP = "33cf71b1-86ac-4555-a071-d70db07b9685.bin"


@pytest.mark.parametrize(
    ("secret", "sign"),
    [
        ("SecretKey", "v8Q5BNIJuEoi6zckOzPuC5hADL4t/zNaecakkk8STuE="),
        ("ae0208eea57c4bc9bc5754368c06a542", "+SL08gyotpanS0qQdqugiWVdDSlsfrQr6YXUNw0Nkz4="),
    ],
)
def test_the_manuals_signatures(secret, sign):
    assert nos_token.sign(secret, POLICY64) == sign


@pytest.mark.parametrize(
    ("policy", "sign"),
    [
        ({"Object": CLIP}, "INgsTrjpcNF/+udJ6KAnQDZ0kKqQnIjJgdZpPCTa3g0="),
        ({"Object": "a/b 测试.txt"}, "PgvyItLL4Q/gwLNsD9o6I6gPIqKTlcGsz473pyO2sVM="),
        (
            {
                "Object": CLIP,
                "CallbackUrl": "http://broker.test/nos/callback",
                "CallbackBody": f"objectName={CLIP}&size=$(ObjectSize)",
            },
            "3lYj7ez3TZdotd/sCnzFGQK0Hnt2LXyloKy64xHjg1A=",
        ),
    ],
)
def test_minted_tokens(policy, sign):
    name = policy.pop("Object")
    token = nos_token.mint(ACCESS, SECRET, {"Bucket": "voddumb01", "Object": name, "Expires": 4102329600, **policy})
    assert token.startswith(f"UPLOAD {ACCESS}:{sign}:")
    checked = nos_token.check(token, ACCESS, SECRET, 4102329599)
    assert (checked.bucket, checked.object, checked.expires) == ("voddumb01", name, 4102329600)


def test_a_complete_header():
    policy = {"Bucket": "voddumb01", "Object": CLIP, "Expires": 4102329600}
    assert nos_token.mint(ACCESS, SECRET, policy).endswith(
        ":eyJCdWNrZXQiOiJ2b2RkdW1iMDEiLCJPYmplY3QiOiIzM2NmNzFiMS04NmFjLTQ1NTUtYTA3MS1kNzBkYjA3Yjk2ODUuYmluIiwiRXhwaXJlcyI6NDEwMjMyOTYwMH0="
    )


@pytest.mark.parametrize(
    ("secret", "nonce", "curtime", "answer"),
    [
        (
            "vcloudsecret0001",
            "4tgggergigwow323t23t",
            "1465723418",
            "bca063ca104f8d19bf6d6a5d7612a7143c62a8eb",
        ),
        ("vcloudsecret0001", "1", "1465723418", "4b0182f4cc88afbbedaafd6cbc11e3c084dc0f17"),
        ("000000000000", "1", "1443592222", "23100db3f89a0b1f01ad91b73d430b2e5686fa31"),
    ],
)
def test_checksums(secret, nonce, curtime, answer):
    assert nos_token.checksum(secret, nonce, curtime) == answer


def test_a_download_signature():
    signature = nos_token.download_signature(SECRET, "1498558005", "voddumb01", CLIP)
    assert signature == "/8cnM9NbZ973+AsDKwAJr/ei51iPKZoe2nFcjd2uR0o="


def test_the_text_is_checked_as_received():
    """Spaces and order of the policy are the broker's own."""
    text = base64.b64encode(b'{ "Expires": 10 ,"Object":"o", "Bucket":"b" }').decode()
    policy = nos_token.check(f"UPLOAD {ACCESS}:{nos_token.sign(SECRET, text)}:{text}", ACCESS, SECRET, 9)
    assert (policy.bucket, policy.object) == ("b", "o")


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"Bucket": "b", "Object": "o"}, "malformed"),
        ({"Bucket": "b", "Object": 3, "Expires": 10}, "malformed"),
        ({"Bucket": "b", "Object": "o", "Expires": "soon"}, "malformed"),
        ({"Bucket": "b", "Object": "\ud800", "Expires": 10}, "malformed"),
        ({"Bucket": "b", "Object": "o", "Expires": 10**400}, "malformed"),
        ({"Bucket": "b", "Object": "o", "Expires": 10, "ObjectSizeMax": float("inf")}, "malformed"),
        ({"Bucket": "b", "Object": "o", "Expires": 9}, "expired"),
        ([], "malformed"),
    ],
)
def test_a_signed_policy_that_is_refused(policy, words):
    text = base64.b64encode(json.dumps(policy).encode()).decode()
    with pytest.raises(TokenError, match=words):
        nos_token.check(f"UPLOAD {ACCESS}:{nos_token.sign(SECRET, text)}:{text}", ACCESS, SECRET, 9)


@pytest.mark.parametrize(
    "token", ["", "UPLOAD ", "UPLOAD a:b", f"upload {ACCESS}:x:y", "UPLOAD other:x:y", f"UPLOAD {ACCESS}:ü:y"]
)
def test_a_token_that_is_refused(token):
    with pytest.raises(TokenError):
        nos_token.check(token, ACCESS, SECRET, 0)
