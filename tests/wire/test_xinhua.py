"""Known answers of the request token, and what is read of a JWT."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.wire.xinhua import lifetime, request_token

# RFC 7515, appendix A.1 (the same as RFC 7519, section 3.1); its payload has no "iat".
RFC_7519 = (
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"
    ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
)
# The claims that the vendor's interface document shows, in its order; 72000 seconds from iat to exp.
JWT = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJhayI6ImR3VGVzdEFrMDAwMDAwMDAwMDAwMDAwMSIsIm1zIjpbeyJtIjoicGcteGhzLWdvIiwi"
    "cnMiOjEwLCJybSI6MH1dLCJ2dCI6IjE2OTQ1MzQ0MDAtMTg5OTA0MzIwMCIsImV4cCI6MTcwMDA3MjAwMCwiaWF0IjoxNzAwMDAwMDAwLCJpc3Mi"
    "OiJwaW5ndW8uYWktcGxhdGZvcm0ifQ.D8FiAcvBLBwyS8qR4xQgh8NJor0YthsJW4NLOh01X94"
)


@pytest.mark.parametrize(
    ("seconds", "models", "signature"),
    [
        (72000, ["pg-xhs-go"], "513613431ec8b34684debf23509ad0b01309ce89860091bbb884a11af4860c0f"),
        (259200, ["m-one", "m-two"], "d5986378520d5f4214edae9113cd5308ee0a96c7e8b2ea7868f81ad951607fc1"),
        (7200, [], "e73e303cb201aee1804e9f8bfd4c6137a5c49305471e014d5311c7477597eed9"),
    ],
)
def test_the_signature_stands_first_and_covers_all_behind_it(seconds: int, models: list[str], signature: str) -> None:
    """Computed with OpenSSL: `printf %s "$info" | openssl dgst -sha256 -hmac dw-test-xinhua-sk`."""
    token = request_token("dwTestAk0000000000000001", "dw-test-xinhua-sk", 1700000000.9, float(seconds), models)
    assert token == f"{signature}:dwTestAk0000000000000001:1700000000:{seconds}:{','.join(models)}"


def test_a_jwt_lives_from_its_issue_to_its_end() -> None:
    assert lifetime(JWT) == 72000


@pytest.mark.parametrize("length", range(4))
def test_a_jwt_of_any_length_is_read(length: int) -> None:
    """Its base64 stands without the signs that fill it up."""
    payload = base64.urlsafe_b64encode(json.dumps({"iat": 5, "exp": 65, "ak": "x" * length}).encode()).decode()
    assert lifetime(f"e30.{payload.rstrip('=')}.c2ln") == 60


def test_a_jwt_without_its_times_says_nothing() -> None:
    assert lifetime(RFC_7519) is None


@pytest.mark.parametrize("claims", [{"iat": 5, "exp": 5}, {"iat": 9, "exp": 5}, {"iat": "x", "exp": 5}, [], "text"])
def test_times_that_make_no_sense_say_nothing(claims: object) -> None:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    assert lifetime(f"e30.{payload}.c2ln") is None


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]{0,8}\.[A-Za-z0-9_=-]{0,60}\.[A-Za-z0-9_-]{0,8}"))
def test_a_malformed_jwt_is_no_failure(text: str) -> None:
    assert lifetime(text) is None or lifetime(text) > 0  # type: ignore[operator]
