"""The OSS sandbox refuses what OSS refuses."""

import base64
import json

import pytest

from dumbwaiter_sandbox.oss import accounts, policies

BUCKET = accounts.BUCKET


def _post(running, content=b"data", key="a/b.txt", order=None, conditions=None, end="2099-01-01T00:00:00Z", **changes):
    document = {"expiration": end, "conditions": conditions or [["starts-with", "$key", "a/"]]}
    policy = base64.b64encode(json.dumps(document).encode()).decode()
    fields = {
        "OSSAccessKeyId": accounts.ACCESS_KEY,
        "policy": policy,
        "Signature": policies.signature(accounts.SECRET, policy),
        "key": key,
        "success_action_status": "200",
    } | changes
    names = order or [*fields, "file"]
    files = [
        ("file", ("f.txt", content, "text/plain")) if name == "file" else (name, (None, fields[name])) for name in names
    ]
    return running.http.post(f"{running.urls['oss']}/{BUCKET}/", files=files)


def test_a_form_is_stored_with_its_crc(running):
    reply = _post(running, b"123456789")
    assert reply.status_code == 200
    assert reply.headers["x-oss-hash-crc64ecma"] == "11051210869376104954"
    assert reply.headers["etag"] == '"25F9E794323B453885F5181F1B624D0B"'
    assert running.http.get(f"{running.urls['oss']}/{BUCKET}/a/b.txt").content == b"123456789"


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"key": "c/b.txt"}, 403, "Policy Condition failed"),
        ({"end": "2018-01-01T00:00:00Z"}, 403, "Policy expired"),
        ({"Signature": "x"}, 403, "SignatureDoesNotMatch"),
        ({"conditions": [["content-length-range", 0, 3]]}, 400, "EntityTooLarge"),
        ({"conditions": [["content-length-range", 5, 9]]}, 400, "EntityTooSmall"),
        ({"policy": "x"}, 403, "SignatureDoesNotMatch"),
        ({"callback": "x"}, 400, "InvalidArgument"),
        ({"OSSAccessKeyId": "x"}, 403, "InvalidAccessKeyId"),
        ({"order": ["file", "key"]}, 400, "check the order"),
    ],
)
def test_a_form_against_the_policy_is_refused(running, changes, status, code):
    reply = _post(running, **changes)
    assert reply.status_code == status
    assert code in reply.text
    assert not running.objects()


def test_a_range_that_leaves_the_object_gets_all_of_it(running):
    _post(running, bytes(range(100)))
    url = f"{running.urls['oss']}/{BUCKET}/a/b.txt"

    def get(text, **headers):
        return running.http.get(url, headers={"range": f"bytes={text}", **headers})

    assert (get("10-19").status_code, get("10-19").content) == (206, bytes(range(10, 20)))
    assert (get("50-199").status_code, len(get("50-199").content)) == (200, 100)
    standard = {"x-oss-range-behavior": "standard"}
    assert (get("50-199", **standard).status_code, len(get("50-199", **standard).content)) == (206, 50)
    assert get("100-", **standard).status_code == 416


def test_a_callback_that_cannot_be_made_leaves_the_object(running):
    callback = {"callbackUrl": "http://127.0.0.1:1/", "callbackBody": "key=${object}"}
    reply = _post(running, callback=base64.b64encode(json.dumps(callback).encode()).decode())
    assert reply.status_code == 203
    assert "CallbackFailed" in reply.text
    assert "a/b.txt" in running.objects()


def test_a_callback_of_a_stranger_is_no_file_in_the_shop(running):
    url = f"{running.urls['careyshop']}/api/v1/upload/method/put.upload.data/module/aliyun.html"
    key = base64.b64encode(f"{running.urls['oss']}/key.pem".encode()).decode()
    reply = running.http.post(
        url, data={"path": "a", "size": "1", "hash": "x"}, headers={"authorization": "eA==", "x-oss-pub-key-url": key}
    )
    assert reply.json()["status"] == 500
    assert "非法访问" in reply.json()["message"]


def test_a_second_sign_in_of_a_platform_ends_the_first(running):
    account = running.sandbox.accounts["careyshop"]
    url = f"{running.urls['careyshop']}/api/v1/admin/method/login.admin.user.html"
    values = {"appkey": account["app_key"], "timestamp": str(int(running.now())), "platform": "p"}
    values |= {name: account[name] for name in ("username", "password")}
    tokens = [running.http.post(url, data=values).json()["data"]["token"]["token"] for _ in range(2)]
    asked = running.http.post(
        f"{running.urls['careyshop']}/api/v1/upload/method/get.upload.token.html",
        data={"appkey": account["app_key"], "timestamp": values["timestamp"], "token": tokens[0], "sign": "x" * 32},
    )
    assert asked.json() == {"status": 500, "message": "权限不足"}
