"""`verify`: is it there as it was sent?"""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dumbwaiter.cli.fetch import Seen
from dumbwaiter.cli.verify import SIDE_BY_SIDE, compare
from dumbwaiter.model import Entry, Stamp
from program import Program

MD5, SHA1, QINIU = (
    "0cc175b9c0f1b6a831c399e269772661",
    "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8",
    "Foj35Df6pafOFdHdy56q6uo3dme4",
)


@pytest.mark.parametrize(
    ("seen", "etag", "result"),
    [
        (None, "", "gone"),
        (Seen(None), "", "cannot tell"),
        (Seen(2), "", "differs"),
        (Seen(1), "", "ok"),
        (Seen(1, f'"{MD5.upper()}"'), MD5, "ok"),
        (Seen(1, f'"{MD5[::-1]}"'), MD5, "differs"),
        (Seen(1, f'"{MD5}"'), SHA1, "ok"),
        (Seen(1, '"5f3a-61"'), MD5, "ok"),
        (Seen(1, QINIU), QINIU, "ok"),
        (Seen(1, QINIU.lower()), QINIU, "ok"),
        (Seen(1, QINIU[:-1] + "5"), QINIU, "differs"),
        (Seen(1, "", "xxh3:1"), "", "ok"),
        (Seen(1, "", "xxh3:2"), "", "differs"),
        (Seen(1, "", "xxh3-4m:1"), "", "cannot tell"),
    ],
)
def test_only_tags_of_one_kind_are_compared(seen: Seen | None, etag: str, result: str) -> None:
    entry = Entry(1, "p", "k", "w", "a", Stamp(1, 1, 1, 1), 0.0, etag=etag, digest="xxh3:1")
    assert compare(entry, seen).result == result


def _objects(program: Program) -> list[Path]:
    return [path for path in (program.data / "objects").rglob("*") if path.is_file()]


def test_what_is_there_as_it_was_sent_is_ok(program: Program) -> None:
    program.start()
    program.write("a.txt", b"abc")
    program.write("empty", b"")
    for vendor in ("recipe", "jiandaoyun", "careyshop-sts"):
        (program.data / "drop" / vendor / "b.txt").write_bytes(vendor.encode())
    program.until(lambda: program.totals()["done"] == 5)
    before = len(program.vendors.log()), program.totals()
    for words in ([], ["--deep"]):
        done = program("--json", "verify", *words)
        assert done.returncode == 0, done.stdout
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert {one["result"] for one in found} == {"ok"}
        assert len(found) == 5
    assert program.totals() == before[1]
    assert {one["method"] for one in program.vendors.log()[before[0] :]} <= {"HEAD", "GET"}


def test_what_differs_or_is_gone_needs_a_person(program: Program) -> None:
    path = program.write("a.txt", b"abc")
    assert program("put", path).returncode == 0
    (stored,) = _objects(program)
    stored.write_bytes(b"abX")
    done = program("verify", path, "--deep")
    assert done.returncode == 20
    assert done.stdout.startswith("differs      netease/a.txt: its bytes are not those sent")
    assert program("put", "--again", path).returncode == 0  # and not as another name of what is there
    assert program("verify", path, "--deep").returncode == 0
    (stored,) = {*_objects(program)} - {stored}
    stored.unlink()
    done = program("verify", "netease")
    assert done.returncode == 20
    assert done.stdout.startswith("gone ")
    assert done.stderr == ("1 gone\nwhere the original is still here, dumbwaiter put --again FILE sends it again\n")
    assert program("put", path).returncode == 0  # it was sent, as far as the catalog knows
    assert program("verify").returncode == 20
    assert program("put", "--again", path).returncode == 0
    assert program("verify", "--deep").returncode == 0
    assert len(program.facts("history")) == 3


def test_a_provider_that_is_away_is_temporary(program: Program) -> None:
    path = program.write("a.txt", b"abc")
    assert program("put", path).returncode == 0
    program.vendors.faults("cdn.get:503")
    done = program("verify")
    assert done.returncode == 5, done.stdout
    assert done.stderr.splitlines()[-1] == "dumbwaiter: some files cannot be asked for now: try again"
    assert done.stdout.startswith("cannot tell  netease/a.txt: ")


@pytest.mark.torture
def test_a_provider_that_never_answers_is_not_asked_for_every_file(program: Program) -> None:
    paths = [program.write(f"{number}.txt", b"abc") for number in range(3 * SIDE_BY_SIDE)]
    other = program.folder / "other.txt"
    other.write_bytes(b"abc")
    assert program("put", *paths).returncode == 0
    assert program("put", "--provider", "careyshop", other).returncode == 0
    program.vendors.faults("cdn.get:stall")
    before = len(program.vendors.log())
    done = program("verify")
    assert done.returncode == 5, done.stdout
    assert done.stdout.count(": the provider does not answer\n") == len(paths)
    assert "ok           put/" in done.stdout
    asked = [one for one in program.vendors.log()[before:] if one["service"] == "cdn"]
    assert 1 <= len(asked) <= SIDE_BY_SIDE


@pytest.mark.parametrize("link", ["http://a..b/x", "http://[::1/x"])
def test_a_link_that_no_request_can_use_is_said_to_be_one(program: Program, link: str) -> None:
    path = program.write("a.txt", b"abc")
    assert program("put", path).returncode == 0
    path.unlink()
    with closing(sqlite3.connect(program.state / "journal.db")) as journal, journal:
        journal.execute("UPDATE entries SET url = ?", (link,))
    done = program("cat", "netease/a.txt")
    assert (done.returncode, done.stderr) == (1, "dumbwaiter: netease/a.txt: its link is no usable address\n")
    for words in ([], ["--deep"]):
        done = program("verify", *words)
        assert (done.returncode, done.stderr) == (0, "1 cannot tell\n")
        assert done.stdout == "cannot tell  netease/a.txt: its link is no usable address\n"


def test_where_links_are_refused_the_vendor_is_asked(program: Program) -> None:
    """A private bucket answers 403 to everybody; NetEase still lists what it has."""
    path = program.write("a.txt", b"abc")
    program.start()
    assert program("put", path).returncode == 0
    program.vendors.faults("cdn.get:403")
    done = program("verify")
    assert done.returncode == 0
    assert done.stdout.startswith("ok ")
    (program.drop / "nothing").mkdir()
    assert program("verify", program.drop / "nothing").returncode == 1
