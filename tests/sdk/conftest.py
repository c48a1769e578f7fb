"""The vendors' clients leave connections to the garbage collector."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from program import Vendors


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Has them collected where their warning is expected, and not in whichever test comes next."""
    yield
    gc.collect()


@pytest.fixture
def vendors(tmp_path: Path) -> Iterator[Vendors]:
    """The vendors, anew for each test."""
    made = Vendors(tmp_path)
    yield made
    made.close()
