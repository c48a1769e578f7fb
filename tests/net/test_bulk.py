"""The transport for bulk bytes by itself: its connections, and how an exchange is ended from outside."""

import errno
import os
import resource
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

import peer
from dumbwaiter.model import KIB, MIB
from dumbwaiter.net.abort import Abort
from dumbwaiter.net.bulk import RESTED, BulkTransport
from dumbwaiter.net.http import LIMITS
from dumbwaiter.net.slices import SliceStream
from dumbwaiter.wire.message import FileSlice
from peer import OK, Connection, Peer

TIMEOUT = httpx.Timeout(peer.PATIENCE)


@pytest.fixture
def content(tmp_path: Path) -> Iterator[int]:
    """A file of 16 MiB that differ."""
    path = tmp_path / "content"
    path.write_bytes(os.urandom(MIB) * 16)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def transport() -> Iterator[BulkTransport]:
    made = BulkTransport()
    yield made
    made.close()


def request(url: str, fd: int, length: int, abort: Abort | None = None, **slice_: Any) -> httpx.Request:
    return httpx.Request(
        "POST",
        url,
        headers={
            "host": "peer.test",
            "content-length": str(len(stream := SliceStream(FileSlice(fd, 0, length, **slice_)))),
        },
        stream=stream,
        extensions={"timeout": TIMEOUT.as_dict(), **({"abort": abort} if abort else {})},
    )


def test_the_last_used_connection_is_the_first_taken(transport: BulkTransport, content: int) -> None:
    both = threading.Barrier(2)

    def script(connection: Connection) -> None:
        connection.request()
        both.wait(peer.PATIENCE)
        connection.send(OK)
        while True:
            connection.request()
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % connection.number)

    with Peer(script) as server:
        threads = [
            threading.Thread(target=transport.handle_request, args=(request(server.url, content, 10),))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.connections) == 2
        used = {transport.handle_request(request(server.url, content, 10)).read() for _ in range(5)}
        assert len(used) == 1
        assert len(server.connections) == 2


def test_after_another_network_connections_are_new_and_then_kept_again(transport: BulkTransport, content: int) -> None:
    with Peer(peer.echo([])) as server:
        for _ in range(2):
            assert transport.handle_request(request(server.url, content, 1)).status_code == 200
        transport.renew()
        for _ in range(3):
            assert transport.handle_request(request(server.url, content, 1)).status_code == 200
        assert len(server.connections) == 2


def test_of_two_addresses_the_dead_one_is_waited_for_once(
    transport: BulkTransport, content: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a host with an IPv6 address behind a router that has none to offer."""
    tried: list[str] = []

    def watched(address: tuple[str, int], **_named: Any) -> socket.socket:
        tried.append(address[0])
        made = socket.socket()
        try:
            made.connect(address)
        except OSError:
            made.close()
            raise
        return made

    def two(_host: str, port: int, **_named: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "create_connection", watched)
    monkeypatch.setattr(socket, "getaddrinfo", two)
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    with Peer(peer.echo([], answer)) as server:
        url = server.url.replace("127.0.0.1", "two.test")
        for _ in range(3):
            assert transport.handle_request(request(url, content, 1)).status_code == 200
        assert tried == ["127.0.0.2", "127.0.0.1", "127.0.0.1", "127.0.0.1"]
        transport._reach.renew()  # another network
        assert transport.handle_request(request(url, content, 1)).status_code == 200
        assert tried[4:] == ["127.0.0.2", "127.0.0.1"]


def test_the_kernel_keeps_a_connection_at_rest_in_routers_minds(
    transport: BulkTransport, content: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They forget after half a minute or later; one that was forgotten would cost a file the whole limit of silence."""
    made = []
    connect = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda *one, **two: made.append(connect(*one, **two)) or made[-1])
    with Peer(peer.echo([])) as server:
        assert transport.handle_request(request(server.url, content, 1)).status_code == 200
        (sock,) = made
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, between, count = (
            sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}"))
            for name in ("KEEPIDLE", "KEEPINTVL", "KEEPCNT")
        )
    assert idle < 30
    assert idle + between * count < (LIMITS.read or 0)


def test_each_origin_has_connections_of_its_own(transport: BulkTransport, content: int) -> None:
    with Peer(peer.echo([])) as one, Peer(peer.echo([])) as other:
        for _ in range(2):
            for server in (one, other):
                assert transport.handle_request(request(server.url, content, 1)).status_code == 200
        assert (len(one.connections), len(other.connections)) == (1, 1)


def test_descriptors_beyond_1023_are_as_good_as_others(transport: BulkTransport, content: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1200:
        pytest.skip("no more descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    taken = []
    try:
        while not taken or taken[-1] < 1024:
            taken.append(os.dup(content))
        with Peer(peer.echo([])) as server:
            for _ in range(2):
                assert transport.handle_request(request(server.url, content, 10)).status_code == 200
            assert len(server.connections) == 1
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("when", ["while it sends", "while it waits"])
def test_another_thread_ends_an_exchange_at_once(transport: BulkTransport, content: int, when: str) -> None:
    abort = Abort()
    arrived = threading.Event()

    def script(connection: Connection) -> None:
        connection.head()
        if when == "while it waits":
            connection.body(16 * MIB)
        else:
            connection.body(1)
        arrived.set()
        abort_seen.wait(peer.PATIENCE)
        connection.wait_for_the_end()

    abort_seen = threading.Event()
    with Peer(script) as server:
        failed: list[BaseException] = []

        def exchange() -> None:
            try:
                transport.handle_request(request(server.url, content, 16 * MIB, abort))
            except httpx.TransportError as error:
                failed.append(error)

        thread = threading.Thread(target=exchange)
        thread.start()
        assert arrived.wait(peer.PATIENCE)
        abort()
        thread.join(peer.PATIENCE / 2)
        assert not thread.is_alive()
        abort_seen.set()
        assert len(failed) == 1
        assert not any(transport._idle.values())


def test_what_was_ended_before_it_began_sends_nothing(transport: BulkTransport, content: int) -> None:
    seen: list[tuple[bytes, bytes]] = []
    abort = Abort()
    abort()
    with Peer(peer.echo(seen)) as server, pytest.raises(httpx.WriteError, match="the transfer was ended"):
        transport.handle_request(request(server.url, content, 10, abort))
    assert seen == []


def test_ending_what_is_over_disturbs_nobody(transport: BulkTransport, content: int) -> None:
    with Peer(peer.echo([])) as server:
        abort = Abort()
        transport.handle_request(request(server.url, content, 10, abort))
        abort()
        assert transport.handle_request(request(server.url, content, 10)).status_code == 200
        assert len(server.connections) == 1


def test_a_connection_that_nobody_used_for_a_minute_is_hung_up(content: int, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def script(connection: Connection) -> None:
        for _ in range(2):
            connection.request()
            connection.send(OK)
        connection.wait_for_the_end()
        over.set()

    with Peer(script) as server:
        made = BulkTransport()
        made.handle_request(request(server.url, content, 10))
        made.tidy()
        made.handle_request(request(server.url, content, 10))
        assert len(server.connections) == 1
        later = time.monotonic() + RESTED
        monkeypatch.setattr(time, "monotonic", lambda: later)
        made.tidy()
        monkeypatch.undo()
        assert over.wait(peer.PATIENCE)
        made.close()


def test_closing_hangs_up_what_is_idle(content: int) -> None:
    over = threading.Event()

    def script(connection: Connection) -> None:
        connection.request()
        connection.send(OK)
        connection.wait_for_the_end()
        over.set()

    with Peer(script) as server:
        made = BulkTransport()
        made.handle_request(request(server.url, content, 10))
        made.close()
        assert over.wait(peer.PATIENCE)
        made.close()


def test_closing_hangs_up_what_is_in_use_after_its_answer(content: int) -> None:
    asked, closed, over = threading.Event(), threading.Event(), threading.Event()

    def script(connection: Connection) -> None:
        connection.request()
        asked.set()
        closed.wait(peer.PATIENCE)
        connection.send(OK)
        connection.wait_for_the_end()
        over.set()

    with Peer(script) as server:
        made = BulkTransport()
        user = threading.Thread(target=made.handle_request, args=(request(server.url, content, 10),))
        user.start()
        assert asked.wait(peer.PATIENCE)
        made.close()
        closed.set()
        user.join(peer.PATIENCE)
        assert over.wait(peer.PATIENCE)


def test_a_body_of_plain_bytes_is_taken_too(transport: BulkTransport) -> None:
    seen: list[tuple[bytes, bytes]] = []
    with Peer(peer.echo(seen)) as server, httpx.Client(transport=transport, trust_env=False) as client:
        assert client.put(f"{server.url}/x", content=b"plain").text == "ok"
        assert client.get(f"{server.url}/y").text == "ok"
    assert [body for _, body in seen] == [b"plain", b""]


def test_no_answer_is_waited_for_where_this_machine_could_not_send_the_rest(
    transport: BulkTransport, content: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, send = threading.Event(), socket.socket.send

    def waiting(connection: Connection) -> None:
        connection.head()
        over.wait(peer.PATIENCE)

    def lacking(sock: socket.socket, data: Any, *flags: int) -> int:
        if len(data) < MIB:
            return send(sock, data, *flags)
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    asked = request("http://peer", content, 16 * MIB)
    asked.extensions["timeout"] = httpx.Timeout(0.3, connect=peer.PATIENCE).as_dict()
    with Peer(waiting) as server:
        asked.url = httpx.URL(server.url)
        monkeypatch.setattr(socket.socket, "send", lacking)
        with pytest.raises(httpx.WriteError, match="No buffer space available") as raised:
            transport.handle_request(asked)
        over.set()
    assert isinstance(raised.value.__cause__, OSError)  # and no answer that did not come


def test_a_small_file_waits_for_its_share_too(transport: BulkTransport, content: int) -> None:
    asked: list[int] = []

    def share(wanted: int) -> int:
        asked.append(wanted)
        return min(wanted, 400)

    seen: list[tuple[bytes, bytes]] = []
    data = os.pread(content, 1000, 0)
    with Peer(peer.echo(seen)) as server:
        wish = request(server.url, content, 1000, data=data)
        assert isinstance(wish.stream, SliceStream)
        wish.stream.pace = share
        assert transport.handle_request(wish).status_code == 200
    assert asked == [1000, 600, 200]
    assert [body for _, body in seen] == [data]


def test_who_takes_the_pieces_of_a_slice_gets_small_ones(content: int) -> None:
    """Another client has a limit of time for each, which a slow line would pass."""
    pieces = list(SliceStream(FileSlice(content, 0, 3 * MIB + 1)))
    assert b"".join(pieces) == os.pread(content, 3 * MIB + 1, 0)
    assert max(map(len, pieces)) <= 64 * KIB


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
            "-keyout", str(path), "-out", str(path) + ".crt",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return path


def encrypted(certificate: Path, seen: list[tuple[bytes, bytes]]) -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{certificate}.crt", certificate)

    def script(connection: Connection) -> None:
        with suppress(ssl.SSLError), context.wrap_socket(connection.sock, server_side=True) as connection.sock:
            peer.echo(seen)(connection)

    return script


def test_bytes_arrive_through_tls_and_its_connection_is_used_again(certificate: Path, content: int) -> None:
    seen: list[tuple[bytes, bytes]] = []
    transport = BulkTransport(ssl.create_default_context(cafile=f"{certificate}.crt"))
    with Peer(encrypted(certificate, seen)) as server:
        url = server.url.replace("http", "https")
        for length in (0, 3 * MIB + 1):
            assert transport.handle_request(request(url, content, length, before=b"<", after=b">")).status_code == 200
        assert len(server.connections) == 1
        transport.close()
    assert [body for _, body in seen] == [b"<>", b"<" + os.pread(content, 3 * MIB + 1, 0) + b">"]


def test_a_certificate_that_nobody_vouches_for_is_refused(certificate: Path, content: int) -> None:
    seen: list[tuple[bytes, bytes]] = []
    transport = BulkTransport()
    with Peer(encrypted(certificate, seen)) as server, pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
        transport.handle_request(request(server.url.replace("http", "https"), content, 10))
    assert seen == []


@pytest.mark.parametrize("length", [10, 16 * MIB])
def test_a_silent_peer_is_given_up_through_tls_too(certificate: Path, content: int, length: int) -> None:
    """Whether it takes no more bytes, or has them all and does not answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{certificate}.crt", certificate)
    over = threading.Event()

    def silent(connection: Connection) -> None:
        with context.wrap_socket(connection.sock, server_side=True) as connection.sock:
            connection.head()
            over.wait(peer.PATIENCE)

    transport = BulkTransport(ssl.create_default_context(cafile=f"{certificate}.crt"))
    asked = request("https://peer", content, length)
    with Peer(silent) as server:
        asked.url = httpx.URL(server.url.replace("http", "https"))
        asked.extensions["timeout"] = httpx.Timeout(0.3, connect=peer.PATIENCE).as_dict()
        with pytest.raises(httpx.ReadTimeout if length == 10 else httpx.WriteTimeout):
            transport.handle_request(asked)
        over.set()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_slow_line_is_not_a_silent_one(
    certificate: Path, content: int, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One piece takes longer than the limit of silence, and so does what the kernel holds at the end."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{certificate}.crt", certificate)
    connect = socket.create_connection

    def narrow(*arguments: Any, **named: Any) -> socket.socket:
        made = connect(*arguments, **named)
        if scheme == "https":  # else the kernel takes all of it, and the line has it still before it
            made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * KIB)
        return made

    def slowly(connection: Connection) -> None:
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * KIB)
        if scheme == "https":
            connection.sock = context.wrap_socket(connection.sock, server_side=True)
        with connection.sock:
            left = peer.length_of(connection.head())
            while left > 0:
                left -= len(connection.body(min(left, 32 * KIB)))
                threading.Event().wait(0.03)
            connection.send(OK)
            connection.wait_for_the_end()

    monkeypatch.setattr(socket, "create_connection", narrow)
    transport = BulkTransport(ssl.create_default_context(cafile=f"{certificate}.crt"))
    asked = request("https://peer", content, 2 * MIB)
    with Peer(slowly) as server:
        asked.url = httpx.URL(server.url.replace("http", scheme))
        asked.extensions["timeout"] = httpx.Timeout(0.9, connect=peer.PATIENCE).as_dict()
        assert transport.handle_request(asked).status_code == 200
        transport.close()


def test_a_connection_that_the_kernel_gave_up_is_silent_and_not_cut_off(
    transport: BulkTransport, content: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = socket.create_connection

    def brief(*arguments: Any, **named: Any) -> socket.socket:
        made = connect(*arguments, **named)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 200)  # milliseconds
        return made

    monkeypatch.setattr(socket, "create_connection", brief)
    over = threading.Event()
    with Peer(lambda _connection: over.wait(peer.PATIENCE)) as server:
        with pytest.raises(httpx.WriteTimeout):
            transport.handle_request(request(server.url, content, 16 * MIB))
        over.set()


def test_a_peer_that_never_finishes_the_handshake_is_given_up(content: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        transport = BulkTransport()
        asked = request(f"https://127.0.0.1:{silent.getsockname()[1]}", content, 10)
        asked.extensions["timeout"]["connect"] = 0.2
        with pytest.raises(httpx.ConnectTimeout):
            transport.handle_request(asked)
