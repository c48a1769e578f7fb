"""NetEase's formats by known answers.

The tokens are the two worked examples of NetEase's NOS manual ("upload policy"); the signatures in them are the
manual's own. The checksums follow the VOD server manual ("interface authentication"): SHA-1 over secret, nonce and
seconds, recomputed with `sha1sum`.
"""

import base64
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dumbwaiter.wire.nos import Policy, checksum, policy

MANUAL_POLICY = "eyJCdWNrZXQiOiJkb2MiLCJPYmplY3QiOiJhbm5lLmpwZyIsIkV4cGlyZXMiOjE0NTE0OTEyMDB9"
MANUAL_KEY = "b6ff5ed65d1041e9a56e2257a2672990"
MANUAL_SIGN = "+SL08gyotpanS0qQdqugiWVdDSlsfrQr6YXUNw0Nkz4="


def token(policy64: str) -> str:
    return f"UPLOAD {MANUAL_KEY}:{MANUAL_SIGN}:{policy64}"


def encoded(members: object) -> str:
    return base64.b64encode(json.dumps(members, ensure_ascii=False).encode()).decode()


@pytest.mark.parametrize(
    ("secret", "nonce", "seconds", "expected"),
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
def test_the_checksum_is_sha1_over_secret_nonce_and_seconds(
    secret: str, nonce: str, seconds: str, expected: str
) -> None:
    assert checksum(secret, nonce, seconds) == expected


def test_the_policy_of_the_manuals_token_is_read() -> None:
    assert policy(token(MANUAL_POLICY)) == Policy("doc", "anne.jpg", 1451491200)


def test_a_policy_with_everything_in_it_is_read() -> None:
    made = encoded(
        {
            "Bucket": "voddumb01",
            "Object": "a/b 测试.txt",
            "Expires": 4102329600,
            "ObjectSizeMin": 1,
            "ObjectSizeMax": 2048,
            "MimeLimit": "image/*;video/mp4",
            "OverWrite": 1,
            "CallbackUrl": "http://broker.test/nos/callback",
            "CallbackBody": "size=$(ObjectSize)",
        }
    )
    assert policy(token(made)) == Policy("voddumb01", "a/b 测试.txt", 4102329600, 1, 2048, "image/*;video/mp4")


def test_the_signature_may_hold_every_letter_of_base64() -> None:
    """It may hold "/" and "+" and ends in "=", none of which parts a token."""
    assert policy(f"UPLOAD ak:/+/+=:{MANUAL_POLICY}") == Policy("doc", "anne.jpg", 1451491200)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "UPLOAD ",
        "UPLOAD ak:sign",
        "UPLOAD ak:sign:",
        "UPLOAD ak:sign:!!!",
        "UPLOAD ak:sign:é",
        "UPLOAD ak:sign:测试",
        token(MANUAL_POLICY[:-1]),
        token(base64.b64encode(b"\xff\xfe").decode()),
        token(base64.b64encode(b"not JSON").decode()),
        token(encoded([])),
        token(encoded(None)),
        token(encoded({})),
        token(encoded({"Bucket": "b"})),
        token(encoded({"Bucket": 1, "Object": "o"})),
        token(encoded({"Bucket": "b", "Object": "o", "Expires": "soon"})),
        token(encoded({"Bucket": "b", "Object": "o", "ObjectSizeMax": 1.5})),
    ],
)
def test_what_holds_no_policy_is_an_opaque_token(text: str) -> None:
    assert policy(text) is None


def test_a_policy_in_which_something_is_nested_deep_is_read_or_opaque() -> None:
    """How deep a parser goes is Python's own affair."""
    deep = b'{"Bucket":"b","Object":"o","x":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    assert policy(token(base64.b64encode(deep).decode())) in {None, Policy("b", "o")}


@given(st.text())
@example("a:b:\x80")
def test_no_text_makes_the_policy_reader_raise(text: str) -> None:
    assert policy(text) is None or text.count(":") >= 2
    made = policy(f"UPLOAD a:b:{text}")
    assert made is None or isinstance(made, Policy)


@given(st.binary(max_size=200))
def test_no_bytes_in_a_policy_make_its_reader_raise(content: bytes) -> None:
    made = policy(token(base64.b64encode(content).decode()))
    assert made is None or isinstance(made, Policy)


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.integers(0, 2**53),
)
def test_a_policy_survives_the_way_through_a_token(bucket: str, name: str, expires: int) -> None:
    made = encoded({"Bucket": bucket, "Object": name, "Expires": expires})
    assert policy(token(made)) == Policy(bucket, name, expires)
