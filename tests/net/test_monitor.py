"""Changes of the network are heard from the kernel, once each, and its repetitions are not."""

import asyncio
import ctypes
import os
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from dumbwaiter.net import monitor as module
from dumbwaiter.net.http import Http
from dumbwaiter.net.monitor import NetworkMonitor
from dumbwaiter.wire.message import Request
from program import Program, Vendors

CLONE_NEWNET = 0x40000000


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def apart(test: Callable[[asyncio.Queue[str]], Awaitable[None]]) -> int:
    """Runs a test in a network of its own, with what is heard there; returns of how many things it is known how they are."""
    failures: list[BaseException] = []
    known = 0

    async def heard() -> None:
        news: asyncio.Queue[str] = asyncio.Queue()
        monitor = NetworkMonitor(lambda: news.put_nowait("changed"))
        try:
            await test(news)
        finally:
            nonlocal known
            known = len(monitor._known)
            monitor.close()

    def thread() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
                pytest.skip(f"no network of one's own can be made here: {os.strerror(ctypes.get_errno())}")
            asyncio.run(heard())
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            failures.append(error)

    worker = threading.Thread(target=thread)  # only this thread changes to the other network
    worker.start()
    worker.join()
    for error in failures:
        raise error
    return known


async def told(news: asyncio.Queue[str]) -> None:
    async with asyncio.timeout(20):
        await news.get()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET", 0.1)


def test_a_link_and_addresses_that_come_and_go_are_heard() -> None:
    async def test(news: asyncio.Queue[str]) -> None:
        for change in (
            "link set lo up",
            "address add 192.0.2.7/32 dev lo",
            "address del 192.0.2.7/32 dev lo",
            "address add 2001:db8::7/128 dev lo nodad",
            "link set lo down",
        ):
            ip(*change.split())
            await told(news)
            assert news.empty()

    apart(test)


def test_the_renewed_life_of_an_address_is_no_news() -> None:
    async def test(news: asyncio.Queue[str]) -> None:
        ip("link", "set", "lo", "up")
        await told(news)
        ip("address", "add", "192.0.2.7/32", "dev", "lo", "valid_lft", "1000", "preferred_lft", "1000")
        await told(news)
        for life in ("2000", "3000"):
            ip("address", "change", "192.0.2.7/32", "dev", "lo", "valid_lft", life, "preferred_lft", life)
        ip("address", "add", "192.0.2.8/32", "dev", "lo")
        await told(news)
        assert news.empty()

    apart(test)


def test_many_changes_at_once_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET", 1.0)

    async def test(news: asyncio.Queue[str]) -> None:
        ip("link", "set", "lo", "up")
        for number in range(1, 6):
            ip("address", "add", f"192.0.2.{number}/32", "dev", "lo")
        await told(news)
        assert news.empty()

    apart(test)


def test_changes_without_end_are_told_all_the_same_and_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET", 100.0)
    monkeypatch.setattr(module, "LONGEST", 0.2)

    async def test(news: asyncio.Queue[str]) -> None:
        ip("link", "set", "lo", "up")
        await told(news)
        for number in range(1, 6):
            ip("address", "add", f"192.0.2.{number}/32", "dev", "lo")
            ip("address", "del", f"192.0.2.{number}/32", "dev", "lo")
        await told(news)

    assert apart(test) <= 3  # the link, and the addresses that it has


def test_a_message_that_is_none_is_passed_over() -> None:
    assert list(module._news(b"")) == []
    assert list(module._news(b"\0" * 64)) == []
    assert list(module._news(b"\xff" * 7)) == []


def test_another_network_is_another_connection(vendors: Vendors) -> None:
    """What was idle is not used again; what is on its way ends in peace."""

    async def test() -> None:
        http = Http()
        url = vendors.sandbox.urls["sandbox"]
        try:
            await http.call(Request("ask", "GET", f"{url}/_sandbox/log"))
            before = http._calls
            under_way = asyncio.create_task(http.call(Request("ask", "GET", f"{url}/_sandbox/log")))
            await asyncio.sleep(0)
            http.renew()
            assert http._calls is not before
            assert (await under_way).status == 200
            assert (await http.call(Request("ask", "GET", f"{url}/_sandbox/log"))).status == 200
        finally:
            await http.close()
        assert before.is_closed

    asyncio.run(test())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give this machine an address")
def test_a_daemon_that_waits_for_the_network_goes_on_when_it_changes(program: Program) -> None:
    api = program.vendors.sandbox.urls["vod"]
    net = f"127.{os.getpid() % 200 + 20}.{time.time_ns() // 1000 % 200 + 20}"
    program.config.write_text(program.config.read_text().replace(api, "http://127.0.0.1:1"))
    program.write("a.bin", b"a")
    program.start()
    program.until(lambda: attempts(program) >= 3)
    for number in range(1, 6):  # a try that begins at the very moment of the change is none of those that waited
        try:
            ip("address", "add", f"{net}.{number}/32", "dev", "lo")
            with suppress(AssertionError):
                program.until(lambda: attempts(program) < 3, patience=5)
                break  # it began anew, and without the wait of the third
        finally:
            ip("address", "del", f"{net}.{number}/32", "dev", "lo")
    else:
        pytest.fail("it waits as before")
    said = program.log.read_text()
    assert "the network changed" in said
    assert "scanning again" not in said  # the folders are this machine's


def attempts(program: Program) -> int:
    jobs: list[dict[str, Any]] = program.status()["jobs"]
    return max((job["attempts"] for job in jobs), default=0)
