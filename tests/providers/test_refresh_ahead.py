"""What is kept between calls, and renewed ahead of its end."""

import asyncio

import pytest

import hand_made
from dumbwaiter.errors import Retry
from dumbwaiter.providers.refresh_ahead import APART, RENEW, RefreshAhead
from hand_made import LIFE, Source, Turned, run, turn

clock = hand_made.clock


def test_fifty_who_wait_make_one_fetch(clock: Turned) -> None:
    async def test() -> None:
        one, source = RefreshAhead(), Source()
        source.hold.clear()
        waiting = [asyncio.create_task(one.get("nodes", LIFE, source)) for _ in range(50)]
        await turn()
        source.hold.set()
        assert set(await asyncio.gather(*waiting)) == {"value 1"}
        assert source.fetched == 1

    run(test)


def test_a_value_is_kept_for_most_of_its_life(clock: Turned) -> None:
    async def test() -> None:
        one, source = RefreshAhead(), Source()
        assert await one.get("nodes", LIFE, source) == "value 1"
        clock.passed = LIFE * RENEW
        assert await one.get("nodes", LIFE, source) == "value 1"
        await turn()
        assert source.fetched == 1

    run(test)


def test_near_its_end_it_is_renewed_in_the_background(clock: Turned) -> None:
    async def test() -> None:
        one, source = RefreshAhead(), Source()
        await one.get("nodes", LIFE, source)
        clock.passed = LIFE * RENEW + 1
        source.hold.clear()
        assert [await one.get("nodes", LIFE, source) for _ in range(10)] == ["value 1"] * 10
        await turn()
        assert source.fetched == 2
        source.hold.set()
        await turn()
        assert await one.get("nodes", LIFE, source) == "value 2"
        assert source.fetched == 2

    run(test)


def test_past_its_end_who_asks_waits_for_the_new_one(clock: Turned) -> None:
    async def test() -> None:
        one, source = RefreshAhead(), Source()
        await one.get("nodes", LIFE, source)
        clock.passed = LIFE + 1
        assert await one.get("nodes", LIFE, source) == "value 2"

    run(test)


def test_the_old_value_stays_while_it_cannot_be_renewed(clock: Turned) -> None:
    async def test() -> None:
        one, source = RefreshAhead(), Source()
        await one.get("nodes", LIFE, source)
        source.fails = Retry("the source is away")
        for clock.passed in (LIFE * RENEW + 1, LIFE + 1, LIFE * 100):
            assert await one.get("nodes", LIFE, source) == "value 1"
            await turn()
        assert source.fetched == 4
        source.fails = None
        clock.passed += APART
        assert await one.get("nodes", LIFE, source) == "value 5"

    run(test)


def test_what_cannot_be_renewed_is_asked_for_now_and_then_and_not_by_each_file(clock: Turned) -> None:
    async def test() -> None:
        one, source = RefreshAhead(), Source()
        await one.get("session", LIFE, source)
        source.fails = Retry("the source is away")
        for passed in (LIFE * RENEW + 1, LIFE + 1):
            for number in range(10):
                clock.passed = passed + number
                assert await one.get("session", LIFE, source) == "value 1"
                await turn()
        assert source.fetched == 3
        one.forget("session", "value 1")  # refused: the old one does no more
        with pytest.raises(Retry):
            await one.get("session", LIFE, source)
        source.fails = None
        assert await one.get("session", LIFE, source) == "value 5"

    run(test)


def test_the_first_failure_is_raised_to_all_and_tried_again(clock: Turned) -> None:
    async def test() -> None:
        one, source = RefreshAhead(), Source()
        source.fails = Retry("the source is away")
        failures = await asyncio.gather(*(one.get("nodes", LIFE, source) for _ in range(3)), return_exceptions=True)
        assert [str(failure) for failure in failures] == ["the source is away"] * 3
        assert source.fetched == 1
        source.fails = False
        assert await one.get("nodes", LIFE, source) == "value 2"

    run(test)


def test_a_waiter_who_leaves_does_not_end_the_fetch_of_the_others(clock: Turned) -> None:
    async def test() -> None:
        one, source = RefreshAhead(), Source()
        source.hold.clear()
        leaves, stays = (asyncio.create_task(one.get("nodes", LIFE, source)) for _ in range(2))
        await turn()
        leaves.cancel()
        await turn()
        source.hold.set()
        assert await stays == "value 1"
        assert leaves.cancelled()

    run(test)


def test_values_are_kept_by_name(clock: Turned) -> None:
    async def test() -> None:
        one, first, second = RefreshAhead(), Source(), Source()
        assert [await one.get("a", LIFE, first), await one.get("b", LIFE, second)] == ["value 1"] * 2
        assert (first.fetched, second.fetched) == (1, 1)

    run(test)


def test_a_refused_value_is_fetched_anew_if_it_still_is_that_one(clock: Turned) -> None:
    async def test() -> None:
        one, source = RefreshAhead(), Source()
        await one.get("session", LIFE, source)
        one.forget("session", "another value")
        one.forget("nothing", "value 1")
        assert await one.get("session", LIFE, source) == "value 1"
        one.forget("session", "value 1")
        assert await one.get("session", LIFE, source) == "value 2"

    run(test)


def test_what_nears_its_end_is_due_and_what_is_forgotten_waits_to_be_asked_for(clock: Turned) -> None:
    async def test() -> None:
        one, source = RefreshAhead(), Source()
        await one.get("session", LIFE, source)
        await one.get("nodes", LIFE, source)
        assert one.due() == []
        clock.passed = LIFE * RENEW + 1
        one.forget("nodes", "value 2")
        assert one.due() == ["session"]
        await one.renew("session")
        assert (one.due(), one.refreshes) == ([], 3)

    run(test)
