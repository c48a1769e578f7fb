"""Where files can be read: asked for once, kept while it is good, never ahead of a reader."""

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dumbwaiter.doors import Desk
from dumbwaiter.errors import Blocked, Exit, Failure, Reject, Retry
from dumbwaiter.model import Entry, Link, Stamp
from dumbwaiter.providers.addresses import MARGIN, Addresses

NOW = 1_800_000_000.0


class Signer:
    """A broker that signs a new address each time, or says what it is told to."""

    def __init__(self, *answers: Any, life: float | None = 600.0) -> None:
        self.answers = list(answers)
        self.life = life
        self.asked = 0

    async def link(self, entry: Entry, desk: Desk) -> Link | None:
        self.asked += 1
        await asyncio.sleep(0)
        answer: Any = self.answers.pop(0) if self.answers else self._signed()
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    def _signed(self) -> Link:
        return Link(f"https://h/{self.asked}", None if self.life is None else NOW + self.life)


def entry(number: int = 1, url: str | None = None, provider: str = "p") -> Entry:
    return Entry(number, provider, "k", "w", "a/b", Stamp(1, 2, 3, 4), 0.0, url=url)


def addresses(signer: Signer, clock: Any = lambda: NOW) -> Addresses:
    provider: Any = SimpleNamespace(name="p", broker=signer)
    return Addresses({"p": provider}, clock)


def test_many_who_want_one_address_cause_one_request() -> None:
    signer = Signer()

    async def run() -> set[str]:
        kept = addresses(signer)
        links = await asyncio.gather(*(kept.link(entry()) for _ in range(20)))
        return {link.url for link in links}

    assert asyncio.run(run()) == {"https://h/1"}
    assert signer.asked == 1


def test_an_address_is_not_given_for_the_next_entry_of_the_same_number() -> None:
    signer = Signer()

    async def run() -> None:
        kept = addresses(signer)
        await kept.link(entry())
        await kept.link(msgspec.structs.replace(entry(), key="another"))

    asyncio.run(run())
    assert signer.asked == 2


def test_an_address_is_kept_until_shortly_before_its_end() -> None:
    signer, now = Signer(), [NOW]

    async def run() -> list[str]:
        kept = addresses(signer, lambda: now[0])
        found = [(await kept.link(entry())).url]
        now[0] = NOW + 600 - MARGIN - 1
        found.append((await kept.link(entry())).url)
        now[0] = NOW + 600 - MARGIN
        found.append((await kept.link(entry())).url)
        return [*found, (await kept.link(entry(2))).url]

    assert asyncio.run(run()) == ["https://h/1", "https://h/1", "https://h/2", "https://h/3"]


def test_a_refused_address_is_asked_for_anew() -> None:
    signer = Signer(life=None)

    async def run() -> list[str]:
        kept = addresses(signer)
        first = await kept.link(entry())
        return [first.url, (await kept.link(entry(), first.url)).url, (await kept.link(entry(), first.url)).url]

    assert asyncio.run(run()) == ["https://h/1", "https://h/2", "https://h/2"]


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (Retry("the vendor is busy"), Exit.TEMPORARY, "busy"),
        (Reject("there is no such record"), Exit.FAILED, "no such record"),
        (Blocked("the key is refused"), Exit.ACCOUNT, "key is refused"),
        (None, Exit.FAILED, "gives no way to read it back"),
    ],
)
def test_a_failure_is_said_and_not_kept(answer: Any, code: Exit, words: str) -> None:
    signer = Signer(answer)

    async def run() -> str:
        kept = addresses(signer)
        with pytest.raises(Failure, match=words) as raised:
            await kept.link(entry())
        assert raised.value.code is code
        assert str(raised.value).startswith("w/a/b: ")
        return (await kept.link(entry())).url

    assert asyncio.run(run()) == "https://h/2"


def test_a_provider_that_is_not_configured_here_has_no_address() -> None:
    with pytest.raises(Failure, match='no provider named "other"'):
        asyncio.run(addresses(Signer()).link(entry(provider="other")))


def test_one_who_gives_up_takes_nothing_from_the_others() -> None:
    signer = Signer()

    async def run() -> str:
        kept = addresses(signer)
        first = asyncio.create_task(kept.link(entry()))
        second = asyncio.create_task(kept.link(entry()))
        await asyncio.sleep(0)
        first.cancel()
        return (await second).url

    assert asyncio.run(run()) == "https://h/1"
