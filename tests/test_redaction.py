"""Redaction: no credential is left in a text, and nothing else is taken out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter.redaction import redact
from leaks import LEAKS, SECRET


@pytest.mark.parametrize("text", LEAKS)
def test_what_looks_like_a_credential_is_hidden(text: str) -> None:
    assert SECRET not in redact(text)
    assert "s3cret" not in redact(text)
    assert "***" in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "uploading film.mov",
        "the upload token is refused",
        "bad token: it has expired",
        "the token's session key is missing",
        "session_key: none",
        "UPLOAD finished",
        '{"what":"upload nodes","status":200,"event":"request done"}',
        "http://x/y?offset=1&complete=true&context=abc",
        "signed in",
        "the bearer of a file",
        "password refused",
        "path=token.txt size=3",
        "a secret stands in a file",
        "the file holds a secret: name it in exclude",
        "postgresql+psycopg://ann@db:5432/journal",
        "http://127.0.0.1:8384/drop/ann@home.txt",
        "the author: somebody, for an authority=none",
        "mail to ann@shop.example about https://shop.example:8443/",
    ],
)
def test_what_is_none_stays(text: str) -> None:
    assert redact(text) == text


def test_an_answer_of_the_largest_size_holds_up_nobody() -> None:
    """Were its time to grow with the square of the length, this would be over tomorrow."""
    text = "a-" * (1 << 19) + " token"
    assert redact(text) == text


@given(st.text())
def test_redaction_takes_every_text_and_is_done_once(text: str) -> None:
    assert redact(redact(text)) == redact(text)
