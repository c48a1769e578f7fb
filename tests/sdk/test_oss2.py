"""Aliyun's older client, unchanged, against the sandbox. It logs nothing and warns of its own old syntax."""

import warnings
from pathlib import Path
from typing import Any

import pytest

from program import Vendors

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # escapes in its source that newer Pythons frown upon
    import oss2

from dumbwaiter_sandbox.oss import accounts

KIB = 1024
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def _bucket(vendors: Vendors, kind: str) -> Any:
    session = accounts.mint(4_102_329_600)
    auths = {
        "v1": lambda: oss2.Auth(accounts.ACCESS_KEY, accounts.SECRET),
        "v4": lambda: oss2.AuthV4(accounts.ACCESS_KEY, accounts.SECRET),
        "sts": lambda: oss2.StsAuth(session.access_key, session.secret, session.token),
        "sts-v4": lambda: oss2.StsAuth(session.access_key, session.secret, session.token, auth_version="v4"),
    }
    url = vendors.sandbox.urls["oss"]
    return oss2.Bucket(auths[kind](), url, accounts.BUCKET, region=accounts.REGION)


@pytest.mark.parametrize("kind", ["v1", "v4", "sts", "sts-v4"])
def test_an_object_is_put(vendors: Vendors, kind: str) -> None:
    done = _bucket(vendors, kind).put_object("uploads/测试 文件.txt", b"123456789")
    assert (done.status, done.crc) == (200, 11051210869376104954)
    assert (vendors.sandbox.world.objects.path(accounts.BUCKET, "uploads/测试 文件.txt")).endswith("文件.txt")


@pytest.mark.parametrize("kind", ["v1", "v4", "sts", "sts-v4"])
def test_parts_are_joined(vendors: Vendors, kind: str) -> None:
    bucket = _bucket(vendors, kind)
    id_ = bucket.init_multipart_upload("big").upload_id
    pieces = [b"\0" * 100 * KIB, b"123456789"]
    parts = []
    for number, piece in enumerate(pieces, 1):
        sent = bucket.upload_part("big", id_, number, piece)
        parts.append(oss2.models.PartInfo(number, sent.etag, len(piece), sent.crc))
    # It compares the CRC that it combined itself.
    assert bucket.complete_multipart_upload("big", id_, parts).crc == 11839611745311786180


@pytest.mark.parametrize("kind", ["v1", "v4"])
def test_an_object_is_read_whole_and_in_ranges(vendors: Vendors, kind: str) -> None:
    bucket = _bucket(vendors, kind)
    bucket.put_object("a", bytes(range(100)))
    assert bucket.get_object("a").read() == bytes(range(100))
    assert bucket.get_object("a", byte_range=(10, 19)).read() == bytes(range(10, 20))
    assert bucket.get_object("a", byte_range=(50, 1999)).read() == bytes(range(100))  # OSS's trap
    assert bucket.head_object("a").content_length == 100


def test_a_resumable_upload_finds_its_parts(vendors: Vendors, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 350 * KIB)
    oss2.resumable_upload(_bucket(vendors, "v1"), "r", str(file), multipart_threshold=KIB, part_size=100 * KIB)
    assert _bucket(vendors, "v1").get_object("r").read() == file.read_bytes()


def test_temporary_keys_may_put_and_no_more(vendors: Vendors) -> None:
    bucket = _bucket(vendors, "sts")
    bucket.put_object("a", b"1")
    with pytest.raises(oss2.exceptions.AccessDenied):
        bucket.get_object("a")
    id_ = bucket.init_multipart_upload("b").upload_id
    with pytest.raises(oss2.exceptions.AccessDenied):
        bucket.list_parts("b", id_)
    with pytest.raises(oss2.exceptions.AccessDenied):
        bucket.abort_multipart_upload("b", id_)


def test_temporary_keys_end(vendors: Vendors) -> None:
    session = accounts.mint(vendors.sandbox.world.clock.now() + 60)
    auth = oss2.StsAuth(session.access_key, session.secret, session.token)
    bucket = oss2.Bucket(auth, vendors.sandbox.urls["oss"], accounts.BUCKET)
    bucket.put_object("a", b"1")
    vendors.advance(61)
    with pytest.raises(oss2.exceptions.ServerError, match="SecurityTokenExpired"):
        bucket.put_object("a", b"1")
