"""Aliyun's newer client, unchanged, against the sandbox."""

import warnings
from pathlib import Path
from typing import Any

import pytest

from program import Vendors

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the libraries that it loads
    import alibabacloud_oss_v2 as oss

from dumbwaiter_sandbox.oss import accounts

KIB = 1024
BUCKET = accounts.BUCKET
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def _client(vendors: Vendors, version: str = "v4", *, temporary: bool = False) -> Any:
    config = oss.config.load_default()
    if temporary:
        session = accounts.mint(4_102_329_600)
        triple = (session.access_key, session.secret, session.token)
    else:
        triple = (accounts.ACCESS_KEY, accounts.SECRET, None)
    config.credentials_provider = oss.credentials.StaticCredentialsProvider(*triple)
    config.region, config.endpoint, config.use_path_style = accounts.REGION, vendors.sandbox.urls["oss"], True
    config.signature_version, config.retry_max_attempts = version, 1
    return oss.Client(config)


@pytest.mark.parametrize("temporary", [False, True])
@pytest.mark.parametrize("version", ["v1", "v4"])
def test_an_object_is_put(vendors: Vendors, version: str, temporary: bool) -> None:
    client = _client(vendors, version, temporary=temporary)
    done = client.put_object(oss.PutObjectRequest(bucket=BUCKET, key="测试 文件.txt", body=b"123456789"))
    assert (done.status_code, done.hash_crc64) == (200, "11051210869376104954")


@pytest.mark.parametrize("temporary", [False, True])
@pytest.mark.parametrize("version", ["v1", "v4"])
def test_parts_are_joined(vendors: Vendors, version: str, temporary: bool) -> None:
    client = _client(vendors, version, temporary=temporary)
    begun = client.initiate_multipart_upload(oss.InitiateMultipartUploadRequest(bucket=BUCKET, key="big"))
    parts = []
    for number, piece in enumerate([b"\0" * 100 * KIB, b"123456789"], 1):
        sent = client.upload_part(
            oss.UploadPartRequest(bucket=BUCKET, key="big", upload_id=begun.upload_id, part_number=number, body=piece)
        )
        parts.append(oss.UploadPart(part_number=number, etag=sent.etag))
    done = client.complete_multipart_upload(
        oss.CompleteMultipartUploadRequest(
            bucket=BUCKET,
            key="big",
            upload_id=begun.upload_id,
            complete_multipart_upload=oss.CompleteMultipartUpload(parts=parts),
        )
    )
    assert done.hash_crc64 == "11839611745311786180"


def test_an_object_is_read_whole_and_in_ranges(vendors: Vendors) -> None:
    client = _client(vendors)
    client.put_object(oss.PutObjectRequest(bucket=BUCKET, key="a", body=bytes(range(100))))

    def read(**more: str) -> bytes:
        with client.get_object(oss.GetObjectRequest(bucket=BUCKET, key="a", **more)).body as body:
            return bytes(body.read())

    assert read() == bytes(range(100))
    assert read(range_header="bytes=10-19") == bytes(range(10, 20))
    assert read(range_header="bytes=50-1999") == bytes(range(100))
    assert read(range_header="bytes=50-1999", range_behavior="standard") == bytes(range(50, 100))


def test_a_file_is_sent_in_parts_side_by_side(vendors: Vendors, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 450 * KIB)
    uploader = _client(vendors).uploader(part_size=100 * KIB)
    uploader.upload_file(oss.PutObjectRequest(bucket=BUCKET, key="u"), str(file))
    stored = vendors.sandbox.world.objects.path(BUCKET, "u")
    assert Path(stored).read_bytes() == file.read_bytes()


def test_temporary_keys_may_put_and_no_more(vendors: Vendors) -> None:
    client = _client(vendors, temporary=True)
    client.put_object(oss.PutObjectRequest(bucket=BUCKET, key="a", body=b"1"))
    with pytest.raises(oss.exceptions.OperationError, match="AccessDenied"):
        client.get_object(oss.GetObjectRequest(bucket=BUCKET, key="a"))
