"""The table of a job's life, held against the one that people read."""

import itertools

import pytest

from dumbwaiter.lifecycle import OPEN, TRANSITIONS, Event, sources
from dumbwaiter.model import State

# Each documented transition, by hand. What is not here must not happen.
DOCUMENTED = {
    "pending --name--> pending",
    "pending --advance--> pending",
    "pending --delay--> pending",
    "pending --store--> stored",
    "pending --supersede--> superseded",
    "pending --reject--> rejected",
    "pending --retry--> pending",
    "stored --note--> stored",
    "stored --delay--> stored",
    "stored --finish--> done",
    "stored --resend--> pending",
    "stored --reject--> rejected",
    "stored --retry--> stored",
    "rejected --retry--> pending",
    "rejected --supersede--> superseded",
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_pair_is_one_documented_transition_or_none(state: State, event: Event) -> None:
    documented = [line for line in DOCUMENTED if line.startswith(f"{state} --{event}--> ")]
    to = TRANSITIONS.get((state, event))
    assert documented == ([] if to is None else [f"{state} --{event}--> {to}"])


def test_nothing_stands_in_the_table_that_is_not_documented() -> None:
    assert len(TRANSITIONS) == len(DOCUMENTED)


@pytest.mark.parametrize("state", [State.DONE, State.SUPERSEDED])
def test_an_end_is_an_end(state: State) -> None:
    assert [event for (source, event) in TRANSITIONS if source is state] == []


def test_only_a_person_brings_a_rejected_job_back() -> None:
    back = {event for (source, event), to in TRANSITIONS.items() if source not in OPEN and to in OPEN}
    assert back == {Event.RETRY}


def test_what_is_stored_becomes_unsent_only_when_the_remote_can_make_no_use_of_it() -> None:
    """The bytes are at the remote: from there on a job is done sooner or later, and nothing else."""
    no_use = {Event.RESEND, Event.REJECT}
    reached = {State.STORED}
    for _ in State:
        reached |= {to for (source, event), to in TRANSITIONS.items() if source in reached and event not in no_use}
    assert reached == {State.STORED, State.DONE}


def test_every_state_is_reached_from_the_first() -> None:
    reached = {State.PENDING}
    for _ in State:
        reached |= {to for (source, _), to in TRANSITIONS.items() if source in reached}
    assert reached == set(State)


@pytest.mark.parametrize("event", list(Event))
def test_the_sources_of_an_event_are_those_of_the_table(event: Event) -> None:
    assert set(sources(event)) == {state for state in State if (state, event) in TRANSITIONS}
    assert sources(event)


def test_states_are_the_words_that_people_read() -> None:
    assert [str(state) for state in State] == ["pending", "stored", "done", "rejected", "superseded"]
