"""T20: a vendor's answer, or a name's address, must not lead us into our own network."""

import asyncio
import socket
from typing import Any

import pytest

import peer
from dumbwaiter.config.file import parse
from dumbwaiter.config.values import BaseUrl
from dumbwaiter.errors import Blocked, Retry
from dumbwaiter.net.abort import Abort
from dumbwaiter.net.http import Http
from dumbwaiter.net.reach import Inside, Reach, hosts
from dumbwaiter.wire.message import Reply, Request
from peer import OK, Peer

INSIDE = [
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
    "224.0.0.1", "::1", "::", "fe80::1", "fe80::1%lo", "fd00::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "::ffff:0:127.0.0.1", "::127.0.0.1", "fec0::1",
]  # fmt: skip
OUTSIDE = ["1.1.1.1", "2606:4700::1", "198.18.0.9", "64:ff9b::101:101"]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names stand for; a list is used up from its front, its last address stays."""
    known: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *arguments: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in known:
            return real(host, port, *arguments, **named)
        address = known[name].pop(0) if len(known[name]) > 1 else known[name][0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


def asked(way: str, url: str, reach: Reach) -> Reply:
    async def ask() -> Reply:
        http = Http(reach=reach)
        try:
            request = Request("token", "GET", url)
            if way == "call":
                return await http.call(request)
            return await asyncio.to_thread(http.exchange, request, Abort())
        finally:
            await http.close()

    return asyncio.run(ask())


@pytest.mark.parametrize("address", INSIDE)
def test_t20_a_name_that_stands_for_an_address_inside_is_not_connected_to(
    names: dict[str, list[str]], address: str
) -> None:
    names["files.example"] = [address]
    with pytest.raises(Inside, match=r"leads into your own network, to .*\[network\] inside"):
        Reach(["api.example"]).addresses("files.example", 443)
    for said in ("files.example", "*.example", "FILES.example."):
        assert Reach([said]).addresses("files.example", 443) == [address]
    assert Reach(["files.example"]).trusts("Files.example.")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "2130706433"])
def test_t20_what_is_inside_by_its_spelling_is_not_connected_to_either(host: str) -> None:
    with pytest.raises(Inside):
        Reach(["api.example"]).addresses(host, 80)
    assert Reach([host]).addresses(host, 80)


@pytest.mark.parametrize("address", OUTSIDE)
def test_t20_the_internet_may_be_connected_to(names: dict[str, list[str]], address: str) -> None:
    names["files.example"] = [address]
    assert Reach([]).addresses("files.example", 443) == [address]


@pytest.mark.parametrize("way", ["call", "thread"])
def test_t20_a_name_that_leads_inside_blocks_with_words_and_nothing_is_sent(
    names: dict[str, list[str]], way: str
) -> None:
    with Peer(peer.echo([])) as server:
        names["files.example"] = ["127.0.0.1"]
        with pytest.raises(Blocked, match=r"token: files\.example leads into your own network, to 127\.0\.0\.1"):
            asked(way, f"http://files.example:{server.port}/x", Reach([]))
        assert server.connections == []
        assert asked(way, f"http://files.example:{server.port}/x", Reach(["files.example"])).status == 200


@pytest.mark.parametrize("way", ["call", "thread"])
def test_t20_the_connection_goes_to_the_address_that_was_judged(
    names: dict[str, list[str]], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that stands for another machine when it is asked for a second time."""
    monkeypatch.setattr("dumbwaiter.net.reach._outside", lambda address: address == "127.9.9.9")
    with Peer(peer.echo([])) as server:
        names["files.example"] = ["127.9.9.9", "127.0.0.1"]
        with pytest.raises(Retry, match=r"cannot be reached"):  # nobody listens at 127.9.9.9
            asked(way, f"http://files.example:{server.port}/x", Reach([]))
        assert server.connections == []


def test_t20_what_the_configuration_names_may_be_anywhere() -> None:
    config = parse(
        """
        [provider.p]
        broker = "xinhua"
        access_key = "a"
        secret_key = { env = "X" }
        models = ["m"]
        api = "https://api.corp.example:8443/v1"
        [provider.n]
        broker = "netease"
        app_key = "a"
        app_secret = { env = "X" }
        cdn = "http://{bucket}.cdn.example"
        [network]
        inside = ["*.store.example"]
        """,
        "config.toml",
    )
    reach = Reach([*hosts(config), *config.network.inside])
    for host in ("api.corp.example", "any.cdn.example", "a.store.example", "vcloud.163.com"):
        assert reach.trusts(host), host
    for host in ("corp.example", "cdn.example", "store.example", "api.corp.example.evil.example"):
        assert not reach.trusts(host), host
    assert list(hosts(BaseUrl("http://{bucket}/{key}"))) == []  # else any name would be trusted


def test_t18_heads_without_end_come_to_an_end() -> None:
    """Each `100 Continue` is a whole head, so that no limit on silence or on one head is met."""

    def endless(connection: peer.Connection) -> None:
        connection.request()
        while True:
            connection.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 2000)

    with Peer(endless) as server, pytest.raises(Retry, match="broke off its answer"):
        asked("call", server.url, Reach())
    with Peer(peer.echo([], OK)) as server:
        assert asked("call", server.url, Reach()).status == 200
