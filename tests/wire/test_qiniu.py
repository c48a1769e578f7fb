"""Qiniu's formats by known answers.

Hashes and encodings were computed with Qiniu's public Python client (`qiniu.etag`, `urlsafe_base64_encode`); the first
two of parts are published test values of its Rust client, the others follow the same rule. The tokens are those of
Jiandaoyun's open platform documentation ("file interface"): one can be read, the other has a character mistyped.
"""

import base64
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dumbwaiter.errors import Blocked, Reauth, Reject, Restart, Retry, Verdict
from dumbwaiter.model import MIB, Limits, Receipt
from dumbwaiter.wire import qiniu
from dumbwaiter.wire.message import Reply

CYCLE = bytes(range(256))
READABLE = (
    "bM7UwVPyBBdPaleBZt21SWKzMy2qPUpn-05jZlas:ELIqACNut-t52UMPD-DZNrX8hTU=:eyJmc2l6ZU1pbiI6MSwiZnNpemVMaW1pdCI6MjA5NzE1"
    "MjAwLCJjYWxsYmFja0JvZHlUeXBlIjoiYXBwbGljYXRpb24vanNvbiIsImNhbGxiYWNrQm9keSI6IntcImFwcElkXCI6XCI2MWFjNzcxNTE0MjU3"
    "NDM2ODhlZWMwYzRcIixcImVudHJ5SWRcIjpcIjYxYWM3NzNhMTQyNTc0MzY4OGVlYzBjN1wiLFwia2V5XCI6XCIkKGtleSlcIixcImhhc2hcIjpc"
    "IiQoZXRhZylcIixcIm5hbWVcIjpcIiQoZm5hbWUpXCIsXCJzaXplXCI6XCIkKGZzaXplKVwiLFwibWltZVwiOlwiJChtaW1lVHlwZSlcIixcImJ1"
    "Y2tldFwiOlwiamR5LWZpbGVcIixcInVwbG9hZGVyXCI6XCI2MTFhMmQzNjRmMzQ3MDAwMDY3NWM5ZGRcIixcInNlc3Npb25JZFwiOlwic3NkXCJ9"
    "IiwiY2FsbGJhY2tIb3N0IjoiNTA3NS0xMTQtMjI0LTE3LTIxNi5uZ3Jvay5pbyIsImNhbGxiYWNrVXJsIjoiaHR0cDovLzUwNzUtMTE0LTIyNC0x"
    "Ny0yMTYubmdyb2suaW8vZmlsZS91cGxvYWQvYXBpX2NhbGxiYWNrIiwiZm9yY2VTYXZlS2V5Ijp0cnVlLCJzYXZlS2V5IjoiYTJjOTkwY2ItMTlh"
    "ZS00NDgwLTkyYzYtZDI3N2I5ZGQ2MmFhIiwic2NvcGUiOiJkbi1qZHktdXBsb2FkIiwiZGVhZGxpbmUiOjE2Mzk0ODU2NjV9"
)
MISTYPED = READABLE.replace("eyJmc2l6ZU1pbiI6", "eyJmc226ZU1pbiI6")


def token(**members: object) -> str:
    return "key:sign:" + base64.urlsafe_b64encode(json.dumps({"scope": "b", **members}).encode()).decode()


def reply(status: int, body: object = None, **headers: str) -> Reply:
    return Reply(status, {"x-reqid": "1", **headers}, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "Fto5o-5ea0sNMlW_75VgGJCv2AcJ"),
        (b"hello", "Fqr0xh3cxeii2r7eDztILNmuqUNN"),
        (bytes(4 * MIB - 1), "FojtiN9WHTdzhzAV4wrBC76RaWV0"),
        (bytes(4 * MIB), "FivMvS848VwT631aif2dhfWV4jvD"),
        (bytes(4 * MIB + 1), "lhCFgki5yzon0rjN9uJusf6qtsF6"),
        (bytes(8 * MIB), "lsCVE24-Immdd6zm-ffVVhsWYcDG"),
        (CYCLE * (10 * MIB // 256), "lses1QB42AFdwbOIpfyl83Ve0c2g"),
    ],
)
def test_the_hash_of_a_content(content: bytes, expected: str) -> None:
    whole, pieces = qiniu.Etag(), qiniu.Etag()
    whole.update(content)
    for start in range(0, len(content), 999_983):
        pieces.update(content[start : start + 999_983])
    assert whole.text() == pieces.text() == expected
    assert qiniu.is_etag(expected)


@pytest.mark.parametrize(
    ("content", "size", "expected"),
    [
        (b"helloworld", 5, "ns56DcSIfBFUENXjdhsJTIvl3Rcu"),
        ((b"A" + b"b" * 4093 + b"\r\n") * 256, MIB // 2, "nlF4JinKEDBChmFGYbEIsZt6Gxnw"),
        (CYCLE * (10 * MIB // 256), 2 * MIB, "nl8RRUQEbK_DKzfq-ErHjZsD1DxL"),
        (CYCLE * (10 * MIB // 256), 8 * MIB, "nkFO80AEFV143GjP-CDtfa_JtTW5"),
        (CYCLE * (10 * MIB // 256), 4 * MIB, "lses1QB42AFdwbOIpfyl83Ve0c2g"),
    ],
)
def test_the_hash_of_an_object_made_of_parts(content: bytes, size: int, expected: str) -> None:
    digests = []
    for start in range(0, len(content), size):
        part = qiniu.Etag()
        part.update(content[start : start + size])
        digests.append(part.digest())
    assert qiniu.etag_of_parts(digests, standard=size == qiniu.BLOCK) == expected


@pytest.mark.parametrize(
    ("size", "part"),
    [(1, 4), (40_000 * MIB, 4), (40_000 * MIB + 1, 8), (80_000 * MIB, 8)],
)
def test_parts_have_four_mebibytes_until_there_would_be_too_many(size: int, part: int) -> None:
    assert qiniu.part_size(size) == part * MIB
    assert -(-size // (part * MIB)) <= qiniu.PARTS_MAX


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("test001.jpg", "dGVzdDAwMS5qcGc="),
        ("uploads/files/文件.jpg", "dXBsb2Fkcy9maWxlcy_mlofku7YuanBn"),
        ("~", "fg=="),
        ("??>>~~", "Pz8-Pn5-"),
        (None, "~"),
    ],
)
def test_a_key_in_a_path(key: str | None, expected: str) -> None:
    assert qiniu.entry(key) == expected


def test_the_policy_in_the_documentations_token_is_read() -> None:
    policy = qiniu.policy(READABLE)
    assert policy is not None
    assert policy.bucket == "dn-jdy-upload"
    assert (policy.forced, policy.save_key) == (True, "a2c990cb-19ae-4480-92c6-d277b9dd62aa")
    assert policy.deadline == 1639485665
    assert policy.limits == Limits(1, 209715200)
    assert policy.once
    assert policy.final("proposed") == policy.final(None) == "a2c990cb-19ae-4480-92c6-d277b9dd62aa"
    assert qiniu.access_key(READABLE) == "bM7UwVPyBBdPaleBZt21SWKzMy2qPUpn-05jZlas"


@pytest.mark.parametrize("text", [MISTYPED, "", "a:b", "a:b:!!", "a:b:" + base64.urlsafe_b64encode(b"[]").decode()])
def test_a_policy_that_cannot_be_read_is_none(text: str) -> None:
    assert qiniu.policy(text) is None


@given(st.text())
@example("a:b:eyI=")
@example("::")
def test_no_text_makes_reading_fail(text: str) -> None:
    qiniu.policy(text)
    qiniu.policy(f"a:b:{base64.urlsafe_b64encode(text.encode('utf-8', 'replace')).decode()}")


@given(st.dictionaries(st.sampled_from(["deadline", "insertOnly", "saveKey", "fsizeLimit", "keylimit", "mimeLimit"]),
                       st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())))  # fmt: skip
def test_fields_of_any_type_are_read_or_passed_over(members: dict[str, object]) -> None:
    policy = qiniu.policy(token(**members))
    assert policy is not None
    assert policy.bucket == "b"


@pytest.mark.parametrize("flag", [1, True, "1", "true", 2])
def test_a_flag_has_many_spellings(flag: object) -> None:
    policy = qiniu.policy(token(insertOnly=flag, scope="b:a:b", isPrefixalScope=0))
    assert policy is not None
    assert policy.insert_only
    assert (policy.key, policy.prefix) == ("a:b", None)


@pytest.mark.parametrize("number", [2097152, "2097152", 2097152.0])
def test_a_number_may_be_written_as_text_or_with_a_point(number: object) -> None:
    policy = qiniu.policy(token(fsizeLimit=number, fsizeMin=number, deadline=number))
    assert policy is not None
    assert (policy.size_min, policy.size_max, policy.deadline) == (2097152, 2097152, 2097152)


@pytest.mark.parametrize("number", ["nan", "inf", "9" * 400, "", -1, "-1", True, 0])
def test_a_limit_that_is_none_is_passed_over(number: object) -> None:
    policy = qiniu.policy(token(fsizeLimit=number))
    assert policy is not None
    assert policy.size_max is None


def test_an_answer_may_begin_with_a_mark() -> None:
    """A shop's, written in PHP, of which Qiniu passes on what its callback was answered with."""
    marked = Reply(200, {"x-reqid": "1"}, b'\xef\xbb\xbf{"key":"a"}')
    assert qiniu.answer(marked) == qiniu.Answer("a")


def test_a_scope_of_a_prefix_names_no_key() -> None:
    policy = qiniu.policy(token(scope="careyshop:uploads/", isPrefixalScope=1))
    assert policy is not None
    assert (policy.key, policy.prefix) == (None, "uploads/")
    assert policy.final("uploads/a.txt") == "uploads/a.txt"


def test_what_a_token_denies_is_left_to_the_server() -> None:
    denied, allowed = qiniu.policy(token(mimeLimit="!image/*")), qiniu.policy(token(mimeLimit="image/png;video/*"))
    assert denied is not None
    assert allowed is not None
    assert denied.limits.mime == ()
    assert allowed.limits.mime == ("image/png", "video/*")


@pytest.mark.parametrize(
    ("status", "words", "verdict"),
    [
        (400, "bad form", Reject),
        (401, "expired token", Reauth),
        (401, "bad token", Reauth),
        (401, "key doesn't match scope", Reject),
        (403, "key doesn't match scope", Reject),
        (403, "ExpUser can only upload image/audio/video/plaintext", Blocked),
        (406, "", Retry),
        (408, "", Retry),
        (429, "", Retry),
        (413, "request entity too large", Reject),
        (419, "", Blocked),
        (501, "", Reject),
        (502, "", Retry),
        (571, "", Retry),
        (573, "", Retry),
        (599, "", Retry),
        (612, "no such uploadId", Restart),
        (631, "no such bucket", Blocked),
        (701, "ctx expired", Restart),
    ],
)
def test_what_a_refusal_means(status: int, words: str, verdict: type[Verdict]) -> None:
    assert type(qiniu.trouble(reply(status, {"error": words}))) is verdict


@pytest.mark.parametrize("status", [200, 302, 403, 404, 503])
def test_an_answer_without_qinius_mark_says_nothing(status: int) -> None:
    stranger = Reply(status, {}, b"<html>")
    assert isinstance(qiniu.trouble(stranger), Retry)
    with pytest.raises(Retry):
        qiniu.answer(stranger)


def test_a_refusal_never_repeats_the_token() -> None:
    body = {"error": "bad token", "token": "ak:sign:policy"}
    assert "ak:" not in str(qiniu.trouble(reply(401, body)))
    assert "ak:" not in str(qiniu.trouble(reply(599, body)))


def test_success_has_many_shapes() -> None:
    etag = "Fqr0xh3cxeii2r7eDztILNmuqUNN"
    assert qiniu.answer(reply(200, {"key": "a", "hash": etag})) == qiniu.Answer("a", etag)
    assert qiniu.answer(reply(200, {"key": "a", "hash": "d41d8cd9"})) == qiniu.Answer("a")
    assert qiniu.answer(reply(200, {"status": 500})) == qiniu.Answer(foreign='{"status": 500}')
    shown = base64.urlsafe_b64encode(json.dumps({"key": "a"}).encode()).decode()
    assert qiniu.answer(reply(303, location=f"https://shop.test/?upload_ret={shown}")) == qiniu.Answer("a")
    assert qiniu.answer(reply(303, location="https://shop.test/")) is None
    assert qiniu.answer(reply(579)) is None
    with pytest.raises(Retry):
        qiniu.answer(Reply(200, {"x-reqid": "1"}, b'{"key":'))


@pytest.mark.parametrize(
    "location",
    [
        "https://shop.test/?upload_ret=a",
        "https://shop.test/?upload_ret=%E5%9B%BE",
        "https://shop.test/?upload_ret=bm90IEpTT04=",
        "http://[::1/?upload_ret=e30=",
    ],
)
def test_a_redirect_that_arrived_broken_is_trouble_that_passes(location: str) -> None:
    with pytest.raises(Retry, match="not the expected JSON"):
        qiniu.answer(reply(303, location=location))


@pytest.mark.parametrize(
    ("words", "url", "expected"),
    [
        ("incorrect region, please use up-z2.qiniup.com", "https://up.qiniup.com", "https://up-z2.qiniup.com"),
        ("incorrect region, please use up-z2.qiniup.com, bucket is: b", "https://up.qiniup.com", "https://up-z2.qiniup.com"),
        ("incorrect region, please use up.example.test", "https://up.qiniup.com", None),
        ("incorrect region, please use up.qiniup.com.example.test", "https://up.qiniup.com", None),
        ("incorrect region, please use up.qiniup.com", "https://up.qiniup.com/", None),
        ("incorrect region, please use 127.0.0.1:81", "http://127.0.0.1:80", "http://127.0.0.1:81"),
        ("incorrect region", "https://up.qiniup.com", None),
        ("please use up-z2.qiniup.com", "https://up.qiniup.com", None),
    ],
)  # fmt: skip
def test_a_better_host_is_one_of_the_vendors_own(words: str, url: str, expected: str | None) -> None:
    assert qiniu.better_host(reply(400, {"error": words}), url) == expected


def test_an_object_that_is_there_already_is_told_from_another() -> None:
    policy = qiniu.policy(token(scope="b:a", insertOnly=1))
    there = Receipt("a", "Fqr0xh3cxeii2r7eDztILNmuqUNN")
    same = qiniu.compared(there, there.etag, policy, "a", {"x": "1"})
    assert (same.verified, same.facts) == ("qetag", {"bucket": "b", "x": "1"})
    with pytest.raises(Reject, match="another file as a"):
        qiniu.compared(there, "other", policy, "a", {})
    assert qiniu.compared(None, there.etag, policy, "a", {}, own=True) == Receipt(
        "a", there.etag, facts={"bucket": "b", "callback": "unknown"}
    )
    with pytest.raises(Reject, match="cannot be seen"):
        qiniu.compared(None, there.etag, policy, "a", {})
    with pytest.raises(Reauth):
        qiniu.compared(None, there.etag, qiniu.policy(READABLE), None, {})


def test_the_receipt_of_another_content_begins_anew() -> None:
    with pytest.raises(Restart):
        qiniu.receipt(None, "a", qiniu.Answer("a", "Fqr0xh3cxeii2r7eDztILNmuqUNN"), "other", "crc32", {})


def test_a_name_holds_nothing_that_a_template_would_trip_over() -> None:
    assert qiniu.plain('a"b\\c\nd 测试.txt') == "a_b_c_d 测试.txt"
