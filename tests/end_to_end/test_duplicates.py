"""The same content under several names."""

import time
from collections import Counter

import httpx

from dumbwaiter.wire import nos
from program import Program


def keys(program: Program) -> dict[str, str]:
    return {entry["path"]: entry["key"] for entry in program.catalogued()}


def upload(program: Program, name: str, content: bytes) -> None:
    done = program.totals()["done"]
    program.write(name, content)
    program.until(lambda: program.totals()["done"] == done + 1)


def remove(program: Program, vid: str) -> None:
    """Deletes a video at the vendor, as its owner does on the web."""
    account = program.vendors.sandbox.accounts["netease"]
    seconds = str(int(time.time()))
    answer = httpx.post(
        f"{program.vendors.sandbox.urls['vod']}/app/vod/video/videoDelete",
        headers={
            "AppKey": account["app_key"],
            "Nonce": "removal",
            "CurTime": seconds,
            "CheckSum": nos.checksum(account["app_secret"], "removal", seconds),
        },
        json={"vid": int(vid)},
        trust_env=False,
    )
    assert answer.json()["code"] == 200, answer.text


def test_a_copy_and_a_renamed_file_become_names_of_one_object(program: Program) -> None:
    content = b"film" * 1000
    program.start()
    upload(program, "film.mov", content)
    sent = program.totals()["bytes_sent"]
    upload(program, "copy/of film.mov", content)
    asked = Counter(one["call"] for one in program.vendors.log())
    (program.drop / "film.mov").rename(program.drop / "renamed.mov")
    program.until(lambda: program.totals()["done"] == 3)
    more = Counter(one["call"] for one in program.vendors.log()) - asked
    assert more == {"query": 1, "get": 2}  # is it listed, is it there, what does the vendor say of it
    upload(program, "other.mov", b"else" * 1000)
    found = keys(program)
    assert len({found[name] for name in ("film.mov", "copy/of film.mov", "renamed.mov")}) == 1
    assert found["other.mov"] != found["film.mov"]
    assert program.totals()["bytes_sent"] == sent + 4000
    assert len(program.objects()) == 2
    assert len(set(program.stored().values())) == 2


def test_an_object_that_the_vendor_lost_is_sent_again(program: Program) -> None:
    """The catalog's word is not enough: another hand may have removed the object."""
    content = b"film" * 1000
    program.start()
    upload(program, "film.mov", content)
    remove(program, program.catalogued()[0]["facts"]["vid"])
    upload(program, "copy.mov", content)
    found = keys(program)
    assert found["copy.mov"] != found["film.mov"]


def test_a_file_is_sent_where_its_twin_may_not_be_asked_for(program: Program) -> None:
    content = b"film" * 1000
    program.start()
    upload(program, "film.mov", content)
    program.vendors.faults("vod.query:code-400@1")
    upload(program, "copy.mov", content)
    found = keys(program)
    assert found["copy.mov"] != found["film.mov"]


def test_an_object_that_is_listed_and_gone_is_sent_again(program: Program) -> None:
    """VOD's list keeps what was taken out of the bucket."""
    content = b"film" * 1000
    program.start()
    upload(program, "film.mov", content)
    (entry,) = program.catalogued()
    (program.data / "objects" / entry["facts"]["bucket"] / entry["key"]).unlink()
    upload(program, "copy.mov", content)
    assert keys(program)["copy.mov"] != entry["key"]


def test_duplicates_are_sent_where_the_watch_says_so(program: Program) -> None:
    text = program.config.read_text()
    program.config.write_text(text.replace("[watch.netease]\n", '[watch.netease]\nduplicates = "send"\n'))
    program.start()
    upload(program, "film.mov", b"film" * 1000)
    upload(program, "copy.mov", b"film" * 1000)
    assert len(set(keys(program).values())) == 2
    assert program.totals()["bytes_sent"] == 8000


def test_a_file_that_a_person_has_sent_again_is_sent_however_many_share_its_object(program: Program) -> None:
    """As when that object turned out to be damaged: to link to it once more would be no help."""
    program.start()
    for name in ("film.mov", "a.mov", "b.mov", "c.mov"):
        upload(program, name, b"film" * 1000)
    before = keys(program)
    assert len(set(before.values())) == 1
    assert program("put", "--again", program.drop / "film.mov").returncode == 0
    assert keys(program)["film.mov"] != before["film.mov"]
