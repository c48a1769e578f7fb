"""What every test can ask for."""

import gc
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings

from program import Program, Vendors
from sending import Sender

# Whoever starts the tests in the background may hand on that Ctrl-C is ignored; what they start would do so too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is, and nothing else.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected is there to the end: no test's search for garbage need look at it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def certificates() -> Iterator[None]:
    """All certificates, read once and not for each of the many clients."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx, "create_ssl_context", cache(httpx.create_ssl_context))
        yield


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """The program with folders of its own, and every vendor on loopback."""
    with Program(tmp_path) as made:
        yield made


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A small file in a watched folder."""
    path = tmp_path / "drop/films/film.mov"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"0123456789")
    return path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendors]:
    """The vendors on loopback, once a module."""
    made = Vendors(tmp_path_factory.mktemp("vendors"))
    yield made
    made.close()


@pytest.fixture
def vendors(running: Vendors) -> Vendors:
    """The vendors, clean for each test."""
    for path in ("faults", "options", "log"):
        running.http.delete(f"/_sandbox/{path}").raise_for_status()
    running.http.post("/_sandbox/clock", json={"shift": 0}).raise_for_status()
    return running


@pytest.fixture
def sender(vendors: Vendors, tmp_path: Path) -> Iterator[Callable[..., Sender]]:
    """Makes a sender for some content: `sender("netease", b"bytes", name="film.mov")`."""
    with ExitStack() as stack:

        def make(provider: str, content: bytes, name: str = "film.mov", **arguments: Any) -> Sender:
            folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            path = folder / "content"
            path.write_bytes(content)
            return stack.enter_context(Sender.of(vendors, provider, path, name=name, **arguments))

        yield make
