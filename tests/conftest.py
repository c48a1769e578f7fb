"""What every test can ask for."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from program import Program

# How long an example takes says how busy the machine is, and nothing else.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """The program with folders of its own, and every vendor on loopback."""
    with Program(tmp_path) as made:
        yield made
