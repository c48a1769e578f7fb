"""A read ends by its deadline, also while its connection is still being made."""

import errno
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from dumbwaiter.model import Entry, Stamp
from dumbwaiter_fs import origins
from dumbwaiter_fs.remote import Remote
from dumbwaiter_fs.versions import Versions
from fs.world import Origin

BODY = b"abc"
NAME = "files.example"

Names = Callable[[Callable[[], list[str]]], None]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Has a function say what the provider's name stands for."""
    real = socket.getaddrinfo

    def stand_for(addresses: Callable[[], list[str]]) -> None:
        def look_up(host: str, port: int, *rest: int, **more: int) -> object:
            if host != NAME:
                return real(host, port, *rest, **more)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses()]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)

    return stand_for


def silent(address: str, port: int, stack: ExitStack) -> None:
    """Makes an address where no connection is refused, and none is made."""
    server = stack.enter_context(socket.create_server((address, port), backlog=0))
    for _ in range(3):  # what comes after these is dropped
        client = stack.enter_context(socket.socket())
        client.setblocking(False)
        client.connect_ex(server.getsockname())


def read(at: Remote, origin: Origin, key: str = "k") -> bytes:
    url = origin.put("a", BODY).replace("127.0.0.1", NAME)
    return Versions(at).hold(Entry(1, "p", key, "w", "a", Stamp(0, len(BODY), 0, 0), 0.0, url=url)).read(0, len(BODY))


def ends_in_time(at: Remote, origin: Origin, key: str = "k") -> None:
    start = time.monotonic()
    with pytest.raises(OSError, match=r"\[Errno") as raised:
        read(at, origin, key)
    assert raised.value.errno == errno.ETIMEDOUT
    assert time.monotonic() - start < at.deadline + 1


def test_a_name_server_that_does_not_answer_meets_the_deadline_and_holds_one_thread(
    origin: Origin, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origins, "REST", 0.0)
    asked, answers = [], threading.Event()

    def addresses() -> list[str]:
        asked.append(threading.current_thread())
        answers.wait(20)
        return ["127.0.0.1"]

    names(addresses)
    at = Remote(0.5)
    try:
        with ThreadPoolExecutor(4) as pool:
            for one in [pool.submit(ends_in_time, at, origin, f"k{number}") for number in range(4)]:
                one.result()
        assert len(asked) == 1
    finally:
        answers.set()
    at.deadline = 10.0
    assert read(at, origin) == BODY
    at.close()


def test_addresses_that_do_not_answer_share_the_deadline(origin: Origin, names: Names) -> None:
    silence = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    names(lambda: silence)
    at = Remote(1.5)
    with ExitStack() as stack:
        for address in silence:
            silent(address, urlsplit(origin.url("")).port or 0, stack)
        ends_in_time(at, origin)
    at.close()


def test_the_second_address_is_read_from_where_the_first_does_not_answer(
    origin: Origin, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origins, "CONNECT", 0.3)
    names(lambda: ["127.0.0.2", "127.0.0.1"])
    at = Remote(10.0)
    with ExitStack() as stack:
        silent("127.0.0.2", urlsplit(origin.url("")).port or 0, stack)
        assert read(at, origin) == BODY
    at.close()
