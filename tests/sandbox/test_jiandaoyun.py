"""Jiandaoyun's sandbox by its documentation, with a client of its own."""

import base64
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from dumbwaiter_sandbox.jiandaoyun import ACCOUNT, ATTACHMENT, FIELDS

_, PATH, SIZE, _ = FIELDS
IDS = {name: ACCOUNT[name] for name in ("app_id", "entry_id")}


@pytest.fixture
def call(running: Any) -> Callable[..., httpx.Response]:
    def call(what: str, key: str = ACCOUNT["api_key"], **members: Any) -> httpx.Response:
        body = {name: value for name, value in {**IDS, **members}.items() if value is not None}
        url = f"{running.urls['forms']}/api/v5/app/entry/{what}"
        answer: httpx.Response = running.http.post(url, json=body, headers={"authorization": f"Bearer {key}"})
        return answer

    return call


@pytest.fixture
def upload(running: Any, call: Callable[..., httpx.Response]) -> Callable[..., str]:
    def upload(transaction: str, content: bytes = b"hello", **changes: Any) -> str:
        pair = call("file/get_upload_token", transaction_id=transaction).json()["token_and_url_list"][0]
        reply = running.http.post(
            pair["url"], data={"token": pair["token"], **changes}, files={"file": ("a.txt", content)}
        )
        assert reply.status_code == 200, reply.text
        assert set(reply.json()) == {"key"}
        key: str = reply.json()["key"]
        return key

    return upload


def code(reply: httpx.Response) -> int:
    assert reply.status_code == 400
    found: int = reply.json()["code"]
    return found


def test_a_call_brings_a_hundred_tokens_whose_policies_differ_in_the_key(call: Callable[..., httpx.Response]) -> None:
    pairs = call("file/get_upload_token", transaction_id=str(uuid.uuid4())).json()["token_and_url_list"]
    policies = [json.loads(base64.urlsafe_b64decode(pair["token"].rpartition(":")[2])) for pair in pairs]
    assert len({policy["saveKey"] for policy in policies}) == 100
    assert {(policy["fsizeMin"], policy["fsizeLimit"], policy["forceSaveKey"]) for policy in policies} == {
        (1, 209715200, True)
    }


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"key": "other"}, 8301),
        ({"app_id": None}, 1),
        ({"app_id": "0" * 24}, 2004),
        ({"entry_id": "0" * 24}, 3000),
        ({"transaction_id": None}, 1),
        ({"transaction_id": "$(x)"}, 17025),
        ({"transaction_id": "a${x)b"}, 17025),
    ],
)
def test_wrong_calls_have_their_codes(
    call: Callable[..., httpx.Response], members: dict[str, Any], expected: int
) -> None:
    assert code(call("file/get_upload_token", **{"transaction_id": "t", **members})) == expected


@pytest.mark.parametrize("order", ["file first", "two files", "another name"])
def test_a_form_holds_one_file_in_its_last_field(running: Any, call: Callable[..., httpx.Response], order: str) -> None:
    pair = call("file/get_upload_token", transaction_id="t").json()["token_and_url_list"][0]
    token, file = ("token", (None, pair["token"])), ("file", ("a.txt", b"hello"))
    parts = {
        "file first": [file, token],
        "two files": [token, ("file", ("b.txt", b"b")), file],
        "another name": [token, ("upload", ("a.txt", b"hello"))],
    }[order]
    assert running.http.post(pair["url"], files=parts).status_code == 400
    assert running.http.post(pair["url"], files=[token, file]).status_code == 200


def test_a_filter_for_a_field_that_is_none_is_refused(call: Callable[..., httpx.Response]) -> None:
    condition = {"field": "_widget_none", "method": "eq", "value": ["x"]}
    data = {PATH: {"value": "a.txt"}}
    assert call("data/create", transaction_id="t", data=data).status_code == 200
    assert code(call("data/list", filter={"rel": "and", "cond": [condition]})) == 4815


def test_a_record_shows_the_file_and_no_key(
    running: Any, call: Callable[..., httpx.Response], upload: Callable[..., str]
) -> None:
    data = {PATH: {"value": "a.txt"}, SIZE: {"value": 5}, ATTACHMENT: {"value": [upload("t")]}}
    made = call("data/create", transaction_id="t", data=data).json()["data"]
    assert call("data/get", data_id=made["_id"]).json()["data"].keys() == made.keys()
    (attached,) = made[ATTACHMENT]
    assert (attached["name"], attached["size"], "key" in attached) == ("a.txt", 5, False)
    assert running.http.get(attached["url"]).content == b"hello"
    assert running.http.get(attached["url"], headers={"range": "bytes=1-2"}).status_code == 206
    assert running.http.get(attached["url"], headers={"authorization": "Bearer x"}).status_code == 403
    assert running.http.get(attached["url"].partition("?")[0]).status_code == 403
    running.advance(15 * 86400 + 1)
    assert running.http.get(attached["url"]).status_code == 403


def test_a_key_is_good_for_its_transaction_within_the_hour_and_once(
    running: Any, call: Callable[..., httpx.Response], upload: Callable[..., str]
) -> None:
    key = upload("t")
    data = {ATTACHMENT: {"value": [key]}}
    assert code(call("data/create", data=data)) == 17017
    assert code(call("data/create", transaction_id="other", data=data)) == 17017
    assert code(call("data/create", transaction_id="t", data={ATTACHMENT: {"value": key}})) == 17017
    assert code(call("data/create", transaction_id="t", data={ATTACHMENT: {"value": ["made up"]}})) == 17017
    assert call("data/create", transaction_id="t", data=data).status_code == 200
    assert code(call("data/create", transaction_id="t", data=data)) == 17017
    late = {ATTACHMENT: {"value": [upload("t")]}}
    running.advance(3600)
    assert code(call("data/create", transaction_id="t", data=late)) == 17017


def test_an_update_replaces_the_attachments_and_keeps_what_it_does_not_name(
    call: Callable[..., httpx.Response], upload: Callable[..., str]
) -> None:
    first = {PATH: {"value": "a.txt"}, ATTACHMENT: {"value": [upload("t")]}}
    record = call("data/create", transaction_id="t", data=first).json()["data"]["_id"]
    second = {ATTACHMENT: {"value": [upload("u", b"hello again")]}}
    updated = call("data/update", transaction_id="u", data_id=record, data=second).json()["data"]
    assert updated[PATH] == "a.txt"
    assert [one["size"] for one in updated[ATTACHMENT]] == [11]
    assert code(call("data/update", data_id="0" * 24, data={})) == 4001
    assert code(call("data/update", data_id=record, data={PATH: {"value": 5}})) == 17032


def test_an_update_keeps_the_files_that_it_names_within_their_transaction(
    running: Any, call: Callable[..., httpx.Response], upload: Callable[..., str]
) -> None:
    one, two, three = (upload("t", content) for content in (b"1", b"22", b"333"))

    def update(*keys: str, transaction: str = "t") -> httpx.Response:
        return call("data/update", transaction_id=transaction, data_id=record, data={ATTACHMENT: {"value": list(keys)}})

    data = {ATTACHMENT: {"value": [one]}}
    record = call("data/create", transaction_id="t", data=data).json()["data"]["_id"]
    assert [file["size"] for file in update(one, two).json()["data"][ATTACHMENT]] == [1, 2]
    assert [file["size"] for file in update(two, three).json()["data"][ATTACHMENT]] == [2, 3]
    assert code(update(two, two)) == 17017
    assert code(update(two, upload("u"), transaction="u")) == 17017
    running.control("PUT", "/options", json={"jiandaoyun": {"keys_again": False}})
    assert code(update(two, three)) == 17017


def test_a_field_takes_ten_files(call: Callable[..., httpx.Response], upload: Callable[..., str]) -> None:
    keys = [upload("t", bytes([number])) for number in range(11)]
    assert code(call("data/create", transaction_id="t", data={ATTACHMENT: {"value": keys}})) == 17017
    assert call("data/create", transaction_id="t", data={ATTACHMENT: {"value": keys[1:]}}).status_code == 200


def test_a_transaction_can_be_made_to_lapse_before_a_record_is_written(
    running: Any, call: Callable[..., httpx.Response], upload: Callable[..., str]
) -> None:
    running.control("PUT", "/faults", content="forms.create:lapse@1")
    data = {ATTACHMENT: {"value": [upload("t")]}}
    assert code(call("data/create", transaction_id="t", data=data)) == 17017
    assert code(call("data/create", transaction_id="t", data=data)) == 17017
    again = {ATTACHMENT: {"value": [upload("u")]}}
    assert call("data/create", transaction_id="u", data=again).status_code == 200


def test_records_are_listed_by_what_they_hold(call: Callable[..., httpx.Response]) -> None:
    for name in ("a.txt", "b.txt", "a.txt.bak"):
        assert call("data/create", data={PATH: {"value": name}}).status_code == 200

    def found(method: str, *values: str) -> set[str]:
        condition = {"field": PATH, "type": "text", "method": method, "value": list(values)}
        search = {"rel": "and", "cond": [condition]}
        return {one[PATH] for one in call("data/list", limit=100, fields=[PATH], filter=search).json()["data"]}

    assert found("eq", "a.txt") == {"a.txt"}
    assert found("in", "a.txt", "b.txt") == {"a.txt", "b.txt"}
    assert found("like", "a.txt") == {"a.txt", "a.txt.bak"}
    assert code(call("data/list", limit=101)) == 17017


def test_a_callback_without_its_signature_is_refused(running: Any) -> None:
    reply = running.http.post(f"{running.urls['forms']}/file/upload/api_callback", json={"key": "k"})
    assert reply.status_code == 401


def test_a_call_that_comes_too_often_is_refused_and_others_are_not(
    running: Any, call: Callable[..., httpx.Response]
) -> None:
    began = time.monotonic()
    codes = [call("file/get_upload_token", transaction_id=str(uuid.uuid4())).json().get("code") for _ in range(100)]
    if time.monotonic() - began < 3:  # a very slow machine stays below the limit
        assert 8304 in codes
        assert call("widget/list").status_code == 200
    assert set(codes) <= {None, 8304, 8303}
    assert codes[0] is None
    running.control("PUT", "/options", json={"jiandaoyun": {"paced": False}})
    assert call("file/get_upload_token", transaction_id=str(uuid.uuid4())).status_code == 200
