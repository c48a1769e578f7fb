"""A prepared catalog, a provider's host, and mounts that never outlive their test."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fs.world import OVER_LIBFUSE3, Mounted, Origin, Shelf
from starter import starter


@pytest.fixture
def shelf(tmp_path: Any) -> Iterator[Shelf]:
    shelf = Shelf(os.path.realpath(tmp_path))
    yield shelf
    shelf.close()


@pytest.fixture
def origin() -> Iterator[Origin]:
    origin = Origin()
    yield origin
    origin.close()


@pytest.fixture(params=["fast", "fusepy"])
def mount(shelf: Shelf, request: pytest.FixtureRequest) -> Iterator[Callable[..., Mounted]]:
    """Mounts a shelf in each session, over libfuse 3 too in tests that are marked `also_libfuse3`; the test's own by
    default. Unmounts whatever happened."""
    mounts: list[Mounted] = []

    def make(*flags: str, on: Shelf | None = None, **more: Any) -> Mounted:
        chosen = on or shelf
        if request.param == "libfuse3":
            chosen.choose("fusepy")
            more = {**OVER_LIBFUSE3, **more}
        else:
            chosen.choose(request.param)
        mounts.append(Mounted(chosen, *flags, starter=starter(), **more))
        return mounts[-1].wait()

    yield make
    for mounted in reversed(mounts):
        mounted.clear()
