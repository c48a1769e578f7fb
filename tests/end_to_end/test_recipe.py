"""Providers that only the configuration knows."""

import os
import random
import re
import tomllib
from pathlib import Path

from dumbwaiter.config import Config, parse
from dumbwaiter.model import MIB
from program import Program, digest

PAGE = Path(__file__).parents[2] / "docs/recipes.md"
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)[1:]  # the first one is a sketch


def test_the_examples_of_the_page_are_configurations() -> None:
    assert len(EXAMPLES) == 2
    for text in EXAMPLES:
        assert isinstance(parse(text, "recipes.md"), Config)


def test_jiandaoyuns_hundred_tokens_are_described_as_the_page_says(program: Program) -> None:
    account = tomllib.loads(program.config.read_text())["provider"]["jiandaoyun"]
    text = EXAMPLES[1].replace("https://api.jiandaoyun.com/api", account["api"])
    for name in ("app_id", "entry_id"):
        text = re.sub(rf'{name} = "\w+"', f'{name} = "{account[name]}"', text)
    with program.config.open("a") as file:
        file.write(text)
    contents = {f"{number}.txt": os.urandom(100 + number) for number in range(5)}
    for name, content in contents.items():
        (program.folder / name).write_bytes(content)
    paths = [program.folder / name for name in contents]
    done = program("put", "--provider", "attachments", *paths, environment={"JDY_KEY": account["api_key"]})
    assert done.returncode == 0, done.stderr
    assert len(program.vendors.log("token")) == 1
    assert set(program.objects()) == {digest(content) for content in contents.values()}


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
