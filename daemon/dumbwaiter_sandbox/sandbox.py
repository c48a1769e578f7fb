"""One sandbox: the vendors of the table on a block of ports, over one data folder.

Everything that a vendor keeps outlives a restart on the same folder. Nothing leaves 127.0.0.1, callbacks to a customer's own
address excepted.
"""

import asyncio
import contextlib
import errno
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from starlette.types import ASGIApp

from dumbwaiter_sandbox.clock import Clock
from dumbwaiter_sandbox.control import Control
from dumbwaiter_sandbox.faults import Faults
from dumbwaiter_sandbox.gate import Gate
from dumbwaiter_sandbox.log import RequestLog
from dumbwaiter_sandbox.serving import HOST, Port, reserve
from dumbwaiter_sandbox.storage import Objects, lock, open_database
from dumbwaiter_sandbox.switches import Switches
from dumbwaiter_sandbox.vendors import VENDORS, catalogue, secrets
from dumbwaiter_sandbox.world import Vendor, World

CONTROL = "sandbox"
FOLDERS = ("sandbox", "objects", "mount")


def _silent(line: str) -> None:
    """Print nothing."""


class Sandbox:
    """Runs from `async with` until its end.

    `options` holds switches by vendor: {"netease": {"keep_partial": True}}. Raises ValueError for a wrong fault or switch,
    OSError when the ports or the folder cannot be had.
    """

    world: World

    def __init__(
        self,
        data: str | os.PathLike[str],
        *,
        port: int = 0,
        faults: str = "",
        options: Mapping[str, Mapping[str, Any]] | None = None,
        vendors: Sequence[Vendor] = VENDORS,
        print: Callable[[str], None] | None = None,  # noqa: A002 - says what it replaces
    ) -> None:
        self.data = os.path.abspath(data)
        self.port = port
        self.urls: Mapping[str, str] = {}
        self._vendors = vendors
        self._services = [service for vendor in vendors for service in vendor.services]
        self._catalogue = catalogue(vendors)
        self.accounts: Mapping[str, Mapping[str, str]] = {vendor.name: vendor.accounts for vendor in vendors}
        self._say = print or _silent
        self._clock = Clock()
        self._faults = Faults(faults, self._catalogue)
        self.switches = Switches(vendors, options or {})
        self._ports: dict[str, Port] = {}
        self._settling = asyncio.Lock()

    @property
    def config_path(self) -> str:
        """The config that the sandbox writes."""
        return os.path.join(self.data, "config.toml")

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            sockets = reserve(self.port, 1 + len(self._services))
            for sock in sockets:
                stack.callback(sock.close)
            self.port = sockets[0].getsockname()[1]
            names = (CONTROL, *(service.name for service in self._services))
            self.urls = {name: f"http://{HOST}:{self.port + index}" for index, name in enumerate(names)}
            self._lay_out(stack)
            self.world = self._world(stack)
            control = Control(self.world, self.accounts, self.switches, self.set_faults, self._plant)
            apps: tuple[ASGIApp, ...] = (control.application(), *self._gates())
            for name, sock, app in zip(names, sockets, apps, strict=True):
                self._ports[name] = Port(sock, app)
                stack.push_async_callback(self._ports[name].close)
            await self._ports[CONTROL].open()
            await self._settle()
            self._stack = stack.pop_all()
        self._say(f"ready {self.urls[CONTROL]} config={self.config_path}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def set_faults(self, spec: str) -> None:
        """Replace the faults; ports open and close as they say. Raises ValueError."""
        faults = Faults(spec, self._catalogue)
        async with self._settling:
            self.world.faults = faults
            self._say(f"faults {faults.spec or 'none'}")
            await self._settle()

    def _plant(self, members: Mapping[str, Any]) -> object:
        """Put files at a vendor that somebody else uploaded. Raises ValueError."""
        members = dict(members)
        able = {vendor.name: vendor.plant for vendor in VENDORS if vendor.plant}
        plant = able.get(members.pop("vendor", ""))
        if plant is None:
            raise ValueError(f'say "vendor", one of {", ".join(able)}')
        return plant(self.world, members)

    def _world(self, stack: contextlib.AsyncExitStack) -> World:
        database = open_database(self.data)
        stack.callback(database.close)
        objects = Objects(self.data, database)
        log = RequestLog(secrets(self._vendors), self._say)
        world = World(self.data, self._clock, database, objects, log, self._faults, self.urls, self.switches.held)
        stack.push_async_callback(world.end)
        return world

    def _gates(self) -> Iterator[ASGIApp]:
        endpoints = {name: end for vendor in self._vendors for name, end in vendor.build(self.world).items()}
        return (Gate(self.world, service, endpoints[service.name]) for service in self._services)

    def _lay_out(self, stack: contextlib.AsyncExitStack) -> None:
        if os.path.lexists(self.config_path) and not os.path.isdir(os.path.join(self.data, FOLDERS[0])):
            raise FileExistsError(errno.EEXIST, "it is there, and no sandbox wrote it", self.config_path)
        for name in (*FOLDERS, *(os.path.join("drop", drop) for drop in _providers(self._vendors, self.urls))):
            os.makedirs(os.path.join(self.data, name), exist_ok=True)
        stack.callback(os.close, lock(self.data))
        fresh = self.config_path + ".new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)
        # Only the owner may read it: it holds literal secrets.
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(config(self.data, _providers(self._vendors, self.urls)).encode())
        os.replace(fresh, self.config_path)

    async def _settle(self) -> None:
        """Open and close ports as the faults say."""
        for service in self._services:
            port = self._ports[service.name]
            if self.world.faults.closes(service.name, service.kind):
                await port.close(keep=True)
            else:
                await port.open()


def config(data: str, providers: Mapping[str, Mapping[str, object]]) -> str:
    """The text of config.toml: one provider and one watch for each that the vendors name, and a mount."""
    sections: dict[str, Mapping[str, object]] = {}
    for name, members in providers.items():
        sections[f"provider.{name}"] = members
        sections[f"watch.{name}"] = {
            "path": os.path.join(data, "drop", name),
            "provider": name,
            "settle": "200ms",
        }
    sections["mount"] = {"path": os.path.join(data, "mount")}
    return "\n".join(_section(name, members) for name, members in sections.items())


async def serve(port: int, data: str, faults: str, seconds: float | None, say: Callable[[str], None]) -> None:
    """Run until the seconds are over, SIGINT or SIGTERM; every request is said, and the sum at the end.

    Raises ValueError for wrong faults, OSError when the ports or the folder cannot be had.
    """
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    handled = []
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # no signals outside the main thread
            loop.add_signal_handler(number, done.set)
            handled.append(number)
    try:
        async with Sandbox(data, port=port, faults=faults, print=say) as sandbox:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await done.wait()
            say(_sum(sandbox.world))
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


def _sum(world: World) -> str:
    entries = world.log.as_json()
    received = sum(entry["received"] for entry in entries)
    struck = sum(entry["fault"] is not None for entry in entries)
    return f"stopped after {world.log.total} requests, {received} bytes received, {struck} faults, {len(world.objects.all())} objects"


def _providers(vendors: Sequence[Vendor], urls: Mapping[str, str]) -> dict[str, Mapping[str, object]]:
    return {name: members for vendor in vendors for name, members in vendor.providers(urls).items()}


def _section(name: str, members: Mapping[str, object]) -> str:
    # JSON's texts, numbers, booleans and lists are TOML's too.
    plain = {key: value for key, value in members.items() if not isinstance(value, Mapping)}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in plain.items()]
    tables = [_section(f"{name}.{key}", value) for key, value in members.items() if isinstance(value, Mapping)]
    return "\n".join((f"[{name}]", *lines, "", *tables))
