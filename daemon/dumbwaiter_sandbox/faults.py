"""Faults: the grammar of their specification, and which one strikes a call.

Pure: nothing here knows a socket. A specification is a comma list; each item is one of

    service.call:fault[=ARGUMENT][@N][xM][%P]    latency=50ms    seed=7

`service` is one server ("nos1") or a kind of server ("nos"); `service.*` and `*` match more. The fault strikes from the Nth
matching call on, M times, with P percent probability each time. Without @ and x it strikes always, with @ alone once.
Items are tried in their order and the first that strikes is the only one; each counts every call that it matches.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

GENERAL = ("cut", "cut-within", "cut-after", "cut-reply", "stall", "slow", "html", "empty", "down")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}
SCALES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
DEFAULT_RATE = 256 * 1024

_ITEM = re.compile(
    r"(?P<call>\*|[a-z0-9-]+\.(?:[a-z0-9-]+|\*)):(?P<fault>[a-z0-9-]+?)(?:=(?P<argument>[0-9]+[kmg]?))?"
    r"(?:@(?P<first>[1-9][0-9]*))?(?:x(?P<times>[1-9][0-9]*))?(?:%(?P<percent>[0-9]+(?:\.[0-9]+)?))?",
    re.IGNORECASE,
)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m)")
_STATUS = re.compile(r"(?!304)[3-5][0-9]{2}")  # those that end an exchange and carry a body


@dataclass(frozen=True)
class Catalogue:
    """What can be asked for: the calls of all services, and the faults that only some of them know.

    A fault name that ends in -NNN stands for any number of three to five digits. `deferred` narrows a fault at one call
    to the requests that also carry a second label, and only those count.
    """

    calls: frozenset[str]
    special: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    deferred: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def matching(self, pattern: str) -> frozenset[str]:
        """The calls that a pattern names."""
        return frozenset(call for call in self.calls if _fits(pattern, call))

    def places(self, fault: "Fault") -> tuple[str, ...] | None:
        """The calls that know a special fault, None when it is general."""
        return self.special.get(fault.kind)


@dataclass(frozen=True)
class Fault:
    """One fault that has struck: its name, and its argument as written."""

    name: str
    argument: str = ""

    @property
    def kind(self) -> str:
        """The name under which a vendor declares it: code-700 is a code-NNN."""
        return re.sub(r"(?<=-)\d{3,5}$", "NNN", self.name)

    @property
    def status(self) -> int | None:
        """The HTTP status to answer with, when the fault is one."""
        return int(self.name) if _STATUS.fullmatch(self.name) else None

    @property
    def rate(self) -> int:
        """Bytes a second of `slow`."""
        return _size(self.argument) if self.argument else DEFAULT_RATE

    def __str__(self) -> str:
        return f"{self.name}={self.argument}" if self.argument else self.name


@dataclass(frozen=True)
class Rule:
    """One item: where, what, and which of the matching calls."""

    pattern: str
    fault: Fault
    first: int = 1
    times: int | None = None
    percent: float = 100.0

    @property
    def closes(self) -> str | None:
        """The service (or `*`) whose ports this rule closes for as long as it stands."""
        whole = self.pattern == "*" or self.pattern.endswith(".*")
        always = self.first == 1 and self.times is None and self.percent >= 100
        return self.pattern.removesuffix(".*") if whole and always and self.fault.name == "down" else None

    def due(self, count: int) -> bool:
        """Whether the count-th matching call lies in the rule's window."""
        return self.first <= count and (self.times is None or count < self.first + self.times)


class Faults:
    """The faults in force, and how often each has matched."""

    def __init__(self, spec: str, catalogue: Catalogue) -> None:
        """Raises ValueError with a sentence that names the wrong item."""
        self.spec = spec.strip()
        self.latency = 0.0
        self._catalogue = catalogue
        self._rules: list[Rule] = []
        seed: int | None = None
        for item in filter(None, (part.strip() for part in self.spec.split(","))):
            name, equals, value = item.partition("=")
            if equals and name == "latency":
                self.latency = _duration(item, value)
            elif equals and name == "seed":
                seed = _seed(item, value)
            else:
                self._rules.append(_rule(item, catalogue))
        self.random = random.Random(seed)
        self._counts = [0] * len(self._rules)

    def strike(self, labels: Sequence[str]) -> Fault | None:
        """Count one call under all the rules that match it, and return the first that strikes."""
        struck = None
        for index, rule in enumerate(self._rules):
            if not self._matches(rule, labels):
                continue
            self._counts[index] += 1
            if struck is None and rule.due(self._counts[index]) and self._chance(rule):
                struck = rule.fault
        return struck

    def closes(self, *services: str) -> bool:
        """Whether the port of a service that goes by these names is to refuse connections."""
        closed = {rule.closes for rule in self._rules}
        return "*" in closed or not closed.isdisjoint(services)

    def _chance(self, rule: Rule) -> bool:
        return rule.percent >= 100 or self.random.random() * 100 < rule.percent

    def _matches(self, rule: Rule, labels: Sequence[str]) -> bool:
        if not any(_fits(rule.pattern, label) for label in labels):
            return False
        places = self._catalogue.places(rule.fault)
        if places is not None and not any(label in places for label in labels):
            return False
        return all(
            needed in labels for label in labels if (needed := self._catalogue.deferred.get((rule.fault.name, label)))
        )


def _fits(pattern: str, call: str) -> bool:
    if pattern == "*":
        return True
    return call.startswith(pattern[:-1]) if pattern.endswith(".*") else call == pattern


def _rule(item: str, catalogue: Catalogue) -> Rule:
    match = _ITEM.fullmatch(item)
    if not match:
        raise ValueError(f"fault {item!r} is not of the form service.call:fault[@N][xM][%P], latency=50ms or seed=N")
    pattern, fault = match["call"].lower(), Fault(match["fault"].lower(), match["argument"] or "")
    _known(item, pattern, fault, catalogue)
    percent = float(match["percent"] or 100)
    if percent > 100:
        raise ValueError(f"fault {item!r} has a probability of more than 100 percent")
    times = int(match["times"]) if match["times"] else (1 if match["first"] else None)
    return Rule(pattern, fault, int(match["first"] or 1), times, percent)


def _known(item: str, pattern: str, fault: Fault, catalogue: Catalogue) -> None:
    calls = catalogue.matching(pattern)
    if not calls:
        raise ValueError(f"fault {item!r} names no call: choose from {', '.join(sorted(catalogue.calls))}")
    if fault.argument and fault.name != "slow":
        raise ValueError(f"fault {item!r} has an argument, which only slow=RATE takes")
    if fault.name in GENERAL or fault.status is not None:
        return
    places = catalogue.places(fault)
    if places is None:
        known = ", ".join(sorted({*GENERAL, *catalogue.special}))
        raise ValueError(f"fault {item!r} is unknown: choose a status such as 500, or from {known}")
    if calls.isdisjoint(places):
        raise ValueError(f"fault {item!r} is not possible there: {fault.name} is for {', '.join(places)}")


def _duration(item: str, text: str) -> float:
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError(f"fault {item!r} has no duration such as 50ms or 2s")
    return float(match[1]) * UNITS[match[2]]


def _seed(item: str, text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"fault {item!r} has no whole number as its seed")
    return int(text)


def _size(text: str) -> int:
    digits = text.rstrip("kmgKMG")
    return max(1, int(digits) * SCALES[text[len(digits) :].lower()])
