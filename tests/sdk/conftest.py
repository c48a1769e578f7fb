"""The vendors' clients leave connections to the garbage collector."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Has them collected where their warning is expected, and not in whichever test comes next."""
    yield
    gc.collect()
