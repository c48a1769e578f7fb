"""What the vendors sign themselves: known answers, computed once more by Qiniu's own client where it has the function."""

import json

import pytest
import qiniu

from dumbwaiter_sandbox.kodo.accounts import ACCOUNTS, Account, callback_authorization, download_url, sign, upload_token
from dumbwaiter_sandbox.oss import accounts, policies, signatures

PAIR = Account("dw-test-access-key", "dw-test-secret-key", ("demo-bucket",))
SHOP = ACCOUNTS["careyshop"]
POLICIES = {
    "a bucket": (PAIR, '{"scope":"demo-bucket","deadline":1893456000}', "7QHwEpsWhZSFbl5FF9v8Q9mGImA="),
    "a key": (
        PAIR,
        (
            '{"scope":"demo-bucket:dir/a.txt","deadline":1893456000,"insertOnly":1,"fsizeLimit":1048576,'
            '"mimeLimit":"image/jpeg"}'
        ),
        "1S-_eJlS6bpXbFaYH4XCc1NVpQA=",
    ),
    "a key of the vendor's": (
        PAIR,
        (
            '{"fsizeMin":1,"fsizeLimit":209715200,"forceSaveKey":true,"saveKey":"7f8c9740-6b6a-4944-a438-645cb37eb6d4",'
            '"scope":"demo-bucket","deadline":1893456000}'
        ),
        "svQ9epVxnVUb7DX-rN15mplAfjQ=",
    ),
    "a prefix": (
        PAIR,
        '{"scope":"demo-bucket:uploads/","isPrefixalScope":1,"deadline":1893456000}',
        "KVgI72mfLGNQynBYB6ikAH_ZpQM=",
    ),
    "Xinhua's": (
        PAIR,
        (
            r'{"scope":"demo-xh:test001.jpg","deadline":1893456000,"insertOnly":1,"returnBody":"{\"mimeType\":$(mimeType),'
            r"\"width\":$(imageInfo.width),\"height\":$(imageInfo.height),\"key\":\"$(key)\",\"hash\":\"$(etag)\","
            r'\"size\":$(fsize),\"bucket\":\"$(bucket)\",\"name\":\"$(x:name)\"}","fsizeLimit":1048576,'
            r'"mimeLimit":"image/jpeg"}'
        ),
        "Ptk_UWyzIXJGIyGPLcoOg-lFWps=",
    ),
    "Jiandaoyun's": (
        PAIR,
        (
            r'{"fsizeMin":1,"fsizeLimit":209715200,"callbackBodyType":"application/json","callbackBody":"{\"appId\":'
            r"\"59264073a2a60c0c08e20bfb\",\"entryId\":\"59264073a2a60c0c08e20bfd\",\"key\":\"$(key)\",\"hash\":"
            r"\"$(etag)\",\"name\":\"$(fname)\",\"size\":\"$(fsize)\",\"mime\":\"$(mimeType)\",\"bucket\":\"jdy-file\","
            r'\"uploader\":\"59264073a2a60c0c08e20b00\",\"sessionId\":\"87cd7d71-c6df-4281-9927-469094395677\"}",'
            r'"callbackHost":"broker.example.test","callbackUrl":"http://broker.example.test/file/upload/api_callback",'
            r'"forceSaveKey":true,"saveKey":"6b559cf1-b16c-43bd-a211-8fa8fdeae2ef","scope":"demo-jdy-upload",'
            r'"deadline":1893456000}'
        ),
        "y0Mc813S7bgi1Z8cXGi-NDo7PEM=",
    ),
    "CareyShop's": (
        SHOP,
        (
            r'{"fsizeLimit":2097152,"isPrefixalScope":1,"callbackUrl":"http:\/\/broker.test\/api\/v1\/upload\/method\/'
            r'put.upload.data\/module\/qiniu.html","callbackBody":"path=$(key)&size=$(fsize)&hash=$(etag)",'
            r'"callbackBodyType":"application\/x-www-form-urlencoded","scope":"careyshop:uploads\/files\/20180528\/",'
            r'"deadline":1527519600}'
        ),
        "h6J1TCN2OQbqLOJ96NOe7KVf2kg=",
    ),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_put_policy_is_signed_as_qiniu_does(policy: str) -> None:
    account, text, signature = POLICIES[policy]
    token = upload_token(account, text)
    assert json.loads(text)
    assert token.split(":")[:2] == [account.access_key, signature]
    assert token == qiniu.Auth(account.access_key, account.secret_key).token_with_data(text)


@pytest.mark.parametrize(
    ("url", "signature"),
    [
        ("http://dl.example.test/dir/a.txt?e=1893456000", "4mOEf4snrKcapmJd1Bmi806-rFY="),
        ("http://dl.example.test/dir/a.txt?attname=x.txt&e=1893456000", "gbPkzgazuGlBkcCC-wncFZkMj0A="),
    ],
)
def test_the_address_of_a_private_object_is_signed_as_qiniu_does(url: str, signature: str) -> None:
    assert sign(PAIR, url) == signature
    assert qiniu.Auth(PAIR.access_key, PAIR.secret_key).token(url) == f"{PAIR.access_key}:{signature}"


def test_a_signed_address_is_the_one_of_qinius_client() -> None:
    made = download_url(PAIR, "http://dl.example.test", "demo-bucket", "dir/a.txt", 1893456000)
    theirs = made.partition("&token=")[0]
    assert made == f"{theirs}&token={qiniu.Auth(PAIR.access_key, PAIR.secret_key).token(theirs)}"


@pytest.mark.parametrize(
    ("account", "path", "body", "signature"),
    [
        (PAIR, "/callback", "key=abc&hash=Fto5o-5ea0sNMlW_75VgGJCv2AcJ", "G-_qRJJRo1uOoJhWjgXxhKIk8bg="),
        (
            SHOP,
            "/api/v1/upload/method/put.upload.data/module/qiniu.html",
            "path=uploads%2Ffiles%2F20180528%2Fa.txt&size=9&hash=Fvx",
            "yMWQh6_Cu3dEvIZDHuFptjdcC2I=",
        ),
    ],
)
def test_a_callback_is_signed_as_qiniu_does(account: Account, path: str, body: str, signature: str) -> None:
    made = callback_authorization(account, path, body, form=True)
    assert made == f"QBox {account.access_key}:{signature}"
    auth = qiniu.Auth(account.access_key, account.secret_key)
    url = f"http://broker.test{path}"
    assert auth.verify_callback(made, url, body, "application/x-www-form-urlencoded")


def test_the_policy_of_a_form_is_signed_as_oss_does() -> None:
    policy = (
        "eyJleHBpcmF0aW9uIjoiMjAxOC0wNS0yOFQwMjowNzo1M1oiLCJjb25kaXRpb25zIjpbWyJjb250ZW50LWxlbmd0aC1yYW5nZSIsMCwyMDk3MTUy"
        "XSxbInN0YXJ0cy13aXRoIiwiJGtleSIsInVwbG9hZHNcL2ZpbGVzXC8yMDE4MDUyOFwvIl1dfQ=="
    )
    assert policies.signature(accounts.SECRET, policy) == "BxWH6Bzix2D70uX5CxCrINOTSoE="


TOKEN = "CAISdumbwaiterFakeToken/0001+abc=="


@pytest.mark.parametrize(
    ("secret", "query", "signature"),
    [
        (accounts.SECRET, {}, "u/PsjVL4wF+om2RuSruGH4cqOOk="),
        ("dumbwaiter-sts-secret-0001", {"security-token": TOKEN}, "u21o18UzMolQvdO1Nb5NjUwLTKU="),
    ],
)
def test_a_signed_address_of_oss_is_checked_as_oss_does(secret: str, query: dict[str, str], signature: str) -> None:
    asked = signatures.Asked("GET", "careyshop", "uploads/files/20180528/dff3c7542c7ea.jpg", query, {})
    assert signatures._mac_v1(secret, signatures._text_v1(asked, "1527516000")) == signature
