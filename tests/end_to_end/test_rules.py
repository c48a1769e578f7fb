"""What a watch says beyond "upload this": names, conflicts."""

import os
import random
import struct
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dumbwaiter.model import MIB
from program import Program, digest


@pytest.fixture
def shelf(program: Program) -> "Shelf":
    return Shelf(program)


class Shelf:
    """A watch on a provider that takes keys, with the rules of a test."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.folder = program.folder / "shelf"
        self.folder.mkdir()

    def rules(self, text: str, *, name: str = "shelf", folder: Path | None = None) -> None:
        """Adds the watch; the same service as the sandbox's own recipe, but told which key the object shall have."""
        given = tomllib.loads(self.program.config.read_text())["provider"]["recipe"]
        with self.program.config.open("a") as file:
            if f"[provider.{name}]" not in self.program.config.read_text():
                file.write(
                    f'[provider.{name}]\nbroker = "recipe"\ntransport = "put"\n'
                    f'secrets = {{ api_key = "{given["secrets"]["api_key"]}" }}\n'
                    f'[provider.{name}.request]\nurl = "{given["request"]["url"]}"\n'
                    'headers = { Authorization = "Bearer {secret.api_key}" }\n'
                    'body = { name = "{name}", size = "{size}", type = "{mime}", key = "{key}" }\n'
                    f"[provider.{name}.reply]\n"
                    'url = "upload.url"\nfields = "upload.headers"\nkey = "key"\nlink = "link"\n'
                    'expires_in = "expires_in"\n'
                )
            file.write(
                f'[watch.{name}]\npath = "{folder or self.folder}"\nprovider = "{name}"\nsettle = "100ms"\n{text}\n'
            )

    def write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.program.folder / "aside"
        aside.write_bytes(content)
        aside.rename(path)
        return path

    def entries(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.program.facts("history", "-n", "1000")
        return found

    def read(self, entry: dict[str, Any]) -> bytes:
        content: bytes = self.program.vendors.http.get(entry["url"]).content
        return content

    def keys(self) -> dict[str, bytes]:
        """Returns what stands behind the link of each entry, by key."""
        return {entry["key"]: self.read(entry) for entry in self.entries()}

    def wait(self) -> None:
        done = self.program("wait", "--timeout", "40s")
        assert done.returncode == 0, (done.stderr, self.program.log.read_text())

    def story(self, path: Path) -> str:
        return self.program("status", path).stdout


def test_check_shows_the_key_that_a_file_gets(program: Program, shelf: Shelf) -> None:
    shelf.rules('key = "films/{dir2}/{stem}-{hash:8}{suffix}"')
    path = shelf.write("a/b/film.mov", b"film")
    key = f"films/b/film-{digest(b'film')[:8]}.mov"
    facts = program.facts("check", path)["files"][0]
    assert facts["key"] == key
    assert facts["rule"] == 'key = "films/{dir2}/{stem}-{hash:8}{suffix}"'
    assert f"watch shelf would upload it as {key}: key = " in program("check", path).stdout
    program.start()
    shelf.wait()
    assert shelf.keys() == {key: b"film"}
    assert program.stop() == 0
    (netease,) = program.facts("check", program.write("x.mov", b"x"))["files"]
    assert netease["key"] is None
    assert "names every object itself" in netease["rule"]


def test_a_key_stays_through_failures_kills_and_another_day(program: Program, shelf: Shelf) -> None:
    shelf.rules('key = "{uuid}/{date}-{time}/{stem}"')
    path = shelf.write("film.mov", random.Random(1).randbytes(3 * MIB))
    told = program.facts("check", path, shelf.write(".a.part", b"x"))["files"]
    assert told[0]["rule"] == 'key = "{uuid}/{date}-{time}/{stem}", with another UUID for each upload'
    assert (told[1]["key"], told[1]["rule"]) == (None, None)  # it would get none
    program.vendors.faults("presign.put:cut-within@1,presign.put:503@2,presign.put:cut-after@3")
    keys = set()
    program.start()
    program.until(lambda: len(program.vendors.log("put")) >= 1)
    program.kill()
    program.start()
    shelf.wait()
    keys = {one["object"] for one in program.vendors.log("put") if one.get("object")}
    (entry,) = shelf.entries()
    assert keys == {entry["key"]}
    assert shelf.read(entry) == path.read_bytes()


def test_other_content_under_a_name_gets_another_name(program: Program, shelf: Shelf) -> None:
    """A file of another folder, an older version, and what somebody else put there: no link ever changes its content."""
    shelf.rules('key = "{name}"')
    program.start()
    shelf.write("a/film.mov", b"one")
    shelf.wait()
    shelf.write("b/film.mov", b"two")
    shelf.wait()
    shelf.write("a/film.mov", b"three")
    shelf.wait()
    shelf.write("c/film.mov", b"one")
    shelf.wait()
    assert shelf.keys() == {"film.mov": b"one", "film-1.mov": b"two", "film-2.mov": b"three"}
    assert {entry["path"]: entry["key"] for entry in shelf.program.facts("ls", "shelf")} == {
        "a/film.mov": "film-2.mov",
        "b/film.mov": "film-1.mov",
        "c/film.mov": "film.mov",
    }


def foreign(program: Program, key: str, content: bytes) -> None:
    """Puts an object there that the journal knows nothing of."""
    other = Program.__new__(Program)
    other.__dict__ |= program.__dict__
    other.environment = program.environment | {"DUMBWAITER_STATE": str(program.folder / "stranger")}
    (program.folder / key).write_bytes(content)
    done = other("put", "--provider", "shelf", program.folder / key)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("mode", ["rename", "replace", "skip", "refuse"])
def test_what_somebody_else_put_there_is_met_as_the_watch_says(program: Program, shelf: Shelf, mode: str) -> None:
    folders = program.folder.as_posix().lstrip("/")
    shelf.rules(f'key = "{folders}/{{name}}"\non_conflict = "{mode}"')
    foreign(program, "film.mov", b"theirs")
    foreign(program, "same.mov", b"same")
    mine, same = shelf.write("film.mov", b"mine"), shelf.write("same.mov", b"same")
    program.start()
    shelf.wait() if mode != "refuse" else program.until(lambda: program.totals()["rejected"] == 1)
    found = {key.rpartition("/")[2]: content for key, content in shelf.keys().items()}
    wanted = {
        "rename": {"film-1.mov": b"mine"},
        "replace": {"film.mov": b"mine"},
        "skip": {},
        "refuse": {},
    }[mode]
    program.until(lambda: program.totals()["done"] == len(wanted) + 1)
    assert {key.rpartition("/")[2]: content for key, content in shelf.keys().items()} == {**wanted, "same.mov": b"same"}
    if mode in {"skip", "refuse"}:
        assert f'on_conflict = "{mode}"' in shelf.story(mine)
        assert found.get("film.mov") is None
    if mode == "refuse":
        failed = program("failed")
        assert failed.returncode == 20
        assert "on_conflict" in failed.stdout
        mine.unlink()
        (program.folder / "objects-gone").touch()
    assert "done" in shelf.story(same)
    stored = program.data / "objects/signed" / folders / "film.mov"
    assert stored.read_bytes() == (b"mine" if mode == "replace" else b"theirs")


@pytest.mark.parametrize("provider", ["oss", "xinhua"])
def test_a_vendor_that_replaces_nothing_is_asked_what_it_has(program: Program, shelf: Shelf, provider: str) -> None:
    """OSS says FileAlreadyExists, Qiniu 614: equal content is the same file, any other gets another name."""
    signed = tomllib.loads(program.config.read_text())["provider"]["recipe"]
    with program.config.open("a") as file:
        file.write(
            f"""
[provider.oss]
broker = "recipe"
transport = "oss"
secrets = {{ api_key = "{signed["secrets"]["api_key"]}" }}
[provider.oss.request]
url = "{signed["request"]["url"].replace("/uploads", "/forms")}"
headers = {{ Authorization = "Bearer {{secret.api_key}}" }}
body = {{ name = "{{name}}", size = "{{size}}", type = "{{mime}}", key = "{{key}}", overwrite = false }}
[provider.oss.reply]
url = "upload.url"
fields = "upload.fields"
key = "key"
link = "link"
[watch.named]
path = "{shelf.folder}"
provider = "{provider}"
key = "{{stem}}{{suffix}}"
settle = "100ms"
"""
        )
    picture = b"\xff\xd8\xff\xe0" + os.urandom(2000) + b"\xff\xd9"
    paths = [shelf.write(name, picture) for name in ("same.jpg", "other.jpg")]
    stranger = {"DUMBWAITER_STATE": str(program.folder / "stranger")}
    done = program("put", *paths, environment=stranger)
    assert done.returncode == 0, done.stderr
    shelf.write("other.jpg", picture + b"!")
    program.start()
    shelf.wait()
    entries = {entry["path"]: entry for entry in program.facts("ls", "named")}
    assert {path: entries[path]["key"] for path in ("same.jpg", "other.jpg")} == {
        "same.jpg": "same.jpg",
        "other.jpg": "other-1.jpg",
    }
    assert entries["same.jpg"]["verified"] == ("md5" if provider == "oss" else "qetag")


@pytest.mark.parametrize("mode", ["skip", "refuse"])
def test_what_another_file_of_ours_has_is_left_to_it(program: Program, shelf: Shelf, mode: str) -> None:
    shelf.rules(f'key = "{{name}}"\non_conflict = "{mode}"')
    program.start()
    shelf.write("a/film.mov", b"one")
    shelf.wait()
    second = shelf.write("b/film.mov", b"two")
    program.until(lambda: program.totals()["superseded" if mode == "skip" else "rejected"] == 1)
    assert f'on_conflict = "{mode}"' in shelf.story(second)
    assert shelf.keys() == {"film.mov": b"one"}
    assert program("failed").returncode == (0 if mode == "skip" else 20)


def test_replacing_takes_the_older_entry_with_it(program: Program, shelf: Shelf) -> None:
    shelf.rules('key = "{name}"\non_conflict = "replace"')
    program.start()
    shelf.write("a/film.mov", b"one")
    shelf.wait()
    shelf.write("b/film.mov", b"two")
    shelf.wait()
    assert shelf.keys() == {"film.mov": b"two"}
    assert [entry["path"] for entry in program.facts("ls", "shelf")] == ["b/film.mov"]


def test_what_was_taken_away_of_one_file_is_replaced_by_no_other(program: Program, shelf: Shelf) -> None:
    shelf.rules('key = "{name}"\non_conflict = "replace"\nafter = "delete"')
    program.start()
    first = shelf.write("a/film.mov", b"one")
    program.until(lambda: program.totals()["done"] == 1)  # it may still be here
    other = shelf.write("b/film.mov", b"two")
    program.until(lambda: program.totals()["rejected"] == 1)
    assert "a/film.mov is at the provider as film.mov and not kept here: choose another key" in shelf.story(other)
    assert shelf.keys() == {"film.mov": b"one"}
    assert other.read_bytes() == b"two"
    program.until(lambda: not first.exists())
    shelf.write("a/film.mov", b"three")  # its own next version
    program.until(lambda: not first.exists())
    assert shelf.keys() == {"film.mov": b"three"}


def test_what_was_taken_away_is_replaced_by_no_other_once_its_watch_is_gone_either(
    program: Program, shelf: Shelf
) -> None:
    shelf.rules('key = "{name}"\non_conflict = "replace"\nafter = "delete"')
    program.start()
    first = shelf.write("film.mov", b"one")
    program.until(lambda: not first.exists() and not program.status()["errands"])
    assert program.stop() == 0
    (entry,) = program.facts("ls", "shelf")
    assert entry["facts"]["original"] == "deleted here once it was there"
    text = program.config.read_text()
    program.config.write_text(
        text.replace("[watch.shelf]", "[watch.other]").replace('after = "delete"', 'after = "keep"')
    )
    program.start()
    shelf.write("film.mov", b"two")
    program.until(lambda: program.totals()["rejected"] == 1)
    assert shelf.keys() == {"film.mov": b"one"}


def test_many_files_of_one_name_at_once_all_get_through(program: Program, shelf: Shelf) -> None:
    shelf.rules('key = "{name}"')
    contents = {os.urandom(50) for _ in range(12)}
    for number, content in enumerate(contents):
        shelf.write(f"{number}/film.mov", content)
    program.start()
    shelf.wait()
    assert set(shelf.keys().values()) == contents


def test_a_picture_at_xinhua_gets_its_name_and_another_one_when_that_is_taken(program: Program, shelf: Shelf) -> None:
    text = program.config.read_text()
    start = text.index("[watch.xinhua]")
    program.config.write_text(text[: start + 15] + 'key = "{name}"\n' + text[start + 15 :])
    folder = program.data / "drop/xinhua"
    picture = b"\xff\xd8\xff\xe0" + os.urandom(2000) + b"\xff\xd9"
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "Rom 1.jpg").write_bytes(picture + name.encode())
    program.start()
    shelf.wait()
    entries = [entry for entry in shelf.entries() if not entry["facts"].get("of")]
    assert len(entries) == 2
    assert {entry["key"] for entry in entries} == {"Rom_1.jpg", "Rom_1-1.jpg"}


def zone(folder: Path, clock: str) -> dict[str, str]:
    """Returns the environment of a place on earth where it is `clock` now."""
    hours, minutes, seconds = map(int, clock.split(":"))
    offset = (hours * 3600 + minutes * 60 + seconds - int(time.time())) % 86400
    offset -= 86400 if offset >= 43200 else 0
    path = folder / f"zone{offset}"
    path.write_bytes(
        b"TZif" + bytes(16) + struct.pack(">6l", 0, 0, 0, 0, 1, 4) + struct.pack(">lBB", offset, 0, 0) + b"LMT\0"
    )
    return {"TZ": f":{path}"}


def test_no_upload_begins_outside_the_window_and_all_begin_when_it_opens(program: Program, shelf: Shelf) -> None:
    shelf.rules('window = "19:00-07:00"')
    path = shelf.write("film.mov", b"film")
    other = program.write("any-hour.mov", b"other")
    place = zone(program.folder, "18:59:48")
    opens = int(time.time()) + 12
    program.start(environment=place)
    program.until(lambda: program.totals()["done"] >= 1 and (program.totals()["pending"] == 1 or time.time() >= opens))
    said = program("status", environment=place).stdout
    story = program("status", path, environment=place).stdout
    if time.time() < opens - 1:
        assert "shelf: watching, waits for 19:00, 0 files uploaded, 1 to go" in said
        assert "next: waits for 19:00" in story
    assert "waits for" not in program("status", other, environment=place).stdout
    shelf.wait()
    (entry,) = [one for one in shelf.entries() if one["watch"] == "shelf"]
    assert entry["stored_at"] >= opens
    assert entry["stored_at"] < opens + 10


def test_a_person_needs_no_window(program: Program, shelf: Shelf) -> None:
    shelf.rules('window = "19:00-07:00"')
    place = zone(program.folder, "12:00:00")
    program.start(environment=place)
    paths = [shelf.write(f"{number}.mov", bytes([number])) for number in range(3)]
    program.until(lambda: program.totals()["pending"] == 3)
    done = program("put", paths[0])
    assert done.returncode == 0, done.stderr
    assert [one["path"] for one in shelf.entries()] == ["0.mov"]
    waiting = {job["path"]: job["id"] for job in program.status()["jobs"]}
    assert set(waiting) == {"1.mov", "2.mov"}
    assert program("retry", str(waiting["1.mov"])).returncode == 0
    program.until(lambda: program.totals()["done"] == 2)
    assert program.totals()["pending"] == 1


@pytest.mark.slow
@pytest.mark.torture
def test_an_upload_pauses_when_the_window_closes_and_goes_on_from_there(program: Program) -> None:
    text = program.config.read_text()
    place = text.index("[watch.netease]") + len("[watch.netease]\n")
    program.config.write_text(f'{text[:place]}window = "06:00-07:00"\n{text[place:]}')
    content = random.Random(9).randbytes(60 * MIB)
    program.vendors.faults("latency=2000ms")
    program.write("film.mov", content)
    program.start(environment=zone(program.folder, "06:59:45"))
    program.until(lambda: "put aside until" in program.log.read_text())
    (job,) = program.status()["jobs"]
    assert job["state"] == "pending"
    assert not job["active"]
    assert 0 < job["sent"] < len(content)
    assert job["attempts"] == 0
    program.vendors.faults("")
    assert program("retry", "--all").returncode == 0
    assert program("wait").returncode == 0
    assert program.stored() == {"film.mov": digest(content)}
    assert sum(one["received"] for one in program.vendors.log("put")) <= len(content) + 4 * MIB
