"""Qiniu's own client, unchanged, against the sandbox: what it can do there, a real Kodo would let it do too."""

import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import qiniu

from dumbwaiter.model import MIB
from dumbwaiter_sandbox.kodo.accounts import ACCOUNTS
from program import Vendors

# The client's own: it announces the names that it will drop, and leaves answers to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:qiniu"),
    pytest.mark.filterwarnings("ignore:DEPRECATED:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
ACCOUNT = ACCOUNTS["kodo"]
BUCKET, PRIVATE = ACCOUNT.buckets


@pytest.fixture
def vendors(tmp_path: Path) -> Iterator[Vendors]:
    made = Vendors(tmp_path / "sandbox")
    hosts = {name: made.sandbox.urls[name].removeprefix("http://") for name in ("up1", "up2", "io")}
    zone = qiniu.Zone(
        up_host=hosts["up1"],
        up_host_backup=hosts["up2"],
        io_host=hosts["io"],
        scheme="http",
        home_dir=str(tmp_path),
    )
    qiniu.set_default(default_zone=zone)
    yield made
    made.close()


@pytest.fixture
def auth() -> qiniu.Auth:
    return qiniu.Auth(ACCOUNT.access_key, ACCOUNT.secret_key)


def read(vendors: Vendors, key: str, bucket: str = BUCKET) -> bytes:
    return httpx.get(f"{vendors.sandbox.urls['io']}/{bucket}/{key}", trust_env=False).content


@pytest.mark.parametrize("size", [1, 300_000])
def test_a_form_upload_is_stored_under_its_hash(vendors: Vendors, auth: qiniu.Auth, tmp_path: Path, size: int) -> None:
    file = tmp_path / "file"
    file.write_bytes(random.Random(size).randbytes(size))
    told, info = qiniu.put_data(auth.upload_token(BUCKET, "form.bin"), "form.bin", file.read_bytes(), check_crc=True)
    assert told == {"key": "form.bin", "hash": qiniu.etag(str(file))}, info
    assert read(vendors, "form.bin") == file.read_bytes()


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("size", [8 * MIB + 1, 12 * MIB])
def test_a_large_file_is_put_together_from_its_parts(
    vendors: Vendors, auth: qiniu.Auth, tmp_path: Path, version: str, size: int
) -> None:
    file = tmp_path / "large file 测试.bin"
    file.write_bytes(random.Random(size).randbytes(size))
    key = f"dir/{version}.bin"
    told, info = qiniu.put_file(
        auth.upload_token(BUCKET, key), key, str(file), params={"x:a": "1"}, version=version, bucket_name=BUCKET
    )
    assert told == {"key": key, "hash": qiniu.etag(str(file))}, info
    assert read(vendors, key) == file.read_bytes()


def test_the_clients_own_signature_opens_a_private_object(vendors: Vendors, auth: qiniu.Auth) -> None:
    qiniu.put_data(auth.upload_token(PRIVATE, "a b.txt"), "a b.txt", b"hello")
    plain = f"{vendors.sandbox.urls['io']}/{PRIVATE}/a%20b.txt"
    assert httpx.get(plain, trust_env=False).status_code == 403
    signed = auth.private_download_url(plain, expires=60)
    assert httpx.get(signed, trust_env=False, headers={"range": "bytes=1-3"}).content == b"ell"
    vendors.advance(61)
    assert httpx.get(signed, trust_env=False).status_code == 403


def test_the_policy_of_a_token_holds(vendors: Vendors, auth: qiniu.Auth) -> None:
    limited = auth.upload_token(BUCKET, "small", 3600, {"fsizeLimit": 4, "mimeLimit": "image/*", "insertOnly": 1})
    assert qiniu.put_data(limited, "small", b"hello")[1].status_code == 413
    assert qiniu.put_data(limited, "small", b"text")[1].status_code == 403
    assert qiniu.put_data(limited, "other", b"GIF8")[1].status_code == 403
    assert qiniu.put_data(limited, "small", b"GIF8")[1].status_code == 200
    assert qiniu.put_data(limited, "small", b"\xff\xd8\xff")[1].status_code == 614
    forged = qiniu.Auth(ACCOUNT.access_key, "another").upload_token(BUCKET, "small")
    assert qiniu.put_data(forged, "small", b"GIF8")[1].status_code == 401
    assert qiniu.put_data(auth.upload_token(BUCKET, "late", -5), "late", b"x")[1].status_code == 401


def test_a_template_of_the_policy_shapes_the_answer(vendors: Vendors, auth: qiniu.Auth) -> None:
    body = '{"name":"$(x:name)","size":$(fsize),"none":$(x:none),"mime":$(mimeType),"key":"$(key)"}'
    token = auth.upload_token(BUCKET, None, 3600, {"returnBody": body, "saveKey": "by/$(etag)"})
    told, _ = qiniu.put_data(token, None, b"hello", params={"x:name": 'a "b"'}, mime_type="text/plain")
    assert told == {
        "name": 'a "b"',
        "size": 5,
        "none": None,
        "mime": "text/plain",
        "key": "by/Fqr0xh3cxeii2r7eDztILNmuqUNN",
    }
