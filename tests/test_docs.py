"""What the pages show is what the program takes."""

import re
import shlex
from pathlib import Path

import click
import pytest

from dumbwaiter.cli import cli
from dumbwaiter.config import BROKERS, Config, parse

ROOT = Path(__file__).parent.parent
BLOCKS = [
    pytest.param(page, block, id=f"{page}-{number}")
    for page in ("README.md", "docs/providers.md", "docs/reference.md")
    for number, block in enumerate(re.findall(r"```toml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL))
]


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_every_configuration_shown_is_taken(page: str, block: str) -> None:
    config = parse(block, page)
    assert isinstance(config, Config)
    assert config.provider


COMMANDS = [
    pytest.param(line, id=f"{page}: {line}")
    for page in ("README.md", "docs/operating.md", "docs/security.md")
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    for line in block.splitlines()
    if re.match(r"(sudo )?dumbwaiter ", line)
]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_shown_is_one(line: str) -> None:
    """It is read with its options, and not run: what each does, the tests of the commands show."""
    words = shlex.split(line.removeprefix("sudo "), comments=True)[1:]
    command: click.Command = cli
    context: click.Context | None = None
    while isinstance(command, click.Group):
        command.make_context(words[0], [*words], parent=context, resilient_parsing=True)
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"no command {words[0]}"
        command, words = found, words[1:]
    with click.Context(cli, obj=type("Session", (), {"json": False})()) as context:
        command.make_context(str(command.name), words, parent=context)


def test_every_broker_has_its_place_in_the_pages() -> None:
    shown = {
        provider.__struct_config__.tag
        for page in ("docs/providers.md", "docs/recipes.md")
        for block in re.findall(r"```toml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        if "[provider.NAME]" not in block
        for provider in parse(block, page).provider.values()
    }
    assert shown == set(BROKERS)
