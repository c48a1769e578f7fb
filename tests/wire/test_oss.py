"""OSS's formats. The signatures were reckoned with Aliyun's own clients, oss2 2.19 and alibabacloud-oss-v2 1.4, for made-up keys;

the CRC's check value is that of CRC-64/XZ in the public catalogue of CRC algorithms.
"""

import base64

import pytest
from fastcrc import crc64
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.errors import Retry
from dumbwaiter.wire import oss, oss_replies
from dumbwaiter.wire.message import Reply

NOW = 1527516000.0  # Mon, 28 May 2018 14:00:00 GMT
BUCKET, KEY, ID = "careyshop", "uploads/files/20180528/dff3c7542c7ea.jpg", "0004B9895DBBB6EC98E36"
NAMED = "uploads/files/20180528/测试 文件.txt"
OWN = oss.Account("DUMBWAITERTESTAK0001", "dumbwaiter-test-secret-0001")
STS = oss.Account("STS.DumbwaiterTest0001", "dumbwaiter-sts-secret-0001", "CAISdumbwaiterFakeToken/0001+abc==")
CALLBACK = oss.in_base64(
    '{"callbackUrl":"http://broker.test/api/v1/upload/method/put.upload.data/module/aliyun.html",'
    '"callbackBody":"path=${object}&size=${size}&hash=${etag}","callbackBodyType":"application/x-www-form-urlencoded"}'
)
VARIABLES = oss.in_base64('{"x:filename":"a.bin","x:parent_id":"0","x:replace":""}')
BINARY, XML = {"content-type": "application/octet-stream"}, {"content-type": "application/xml"}
PART = (("partNumber", "1"), ("uploadId", ID))
LIST = (("list-type", "2"), ("prefix", "uploads/"), ("continuation-token", "abc"))


@pytest.mark.parametrize(
    ("account", "method", "key", "query", "headers", "signature"),
    [
        (OWN, "PUT", KEY, (), {"content-md5": "JfnnlDI7RTiF9RgfG2JNCw==", **BINARY}, "IZpVK1v8/vRQ6GJzrEWeTJ+4dSk="),
        (OWN, "GET", KEY, (), {}, "RViJjB4UBLvl2QJPCq6XUh4SMhg="),
        (
            STS,
            "PUT",
            KEY,
            (),
            {"content-type": "image/jpeg", "x-oss-callback": CALLBACK, "x-oss-callback-var": VARIABLES},
            "Lsuz39QlZkRLYGk1ZLPSn44gaFI=",
        ),
        (STS, "POST", KEY, (("uploads", None),), BINARY, "t9xFqTkYnXggQz0IiGsFyTriPP8="),
        (STS, "PUT", KEY, PART, {}, "vKr8rsWTUSKsdNOgmPO+84nDjYk="),
        (STS, "POST", KEY, (("uploadId", ID),), {**XML, "x-oss-callback": CALLBACK}, "x962WjO70eHpdtWNedBO7uXNcWU="),
        (STS, "GET", KEY, (("uploadId", ID), ("max-parts", "1000")), {}, "lFqbyorkMsbyNfTJB5cLdCUbPlo="),
        (OWN, "POST", KEY, (("append", None), ("position", "0")), BINARY, "f6LFEs4eVUJ5sFk1l4X3U4OXID0="),
        (OWN, "GET", "", LIST, {}, "cOuNQuBY9i8KyMWZydoC3LrWKs8="),
        (OWN, "PUT", NAMED, (), {"content-type": "text/plain"}, "FPQ6y7o7lyGaoROoGDR0t77Yni8="),
    ],
)
def test_version_1_signs_as_the_vendors_clients_do(account, method, key, query, headers, signature):
    signed = oss.signed_v1(account, method, BUCKET, key, query, headers, NOW)
    assert signed["authorization"] == f"OSS {account.access_key}:{signature}"
    assert signed["date"] == "Mon, 28 May 2018 14:00:00 GMT"
    assert signed.get("x-oss-security-token", "") == account.token


@pytest.mark.parametrize(
    ("account", "method", "key", "query", "headers", "signature"),
    [
        (OWN, "PUT", KEY, (), BINARY, "ea6af88bb302043ef22b10a39902285effac8fcfc60bf364bfc5cdfbda07281f"),
        (STS, "PUT", KEY, PART, {}, "1234b33a48b2cb4d31c8887830ed7591ee4f2aacaf8d1c3ebb8489d8a8e03cce"),
        (
            STS,
            "POST",
            KEY,
            (("uploads", None),),
            BINARY,
            "bb76bbf4a43ad8990af8387f6fada0d5687a0f5fad4afb0789c6fe62e71dbee7",
        ),
        (
            STS,
            "POST",
            KEY,
            (("uploadId", ID),),
            {**XML, "x-oss-callback": CALLBACK},
            "2acb303c6f3a48cafa8c25f7eca7732da894b1d136ebd081bcf8bc71581e5c91",
        ),
        (
            OWN,
            "PUT",
            NAMED,
            (),
            {"content-type": "text/plain"},
            "f50f07faf1c1d4126cf4fde725201144bae99787c8774754eae5a25bf120f7fe",
        ),
        (OWN, "GET", "", LIST, {}, "75454c592a745e479f5bfa8c01e4413a7f4d2b5a2c3932d4b63e36bd5cc3d64d"),
    ],
)
def test_version_4_signs_as_the_vendors_clients_do(account, method, key, query, headers, signature):
    signed = oss.signed_v4(account, method, BUCKET, key, query, headers, NOW, region="cn-hangzhou")
    scope = "20180528/cn-hangzhou/oss/aliyun_v4_request"
    assert signed["authorization"] == f"OSS4-HMAC-SHA256 Credential={account.access_key}/{scope},Signature={signature}"


def test_a_policy_says_end_size_and_prefix():
    # The policy of CareyShop's manual, "get upload token": PHP writes the slashes as "\/".
    text = (
        "eyJleHBpcmF0aW9uIjoiMjAxOC0wNS0yOFQwMjowNzo1M1oiLCJjb25kaXRpb25zIjpbWyJjb250ZW50LWxlbmd0aC1yYW5nZSIsMCwyMDk3"
        "MTUyXSxbInN0YXJ0cy13aXRoIiwiJGtleSIsInVwbG9hZHNcL2ZpbGVzXC8yMDE4MDUyOFwvIl1dfQ=="
    )
    policy = oss.policy(text)
    assert policy == oss.Policy(1527473273.0, 0, 2097152, None, "uploads/files/20180528/")
    assert policy.covers("uploads/files/20180528/a.jpg")
    assert not policy.covers("uploads/files/20180529/a.jpg")


@pytest.mark.parametrize("condition", ['{"key":"a/b"}', '["eq","$key","a/b"]'])
def test_a_policy_may_name_the_only_key(condition):
    text = base64.b64encode(f'{{"expiration":"2018-05-28T02:07:53.000Z","conditions":[{condition}]}}'.encode()).decode()
    policy = oss.policy(text)
    assert policy is not None
    assert policy.covers("a/b")
    assert not policy.covers("a/bc")
    assert policy.expires == 1527473273.0


@given(st.text() | st.binary().map(lambda data: base64.b64encode(data).decode()))
def test_no_policy_breaks_the_reader(text):
    assert oss.policy(text) is None or isinstance(oss.policy(text), oss.Policy)


@given(st.binary())
def test_no_error_breaks_the_reader(body):
    assert isinstance(oss.trouble(b"<Error>" + body), oss.Trouble)


def test_an_error_is_read_whatever_else_stands_in_it():
    body = '\ufeff<?xml version="1.0"?>\n<Error xmlns="x"><EC>1</EC><Code>AccessDenied</Code><Message>a &lt;b&gt; &amp;c &#x4e2d;</Message></Error>'
    assert oss.trouble(body.encode()) == oss.Trouble("AccessDenied", "a <b> &c 中")
    assert oss.trouble(b"<html><body>403</body></html>") == oss.Trouble()


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"", 0),
        (b"123456789", 0x995DC9BBDF1939FA),
        (b"\0" * 102400, 15337097285471591505),
        (bytes(range(256)) * 16384, 8805802654381464591),
    ],
)
def test_the_crc_is_that_of_the_catalogue(data, value):
    crc = oss.Crc()
    crc.observe(0, memoryview(data)[:7])
    crc.observe(7, memoryview(data)[7:])
    assert (crc.value, crc.count) == (value, len(data))


@given(st.binary(), st.binary())
def test_the_crc_of_two_pieces_is_worked_out_from_theirs(first, second):
    assert oss.combined(crc64.xz(first), crc64.xz(second), len(second)) == crc64.xz(first + second)


def test_parts_are_named_in_order_with_quoted_tags():
    assert oss.complete([(1, "A"), (2, "B")]) == (
        b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>&quot;A&quot;</ETag></Part>"
        b"<Part><PartNumber>2</PartNumber><ETag>&quot;B&quot;</ETag></Part></CompleteMultipartUpload>"
    )


@pytest.mark.parametrize(("told", "verified"), [("1", "crc64"), ("01", "crc64"), ("", ""), ("x", "")])
def test_a_checksum_that_the_answer_tells_is_compared(told: str, verified: str) -> None:
    assert oss_replies.compared(Reply(200, {"x-oss-hash-crc64ecma": told}), 1) == verified


@pytest.mark.parametrize("told", ["0", "2", "9" * 5000])
def test_another_checksum_means_other_bytes(told: str) -> None:
    with pytest.raises(Retry, match="other bytes"):
        oss_replies.compared(Reply(200, {"x-oss-hash-crc64ecma": told}), 1)
