"""Jimeng and Dreamina: what is dropped arrives whole and is committed once, whatever breaks on the way."""

import random
import struct
from pathlib import Path
from typing import Any

import pytest

from dumbwaiter.model import MIB
from program import Program, digest

PART = 20 * MIB


@pytest.fixture(params=["jimeng", "dreamina"])
def site(request: pytest.FixtureRequest, program: Program) -> Program:
    """The program with the folder of one of the two services."""
    return at(program, request.param)


@pytest.fixture
def jimeng(program: Program) -> Program:
    return at(program, "jimeng")


def at(program: Program, name: str) -> Program:
    program.drop = program.data / "drop" / name
    return program


def switch(program: Program, **switches: Any) -> None:
    program.vendors.http.put("/_sandbox/options", json={"jimeng": switches}).raise_for_status()


def done(program: Program) -> bool:
    return program("wait", "--timeout", "50s").returncode == 0


def sent(program: Program) -> int:
    return sum(one["received"] for one in program.vendors.log() if one["call"] in {"put", "part"})


def uris(program: Program) -> list[str]:
    return [uri for one in program.vendors.log("apply") for uri in one.get("uris", [])]


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height) + b"\x08\x02\0\0\0" + b"\0" * 50


def test_files_of_every_size_arrive_at_both_services(site: Program) -> None:
    contents = {
        f"{length}.bin": random.Random(length).randbytes(length)
        for length in (1, 1000, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 1)
    }
    site.start()
    for name, content in contents.items():
        site.write(name, content)
    assert done(site)
    assert site.stored() == {name: digest(content) for name, content in contents.items()}
    for entry in site.catalogued():
        assert entry["url"] is None
        assert entry["verified"] == "crc32"
        assert entry["facts"]["uri"] == f"{entry['facts']['bucket']}/{entry['key']}"
    assert len(site.vendors.log("token")) == 1


def test_that_there_is_no_way_back_is_said_with_and_without_a_daemon(jimeng: Program) -> None:
    path = jimeng.write("picture.bin", b"picture")
    jimeng.start()
    assert done(jimeng)
    told = "dumbwaiter: jimeng/picture.bin: the provider gives no way to read it back\n"
    path.unlink()
    for words in (["link", "jimeng/picture.bin"], ["cat", "jimeng/picture.bin"]):
        assert (jimeng(*words).returncode, jimeng(*words).stderr) == (1, told)
    assert jimeng("verify", "jimeng").returncode == 0
    jimeng.stop()
    for words in (["link", "jimeng/picture.bin"], ["cat", "jimeng/picture.bin"]):
        assert (jimeng(*words).returncode, jimeng(*words).stderr) == (1, told)
    assert jimeng("verify", "jimeng").returncode == 0


def test_a_picture_is_described(jimeng: Program) -> None:
    jimeng.start()
    jimeng.write("相册/照片 1.png", png(640, 480))
    assert done(jimeng)
    (entry,) = jimeng.catalogued()
    facts = entry["facts"]
    assert (facts["width"], facts["height"], facts["format"]) == ("640", "480", "png")


def test_an_empty_file_is_refused_before_anything_is_asked(jimeng: Program) -> None:
    jimeng.start()
    path = jimeng.write("empty.bin", b"")
    assert jimeng("wait").returncode == 20
    assert "0 bytes; ImageX takes no empty file" in jimeng("status", str(path)).stdout
    assert jimeng.vendors.log("token") == []


@pytest.mark.parametrize("multipart", ["gateway", "plain", "v1"])
def test_a_kill_costs_no_part_that_was_acknowledged(jimeng: Program, multipart: str) -> None:
    text = jimeng.config.read_text()
    jimeng.config.write_text(text.replace('broker = "jimeng"\n', f'broker = "jimeng"\nmultipart = "{multipart}"\n'))
    content = random.Random(7).randbytes(6 * PART + 12345)
    jimeng.vendors.faults("latency=200ms,tos.part:slow=60m")
    jimeng.start()
    jimeng.write("film.mov", content)
    jimeng.until(lambda: any(job["sent"] for job in jimeng.status()["jobs"]))
    jimeng.kill()
    jimeng.vendors.faults("")
    before = sum(one["received"] for one in jimeng.vendors.log("part") if one["status"] == 200)
    jimeng.start()
    assert done(jimeng)
    assert jimeng.stored() == {"film.mov": digest(content)}
    assert before >= PART
    # Of the four parts on the wire at most three were whole and not yet noted.
    whole = sum(one["received"] for one in jimeng.vendors.log("part") if one["status"] == 200)
    assert whole - len(content) <= 3 * PART
    assert len(uris(jimeng)) == 1


# What may go wrong with any vendor; tests/transports and tests/brokers try it at every step, without a daemon.
ANYWHERE = [
    "tos.put:cut@1",
    "tos.put:cut-within@1",
    "tos.put:cut-after@1",
    "tos.put:cut-reply@1",
    "tos.put:500@1x2",
    "tos.put:html@1",
    "tos.put:empty@1",
    "tos.init:cut-after@1",
    "tos.part:cut@2",
    "tos.part:cut-within@2",
    "tos.part:cut-after@2",
    "tos.part:cut-reply@2",
    "tos.merge:cut@1",
    "tos.merge:cut-after@1",
    "tos.merge:cut-reply@1",
    "imagex.apply:cut-after@1",
    "imagex.apply:500@1",
    "imagex.commit:cut@1x2",
    "imagex.commit:cut-after@1",
    "imagex.commit:cut-reply@1",
    "jimeng.token:cut@1",
    "jimeng.token:500@1",
]
FAULTS = [
    "tos.put:crc-refused@1",
    "tos.put:crc-echo@1",
    "tos.put:trouble-inside@1",
    "tos.part:crc-echo@1",
    "tos.part:503@1,tos.list:500@1",
    "tos.part:cut@2,tos.list:list-less@1",
    "tos.part:cut@2,tos.list:list-other@1",
    "tos.part:cut@2,tos.list:list-more@1",
    "tos.part:cut@2,tos.list:upload-gone@1",
    "tos.part:upload-gone@2",
    "tos.merge:merge-mismatch@1",
    "tos.merge:cut-after@1,tos.merge:in-merge@2",
    "tos.merge:upload-gone@1",
    "imagex.apply:flow-limit@1",
    "imagex.apply:busy-inside@1",
    "imagex.apply:keys-expired@1",
    "imagex.apply:signature-wrong@1",
    "imagex.apply:clock-wrong@1",
    "imagex.commit:keys-expired@1",
    "imagex.commit:busy-inside@1",
    "imagex.commit:uri-untold@1",
    "imagex.commit:no-results@1",
    "imagex.commit:plugin-text",
    "jimeng.token:packed-unasked@1",
    "tos1.*:down",
]


@pytest.mark.parametrize("faults", [*FAULTS, *(pytest.param(one, marks=pytest.mark.torture) for one in ANYWHERE)])
@pytest.mark.slow
def test_a_fault_loses_nothing_and_is_got_over_with_one_permission(jimeng: Program, faults: str) -> None:
    small, large = png(3, 4), random.Random(8).randbytes(2 * PART + 77)
    jimeng.vendors.faults(f"seed=3,{faults}")
    jimeng.start()
    jimeng.write("small.png", small)
    jimeng.write("large.mov", large)
    assert done(jimeng)
    assert jimeng.stored() == {"small.png": digest(small), "large.mov": digest(large)}
    assert len(jimeng.objects()) == 2
    assert len(uris(jimeng)) <= 3  # an answer to the application that was lost leaves one unused


@pytest.mark.parametrize("faults", ["imagex.commit:uri-failed@1", "tos.put:auth-expired@1", "tos.part:auth-expired@2"])
def test_a_lost_permission_is_replaced(jimeng: Program, faults: str) -> None:
    small, large = png(3, 4), random.Random(8).randbytes(2 * PART + 77)
    jimeng.vendors.faults(faults)
    jimeng.start()
    jimeng.write("small.png", small)
    jimeng.write("large.mov", large)
    assert done(jimeng)
    assert jimeng.stored() == {"small.png": digest(small), "large.mov": digest(large)}
    assert len(uris(jimeng)) == 3


def test_keys_and_permission_that_expire_in_the_middle_are_replaced(jimeng: Program) -> None:
    switch(jimeng, auth_life=5000, keys_life=4000)
    content = random.Random(9).randbytes(4 * PART)
    jimeng.vendors.faults("latency=100ms,tos.part:slow=40m")
    jimeng.start()
    jimeng.write("film.mov", content)
    jimeng.until(lambda: any(job["sent"] for job in jimeng.status()["jobs"]))
    jimeng.vendors.advance(6000)
    jimeng.vendors.faults("")
    assert done(jimeng)
    assert jimeng.stored() == {"film.mov": digest(content)}
    assert len(uris(jimeng)) == 2
    assert len(jimeng.vendors.log("token")) == 2


def test_a_kill_between_upload_and_commit_sends_no_byte_again(jimeng: Program) -> None:
    content = random.Random(10).randbytes(2 * PART + 1)
    jimeng.vendors.faults("imagex.commit:stall@1")
    jimeng.start()
    jimeng.write("film.mov", content)
    jimeng.until(lambda: jimeng.vendors.log("commit"))
    jimeng.kill()
    jimeng.start()
    assert done(jimeng)
    assert jimeng.stored() == {"film.mov": digest(content)}
    assert sent(jimeng) == len(content)
    assert len(uris(jimeng)) == 1


def test_a_changed_file_goes_up_in_its_new_version_and_the_old_one_is_never_committed(jimeng: Program) -> None:
    numbers = random.Random(11)
    old, new = numbers.randbytes(4 * PART), numbers.randbytes(5000)
    jimeng.vendors.faults("latency=100ms,tos.part:slow=40m")
    jimeng.start()
    path = jimeng.write("film.mov", old)
    jimeng.until(lambda: jimeng.vendors.log("part"))
    path.write_bytes(new)
    jimeng.vendors.faults("")
    assert done(jimeng)
    assert jimeng.stored() == {"film.mov": digest(new)}
    assert jimeng.objects() == [digest(new)]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("ret-login", "log in again and put the new sessionid into refresh_token"),
        ("ret-risk", "takes us for a robot"),
        ("ret-sign", "refuses to give an upload token (ret 1014: sign error)"),
    ],
)
def test_a_refused_account_pauses_the_provider_with_a_remedy(jimeng: Program, fault: str, words: str) -> None:
    jimeng.vendors.faults(f"jimeng.token:{fault}")
    jimeng.start()
    jimeng.write("a.bin", b"a")
    jimeng.until(lambda: provider(jimeng)["state"] == "blocked")
    assert words in provider(jimeng)["error"]
    assert len(jimeng.vendors.log("token")) == 1
    jimeng.vendors.faults("")
    assert jimeng("retry", "--all").returncode == 0
    assert done(jimeng)
    assert jimeng.objects() == [digest(b"a")]


def provider(program: Program) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in program.status()["providers"] if one["name"] == "jimeng")
    return found


@pytest.mark.parametrize(
    "switches",
    [
        {"reply": "flat"},
        {"reply": "numeric"},
        {"service_id": False, "expired_time": "number"},
        {"space_name": False, "expired_time": "rfc3339"},
        {"service_id": False, "space_name": False, "upload_domain": False, "region": False, "expired_time": "missing"},
        {"gzip": True, "upload_header": "object", "lists_crc": False},
        {"upload_header": "list", "list_numbers": "number"},
    ],
)
def test_every_way_to_answer_is_understood(site: Program, switches: dict[str, Any]) -> None:
    content = random.Random(12).randbytes(PART + 1)
    switch(site, **switches)
    site.vendors.faults("tos.part:cut@1")
    site.start()
    site.write("a.bin", content)
    assert done(site)
    assert site.stored() == {"a.bin": digest(content)}


def test_the_api_is_where_signing_in_says(jimeng: Program) -> None:
    text = jimeng.config.read_text()
    jimeng.config.write_text("".join(line for line in text.splitlines(True) if not line.startswith("imagex = ")))
    jimeng.start()
    jimeng.write("a.bin", b"a")
    assert done(jimeng)
    assert jimeng.objects() == [digest(b"a")]


def test_no_secret_is_left_anywhere_and_a_foreign_address_is_warned_of(site: Program, tmp_path: Path) -> None:
    site.start()
    site.write("a.bin", b"a")
    site.write("b.bin", b"b" * (PART + 1))
    assert done(site)
    assert site.stop() == 0
    account = site.vendors.sandbox.accounts["jimeng"]
    log = site.log.read_bytes()
    kept = {path: path.read_bytes() for path in site.state.rglob("*") if path.is_file()}
    for secret in (account["session_cn"].encode(), account["session_us"].encode(), b"STS2", b"AKTP", b"SpaceKey/"):
        assert secret not in log
        assert not [path for path, content in kept.items() if secret in content], secret
    assert log.count(b"is not Jimeng's own") == 2  # one for each of the two providers
