"""The configuration: what is taken, and that nothing but a Failure is raised, whatever it is."""

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import BOTH, FILE, SECRET, changed, refused
from dumbwaiter.config import Config, Watch
from dumbwaiter.config.file import parse
from dumbwaiter.config.values import Duration, duration
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.model import Secret


def test_a_small_configuration_has_sensible_values() -> None:
    config = parse(BOTH, FILE)
    provider = config.provider["vod"]
    assert provider.app_secret.read() == Secret(SECRET)
    assert (provider.app_key, provider.api, provider.lbs, provider.cdn) == (
        "key",
        "https://vcloud.163.com",
        "http://wanproxy.127.net",
        "http://{bucket}.nosdn.127.net",
    )
    assert config.watch == {
        "films": Watch("/drop/films", "vod", [], [], settle=Duration(2), rescan=Duration(900), polling="auto")
    }
    assert (config.journal, config.limits.transfers, config.mount.path) == (None, 4, None)
    assert (config.log.level, config.log.format) == ("info", "auto")


@pytest.mark.parametrize(
    ("text", "size"),
    [("10GiB", 10 << 30), ("512MiB", 512 << 20), ("10M", 10 << 20), ("1 kb", 1024), ("0", 0), ("2T", 2 << 40)],
)
def test_a_size_counts_by_1024(text: str, size: int) -> None:
    assert parse(f'[mount]\ncache_size = "{text}"', FILE).mount.cache_size == size


@pytest.mark.parametrize("value", ['"ten"', '"1.5G"', '"-1"', '""', '"9GB/s"', "5", "true"])
def test_what_is_no_size_is_refused(value: str) -> None:
    with pytest.raises(Failure, match=r'line 2: \[mount.cache_size\].*like "10GiB"'):
        parse(f"[mount]\ncache_size = {value}", FILE)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:80", "127.0.0.1", 80), ("localhost:8384", "127.0.0.1", 8384), ("[::1]:1", "::1", 1)],
)
def test_the_page_is_served_where_it_says(text: str, host: str, port: int) -> None:
    listen = parse(f'[web]\nlisten = "{text}"', FILE).web.listen
    assert listen is not None
    assert (str(listen.host), listen.port) == (host, port)


def test_other_machines_need_a_token() -> None:
    web = parse('[web]\nlisten = "192.0.2.1:80"\ntoken = { env = "PAGE" }', FILE).web
    assert repr(web.token) == "env:PAGE"


@pytest.mark.parametrize("token", ["秘密口令", "se\u00e9same", "a\\nb", " sesame", "sesame ", "\\u007f"])
def test_a_token_that_no_browser_can_send_is_refused(token: str) -> None:
    web = parse(f'[web]\ntoken = "{token}"', FILE).web
    assert web.token is not None
    with pytest.raises(Failure) as refusal:
        web.token.read()
    assert str(refusal.value).startswith(f"{FILE}, line 2: [web.token] no browser can send this token: ")
    assert (refusal.value.code, token in str(refusal.value)) == (Exit.USAGE, False)


@pytest.mark.parametrize("token", ["x", "open sesame, please", "#token=%20~"])
def test_a_token_that_browsers_send_is_taken(token: str) -> None:
    web = parse(f'[web]\ntoken = "{token}"', FILE).web
    assert web.token is not None
    assert web.token.read().reveal() == token


def test_an_empty_configuration_is_one() -> None:
    assert parse("", FILE) == Config()


def test_paths_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    text = changed("/drop/films", "~/films/") + '[watch.b]\npath = "b/../c"\nprovider = "vod"\n[mount]\npath = "~/up"\n'
    config = parse(text, FILE)
    assert [watch.path for watch in config.watch.values()] == [f"{tmp_path}/films", f"{os.path.dirname(FILE)}/c"]
    assert config.mount.path == f"{tmp_path}/up"


def test_the_folder_of_a_watch_is_known_also_for_files_named_on_the_command_line() -> None:
    config = parse(BOTH, FILE)
    assert config.folder_of("films") == "/drop/films"
    assert config.folder_of("put") == "/"
    assert config.folder_of("gone") is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("200ms", 0.2),
        ("2s", 2),
        ("1.5 s", 1.5),
        ("15m", 900),
        ("1h", 3600),
        ("1d", 86400),
        (" 0s ", 0),
        ("366d", 31_622_400),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)
    assert parse(BOTH + f'settle = "{text}"\n', FILE).watch["films"].settle == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "2", "s", "-1s", "1e3s", "2 weeks", "1h30m", "two s", "inf s", "1.s"])
def test_anything_else_is_no_duration(text: str) -> None:
    assert refused(BOTH + f'settle = "{text}"\n') == (
        f'{FILE}, line 9: [watch.films.settle] "{text}" is no time: write a number and ms, s, m, h or d, like "2s"'
    )


def test_a_duration_that_no_clock_can_add_is_refused() -> None:
    assert refused(BOTH + 'rescan = "367d"\n') == (
        f'{FILE}, line 9: [watch.films.rescan] "367d" is too long: "366d" at most'
    )


@pytest.mark.parametrize(("value", "polling"), [('"auto"', "auto"), ("true", True), ("false", False)])
def test_polling_is_a_word_or_a_choice(value: str, polling: object) -> None:
    assert parse(f"{BOTH}polling = {value}\n", FILE).watch["films"].polling is polling or polling == "auto"


@pytest.mark.parametrize("name", ["电影", "v d", "-", ".hidden", "Émile's", "100%", "影" * 85])
def test_a_name_is_whatever_a_folder_can_be_called(name: str) -> None:
    text = BOTH.replace("[provider.vod]", f'[provider."{name}"]').replace('"vod"', f'"{name}"')
    config = parse(changed("[watch.films]", f'[watch."{name}"]', text), FILE)
    assert list(config.provider) == list(config.watch) == [name]


keys = st.one_of(
    st.sampled_from(
        [
            "provider",
            "watch",
            "limits",
            "mount",
            "log",
            "journal",
            "broker",
            "app_key",
            "app_secret",
            "api",
            "path",
            "include",
            "exclude",
            "settle",
            "polling",
            "transfers",
            "level",
            "format",
            "vod",
            "films",
            "env",
            "file",
            "credential",
            "keyring",
        ]
    ),
    st.text(max_size=5),
)
plain = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=True),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    st.sampled_from(["netease", "vod", "/drop", "2s", "auto", "info", "~", "a\0b", "*.mov"]),
    st.dates(),
    st.times(),
    st.datetimes(),
)
tables = st.recursive(
    plain,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)


@given(st.data())
def test_whatever_the_values_nothing_but_a_failure_is_raised(data: st.DataObject) -> None:
    """Some real sections with real and unreal values in them, so that the checks are reached."""
    sections = {
        "provider": {"vod": {"broker": "netease", "app_key": "k", "app_secret": SECRET}},
        "watch": {"films": {"path": "/drop", "provider": "vod"}},
    }
    raw: dict[str, Any] = {
        name: data.draw(st.one_of(st.just(sections.get(name, {})), tables), label=name)
        for name in data.draw(st.sets(keys, max_size=4), label="sections")
    }
    if "watch" in raw and isinstance(raw["watch"], dict):
        raw["watch"]["more"] = data.draw(tables, label="more")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tomllib, "loads", lambda text: raw)
        try:
            assert isinstance(parse("", FILE), Config)
        except Failure as failed:
            assert failed.code is Exit.USAGE
            assert SECRET not in str(failed)


@given(st.text())
def test_whatever_the_text_nothing_but_a_failure_is_raised(text: str) -> None:
    try:
        assert isinstance(parse(text, FILE), Config)
    except Failure as failed:
        assert str(failed).startswith(FILE)


def test_a_home_that_is_not_known_is_a_folder_of_that_name() -> None:
    found = parse(changed("/drop/films", "~nobody-at-all/x"), FILE).watch["films"].path
    assert found == f"{os.path.dirname(FILE)}/~nobody-at-all/x"
