"""Names: shown to people, proposed to vendors, and held by folders."""

import json
import unicodedata

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from dumbwaiter.naming import NAME_MAX, in_json, join, key_path, legible, propose, shown, split, unshown

names = st.binary(max_size=60).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain name.txt", "plain name.txt"),
        ("电影 🎬.mov", "电影 🎬.mov"),
        ("a\nb\tc", "a\\x0ab\\x09c"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("back\\slash", "back\\\\slash"),
        ("del\x7f", "del\\x7f"),
        ("c1\x9b", "c1\\u009b"),
        ("line\u2028sep\u2029", "line\\u2028sep\\u2029"),
        ("abc\u202egpj.exe", "abc\\u202egpj.exe"),
        (b"raw\xff".decode("utf-8", "surrogateescape"), "raw\\xff"),
        ("half \ud83d pair", "half \\ud83d pair"),
        ("bill\u200b.pdf", "bill\\u200b.pdf"),
        ("\ufeffa\u200e\u200f\u061cb", "\\ufeffa\\u200e\\u200f\\u061cb"),
        ("a\u2060b\u2064c", "a\\u2060b\\u2064c"),
        ("a\u00adb\u115f\u1160\u180e\u3164\uffa0", "a\\u00adb\\u115f\\u1160\\u180e\\u3164\\uffa0"),  # fillers
        ("a\ufff9b\ufffac\ufffb", "a\\ufff9b\\ufffac\\ufffb"),
        ("hi\U000e0068\U000e0069", "hi\\U000e0068\\U000e0069"),
        ("👩\u200d👧 ❤\ufe0f.jpg", "👩\u200d👧 ❤\ufe0f.jpg"),  # one sign of several, and one in colour
        ("نامه\u200cها.txt", "نامه\u200cها.txt"),  # as Persian is written
        ("", ""),
    ],
)
def test_a_name_is_shown_so_that_nothing_in_it_acts(name: str, expected: str) -> None:
    assert shown(name) == expected


@given(names)
def test_a_shown_name_is_strict_utf8_and_has_no_control_character(name: str) -> None:
    text = shown(name)
    assert text.encode("utf-8").decode("utf-8") == text
    assert not [letter for letter in text if unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"}]
    assert len(text.splitlines()) <= 1


@given(names)
def test_a_sentence_is_one_line_in_which_nothing_acts_and_a_name_shown_in_it_stays(name: str) -> None:
    text = legible(f"{shown(name)}: {name}")
    assert text.startswith(f"{shown(name)}: ")
    assert not [letter for letter in text if unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"}]
    assert legible(text) == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("\x1b[31m \x9b31m \x7f \u202egpj \U000e0041 \\")
def test_nothing_in_a_json_document_acts_and_it_means_the_same(key: str) -> None:
    text = in_json(json.dumps({"key": key}, ensure_ascii=False))
    assert json.loads(text) == {"key": key}
    assert not [
        letter for letter in text if unicodedata.category(letter) in {"Cc", "Zl", "Zp"} or letter in "\u202e\U000e0041"
    ]


def test_json_that_is_quoted_stays_json() -> None:
    assert json.loads(legible('{"name": "a\x7fb"}')) == {"name": "a\x7fb"}
    assert json.loads(legible('{"name": "a\U000e0041b\u200b"}')) == {"name": "a\U000e0041b\u200b"}


@given(names, names)
@example("\x80", b"\x80".decode("utf-8", "surrogateescape"))
@example("\\x0a", "\n")
@example("\\", "\\\\")
@example("\\u202e", "\u202e")
def test_two_names_never_look_the_same(one: str, other: str) -> None:
    assume(one != other)
    assert shown(one) != shown(other)


alike = st.text(st.sampled_from("\\xuU0ae8\n\x80\udc80\u2028\U000e0008"), max_size=8)


@given(alike, alike)
def test_two_names_made_to_be_mixed_up_never_look_the_same(one: str, other: str) -> None:
    assume(one != other)
    assert shown(one) != shown(other)


@pytest.mark.parametrize(
    ("path", "parts"), [("a", ("", "a")), ("a/b", ("a", "b")), ("a/b/c", ("a/b", "c")), ("", ("", ""))]
)
def test_a_path_is_split_into_parent_and_name(path: str, parts: tuple[str, str]) -> None:
    assert split(path) == parts
    assert join(*parts) == path


def test_empty_parts_leave_no_slash() -> None:
    assert join("", "a", "", "b/c", "") == "a/b/c"


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("a/b.mov", "a/b.mov"),
        ("测试/电影 1.mov", "测试/电影 1.mov"),
        ("/lead", "%/lead"),
        ("trail/", "trail/%"),
        ("a//b", "a/%/b"),
        ("", "%"),
        (".", "%%2E"),
        ("..", "%%2E%2E"),
        ("a/../b", "a/%%2E%2E/b"),
        ("...", "..."),
        ("100%", "100%25"),
        ("%2E", "%252E"),
        ("nul\0", "nul%00"),
        ("esc\x1b\x7f", "esc%1B%7F"),
    ],
)
def test_a_key_is_shown_as_a_path_that_a_file_system_holds(key: str, path: str) -> None:
    assert key_path(key) == path


@given(keys)
@example("x" * 300)
@example("测" * 100)
@example("%" * 300)
@example("a" * 254 + "测")
def test_every_part_of_a_path_is_a_possible_name(key: str) -> None:
    parts = key_path(key).split("/")
    assert len(parts) == key.count("/") + 1
    for part in parts:
        assert part not in {"", ".", ".."}
        assert "\0" not in part
        assert len(part.encode("utf-8")) <= NAME_MAX


@given(keys, keys)
@example("", "%")
@example(".", "%2E")
@example("..", "%%2E%2E")
@example("x" * 300, "x" * 301)
@example("x" * 255, "x" * 256)
@example("a/b", "a//b")
def test_different_keys_have_different_paths(one: str, other: str) -> None:
    assume(one != other)
    assert key_path(one) != key_path(other)


tricky = st.text(st.sampled_from("%./2E~\0\x7f"), max_size=10)


@given(tricky, tricky)
def test_keys_made_to_collide_have_different_paths(one: str, other: str) -> None:
    assume(one != other)
    assert key_path(one) != key_path(other)


@given(st.text(st.sampled_from("ab测%"), min_size=200, max_size=300), st.integers(0, 199))
def test_long_names_that_differ_anywhere_have_different_paths(name: str, at: int) -> None:
    assert key_path(name) != key_path(f"{name[:at]}!{name[at + 1 :]}")


def test_a_name_of_255_bytes_stays_as_it_is() -> None:
    assert key_path("x" * 255) == "x" * 255
    cut = key_path("x" * 256)
    assert cut.startswith("x" * 237 + "%~")
    assert len(cut) == 255


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("a/b.mov", "a/b.mov"),
        ("测试 🎬.mov", "测试 🎬.mov"),
        (b"raw\xff.bin".decode("utf-8", "surrogateescape"), "raw\ufffd.bin"),
    ],
)
def test_the_proposed_key_is_the_path_as_utf8_can_say_it(path: str, key: str) -> None:
    assert propose(path) == key


@given(names)
def test_a_proposed_key_is_always_encodable(name: str) -> None:
    assert propose(name).encode("utf-8") is not None


@given(names)
@example("\\x41")
@example("a\\\\x41")
def test_what_is_shown_can_be_typed_again(name: str) -> None:
    assert unshown(shown(name)) == name


@given(st.text())
def test_text_that_nothing_shows_as_is_left_alone(text: str) -> None:
    assert unshown(text) == text or shown(unshown(text)) == text
