"""The request log: what reached which service, and what became of it.

It holds no secret: a header or a query value that a vendor declares secret is replaced before it is kept.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

KEPT = 100_000  # a long run must not eat the memory; the oldest requests go first
HIDDEN = "***"


@dataclass
class Entry:
    """One request. `status` stays None when no reply went out; `received` counts body bytes, `left` says the client went."""

    number: int
    time: float
    service: str
    call: str
    method: str
    target: str
    headers: Mapping[str, str]
    fault: str | None = None
    status: int | None = None
    received: int = 0
    sent: int = 0
    left: bool = False
    finished: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """One flat object; a vendor's facts (offset, context ...) stand beside the general members."""
        general = {name: value for name, value in vars(self).items() if name != "facts"}
        return {**self.facts, **general}

    def line(self) -> str:
        """One line for a person."""
        answer = "no reply" if self.status is None else str(self.status)
        parts = [self.service, self.call or self.method, self.target.partition("?")[0]]
        if "offset" in self.facts:
            parts.append(f"offset={self.facts['offset']}")
        if self.received:
            parts.append(f"received={self.received}")
        parts.append(f"-> {answer}")
        if self.fault:
            parts.append(f"({self.fault})")
        return " ".join(parts)


class RequestLog:
    """The latest requests in the order of their arrival."""

    def __init__(self, secrets: Iterable[str], say: Callable[[str], None]) -> None:
        names = sorted({name.lower() for name in secrets})
        self._secrets = frozenset(names)
        self._query = re.compile(rf"(?<=[?&])({'|'.join(map(re.escape, names)) or '(?!)'})=[^&]*", re.IGNORECASE)
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._say = say
        self.total = 0

    def open(self, time: float, service: str, call: str, scope: Mapping[str, Any]) -> Entry:
        """Note a request that has just arrived."""
        self.total += 1
        target = scope["raw_path"].decode("latin-1")
        if scope["query_string"]:
            target += "?" + scope["query_string"].decode("latin-1")
        entry = Entry(
            self.total,
            time,
            service,
            call,
            scope["method"],
            self._clean(target),
            self._headers(scope["headers"]),
        )
        self._entries.append(entry)
        return entry

    def close(self, entry: Entry) -> None:
        """Note that it is over, and say so."""
        entry.finished = True
        self._say(entry.line())

    def as_json(self) -> list[dict[str, Any]]:
        """All that is kept."""
        return [entry.as_json() for entry in self._entries]

    def clear(self) -> None:
        """Forget what is kept; numbers go on."""
        self._entries.clear()

    def _clean(self, target: str) -> str:
        return self._query.sub(rf"\1={HIDDEN}", target)

    def _headers(self, headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
        pairs = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
        return {name: HIDDEN if name in self._secrets else value for name, value in pairs}
