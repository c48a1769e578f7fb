"""A provider at work, with a broker made by hand and a clock to turn."""

import asyncio
from types import SimpleNamespace

import pytest

import hand_made
from dumbwaiter.errors import Blocked, JournalTrouble, Retry
from dumbwaiter.providers.refresh_ahead import RENEW
from dumbwaiter.wire.message import FileSlice, Reply, Request
from hand_made import LIFE, NOW, Bank, Source, Told, Turned, provider, run

clock = hand_made.clock


# The account


def test_a_value_is_renewed_by_the_life_that_it_was_last_given(clock: Turned) -> None:
    async def test() -> None:
        one, source = provider(clock), Source()
        await one.cached("session", 10 * LIFE, source)  # before it is known
        await one.cached("session", LIFE, source)
        clock.passed = LIFE * RENEW + 1
        await one.refresh(Told())
        assert source.fetched == 2

    run(test)


def test_refreshing_renews_what_nears_its_end_and_nothing_else(clock: Turned) -> None:
    async def test() -> None:
        one, old, young = provider(clock), Source(), Source()
        await one.cached("old", LIFE, old)
        await one.cached("young", 10 * LIFE, young)
        clock.passed = LIFE * RENEW + 1
        await one.refresh(Told())
        assert (old.fetched, young.fetched) == (2, 1)
        assert one.health.trouble is None
        old.fails = Retry("the source is away")
        clock.passed *= 2
        await one.refresh(Told())
        assert one.health.trouble == "the source is away"
        assert await one.cached("old", LIFE, old) == "value 2"

    run(test)


def test_a_refused_account_is_told_of_once_and_again_when_the_journal_could_not_take_it(clock: Turned) -> None:
    async def test() -> None:
        one, source, person = provider(clock), Source(), Told(JournalTrouble("the disk is full"))
        await one.cached("session", LIFE, source)
        source.fails = Blocked("the password is another one")
        clock.passed = LIFE + 1
        with pytest.raises(JournalTrouble):
            await one.refresh(person)
        assert one.health.paused_until > clock.now()
        assert not one.health.blocked
        for _ in range(2):
            one.health.again()
            await one.refresh(person)
            assert one.health.blocked
        await one.block("a file met it too", clock.now() + 1, person)
        assert person.heard == [("vod", "the password is another one")]

    run(test)


def test_a_renewal_that_is_refused_is_told_of_and_stops_nothing_before_the_old_value_ends(clock: Turned) -> None:
    async def test() -> None:
        one, source, person = provider(clock), Source(), Told()
        await one.cached("session", LIFE, source)
        source.fails = Blocked("the password is another one")
        clock.passed = LIFE * RENEW + 1
        for _ in range(2):
            await one.refresh(person)
            assert (one.health.trouble, one.health.state(clock.now())) == ("the password is another one", "ready")
        assert person.heard == [("vod", "the password is another one")]
        clock.passed = LIFE + 1
        await one.refresh(person)
        assert one.health.state(clock.now()) == "blocked"
        assert len(person.heard) == 2

    run(test)


# The desk


def test_requests_keep_the_vendors_pace(clock: Turned, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second's worth at once after a rest, then one at a time; uploads are counted where the vendor does."""
    waits: list[float] = []

    def pass_by(seconds: float) -> None:
        waits.append(seconds)
        clock.passed += seconds

    async def sleep(seconds: float) -> None:
        pass_by(seconds)

    async def call(request: Request) -> Reply:
        return Reply(200)

    class Slow(Bank):
        requests = 10.0
        uploads = 2.0

    async def test() -> None:
        one = provider(clock, Slow())
        one._http = SimpleNamespace(call=call)  # type: ignore[assignment]
        monkeypatch.setattr(asyncio, "sleep", sleep)
        for _ in range(30):
            await one.call(Request("x", "GET", "http://x"))
        assert sum(waits) == pytest.approx(2.0)
        waits.clear()
        clock.passed += 100
        one._http = SimpleNamespace(exchange=lambda request, abort: Reply(200))  # type: ignore[assignment]
        abort = SimpleNamespace(wait=pass_by)
        for _ in range(6):
            one.exchange(Request("x", "PUT", "http://x", body=FileSlice(0, 0, 1)), abort)  # type: ignore[arg-type]
        assert sum(waits) == pytest.approx(2.0)
        waits.clear()
        for _ in range(100):
            one.exchange(Request("x", "GET", "http://x"), abort)  # type: ignore[arg-type]
        assert waits == []
        monkeypatch.undo()

    asyncio.run(test())


def test_a_node_that_named_another_is_tried_after_it(clock: Turned) -> None:
    one = provider(clock)
    one._http.order = list  # type: ignore[method-assign]
    assert one.order(("a", "b")) == ["a", "b"]
    one.better("a", "c")
    assert one.order(("a", "b")) == ["c", "a", "b"]
    one.better("a", "b")
    assert one.order(("a", "b")) == ["b", "a"]


def test_time_is_told_as_the_server_has_it(clock: Turned) -> None:
    async def test() -> None:
        one = provider(clock)
        assert one.now("http://x") == NOW + 7.0
        assert one.skew("http://x") == 7.0
        assert len({one.nonce() for _ in range(1000)}) == 1000

    run(test)
