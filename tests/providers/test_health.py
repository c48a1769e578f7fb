"""How a provider fares, with a clock to turn."""

import pytest

import hand_made
from dumbwaiter.errors import Retry
from dumbwaiter.policy import AFTER_MAX, ceiling
from dumbwaiter.providers.health import FAILING, LOST, PROBE, REFUSALS, REFUSED_APART, Health
from hand_made import NOW, Turned

clock = hand_made.clock


def test_a_providers_state_is_one_word(clock: Turned) -> None:
    one = Health(clock.now)
    assert one.state(NOW) == "ready"
    one.paused_until = NOW + 1
    assert one.state(NOW) == "paused"
    assert one.state(NOW + 2) == "ready"
    one.blocked = True
    assert one.state(NOW + 2) == "blocked"
    one.again()  # until that is refused too
    assert one.state(NOW + 2) == "ready"
    one.paused_until = NOW + 900
    assert one.state(NOW + 2) == "blocked"


def test_an_upload_that_ends_well_while_the_account_is_refused_does_not_hide_that(clock: Turned) -> None:
    one = Health(clock.now)
    one.trouble, one.blocked, one.paused_until = "the key is refused", True, NOW + 900
    one.well(NOW)
    assert one.state(NOW) == "blocked"
    one.well(NOW + 900)
    assert (one.state(NOW + 900), one.trouble) == ("ready", None)


def test_new_grants_that_are_refused_one_after_the_other_say_something_of_the_account(clock: Turned) -> None:
    one = Health(clock.now)
    for times in range(1, REFUSALS):
        for _ in range(20):  # files at once: all of them met the same moment
            assert not one.refused(clock.now())
        assert one.refusals == times
        clock.passed += REFUSED_APART + 1
    assert one.refused(clock.now())
    assert one.refused(clock.now())


def test_a_grant_that_was_asked_for_before_another_one_was_refused_says_nothing_more(clock: Turned) -> None:
    one, asked_at = Health(clock.now), NOW
    clock.passed = 5 * REFUSED_APART
    for _ in range(2 * REFUSALS):
        assert not one.refused(asked_at)
        clock.passed += REFUSED_APART + 1
    assert one.refusals == 1


def test_a_success_lets_the_refusals_be_counted_anew(clock: Turned) -> None:
    one = Health(clock.now)
    for _ in range(2 * REFUSALS):
        assert not one.refused(clock.now())
        one.well(clock.now())
        clock.passed += REFUSED_APART + 1


def test_refusals_count_though_the_clock_was_ahead_and_is_set_back(clock: Turned) -> None:
    one = Health(clock.now)
    clock.passed = 1e7
    assert not one.refused(clock.now())
    clock.passed = 0.0
    one.again()
    for times in range(2, REFUSALS + 1):
        clock.passed += REFUSED_APART + 1
        assert one.refused(clock.now()) == (times == REFUSALS)


def test_a_service_that_asks_to_wait_is_left_alone_for_as_long_and_an_hour_at_most(clock: Turned) -> None:
    one = Health(clock.now)
    assert (one.rests_until, one.next_at, one.chances) == (0.0, 0.0, 0)
    one.check_rest()
    one.service_rests(60.0, "too many requests")
    assert (one.rests_until, one.next_at) == (NOW + 60, NOW + 60)
    clock.passed = 20.0
    one.well(clock.now())  # of a file that had its permission before
    with pytest.raises(Retry, match="too many requests") as raised:
        one.check_rest()
    assert raised.value.after == 40.0
    clock.passed = 60.0
    one.check_rest()
    one.service_rests(1e9, "maintenance")
    assert one.next_at == NOW + 60 + AFTER_MAX
    one.again()
    one.check_rest()
    assert (one.rests_until, one.next_at, one.chances) == (0.0, 0.0, 1)


def test_an_upload_node_that_asks_to_wait_is_left_alone_until_one_takes_a_file(clock: Turned) -> None:
    one = Health(clock.now)
    one.node_rests(60.0)
    one.node_rests(5.0)  # of another file at the same time
    assert (one.rests_until, one.next_at) == (NOW + 60, NOW + 60)
    one.check_rest()  # permissions are the service's
    one.node_rests(1e9)
    assert one.next_at == NOW + AFTER_MAX
    one.well(NOW)
    assert (one.rests_until, one.next_at) == (0.0, 0.0)
    one.node_rests(60.0)
    one.again()
    assert (one.rests_until, one.next_at) == (0.0, 0.0)


def test_a_refused_account_rests_and_is_no_matter_of_time(clock: Turned) -> None:
    one = Health(clock.now)
    one.paused_until = NOW + 900
    assert (one.rests_until, one.next_at) == (NOW + 900, 0.0)


def test_a_network_that_fails_again_and_again_is_tried_less_and_less_often(clock: Turned) -> None:
    one = Health(clock.now)
    one.failed("no route", offline=True, random=0.5)
    assert (one.offline, one.is_probed, one.probe_at, one.next_at) == (True, True, 0.0, 0.0)  # once is nothing
    waits = []
    for _ in range(12):
        one.failed("no route", offline=True, random=0.5)
        assert one.next_at == one.probe_at
        waits.append(one.probe_at - NOW)
    assert waits == [min(0.5 * ceiling(times), PROBE) for times in range(12)]
    one.again()
    assert (one.offline, one.probe_at, one.losses) == (True, 0.0, 13)
    one.well(NOW)
    assert (one.offline, one.is_probed, one.probe_at, one.losses) == (False, False, 0.0, 0)


def test_nobody_waits_for_a_provider_that_the_network_does_not_reach(clock: Turned) -> None:
    one = Health(clock.now)
    for times in range(1, LOST + 1):
        one.failed("no route", offline=True, random=0.5)
        assert one.is_lost == (times == LOST)
    one.failed("status 502", offline=False, random=0.5)  # it answers
    assert not one.is_lost


def test_a_provider_that_fails_file_after_file_is_probed_until_one_gets_through(clock: Turned) -> None:
    """In an outage each file that is tried is sent in vain: thousands of them would take all of the line."""
    one = Health(clock.now)
    for _ in range(FAILING):
        one.failed("status 502", offline=False, random=1.0)
        assert (one.is_probed, one.is_lost, one.probe_at) == (False, False, 0.0)
    one.failed("status 502", offline=False, random=1.0)
    assert (one.is_probed, one.is_lost, one.probe_at) == (True, True, NOW + ceiling(0))
    one.failed("no route", offline=True, random=1.0)
    one.failed("status 502", offline=False, random=1.0)
    assert (one.offline, one.is_probed, one.probe_at) == (False, True, NOW + ceiling(2))
    one.well(NOW)
    one.failed("status 502", offline=False, random=1.0)
    assert (one.is_probed, one.probe_at) == (False, 0.0)
