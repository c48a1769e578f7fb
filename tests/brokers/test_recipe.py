"""A recipe with Qiniu's tokens, of a service that says nothing else: what the token is for decides the key."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

import peer
from dumbwaiter.brokers import broker
from dumbwaiter.config.file import parse
from dumbwaiter.errors import Reject
from dumbwaiter.facts import NO_COUNTS, provider_facts
from dumbwaiter.model import Ask
from dumbwaiter.net.http import Http
from dumbwaiter.providers.provider import Provider
from dumbwaiter_sandbox.kodo.accounts import ACCOUNTS, upload_token
from peer import Peer
from program import Vendors
from sending import Sender

ACCOUNT = ACCOUNTS["kodo"]
BUCKET = ACCOUNT.buckets[0]
TOML = """
[provider.tokens]
broker = "recipe"
transport = "qiniu"
request = {{ url = "{url}", body = {body} }}
reply = {{ url = "url", token = "token"{more} }}
"""


class Service:
    """Gives every request the same token."""

    def __init__(self, vendors: Vendors, folder: Path) -> None:
        self._vendors, self._folder = vendors, folder
        self._stack = ExitStack()
        self.told: dict[str, Any] = {}  # besides

    def sender(self, body: str = "{}", more: str = "", name: str = "film.mov", **policy: Any) -> Sender:
        token = upload_token(ACCOUNT, {"deadline": int(time.time()) + 3600, **policy})
        members = {"url": self._vendors.sandbox.urls["up1"], "token": token, "key": "chosen.mov", **self.told}
        told = msgspec.json.encode(members)
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(told), told)
        service = self._stack.enter_context(Peer(peer.echo([], answer)))
        options = parse(TOML.format(url=service.url, body=body, more=more), "c.toml").provider["tokens"]
        path = self._folder / "content"
        path.write_bytes(b"film")
        return self._stack.enter_context(Sender(options, path, name=name))

    def close(self) -> None:
        self._stack.close()

    def stored(self, key: str) -> bytes:
        path = self._vendors.sandbox.world.objects.path(BUCKET, key)
        assert path is not None
        return Path(path).read_bytes()


@pytest.fixture
def service(vendors: Vendors, tmp_path: Path) -> Iterator[Service]:
    made = Service(vendors, tmp_path)
    yield made
    made.close()


Key = Callable[[Sender], str]
ABOUT = '{ name = "{name}" }'


@pytest.mark.parametrize("body", ["{}", ABOUT])
@pytest.mark.parametrize(
    ("policy", "key"),
    [
        ({"scope": f"{BUCKET}:one key.mov"}, lambda one: "one key.mov"),
        ({"scope": f"{BUCKET}:in/", "isPrefixalScope": 1}, lambda one: f"in/{one.seed}/film.mov"),
    ],
)
def test_a_token_for_certain_keys_gets_one_of_them(
    service: Service, body: str, policy: dict[str, Any], key: Key
) -> None:
    one = service.sender(body, **policy)
    assert one.obtain().key == one.obtain().ticket.key == key(one)
    assert one.until_done().key == key(one)
    assert service.stored(key(one)) == b"film"


def test_a_token_for_a_whole_bucket_names_no_key(service: Service) -> None:
    one = service.sender(scope=BUCKET)
    assert one.obtain().key is one.obtain().ticket.key is None
    assert service.stored(one.until_done().key) == b"film"


def test_the_services_own_word_comes_first(service: Service) -> None:
    one = service.sender(more=', key = "key"', scope=f"{BUCKET}:another.mov")
    assert one.obtain().key == "chosen.mov"
    assert isinstance(one.verdict(), Reject)  # its token does not allow that


@pytest.mark.parametrize("said", ["Infinity", "-inf", "nan", "many", "9" * 400, None])
@pytest.mark.parametrize("name", ["expires_in", "expires_at"])
def test_a_life_that_is_no_number_is_not_said(service: Service, said: str | None, name: str) -> None:
    service.told = {"life": said}
    end = service.sender(more=f', {name} = "life"', scope=BUCKET).obtain().expires_at
    assert end == pytest.approx(time.time() + 3600, abs=10)  # the token's own


@pytest.mark.parametrize("said", ["1e300", 1e300, "2e11"])
def test_a_life_without_end_has_none(service: Service, said: object) -> None:
    service.told = {"life": said}
    one = service.sender(more=', expires_in = "life"', scope=BUCKET)
    assert one.obtain().expires_at is None
    assert (
        provider_facts("one", NO_COUNTS, expires_at=one.provider.grants.expires_at, now=time.time())["expires_in"]
        is None
    )


def test_of_several_tokens_for_one_prefix_a_file_gets_one(vendors: Vendors) -> None:
    policy = {"scope": f"{BUCKET}:in/", "isPrefixalScope": 1}
    tokens = [
        {
            "url": vendors.sandbox.urls["up1"],
            "token": upload_token(ACCOUNT, {"deadline": int(time.time()) + more, **policy}),
        }
        for more in (3600, 3601)
    ]
    told = msgspec.json.encode({"tokens": tokens})
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(told), told)

    async def keys(url: str) -> set[str | None]:
        text = TOML.format(url=url, body="{}", more=', grants = "tokens"')
        http = Http()
        try:
            provider = Provider("tokens", broker(parse(text, "c.toml").provider["tokens"]), http, requested=nobody)
            asks = [Ask("w", name, name, 4, "text/plain", f"seed of {name}") for name in "ab"]
            return {(await provider.grants.obtain(ask)).key for ask in asks}
        finally:
            await http.close()

    with Peer(peer.echo([], answer)) as server:
        assert asyncio.run(keys(server.url)) == {"in/seed of a/a", "in/seed of b/b"}


async def nobody(_count: int) -> None:
    """Is told how many grants were asked for."""
