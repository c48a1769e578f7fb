"""Requests and replies as values."""

import contextlib
from typing import Any
from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from dumbwaiter.errors import Offline, Retry
from dumbwaiter.wire.message import FileSlice, Reply, form, query


class Shape(Struct):
    offset: int
    inner: dict[str, int] = {}


class Anything(Struct):
    x: Any = None


def test_a_query_is_encoded_to_the_last_letter() -> None:
    assert query([("a", "1 2"), ("b&", "/?#+%="), ("名", "测")]) == (
        "a=1%202&b%26=%2F%3F%23%2B%25%3D&%E5%90%8D=%E6%B5%8B"
    )


def test_a_parameter_without_a_value_stands_without_a_sign() -> None:
    assert query([("uploadContext", None), ("context", ""), ("version", "1.0"), ("offset", 0)]) == (
        "uploadContext&context=&version=1.0&offset=0"
    )
    assert query([]) == ""


plain = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.tuples(plain.filter(bool), plain)))
def test_a_query_is_read_back_as_it_was(parameters: list[tuple[str, str]]) -> None:
    made = query(parameters)
    assert made.isascii()
    assert [(unquote(name), unquote(value)) for name, value in _pairs(made)] == parameters
    assert parse_qsl(made, keep_blank_values=True, max_num_fields=1000) == parameters


def _pairs(made: str) -> list[tuple[str, str]]:
    return [(pair.partition("=")[0], pair.partition("=")[2]) for pair in made.split("&")] if made else []


@pytest.mark.parametrize("body", [b"", b"<html>", b"not now"])
def test_whoever_asks_to_wait_is_heard_whatever_else_the_answer_is(body: bytes) -> None:
    with pytest.raises(Retry) as told:
        Reply(503, body=body, after=30.0).json(Shape)
    assert told.value.after == 30.0


def test_a_slice_knows_its_end() -> None:
    assert FileSlice(3, 100, 28).end == 128


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("a b.txt", "a b.txt"),
        ('say "hi".txt', "say %22hi%22.txt"),
        ("two\r\nlines", "two%0D%0Alines"),
        ("a\\b", "a\\b"),
        ("ends with a \\", "ends with a %5C"),
        ("with two \\\\", "with two \\%5C"),
    ],
)
def test_no_name_ends_its_own_quotes_or_escapes_their_end(name: str, sent: str) -> None:
    kind, body = form([(name, "value")], "file", name, "text/plain", FileSlice(0, 0, 0))
    boundary = kind.removeprefix("multipart/form-data; boundary=")
    assert body.before.decode().split("\r\n") == [
        f"--{boundary}", f'Content-Disposition: form-data; name="{sent}"', "", "value",
        f"--{boundary}", f'Content-Disposition: form-data; name="file"; filename="{sent}"', "Content-Type: text/plain", "", "",
    ]  # fmt: skip


def test_a_reply_is_read_leniently_in_its_types_and_strictly_in_its_shape() -> None:
    assert Reply(200, body=b'{"offset":"7","more":[1]}').json(Shape) == Shape(7)
    assert Reply(200, body=b'\xef\xbb\xbf{"offset":1}').json(Shape) == Shape(1)  # with PHP's mark of UTF-8


def test_a_member_that_is_null_and_may_be_missing_counts_as_missing() -> None:
    """Services in Go write an empty list so, services in PHP a setting that nobody made."""
    assert Reply(200, body=b'{"offset":7,"inner":null}').json(Shape) == Shape(7)
    assert Reply(200, body=b'[{"offset":7,"inner":{"a":null}}]').json(list[Shape]) == [Shape(7)]


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!DOCTYPE html><html><body>Sign in to this network</body></html>",
        b'{"offset":1',
        b'{"offset":1}{"offset":1}',
        b'{"offset":null}',
        b'{"offset":"many"}',
        b'{"offset":1.5}',
        b'{"offset":{"deep":1}}',
        b'{"inner":{}}',
        b'{"offset":1,"inner":[]}',
        b'{"offset":1,"inner":{"a":"b"}}',
        b"[]",
        b"null",
        b"NaN",
        b'{"lbs"\xef\xbc\x9a"x","offset":1}',
        b'{"offset":1,"other":"\\ud800"}',
        DEEP,
    ],
)
def test_anything_else_is_trouble_that_passes(body: bytes) -> None:
    with pytest.raises(Retry, match=r"^the server answered 200 with something that is not the expected JSON$"):
        Reply(200, body=body).json(Shape)


@pytest.mark.parametrize("shape", [Shape, Anything])
def test_deep_nesting_where_anything_may_stand_is_read_or_trouble_that_passes(shape: type) -> None:
    """How deep a parser goes is Python's own affair."""
    with contextlib.suppress(Retry):
        Reply(200, body=b'{"offset":1,"x":' + DEEP + b"}").json(shape)


def test_the_sentence_names_the_status_and_not_the_body() -> None:
    with pytest.raises(Retry) as raised:
        Reply(502, body=b"token=verysecret").json(Shape)
    assert str(raised.value) == "the server answered 502 with something that is not the expected JSON"
    assert raised.value.after is None


def test_a_page_means_that_the_network_leads_nowhere() -> None:
    for status, body, verdict in ((200, b" \n<html>", Offline), (200, b"sorry", Retry), (502, b"<html>", Retry)):
        with pytest.raises(Retry) as raised:
            Reply(status, body=body).json(Shape)
        assert type(raised.value) is verdict


@given(st.binary())
def test_no_body_raises_anything_but_retry(body: bytes) -> None:
    with contextlib.suppress(Retry):
        assert isinstance(Reply(200, body=body).json(Shape), Shape)
