"""What every broker promises, against the vendors on loopback, or a server that gives every call the same answer.

The rows are the providers that the sandbox configures, one for each module and terminal that a vendor has, and those of
the page of recipes.
"""

import asyncio
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from msgspec import Struct
from msgspec.structs import fields, replace

import peer
import recipes
from dumbwaiter.brokers import BROKERS
from dumbwaiter.config import options
from dumbwaiter.config.file import load, parse
from dumbwaiter.config.values import SecretSource
from dumbwaiter.errors import Blocked, Reject, Retry, Verdict
from dumbwaiter.model import Grant, Limits, Secret
from dumbwaiter.transports import choose
from dumbwaiter_sandbox.vendors import VENDORS
from peer import Peer
from program import Vendors
from sending import Sender

Make = Callable[..., Sender]
JPEG = b"\xff\xd8\xff" + bytes(1000)
WAITING = 50


class Row(NamedTuple):
    """What fifty files at once cost, which calls renew what is kept, and the limits that a grant says."""

    calls: dict[str, int]
    kept: tuple[str, ...] = ()
    limits: Limits = Limits()


SHOP = {"careyshop.login": 1, "careyshop.token": 1}
RENEW = ("careyshop.refresh",)
HUNDRED = {"forms.token": 1}
SIGNED = {"presign.sign": WAITING}
ROWS = {
    "netease": Row({"vod.init": WAITING, "lbs.get": 1}, ("lbs.get",)),
    "jiandaoyun": Row(HUNDRED, limits=Limits(1, 200 << 20)),
    "recipe": Row(SIGNED),
    "jimeng": Row({"jimeng.token": 1, "imagex.apply": WAITING}, ("jimeng.token",), Limits(1)),
    "dreamina": Row({"dreamina.token": 1, "imagex.apply": WAITING}, ("dreamina.token",), Limits(1)),
    "careyshop": Row(SHOP, RENEW),
    "careyshop-qiniu": Row(SHOP, RENEW, Limits(None, 2 << 20)),
    "careyshop-aliyun": Row(SHOP, RENEW, Limits(0, 2 << 20)),
    "careyshop-sts": Row(SHOP, RENEW),
    "xinhua": Row(
        {"xinhua.jwt": 1, "uc.query": 1, "xinhua.tokens": 3}, ("xinhua.jwt", "uc.query"), Limits(1, 1 << 20, ("image/jpeg",))
    ),
    "signed": Row(SIGNED),
    "forms": Row(SIGNED),
    "bucket": Row(SIGNED),
    "attachments": Row(HUNDRED, limits=Limits(1, 200 << 20)),
}  # fmt: skip
NOBODY = defaultdict(lambda: "http://127.0.0.1:1")
NAMES = [name for vendor in VENDORS for name in vendor.providers(NOBODY)]
NAMES += [name for text in recipes.EXAMPLES for name in parse(text, "recipes.md").provider]
UNTOLD = {"attachments": "Jiandaoyun says it with a status that a recipe takes for the file's refusal: 400"}
every_provider = pytest.mark.parametrize("name", NAMES)


def test_every_provider_has_a_row_and_every_broker_a_provider(vendors: Vendors) -> None:
    assert ROWS.keys() == set(NAMES)
    assert {type(one) for one in known(vendors).values()} == BROKERS.keys()


def known(vendors: Vendors) -> dict[str, options.Provider]:
    return load(vendors.sandbox.config_path).provider | recipes.providers(vendors.sandbox)


@pytest.fixture
def make(sender: Make) -> Make:
    return lambda name, **changes: sender(name, JPEG, "photo.jpg", changes=changes)


@pytest.fixture
def elsewhere(vendors: Vendors, tmp_path: Path) -> Iterator[Callable[[str, str], Sender]]:
    """Makes a sender for a provider whose addresses all are another server's."""
    path = tmp_path / "content"
    path.write_bytes(JPEG)
    made = []

    def make(name: str, url: str) -> Sender:
        made.append(Sender(moved(known(vendors)[name], url), path, name="photo.jpg"))
        return made[-1]

    yield make
    for one in made:
        one.close()


def moved(value: Any, url: str) -> Any:
    match value:
        case str():
            return re.sub(r"http://127\.0\.0\.1:\d+", url, value)
        case Struct():
            return replace(value, **{one.name: moved(getattr(value, one.name), url) for one in fields(value)})
    return value


def calls(vendors: Vendors) -> Counter[str]:
    return Counter(f"{one['service']}.{one['call']}" for one in vendors.log())


def fails(one: Sender, vendors: Vendors) -> Verdict:
    """Asks for a grant and returns what it ended with; no sentence may hold a secret."""
    with pytest.raises(Verdict) as raised:
        one.obtain()
    text = f"{raised.value} {raised.value!r} {raised.value.__cause__!r}"
    assert len(str(raised.value)) > 10
    assert [secret for secret in secrets(vendors) if secret in text] == []
    return raised.value


def secrets(vendors: Vendors) -> list[str]:
    return [source.read().reveal() for one in known(vendors).values() for source in options.secrets(one)]


# What is given


@every_provider
def test_a_grant_says_what_it_is_good_for(name: str, make: Make) -> None:
    one = make(name)
    grant = one.obtain()
    assert choose(grant.ticket, len(JPEG))
    assert grant.limits == ROWS[name].limits
    assert grant.expires_at is not None
    assert grant.expires_at > time.time() + 60


@every_provider
def test_fifty_who_wait_share_what_can_be_shared(name: str, vendors: Vendors, make: Make) -> None:
    one = make(name)

    async def ask() -> list[Grant]:
        asks = (replace(one.ask, seed=f"{number:016x}") for number in range(WAITING))
        return await asyncio.gather(*map(one.provider.grants.obtain, asks))

    grants: list[Grant] = one.run(ask())
    assert calls(vendors) == ROWS[name].calls
    assert len({grant.key for grant in grants} - {None}) in {0, WAITING}


async def nobody(_provider: str, sentence: str) -> None:
    raise AssertionError(sentence)


@every_provider
def test_what_is_kept_is_renewed_ahead_of_its_end(name: str, vendors: Vendors, make: Make) -> None:
    one = make(name)
    one.obtain()
    vendors.http.delete("/_sandbox/log")
    one.run(one.provider.refresh(nobody))
    assert calls(vendors) == {}
    for cached in one.provider._cache._values.values():
        cached.fetched_at -= 0.9 * cached.life
    one.run(one.provider.refresh(nobody))
    assert calls(vendors) == Counter(ROWS[name].kept)
    one.run(one.provider.grants.obtain(one.ask))
    assert set(calls(vendors)) <= {*ROWS[name].kept, *ROWS[name].calls}
    assert all(calls(vendors)[call] == 1 for call in ROWS[name].kept)


@every_provider
def test_what_the_vendor_let_end_is_made_anew(name: str, vendors: Vendors, make: Make) -> None:
    one = make(name)
    first = one.obtain()
    vendors.advance(40 * 86400)
    one.provider.grants.refuse(first, one.ask, 0.0)
    one.grant = None
    one.until_done()


@every_provider
@pytest.mark.parametrize("minutes", [-20, 20])
def test_a_vendors_clock_may_be_wrong(name: str, minutes: int, vendors: Vendors, make: Make) -> None:
    right = make(name).obtain()
    vendors.http.post("/_sandbox/clock", json={"shift": 60 * minutes}).raise_for_status()
    one = make(name)
    one.until_done()
    assert one.grant is not None
    assert one.grant.expires_at == pytest.approx(right.expires_at, abs=60)


@every_provider
def test_nothing_shows_a_secret(name: str, vendors: Vendors, make: Make) -> None:
    one = make(name)
    grant = one.obtain()
    shown = f"{grant!r} {known(vendors)[name]!r} {one.provider.broker!r} {one.ask!r}"
    plain = msgspec.to_builtins(
        grant.ticket, enc_hook=lambda value: value.reveal() if isinstance(value, Secret) else str(value)
    )
    texts = [
        text
        for text in re.findall(r'"([^"]{16,})"', json.dumps(plain, ensure_ascii=False))
        if text not in (grant.key or "")
    ]
    texts = [text for text in texts if not re.fullmatch(r"http://[0-9.:]+/?", text)]
    assert [text for text in [*texts, *secrets(vendors)] if text in shown] == []


# What goes wrong


@pytest.mark.parametrize("name", UNTOLD)
def test_a_wrong_secret_that_cannot_be_told_from_a_wrong_file_is_a_refusal(
    name: str, vendors: Vendors, make: Make
) -> None:
    settings = known(vendors)[name]
    assert isinstance(settings, options.Recipe)
    one = make(name, secrets={key: other(source) for key, source in settings.secrets.items()})
    assert type(fails(one, vendors)) is Reject


@pytest.mark.parametrize("name", [one for one in NAMES if one not in UNTOLD])
def test_a_wrong_secret_blocks_the_account(name: str, vendors: Vendors, make: Make) -> None:
    settings = known(vendors)[name]
    changed: list[dict[str, Any]] = [
        {one.name: other(getattr(settings, one.name))}
        for one in fields(settings)
        if isinstance(getattr(settings, one.name), SecretSource)
    ]
    if isinstance(settings, options.Recipe):
        changed.append({"secrets": {key: other(source) for key, source in settings.secrets.items()}})
    assert changed
    for change in changed:
        verdict = fails(make(name, **change), vendors)
        assert type(verdict) is Blocked
        for source in change.values():
            if isinstance(source, SecretSource):
                assert source.read().reveal() not in str(verdict)


def other(source: SecretSource) -> SecretSource:
    text = source.read().reveal()
    return SecretSource("literal", text[:-1] + ("0" if text[-1] != "0" else "1"))


@every_provider
def test_a_vendor_that_is_away_is_waited_for(name: str, vendors: Vendors, make: Make) -> None:
    vendors.faults("*:down")
    one = make(name)
    verdict = fails(one, vendors)
    assert isinstance(verdict, Retry)
    assert "127.0.0.1" in str(verdict)
    vendors.faults("")
    one.obtain()


@every_provider
@pytest.mark.parametrize("fault", ["html", "empty", "302", "408", "429", "500", "cut", "cut-after", "cut-reply"])
def test_whichever_call_goes_wrong_it_passes(name: str, fault: str, vendors: Vendors, make: Make) -> None:
    make(name).obtain()
    for step in range(1, len(calls(vendors)) + 1):
        vendors.faults(f"*:{fault}@{step}")
        one = make(name)
        verdict = fails(one, vendors)
        assert isinstance(verdict, Retry)
        one.obtain()


GARBAGE = [
    b"",
    b"<html>sign in to this network</html>",
    b"{}",
    b"[]",
    b"null",
    b"7",
    b'"text"',
    b'{"data": 7, "ret": [], "code": {}, "status": {}, "token_and_url_list": 1, "upload": true}',
    b"[" * 100_000,
    b"\xff\xfe\x00",
]


@every_provider
def test_an_answer_that_is_none_is_trouble_that_passes(name: str, vendors: Vendors, elsewhere: Any) -> None:
    for body in GARBAGE:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
        with Peer(peer.echo([], head + body)) as server:
            verdict = fails(elsewhere(name, server.url), vendors)
        assert isinstance(verdict, Retry), body[:80]
        assert "sign in to this network" not in str(verdict)


@every_provider
def test_a_redirect_is_trouble_and_nobody_is_asked_there(name: str, vendors: Vendors, elsewhere: Any) -> None:
    with Peer(lambda connection: None) as there:
        url = there.url.replace("127.0.0.1", "localhost").encode()
        answer = b"HTTP/1.1 307 X\r\nLocation: %s/\r\nContent-Length: 0\r\n\r\n" % url
        with Peer(peer.echo([], answer)) as server:
            assert isinstance(fails(elsewhere(name, server.url), vendors), Retry)
        assert there.connections == []


@every_provider
@pytest.mark.parametrize("status", [301, 302])
def test_an_api_that_has_moved_on_its_host_is_a_persons_business(
    name: str, status: int, vendors: Vendors, elsewhere: Any
) -> None:
    answer = b"HTTP/1.1 %d X\r\nLocation: https://127.0.0.1/\r\nContent-Length: 0\r\n\r\n" % status
    with Peer(peer.echo([], answer)) as server:
        verdict = fails(elsewhere(name, server.url), vendors)
    assert type(verdict) is Blocked
    assert re.search(
        rf"has moved to https://127.0.0.1/? \(status {status}\): set (api|request.url) accordingly", str(verdict)
    )


@every_provider
def test_who_asks_for_a_slower_pace_gets_it(name: str, vendors: Vendors, elsewhere: Any) -> None:
    answer = b"HTTP/1.1 429 X\r\nRetry-After: 17\r\nContent-Length: 0\r\n\r\n"
    with Peer(peer.echo([], answer)) as server:
        verdict = fails(elsewhere(name, server.url), vendors)
    assert isinstance(verdict, Retry)
    assert verdict.after == 17
