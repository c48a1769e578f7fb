"""Accounts of the OSS sandbox: the permanent key pair, and the temporary ones that are made from it.

OSS's manual, 'STS temporary access credentials'. A security token carries its own end and its session policy, signed, so that
it outlives a restart of the sandbox. The RSA key signs callbacks ('verify the signature of a callback', PKCS#1 v1.5 with MD5).
"""

import base64
import hashlib
import hmac
import json
import os
from dataclasses import dataclass

# Made up: they open nothing but this sandbox.
ACCESS_KEY = "DUMBWAITERTESTAK0001"
SECRET = "dumbwaiter-test-secret-0001"  # noqa: S105 - made up
BUCKET = "careyshop-oss"
REGION = "cn-hangzhou"
PUT_ONLY = '{"Version":"1","Statement":[{"Effect":"Allow","Action":["oss:PutObject"],"Resource":["acs:oss:*:*:*"]}]}'

PUBLIC_KEY = """-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC+zCt0NlrSNvzoo9ia+SWlNU7j
2hyka6LR2Sz6YuoCuQcV0++c7DiUyrw2dpHOWqhC6lR1tJD7UrR/rDR9XfCUw6wU
obSanRkYIWapNtMulYJ0A3XhOuwIplw3WC5AaapwB8zJj6WjKJZb1nzmk4VtIP6g
JQinaKD7H/8XSpg3oQIDAQAB
-----END PUBLIC KEY-----
"""
_MODULUS = int(
    "becc2b74365ad236fce8a3d89af925a5354ee3da1ca46ba2d1d92cfa62ea02b90715d3ef9cec3894cabc367691ce5aa842ea5475b490fb52"
    "b47fac347d5df094c3ac14a1b49a9d19182166a936d32e9582740375e13aec08a65c37582e4069aa7007ccc98fa5a328965bd67ce693856d"
    "20fea02508a768a0fb1fff174a9837a1",
    16,
)
_PUBLIC = 65537
_PRIVATE = int(
    "b45a105548afeef795775eb178443c667f0e74690f1c08b69ec03838f2591b7bc50bc80b3e7d383ac5acc59aacd6af714fd76b40dc0f13d2"
    "28d66a742f7125e0071ef5e27faed32c72e85f12fbb97257dff978dd74b44e5e22f2d4f912c3f79da66be9e1e9de5a3cb58b27b90b54ee2c"
    "f2ab88b7546cf5eb8512331335ab05c1",
    16,
)
_MD5 = bytes.fromhex("3020300c06082a864886f70d020505000410")  # how PKCS#1 names the digest


@dataclass(frozen=True)
class Session:
    """A temporary key pair: when it ends, and what it may do."""

    access_key: str
    secret: str
    token: str
    expires: float
    policy: str = PUT_ONLY


def mint(expires: float, policy: str = PUT_ONLY) -> Session:
    """A new temporary key pair."""
    access_key = f"STS.{base64.b32encode(os.urandom(15)).decode()}"
    claims = json.dumps({"key": access_key, "expires": expires, "policy": policy}).encode()
    token = "CAIS" + base64.b64encode(_seal(claims) + claims).decode()
    return Session(access_key, _secret(access_key), token, expires, policy)


def session(token: str) -> Session | None:
    """The key pair that a security token belongs to, None for one that was not made here."""
    try:
        raw = base64.b64decode(token.removeprefix("CAIS"), validate=True)
    except ValueError:
        return None
    if not hmac.compare_digest(raw[:32], _seal(raw[32:])):
        return None
    claims = json.loads(raw[32:])
    return Session(claims["key"], _secret(claims["key"]), token, claims["expires"], claims["policy"])


def _seal(claims: bytes) -> bytes:
    return hmac.digest(SECRET.encode(), b"sts" + claims, hashlib.sha256)


def _secret(access_key: str) -> str:
    return base64.b64encode(hmac.digest(SECRET.encode(), access_key.encode(), hashlib.sha256)).decode()


def rsa_sign(text: bytes) -> str:
    """The signature of a callback."""
    return base64.b64encode(pow(int.from_bytes(_padded(text)), _PRIVATE, _MODULUS).to_bytes(128)).decode()


def rsa_verify(text: bytes, signature: str) -> bool:
    """Whether a callback was signed here."""
    try:
        raw = base64.b64decode(signature, validate=True)
    except ValueError:
        return False
    return pow(int.from_bytes(raw), _PUBLIC, _MODULUS).to_bytes(128) == _padded(text)


def _padded(text: bytes) -> bytes:
    tail = _MD5 + hashlib.md5(text).digest()
    return b"\0\1" + b"\xff" * (128 - 3 - len(tail)) + b"\0" + tail
