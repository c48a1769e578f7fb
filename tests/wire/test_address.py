"""Where an answer may send us to."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.errors import Blocked
from dumbwaiter.wire.address import allowed, check_redirect, expires_at, inside
from dumbwaiter.wire.message import Reply

PUBLIC = "http://wanproxy.127.net"
OWN = "http://127.0.0.1:8000"

OUTSIDE = [
    "http://59.111.35.13",
    "http://59.111.35.13:8080",
    "https://nosup-eastchina1.126.net",
    "https://nosup-eastchina1.126.net/",
    "http://NOSUP-eastchina1.126.net",
    "http://[2606:4700:4700::1111]",
    "http://[2606:4700:4700::1111]:8443",
    "http://local.example.com",
    "http://0xcafe.example.com",
    "http://1.example.com",
]
INSIDE = [
    "http://127.0.0.1",
    "http://127.0.0.1:80",
    "http://127.0.0.1.",
    "http://127.1",
    "http://0",
    "http://2130706433",
    "http://0x7f000001",
    "http://0X7F.1",
    "http://0177.0.0.1",
    "http://127.0x0.0.1",
    "http://127.0.0.0x1",
    "http://010.0.0.1",
    "http://0.0.0.0",
    "http://10.0.0.1",
    "http://172.16.0.1",
    "http://192.168.1.1",
    "http://100.64.0.1",
    "http://169.254.169.254",
    "http://255.255.255.255",
    "http://192.0.0.192",
    "http://192.88.99.1",
    "http://[::ffff:192.0.0.192]",
    "http://[3fff::1]",
    "http://[3fff:fff::1]",
    "http://[5f00::1]",
    "http://[::1]",
    "http://[::]",
    "http://[::ffff:127.0.0.1]",
    "http://[::ffff:10.0.0.1]",
    "http://[fe80::1]",
    "http://[fe80::1%25eth0]",
    "http://[fc00::1]",
    "http://localhost",
    "http://LocalHost:8080",
    "http://localhost.",
    "http://a.localhost",
    "http://printer.local",
    "http://printer.local.",
    "http://metadata.google.internal",
    "http://metadata.google.internal.",
    "http://router",
]
NEVER = [
    "",
    "nosup-eastchina1.126.net",
    "//nosup-eastchina1.126.net",
    "ftp://nosup-eastchina1.126.net",
    "file:///etc/passwd",
    "http://",
    "http:///",
    "http://:80",
    "http://user@nosup-eastchina1.126.net",
    "http://user:word@nosup-eastchina1.126.net",
    "http://@nosup-eastchina1.126.net",
    "http://nosup-eastchina1.126.net@169.254.169.254",
    "http://nosup-eastchina1.126.net\\@169.254.169.254",
    "http://nosup-eastchina1.126.net/path",
    "http://nosup-eastchina1.126.net//",
    "http://nosup-eastchina1.126.net?query",
    "http://nosup-eastchina1.126.net/?query",
    "http://nosup-eastchina1.126.net#fragment",
    "http://nosup-eastchina1.126.net:99999",
    "http://nosup-eastchina1.126.net:port",
    "http://[::1",
    "http://127。0。0。1",  # a client's own rules for names make plain dots of these
    "http://１２７.０.０.１",
    "http://ｌocalhost",
]


@pytest.mark.parametrize("url", OUTSIDE)
@pytest.mark.parametrize("base", [PUBLIC, OWN])
def test_an_address_on_the_public_internet_is_allowed(url: str, base: str) -> None:
    assert allowed(url, base=base)


@pytest.mark.parametrize("url", INSIDE)
def test_an_address_inside_is_allowed_only_to_a_base_that_is_inside(url: str) -> None:
    assert not allowed(url, base=PUBLIC)
    assert allowed(url, base=OWN)


@pytest.mark.parametrize("url", NEVER)
@pytest.mark.parametrize("base", [PUBLIC, OWN])
def test_what_is_not_plain_scheme_and_host_is_never_allowed(url: str, base: str) -> None:
    assert not allowed(url, base=base)


@given(st.integers(0x7F000000, 0x7FFFFFFF), st.data())
def test_loopback_is_found_in_every_spelling_that_a_resolver_takes(number: int, data: st.DataObject) -> None:
    octets = number.to_bytes(4, "big")
    count = data.draw(st.integers(1, 4), label="parts")
    parts = [*octets[: count - 1], int.from_bytes(octets[count - 1 :], "big")]
    spelled = ".".join(data.draw(st.sampled_from([f"{part}", f"{part:#x}", f"0{part:o}"])) for part in parts)
    assert inside(spelled)


@given(st.text(), st.sampled_from([PUBLIC, OWN]))
def test_no_text_makes_it_raise(text: str, base: str) -> None:
    assert allowed(text, base=base) in {True, False}
    assert allowed(f"http://{text}", base=base) in {True, False}


@pytest.mark.parametrize(
    ("url", "end"),
    [
        ("https://files.example/Fto5o?e=1800000000&token=a:b=", 1_800_000_000.0),
        ("http://h/o?NOSAccessKeyId=k&Expires=1800000001&download=a.mov&Signature=x", 1_800_000_001.0),
        ("http://h/o", None),
        ("http://h/o?e=soon", None),
        ("http://h/o?e=", None),
        ("http://h/o?e=" + "9" * 400, None),
        ("http://h/o?e=\u0661\u0662", None),
        ("http://[h/o?e=1", None),
    ],
)
def test_a_signed_address_says_when_it_ends(url: str, end: float | None) -> None:
    assert expires_at(url) == end


BASE = "http://shop.example/api/v1"
ASKED = f"{BASE}/upload/method/token.html?sign=secret"


@pytest.mark.parametrize(
    ("status", "location", "place"),
    [
        (301, "https://shop.example/api/v1/upload/method/token.html?sign=secret", "https://shop.example/api/v1"),
        (308, "https://shop.example/api/v2/upload/method/token.html", "https://shop.example/api/v2"),
        (302, "https://shop.example/api/v1/upload/method/token.html", "https://shop.example/api/v1"),
        (307, "http://shop.example:8080/api/v1/upload/method/token.html", "http://shop.example:8080/api/v1"),
        (302, "/login?from=secret", "http://shop.example/login"),
        (301, "https://secret:secret@other.example/x", "https://other.example/x"),
    ],
)
def test_a_service_that_has_moved_is_a_persons_business(status: int, location: str, place: str) -> None:
    with pytest.raises(Blocked) as raised:
        check_redirect(Reply(status, {"location": location}), ASKED, base=BASE, key="api")
    assert str(raised.value) == f"the service has moved to {place} (status {status}): set api accordingly"


@pytest.mark.parametrize(
    ("status", "location"),
    [
        (302, "http://portal.example/sign-in"),
        (307, "http://portal.example/api/v1/upload/method/token.html"),
        (301, "http://192.168.0.1/sign-in"),
        (302, "http://10.0.0.1"),
        (302, ASKED),
        (302, "?seen=1"),
        (301, ""),
        (301, "http://[::1"),
        (301, "mailto:somebody"),
        (304, "https://shop.example/"),
        (200, "https://shop.example/"),
    ],
)
def test_what_may_be_a_portals_redirect_passes(status: int, location: str) -> None:
    check_redirect(Reply(status, {"location": location} if location else {}), ASKED, base=BASE, key="api")


def test_where_a_path_may_hold_a_secret_none_is_shown() -> None:
    """A recipe's address may have one in a blank."""
    url = "http://api.example/secret/grant"
    with pytest.raises(Blocked) as raised:
        check_redirect(
            Reply(301, {"location": "https://api.example/v2/secret"}), url, base=url, key="request.url", path=False
        )
    assert str(raised.value) == (
        "the service has moved to https://api.example (status 301): set request.url accordingly"
    )


@given(st.text())
def test_no_location_breaks_the_reader(location: str) -> None:
    with contextlib.suppress(Blocked):
        check_redirect(Reply(301, {"location": location}), ASKED, base=BASE, key="api")
