"""A CareyShop and the storages behind it, the whole way: watched folder, daemon, shop, OSS, Qiniu, callback, catalog."""

import json
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest

from dumbwaiter.errors import Reauth, Verdict
from dumbwaiter.model import KIB, MIB, Receipt
from program import Program, digest
from sending import Sender

FORMS = ("careyshop", "careyshop-qiniu", "careyshop-aliyun")
KINDS = (*FORMS, "careyshop-sts")
DAY = 86400


def _drop(program: Program, watch: str, name: str, size: int) -> bytes:
    content = random.Random(f"{watch}/{name}/{size}").randbytes(size)
    program.drop = program.data / "drop" / watch
    program.write(name, content)
    return content


def _options(program: Program, **switches: dict[str, Any]) -> None:
    program.vendors.http.put("/_sandbox/options", json=switches).raise_for_status()


def _entries(program: Program) -> dict[str, dict[str, Any]]:
    return {entry["path"]: entry for entry in program.catalogued()}


def _names(program: Program) -> list[str]:
    """Returns what the files in the shop's own list are called there."""
    with Sender.of(program.vendors, "careyshop", program.config) as one:
        page = one.run(one.provider.broker.listing(None, one.provider))
    return [item.facts["name"] for item in page.items]


def _job(program: Program) -> dict[str, Any]:
    (job,) = program.facts("failed")
    return dict(job)


def _parts(program: Program) -> list[int]:
    return [one["part"] for one in program.vendors.log("part") if one["service"] == "oss" and one["status"] == 200]


@pytest.mark.parametrize("watch", KINDS)
def test_files_of_every_size_arrive_and_are_listed_in_the_shop(program: Program, watch: str) -> None:
    sizes = [0, 1, 2 * MIB] if watch in FORMS else [0, 1, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 12 * MIB]
    wanted = {f"a b {size}.bin": digest(_drop(program, watch, f"a b {size}.bin", size)) for size in sizes}
    program.start()
    assert program("wait", "--timeout", "30s").returncode == 0
    assert program.stored() == wanted
    for entry in _entries(program).values():
        assert entry["facts"]["storage_id"]
        assert entry["key"].startswith("uploads/files/")
        assert entry["key"].endswith(".bin")
        assert entry["verified"] in {"sha1", "crc64", "crc32", "qetag"}
        assert digest(program.vendors.http.get(entry["url"]).content) == wanted[entry["path"]]
    assert len([one for one in program.vendors.log("login") if one["service"] == "careyshop"]) == 1


def test_a_session_that_is_lost_costs_a_file_one_more_send(program: Program) -> None:
    program.vendors.faults("careyshop.upload:signed-out@1")
    content = _drop(program, "careyshop", "a.txt", 1000)
    program.start()
    assert program("wait").returncode == 0
    assert program.stored() == {"a.txt": digest(content)}
    assert len(program.vendors.log("upload")) == 2
    assert len(program.vendors.log("login")) == 2


@pytest.mark.parametrize(("seconds", "kind"), [(17 * 60, Receipt), (19 * 60, Reauth)])
def test_a_form_may_be_on_its_way_for_eighteen_minutes(program: Program, seconds: float, kind: type) -> None:
    path = program.folder / "a.txt"
    path.write_bytes(b"a")
    with Sender.of(program.vendors, "careyshop", path) as one:
        grant = one.obtain()
        assert grant.expires_at is not None
        program.vendors.advance(seconds)
        assert (time.time() + seconds < grant.expires_at) == (kind is Receipt)
        try:
            end: object = one.attempt()
        except Verdict as verdict:
            end = verdict
        assert type(end) is kind


def test_nobody_of_one_account_ends_the_session_of_another(program: Program) -> None:
    """Two providers that differ in their directory, and a look at both beside the running daemon."""
    (shop,) = re.findall(r"(\[provider.careyshop\]\n.*?\n)\n", program.config.read_text(), re.DOTALL)
    (watch,) = re.findall(r"(\[watch.careyshop\]\n.*?\n)\n", program.config.read_text() + "\n", re.DOTALL)
    second = [text.replace(".careyshop]", ".second]") for text in (shop, watch)]
    watch = second[1].replace('"careyshop"', '"second"').replace("drop/careyshop", "drop/second")
    (program.data / "drop/second").mkdir()
    program.config.write_text(f"{program.config.read_text()}\n{second[0]}parent = 7\n\n{watch}")
    program.start()
    for number in range(3):
        for one in ("careyshop", "second"):
            _drop(program, one, f"{number}.txt", 1000)
        assert program("wait").returncode == 0
        assert program("check", "--online").returncode == 0
    assert [one["status"] for one in program.vendors.log("upload")] == [200] * 6
    assert program.totals()["bytes_resent"] == 0
    assert len([one for one in program.vendors.log("login") if one["service"] == "careyshop"]) == 2 + 3 * 5


@pytest.mark.parametrize("watch", FORMS)
def test_a_file_beyond_the_limit_is_refused_with_both_numbers(program: Program, watch: str) -> None:
    _options(program, careyshop={"generation": 2})
    _drop(program, watch, "large.bin", 2 * MIB + 1)
    program.start()
    program("wait")
    assert "2097153 bytes; the provider takes 2097152 at most" in _job(program)["error"]
    assert not program.objects()


def test_a_suffix_that_the_shop_does_not_take_is_refused_before_a_byte(program: Program) -> None:
    _options(program, careyshop={"generation": 2})
    _drop(program, "careyshop", "script.php", 100)
    program.start()
    program("wait")
    assert "the provider does not take script.php" in _job(program)["error"]
    assert not program.vendors.log("upload")


def test_an_older_shop_says_itself_which_suffix_it_refuses(program: Program) -> None:
    _drop(program, "careyshop", "script.php", 100)
    program.start()
    program("wait")
    assert "上传文件后缀不允许" in _job(program)["error"]


def test_a_token_is_asked_for_once_and_used_for_many_files(program: Program) -> None:
    for number in range(20):
        _drop(program, "careyshop-aliyun", f"{number}.txt", 100)
    program.start()
    assert program("wait").returncode == 0
    assert len(program.vendors.log("token")) == 1
    assert program.totals()["done"] == 20


def test_the_shop_chooses_where_files_go_when_nobody_says(program: Program) -> None:
    _options(program, careyshop={"default_module": "aliyun"})
    content = _drop(program, "careyshop", "a.txt", 100)
    program.start()
    assert program("wait").returncode == 0
    assert _entries(program)["a.txt"]["facts"]["bucket"] == "careyshop-oss"
    assert program.stored() == {"a.txt": digest(content)}


@pytest.mark.parametrize(("watch", "fault"), [("careyshop-aliyun", "oss.post:203"), ("careyshop-sts", "oss.put:203")])
def test_a_failed_callback_is_told_and_nothing_is_sent_again(program: Program, watch: str, fault: str) -> None:
    program.vendors.faults(fault)
    content = _drop(program, watch, "a.txt", 1000)
    program.start()
    assert program("wait").returncode == 0
    assert program.stored() == {"a.txt": digest(content)}
    assert _entries(program)["a.txt"]["facts"]["callback"] == "failed"
    assert "its application may not know of it" in _job(program)["error"]
    assert len(program.vendors.log("post") + program.vendors.log("put")) == 1


def test_put_says_that_a_callback_failed_and_does_not_end_as_if_all_were_done(program: Program) -> None:
    program.vendors.faults("oss.post:203")
    _drop(program, "careyshop-aliyun", "a.txt", 1000)
    done = program("put", program.drop / "a.txt")
    assert done.returncode == 20
    assert "its application may not know of it" in done.stderr
    assert done.stdout.startswith("http"), "it is there, and has a link"


@pytest.mark.parametrize("watch", ["careyshop", "careyshop-qiniu"])
def test_an_app_is_given_a_form_where_there_is_nothing_else(program: Program, watch: str) -> None:
    text = program.config.read_text()
    program.config.write_text(text.replace(f"[provider.{watch}]", f'[provider.{watch}]\nterminal = "app"'))
    content = _drop(program, watch, "a.txt", 1000)
    assert program("put", program.drop / "a.txt").returncode == 0
    assert program.stored() == {"a.txt": digest(content)}


def test_a_callback_that_the_shop_answers_with_an_error_is_told(program: Program) -> None:
    program.vendors.faults("careyshop.callback:inner-error")
    _drop(program, "careyshop-aliyun", "a.txt", 1000)
    program.start()
    assert program("wait").returncode == 0
    assert _entries(program)["a.txt"]["facts"]["registered"] == "no"
    assert len(program.vendors.log("post")) == 1


def test_a_file_of_which_the_shop_does_not_know_is_not_deleted_here(program: Program) -> None:
    config = program.config.read_text()
    config = re.sub(r'(path = ".*/drop/careyshop-aliyun")', r'\1\nafter = "delete"', config)
    program.config.write_text(config)
    program.vendors.faults("oss.post:203@1")
    for name in ("a.txt", "b.txt"):
        _drop(program, "careyshop-aliyun", name, 1000)
        if name == "a.txt":
            program.start()
            assert program("wait").returncode == 0
    program.until(lambda: not (program.drop / "b.txt").exists())
    assert (program.drop / "a.txt").exists()
    assert _entries(program)["a.txt"]["facts"]["after"] == "kept: not all is done at the provider"
    job = _job(program)
    assert "! follow_up of careyshop-aliyun/a.txt: the provider has the file" in program("status").stdout
    assert program("failed").returncode == 20
    waited = program("wait")
    assert (waited.returncode, "1 file needs a person" in waited.stderr) == (0, True)
    assert "1 need a person" in program("status").stdout
    assert program("retry", "--all").returncode == 0
    assert program("retry", str(job["id"])).returncode == 1  # nothing here can do it
    assert program("failed").returncode == 20
    assert program("forget", str(job["id"])).returncode == 0
    assert program("failed").returncode == 0


def test_a_killed_upload_goes_on_with_the_parts_that_are_missing(program: Program) -> None:
    program.vendors.faults("latency=30ms")
    content = _drop(program, "careyshop-sts", "film.mov", 60 * MIB)
    program.start()
    program.until(lambda: len(_parts(program)) >= 6)
    program.kill()
    program.start()
    assert program("wait").returncode == 0
    assert program.stored() == {"film.mov": digest(content)}
    parts = _parts(program)
    assert set(parts) == set(range(1, 16))
    assert len(parts) <= 15 + 2 * 4  # those under way, side by side, and those whose answers were not journalled yet
    assert len(program.vendors.log("begin")) == 1
    assert not [one for one in program.vendors.log("list") if one["service"] == "oss"]


def test_credentials_that_end_in_the_middle_are_replaced_and_no_part_is_lost(program: Program) -> None:
    program.vendors.faults("latency=150ms")
    content = _drop(program, "careyshop-sts", "film.mov", 60 * MIB)
    program.start()
    program.until(lambda: len(_parts(program)) >= 5)
    program.vendors.advance(3700)  # past midnight at times: the key stays all the same
    assert program("wait").returncode == 0
    assert program.stored() == {"film.mov": digest(content)}
    assert set(_parts(program)) == set(range(1, 16))
    assert len(_parts(program)) <= 15 + 3  # an answer may be under way when another part is refused
    assert len(program.vendors.log("begin")) == 1
    assert len(program.vendors.log("token")) <= 3  # the leap made our clock wrong, and one call was signed with it


def test_a_policy_that_ended_is_replaced(program: Program) -> None:
    _options(program, careyshop={"token_life": 120})
    _drop(program, "careyshop-aliyun", "a.txt", 10)
    program.start()
    assert program("wait").returncode == 0
    program.vendors.advance(200)
    content = _drop(program, "careyshop-aliyun", "b.txt", 10)
    program.until(lambda: len(program.objects()) == 2)
    assert program("wait").returncode == 0
    assert program.stored()["b.txt"] == digest(content)
    assert len(program.vendors.log("token")) == 2


def test_a_folder_of_another_day_gets_another_key(program: Program) -> None:
    program.vendors.faults("oss.post:500@1")
    content = _drop(program, "careyshop-aliyun", "a.txt", 10)
    program.start()
    program.until(lambda: program.vendors.log("post"))
    program.vendors.advance(DAY)
    assert program("wait").returncode == 0
    assert program.stored() == {"a.txt": digest(content)}


@pytest.mark.parametrize(
    "call", [*(pytest.param(call, marks=pytest.mark.torture) for call in ("put", "begin", "part")), "complete"]
)
@pytest.mark.parametrize("cut", ["cut", "cut-within", "cut-after", "cut-reply"])
def test_no_cut_loses_or_doubles_an_object_of_oss(program: Program, call: str, cut: str) -> None:
    program.vendors.faults(f"oss.{call}:{cut}@1")
    content = _drop(program, "careyshop-sts", "film.mov", 1000 if call == "put" else 9 * MIB)
    program.start()
    assert program("wait").returncode == 0
    assert program.stored() == {"film.mov": digest(content)}
    assert program.objects() == [digest(content)]
    assert _entries(program)["film.mov"]["verified"] == "crc64"


@pytest.mark.parametrize("cut", ["cut", "cut-within", "cut-after", "cut-reply"])
def test_no_cut_doubles_a_file_on_the_shops_own_disk(program: Program, cut: str) -> None:
    program.vendors.faults(f"careyshop.upload:{cut}@1")
    content = _drop(program, "careyshop", "a.txt", 100 * KIB)
    program.start()
    assert program("wait").returncode == 0
    assert program.stored() == {"a.txt": digest(content)}
    assert program.objects() == [digest(content)]
    assert _entries(program)["a.txt"]["verified"] == "sha1"


@pytest.mark.parametrize("fault", ["", "careyshop.upload:cut-after@1"])
def test_a_name_that_older_shops_leave_out_of_the_signature_arrives_once(program: Program, fault: str) -> None:
    program.vendors.faults(fault)
    content = _drop(program, "careyshop", "@home.txt", 100)
    program.start()
    assert program("wait").returncode == 0
    assert program.stored() == {"@home.txt": digest(content)}
    assert program.objects() == [digest(content)]
    assert _entries(program)["@home.txt"]["verified"] == "sha1"
    assert _names(program) == ["@home.txt"]


@pytest.mark.parametrize("told", [True, False])
def test_after_a_lost_answer_of_qiniu_the_shops_list_says_whether_it_knows(program: Program, told: bool) -> None:
    program.vendors.faults("kodo.form:cut-after@1" + ("" if told else ",careyshop.callback:500"))
    content = _drop(program, "careyshop-qiniu", "a.txt", 1000)
    program.start()
    assert program("wait").returncode == 0
    assert program.stored() == {"a.txt": digest(content)}
    entry = _entries(program)["a.txt"]
    if told:
        assert entry["facts"]["storage_id"]
        assert program.vendors.http.get(entry["url"]).content == content
        assert program("failed").returncode == 0
    else:
        assert entry["facts"]["callback"] == "unknown"
        assert "its application may not know of it" in _job(program)["error"]


@pytest.mark.parametrize(
    ("watch", "size", "faults"),
    [
        ("careyshop-sts", 9 * MIB, "oss.part:bad-crc@1,oss.part:no-upload@3"),
        ("careyshop-sts", 9 * MIB, "oss.complete:no-part@1"),
        ("careyshop-sts", 9 * MIB, "oss.part:expired@2,oss.complete:expired@1,oss.begin:late@1"),
        ("careyshop-sts", 9 * MIB, "oss.part:503@1x2,oss.part:html@3,oss.complete:500@1"),
        ("careyshop-aliyun", 1000, "oss.post:bad-policy@1,oss.post:503@2,oss.post:cut-within@3"),
        ("careyshop", 1000, "careyshop.upload:signed-out@1,careyshop.token:truncated@1,careyshop.login:inner-error@1"),
        ("careyshop-qiniu", 1000, "careyshop.token:signed-out@1,careyshop.token:html@2,careyshop.token:502@3"),
    ],
)
def test_trouble_passes(program: Program, watch: str, size: int, faults: str) -> None:
    program.vendors.faults(faults)
    content = _drop(program, watch, "film.mov", size)
    program.start()
    assert program("wait", "--timeout", "40s").returncode == 0
    assert program.stored() == {"film.mov": digest(content)}
    assert set(program.objects()) == {digest(content)}


def test_a_clock_that_is_wrong_is_set_right_by_the_first_answer(program: Program) -> None:
    program.vendors.advance(1200)
    content = _drop(program, "careyshop-sts", "film.mov", 9 * MIB)
    program.start()
    assert program("wait").returncode == 0
    assert program.stored() == {"film.mov": digest(content)}


def test_a_new_bucket_takes_signatures_of_version_4(program: Program) -> None:
    _options(program, oss={"v1": False})
    text = program.config.read_text()
    program.config.write_text(text.replace('addressing = "path"', 'addressing = "path"\nsignature = "v4"'))
    content = _drop(program, "careyshop-sts", "film.mov", 9 * MIB)
    program.start()
    assert program("wait").returncode == 0
    assert program.stored() == {"film.mov": digest(content)}


def test_an_account_without_the_right_is_said_so(program: Program) -> None:
    _options(program, careyshop={"right": False})
    _drop(program, "careyshop", "a.txt", 10)
    program.start()
    program.until(lambda: _blocked(program))
    assert len(program.vendors.log("login")) <= 2
    told = program("failed")
    assert told.returncode == 20
    assert "careyshop, for 1 file: " in told.stdout
    assert "权限不足" in told.stdout
    (account,) = program.facts("failed")
    assert (account["id"], account["provider"], account["pending"]) == (None, "careyshop", 1)
    assert "权限不足" in account["error"]


def _blocked(program: Program) -> bool:
    (shop,) = [one for one in program.status()["providers"] if one["name"] == "careyshop"]
    return shop["state"] == "blocked" and "权限不足" in json.dumps(shop, ensure_ascii=False)


def test_a_file_that_changes_while_it_is_sent_goes_up_in_its_new_version(program: Program) -> None:
    program.vendors.faults("latency=150ms")
    old = _drop(program, "careyshop-sts", "film.mov", 40 * MIB)
    program.start()
    program.until(lambda: len(_parts(program)) >= 3)
    new = random.Random(9).randbytes(9 * MIB)
    Path(program.drop / "film.mov").write_bytes(new)
    assert program("wait").returncode == 0
    assert program.stored() == {"film.mov": digest(new)}
    assert set(program.objects()) <= {digest(old), digest(new)}


def test_no_key_of_the_account_is_kept(program: Program) -> None:
    program.vendors.faults("latency=30ms")
    for watch in KINDS:
        _drop(program, watch, "a.txt", 100)
    _drop(program, "careyshop-sts", "film.mov", 40 * MIB)
    program.start()
    program.until(lambda: len(_parts(program)) >= 3)
    program.kill()
    secrets = [program.vendors.sandbox.accounts["careyshop"][name].encode() for name in ("app_secret", "password")]
    for path in [program.log, *(one for one in program.state.rglob("*") if one.is_file())]:
        content = path.read_bytes()
        for secret in (*secrets, b"CAIS", b"STS."):
            assert secret not in content, path


# The shop's own list


def _plant(program: Program, **what: Any) -> str:
    """Has somebody else put a file into the shop; returns its key."""
    reply = program.vendors.http.post("/_sandbox/plant", json={"vendor": "careyshop", **what})
    reply.raise_for_status()
    return str(reply.json().get("key"))


def _listed(program: Program) -> dict[str, dict[str, Any]]:
    return {entry["key"]: entry for entry in program.facts("ls", "keys/careyshop")}


def _number(entry: dict[str, Any]) -> int:
    return int(entry["facts"]["storage_id"])


@pytest.mark.parametrize("generation", [1, 2])
def test_what_others_put_into_the_shop_is_listed_beside_what_is_ours(program: Program, generation: int) -> None:
    _options(program, careyshop={"generation": generation})
    content = _drop(program, "careyshop", "mine.jpg", 1000)
    keys = [_plant(program, path=path, content=path) for path in ("root.txt", "banner/2018/a b.jpg", "banner/c.jpg")]
    program.start()
    assert program("wait").returncode == 0
    done = program("sync", "--remote", "careyshop")
    assert (done.returncode, done.stdout) == (0, "careyshop: 4 listed, 3 new, 0 gone\n"), done.stderr
    listed = _listed(program)
    assert len(listed) == 4
    assert set(keys) < set(listed)
    (mine,) = (entry for entry in listed.values() if entry["watch"])
    assert (mine["path"], mine["verified"]) == ("mine.jpg", "sha1")
    other = listed[keys[1]]
    assert (other["watch"], other["path"], other["facts"]["name"]) == (None, None, "a b.jpg")
    assert program("cat", f"keys/careyshop/{keys[1]}").stdout == "banner/2018/a b.jpg"
    assert program("link", f"keys/careyshop/{keys[1]}").stdout == f"{other['url']}\n"
    markdown = program("link", "--format", "markdown", f"keys/careyshop/{keys[1]}").stdout
    assert markdown == f"![a b.jpg]({other['url']})\n"
    assert program("status", f"keys/careyshop/{keys[1]}").stdout.startswith(
        f"careyshop/{keys[1]}: not uploaded from here; listed by careyshop\n"
    )
    assert [entry["path"] for entry in program.facts("history")] == ["mine.jpg"]
    assert program.stored() == {"mine.jpg": digest(content)}
    assert program.totals()["done"] == 1


def test_what_vanished_from_the_shop_goes_and_what_is_ours_is_marked_and_not_sent_again(program: Program) -> None:
    _drop(program, "careyshop", "mine.txt", 10)
    _plant(program, path="other.txt", content="x")
    program.start()
    assert program("wait").returncode == 0
    assert program("sync", "--remote").returncode == 0  # with no name: all, and other providers of this shop
    listed = _listed(program)
    assert {entry["path"] for entry in listed.values()} == {"mine.txt", None}
    _plant(program, remove=[_number(entry) for entry in listed.values()])
    done = program("sync", "--remote", "careyshop")
    assert done.stdout == "careyshop: 0 listed, 0 new, 1 gone, 1 of ours no longer listed\n"
    (mine,) = _listed(program).values()
    assert mine["path"] == "mine.txt"
    assert mine["unlisted_at"] >= mine["stored_at"]
    assert program("rescan").returncode == 0
    assert program("wait").returncode == 0
    assert len(program.vendors.log("upload")) == 1


def test_a_long_list_comes_by_pages_and_goes_on_where_it_broke_off(program: Program) -> None:
    _plant(program, path="many.txt", content="x", times=450)
    _plant(program, path="folder/inner.txt", content="y")
    program.vendors.faults("careyshop.list:500@2")
    done = program("sync", "--remote", "careyshop", "--json")  # no daemon runs
    assert done.returncode == 5
    assert [one["whole"] for one in json.loads(done.stdout)] == [False]
    assert "goes on where this one came to" in done.stderr
    assert len(_listed(program)) == 200
    before = len(program.vendors.log("list"))
    program.vendors.faults("")
    (told,) = program.facts("sync", "--remote", "careyshop")
    assert (told["listed"], told["new"], told["gone"], told["whole"]) == (251, 251, 0, True)
    assert len(_listed(program)) == 451
    assert len(program.vendors.log("list")) - before == 3


def test_a_file_deleted_while_the_list_is_read_makes_no_other_one_vanish(program: Program) -> None:
    _plant(program, path="many.txt", content="x", times=401)
    assert program("sync", "--remote", "careyshop").returncode == 0
    program.vendors.faults("careyshop.list:shrinks@1x2")
    assert program("sync", "--remote", "careyshop").returncode == 0
    assert len(_listed(program)) == 401  # what was met and then deleted stays until the next time
    program.vendors.faults("")
    assert program("sync", "--remote", "careyshop").stdout == "careyshop: 399 listed, 0 new, 2 gone\n"


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("no-permission", 21, "does not let this account"),
        ("truncated", 5, "not the expected JSON"),
        ("inner-error", 5, "异常错误"),
        ("html", 5, "not the expected JSON"),
    ],
)
def test_a_list_that_cannot_be_had_is_said_and_takes_nothing_away(
    program: Program, fault: str, code: int, words: str
) -> None:
    _plant(program, path="a.txt", content="x")
    assert program("sync", "--remote", "careyshop").returncode == 0
    program.vendors.faults(f"careyshop.list:{fault}")
    done = program("sync", "--remote", "careyshop")
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert len(_listed(program)) == 1


def test_sync_says_what_it_needs(program: Program) -> None:
    assert "say --remote" in program("sync").stderr
    assert "there is no provider" in program("sync", "--remote", "shop").stderr
    done = program("sync", "--remote", "netease")
    assert (done.returncode, "netease gives no list" in done.stderr) == (2, True)


def test_the_daemon_reads_the_list_by_itself_where_told(program: Program) -> None:
    text = program.config.read_text()
    program.config.write_text(text.replace("[provider.careyshop]", '[provider.careyshop]\nrefresh = "6h"', 1))
    key = _plant(program, path="a.txt", content="x")
    program.vendors.faults("careyshop.list:502@1")
    program.start()
    program.until(lambda: program("ls", f"keys/careyshop/{key}").returncode == 0)
    assert [one["provider"] for one in program.facts("ls", "keys")] == ["careyshop"]
    program.until(lambda: '"list read"' in program.log.read_text() or "list read" in program.log.read_text())
    lists = len(program.vendors.log("list"))
    assert program.stop() == 0
    program.start()
    assert program("wait").returncode == 0
    assert len(program.vendors.log("list")) == lists  # it is not time yet
