"""What a receipt says is still wanted."""

import math

import pytest
from msgspec.structs import replace

from dumbwaiter.model import Grant, Receipt

THERE = "the provider has the file, and"


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({}, ""),
        ({"follow_up": "why not"}, "why not"),
        ({"callback": "unknown"}, f"{THERE} its application may not know of it"),
        ({"callback": "failed", "callback_said": "no"}, f"{THERE} its application may not know of it: no"),
        ({"registered": "no", "shop_said": "full"}, f"{THERE} its application may not know of it: full"),
        ({"size_at_provider": "9"}, f"{THERE} says that it has 9 bytes there"),
        ({"hash_at_provider": "Fx"}, f"{THERE} says that its hash there is Fx, which is not this file's"),
        ({"taskStatus": "done"}, ""),
        ({"taskStatus": "refused", "taskMessage": "quota"}, f'{THERE} what was to be made of it is "refused": quota'),
        ({"taskStatus": "done", "detectStatus": "pass", "detectMessage": "fine"}, ""),
        ({"detectStatus": "failed"}, f'{THERE} its inspection says "failed"'),
        ({"taskStatus": "done", "detectStatus": "suspected", "detectMessage": "a flag"},
         f'{THERE} its inspection says "suspected": a flag'),
    ],
)  # fmt: skip
def test_what_did_not_come_is_told_in_a_sentence(facts: dict[str, str], sentence: str) -> None:
    assert Receipt("k", facts=facts).lacks == sentence


def test_a_receipt_holds_nothing_that_acts() -> None:
    said = Receipt("k\0\n", etag="e\x1b", url="http://h/\x1b[31m", facts={"said": "a\0"}).plain
    assert said == Receipt("k\\x00\n", etag="e\\x1b", url=None, facts={"said": "a\\x00"})
    whole = Receipt("k", etag="e", url="http://h/电影?a=b\\c", verified="md5", facts={"said": "好"})
    assert whole.plain == whole
    assert [Receipt("k", size=size).plain.size for size in (0, 2**63 - 1, 2**63, -1)] == [0, 2**63 - 1, None, None]


@pytest.mark.parametrize("end", [math.inf, -math.inf, math.nan, 1e300, 1e12, -1.0])
def test_an_end_that_is_no_time_is_not_said(end: float) -> None:
    assert Grant(None, None, end).expires_at is None
    assert replace(Grant(None, None, 7.0), expires_at=end).expires_at is None


@pytest.mark.parametrize(
    "url", ["javascript://x/%0aalert(1)", "file://host/x.desktop", "https://x/\x1b]52;c;x\x07", "//x/y"]
)
def test_what_no_person_should_be_given_is_no_link(url: str) -> None:
    assert Receipt("k", url=url).plain.url is None
