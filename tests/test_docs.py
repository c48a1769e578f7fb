"""What the pages show is what the program takes."""

import re
from pathlib import Path

import pytest

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


def test_every_broker_has_its_place_in_the_pages() -> None:
    shown = {
        provider.__struct_config__.tag
        for page in ("docs/providers.md", "docs/recipes.md")
        for block in re.findall(r"```toml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        if "[provider.NAME]" not in block
        for provider in parse(block, page).provider.values()
    }
    assert shown == set(BROKERS)
