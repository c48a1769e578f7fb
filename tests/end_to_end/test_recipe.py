"""Providers that only the configuration knows."""

import os
import random
from typing import get_args, get_type_hints

import pytest

import peer
import recipes
from dumbwaiter.config import options
from dumbwaiter.config.file import parse
from dumbwaiter.model import MIB
from dumbwaiter.naming import shown
from peer import Peer
from program import Program, digest


@pytest.mark.parametrize("name", ["signed", "forms", "bucket", "attachments"])
def test_an_example_of_the_page_uploads_and_its_files_are_in_the_catalog(program: Program, name: str) -> None:
    with program.config.open("a") as file:
        file.write(f'{recipes.text(program.vendors.sandbox)}\n[watch.example]\npath = "{program.folder}/example"\n')
        file.write(f'provider = "{name}"\nsettle = "200ms"\n')
    contents = {f"{number} 相册.txt": os.urandom(length) for number, length in enumerate((1, 70_000, 5 * MIB))}
    (program.folder / "example").mkdir()
    for path, content in contents.items():
        (program.folder / "example" / path).write_bytes(content)
    program.start()
    assert program("wait").returncode == 0
    entries = program.facts("ls", "example")
    assert {one["path"] for one in entries} == contents.keys()
    assert {one["provider"] for one in entries} == {name}
    assert set(program.objects()) == {digest(content) for content in contents.values()}
    assert len(program.vendors.log("token")) == (name == "attachments")  # a hundred come in one answer


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("", 'stored = { key = "id" }'),
        ("?as={key}", 'stored = { key = "id" }'),
        ("", 'many = true\nstored = { key = "id" }'),
        ("", 'many = true\nreply.key = "id"'),
    ],
)
def test_a_file_that_the_service_names_like_another_needs_a_person(program: Program, asked: str, answered: str) -> None:
    """Its answer says so, or one permission names all: the other's entry had gone without a word, and its original with `after`."""
    answer = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{"id":"album"}'
    first, second = program.folder / "first.jpg", program.folder / "second.jpg"
    with Peer(peer.echo([], answer)) as service, program.config.open("a") as file:
        file.write(
            f'[provider.album]\nbroker = "recipe"\ntransport = "form"\nrequest = {{ url = "{service.url}{asked}" }}\n'
            f"reply.url = \"'{service.url}/upload'\"\n{answered}\n"
        )
        file.flush()
        first.write_bytes(b"one picture")
        second.write_bytes(b"another picture")
        assert program("put", "--provider", "album", str(first)).returncode == 0
        refused = program("put", "--provider", "album", str(second))
        assert refused.returncode == 20
        assert f"the provider has put{first} as album, and names this file the same" in refused.stderr
        second.write_bytes(first.read_bytes())
        first.write_bytes(b"a new version")
        assert program("put", "--provider", "album", str(first)).returncode == 0
    assert [one["path"] for one in program.facts("ls", "keys/album")] == [str(first).removeprefix("/")]


def test_what_is_forgotten_is_not_sent_to_its_end(program: Program) -> None:
    program.drop = program.data / "drop/recipe"
    program.vendors.faults("presign.put:slow=200k")
    program.start()
    program.write("film.mov", os.urandom(8 * MIB))
    program.until(lambda: program.vendors.log("put"))
    (job,) = program.status()["jobs"]
    assert program("forget", str(job["id"])).returncode == 0
    program.until(lambda: program.vendors.log("put")[0]["finished"])
    assert program.objects() == []
    program.vendors.faults("")
    program.write("other.mov", b"other")
    assert program("wait").returncode == 0
    assert program.objects() == [digest(b"other")]


def test_every_transport_that_a_recipe_can_name_has_its_example() -> None:
    shown = [one.transport for one in map(_recipe, recipes.EXAMPLES)]
    assert sorted(shown) == sorted(get_args(get_type_hints(options.Recipe)["transport"]))


def _recipe(text: str) -> options.Recipe:
    (one,) = parse(text, "recipes.md").provider.values()
    assert isinstance(one, options.Recipe)
    return one


def test_a_service_that_signs_addresses_is_described_in_the_configuration(program: Program) -> None:
    numbers = random.Random(8)
    folder = program.data / "drop/recipe"
    wanted = {}
    sizes = {"empty.txt": 0, "one.bin": 1, "相册.jpg": 70_000, "large.bin": 9 * MIB, "new\nline.jpg": 10}
    for name, length in sizes.items():
        (folder / name).write_bytes(numbers.randbytes(length))
        wanted[shown(name)] = digest((folder / name).read_bytes())
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
