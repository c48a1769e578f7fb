"""What Jiandaoyun's answers are taken to mean, with a desk that plays them."""

import asyncio
import base64
import json
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import pytest

from answers import Answers
from dumbwaiter.brokers.jiandaoyun import Jiandaoyun
from dumbwaiter.config import options as settings
from dumbwaiter.config.file import parse
from dumbwaiter.config.values import SecretSource
from dumbwaiter.errors import Blocked, Failure, Reject, Restart, Retry, Verdict
from dumbwaiter.model import Ask, Entry, FollowUp, Limits, Receipt, Stamp
from dumbwaiter.wire.message import Reply, Request

T = TypeVar("T")
ASK = Ask("w", "dir/a.txt", "dir/a.txt", 5, "text/plain", "seed", place="w/dir/a.txt")
NOW = 1_800_000_000.0
FILE = "_widget_1"


class Desk(Answers):
    def __init__(self, *answers: object) -> None:
        super().__init__(*answers)
        self.called: list[tuple[str, Mapping[str, Any]]] = []
        self.catalogued: dict[str, Receipt] = {}
        self.held: dict[str, Receipt] = {}

    async def call(self, request: Request) -> Reply:
        assert isinstance(request.body, bytes)
        assert request.headers["authorization"] == "Bearer secret"
        self.called.append((request.what, json.loads(request.body)))
        return await super().call(request)

    def now(self, url: str) -> float:
        return NOW + 7

    def skew(self, url: str) -> float:
        return 7.0

    async def cached(self, name: str, life: float, fetch: Callable[[], Awaitable[T]]) -> T:
        return await fetch()

    async def siblings(self, ask: Ask, fact: str, value: str) -> Mapping[str, Receipt]:
        assert (ask.place, fact, value) == ("w/dir/a.txt", "transaction", "t")
        return self.catalogued

    async def of_size(self, size: int, fact: str, value: str) -> Mapping[str, Receipt]:
        assert (size, fact) == (5, "record")
        return {place: one for place, one in self.held.items() if one.facts["record"] == value}

    def forget(self, name: str, value: object) -> None:
        raise AssertionError

    def nonce(self) -> str:
        return "0123456789abcdef0123456789abcdef"


def broker(**options: Any) -> Jiandaoyun:
    source = SecretSource("literal", "secret")
    return Jiandaoyun(settings.Jiandaoyun(source, "59264073a2a60c0c08e20bfb", "59264073a2a60c0c08e20bfd", **options))


def recording(**options: Any) -> Jiandaoyun:
    return broker(attachment=FILE, values={"_widget_2": "{watch}/{path}", "_widget_3": "{size}"}, **options)


def token(number: int, **members: object) -> str:
    policy = {"scope": "b", "deadline": NOW + 3607, "forceSaveKey": True, "saveKey": f"key {number}", **members}
    return f"ak:sign:{base64.urlsafe_b64encode(json.dumps(policy).encode()).decode()}"


def pairs(*tokens: str, url: str = "https://upload.qiniup.com") -> object:
    return {"token_and_url_list": [{"url": url, "token": one} for one in tokens], "news": 1}


def grants(made: Jiandaoyun, desk: Desk, count: int = 1) -> Any:
    return asyncio.run(made.grants([ASK] * count, desk))


def follow_up(made: Jiandaoyun, desk: Desk, **facts: str) -> FollowUp:
    receipt = Receipt("key 1", "Fqr0xh3cxeii2r7eDztILNmuqUNN", verified="crc32", facts={"transaction": "t", **facts})
    return asyncio.run(made.follow_up(ASK, receipt, 0, desk))


def trouble(code: int, status: int = 400) -> Reply:
    return Reply(status, {}, json.dumps({"code": code, "msg": "words"}).encode())


def test_all_tokens_of_one_call_are_grants_of_one_transaction() -> None:
    desk = Desk(pairs(*(token(number, fsizeMin=1, fsizeLimit=9) for number in range(100))))
    found = grants(broker(), desk, 3)
    assert len(found) == 100
    ((what, body),) = desk.called
    assert what == "file/get_upload_token"
    assert uuid.UUID(body["transaction_id"]).version == 4
    assert {grant.ticket.facts["transaction"] for grant in found} == {body["transaction_id"]}
    assert all(grant.key is None and not grant.many for grant in found)
    assert found[0].limits == Limits(1, 9)
    # By our own clock, and early enough for the record.
    assert found[0].expires_at == NOW + 3000
    assert found[0].ticket.urls == ("https://upload.qiniup.com",)


def test_a_token_that_ends_sooner_says_when() -> None:
    (found,) = grants(broker(), Desk(pairs(token(1, deadline=NOW + 107))))
    assert found.expires_at == NOW + 100


def test_a_policy_that_cannot_be_read_is_no_obstacle() -> None:
    (found,) = grants(broker(), Desk(pairs("ak:sign:eyJmc226")))
    assert found.limits == Limits()
    assert found.key is None


def test_a_policy_that_can_be_read_goes_before_one_that_cannot() -> None:
    found = grants(broker(), Desk(pairs("ak:sign:eyJmc226", token(1, fsizeLimit=9), token(2, fsizeLimit=8))))
    assert [grant.limits.size_max for grant in found] == [9, 8, None]


def test_too_few_tokens_are_asked_for_again_under_the_same_transaction() -> None:
    desk = Desk(pairs(token(1)), pairs(), pairs(token(2), token(3)))
    assert len(grants(broker(), desk, 2)) == 3
    assert len({body["transaction_id"] for _, body in desk.called}) == 1
    with pytest.raises(Retry, match="no upload tokens"):
        grants(broker(), Desk(pairs(), pairs(), pairs()))


def test_an_address_in_our_own_network_is_not_uploaded_to() -> None:
    with pytest.raises(Blocked, match="does not send files to"):
        grants(broker(), Desk(*[pairs(token(1), url="http://10.0.0.1")] * 3))


def test_an_upload_address_is_taken_as_it_is_given() -> None:
    url = "https://gateway.example/up/load"
    made = grants(broker(), Desk(pairs(token(1), url=url)))
    assert made[0].ticket.urls == (url,)


def test_a_transaction_for_each_file_if_so_configured() -> None:
    made = broker(transaction="per-file")
    assert made.batch == 1
    assert len(grants(made, Desk(pairs(token(1), token(2))))) == 1


@pytest.mark.parametrize(
    ("reply", "verdict", "words"),
    [
        (trouble(8301), Blocked, "check api_key"),
        (trouble(2004), Blocked, "check app_id"),
        (trouble(3000), Blocked, "check entry_id"),
        (trouble(7216), Blocked, "quota"),
        (trouble(17053), Blocked, "app_id"),
        (trouble(8303), Retry, "slower pace"),
        (trouble(8304), Retry, "slower pace"),
        (trouble(9007), Retry, "code 9007"),
        (trouble(17027), Retry, "code 17027"),
        (trouble(4000), Retry, "code 4000"),
        (trouble(1), Reject, "code 1: words"),
        (trouble(17026), Restart, "per-file"),
        (trouble(0, 429), Retry, "fewer calls"),
        (Reply(502, {}, b"<html>"), Retry, "status 502"),
        (Reply(401, {}, b""), Blocked, "api_key"),
        (trouble(8301, 200), Blocked, "check api_key"),
        (Reply(400, {}, b'{"code":8301,"msg":null}'), Blocked, r"check api_key \(code 8301\)"),
        (Reply(400, {}, b'{"code":null,"msg":"m"}'), Retry, "status 400"),
        (trouble(8303, 200), Retry, "slower pace"),
        (trouble(1, 200), Reject, "code 1: words"),
        (trouble(9007, 200), Retry, "code 9007"),
        (Reply(200, {}, b"<html>"), Retry, "expected JSON"),
    ],
)
def test_what_an_error_means(reply: Reply, verdict: type[Verdict], words: str) -> None:
    with pytest.raises(verdict, match=words) as raised:
        grants(broker(), Desk(reply))
    assert "secret" not in str(raised.value)


def record(key: str = "key 1", size: int = 5, **members: object) -> dict[str, object]:
    """A record of one file. `key` ends the file's address."""
    url = f"https://files.jiandaoyun.com/{key}?e=1&token=x"
    return {"_id": "5" * 24, FILE: [{"name": "a.txt", "size": size, "mime": "text/plain", "url": url}], **members}


def test_without_a_field_for_files_no_record_is_written() -> None:
    desk = Desk()
    done = follow_up(broker(), desk)
    assert (done.later, desk.called) == (None, [])


def test_a_new_path_makes_a_record_under_the_uploads_transaction() -> None:
    desk = Desk({"data": []}, {"data": record()})
    done = follow_up(recording(start_workflow=True), desk)
    (_, search), (what, body) = desk.called
    assert search["filter"]["cond"][0]["value"] == ["w/dir/a.txt"]
    assert what == "data/create"
    assert body["transaction_id"] == "t"
    assert body["data"] == {
        "_widget_2": {"value": "w/dir/a.txt"},
        "_widget_3": {"value": 5},
        FILE: {"value": ["key 1"]},
    }
    assert body["is_start_workflow"] is True
    assert done.receipt.facts["record"] == "5" * 24
    assert done.receipt.url is not None
    assert done.receipt.verified == "crc32"


def test_an_address_that_ends_in_the_content_hash_proves_it() -> None:
    done = follow_up(recording(), Desk({"data": []}, {"data": record("Fqr0xh3cxeii2r7eDztILNmuqUNN")}))
    assert done.receipt.verified == "qetag"


def test_the_record_of_an_older_version_is_updated() -> None:
    another = record(_widget_2="another", _id="6" * 24)
    desk = Desk({"data": [record("older", _widget_2="w/dir/a.txt"), another]}, {"data": record()})
    follow_up(recording(), desk)
    what, body = desk.called[1]
    assert (what, body["data_id"]) == ("data/update", "5" * 24)


def test_the_record_of_another_watchs_file_of_that_path_is_left_alone() -> None:
    path = broker(attachment=FILE, values={"_widget_2": "{path}"})
    older = record("older", _widget_2="dir/a.txt")
    desk = Desk({"data": [older]}, {"data": record(_id="6" * 24)})
    desk.held = {"other/dir/a.txt": Receipt("older", facts={"record": "5" * 24})}
    assert follow_up(path, desk).receipt.facts["record"] == "6" * 24
    assert desk.called[1][0] == "data/create"
    desk = Desk({"data": [{**older, "_id": "7" * 24}, older]}, {"data": record(_id="7" * 24)})
    desk.held = {"other/dir/a.txt": Receipt("older", facts={"record": "5" * 24})}
    follow_up(path, desk)
    what, body = desk.called[1]
    assert (what, body["data_id"]) == ("data/update", "7" * 24)


def test_a_record_that_has_the_file_already_is_left_alone() -> None:
    desk = Desk({"data": [record(_widget_2="w/dir/a.txt")]})
    assert follow_up(recording(), desk).receipt.facts["record"] == "5" * 24
    assert len(desk.called) == 1


@pytest.mark.parametrize(
    "odd",
    [
        {"name": None, "size": 5, "url": "https://files.jiandaoyun.com/another"},
        {"name": "a.txt", "size": "5", "url": None},
        {"name": "a.txt", "size": 5, "url": "http://[::1"},
        {"name": ["a.txt"], "size": 5},
        "a.txt",
        None,
    ],
)
def test_an_attachment_of_another_shape_does_not_hide_the_right_one(odd: object) -> None:
    shown = record(_widget_2="w/dir/a.txt")
    right = shown[FILE]
    assert isinstance(right, list)
    for files in ([odd, *right], [*right, odd]):
        desk = Desk({"data": [{**shown, FILE: files}]})
        done = follow_up(recording(), desk)
        assert (done.receipt.url, len(desk.called)) == (right[0]["url"], 1)


def test_what_an_attachment_lacks_does_not_hide_it() -> None:
    for odd in ({"name": "a.txt", "size": "5", "url": "u"}, {"name": None, "size": 5, "url": "u"}):
        shown = {"_id": "5" * 24, FILE: [odd]}
        assert follow_up(recording(), Desk({"data": []}, {"data": shown})).receipt.url == "u"


def test_an_address_that_is_none_names_no_content() -> None:
    shown = {"_id": "5" * 24, FILE: [{"name": "a.txt", "size": 5, "url": "http://[::1"}]}
    assert follow_up(recording(), Desk({"data": []}, {"data": shown})).receipt.verified == "crc32"


def test_an_answer_without_the_attachment_is_asked_for() -> None:
    desk = Desk({"data": []}, {"data": {"_id": "5" * 24}}, {"data": record()})
    follow_up(recording(), desk)
    assert desk.called[2][0] == "data/get"


def test_a_record_that_does_not_show_the_file_is_told() -> None:
    with pytest.raises(Reject, match="does not show"):
        follow_up(recording(), Desk({"data": []}, {"data": record(size=6)}, {"data": record(size=6)}))


def test_nothing_is_written_when_the_hour_is_over() -> None:
    desk = Desk({"data": []})
    with pytest.raises(Restart, match="hour"):
        follow_up(recording(), desk, asked=str(int(NOW - 3600)))
    assert len(desk.called) == 1


@pytest.mark.parametrize("status", [400, 200])
def test_a_refusal_near_the_end_of_the_hour_is_taken_for_its_end(status: int) -> None:
    with pytest.raises(Restart, match="hour"):
        follow_up(recording(), Desk({"data": []}, trouble(17017, status)), asked=str(int(NOW - 3000)))
    with pytest.raises(Reject, match="code 17017"):
        follow_up(recording(), Desk({"data": []}, trouble(17017, status)), asked=str(int(NOW - 2900)))


def test_a_file_that_jiandaoyun_was_not_told_of_is_sent_again_unless_it_was_refused() -> None:
    desk = Desk()
    with pytest.raises(Restart, match="not told"):
        follow_up(recording(), desk, callback="failed")
    with pytest.raises(Reject, match=r"gives no key .*7216"):
        follow_up(recording(), desk, answer='{"code":7216,"msg":"full"}')
    assert desk.called == []


def test_without_a_record_an_answer_that_names_no_key_is_told() -> None:
    found = follow_up(broker(), Desk(), answer='{"code":7216,"msg":"full"}').receipt
    assert "answer" not in found.facts
    assert found.lacks.endswith('its application may not know of it: {"code":7216,"msg":"full"}')
    assert follow_up(broker(), Desk()).receipt.lacks == ""


# One record for a folder


def sharing(transaction: str = "{transaction}", **options: Any) -> Jiandaoyun:
    values = {"_widget_2": "{watch}/{folder}", "_widget_3": transaction, "_widget_4": "{name}"}
    return broker(attachment=FILE, record="per-folder", values=values, **options)


def desk_with(catalogued: Mapping[str, str], *answers: object) -> Desk:
    """A desk whose catalog has files, each in a record."""
    desk = Desk(*answers)
    desk.catalogued = {
        f"w/dir/{name}": Receipt(f"key of {name}", facts={"record": record}) for name, record in catalogued.items()
    }
    return desk


def shared(identity: str, *names: str, size: int = 5) -> dict[str, object]:
    """A record of the folder as it is told: the addresses say nothing of the files."""
    files = [{"name": name, "size": size, "url": "https://files.jiandaoyun.com/x?e=1"} for name in names]
    return {"_id": identity, "_widget_2": "w/dir", "_widget_3": "t", FILE: files}


def written(desk: Desk) -> tuple[str, str | None, list[str]]:
    what, body = desk.called[-1]
    return what, body.get("data_id"), body["data"][FILE]["value"]


def test_the_first_file_of_a_folder_makes_its_record() -> None:
    desk = Desk({"data": []}, {"data": shared("r", "a.txt")})
    assert follow_up(sharing(), desk).receipt.facts["record"] == "r"
    (_, search), (what, body) = desk.called
    assert {one["field"]: one["value"] for one in search["filter"]["cond"]} == {
        "_widget_2": ["w/dir"],
        "_widget_3": ["t"],
    }
    assert what == "data/create"
    assert body["transaction_id"] == "t"
    assert body["data"] == {
        "_widget_2": {"value": "w/dir"},
        "_widget_3": {"value": "t"},
        "_widget_4": {"value": "a.txt"},
        FILE: {"value": ["key 1"]},
    }


def test_a_later_file_is_written_with_all_that_are_to_stay() -> None:
    desk = desk_with({"d": "r0", "b": "r", "c": "r"}, {"data": [shared("r", "b", "c")]}, {"data": shared("r", "a.txt")})
    desk.catalogued["w/dir/e"] = Receipt("key of e")  # got no record
    follow_up(sharing(), desk)
    assert written(desk) == ("data/update", "r", ["key of b", "key of c", "key 1"])


def test_a_newer_version_takes_the_place_of_the_older_in_its_record() -> None:
    full = {f"{number}": "r" for number in range(9)}
    desk = desk_with({**full, "a.txt": "r", "z": "r2"}, {"data": []}, {"data": shared("r", "a.txt")})
    follow_up(sharing(), desk)
    assert written(desk) == ("data/update", "r", [*(f"key of {number}" for number in range(9)), "key 1"])


def test_a_full_record_is_left_for_another() -> None:
    desk = desk_with({f"{number}": "r" for number in range(10)}, {"data": []}, {"data": shared("r2", "a.txt")})
    assert follow_up(sharing(), desk).receipt.facts["record"] == "r2"
    assert written(desk) == ("data/create", None, ["key 1"])


@pytest.mark.parametrize("refusal", [trouble(4001), trouble(17017)])
def test_a_record_that_takes_no_more_is_left_for_another(refusal: Reply) -> None:
    desk = desk_with({"b": "r"}, {"data": []}, refusal, {"data": shared("r2", "a.txt")})
    assert follow_up(sharing(), desk).receipt.facts["record"] == "r2"
    assert written(desk) == ("data/create", None, ["key 1"])


def test_a_record_that_was_made_right_before_a_crash_is_found() -> None:
    desk = desk_with({"b": "r"}, {"data": [shared("r", "b"), shared("r2", "a.txt")]})
    assert follow_up(sharing(), desk).receipt.facts["record"] == "r2"


def test_a_record_that_was_made_for_another_file_right_before_a_crash_is_joined() -> None:
    desk = Desk({"data": [shared("r2", "b")]}, {"data": shared("r2", "b", "a.txt")})
    desk.catalogued = {"w/dir/a.txt": Receipt("key 1"), "w/dir/b": Receipt("key of b")}
    follow_up(sharing(), desk)
    assert written(desk) == ("data/update", "r2", ["key of b", "key 1"])


def test_a_record_of_files_that_nobody_here_sent_is_left_alone() -> None:
    desk = desk_with({}, {"data": [shared("r2", "b")]}, {"data": shared("r", "a.txt")})
    follow_up(sharing(), desk)
    assert written(desk) == ("data/create", None, ["key 1"])


def test_an_older_version_of_the_same_size_is_not_taken_for_this_one() -> None:
    desk = desk_with({"a.txt": "r"}, {"data": [shared("r", "a.txt")]}, {"data": shared("r", "a.txt")})
    follow_up(sharing(), desk)
    assert written(desk) == ("data/update", "r", ["key 1"])


def test_without_a_value_of_the_transaction_only_an_address_proves_a_record() -> None:
    made = sharing(transaction="")
    desk = Desk({"data": [shared("r", "a.txt") | {"_widget_3": ""}]}, {"data": shared("r2", "a.txt")})
    assert follow_up(made, desk).receipt.facts["record"] == "r2"
    found = {**shared("r"), "_widget_3": "", FILE: [{"name": "x", "size": 5, "url": "https://x/key%201"}]}
    found[FILE][0]["url"] = "https://x/key 1?e=1"
    assert follow_up(made, Desk({"data": [found]})).receipt.facts["record"] == "r"


def test_many_records_that_say_the_same_are_read_page_by_page() -> None:
    desk = Desk({"data": [shared(f"r{number}", "b") for number in range(100)]}, {"data": [shared("r", "a.txt")]})
    assert follow_up(sharing(), desk).receipt.facts["record"] == "r"
    assert desk.called[1][1]["data_id"] == "r99"


def test_the_files_of_a_folder_go_one_after_the_other() -> None:
    assert sharing().together(ASK) == "w/dir"
    assert recording().together(ASK) == "dir/a.txt"  # two versions of one file, or files of two watches


def test_records_that_cannot_be_found_again_are_warned_of() -> None:
    assert "{folder}" in "".join(broker(attachment=FILE, record="per-folder").warnings)
    assert "{path}" in "".join(broker(attachment=FILE).warnings)
    assert not sharing().warnings
    assert not recording().warnings
    assert not broker().warnings


TOML = """
[provider.forms]
broker = "jiandaoyun"
api_key = {{ env = "JDY_KEY" }}
app_id = "{app}"
entry_id = "59264073a2a60c0c08e20bfd"
{more}
"""


def options(app: str = "59264073a2a60c0c08e20bfb", more: str = "") -> settings.Jiandaoyun:
    provider = parse(TOML.format(app=app, more=more), "c.toml").provider["forms"]
    assert isinstance(provider, settings.Jiandaoyun)
    return provider


def test_a_configuration_with_no_word_about_records_writes_none() -> None:
    assert options().record_kind == "none"
    assert options(more='attachment = "_widget_1"').record_kind == "per-file"
    assert options(more='attachment = "_widget_1"\nrecord = "none"').record_kind == "none"


@pytest.mark.parametrize("text", ["${x}", "$(x)", "$(x}", "${x)", "pre$(x)post", "$$(x)", "${}"])
def test_text_that_qiniu_would_fill_in_is_refused(text: str) -> None:
    with pytest.raises(Failure, match=r"\[provider.forms.app_id\] must not hold"):
        options(text)


@pytest.mark.parametrize("text", ["ssd", "$x", "a$b{c}", "${open", "$ (x)"])
def test_text_that_only_looks_like_it_is_taken(text: str) -> None:
    assert options(text).app_id == text


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('record = "per-file"', "field for files"),
        ('attachment = "a"\nvalues = { b = "{pat}" }', "blank that is not known"),
        ('attachment = "a"\nvalues = { b = "{" }', "blank that is not known"),
        ('recrd = "none"', 'did you mean "record"'),
        ('record = "per-year"', '"per-file", "per-folder", "none"'),
        ('attachment = "a"\nrecord = "per-folder"\ntransaction = "per-file"', 'transaction = "shared"'),
    ],
)
def test_a_wrong_configuration_is_told(more: str, words: str) -> None:
    with pytest.raises(Failure, match=re.escape(words)):
        options(more=more)


@pytest.mark.parametrize(
    ("held", "given"),
    [
        ({}, True),
        ({"w/dir/a.txt": "key 1"}, True),
        ({"w/dir/a.txt": "a newer version's"}, False),
        ({"w/dir/a.txt": "key 1", "other/dir/a.txt": "another's"}, False),
        ({"w/dir/a.txt": "key 1", "w/dir/b.txt": "another's"}, True),  # their names differ
    ],
)
def test_a_link_is_renewed_from_what_can_be_no_other_files(held: dict[str, str], given: bool) -> None:
    desk = Desk({"data": record("an address that tells nothing")})
    facts = {"record": "5" * 24}
    desk.held = {place: Receipt(key, facts=facts) for place, key in held.items()}
    entry = Entry(1, "p", "key 1", "w", "dir/a.txt", Stamp(1, 5, 3, 4), NOW, facts=facts)
    link = asyncio.run(recording().link(entry, desk))
    assert (link is not None) == given
