"""Files dropped for Jiandaoyun become attachments of records, whatever happens on the way."""

import random
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from dumbwaiter.model import MIB
from dumbwaiter_sandbox.jiandaoyun import ACCOUNT, ATTACHMENT, FIELDS
from program import Program, digest

_, PATH, SIZE, HASH = FIELDS
PART = 4 * MIB


@pytest.fixture
def forms(tmp_path: Path) -> Iterator[Program]:
    with Program(tmp_path) as made:
        made.drop = made.data / "drop/jiandaoyun"
        yield made


def options(forms: Program, vendor: str = "jiandaoyun", **switches: Any) -> None:
    forms.vendors.http.put("/_sandbox/options", json={vendor: switches}).raise_for_status()


def listed(forms: Program) -> Any:
    """Returns the records of the form."""
    reply = httpx.post(
        f"{forms.vendors.sandbox.urls['forms']}/api/v5/app/entry/data/list",
        headers={"authorization": f"Bearer {ACCOUNT['api_key']}"},
        json={"app_id": ACCOUNT["app_id"], "entry_id": ACCOUNT["entry_id"], "limit": 100},
        trust_env=False,
    )
    return reply.json()["data"]


def records(forms: Program) -> dict[str, Any]:
    """Returns the records of the form by path; a path that stands twice is an error."""
    found = listed(forms)
    by_path = {record[PATH]: record for record in found}
    assert len(by_path) == len(found)
    return by_path


def failure(forms: Program) -> str:
    """Returns why the one job that needs a person does."""
    (job,) = forms.facts("failed")
    return str(job["error"])


def read(record: dict[str, Any]) -> str:
    (attached,) = record[ATTACHMENT]
    return digest(httpx.get(attached["url"], trust_env=False).content)


def drop(forms: Program, name: str, size: int, seed: int = 0) -> str:
    content = random.Random(f"{size}/{seed}").randbytes(size)
    forms.write(name, content)
    return digest(content)


def sent(forms: Program) -> int:
    return sum(one["received"] for call in ("part", "form") for one in forms.vendors.log(call))


def test_files_of_one_path_in_two_watches_keep_to_themselves(forms: Program) -> None:
    second = forms.data / "drop/second"
    second.mkdir()
    with open(forms.config, "a") as file:
        file.write(f'\n[watch.second]\npath = "{second}"\nprovider = "jiandaoyun"\n')
    forms.start()
    first = forms.drop
    for folder, content in ((first, b"1st older"), (first, b"first one"), (second, b"the other")):
        forms.drop = folder
        forms.write("a/report.txt", content)
        assert forms("wait").returncode == 0
    forms.drop = first
    shown = [record[ATTACHMENT][0]["url"] for record in listed(forms)]
    assert sorted(httpx.get(url, trust_env=False).content for url in shown) == [b"first one", b"the other"]
    assert forms.stop() == 0
    with closing(sqlite3.connect(forms.state / "journal.db")) as journal, journal:  # the links' fifteen days are over
        journal.execute("UPDATE entries SET url = substr(url, 1, instr(url, '?e=') + 2) || '1'")
        ((older,),) = journal.execute("SELECT key FROM entries WHERE NOT current")
    for folder in (first, second):
        (folder / "a/report.txt").unlink()
    forms.start()
    assert forms("cat", "jiandaoyun/a/report.txt").stdout == "first one"
    assert forms("cat", "second/a/report.txt").stdout == "the other"
    assert forms("cat", f"keys/jiandaoyun/{older}").stdout == ""


def test_each_file_is_the_attachment_of_a_record_of_its_own(forms: Program) -> None:
    forms.start()
    wanted = {
        f"dir/文件 {size}.bin": drop(forms, f"dir/文件 {size}.bin", size) for size in (1, PART, PART + 1, 9 * MIB)
    }
    assert forms("wait").returncode == 0
    found = records(forms)
    assert {path: read(record) for path, record in found.items()} == wanted == forms.stored()
    entries = {entry["path"]: entry for entry in forms.catalogued()}
    for path, record in found.items():
        assert record[SIZE] == entries[path]["size"]
        assert record[HASH] == entries[path]["etag"]
        assert record[ATTACHMENT][0]["name"] == path.rpartition("/")[2]
        assert entries[path]["facts"]["record"] == record["_id"]
    assert {entry["verified"] for entry in entries.values()} == {"crc32", "md5"}
    assert all(one["fields"][-1] == "file" for one in forms.vendors.log("form"))


def test_one_call_brings_the_tokens_for_many_files(forms: Program) -> None:
    for number in range(60):
        drop(forms, f"file {number}.txt", 100, number)
    forms.start()
    assert forms("wait").returncode == 0
    assert len(forms.vendors.log("token")) == 1
    assert len(records(forms)) == 60
    assert len({one["key"] for one in forms.vendors.log("form")}) == 60


def test_what_the_token_does_not_take_is_told_before_a_byte_is_sent(forms: Program) -> None:
    options(forms, size_max=1000)
    forms.start()
    drop(forms, "empty.txt", 0)
    drop(forms, "large.txt", 1001)
    drop(forms, "fits.txt", 1000)
    assert forms("wait").returncode == 20
    told = forms("failed").stdout
    assert "empty.txt has 0 bytes; the provider wants 1 at least" in told
    assert "large.txt has 1001 bytes; the provider takes 1000 at most" in told
    assert set(records(forms)) == {"fits.txt"}
    assert len(forms.vendors.log("form")) == 1


def test_another_version_of_a_file_takes_its_place_in_the_record(forms: Program) -> None:
    forms.start()
    drop(forms, "plan.txt", 500, 1)
    assert forms("wait").returncode == 0
    first = records(forms)["plan.txt"]["_id"]
    wanted = drop(forms, "plan.txt", 500, 2)
    forms.until(lambda: read(records(forms)["plan.txt"]) == wanted)
    assert records(forms)["plan.txt"]["_id"] == first


def test_an_older_version_that_ends_late_does_not_take_the_newer_ones_place_in_the_record(forms: Program) -> None:
    mark = forms.folder / "mark"
    rules = f'on_failed = ["touch", "{mark}"]\n'
    forms.config.write_text(forms.config.read_text().replace("[watch.jiandaoyun]\n", f"[watch.jiandaoyun]\n{rules}"))
    forms.vendors.faults("forms.create:code-9007")
    forms.start()
    drop(forms, "plan.txt", 500, 1)
    forms.until(lambda: forms.vendors.log("create") and not forms.status()["jobs"][0]["active"])
    (older,) = (job["id"] for job in forms.status()["jobs"])
    put_off(forms, older)
    forms.vendors.faults("")
    wanted = drop(forms, "plan.txt", 600, 2)
    forms.until(lambda: forms.totals()["done"] == 1)
    assert forms("retry", str(older)).returncode == 0
    assert forms("wait").returncode == 0
    assert read(records(forms)["plan.txt"]) == wanted
    assert forms("failed").returncode == 0
    assert not mark.exists()


def put_off(program: Program, id_: int) -> None:
    """Makes the next try of a job one that comes in an hour, as a back-off of five minutes may seem to who waits."""

    def done() -> bool:
        """Whether it rested, and so has not begun its next try."""
        with closing(sqlite3.connect(program.state / "journal.db", timeout=30)) as journal, journal:
            later = "UPDATE jobs SET due_at = due_at + 3600 WHERE id = ? AND lease IS NULL"
            return journal.execute(later, [id_]).rowcount == 1

    program.until(done)


def test_a_kill_inside_a_large_file_costs_the_parts_on_their_way(forms: Program) -> None:
    forms.vendors.faults("latency=60ms")
    forms.start()
    wanted = drop(forms, "film.mov", 40 * MIB)
    forms.until(lambda: sent(forms) > 12 * MIB)
    forms.kill()
    forms.vendors.faults("")
    forms.start()
    assert forms("wait").returncode == 0
    assert read(records(forms)["film.mov"]) == wanted
    assert sent(forms) - 40 * MIB <= 4 * PART
    assert len(forms.objects()) == 1


def test_a_transaction_that_ends_on_the_way_is_replaced_and_no_part_goes_twice(forms: Program) -> None:
    options(forms, tokens=1)  # the daemon's own clock stays: it would try what is left of the old transaction
    forms.vendors.faults("latency=60ms")
    forms.start()
    wanted = drop(forms, "film.mov", 40 * MIB)
    forms.until(lambda: sent(forms) > 12 * MIB)
    forms.vendors.advance(3700)
    forms.vendors.faults("")
    assert forms("wait").returncode == 0
    assert read(records(forms)["film.mov"]) == wanted
    assert len(forms.vendors.log("token")) == 2
    assert sent(forms) - 40 * MIB <= 4 * PART


def entry(forms: Program) -> Any:
    (only,) = forms.catalogued()
    return only


def pushed(forms: Program, true: Callable[[], bool]) -> None:
    """Waits as a person does who cannot wait: a vendor in trouble is left alone for a while."""

    def push() -> bool:
        now = time.time()
        jobs = [job for job in forms.status()["jobs"] if job["state"] in {"pending", "stored"}]
        # Nothing that was rejected, or may be at any moment: that would be another try.
        if waiting := [str(job["id"]) for job in jobs if not job["active"] and job["due_at"] > now + 1]:
            forms("retry", *waiting)
        return true()

    forms.until(push)


def stored_and_held(forms: Program, name: str, size: int) -> str:
    """Drops a file and returns once it is stored and its record cannot be written yet."""
    options(forms, tokens=1)  # the daemon's own clock stays: it would try what is left of the old transaction
    forms.vendors.faults("forms.create:code-9007")
    forms.start()
    wanted = drop(forms, name, size)
    forms.until(lambda: forms.vendors.log("create"))
    return wanted


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("size", [1000, PART + 1])
def test_a_file_whose_hour_is_over_before_its_record_is_sent_again(forms: Program, killed: bool, size: int) -> None:
    wanted = stored_and_held(forms, "a.bin", size)
    if killed:
        forms.kill()
    forms.vendors.advance(3600)
    forms.vendors.faults("")
    if killed:
        forms.start()
    pushed(forms, lambda: forms.totals()["done"] == 1)
    assert read(records(forms)["a.bin"]) == wanted
    assert forms.objects() == [wanted, wanted]
    assert "follow_up" not in entry(forms)["facts"]
    assert (forms.totals()["bytes_sent"], forms.totals()["bytes_resent"]) == (2 * size, size)


def test_a_file_whose_hours_all_end_too_soon_is_sent_three_times_and_told_of(forms: Program) -> None:
    options(forms, tokens=1, transaction_life=3600)
    forms.vendors.faults("forms.list:502")  # the search before a record is written
    forms.start()
    wanted = drop(forms, "a.txt", 1000)
    for number in range(1, 4):
        forms.until(lambda number=number: len(forms.vendors.log("form")) == number and forms.totals()["stored"] == 1)
        forms.vendors.advance(3600)
        forms.vendors.faults("" if number == 3 else "forms.list:502@2x1000")
        pushed(forms, lambda number=number: len(forms.vendors.log("form")) > number or forms.totals()["rejected"] == 1)
    assert "the hour in which a record could take the file is over" in failure(forms)
    assert forms.objects() == [wanted] * 3
    assert records(forms) == {}
    assert forms.totals()["bytes_resent"] == 2000


def test_a_file_that_is_gone_when_its_hour_is_over_is_told_of(forms: Program) -> None:
    wanted = stored_and_held(forms, "a.txt", 1000)
    (forms.drop / "a.txt").unlink()
    forms.vendors.advance(3600)
    forms.vendors.faults("")
    pushed(forms, lambda: forms.totals()["rejected"] == 1)
    assert "hour" in failure(forms)
    assert forms.objects() == [wanted]


def test_a_file_whose_record_the_form_refuses_is_kept_until_a_person_acted(forms: Program) -> None:
    forms.config.write_text(re.sub(r'(path = ".*/drop/jiandaoyun")', r'\1\nafter = "delete"', forms.config.read_text()))
    forms.vendors.faults("forms.create:code-17017")
    forms.start()
    wanted = drop(forms, "a.txt", 1000)
    assert forms("wait").returncode == 20
    assert "Jiandaoyun refuses data/create (code 17017" in failure(forms)
    assert len(forms.vendors.log("form")) == 1
    assert (forms.drop / "a.txt").exists()
    forms.vendors.faults("")
    assert forms("retry", "--all").returncode == 0
    assert forms("wait").returncode == 0
    assert read(records(forms)["a.txt"]) == wanted
    forms.until(lambda: not (forms.drop / "a.txt").exists())


@pytest.mark.parametrize(
    "fault",
    [
        "forms.token:cut-reply@1",
        "forms.token:code-8303@1",
        "forms.list:502@1",
        "forms.create:cut@1",
        "forms.create:cut-after@1",
        "forms.create:cut-reply@1",
        "forms.create:code-9007@1",
    ],
)
def test_a_lost_or_refused_call_leaves_one_record(forms: Program, fault: str) -> None:
    forms.vendors.faults(fault)
    forms.start()
    wanted = drop(forms, "a.txt", 1000)
    assert forms("wait").returncode == 0
    assert read(records(forms)["a.txt"]) == wanted


@pytest.mark.parametrize(("call", "size"), [("form", 1000), ("complete", PART + 1)])
def test_a_file_whose_callback_failed_is_sent_again_a_few_times(forms: Program, call: str, size: int) -> None:
    forms.vendors.faults(f"kodo.{call}:579")
    forms.start()
    wanted = drop(forms, "a.txt", size)
    for sent in (1, 2):
        forms.until(lambda sent=sent: [one["error"] and one["sent"] for one in forms.status()["jobs"]] == [0])
        assert forms.objects() == [wanted] * sent
        assert forms("retry", "--all").returncode == 0  # it would wait for a minute
    assert forms("wait").returncode == 20
    assert "was not told of the file" in failure(forms)
    forms.vendors.faults("")
    assert forms("retry", "--all").returncode == 0
    assert forms("wait").returncode == 0
    assert read(records(forms)["a.txt"]) == wanted


def test_a_refused_key_pauses_the_provider_and_says_what_to_check(forms: Program) -> None:
    forms.vendors.faults("forms.token:code-8301@1")
    forms.start()
    wanted = drop(forms, "a.txt", 10)
    forms.until(lambda: next(p for p in forms.status()["providers"] if p["name"] == "jiandaoyun")["error"])
    (provider,) = (p for p in forms.status()["providers"] if p["name"] == "jiandaoyun")
    assert provider["state"] == "blocked"
    assert "check api_key" in provider["error"]
    assert forms("resume").returncode == 0
    forms.until(lambda: "a.txt" in records(forms))
    assert read(records(forms)["a.txt"]) == wanted


def test_tokens_that_nobody_can_read_are_passed_over(forms: Program) -> None:
    options(forms, damaged=2)
    forms.start()
    wanted = drop(forms, "a.txt", 10)
    assert forms("wait").returncode == 0
    assert read(records(forms)["a.txt"]) == wanted


def test_where_parts_are_refused_a_form_takes_the_whole_file(forms: Program) -> None:
    forms.vendors.faults("kodo.init:403")
    forms.start()
    wanted = drop(forms, "a.bin", PART + 1)
    assert forms("wait").returncode == 0
    assert read(records(forms)["a.bin"]) == wanted
    assert len(forms.vendors.log("form")) == 1


def test_the_key_never_reaches_another_host(forms: Program) -> None:
    forms.start()
    drop(forms, "a.bin", PART + 1)
    drop(forms, "b.bin", 10)
    assert forms("wait").returncode == 0
    for one in forms.vendors.log():
        assert one["service"] == "forms" or not str(one["headers"].get("authorization", "")).startswith("Bearer")
    journal = (forms.state).rglob("*")
    secret = ACCOUNT["api_key"].encode()
    assert not any(secret in path.read_bytes() for path in journal if path.is_file())
    assert secret not in forms.log.read_bytes()


# One record for a folder


@pytest.fixture
def folders(forms: Program) -> Program:
    """Records hold folders, and say which and of what transaction."""
    told = forms.config.read_text()
    for old, new in {"per-file": "per-folder", "{path}": "{watch}/{folder}", "{hash}": "{transaction}"}.items():
        assert f'"{old}"' in told
        told = told.replace(f'"{old}"', f'"{new}"')
    forms.config.write_text(told)
    return forms


def attachments(forms: Program) -> list[tuple[str, dict[str, str]]]:
    """Returns of each record the folder, and the digests of its files by name; a name that stands twice is an error."""
    found = []
    for record in listed(forms):
        files = [(one["name"], digest(httpx.get(one["url"], trust_env=False).content)) for one in record[ATTACHMENT]]
        assert len(dict(files)) == len(files)
        found.append((record[PATH].removeprefix("jiandaoyun/"), dict(files)))
    return found


def by_folder(wanted: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
    """Returns the records that hold these files, one for each folder."""
    folders: dict[str, dict[str, str]] = {}
    for path, content in wanted.items():
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder, {})[name] = content
    return sorted(folders.items())


def test_twelve_files_in_two_folders_at_once_are_two_records(folders: Program) -> None:
    wanted = {f"{dir_}/文件 {n}.bin": drop(folders, f"{dir_}/文件 {n}.bin", 100, n) for n in range(6) for dir_ in "ab"}
    folders.start()
    assert folders("wait").returncode == 0
    assert sorted(attachments(folders)) == by_folder(wanted)
    assert len(folders.vendors.log("token")) == 1
    named = {one["facts"]["record"]: one["path"].rpartition("/")[0] for one in folders.catalogued()}
    assert named == {one["_id"]: one[PATH].removeprefix("jiandaoyun/") for one in listed(folders)}


def test_a_folder_of_more_files_than_a_field_takes_has_another_record(folders: Program) -> None:
    wanted = {f"a/{number}.bin": drop(folders, f"a/{number}.bin", 100, number) for number in range(23)}
    folders.start()
    assert folders("wait").returncode == 0
    found = [files for _, files in attachments(folders)]
    assert sorted(map(len, found)) == [3, 10, 10]
    assert {f"a/{name}": content for files in found for name, content in files.items()} == wanted


def test_another_version_of_a_file_takes_its_place_among_the_others(folders: Program) -> None:
    wanted = {f"a/{number}.bin": drop(folders, f"a/{number}.bin", 100, number) for number in range(3)}
    folders.start()
    assert folders("wait").returncode == 0
    wanted["a/1.bin"] = drop(folders, "a/1.bin", 100, 77)
    folders.until(lambda: attachments(folders) == by_folder(wanted))


def test_a_new_transaction_has_a_record_of_its_own_and_the_old_one_stays(folders: Program) -> None:
    first = drop(folders, "a/1.bin", 100, 1)
    folders.start()
    assert folders("wait").returncode == 0
    assert folders.stop() == 0
    second = drop(folders, "a/2.bin", 100, 2)
    folders.start()
    folders.until(lambda: len(attachments(folders)) == 2)
    assert sorted(attachments(folders), key=repr) == [("a", {"1.bin": first}), ("a", {"2.bin": second})]


def stored_together(folders: Program, count: int) -> dict[str, str]:
    """Drops files into one folder and returns once all are stored and none has a record."""
    folders.vendors.faults("forms.list:502")
    folders.start()
    wanted = {f"a/{number}.bin": drop(folders, f"a/{number}.bin", 100, number) for number in range(count)}
    folders.until(lambda: folders.totals()["stored"] == count)
    return wanted


@pytest.mark.parametrize(("call", "next_"), [("create", 2), ("update", 3)])
def test_a_kill_between_a_record_and_the_journal_makes_no_second(folders: Program, call: str, next_: int) -> None:
    wanted = stored_together(folders, 4)
    folders.vendors.faults(f"forms.{call}:cut-after@1,forms.list:stall@{next_}x1000")
    pushed(folders, lambda: bool(folders.vendors.log(call)))
    folders.kill()
    folders.vendors.faults("")
    folders.start()
    assert folders("wait").returncode == 0
    assert attachments(folders) == by_folder(wanted)
    assert len(folders.vendors.log("create")) == 1


def test_the_files_of_a_folder_whose_hour_is_over_are_sent_again_into_one_record(folders: Program) -> None:
    options(folders, tokens=1)  # as above
    wanted = stored_together(folders, 2)
    options(folders, tokens=100)
    folders.vendors.advance(3600)
    folders.vendors.faults("")
    pushed(folders, lambda: folders.totals()["done"] == len(wanted))
    assert attachments(folders) == by_folder(wanted)
    assert folders.totals()["bytes_resent"] == 200


def test_a_form_that_takes_no_key_twice_gets_a_record_for_each_file(folders: Program) -> None:
    options(folders, keys_again=False)
    wanted = {f"a/{number}.bin": drop(folders, f"a/{number}.bin", 100, number) for number in range(3)}
    folders.start()
    assert folders("wait").returncode == 0
    assert sorted(content for _, files in attachments(folders) for content in files.values()) == sorted(wanted.values())


def test_where_a_transaction_takes_one_record_each_file_gets_its_own(forms: Program) -> None:
    """What was uploaded with the first one is sent again, once; what comes later is not."""
    options(forms, one_record=True)
    wanted = {f"{number}.bin": drop(forms, f"{number}.bin", 100, number) for number in range(6)}
    forms.start()
    assert forms("wait").returncode == 0
    assert {path: read(record) for path, record in records(forms).items()} == wanted
    assert forms.totals()["bytes_resent"] <= 500
    spent = forms.totals()["bytes_resent"]
    wanted |= {f"later {number}.bin": drop(forms, f"later {number}.bin", 100, number) for number in range(3)}
    pushed(forms, lambda: forms.totals()["done"] == len(wanted))
    assert {path: read(record) for path, record in records(forms).items()} == wanted
    assert forms.totals()["bytes_resent"] == spent


FAULTS = ",".join(
    ["seed=11"]
    + [f"kodo.{call}:{fault}%4" for call in ("form", "init", "part", "parts", "complete")
       for fault in ("cut", "cut-within", "cut-after", "cut-reply", "html", "599", "406", "expired-token")]
    + ["kodo.part:no-upload%2", "kodo.part:bad-md5%3", "kodo.parts:lost-part%20"]
    + [f"forms.{call}:{fault}%5" for call in ("token", "list", "create", "update", "get")
       for fault in ("cut", "cut-after", "cut-reply", "code-9007", "code-8304", "502")]
)  # fmt: skip


@pytest.mark.slow
def test_faults_of_every_kind_lose_nothing(forms: Program) -> None:
    forms.vendors.faults(FAULTS)
    forms.start()
    numbers = random.Random(3)
    wanted = {}
    for number in range(40):
        size = numbers.choice([1, 100, 5000, PART, PART + 1, 9 * MIB] if number % 6 == 0 else [1, 100, 5000])
        wanted[f"{number}.bin"] = drop(forms, f"{number}.bin", size, number)
    pushed(forms, lambda: forms.totals()["done"] >= 36)
    forms.vendors.faults("")  # the unlucky ones need not wait for their back-off
    forms("retry", "--all")
    assert forms("wait").returncode == 0
    assert {path: read(record) for path, record in records(forms).items()} == wanted == forms.stored()
