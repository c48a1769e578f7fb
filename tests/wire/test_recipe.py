"""Text with blanks, and places in a reply."""

import json
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.wire.recipe import Expression, blanks, fill, fill_in

VALUES = {"name": 'a "b".jpg', "size": "12", "secret.api_key": "s3cret"}


def test_blanks_are_filled_wherever_they_stand() -> None:
    body = {
        "file": {"name": "{name}", "size": "{size}"},
        "list": ["{name}", 3, True],
        "auth": "Bearer {secret.api_key}",
    }
    assert fill_in(body, VALUES) == {
        "file": {"name": 'a "b".jpg', "size": 12},
        "list": ['a "b".jpg', 3, True],
        "auth": "Bearer s3cret",
    }
    assert blanks(body) == {"name", "size", "secret.api_key"}


def test_a_word_in_braces_that_is_no_blank_stays() -> None:
    assert fill("{unknown} {} {name}", VALUES) == '{unknown} {} a "b".jpg'


@given(st.text())
def test_a_value_can_not_break_out_of_the_place_it_stands_in(value: str) -> None:
    values = {"name": value}
    assert json.loads(json.dumps(fill_in({"name": "{name}"}, values))) == {"name": value}
    if value.encode("utf-8", "ignore").decode() == value:
        filled = fill("http://x/{name}?y", values, lambda text: quote(text, safe=""))
        assert unquote(filled.removeprefix("http://x/").removesuffix("?y")) == value


@pytest.mark.parametrize("text", ["", "a[", "a.b.", "a b", pytest.param("[" * 5000, id="deep")])
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no JMESPath expression"):
        Expression(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [("a.b", "c"), ("list[0].n", "1"), ("a", None), ("nothing", None), ("flag", None), ("to_number(a)", None)],
)
def test_a_place_gives_a_text_or_nothing(text: str, found: str | None) -> None:
    assert Expression(text).text_of({"a": {"b": "c"}, "list": [{"n": 1}], "flag": True}) == found


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("max_by(a, &b)", {"a": [{"b": 1}, {"b": "x"}]}),
        ("a[?b > c]", {"a": [{"b": "1", "c": 2}]}),
        ("contains(a, b)", {"a": "text", "b": None}),
        ("ceil(to_number(a))", {"a": "inf"}),
        ("floor(to_number(a))", {"a": "nan"}),
        ("merge(a, b)", {"a": {}, "b": [1]}),
        ("avg(a)", {"a": [10**400]}),
        ("a[::0]", {"a": [1]}),
    ],
)
def test_nothing_stands_where_a_function_cannot_take_what_the_server_says(text: str, answer: object) -> None:
    assert Expression(text).text_of(answer) is None
