"""A provider with a broker made by hand, and clocks to turn."""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from dumbwaiter.broker import Broker
from dumbwaiter.doors import Desk
from dumbwaiter.errors import JournalTrouble, Verdict
from dumbwaiter.model import Ask, Grant
from dumbwaiter.net import pace
from dumbwaiter.providers import refresh_ahead
from dumbwaiter.providers.provider import Provider

NOW = 1_800_000_000.0
LIFE = 100.0


def ask(path: str = "a/film.mov", size: int = 10, mime: str = "video/quicktime") -> Ask:
    return Ask(watch="w", path=path, key=path, size=size, mime=mime, seed="seed")


class Bank(Broker):
    """Gives what its list says, in calls that a test holds back."""

    requests = 1e9

    def __init__(self, given: Sequence[Any] = (), batch: int = 1) -> None:
        self.given = list(given)
        self.batch = batch
        self.asked: list[list[str]] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def grants(self, asks: Sequence[Ask], desk: Desk) -> Sequence[Grant]:
        self.asked.append([one.path for one in asks])
        await self.hold.wait()
        answer = self.given.pop(0) if self.given else [Grant(one.path, one.path) for one in asks]
        if isinstance(answer, Exception):
            raise answer
        return list(answer)


class Turned:
    """The clocks of a provider."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed = 0.0
        turned = SimpleNamespace(monotonic=lambda: 5000.0 + self.passed, time=self.now)
        monkeypatch.setattr(refresh_ahead, "time", turned)
        monkeypatch.setattr(pace, "time", turned)

    def now(self) -> float:
        return NOW + self.passed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Turned:
    return Turned(monkeypatch)


def provider(clock: Turned, broker: Broker | None = None, **changes: Any) -> Provider:
    async def requested(count: int) -> None:
        counted.append(count)

    counted: list[int] = []
    arguments: dict[str, Any] = {"clock": clock.now, "requested": requested}
    made = Provider("vod", broker or Bank(), SimpleNamespace(skew=lambda url: 7.0), **(arguments | changes))  # type: ignore[arg-type]
    made.counted = counted  # type: ignore[attr-defined]
    return made


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs a test in a loop in which nothing may go unheard."""

    async def heard() -> None:
        unheard: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: unheard.append(context))
        async with asyncio.timeout(20):
            await test()
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
        assert unheard == []

    asyncio.run(heard())


class Told:
    """A person: what was said to him. The journal may be in trouble first."""

    def __init__(self, *troubles: JournalTrouble) -> None:
        self.troubles = list(troubles)
        self.heard: list[tuple[str, str]] = []

    async def __call__(self, provider: str, sentence: str) -> None:
        if self.troubles:
            raise self.troubles.pop()
        self.heard.append((provider, sentence))


class Source:
    """Something to be kept: counts how often it is fetched, and fails when told to."""

    def __init__(self) -> None:
        self.fetched = 0
        self.fails: Verdict | None = None
        self.hold = asyncio.Event()
        self.hold.set()

    async def __call__(self) -> str:
        self.fetched += 1
        number = self.fetched
        await self.hold.wait()
        if self.fails:
            raise self.fails
        return f"value {number}"


async def turn() -> None:
    """Lets what runs in the background come to its end."""
    for _ in range(5):
        await asyncio.sleep(0)
