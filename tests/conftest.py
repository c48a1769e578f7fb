"""What every test can ask for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from program import Program


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """The program with folders of its own, and every vendor on loopback."""
    with Program(tmp_path) as made:
        yield made
