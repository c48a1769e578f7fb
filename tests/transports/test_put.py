"""What a PUT or a form makes of a key that may not be replaced and is taken, with a service that answers as it is told."""

from collections.abc import Iterator
from hashlib import md5
from pathlib import Path

import pytest
from msgspec.structs import replace

import peer
from dumbwaiter.config.file import parse
from dumbwaiter.errors import Conflict, Reauth, Reject, Retry
from dumbwaiter.model import Ask
from peer import Peer
from sending import Sender

CONTENT = b"the film"
MINE = md5(CONTENT).hexdigest()
TOML = """
[provider.service]
broker = "recipe"
transport = "{transport}"
request = {{ url = "{url}/ask", body = {{ key = "{{key}}" }} }}
reply = {{ url = "url", link = "link" }}
"""
S3_BUSY = b"<Error><Code>ConditionalRequestConflict</Code></Error>"


class Service:
    """Gives each file an address, answers what is sent there with `upload`, and whoever looks with `etag`."""

    def __init__(self) -> None:
        self.upload = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        self.etag: str | None = None
        self.heads: dict[str, bytes] = {}
        self.bodies: dict[str, bytes] = {}

    def serve(self, connection: peer.Connection) -> None:
        while True:
            head, body = connection.request()
            method = head.split()[0].decode()
            if head.split()[1] == b"/ask":
                url = f"http://{head.lower().partition(b'host: ')[2].split()[0].decode()}"
                connection.send(peer.answer(f'{{"url": "{url}/to", "link": "{url}/read"}}'.encode()))
                continue
            self.heads[method], self.bodies[method] = head.lower(), body
            if method != "HEAD":
                connection.send(self.upload)
            elif self.etag is None:
                connection.send(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n")
            else:
                connection.send(b'HTTP/1.1 200 OK\r\nETag: "%s"\r\nContent-Length: 8\r\n\r\n' % self.etag.encode())


class Named(Sender):
    """Its key is the watch's, and is to replace something or not."""

    fresh = True

    @property
    def ask(self) -> Ask:
        return replace(super().ask, key="film.mov", named=True, fresh=self.fresh)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture(params=["put", "form"])
def one(request: pytest.FixtureRequest, service: Service, tmp_path: Path) -> Iterator[Named]:
    (tmp_path / "film.mov").write_bytes(CONTENT)
    with Peer(service.serve) as server:
        options = parse(TOML.format(transport=request.param, url=server.url), "c.toml").provider["service"]
        with Named(options, tmp_path / "film.mov") as sender:
            yield sender


def taken(status: int, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


@pytest.mark.parametrize("one", ["put"], indirect=True)
@pytest.mark.parametrize("fresh", [True, False])
def test_a_put_says_whether_it_may_replace_something(one: Named, service: Service, fresh: bool) -> None:
    one.fresh = fresh
    one.attempt()
    assert (b"\r\nif-none-match: *\r\n" in service.heads["PUT"]) is fresh


@pytest.mark.parametrize("one", ["put"], indirect=True)
def test_an_answer_with_the_files_md5_proves_what_is_there(one: Named, service: Service) -> None:
    for etag, verified in {MINE: "md5", MINE.upper(): "md5", f"{MINE}-1": "", md5(b"not this").hexdigest(): ""}.items():
        service.upload = b'HTTP/1.1 200 OK\r\nETag: "%s"\r\nContent-Length: 0\r\n\r\n' % etag.encode()
        receipt = one.attempt()
        assert (receipt.etag, receipt.verified) == (etag, verified)
        assert service.bodies["PUT"] == CONTENT


@pytest.mark.parametrize("status", [409, 412])
def test_what_is_there_already_is_this_very_file_or_a_conflict(one: Named, service: Service, status: int) -> None:
    service.upload = taken(status)
    service.etag = MINE.upper()  # as some write it
    receipt = one.attempt()
    assert (receipt.key, receipt.verified, receipt.etag.lower()) == ("film.mov", "md5", MINE)
    service.etag = md5(b"not this").hexdigest()
    conflict = one.verdict()
    assert (type(conflict), str(conflict)) == (Conflict, "the provider has another file as film.mov")
    service.etag = None
    conflict = one.verdict()
    assert type(conflict) is Conflict
    assert str(conflict) == "the provider has film.mov already, and whether it is this file cannot be seen"


@pytest.mark.parametrize("status", [409, 412])
def test_where_something_may_be_replaced_a_refusal_is_one(one: Named, service: Service, status: int) -> None:
    one.fresh, service.etag, service.upload = False, MINE, taken(status)
    assert type(one.verdict()) is Reject
    assert "HEAD" not in service.heads


def test_any_other_refusal_says_nothing_of_what_is_there(one: Named, service: Service) -> None:
    service.etag = MINE
    for status, verdict in {400: Reject, 403: Reauth, 500: Retry}.items():
        service.upload = taken(status)
        assert type(one.verdict()) is verdict
    assert "HEAD" not in service.heads


def test_a_store_that_asks_to_try_again_is_asked_again(one: Named, service: Service) -> None:
    """S3 says 409 where another write is under way: nothing is there yet."""
    service.upload = taken(409, S3_BUSY)
    assert type(one.verdict()) is Retry
    assert "HEAD" not in service.heads
