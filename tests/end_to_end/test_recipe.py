"""Providers that only the configuration knows."""

import os
import random

from dumbwaiter.model import MIB
from program import Program, digest


def test_a_service_that_signs_addresses_is_described_in_the_configuration(program: Program) -> None:
    numbers = random.Random(8)
    folder = program.data / "drop/recipe"
    wanted = {}
    for name, length in {"empty.txt": 0, "one.bin": 1, "相册.jpg": 70_000, "large.bin": 9 * MIB}.items():
        (folder / name).write_bytes(numbers.randbytes(length))
        wanted[name] = digest((folder / name).read_bytes())
    program.start()
    assert program("wait").returncode == 0
    entries = program.facts("ls", "recipe")
    assert {one["path"]: digest(program.vendors.http.get(one["url"]).content) for one in entries} == wanted
    assert {one["verified"] for one in entries} == {"md5"}


def test_a_put_that_breaks_off_is_sent_again(program: Program) -> None:
    path = program.data / "drop/recipe/film.mov"
    path.write_bytes(os.urandom(6 * MIB))
    program.vendors.faults("presign.put:cut-within@1,presign.put:cut-after@2,presign.put:503@3")
    program.start()
    assert program("wait").returncode == 0
    (entry,) = program.facts("ls", "recipe")
    assert digest(program.vendors.http.get(entry["url"]).content) == digest(path.read_bytes())


def test_an_address_that_expired_is_replaced(program: Program) -> None:
    path = program.data / "drop/recipe/film.mov"
    path.write_bytes(b"film")
    program.vendors.faults("presign.put:403@1")
    done = program("put", path)
    assert done.returncode == 0, done.stderr
    assert len(program.vendors.log("sign")) == 2


def test_a_refused_key_blocks_the_provider_and_shows_no_secret(program: Program) -> None:
    key = program.vendors.sandbox.accounts["presign"]["api_key"]
    program.config.write_text(program.config.read_text().replace(f'"{key}"', '"presign-key-wrong"'))
    path = program.data / "drop/recipe/film.mov"
    path.write_bytes(b"film")
    done = program("-v", "put", path)
    assert done.returncode == 21
    assert "refuses the account" in done.stderr
    assert "presign-key" not in done.stderr
