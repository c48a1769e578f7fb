import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumbwaiter_sandbox.faults import Catalogue, Faults
from dumbwaiter_sandbox.vendors import VENDORS, catalogue

CATALOGUE = catalogue(VENDORS)

PUT = ("nos.put", "nos1.put")
LAST = ("nos.put", "nos.complete", "nos1.put", "nos1.complete")


def struck(spec, labels=PUT, count=8):
    faults = Faults(spec, CATALOGUE)
    return [str(faults.strike(labels) or "") for _ in range(count)]


def test_without_a_window_it_strikes_always():
    assert struck("nos.put:cut") == ["cut"] * 8


def test_with_a_number_it_strikes_that_call_alone():
    assert struck("nos.put:cut@3", count=5) == ["", "", "cut", "", ""]


def test_with_times_it_strikes_the_first_ones():
    assert struck("nos.put:403x2", count=4) == ["403", "403", "", ""]


def test_with_both_it_strikes_a_stretch():
    assert struck("nos.put:403@3x2", count=6) == ["", "", "403", "403", "", ""]


def test_a_seed_makes_chance_repeatable():
    spec = "seed=7,nos.put:500%50"
    first = struck(spec, count=200)
    assert first == struck(spec, count=200)
    assert 50 < first.count("500") < 150


@pytest.mark.parametrize("pattern", ["nos.put", "nos1.put", "nos.*", "nos1.*", "*"])
def test_every_pattern_that_fits_matches(pattern):
    assert struck(f"{pattern}:500", count=1) == ["500"]


@pytest.mark.parametrize("pattern", ["nos2.put", "nos2.*", "nos.query", "vod.*"])
def test_other_patterns_do_not_match(pattern):
    assert struck(f"{pattern}:500", count=1) == [""]


def test_the_first_item_wins_and_the_second_counts_all_the_same():
    assert struck("nos.put:cut@1,nos.put:500@1x2", count=3) == ["cut", "500", ""]


def test_a_wildcard_strikes_with_a_special_fault_only_where_it_is_known():
    assert struck("*:colon,*:short", count=1) == ["short"]
    assert struck("*:short,*:colon", labels=("lbs.get",), count=1) == ["colon"]


def test_a_failed_callback_waits_for_the_last_chunk():
    faults = Faults("nos.put:520@1", CATALOGUE)
    assert faults.strike(PUT) is None
    assert str(faults.strike(LAST)) == "520"


def test_global_items():
    faults = Faults(" latency=50ms , seed=3,", CATALOGUE)
    assert faults.latency == 0.05
    assert faults.strike(PUT) is None


def test_a_rate_has_binary_suffixes():
    fault = Faults("nos.put:slow=64k", CATALOGUE).strike(PUT)
    assert fault is not None
    assert fault.rate == 65536


def test_only_a_whole_unconditional_down_closes_a_port():
    assert Faults("nos1.*:down", CATALOGUE).closes("nos1", "nos")
    assert Faults("*:down", CATALOGUE).closes("lbs", "lbs")
    for spec in ("nos1.put:down", "nos1.*:down@2", "nos1.*:down%50", "nos2.*:down", "nos1.*:cut"):
        assert not Faults(spec, CATALOGUE).closes("nos1", "nos")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("nos.put", "form"),
        ("nos.put:cut@0", "form"),
        ("nos.put:cut@", "form"),
        ("nos.put:cutx0", "unknown"),
        ("nos.pot:cut", "names no call"),
        ("acme.part:cut", "names no call"),
        ("nos.put:explode", "unknown"),
        ("nos.put:999", "unknown"),
        ("nos.put:100", "unknown"),
        ("nos.put:304", "unknown"),
        ("nos.put:colon", "lbs.get"),
        ("nos.*:code-700", "not possible"),
        ("nos.put:cut=3", "argument"),
        ("nos.put:500%101", "100 percent"),
        ("latency=soon", "duration"),
        ("seed=x", "whole number"),
        ("volume=11", "form"),
    ],
)
def test_a_wrong_item_is_named(spec, words):
    with pytest.raises(ValueError, match=words) as raised:
        Faults(f"nos.put:cut,{spec}", CATALOGUE)
    assert repr(spec) in str(raised.value)


@given(st.text(alphabet="nos.put:cut@x%=,0123456789*latencyseed ", max_size=40))
def test_a_specification_parses_or_is_refused_in_one_sentence(text):
    sentence = ""
    try:
        Faults(text, CATALOGUE)
    except ValueError as error:
        sentence = str(error)
    assert "\n" not in sentence


@given(first=st.integers(1, 30), times=st.integers(1, 30))
def test_a_window_strikes_as_often_as_it_says(first, times):
    faults = Faults(f"a.b:500@{first}x{times}", Catalogue(frozenset({"a.b"})))
    hits = [number for number in range(1, 80) if faults.strike(("a.b",))]
    assert hits == list(range(first, first + times))
