"""ImageX's formats by known answers.

The checksums are CRC-32 as zlib, gzip and zip files have it; the permission was made after the shape that ImageX's
answers show, signed with a key of the test's own.
"""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.wire.imagex import Crc32, expires_at, instant, merge_list, same, server_time

MIB = 1024 * 1024
RAMP = bytes(range(256)) * 4096
AUTH = (
    "SpaceKey/tb4s082cfz/1/:version:v2:eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3NjczNDQ2NDUsInNpZ25hdHVyZUluZm8i"
    "OnsiYWNjZXNzS2V5IjoiZmFrZV9hY2Nlc3Nfa2V5IiwiYnVja2V0IjoidG9zLWNuLWktdGI0czA4MmNmeiIsImV4cGlyZSI6MTc2NzM0NDY0NSwi"
    "ZmlsZUluZm9zIjpbeyJva2V5IjoiMDAxMTIyMzM0NDU1NjY3Nzg4OTlhYWJiY2NkZGVlZmYiLCJmaWxlVHlwZSI6IjEifV0sImV4dHJhIjp7ImFj"
    "Y291bnRfcHJvZHVjdCI6ImltYWdleCIsInNwYWNlIjoidGI0czA4MmNmeiJ9fX0.E0X9JQ7w8GQIlYR4vziRr3gros5JV0eNKESdrlTwSwc"
)


def checksum(data: bytes) -> str:
    crc = Crc32()
    crc.update(data)
    return crc.text()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "00000000"),
        (b"hello", "3610a686"),
        (bytes(MIB), "a738ea1c"),
        (RAMP, "04d0e435"),
        (b"pad51", "005b26c4"),
        (b"pad6094", "000539c5"),
    ],
)
def test_a_checksum_has_eight_small_digits(data: bytes, text: str) -> None:
    assert checksum(data) == text


@given(st.lists(st.binary()))
def test_a_checksum_does_not_depend_on_the_pieces(pieces: list[bytes]) -> None:
    crc = Crc32()
    for piece in pieces:
        crc.update(piece)
    assert crc.text() == checksum(b"".join(pieces))


def test_checksums_are_compared_by_value() -> None:
    assert same("5b26c4", "005b26c4")
    assert same("005B26C4", "005b26c4")
    assert not same("005b26c5", "005b26c4")
    assert not same("", "00000000")
    assert not same("none", "00000000")


def test_parts_are_listed_in_their_order() -> None:
    film = RAMP * 12
    parts = {start // (5 * MIB): checksum(film[start : start + 5 * MIB]) for start in (10 * MIB, 0, 5 * MIB)}
    assert merge_list(parts, 1) == b"1:bdbf684d,2:bdbf684d,3:f2a904a4"
    assert merge_list(parts, 0) == b"0:bdbf684d,1:bdbf684d,2:f2a904a4"


def test_the_end_of_a_permission_is_read() -> None:
    assert expires_at(AUTH) == 1767344645


@pytest.mark.parametrize(
    "text", ["", "a.b", ":", "::a.b.c", "SpaceKey/x/1/:version:v2:a.!!!.c", "a:b.W10.c", "a:b.e30"]
)
def test_an_opaque_permission_says_nothing_of_its_end(text: str) -> None:
    assert expires_at(text) is None


@given(st.text())
def test_no_text_makes_the_reader_of_permissions_raise(text: str) -> None:
    assert expires_at(text) is None or text.count(".") >= 1
    expires_at(f"SpaceKey/s/1/:version:v2:h.{text}.s")


@given(st.recursive(st.none() | st.integers() | st.text() | st.floats(), lambda one: st.dictionaries(st.text(), one)))
def test_no_claims_make_the_reader_of_permissions_raise(claims: object) -> None:
    payload = base64.urlsafe_b64encode(json.dumps({"exp": claims}).encode()).decode().rstrip("=")
    expires_at(f"x:h.{payload}.s")


def test_a_request_tells_the_servers_time() -> None:
    assert server_time("20260102110405AAAA0000BBBB1111CCCC22") == 1767323045
    for text in ("", "2026", "99999999999999AAAA", "AAAA20260102110405"):
        assert server_time(text) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1767323045", 1767323045),
        (1767323045, 1767323045),
        (1767323045.5, 1767323045.5),
        ("2026-01-02T03:04:05Z", 1767323045),
        ("2026-01-02T11:04:05+08:00", 1767323045),
        ("2026-01-02T03:04:05", 1767323045),
        (None, None),
        ("", None),
        (0, None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_a_time_is_read_in_every_form(value: str | float | None, seconds: float | None) -> None:
    assert instant(value) == seconds
