"""What follows a verdict: the whole table, and the arithmetic of waiting."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter import errors
from dumbwaiter.errors import (
    Blocked,
    Changed,
    Conflict,
    Gone,
    Local,
    Offline,
    Paused,
    Reauth,
    Reject,
    Restart,
    Retry,
    Skipped,
    Unfit,
    Verdict,
)
from dumbwaiter.lifecycle import GONE, REPLACED
from dumbwaiter.policy import (
    AFTER_MAX,
    AT_ONCE,
    DEAR,
    PAUSE,
    Again,
    Decision,
    Delay,
    Pause,
    Rejected,
    Superseded,
    ceiling,
    decide,
)

NOW = 1_000_000.0
HALF = 0.5


def decided(verdict: Verdict, attempts: int = 0, *, fresh: bool = False, again: int = 0) -> Decision:
    return decide(verdict, attempts, NOW, lambda: HALF, fresh=fresh, again=again)


# verdict, failures before, grant asked for in this attempt, times gone on at once -> decision
TABLE: list[tuple[Verdict, int, bool, int, Decision]] = [
    (Retry("r"), 0, False, 0, Delay(NOW + 0.5)),
    (Retry("r"), 1, False, 0, Delay(NOW + 1.0)),
    (Retry("r"), 5, True, 2, Delay(NOW + 16.0)),
    (Retry("r"), 8, False, 0, Delay(NOW + 128.0)),
    (Retry("r"), 9, False, 0, Delay(NOW + 150.0)),
    (Retry("r"), 500, False, 0, Delay(NOW + 150.0)),
    (Retry("r", after=7.0), 0, False, 0, Delay(NOW + 7.0)),
    (Retry("r", after=7.0), 9, True, 3, Delay(NOW + 7.0)),
    (Retry("r", after=0.0), 9, False, 0, Delay(NOW)),
    (Retry("r", after=AFTER_MAX), 0, False, 0, Delay(NOW + 3600)),
    (Retry("r", after=1e9), 0, False, 0, Delay(NOW + 3600)),
    (Retry("r", after=math.inf), 0, False, 0, Delay(NOW + 3600)),
    (Reauth("a"), 0, False, 0, Again(new_grant=True)),
    (Reauth("a"), 9, False, 2, Again(new_grant=True)),
    (Reauth("a"), 0, False, 3, Delay(NOW + 0.5, new_grant=True)),
    (Reauth("a"), 0, True, 0, Delay(NOW + 0.5, new_grant=True)),
    (Reauth("a"), 3, True, 0, Delay(NOW + 4.0, new_grant=True)),
    (Restart("s"), 0, False, 0, Again(from_start=True)),
    (Restart("s"), 0, True, 2, Again(from_start=True)),
    (Restart("s"), 0, True, 3, Delay(NOW + 0.5, from_start=True)),
    (Restart("s"), 2, False, 9, Delay(NOW + 2.0, from_start=True)),
    (Unfit("u"), 0, True, 0, Again(from_start=True)),
    (Reject("j"), 0, False, 0, Rejected()),
    (Reject("j"), 9, True, 3, Rejected()),
    (Offline("o"), 1, False, 0, Delay(NOW + 1.0)),
    (Local("l"), 1, False, 0, Delay(NOW + 1.0)),
    (Conflict("c"), 0, False, 0, Rejected()),
    (Skipped("s"), 0, False, 0, Superseded("s")),
    (Changed("c"), 0, False, 0, Superseded(REPLACED)),
    (Changed("c"), 9, True, 3, Superseded(REPLACED)),
    (Gone("g"), 0, False, 0, Superseded(GONE)),
    (Gone("g"), 9, True, 3, Superseded(GONE)),
    (Blocked("b"), 0, False, 0, Pause(NOW + PAUSE)),
    (Blocked("b"), 9, True, 3, Pause(NOW + PAUSE)),
]


@pytest.mark.parametrize(("verdict", "attempts", "fresh", "again", "decision"), TABLE)
def test_a_verdict_has_one_consequence(
    verdict: Verdict, attempts: int, fresh: bool, again: int, decision: Decision
) -> None:
    assert decided(verdict, attempts, fresh=fresh, again=again) == decision
    assert type(decided(verdict, attempts, fresh=fresh, again=again)) is type(decision)


def test_the_table_has_every_verdict() -> None:
    raised = {
        kind
        for kind in vars(errors).values()
        # A pause is the engine's own: it gives the job back, and nothing follows.
        if isinstance(kind, type) and issubclass(kind, Verdict) and kind not in {Verdict, Paused}
    }
    assert {type(row[0]) for row in TABLE} == raised


def test_a_wait_in_whole_seconds_is_a_wait() -> None:
    assert decided(Retry("r", after=60)) == Delay(NOW + 60.0)


def test_the_ceiling_doubles_from_one_second() -> None:
    assert [ceiling(attempts) for attempts in range(10)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]


@given(st.integers(0, 100_000))
def test_the_ceiling_never_falls_and_never_passes_five_minutes(attempts: int) -> None:
    assert 1 <= ceiling(attempts) <= ceiling(attempts + 1) <= 300


@given(
    st.sampled_from([Retry("r"), Reauth("a"), Restart("s")]),
    st.integers(0, 2000),
    st.floats(0, 1),
    st.floats(0, 2e9),
    st.booleans(),
    st.integers(AT_ONCE, 10),
)
def test_jitter_draws_from_now_up_to_the_ceiling(
    verdict: Verdict, attempts: int, drawn: float, now: float, fresh: bool, again: int
) -> None:
    decision = decide(verdict, attempts, now, lambda: drawn, fresh=fresh, again=again)
    assert isinstance(decision, Delay)
    assert now <= decision.due_at <= now + ceiling(attempts)
    assert decision.due_at == now + drawn * ceiling(attempts)
    assert (decision.new_grant, decision.from_start) == (type(verdict) is Reauth, type(verdict) is Restart)


@given(st.sampled_from([None, 0.0, 5.0, 1e9]), st.integers(0, 2000), st.floats(0, 1))
def test_what_was_sent_in_vain_again_and_again_is_sent_seldom(after: float | None, attempts: int, drawn: float) -> None:
    """A file that a server takes whole and then has no answer for costs all of its bytes each time."""
    verdict = Retry("r", after=after)
    decision = decide(verdict, attempts, NOW, lambda: drawn, fresh=False, again=0, dear=True)
    assert decision == Delay(NOW + max(drawn * DEAR, min(after or 0.0, AFTER_MAX)))


@given(st.floats(0, 1e12), st.integers(0, 100))
def test_a_server_never_makes_us_wait_for_more_than_an_hour(after: float, attempts: int) -> None:
    decision = decided(Retry("r", after=after), attempts)
    assert isinstance(decision, Delay)
    assert NOW <= decision.due_at <= NOW + AFTER_MAX


@given(st.booleans(), st.sampled_from([Reauth("a"), Restart("s")]))
def test_an_attempt_goes_on_at_once_only_so_often(fresh: bool, verdict: Verdict) -> None:
    """Whatever the remote does, an attempt comes to an end."""
    for again in range(AT_ONCE + 1):
        if not isinstance(decided(verdict, fresh=fresh, again=again), Again):
            break
    else:
        pytest.fail("never waits")
