"""The HTTP edge, by real sockets: whatever a server does, a reply or one sentence comes of it.

Each test runs three ways: a small request from the loop, and from a thread a file slice by our own transport and by stock httpx.
"""

import asyncio
import gzip
import os
import re
import socket
import ssl
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

import peer
from dumbwaiter.errors import Blocked, Failure, Retry, Stopped
from dumbwaiter.model import MIB
from dumbwaiter.net import http as edge
from dumbwaiter.net.abort import Abort
from dumbwaiter.net.bulk import REPLY_MAX
from dumbwaiter.net.http import Http
from dumbwaiter.net.http_errors import sentence
from dumbwaiter.net.reach import Reach
from dumbwaiter.net.slices import Unreadable
from dumbwaiter.wire.message import FileSlice, Reply, Request
from peer import OK, Connection, Peer

SECRET = "UPLOAD ak:s3cretsign:s3cretpolicy"
SHORT = 0.3  # seconds of silence that these tests allow
WAYS = ["call", "own", "httpx"]
SLICES = ["own", "httpx"]


class Client:
    """The edge, for one test: requests run one after another in a loop of their own."""

    def __init__(
        self,
        way: str,
        content: bytes,
        folder: Path,
        clock: Callable[[], float] = time.time,
        reach: Reach | None = None,
    ) -> None:
        self.way = way
        path = folder / "content"
        path.write_bytes(content)
        self.fd = os.open(path, os.O_RDWR)
        self.size = len(content)
        self.runner = asyncio.Runner()
        self.http = self.runner.run(self._make(clock, reach))

    async def _make(self, clock: Callable[[], float], reach: Reach | None) -> Http:
        return Http(clock, reach)

    def body(self, **changes: Any) -> bytes | FileSlice:
        if self.way == "call":
            return os.pread(self.fd, self.size, 0)
        return FileSlice(**({"fd": self.fd, "offset": 0, "length": self.size} | changes))

    def request(self, url: str, **changes: Any) -> Request:
        return Request("chunk", "POST", url, **({"headers": {"x-nos-token": SECRET}, "body": self.body()} | changes))

    def __call__(self, url: str, **changes: Any) -> Reply:
        if self.way == "call":
            return self.runner.run(self.http.call(self.request(url, **changes)))
        return self.http.exchange(self.request(url, **changes), Abort())

    def trouble(self, url: str, **changes: Any) -> Retry:
        with pytest.raises(Retry) as raised:
            self(url, **changes)
        assert "s3cret" not in str(raised.value)
        assert raised.value.__cause__ is None
        return raised.value

    def close(self) -> None:
        self.runner.run(self.http.close())
        self.runner.close()
        os.close(self.fd)


Make = Callable[..., Client]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of silence short enough for a test, and no proxy."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(edge, "LIMITS", httpx.Timeout(SHORT, connect=5.0))


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    made: list[Client] = []

    def client(way: str, content: bytes = b"content", **arguments: Any) -> Client:
        monkeypatch.setenv("DUMBWAITER_TRANSPORT", "httpx" if way == "httpx" else "")
        made.append(Client(way, content, tmp_path, **arguments))
        return made[-1]

    yield client
    for one in made:
        one.close()


# What goes out and what comes back


@pytest.mark.parametrize("way", WAYS)
def test_a_request_arrives_as_it_is_and_its_answer_comes_back(make: Make, way: str) -> None:
    seen: list[tuple[bytes, bytes]] = []
    answer = b"HTTP/1.1 520 Odd\r\nX-Thing: Yes\r\nContent-Length: 5\r\n\r\nhello"
    with Peer(peer.echo(seen, answer)) as server:
        reply = make(way, b"some bytes")(f"{server.url}/a%2Fb?offset=0&uploadContext")
    assert (reply.status, reply.body, reply.headers["x-thing"]) == (520, b"hello", "Yes")
    ((head, body),) = seen
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /a%2Fb?offset=0&uploadContext HTTP/1.1"
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    assert headers["host"] == f"127.0.0.1:{server.port}"
    assert headers["content-length"] == "10"
    assert headers["accept-encoding"] == "identity"
    assert headers["x-nos-token"] == SECRET.lower()
    assert "transfer-encoding" not in headers
    assert body == b"some bytes"


@pytest.mark.parametrize("way", SLICES)
@pytest.mark.parametrize("size", [0, 1, 65_536, 3 * MIB + 17])
@pytest.mark.parametrize("shape", ["plain", "observed", "held", "framed"])
def test_a_slice_arrives_byte_for_byte_however_it_is_sent(make: Make, way: str, size: int, shape: str) -> None:
    seen: list[tuple[bytes, bytes]] = []
    whole = os.urandom(size + 200)
    content = whole[100 : 100 + size]
    observed: list[tuple[int, bytes]] = []
    shapes: dict[str, dict[str, Any]] = {
        "plain": {},
        "observed": {"observers": (lambda at, data: observed.append((at, bytes(data))),)},
        "held": {"data": content, "observers": (lambda at, data: observed.append((at, bytes(data))),)},
        "framed": {"before": b"--frame\r\n", "after": b"\r\n--frame--"},
    }
    with Peer(peer.echo(seen)) as server:
        client = make(way, whole)
        reply = client(server.url, body=FileSlice(client.fd, 100, size, **shapes[shape]))
        again = client(server.url, body=FileSlice(client.fd, 100, size, **shapes[shape]))
    assert reply.status == again.status == 200
    expected = b"--frame\r\n" + content + b"\r\n--frame--" if shape == "framed" else content
    assert [body for _, body in seen] == [expected, expected]
    if shape in {"observed", "held"}:
        assert b"".join(data for _, data in observed) == content * 2
        half = observed[: len(observed) // 2]
        assert [at for at, _ in half] == [100 + sum(len(data) for _, data in half[:n]) for n in range(len(half))]


@pytest.mark.parametrize("way", WAYS)
def test_a_connection_is_used_again(make: Make, way: str) -> None:
    seen: list[tuple[bytes, bytes]] = []
    with Peer(peer.echo(seen)) as server:
        client = make(way)
        for _ in range(5):
            assert client(server.url).body == b"ok"
        assert len(server.connections) == 1
    assert len(seen) == 5


@pytest.mark.parametrize("way", WAYS)
def test_a_connection_that_the_server_closed_meanwhile_is_not_used(make: Make, way: str) -> None:
    closed = threading.Event()

    def once(connection: Connection) -> None:
        connection.request()
        connection.send(OK)
        connection.sock.shutdown(socket.SHUT_RDWR)
        closed.set()

    with Peer(once) as server:
        client = make(way)
        for _ in range(3):
            closed.clear()
            assert client(server.url).status == 200
            assert closed.wait(peer.PATIENCE)
        assert len(server.connections) == 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
    ],
)
def test_an_answer_that_ends_its_connection_is_read_to_the_end(make: Make, way: str, answer: bytes) -> None:
    def once(connection: Connection) -> None:
        connection.request()
        connection.send(answer)

    with Peer(once) as server:
        client = make(way)
        assert [client(server.url).body for _ in range(2)] == [b"ok", b"ok"]
        assert len(server.connections) == 2


@pytest.mark.parametrize("way", WAYS)
def test_a_chunked_answer_and_interim_ones_are_understood(make: Make, way: str) -> None:
    seen: list[tuple[bytes, bytes]] = []
    answer = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"
    )
    with Peer(peer.echo(seen, answer)) as server:
        client = make(way)
        assert [client(server.url).body for _ in range(2)] == [b"ok", b"ok"]
        assert len(server.connections) == 1


@pytest.mark.parametrize("way", SLICES)
def test_an_early_refusal_is_heard_while_the_body_is_still_being_sent(make: Make, way: str) -> None:
    """A server that refuses the token answers after the head and hangs up on all that comes."""

    def refuse(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnono")
        connection.sock.shutdown(socket.SHUT_WR)
        with suppress(OSError):  # what is on its way is taken, so that no reset overtakes the answer
            for _ in range(3):
                connection.sock.recv(65536)

    with Peer(refuse) as server:
        client = make(way, bytes(8 * MIB))
        reply = client(server.url)
        assert (reply.status, reply.body) == (403, b"nono")
        assert client(server.url).status == 403
        assert len(server.connections) == 2


# Trouble


def never(connection: Connection) -> None:
    connection.request()
    connection.wait_for_the_end()


def takes_nothing(connection: Connection) -> None:
    connection.head()
    threading.Event().wait(3 * SHORT)
    connection.wait_for_the_end()


def endless_interim(connection: Connection) -> None:
    connection.request()
    while True:
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")


def endless_headers(connection: Connection) -> None:
    connection.request()
    connection.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.send(b"X-More: " + b"x" * 1000 + b"\r\n")


def huge(connection: Connection) -> None:
    connection.request()
    connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {1 << 30}\r\n\r\n".encode())
    while True:
        connection.send(bytes(65536))


def endless_chunks(connection: Connection) -> None:
    connection.request()
    connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.send(b"4000\r\n" + bytes(0x4000) + b"\r\n")


def says(answer: bytes) -> Callable[[Connection], None]:
    def script(connection: Connection) -> None:
        connection.request()
        connection.send(answer)

    return script


def resets(connection: Connection) -> None:
    connection.head()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


TROUBLE: dict[str, tuple[Callable[[Connection], None], str]] = {
    "never answers": (never, "stopped answering"),
    "takes no bytes": (takes_nothing, "stopped"),
    "endless interim answers": (endless_interim, "broke off its answer|takes too long|stopped answering"),
    "endless headers": (endless_headers, "broke off its answer"),
    "a huge answer": (huge, "broke off its answer"),
    "endless chunks": (endless_chunks, "broke off its answer"),
    "closes at once": (says(b""), "broke off its answer"),
    "closes within the head": (says(b"HTTP/1.1 200 OK\r\nContent-"), "broke off its answer"),
    "closes within the body": (says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal"), "broke off its answer"),
    "closes within a chunk": (
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
        "broke off its answer",
    ),
    "speaks no HTTP": (says(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "broke off its answer"),
    "speaks garbage": (says(bytes(range(256)) * 10), "broke off its answer"),
    "contradicts itself": (
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok"),
        "broke off its answer",
    ),
    "switches protocols": (
        says(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        "broke off its answer|failed",
    ),
    "resets": (
        resets,
        r"the connection to 127\.0\.0\.1:\d+ broke \((connection reset by peer|broken pipe)\)|broke off",
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", TROUBLE)
def test_whatever_a_server_does_trouble_passes(
    make: Make, way: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "endless interim answers" and way != "own":
        monkeypatch.setattr(edge, "CALL", 1.0)
        if way == "httpx":
            pytest.skip("stock httpx has no limit here; it is a fallback")
    script, sentence = TROUBLE[name]
    with Peer(script) as server:
        client = make(way, bytes(32 * MIB if name == "takes no bytes" else 1000))
        trouble = client.trouble(server.url)
        assert trouble.after is None
        assert not trouble.void
        assert str(trouble).startswith("chunk: ")
        assert re.search(sentence, str(trouble)), str(trouble)
        assert f"127.0.0.1:{server.port}" in str(trouble)


@pytest.mark.parametrize("way", WAYS)
def test_after_trouble_a_new_connection_is_made(make: Make, way: str) -> None:
    def first_badly(connection: Connection) -> None:
        while True:
            connection.request()
            if connection.number == 1:
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbad")
                return
            connection.send(OK)

    with Peer(first_badly) as server:
        client = make(way)
        client.trouble(server.url)
        assert [client(server.url).status for _ in range(2)] == [200, 200]
        assert len(server.connections) == 2


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_that_drips_has_an_end(make: Make, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "CALL", 1.0)
    monkeypatch.setattr("dumbwaiter.net.bulk.ANSWER", 1.0)

    def drip(connection: Connection) -> None:
        connection.request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not threading.Event().wait(SHORT / 6):
            connection.send(b"x")

    with Peer(drip) as server:
        assert "too long" in str(make(way).trouble(server.url)) or way != "call"


@pytest.mark.parametrize("way", SLICES)
def test_a_slow_peer_that_moves_is_not_broken(make: Make, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer in all than the limit of silence, and never silent for that long."""
    monkeypatch.setattr(edge, "LIMITS", httpx.Timeout(3))  # what lies in the sockets at the end takes a third of that

    def slowly(connection: Connection) -> None:
        length = peer.length_of(connection.head())
        left = length
        while left > 0:
            left -= len(connection.body(min(left, MIB)))
            threading.Event().wait(0.1)
        connection.send(OK)

    with Peer(slowly) as server:
        started = time.monotonic()
        assert make(way, bytes(48 * MIB))(server.url).status == 200
        assert time.monotonic() - started > 3


@pytest.mark.parametrize("way", SLICES)
def test_a_tunnel_that_takes_a_large_piece_at_once_may_be_silent_for_longer(make: Make, way: str) -> None:
    over = threading.Event()

    def late(connection: Connection) -> None:
        for _ in range(2):
            connection.request()
            over.wait(SHORT * 2)
            connection.send(OK)

    with Peer(late) as server:
        assert make(way, bytes(MIB))(server.url).status == 200
        assert "stopped answering" in str(make(way, bytes(MIB - 1)).trouble(server.url))


@pytest.mark.parametrize("way", WAYS)
def test_nobody_there_is_told_and_counts_as_never_sent(make: Make, way: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    trouble = make(way).trouble(f"http://127.0.0.1:{port}/x")
    assert str(trouble) == f"chunk: 127.0.0.1:{port} cannot be reached (connection refused)"
    assert trouble.void


@pytest.mark.parametrize("way", WAYS)
def test_who_answers_without_tls_in_a_servers_place_is_told_as_that(make: Make, way: str) -> None:
    with Peer(lambda connection: connection.send(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n")) as portal:
        trouble = make(way).trouble(portal.url.replace("http", "https"))
    assert str(trouble) == f"chunk: 127.0.0.1:{portal.port} cannot be reached (it does not answer in TLS)"


def test_a_certificate_that_is_not_trusted_is_told_as_that() -> None:
    untrusted = httpx.ConnectError("[SSL] x")
    untrusted.__cause__ = ssl.SSLCertVerificationError(1, "certificate verify failed")
    said = sentence(untrusted, "https://vendor.test/path?token=s3cret")
    assert said == "vendor.test cannot be reached (its certificate is not trusted)"


def unknown(*_arguments: object, **_named: object) -> Any:
    """Looks a name up in a network that has none."""
    raise socket.gaierror(-2, "Name or service not known")


@pytest.mark.parametrize("way", WAYS)
def test_a_name_that_is_not_known_is_told(make: Make, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert str(make(way).trouble("http://nowhere.test/x")) == (
        "chunk: nowhere.test cannot be reached (its name is not known)"
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "url",
    [
        "http://exa mple/x",
        "http://[::1/x",
        "http://host:99999/x",
        "ftp://host/x",
        "http://\u2024/x",
        "http:///x",
        "nonsense",
    ],
)
def test_an_address_that_is_none_is_told(make: Make, way: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    trouble = make(way).trouble(url)
    assert re.search(r"^chunk: .* (is no usable address|cannot be reached \(its name is not known\))$", str(trouble))
    assert trouble.void


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", ["UPLOAD ak:s3cret\r\nX-Evil: 1", "UPLOAD ak:s3cret\0", "s3cret\udcff"])
def test_a_header_that_is_none_never_leaves(make: Make, way: str, value: str) -> None:
    """A token comes from outside: it must neither add a header nor show itself in an error or in the log."""
    seen: list[tuple[bytes, bytes]] = []
    with Peer(peer.echo(seen)) as server, structlog.testing.capture_logs() as lines:
        client = make(way)
        with pytest.raises(Retry) as raised:
            client(server.url, headers={"x-nos-token": value})
    assert "s3cret" not in str(raised.value)
    assert "s3cret" not in repr(lines)
    assert seen == []


@pytest.mark.parametrize("way", WAYS)
def test_a_header_beyond_ascii_is_sent_as_utf_8(make: Make, way: str) -> None:
    """A service may sign one with the file's name in it (Content-Disposition), and a recipe may ask with it."""
    seen: list[tuple[bytes, bytes]] = []
    with Peer(peer.echo(seen)) as server:
        make(way)(server.url, headers={"content-disposition": ' attachment; filename="片.mov" '})
    ((head, _),) = seen
    assert '\r\ncontent-disposition: attachment; filename="片.mov"\r\n'.encode() in head


@pytest.mark.parametrize("way", WAYS)
def test_nothing_of_a_request_is_logged(make: Make, way: str) -> None:
    with structlog.testing.capture_logs() as lines:
        with Peer(peer.echo([])) as server:
            make(way)(f"{server.url}/path?token=s3cret")
        with Peer(never) as server:
            make(way).trouble(f"{server.url}/path?token=s3cret")
    assert {line["event"] for line in lines} == {"request done", "request failed"}
    assert "s3cret" not in repr(lines)
    assert "/path" not in repr(lines)


@pytest.mark.parametrize("way", SLICES)
def test_a_file_that_became_shorter_is_trouble_at_once_and_its_connection_is_left(
    make: Make, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "LIMITS", httpx.Timeout(20.0))
    seen: list[tuple[bytes, bytes]] = []
    with Peer(peer.echo(seen)) as server:
        client = make(way, bytes(2 * MIB))
        for observers in ((), (lambda at, data: None,)):
            os.ftruncate(client.fd, MIB)
            started = time.monotonic()
            trouble = client.trouble(server.url, body=client.body(observers=observers))
            assert time.monotonic() - started < 10  # the server is still waiting: no answer will come
            assert "the file became shorter" in str(trouble)
            os.ftruncate(client.fd, 2 * MIB)
            assert client(server.url, body=client.body(observers=observers)).status == 200
        assert len(server.connections) == 3
    assert len(seen) == 2


@pytest.mark.parametrize("way", SLICES)
def test_a_file_that_cannot_be_read_is_no_trouble_of_the_networks(make: Make, way: str, tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        with Peer(never) as server, pytest.raises(Unreadable, match="Is a directory"):
            make(way)(server.url, body=FileSlice(folder, 0, 10))
    finally:
        os.close(folder)


@pytest.mark.parametrize(("name", "stock"), [("no_proxy", False), ("ftp_proxy", False), ("https_proxy", True)])
def test_only_a_proxy_for_the_web_makes_it_stock_httpxs_business(
    make: Make, monkeypatch: pytest.MonkeyPatch, name: str, stock: bool
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:1" if name != "no_proxy" else "localhost")
    assert isinstance(make("own").http._bulk, httpx.Client) is stock


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "environment",
    [{}, {"https_proxy": "http://127.0.0.1:1"}, {"http_proxy": "http://127.0.0.1:1", "no_proxy": "127.0.0.1"}],
    ids=["none", "the other scheme", "no_proxy"],
)
def test_what_goes_past_a_proxy_is_judged(
    make: Make, monkeypatch: pytest.MonkeyPatch, way: str, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with Peer(never) as server, pytest.raises(Blocked, match="leads into your own network"):
        make(way, reach=Reach(["vendor.example"]))(server.url)


@pytest.mark.parametrize("way", WAYS)
def test_what_a_proxy_connects_to_is_the_proxys_to_judge(make: Make, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    seen: list[tuple[bytes, bytes]] = []
    with Peer(peer.echo(seen)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert make(way, reach=Reach(["vendor.example"]))("http://10.0.0.1/a").status == 200
    assert seen[0][0].startswith(b"POST http://10.0.0.1/a HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("socks5://127.0.0.1:1", "all_proxy names a SOCKS proxy, and the package for one is not installed: pipx"),
        ("socks://u:s3cret@127.0.0.1:1", 'all_proxy cannot be used: write the proxy like "http://'),
        ("http://127.0.0.1:port", 'all_proxy cannot be used: write the proxy like "http://'),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(
    make: Make, monkeypatch: pytest.MonkeyPatch, proxy: str, said: str
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("all_proxy", proxy)
    with pytest.raises(Failure, match=re.escape(said)) as raised:
        Http()
    assert "s3cret" not in str(raised.value)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    make("own")


def test_stock_httpx_keeps_to_the_bandwidth_and_to_an_end(make: Make) -> None:
    with Peer(peer.echo([])) as server:
        client = make("httpx", bytes(MIB))
        client.http.bandwidth.set(0.8 * MIB)  # a second's worth may go at once
        began = time.monotonic()
        client(server.url)
        assert time.monotonic() - began > 0.15
        abort = Abort()
        abort()
        with pytest.raises(Stopped):
            client.http.exchange(client.request(server.url), abort)


def test_a_transfer_that_is_ended_ends_at_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "LIMITS", httpx.Timeout(60))
    arrived, gone = threading.Event(), threading.Event()

    def watch(connection: Connection) -> None:
        connection.request()
        arrived.set()
        connection.wait_for_the_end()
        gone.set()

    with Peer(watch) as server:
        client = make("own")
        abort = Abort()

        def give_up() -> None:
            assert arrived.wait(peer.PATIENCE)
            abort()

        thread = threading.Thread(target=give_up)
        thread.start()
        with pytest.raises(Stopped):
            client.http.exchange(client.request(server.url), abort)
        thread.join()
        assert gone.wait(peer.PATIENCE)


# Answers that do harm


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("packed", ["gzip", "deflate"])
def test_a_packed_answer_is_not_unpacked(make: Make, way: str, packed: str) -> None:
    pack = {"gzip": gzip.compress, "deflate": zlib.compress}[packed]
    bomb = pack(bytes(64 * MIB))
    assert len(bomb) < REPLY_MAX
    answer = f"HTTP/1.1 200 OK\r\nContent-Encoding: {packed}\r\nContent-Length: {len(bomb)}\r\n\r\n".encode() + bomb
    with Peer(peer.echo([], answer)) as server:
        assert make(way)(server.url).body == bomb


@pytest.mark.parametrize("way", WAYS)
def test_the_largest_answer_comes_whole_and_one_byte_more_not_at_all(make: Make, way: str) -> None:
    for size, whole in ((REPLY_MAX, True), (REPLY_MAX + 1, False)):
        answer = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode() + bytes(size)
        with Peer(peer.echo([], answer)) as server:
            client = make(way)
            if whole:
                assert len(client(server.url).body) == size
            else:
                client.trouble(server.url)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_is_not_followed(make: Make, way: str, status: int) -> None:
    thief: list[tuple[bytes, bytes]] = []
    with Peer(peer.echo(thief)) as elsewhere:
        answer = f"HTTP/1.1 {status} Go\r\nLocation: {elsewhere.url}/x\r\nContent-Length: 0\r\n\r\n".encode()
        with Peer(peer.echo([], answer)) as server:
            assert make(way)(server.url).status == status
    assert thief == []


@pytest.mark.parametrize("way", WAYS)
def test_a_cookie_is_not_sent_back(make: Make, way: str) -> None:
    seen: list[tuple[bytes, bytes]] = []
    answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: session=1; Path=/\r\nContent-Length: 0\r\n\r\n"
    with Peer(peer.echo(seen, answer)) as server:
        client = make(way)
        client(server.url)
        client(server.url)
    assert len(seen) == 2
    assert not any(b"cookie" in head.lower() for head, _ in seen)


# What is learned of a server

NOW = 1_800_000_000.0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("value", "after"),
    [
        ("0", None),  # no word on how long: our own back-off then
        ("17", 17.0),
        ("9" * 400, float("inf")),
        (formatdate(1, usegmt=True), None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("1e3", None),
        ("²", None),
        ("Mon, 99 Foo 2099", None),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("0, 0", None),
    ],
)
def test_a_wait_that_the_server_asks_for_is_read(make: Make, way: str, value: str, after: float | None) -> None:
    answer = b"HTTP/1.1 429 Slow\r\nRetry-After: " + value.encode("latin-1") + b"\r\nContent-Length: 0\r\n\r\n"
    with Peer(peer.echo([], answer)) as server:
        assert make(way)(server.url).after == after


def test_a_wait_until_a_date_is_the_time_from_now(make: Make) -> None:
    answer = (
        f"HTTP/1.1 503 Busy\r\nRetry-After: {formatdate(time.time() + 100, usegmt=True)}\r\nContent-Length: 0\r\n\r\n"
    )
    with Peer(peer.echo([], answer.encode())) as server:
        after = make("call")(server.url).after
    assert after is not None
    assert 60 < after <= 100


@pytest.mark.parametrize("form", ["%a, %d %b %Y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"])
def test_a_date_is_of_utc_and_counted_by_the_servers_own_clock(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    try:
        dates = {name: time.strftime(form, time.gmtime(at)) for name, at in (("date", 1000), ("retry-after", 1090))}
        assert edge._retry_after(httpx.Response(503, headers=dates)) == 90.0
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.binary(max_size=30))
def test_no_value_of_a_header_makes_its_reader_raise(value: bytes) -> None:
    response = httpx.Response(200, headers=[(b"retry-after", value)])
    after = edge._retry_after(response)
    assert after is None or after >= 0


@pytest.mark.parametrize("way", WAYS)
def test_a_servers_clock_is_learned_from_its_answers(make: Make, way: str) -> None:
    dates = iter([NOW + 1200, NOW - 90_000, NOW + 2])

    def dated(connection: Connection) -> None:
        while True:
            connection.request()
            connection.send(
                f"HTTP/1.1 200 OK\r\nDate: {formatdate(next(dates), usegmt=True)}\r\nContent-Length: 0\r\n\r\n".encode()
            )

    with Peer(dated) as server:
        client = make(way, clock=lambda: NOW)
        assert client.http.skew(f"{server.url}/x") == 0.0
        client(server.url)
        assert client.http.skew(f"{server.url}/any/path?x") == 1200.5
        assert client.http.skew("http://other.test") == 0.0
        client(server.url)
        assert client.http.skew(server.url) == -89_999.5
        client(server.url)
        assert client.http.skew(server.url) == 0.0  # a few seconds may be the network's


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Foo 2099", "²", "Fri, 31 Dec 99999 23:59:59 GMT"])
def test_a_date_that_is_none_says_nothing(make: Make, date: str) -> None:
    answer = b"HTTP/1.1 200 OK\r\nDate: " + date.encode("latin-1") + b"\r\nContent-Length: 0\r\n\r\n"
    with Peer(peer.echo([], answer)) as server:
        client = make("call")
        assert client(server.url).status == 200
        assert client.http.skew(server.url) == 0.0


def test_an_address_that_fails_goes_last_for_a_while(make: Make) -> None:
    now = [NOW]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}"
    overloaded = peer.echo([], b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    with Peer(peer.echo([])) as server, Peer(never) as silent, Peer(overloaded) as broken:
        client = make("own", clock=lambda: now[0])
        urls = [dead, silent.url, broken.url, server.url]
        assert client.http.order(urls) == urls
        client.trouble(f"{dead}/x?y")
        assert client.http.order(urls) == [silent.url, broken.url, server.url, dead]
        client.trouble(silent.url)
        assert client(broken.url).status == 503
        assert client.http.order(urls) == [server.url, dead, silent.url, broken.url]
        now[0] += edge.SHUN + 1
        assert client.http.order(urls) == urls


def test_an_address_that_answers_again_is_forgiven(make: Make) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    listener.close()
    client = make("own")
    client.trouble(f"http://127.0.0.1:{port}")
    urls = [f"http://127.0.0.1:{port}", "http://other.test"]
    assert client.http.order(urls) == urls[::-1]
    with Peer(peer.echo([])) as server:
        client.http._shunned[server.url] = time.time() + 100
        client(server.url)
        assert client.http.order([server.url, "http://other.test"])[0] == server.url


@pytest.mark.parametrize("way", SLICES)
def test_many_at_once_do_not_disturb_each_other(make: Make, way: str) -> None:
    seen: list[tuple[bytes, bytes]] = []
    content = os.urandom(MIB)
    with Peer(peer.echo(seen)) as server:
        client = make(way, content)

        def one(n: int) -> Reply:
            return client(server.url, body=client.body(offset=n * 1000, length=5000))

        with ThreadPoolExecutor(2) as threads:
            assert {reply.status for reply in threads.map(one, range(40))} == {200}
        assert len(server.connections) <= 2
    assert sorted(body for _, body in seen) == sorted(content[n * 1000 : n * 1000 + 5000] for n in range(40))


@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:1"])
@pytest.mark.parametrize("name", ["fd00::/8", "[::1]", "::1/128", "ü.example", "10.0.0.0/8"])
def test_what_httpx_cannot_read_in_no_proxy_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str, proxy: str
) -> None:
    monkeypatch.setenv("no_proxy", f"localhost,{name}")
    if proxy:
        monkeypatch.setenv("https_proxy", proxy)

    async def test() -> None:
        await Http().close()

    asyncio.run(test())
