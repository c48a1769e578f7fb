import pytest

DATA = bytes(range(256)) * 4096


@pytest.fixture
def grant(running):
    grant = running.grant("folder/big.bin")
    running.send(grant, DATA)
    return grant


@pytest.mark.parametrize(
    ("wanted", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=1048570-", 1048570, 1048576),
        ("bytes=-5", 1048571, 1048576),
        ("bytes=5-9999999", 5, 1048576),
        ("bytes=-9999999", 0, 1048576),
    ],
)
def test_a_range(running, grant, wanted, first, end):
    reply = running.download(grant, range=wanted)
    assert reply.status_code == 206
    assert reply.content == DATA[first:end]
    assert reply.headers["content-range"] == f"bytes {first}-{end - 1}/{len(DATA)}"
    assert reply.headers["content-length"] == str(end - first)


@pytest.mark.parametrize("wanted", ["bytes=1048576-", "bytes=2000000-3000000", "bytes=-0"])
def test_a_range_beyond_the_end(running, grant, wanted):
    reply = running.download(grant, range=wanted)
    assert reply.status_code == 416
    assert reply.headers["content-range"] == f"bytes */{len(DATA)}"


@pytest.mark.parametrize("wanted", ["bytes=0-1,5-6", "bytes=9-3", "bytes=-", "lines=1-2", "bytes=a-b"])
def test_a_range_that_is_none_gets_everything(running, grant, wanted):
    reply = running.download(grant, range=wanted)
    assert reply.status_code == 200
    assert reply.content == DATA


def test_the_head_alone(running, grant):
    full, part = running.download(grant, "HEAD"), running.download(grant, "HEAD", range="bytes=0-9")
    assert (full.status_code, full.content, full.headers["content-length"]) == (200, b"", str(len(DATA)))
    assert (part.status_code, part.headers["content-length"]) == (206, "10")
    assert full.headers["last-modified"].endswith("GMT")


def test_conditions(running, grant):
    etag = running.download(grant, "HEAD").headers["etag"]
    assert running.download(grant, **{"if-none-match": etag}).status_code == 304
    assert running.download(grant, **{"if-none-match": '"x"'}).status_code == 200
    assert running.download(grant, **{"if-match": '"x"'}).status_code == 412
    assert running.download(grant, **{"if-match": etag}).status_code == 200
    assert running.download(grant, **{"if-range": etag, "range": "bytes=0-1"}).status_code == 206
    assert running.download(grant, **{"if-range": '"x"', "range": "bytes=0-1"}).status_code == 200


def test_an_empty_object(running):
    grant = running.grant("empty")
    running.send(grant, b"")
    reply = running.download(grant)
    assert (reply.status_code, reply.content, reply.headers["content-length"]) == (200, b"", "0")
    assert running.download(grant, range="bytes=0-").status_code == 416


@pytest.mark.parametrize("path", ["/voddumb01/none", "/voddumb01", "/voddumb01/", "/", "/%ff/%00", "/..%2f/x"])
def test_what_is_not_there(running, path):
    assert running.http.get(running.urls["cdn"] + path).status_code == 404


def test_a_reader_keeps_its_version_while_the_object_is_replaced(running, grant):
    with running.http.stream("GET", f"{running.urls['cdn']}/voddumb01/folder/big.bin") as reply:
        running.send(grant, b"new")
        assert reply.read() == DATA
    assert running.download(grant).content == b"new"
