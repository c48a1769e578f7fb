"""The configuration: what is taken, and the one sentence for whatever is wrong with it."""

import grp
import os
import pwd
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import keyring
import keyring.backend
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keyring.errors import KeyringError

from dead_disk import dead_disk
from dumbwaiter import config, config_file
from dumbwaiter.config import Config, Hook, Watch, nested
from dumbwaiter.config_file import exposed, load, parse
from dumbwaiter.config_reader import PROVIDERS
from dumbwaiter.config_values import BaseUrl, Duration, RequestUrl, SecretSource, duration
from dumbwaiter.errors import Exit, Failure
from dumbwaiter.model import Secret
from dumbwaiter.options import CareyShop, NetEase, Provider, RecipeRequest, Xinhua
from stranger import UID, needs_root

FILE = "/etc/dumbwaiter/config.toml"
SECRET = "s3cret-of-the-account"

PROVIDER = f"""\
[provider.vod]
broker = "netease"
app_key = "key"
app_secret = "{SECRET}"

"""
WATCH = """\
[watch.films]
path = "/drop/films"
provider = "vod"
"""
BOTH = PROVIDER + WATCH  # 8 lines


def refused(text: str, *, private: bool = True) -> str:
    """Returns the sentence that a configuration is refused with."""
    with pytest.raises(Failure) as raised:
        parse(text, FILE, private=private)
    assert raised.value.code is Exit.USAGE
    sentence = str(raised.value)
    assert SECRET not in sentence
    assert "\n" not in sentence
    return sentence


def changed(old: str, new: str, text: str = BOTH) -> str:
    assert text.count(old) == 1
    return text.replace(old, new)


# What is taken


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


# What is refused, and how

SENTENCES = {
    # keys
    BOTH + 'setle = "2s"\n': ', line 9: [watch.films.setle] unknown key "setle"; did you mean "settle"?',
    BOTH + "zzz = 1\n": (
        ', line 9: [watch.films.zzz] unknown key "zzz"; '
        "known: after, duplicates, exclude, include, key, on_attention, on_conflict, on_done, on_failed, path, polling, provider, rescan, settle, window"
    ),
    changed("app_key", "app_kee"): (
        ', line 3: [provider.vod.app_kee] unknown key "app_kee"; did you mean "app_key"?'
    ),
    BOTH + "[limits]\ntransfer = 1\n": (
        ', line 10: [limits.transfer] unknown key "transfer"; did you mean "transfers"?'
    ),
    BOTH + "[wach.b]\n": ', line 9: [wach] unknown key "wach"; did you mean "watch"?',
    'jurnal = ""\n' + BOTH: ', line 1: [jurnal] unknown key "jurnal"; did you mean "journal"?',
    changed(f'app_secret = "{SECRET}"\n', ""): ', line 1: [provider.vod] the key "app_secret" is missing',
    changed('path = "/drop/films"\n', ""): ', line 6: [watch.films] the key "path" is missing',
    changed('provider = "vod"\n', ""): ', line 6: [watch.films] the key "provider" is missing',
    # types
    changed('"key"', "5"): ', line 3: [provider.vod.app_key] expected a text like "…", got a whole number',
    changed('"/drop/films"', "[]"): ', line 7: [watch.films.path] expected a text like "…", got a list like ["…"]',
    BOTH + 'include = "*"\n': ', line 9: [watch.films.include] expected a list like ["…"], got a text like "…"',
    BOTH + "exclude = [1]\n": ', line 9: [watch.films.exclude] expected a text like "…", got a whole number',
    BOTH + "settle = 2\n": ', line 9: [watch.films.settle] expected a time like "2s", got `2`',
    BOTH + "polling = 1\n": ', line 9: [watch.films.polling] allowed: "auto", true, false',
    BOTH + "duplicates = true\n": ', line 9: [watch.films.duplicates] allowed: "link", "send"',
    BOTH + "key = 4\n": ', line 9: [watch.films.key] expected a key like "{dir}/{name}", got `4`',
    BOTH + "[limits]\nbandwidth = 10\n": (
        ', line 10: [limits.bandwidth] expected a rate like "2M", or a timetable like "08:00,512k 19:00,off", got `10`'
    ),
    BOTH + 'polling = "yes"\n': (
        ", line 9: [watch.films.polling] found \"yes\"; allowed: \"auto\", true, false"
    ),
    BOTH + '[limits]\ntransfers = "4"\n': ', line 10: [limits.transfers] expected a whole number, got a text like "…"',
    BOTH + "[limits]\ntransfers = true\n": ', line 10: [limits.transfers] expected a whole number, got true or false',
    BOTH + '[log]\nlevel = "loud"\n': (
        ", line 10: [log.level] found \"loud\"; allowed: \"debug\", \"info\", \"warning\", \"error\""
    ),
    BOTH + '[log]\nformat = "xml"\n': (
        ", line 10: [log.format] found \"xml\"; allowed: \"auto\", \"console\", \"json\""
    ),
    "limits = 4\n" + BOTH: ', line 1: [limits] expected a table, got a whole number',
    "journal = 4\n" + BOTH: ', line 1: [journal] expected a text like "…" or nothing, got a whole number',
    "provider = []\n": ", line 1: [provider] give it a name: [provider.NAME]",
    '[provider]\nbroker = "netease"\n': ", line 1: [provider] give it a name: [provider.NAME]",
    PROVIDER + '[[watch.a]]\npath = "/a"\n': ", line 6: [watch] give it a name: [watch.NAME]",
    # values
    changed('"netease"', '"netese"'): (
        ', line 2: [provider.vod.broker] unknown broker "netese"; did you mean "netease"?'
    ),
    changed('"netease"', '"xyz"'): ', line 2: [provider.vod.broker] unknown broker "xyz"; known: '
    + ", ".join(sorted(PROVIDERS)),
    changed('"vod"\n', '"vid"\n'): ', line 8: [watch.films.provider] there is no provider "vid"; known: vod',
    WATCH: ', line 3: [watch.films.provider] there is no provider "vod"; known: none is configured',
    BOTH + '[web]\nlisten = "0.0.0.0:8384"\n': ", line 10: [web.listen] 0.0.0.0:8384 can be reached from other machines: "
    "give [web] a token, or listen on 127.0.0.1:8384",
    **{
        BOTH + f'[web]\nlisten = "{text}"\n': f', line 10: [web.listen] "{text}" is no place to listen: '
        'write an IP address and a port, like "127.0.0.1:8384"'
        for text in ("8384", ":8384", "example.com:80", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "::1:80", "[::1]")
    },
    BOTH + "[limits]\ntransfers = 0\n": ", line 10: [limits.transfers] found 0; allowed: 1 to 64",
    BOTH + "[limits]\ntransfers = 65\n": ", line 10: [limits.transfers] found 65; allowed: 1 to 64",
    changed('"/drop/films"', '""'): ', line 7: [watch.films.path] "" names no folder',
    changed('"/drop/films"', '"/a\\u0000b"'): ', line 7: [watch.films.path] "/a\\x00b" names no folder',
    BOTH + '[mount]\npath = ""\n': ', line 10: [mount.path] "" names no folder',
    'journal = "mysql://u@h/d"\n' + BOTH: (
        ', line 1: [journal] must be a URL like "postgresql+psycopg://USER@HOST/DATABASE"'
    ),
    BOTH + 'rescan = "500ms"\n': ', line 9: [watch.films.rescan] 0.5 seconds are too few: "1s" at least',
    BOTH + '[limits.requests]\nvod = "5"\n': (
        ', line 10: [limits.requests.vod] expected a number, got a text like "…"'
    ),
    BOTH + '[limits]\nrequests = { vod = true, vid = 5 }\n': (
        ", line 10: [limits.requests.vod] expected a number, got true or false"
    ),
    'journal = "postgresql+psycopg://u@h:port/d"\n' + BOTH: (
        ', line 1: [journal] must be a URL like "postgresql+psycopg://USER@HOST/DATABASE"'
    ),
    'journal = "sqlite:////drop/journal.db"\n' + BOTH: (
        ', line 1: [journal] must be a URL like "postgresql+psycopg://USER@HOST/DATABASE"'
    ),
    # names
    **{
        changed("[watch.films]", f'[watch."{name}"]'): (
            f', line 6: [watch.{told}] "{told}" cannot be a name: a folder of the mount has it, so it is not ".", ".." or '
            "empty, has no slash, backslash or control character, and 255 bytes at most"
        )
        for name, told in (("a/b", "a/b"), (".", "."), ("..", ".."), ("", ""), ("影" * 86, "影" * 86))
    },
    changed("[provider.vod]", '[provider."v\\td"]'): (
        ', line 1: [provider.v\\x09d] "v\\x09d" cannot be a name: a folder of the mount has it, so it is not ".", ".." or empty, '
        "has no slash, backslash or control character, and 255 bytes at most"
    ),
    changed("[watch.films]", '[watch."a\\nb"]') + '"se\\ntle" = 1\n': (
        ', line 6: [watch.a\\x0ab.se\\x0atle] unknown key "se\\x0atle"; did you mean "settle"?'
    ),
    changed("[watch.films]", "[watch.put]"): (
        ', line 6: [watch.put] "put" cannot be a name: what the command put uploads has it'
    ),
    # folders
    BOTH + WATCH.replace("watch.films", "watch.more"): (
        ", line 10: [watch.more.path] /drop/films and the folder of watch.films, /drop/films, lie in one another: "
        "a file would belong to both"
    ),
    BOTH + WATCH.replace("watch.films", "watch.more").replace("/drop/films", "/drop/films/new"): (
        ", line 10: [watch.more.path] /drop/films/new and the folder of watch.films, /drop/films, lie in one "
        "another: a file would belong to both"
    ),
    BOTH + WATCH.replace("watch.films", "watch.more").replace("/drop/films", "/drop/x/.."): (
        ", line 10: [watch.more.path] /drop and the folder of watch.films, /drop/films, lie in one another: "
        "a file would belong to both"
    ),
    BOTH + '[mount]\npath = "/drop/films/mount"\n': (
        ", line 10: [mount.path] /drop/films/mount and the folder of watch.films, /drop/films, lie in one another: "
        "the mount would be uploaded into itself"
    ),
    BOTH + '[mount]\npath = "/"\n': (
        ", line 10: [mount.path] / and the folder of watch.films, /drop/films, lie in one another: "
        "the mount would be uploaded into itself"
    ),
    # TOML itself
    BOTH + "settle = \n": (
        ': Invalid value (at line 9, column 10), beside the key "settle": a text stands in quotes, a key once in its table'
    ),
    BOTH + WATCH: ": Cannot declare [watch.films] twice (at line 9, column 13)",
    changed(f'{SECRET}"', SECRET): (
        ": Illegal character '\\n' (at line 4, column 36), beside the key \"app_secret\": "
        "a text stands in quotes, a key once in its table"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), SENTENCES.items())
def test_a_mistake_has_one_sentence_with_its_place(text: str, sentence: str) -> None:
    assert refused(text) == FILE + sentence


ADDRESSES = {
    "http://127.0.0.1:189808981": "names no host, or a port that is none: 1 to 65535",
    "http://127.0.0.1:0": "names no host, or a port that is none: 1 to 65535",
    "http://127.0.0.1:http": "names no host, or a port that is none: 1 to 65535",
    "http://[::1": "names no host, or a port that is none: 1 to 65535",
    "": 'is no address: write it like "https://api.example.com"',
    "api.example.com": 'is no address: write it like "https://api.example.com"',
    "ftp://api.example.com": 'is no address: write it like "https://api.example.com"',
    "https://": 'is no address: write it like "https://api.example.com"',
    "https://api example.com": 'is no address: write it like "https://api.example.com"',
}


def test_a_base_has_no_query_and_what_stands_there_is_not_shown() -> None:
    assert refused(changed("[watch.films]", 'api = "https://api.example.com/v1?key=geheim"\n\n[watch.films]')) == (
        f'{FILE}, line 6: [provider.vod.api] "https://api.example.com/v1?…" goes too far: a base ends before "?" and "#"'
    )


def test_a_webhook_may_have_a_query() -> None:
    url = "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=693a91f6-7xxx"
    hook = parse(f'{BOTH}on_done = {{ url = "{url}", secret = "s" }}\n', FILE).watch["films"].hook("on_done")
    assert hook is not None
    assert hook.url == url


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("qyapi.example/send?key=geheim", '"qyapi.example/…" is no address'),
        ("https://hooks.example:99999/services/geheim", '"https://hooks.example:99999/…" names no host'),
        ("ftp://hooks.example?geheim", '"ftp://hooks.example?…" is no address'),
        ("https:///services/geheim", '"https:///services/…" is no address'),
        ("https://me:geheim@hooks.example", "a name or password cannot stand in an address"),
    ],
)
def test_the_key_in_a_webhooks_address_is_not_shown(url: str, seen: str) -> None:
    sentence = refused(f'{BOTH}on_done = {{ url = "{url}", secret = "s" }}\n')
    assert sentence.startswith(f"{FILE}, line 9: [watch.films.on_done.url] {seen}")
    assert "geheim" not in sentence


@pytest.mark.parametrize(("address", "sentence"), ADDRESSES.items())
@pytest.mark.parametrize("key", ["api", "lbs", "cdn"])
def test_an_address_that_no_server_can_have_is_refused_with_its_place(key: str, address: str, sentence: str) -> None:
    text = changed("[watch.films]", f'{key} = "{address}"\n\n[watch.films]')
    assert refused(text) == f'{FILE}, line 6: [provider.vod.{key}] "{address}" {sentence}'


def test_what_names_the_account_is_not_empty() -> None:
    assert refused(changed('"key"', '" "')) == f"{FILE}, line 3: [provider.vod.app_key] must not be empty"


@pytest.mark.parametrize(
    "cdn", ["http://{bucketx}.example", "http://x/{bucket", "http://x/}", "http://{Bucket}.example"]
)
def test_a_public_address_has_no_other_blank_than_the_bucket(cdn: str) -> None:
    assert refused(changed("[watch.films]", f'cdn = "{cdn}"\n\n[watch.films]')) == (
        f'{FILE}, line 6: [provider.vod.cdn] "{cdn}" has a brace that is not of {{bucket}}, the only blank here'
    )


@pytest.mark.parametrize("host", ["", "http://x", "10.0.0.0/8", "10.0.0.256", "a..b", "store.example:80", "a b"])
def test_what_names_no_host_is_not_taken_for_one_that_may_be_inside(host: str) -> None:
    assert refused(f'[network]\ninside = ["store.example", "{host}"]\n') == (
        f'{FILE}, line 2: [network.inside] "{host}" is no name of a host: '
        'write it like "store.corp.example" or "*.corp.example"'
    )


def test_names_of_hosts_that_may_be_inside() -> None:
    names = (
        "store.corp.example",
        "*.lan.example",
        "store-*.example.",
        "router",
        "bücher.example",
        "*",
        "10.0.0.5",
        "fd00::1",
    )
    text = ", ".join(f'"{name}"' for name in names)
    assert parse(f"[network]\ninside = [{text}]\n", FILE).network.inside == names


def test_every_vendors_addresses_are_looked_at() -> None:
    for kind in get_args(Provider):
        for one in msgspec.structs.fields(kind):
            if one.name in {"api", "lbs", "cdn", "imagex", "upload", "uc", "endpoint"}:
                assert BaseUrl in {one.type, *get_args(one.type)}, (kind, one.name)
    assert get_type_hints(RecipeRequest)["url"] is RequestUrl


@pytest.mark.parametrize("good", ["http://[::1]:65535/", "https://{bucket}.example/{key}", "https://bücher.example/a"])
def test_what_a_server_can_have_is_taken(good: str) -> None:
    assert BaseUrl.of(good) == good
    assert RequestUrl.of(f"{good}?size={{size}}") == f"{good}?size={{size}}"


SHOP = """\
[provider.shop]
broker = "careyshop"
api = "https://shop.example/api/v1"
app_key = "1"
app_secret = { env = "NONE" }
username = "u"
password = { env = "NONE" }
"""


def test_a_list_is_read_again_as_often_as_told_and_only_where_there_is_one() -> None:
    shop = parse(f'{SHOP}refresh = "6h"\n', FILE).provider["shop"]
    assert isinstance(shop, CareyShop)
    assert shop.refresh == 6 * 3600
    assert refused(f'{SHOP}refresh = "10s"\n') == (
        f'{FILE}, line 8: [provider.shop.refresh] 10 seconds are too few to read a whole list: "1m" at least'
    )
    assert 'unknown key "refresh"' in refused(changed("[watch.films]", 'refresh = "6h"\n\n[watch.films]'))


@pytest.mark.parametrize(
    ("lines", "key", "words"),
    [
        ('terminal = "web"\nparent = -1', "parent", "found -1; allowed: the number of a directory, 0 for the top"),
        ('request = "get"\nplatform = ""', "platform", "leave the key out for one of the provider's own"),
    ],
)
def test_what_no_shop_has_is_refused_at_its_line(lines: str, key: str, words: str) -> None:
    sentence = refused(f"{SHOP}{lines}\n")
    assert sentence.startswith(f"{FILE}, line 9: [provider.shop.{key}] ")
    assert words in sentence


@pytest.mark.parametrize("module", ["", "careyshop", "qiniu", "aliyun"])
def test_every_module_may_be_asked_as_an_app(module: str) -> None:
    shop = parse(f'{SHOP}module = "{module}"\nterminal = "app"\n', FILE).provider["shop"]
    assert isinstance(shop, CareyShop)
    assert shop.terminal == "app"


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    for address in ("https://me:geheim@api.example.com", "https://me:geheim@api.example.com:99999"):
        said = refused(changed("[watch.films]", f'api = "{address}"\n[watch.films]'))
        assert said == f"{FILE}, line 6: [provider.vod.api] a name or password cannot stand in an address"


SECRET_SHAPE = f'{FILE}, line 4: [provider.vod.app_secret] a secret is "text" or a table with one of env, file, credential, keyring'


@pytest.mark.parametrize(
    "value",
    [
        "5",
        "true",
        f'["{SECRET}"]',
        "{}",
        '{ environment = "A" }',
        '{ env = "A", file = "b" }',
        "{ env = 5 }",
        f'{{ env = {{ value = "{SECRET}" }} }}',
        f'{{ literal = "{SECRET}" }}',
    ],
)
def test_a_secret_of_another_shape_is_refused_without_showing_it(value: str) -> None:
    assert refused(changed(f'"{SECRET}"', value)) == SECRET_SHAPE


@pytest.mark.parametrize("kind", SecretSource.KINDS)
def test_a_secret_that_is_nowhere_is_refused(kind: str) -> None:
    assert refused(changed(f'"{SECRET}"', f'{{ {kind} = " " }}')) == (
        f'{FILE}, line 4: [provider.vod.app_secret] {kind} = "" does not say where the secret is'
    )


def test_a_literal_secret_is_refused_when_others_can_read_the_file() -> None:
    assert refused(BOTH, private=False) == (
        f"{FILE}, line 4: [provider.vod.app_secret] a secret stands in a file that others can read: chmod 600 the file, "
        'or move the secret out with { file = "…" }, { env = "…" }, { credential = "…" } or { keyring = "…" }'
    )
    elsewhere = changed(f'"{SECRET}"', '{ env = "VOD" }')
    assert repr(parse(elsewhere, FILE, private=False).provider["vod"].app_secret) == "env:VOD"


@pytest.mark.parametrize(
    "place",
    [
        f"u:{SECRET}@db/journal",
        "u:7/a@db/journal",
        f"u@db/journal?password={SECRET}",
        f"u@db/journal?sslpassword={SECRET}",
    ],
)
def test_a_password_in_the_journals_url_is_refused_when_others_can_read_the_file(place: str) -> None:
    line = f'journal = "postgresql+psycopg://{place}"\n'
    assert refused(line, private=False) == (
        f"{FILE}, line 1: [journal] holds a password and stands in a file that others can read: chmod 600 the file, "
        "or move the password to ~/.pgpass"
    )
    assert parse(line, FILE).journal == f"postgresql+psycopg://{place}"
    assert parse('journal = "postgresql+psycopg://u@db/journal"', FILE, private=False).journal is not None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[ "provider" . \'vod\' ]  # mine\nbroker = "netease"\napp_key = 5\napp_secret = "x"\n', 3),
        ('provider.vod = { broker = "netease", app_key = 5, app_secret = "x" }\n', 1),
        ('\n\nprovider.vod.broker = "netease"\nprovider.vod.app_key = 5\nprovider.vod.app_secret = "x"\n', 3),
    ],
)
def test_the_place_is_found_in_every_way_to_write_a_table(text: str, line: int) -> None:
    sentence = f'{FILE}, line {line}: [provider.vod.app_key] expected a text like "…", got a whole number'
    assert refused(text) == sentence


def test_a_pattern_that_cannot_be_read_is_named() -> None:
    sentence = refused(BOTH + 'exclude = ["a/**b["]\n')
    assert sentence.startswith(f"{FILE}, line 9: [watch.films.exclude] ")
    assert "'a/**b['" in sentence


def test_no_trash_is_uploaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = changed("/drop/films", str(tmp_path)) + 'after = "trash"\n'
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert parse(home, FILE)  # it is left out, as other disks' are
    monkeypatch.setenv("XDG_DATA_HOME", f"{tmp_path}/data")
    assert refused(home) == (
        f"{FILE}, line 9: [watch.films.after] {tmp_path}/data/Trash and the folder of watch.films, {tmp_path}, lie in one "
        "another: what is moved there would be uploaded again"
    )
    assert parse(f'{home}exclude = ["data/"]\n', FILE)


def test_each_folder_is_asked_once_where_its_links_lead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = config._followed
    monkeypatch.setattr(config, "_followed", lambda path: asked.append(path) or real(path))
    watches = [f'[watch.w{one}]\npath = "{tmp_path}/{one}"\nprovider = "vod"\n' for one in range(9)]
    assert len(parse(changed("/drop/films", f"{tmp_path}/films") + "".join(watches), FILE).watch) == 10
    assert len(asked) == len(set(asked)) == 10


def test_tables_that_lie_too_deep_in_one_another_are_refused() -> None:
    assert refused("a = " + "[" * 100_000) == f"{FILE}: arrays or tables lie too deep in one another"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("requests = 0", "[provider.own.requests] 0 is no number of requests a second: more than 0"),
        ("requests = -1", "-1 is no number of requests a second"),
        ("requests = nan", "nan is no number of requests a second"),
        ("requests = inf", "inf is no number of requests a second"),
        ('life = "0s"', '[provider.own.life] 0 seconds are too few: "1s" at least'),
    ],
)
def test_a_recipes_numbers_are_ones_that_something_can_be_done_with(line: str, words: str) -> None:
    assert words in refused(
        f'[provider.own]\nbroker = "recipe"\ntransport = "put"\n{line}\n'
        'request = { url = "https://x/" }\nreply = { url = "url" }\n'
    )


def test_folders_are_compared_with_their_links_resolved(tmp_path: Path) -> None:
    (tmp_path / "real/inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/inner")
    real = changed("/drop/films", f"{tmp_path}/real")
    other = f'[watch.more]\npath = "{tmp_path}/link"\nprovider = "vod"\n'
    assert refused(real + other) == (
        f"{FILE}, line 10: [watch.more.path] {tmp_path}/link and the folder of watch.films, {tmp_path}/real, "
        "lie in one another: a file would belong to both"
    )
    assert refused(f'{real}[mount]\npath = "{tmp_path}/link/not yet there"\n') == (
        f"{FILE}, line 10: [mount.path] {tmp_path}/link/not yet there and the folder of watch.films, {tmp_path}/real, "
        "lie in one another: the mount would be uploaded into itself"
    )


def test_folders_side_by_side_are_no_nest() -> None:
    assert not nested("/drop/films", "/drop/films2")
    assert nested("/drop/films", "/drop/films/")
    assert nested("/drop", "/drop/films")
    assert nested("/", "/drop")


# The file


def written(folder: Path, text: str, mode: int = 0o600) -> str:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return str(path)


def failure(path: str) -> str:
    with pytest.raises(Failure) as raised:
        load(path)
    assert raised.value.code is Exit.USAGE
    assert SECRET not in str(raised.value)
    return str(raised.value)


def test_a_file_is_loaded(tmp_path: Path) -> None:
    assert load(written(tmp_path, BOTH)).provider["vod"].app_key == "key"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_file_that_others_can_open_holds_no_secret(tmp_path: Path, mode: int) -> None:
    assert "a secret stands in a file that others can read" in failure(written(tmp_path, BOTH, mode))


def test_a_missing_file_is_told_with_the_way_to_make_one(tmp_path: Path) -> None:
    path = f"{tmp_path}/none.toml"
    assert failure(path) == f"there is no configuration at {path}: `dumbwaiter init` writes a first one"


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    assert failure(str(tmp_path)) == f"{tmp_path} cannot be read: Is a directory"


def test_what_never_ends_is_no_configuration(tmp_path: Path) -> None:
    """A device would be read until memory is full, a pipe that nobody writes to be waited for."""
    pipe = f"{tmp_path}/pipe"
    os.mkfifo(pipe)
    for path in ("/dev/zero", pipe):
        assert failure(path) == f"{path} is no regular file"


def test_a_file_larger_than_any_configuration_is_not_read(tmp_path: Path) -> None:
    path = written(tmp_path, BOTH)
    os.truncate(path, 1 << 40)
    assert failure(path) == f"{path} has more than 1048576 bytes, which is no configuration"


def test_bytes_that_are_no_text_are_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"# \xff\n")
    assert failure(str(path)) == f"{path} is no UTF-8 text"


def test_the_mark_that_editors_on_windows_begin_a_file_with_is_no_part_of_it(tmp_path: Path) -> None:
    path = Path(written(tmp_path, BOTH))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load(str(path)).watch == parse(BOTH, FILE).watch


# Where a secret is


def unread(source: SecretSource) -> str:
    with pytest.raises(Failure) as raised:
        source.read()
    assert raised.value.code is Exit.USAGE
    return str(raised.value)


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    return path


def test_a_secret_never_shows_itself() -> None:
    source = SecretSource("literal", SECRET)
    assert repr(source) == repr(source.read()) == str(source.read()) == f"{source.read()}" == "***"
    assert source.read().reveal() == SECRET
    assert SECRET not in repr(parse(BOTH, FILE))


def test_a_secret_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOD", SECRET)
    assert SecretSource("env", "VOD").read() == Secret(SECRET)
    monkeypatch.setenv("VOD", "")
    words = "the environment variable VOD, which should hold a secret, is not set"
    assert unread(SecretSource("env", "VOD")) == words
    monkeypatch.delenv("VOD")
    assert unread(SecretSource("env", "VOD")) == words


def test_a_secret_is_read_from_a_file_without_its_last_newline(
    secret_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SecretSource("file", str(secret_file)).read() == Secret(SECRET)
    monkeypatch.setenv("HOME", str(secret_file.parent))
    assert SecretSource("file", "~/secret").read() == Secret(SECRET)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o602, 0o660])
def test_a_secret_file_that_others_can_open_is_refused(secret_file: Path, mode: int) -> None:
    secret_file.chmod(mode)
    assert unread(SecretSource("file", str(secret_file))) == (
        f"the secret file {secret_file} can be read by others: chmod 600 {secret_file}"
    )


def test_a_secret_file_that_holds_none_is_refused(secret_file: Path) -> None:
    secret_file.write_text(" \n")
    assert unread(SecretSource("file", str(secret_file))) == f"the secret file {secret_file} is empty"
    secret_file.write_bytes(b"\xff\xfe")
    assert unread(SecretSource("file", str(secret_file))) == (
        f"the secret file {secret_file} cannot be read: it is no UTF-8 text"
    )
    secret_file.unlink()
    assert unread(SecretSource("file", str(secret_file))) == f"the secret file {secret_file} does not exist"
    assert unread(SecretSource("file", str(secret_file.parent))) == (
        f"the secret file {secret_file.parent} cannot be read: Is a directory"
    )
    assert "cannot be read" in unread(SecretSource("file", "a\0b"))


def test_a_credential_is_read_from_systemds_folder(secret_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systemd guards that folder; its files may be readable within it."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(secret_file.parent))
    secret_file.chmod(0o444)
    assert SecretSource("credential", "secret").read() == Secret(SECRET)
    assert unread(SecretSource("credential", "other")) == (f"the secret file {secret_file.parent}/other does not exist")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert unread(SecretSource("credential", "secret")) == (
        'the credential "secret" is handed over by systemd only: start the service, or use { file = "…" } or '
        '{ env = "…" } outside of it'
    )


class Ring(keyring.backend.KeyringBackend):
    """A keyring with one secret in it, or a locked one."""

    priority = 1.0  # type: ignore[assignment]
    locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise KeyringError("it is locked")
        return SECRET if (service, username) == ("vod", "me/at/work") else None

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError

    def delete_password(self, service: str, username: str) -> None:
        raise NotImplementedError


@pytest.fixture
def ring() -> Iterator[Ring]:
    before = keyring.get_keyring()
    keyring.set_keyring(ring := Ring())
    yield ring
    keyring.set_keyring(before)


def test_a_secret_is_read_from_the_keyring(ring: Ring) -> None:
    assert SecretSource("keyring", "vod/me/at/work").read() == Secret(SECRET)
    assert unread(SecretSource("keyring", "vod/you")) == (
        'the keyring holds nothing for "vod/you": keyring set vod you'
    )
    assert unread(SecretSource("keyring", "vod")) == 'keyring = "vod" must read "SERVICE/USER"'
    ring.locked = True
    assert unread(SecretSource("keyring", "vod/you")) == 'the keyring cannot be asked for "vod/you": it is locked'


@pytest.mark.parametrize("kind", SecretSource.KINDS)
def test_every_kind_of_secret_can_be_written(kind: str) -> None:
    place = "a.b" if kind == "credential" else "A/B"
    made = parse(changed(f'"{SECRET}"', f'{{ {kind} = "{place}" }}'), FILE).provider["vod"]
    assert isinstance(made, NetEase)
    assert repr(made.app_secret) == f"{kind}:{place}"


@pytest.mark.parametrize("name", ["../bob", "a/b", "..", "a b", "a\\nExecStart=b"])
def test_a_credential_that_would_be_another_file_is_none(name: str) -> None:
    with pytest.raises(Failure, match="is no name of a credential"):
        parse(changed(f'"{SECRET}"', f'{{ credential = "{name}" }}'), FILE)


@pytest.mark.parametrize("words", [["sh", "-c", "cp {path} /x"], ["/bin/bash", "-ec", "echo {name}"]])
def test_no_file_name_becomes_part_of_a_script(words: list[str]) -> None:
    with pytest.raises(
        ValueError, match=r'would be read as part of the script.*write "\$DUMBWAITER_(PATH|NAME)" there'
    ):
        Hook(command=words)
    assert Hook(command=["sh", "-c", 'cp "$1" /x', "sh", "{path}"]).command


# Whatever it is, it is a Failure

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


def test_a_secret_that_cannot_be_had_is_told_with_its_place(tmp_path: Path) -> None:
    provider = parse(changed(f'"{SECRET}"', '{ file = "vod.key" }'), f"{tmp_path}/config.toml").provider["vod"]
    assert isinstance(provider, NetEase)
    assert unread(provider.app_secret) == (
        f"{tmp_path}/config.toml, line 4: [provider.vod.app_secret] the secret file {tmp_path}/vod.key does not exist"
    )
    (tmp_path / "vod.key").write_text(SECRET)
    (tmp_path / "vod.key").chmod(0o600)
    assert provider.app_secret.read() == Secret(SECRET)


@pytest.mark.parametrize("rate", ["-5", "0", "inf", "nan"])
def test_a_pace_that_is_none_is_refused(rate: str) -> None:
    sentence = refused(BOTH + f"[limits.requests]\nvod = {rate}\n")
    assert sentence.startswith(f"{FILE}, line 10: [limits.requests.vod] ")
    assert 'no provider "vid"; did you mean "vod"?' in refused(BOTH + "[limits.requests]\nvid = 1\n")


# Jiandaoyun

FORMS = """\
[provider.forms]
broker = "jiandaoyun"
api_key = "s3cret-of-the-account"
app_id = "a"
entry_id = "e"
"""


@pytest.mark.parametrize(
    ("lines", "key", "number", "words"),
    [
        ('record = "per-file"', "record", 6, 'attachment = "_widget_…"'),
        ('attachment = "w${x}"', "attachment", 6, "must not hold text like ${…}"),
        (
            'attachment = "w"\nrecord = "per-folder"\ntransaction = "per-file"',
            "transaction", 8, 'transaction = "shared"',
        ),
        ('attachment = "w"\n[provider.forms.values]\nok = "{path}"\nnot = "{pth}"', "values.not", 9, '"{pth}" has a blank'),
        ('attachment = ""', "attachment", 6, 'names no field: write it like "_widget_…", or leave the key out'),
        ('values = { w = "{path}" }', "values", 6, "decides nothing without a record"),
        ("start_workflow = true", "start_workflow", 6, 'needs the form\'s field for files: attachment = "_widget_…"'),
        ('record = "none"\nstart_trigger = true', "start_trigger", 7, "decides nothing without a record"),
        ('attachment = "w"\nvalues = { ok = "{path}", not = 5 }', "values.not", 7, "expected a text"),
    ],
)  # fmt: skip
def test_what_jiandaoyun_cannot_take_is_refused_at_its_line(lines: str, key: str, number: int, words: str) -> None:
    sentence = refused(f"{FORMS}{lines}\n")
    assert sentence.startswith(f"{FILE}, line {number}: [provider.forms.{key}] ")
    assert words in sentence


# Xinhua

NEWS = """\
[provider.news]
broker = "xinhua"
access_key = "AK0123"
secret_key = "s3cret-of-the-account"
"""


def test_xinhua_has_sensible_values() -> None:
    news = parse(NEWS, FILE).provider["news"]
    assert isinstance(news, Xinhua)
    assert (news.models, news.token_life, news.process, news.request) == (None, 72000, False, "get")
    assert (news.api, news.upload, news.uc) == ("https://xinhua-api.camera360.com", None, None)
    assert parse(NEWS + 'token_life = "72h"\nmodels = ["one", "two"]\n', FILE)


@pytest.mark.parametrize(
    ("line", "key", "words"),
    [
        ('token_life = "73h"', "token_life", '262800 seconds is no life for a token: "1s" at least, "72h" at most'),
        ('token_life = "500ms"', "token_life", '"1s" at least'),
        ('models = ["a:b"]', "models", '"a:b" is no identifier: those are without colon, comma or space'),
        ('models = ["a,b"]', "models", "without colon, comma or space"),
        ("models = []", "models", "leave the key out for all of the account"),
        ('prefix = "a/b"', "prefix", '"a/b" is none: it has letters, digits and _.- only'),
        ('request = "put"', "request", 'allowed: "get", "post", "query"'),
        ('proces = "yes"', "proces", 'did you mean "process"?'),
    ],
)
def test_what_xinhua_cannot_take_is_refused_at_its_line(line: str, key: str, words: str) -> None:
    sentence = refused(f"{NEWS}{line}\n")
    assert sentence.startswith(f"{FILE}, line 5: [provider.news.{key}] ")
    assert words in sentence


def test_what_xinhua_has_cannot_be_replaced() -> None:
    text = f'{NEWS}\n[watch.news]\npath = "/drop/news"\nprovider = "news"\n'
    assert refused(f'{text}on_conflict = "replace"\n') == (
        f'{FILE}, line 9: [watch.news.on_conflict] found "replace", and Xinhua\'s upload tokens only ever make new objects; '
        'allowed for provider.news: "rename", "skip", "refuse"'
    )
    assert parse(f'{text}on_conflict = "refuse"\n', FILE).watch["news"].on_conflict == "refuse"


NO_WAY_BACK = {
    "jimeng": ('refresh_token = "0c1d"', "Jimeng gives no way to read a file back"),
    "recipe": (
        'transport = "put"\nrequest = { url = "https://sign.example" }\nreply = { url = "url" }',
        "the recipe's reply names no link to read a file back by",
    ),
}


@pytest.mark.parametrize("broker", NO_WAY_BACK)
def test_an_original_that_would_be_the_last_copy_is_warned_of(broker: str) -> None:
    options, why = NO_WAY_BACK[broker]
    text = f'[provider.one]\nbroker = "{broker}"\n{options}\n\n[watch.w]\npath = "/drop/w"\nprovider = "one"\n'
    assert not [*parse(text, FILE).last_copies()]
    assert [*parse(f'{text}after = "delete"\n', FILE).last_copies()] == [
        ("w", f'after = "delete" takes away the only copy that can be read: {why}')
    ]
    assert not [*parse(f'{BOTH}after = "delete"\n', FILE).last_copies()]


def test_an_original_that_jiandaoyun_would_never_give_back_stays() -> None:
    forms = '[provider.forms]\nbroker = "jiandaoyun"\napi_key = "k"\napp_id = "1"\nentry_id = "2"\n'
    text = '\n[watch.w]\npath = "/drop/w"\nprovider = "forms"\nafter = "delete"\n'
    assert refused(forms + text) == (
        f'{FILE}, line 10: [watch.w.after] found "delete", and without a record Jiandaoyun gives no way to read a file back; '
        'allowed for provider.forms: "keep"'
    )
    assert parse(f'{forms}attachment = "_widget_1"\n{text}', FILE).watch["w"].after == "delete"
    assert parse(forms + text.replace("delete", "keep"), FILE).watch["w"].after == "keep"


def test_an_access_key_with_a_colon_is_refused() -> None:
    assert "line 3: [provider.news.access_key]" in refused(changed("AK0123", "AK:0123", NEWS))


def test_a_folder_below_a_dead_mount_is_compared_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "ANSWER", 0.3)
    (tmp_path / "nas").mkdir()
    with dead_disk(tmp_path / "nas"):
        assert nested(f"{tmp_path}/nas/photos", f"{tmp_path}/nas")
        assert not nested(f"{tmp_path}/nas/photos", f"{tmp_path}/other")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "dumbwaiter"
    folder.mkdir(0o700)
    made = folder / "config.toml"
    made.write_text("")
    made.chmod(0o600)
    return made


@pytest.mark.parametrize(("mode", "folder"), [(0o600, 0o700), (0o644, 0o755), (0o600, 0o1777)])
def test_a_configuration_that_others_only_read_is_no_matter(file: Path, mode: int, folder: int) -> None:
    file.chmod(mode)
    file.parent.chmod(folder)
    assert list(exposed(str(file))) == []


@pytest.mark.parametrize(("mode", "folder"), [(0o666, 0o700), (0o660, 0o700), (0o600, 0o777), (0o600, 0o775)])
def test_a_configuration_that_others_can_write_is_said_to_be(
    file: Path, mode: int, folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_file, "_private_group", lambda _gid: False)
    if os.geteuid() == 0:
        for one in (file, file.parent):
            os.chown(one, -1, 4242)
    file.chmod(mode)
    file.parent.chmod(folder)
    open_one = file if mode != 0o600 else file.parent
    said = f"others can write {open_one}, and so have commands run as you: chmod go-w {open_one}"
    assert list(exposed(str(file))) == [said]
    link = file.parent.parent / "config.toml"
    link.symlink_to(file)
    assert list(exposed(str(link))) == [said]
    monkeypatch.setattr(config_file, "_private_group", lambda _gid: True)
    assert list(exposed(str(file))) == ([said] if (mode | folder) & 0o002 else [])


def test_a_group_is_private_that_has_the_users_name_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    user = pwd.struct_passwd(("ann", "x", os.geteuid(), 1000, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: user)
    for name, gid, members, private in (
        ("ann", 1000, [], True),
        ("ann", 1000, ["ann"], True),
        ("ann", 1000, ["bob"], False),
        ("users", 1000, [], False),
        ("ann", 1001, [], False),
    ):
        monkeypatch.setattr(grp, "getgrgid", lambda _gid, one=(name, "x", gid, members): grp.struct_group(one))
        assert config_file._private_group(gid) is private


@needs_root
def test_a_configuration_of_somebody_else_is_said_to_be(file: Path) -> None:
    os.chown(file, UID, UID)
    (said,) = exposed(str(file))
    assert said.startswith(f"{file} belongs to somebody else, who could have commands run as you: ")
