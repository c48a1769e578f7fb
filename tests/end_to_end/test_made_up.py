"""A vendor that nobody knew of: what has to be written for it is all in tests/made_up."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dumbwaiter_sandbox.vendors import VENDORS
from made_up.lockers import KEY, VENDOR
from program import Program


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    tests = str(Path(__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), tests])))
    with Program(tmp_path, module="made_up", vendors=(*VENDORS, VENDOR)) as made:
        yield made


def test_the_daemon_uploads_to_it_and_says_what_it_refuses(program: Program) -> None:
    drop = program.data / "drop/locker"
    (drop / "letter.txt").write_bytes(b"dear reader")
    (drop / "wardrobe.bin").write_bytes(bytes(2 << 20))
    program.vendors.faults("locker.fill:cut-within@1,locker.open:503@2")
    program.start()
    assert program("wait").returncode == 20
    (entry,) = program.facts("ls", "locker")
    assert entry["path"] == "letter.txt"
    assert entry["verified"] == "md5"
    assert (program.data / "objects/lockers" / entry["key"].partition("/")[0]).read_bytes() == b"dear reader"
    (failed,) = program.facts("failed")
    assert failed["path"] == "wardrobe.bin"
    assert "takes 1048576 at most" in failed["error"]


def test_its_mistakes_in_the_configuration_are_told_like_every_other(program: Program) -> None:
    program.config.write_text(program.config.read_text().replace(f'key = "{KEY}"', f'kay = "{KEY}"'))
    done = program("check")
    assert done.returncode == 2
    assert 'unknown key "kay"; did you mean "key"?' in done.stderr


def test_a_wrong_key_blocks_it(program: Program) -> None:
    program.config.write_text(program.config.read_text().replace(KEY, "wrong-0001"))
    path = program.data / "drop/locker/letter.txt"
    path.write_bytes(b"dear reader")
    done = program("put", path)
    assert done.returncode == 21
    assert "the lockers refuse the key: check key" in done.stderr
