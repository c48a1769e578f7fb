"""What a configuration is refused for, and in which words."""

import os
import subprocess
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import pytest

from configs import BOTH, FILE, PROVIDER, SECRET, WATCH, changed, refused
from dead_disk import dead_disk
from dumbwaiter import config
from dumbwaiter.config import nested
from dumbwaiter.config.file import parse
from dumbwaiter.config.options import CareyShop, Provider, RecipeRequest, Xinhua
from dumbwaiter.config.reader import PROVIDERS
from dumbwaiter.config.values import BaseUrl, RequestUrl, SecretSource

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
    BOTH + "polling = 1\n": ', line 9: [watch.films.polling] found a whole number; allowed: "auto", true, false',
    BOTH + "duplicates = true\n": ', line 9: [watch.films.duplicates] found true or false; allowed: "link", "send"',
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
    changed(f'= "{SECRET}"', f": {SECRET}=="): ": Expected '=' after a key in a key/value pair (at line 4, column 12)",
    changed(f'"{SECRET}"', f'"""\n\x01{SECRET}=="""'): ": Illegal character '\\x01' (at line 5, column 1)",
    BOTH + "settle = " + "9" * 5000: ": a number has more digits than any of a configuration",
    # What ends a line elsewhere, and not in TOML
    "# \x85 \u2028\n" + BOTH + "settle = 1\n": (
        ', line 10: [watch.films.settle] expected a time like "2s", got `1`'
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
    ("value", "found"),
    [
        ("5", "a whole number"),
        ("true", "true or false"),
        ("2026-01-01", "`date`"),
        (f'["{SECRET}"]', 'a list like ["…"]'),
        ("{}", "an empty table"),
        ('{ env = "A", file = "b" }', "several of them"),
        ("{ env = 5 }", "env = a whole number"),
        (f'{{ env = {{ value = "{SECRET}" }} }}', 'env = value = a text like "…"'),
    ],
)
def test_a_secret_of_another_shape_is_refused_without_showing_it(value: str, found: str) -> None:
    assert refused(changed(f'"{SECRET}"', value)) == f"{SECRET_SHAPE}; found {found}"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('{ enw = "A" }', 'unknown key "enw"; did you mean "env"?'),
        ('{ env = "A", fiel = "b" }', 'unknown key "fiel"; did you mean "file"?'),
        (f'{{ literal = "{SECRET}" }}', 'unknown key "literal"; known: credential, env, file, keyring'),
    ],
)
def test_a_secret_with_a_mistyped_key_names_the_one_that_is_meant(value: str, said: str) -> None:
    assert refused(changed(f'"{SECRET}"', value)) == f"{FILE}, line 4: [provider.vod.app_secret] {said}"


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


@pytest.mark.parametrize(
    ("transport", "headers", "words"),
    [
        ("put", '{ "X Name" = "a" }', 'request.headers] "X Name" is no header that can be set'),
        ("put", '{ Content-Length = "5" }', 'request.headers] "Content-Length" is no header that can be set'),
        ("put", '{ X-Name = "a\\nb" }', 'request.headers] the value of "X-Name" has a control character'),
        ("qiniu", "{}", 'reply] the key "token" is missing: transport = "qiniu" needs what it gives'),
        ("oss", "{}", 'reply] the key "fields" is missing: transport = "oss" needs what it gives'),
    ],
)
def test_a_recipe_that_could_never_send_anything_is_refused(transport: str, headers: str, words: str) -> None:
    recipe = (
        f'[provider.own]\nbroker = "recipe"\ntransport = "{transport}"\n'
        f'request = {{ url = "https://x/", headers = {headers} }}\nreply = {{ url = "url"%s }}\n'
    )
    assert f"[provider.own.{words}" in refused(recipe % "")
    if headers == "{}":
        parse(recipe % ', token = "t", fields = "f"', FILE)


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
        ('request = "put"', "request", 'found "put"; allowed: "get", "post", "query"'),
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_folder_with_two_names_is_one(tmp_path: Path) -> None:
    real, name, apart = tmp_path / "real", tmp_path / "name", tmp_path / "apart"
    for folder in (real / "in", name, apart):
        folder.mkdir(parents=True)
    subprocess.run(["mount", "--bind", real, name], check=True)
    try:
        assert nested(f"{name}", f"{real}")
        assert nested(f"{name}/in", f"{real}")
        assert nested(f"{real}/in", f"{name}/in/not yet there")
        assert not nested(f"{name}/in", f"{real}/inner")
        assert not nested(f"{name}", f"{apart}")
    finally:
        subprocess.run(["umount", name], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_what_one_server_exports_under_two_names_is_two(tmp_path: Path) -> None:
    """Of an NFS server the kernel gives both one number, and calls each of them "/". (Its sysfs behaves like that too.)"""
    one, other = tmp_path / "one", tmp_path / "other"
    try:
        for folder in (one, other):
            folder.mkdir()
            subprocess.run(["mount", "-t", "sysfs", f"server:/{folder.name}", folder], check=True)
        assert one.stat().st_dev == other.stat().st_dev
        assert not nested(f"{one}", f"{other}")
    finally:
        for folder in (one, other):
            subprocess.run(["umount", folder], check=False)
