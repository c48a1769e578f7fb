"""Volcengine's own SDK for Python (`volcengine`) uploads to the sandbox, unchanged.

It speaks to the public product's gateway, whose signature is Volcengine's variant; the objects behind are the same.
"""

import hashlib
import json
import random
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests.adapters
from volcengine.imagex.v2.imagex_service import ImagexService

from program import Vendors

MIB = 1024 * 1024


class Plain(requests.adapters.HTTPAdapter):
    """Speaks without TLS: the SDK writes "https" in front of an upload host, and loopback has no certificate."""

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        assert request.url is not None
        request.url = request.url.replace("https://", "http://", 1)
        return super().send(request, *arguments, **options)


@pytest.fixture
def vendors(tmp_path: Path) -> Iterator[Vendors]:
    # The vendor's answer names hosts without scheme.
    made = Vendors(tmp_path, options={"jimeng": {"bare_hosts": True, "exact_size": False}})
    yield made
    made.close()


@pytest.fixture
def service(vendors: Vendors, monkeypatch: pytest.MonkeyPatch) -> ImagexService:
    monkeypatch.setenv("HOME", "/nonexistent")  # it would read keys there
    account = vendors.sandbox.accounts["jimeng"]
    made = ImagexService(ak=account["access_key"], sk=account["secret_key"])
    made.set_session_token("")  # all of its services share their settings
    made.set_scheme("http")
    made.set_host(vendors.sandbox.urls["veimagex"].partition("://")[2])
    made.session.trust_env = False
    made.session.mount("https://", Plain())
    return made


def objects(vendors: Vendors) -> dict[str, str]:
    return {one["key"]: one["etag"] for one in vendors.http.get("/_sandbox/objects").json()}


def names(vendors: Vendors) -> dict[str, str]:
    return {"ServiceId": vendors.sandbox.accounts["jimeng"]["service_sdk"]}


def test_bytes_arrive_under_the_names_asked_for(vendors: Vendors, service: ImagexService) -> None:
    contents = [b"hello", "中".encode() * 1000]
    keys = ["a b.txt", "c/中.txt"]
    answer = service.upload_image_data(names(vendors) | {"StoreKeys": keys}, contents)
    assert [one["UriStatus"] for one in answer["Results"]] == [2000, 2000]
    digests = [hashlib.md5(data).hexdigest() for data in contents]
    assert objects(vendors) == dict(zip(keys, digests, strict=True))


def test_a_large_file_arrives_in_parts_and_can_be_read(
    vendors: Vendors, service: ImagexService, tmp_path: Path
) -> None:
    content = random.Random(1).randbytes(45 * MIB)
    path = tmp_path / "film.mov"
    path.write_bytes(content)
    answer = service.upload_image(names(vendors), [str(path)])
    (result,) = answer["Results"]
    assert result["UriStatus"] == 2000
    assert [one["call"] for one in vendors.log() if one["service"] == "tos1"] == ["init", "part", "part", "merge"]
    url = f"{vendors.sandbox.urls['cdn']}/{urllib.parse.quote(result['Uri'])}"
    reply = httpx.get(url, headers={"range": f"bytes={20 * MIB}-{20 * MIB + 99}"}, trust_env=False)
    assert reply.status_code == 206
    assert reply.content == content[20 * MIB : 20 * MIB + 100]
    assert objects(vendors) == {result["Uri"].partition("/")[2]: hashlib.md5(content).hexdigest()}


def test_the_numbering_that_the_sdk_uses_beyond_a_gigabyte_is_taken(
    vendors: Vendors, service: ImagexService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import volcengine.imagex.v2.upload as upload

    monkeypatch.setattr(upload, "LargeFileSize", 20 * MIB)  # the file itself need not have a gigabyte
    content = random.Random(2).randbytes(41 * MIB)
    path = tmp_path / "film.mov"
    path.write_bytes(content)
    (result,) = service.upload_image(names(vendors), [str(path)])["Results"]
    assert result["UriStatus"] == 2000
    assert [one["part"] for one in vendors.log("part")] == ["1", "2"]


def test_temporary_keys_of_the_page_sign_here_too(vendors: Vendors, service: ImagexService) -> None:
    vendors.http.put("/_sandbox/options", json={"jimeng": {"strict": False}}).raise_for_status()
    session = vendors.sandbox.accounts["jimeng"]["session_cn"]
    url = f"{vendors.sandbox.urls['jimeng']}/mweb/v1/get_upload_token"
    given = vendors.http.post(url, json={"scene": 2}, headers={"cookie": f"sessionid={session}"}).json()["data"]
    service.set_ak(given["access_key_id"])
    service.set_sk(given["secret_access_key"])
    service.set_session_token(given["session_token"])
    query = {"ServiceId": "tb4s082cfz"}
    address = service.apply_upload(query)["Result"]["UploadAddress"]
    assert address["StoreInfos"][0]["StoreUri"].startswith("tos-cn-i-tb4s082cfz/")
    answer = service.commit_upload(query, json.dumps({"SessionKey": address["SessionKey"]}))
    assert answer["Result"]["Results"][0]["UriStatus"] == 2001  # nothing was sent


def test_a_wrong_secret_is_refused(vendors: Vendors, service: ImagexService) -> None:
    service.set_sk("other")
    with pytest.raises(Exception, match="SignatureDoesNotMatch"):
        service.apply_upload(names(vendors))


def test_the_gateway_of_the_page_does_not_take_the_sdks_signature(vendors: Vendors, service: ImagexService) -> None:
    service.set_host(vendors.sandbox.urls["imagex"].partition("://")[2])
    with pytest.raises(Exception, match="InvalidAuthorization"):
        service.apply_upload(names(vendors))
