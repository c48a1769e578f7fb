"""Pace: what may go now, and what has to wait."""

import threading
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from dumbwaiter.errors import Stopped
from dumbwaiter.model import KIB, MIB
from dumbwaiter.net import pace
from dumbwaiter.net.abort import Abort
from dumbwaiter.net.pace import PIECE, QUICK, SLOW, STEP, Abreast, Bandwidth, Bucket


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def wait(self, seconds: float, _until: Future[None]) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def test_a_seconds_worth_goes_at_once_after_a_rest_and_then_one_after_another(clock: Clock) -> None:
    bucket = Bucket(10)
    assert [bucket.take() for _ in range(10)] == pytest.approx([0.0] * 10)
    assert [bucket.take() for _ in range(3)] == pytest.approx([0.1, 0.2, 0.3])
    clock.now += 0.3
    assert bucket.take() == pytest.approx(0.1)
    clock.now += 60
    assert [bucket.take() for _ in range(11)] == pytest.approx([0.0] * 10 + [0.1])


def test_without_a_limit_nobody_waits(clock: Clock) -> None:
    bandwidth = Bandwidth()
    assert bandwidth.take(64 * MIB, Abort()) == STEP
    assert bandwidth.take(100, Abort()) == 100
    assert clock.now == 1000.0


def test_the_rate_is_kept_over_any_length_of_time(clock: Clock) -> None:
    bandwidth = Bandwidth(1 * MIB)
    sent = 0
    while sent < 20 * MIB:
        sent += bandwidth.take(4 * MIB, clock)  # type: ignore[arg-type]
    assert clock.now - 1000.0 == pytest.approx(19.0, abs=0.2)  # the first second's worth was saved up


def test_two_who_send_have_turns_as_long_as_each_other(clock: Clock) -> None:
    bandwidth = Bandwidth(1 * MIB)
    large = [bandwidth.take(100 * MIB, clock) for _ in range(50)]  # type: ignore[arg-type]
    small = [bandwidth.take(200 * KIB, clock) for _ in range(50)]  # type: ignore[arg-type]
    assert set(large) == set(small)


def test_a_new_rate_holds_for_the_next_turn(clock: Clock) -> None:
    bandwidth = Bandwidth(1 * MIB)
    for _ in range(30):
        bandwidth.take(MIB, clock)  # type: ignore[arg-type]
    bandwidth.set(None)
    before = clock.now
    assert bandwidth.take(64 * MIB, clock) == STEP  # type: ignore[arg-type]
    assert clock.now == before


def test_who_waits_for_a_turn_feels_a_lifted_limit_at_once() -> None:
    bandwidth, taken, waits = Bandwidth(1), Future[int](), threading.Event()

    class Waiting(Abort):
        def wait(self, seconds: float, until: Future[None] | None = None) -> None:
            waits.set()
            super().wait(seconds, until)

    threading.Thread(target=lambda: taken.set_result(bandwidth.take(MIB, Waiting())), daemon=True).start()
    waits.wait()  # for 4 KiB at one byte a second
    bandwidth.set(None)
    assert taken.result(60) == MIB


def test_who_waits_can_be_ended() -> None:
    bandwidth = Bandwidth(1)
    abort = Abort()
    abort()
    bandwidth.take(MIB, Clock())  # type: ignore[arg-type]
    with pytest.raises(Stopped):
        bandwidth.take(MIB, abort)  # 4 KiB at one byte a second


def test_under_a_small_limit_parts_go_one_at_a_time() -> None:
    """Side by side none of them would be home for hours, and the end of one permission would cost all."""
    bandwidth = Bandwidth()
    abreast = Abreast(bandwidth)
    assert abreast.most > 1000
    for rate, most in ((1.0, 1), (PIECE / SLOW, 1), (3 * PIECE / SLOW, 3)):
        bandwidth.set(rate)
        assert abreast.most == most
    bandwidth.set(None)
    assert abreast.most > 1000


def test_how_many_parts_go_side_by_side_is_learned_from_those_before() -> None:
    bandwidth = Bandwidth()
    abreast = Abreast(bandwidth)
    abreast.broke()
    assert abreast.most == 1
    for seconds, beside, most in (
        (QUICK - 1, 1, 2),
        (QUICK - 1, 2, 4),
        (QUICK + 1, 4, 4),
        (SLOW + 1, 3, 2),  # three were too many
        (SLOW + 1, 2, 1),
        (SLOW + 1, 1, 1),  # one there always is
    ):
        abreast.took(seconds, beside)
        assert abreast.most == most
    bandwidth.set(10 * PIECE / SLOW)
    assert abreast.most == 1  # what the line takes is not more for what a person allows
