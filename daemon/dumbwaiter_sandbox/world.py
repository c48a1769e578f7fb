"""What the vendors of one sandbox share, and what a vendor has to bring.

A vendor is one row of VENDORS: the services it runs (one port each), the faults only it knows, its switches, its accounts, the
servers themselves and the sections it adds to the config.
"""

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Scope

from dumbwaiter_sandbox.clock import Clock
from dumbwaiter_sandbox.faults import Fault, Faults
from dumbwaiter_sandbox.log import Entry, RequestLog
from dumbwaiter_sandbox.storage import Objects


class _Key(PathConvertor):
    """The rest of a path, line breaks included: Starlette's own "path" ends at the first."""

    regex = "(?s:.*)"


register_url_convertor("key", _Key())  # for the routes of all vendors


class RefusedError(Exception):
    """A server answers with this status and sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Service:
    """One port: its own name, the kind of server it is, and the calls that faults can name."""

    name: str
    kind: str
    calls: tuple[str, ...]

    def labels(self, *calls: str) -> tuple[str, ...]:
        """The names under which a request counts, the kind's first."""
        own = () if self.name == self.kind else tuple(f"{self.name}.{call}" for call in calls)
        return (*(f"{self.kind}.{call}" for call in calls), *own)


@dataclass(frozen=True)
class Endpoint:
    """One server: its application, how it names a request, how it refuses one, and the faults it performs itself."""

    app: ASGIApp
    calls: Callable[[Scope], tuple[str, ...]]
    refuse: Callable[[Scope, int], Response]
    own: frozenset[str] = frozenset()


@dataclass
class World:
    """The clock, the disk, the faults and the log of one sandbox."""

    data: str
    clock: Clock
    database: sqlite3.Connection
    objects: Objects
    log: RequestLog
    faults: Faults
    urls: Mapping[str, str]
    options: dict[str, Any]
    # Addresses that a vendor's own service answers without a socket: callback URL -> answer of a body.
    inside: dict[str, Callable[[str], Awaitable[str]]] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the answer; it ends with the sandbox at the latest."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def end(self) -> None:
        """Stop what is done beside the answers."""
        running = list(self.tasks)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    @property
    def random(self) -> random.Random:
        """The generator that the faults' seed governs."""
        return self.faults.random


@dataclass(frozen=True)
class Vendor:
    """One row of the table."""

    name: str
    services: tuple[Service, ...]
    faults: Mapping[str, tuple[str, ...]]
    deferred: Mapping[tuple[str, str], str]
    secrets: tuple[str, ...]
    options: type[Any]
    accounts: Mapping[str, str]
    build: Callable[[World], Mapping[str, Endpoint]]
    providers: Callable[[Mapping[str, str]], Mapping[str, Mapping[str, object]]]
    # Puts files there that somebody else uploaded, as the control port is told to. Raises ValueError.
    plant: Callable[[World, Mapping[str, Any]], object] | None = None


def fault_of(request: Request) -> Fault | None:
    """The fault that this request's server has to perform itself."""
    fault: Fault | None = request.scope["state"].get("fault")
    return fault


def entry_of(request: Request) -> Entry:
    """The request's line in the log, to add facts to."""
    entry: Entry = request.scope["state"]["entry"]
    return entry
