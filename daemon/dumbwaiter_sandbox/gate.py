"""The gate before every server: logs the request, strikes with a general fault or lets the server answer.

A server behind it needs to know nothing of cuts: a body that breaks within looks like any client that left. Faults that need
the vendor's knowledge are handed on in the scope's state.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, Response
from starlette.types import Message, Receive, Scope, Send

from dumbwaiter_sandbox.faults import Fault
from dumbwaiter_sandbox.log import Entry
from dumbwaiter_sandbox.serving import connection_of
from dumbwaiter_sandbox.world import Endpoint, Service, World

STALL = 120.0  # seconds after which a stalled connection is cut all the same
GONE: Message = {"type": "http.disconnect"}
PORTAL = "<!DOCTYPE html><html><head><title>Welcome</title></head><body><h1>Sign in to this network</h1></body></html>"


@dataclass(frozen=True)
class Visit:
    """One request that a fault has struck."""

    fault: Fault
    scope: Scope
    receive: Receive
    send: Send


class Gate:
    """ASGI application of one port."""

    def __init__(self, world: World, service: Service, endpoint: Endpoint) -> None:
        self._world = world
        self._service = service
        self._endpoint = endpoint
        self._acts: dict[str, Callable[[Visit], Awaitable[None]]] = {
            "cut": self._cut,
            "cut-within": self._cut_within,
            "cut-after": self._cut_after,
            "cut-reply": self._cut_reply,
            "stall": self._stall,
            "slow": self._slow,
            "html": self._html,
            "empty": self._empty,
            "down": self._down,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        calls = self._endpoint.calls(scope)
        labels = self._service.labels(*calls)
        world = self._world
        entry = world.log.open(world.clock.now(), self._service.name, calls[0] if calls else "", scope)
        scope["state"]["entry"] = entry
        fault = world.faults.strike(labels) if labels else None
        entry.fault = str(fault) if fault else None
        try:
            if world.faults.latency:
                await asyncio.sleep(world.faults.latency)
            await self._perform(fault, scope, _counted(receive, entry), self._noted(send, entry))
        except (ClientDisconnect, asyncio.CancelledError):
            # Cancelled only while the sandbox stops; the connection is gone then, and uvicorn would print a traceback.
            pass
        finally:
            world.log.close(entry)

    async def _perform(self, fault: Fault | None, scope: Scope, receive: Receive, send: Send) -> None:
        if fault is None or fault.kind in self._endpoint.own:
            scope["state"]["fault"] = fault
            await self._endpoint.app(scope, receive, send)
        elif fault.status is not None:
            await self._endpoint.refuse(scope, fault.status)(scope, receive, send)
        else:
            await self._acts[fault.name](Visit(fault, scope, receive, send))

    def _noted(self, send: Send, entry: Entry) -> Send:
        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start" and not entry.left:
                entry.status = message["status"]
                date = formatdate(self._world.clock.now(), usegmt=True).encode()
                message = {**message, "headers": [*message.get("headers", ()), (b"date", date)]}
            entry.sent += len(message.get("body", b""))
            await send(message)

        return noted

    async def _cut(self, visit: Visit) -> None:
        connection_of(visit.scope).reset()
        await _leave(visit.receive)

    async def _cut_within(self, visit: Visit) -> None:
        length = _length(visit.scope)
        if not length:
            await self._cut(visit)
            return
        broken = _broken(visit.receive, self._world.random.randrange(length))
        try:
            await self._endpoint.app(visit.scope, broken, _nowhere)
        finally:
            connection_of(visit.scope).reset()
            await _leave(visit.receive)

    async def _cut_after(self, visit: Visit) -> None:
        await self._endpoint.app(visit.scope, visit.receive, _nowhere)
        connection_of(visit.scope).reset()
        await _leave(visit.receive)

    async def _cut_reply(self, visit: Visit) -> None:
        await self._endpoint.app(visit.scope, visit.receive, _half(visit.send))
        connection_of(visit.scope).close()
        await _leave(visit.receive)

    async def _stall(self, visit: Visit) -> None:
        try:
            async with asyncio.timeout(STALL):
                await _leave(visit.receive)
        except TimeoutError:
            await self._cut(visit)

    async def _slow(self, visit: Visit) -> None:
        async def slow_receive() -> Message:
            message = await visit.receive()
            await asyncio.sleep(len(message.get("body", b"")) / visit.fault.rate)
            return message

        async def slow_send(message: Message) -> None:
            await asyncio.sleep(len(message.get("body", b"")) / visit.fault.rate)
            await visit.send(message)

        await self._endpoint.app(visit.scope, slow_receive, slow_send)

    async def _html(self, visit: Visit) -> None:
        await HTMLResponse(PORTAL)(visit.scope, visit.receive, visit.send)

    async def _empty(self, visit: Visit) -> None:
        await Response(b"")(visit.scope, visit.receive, visit.send)

    async def _down(self, visit: Visit) -> None:
        await self._endpoint.refuse(visit.scope, 503)(visit.scope, visit.receive, visit.send)


def _counted(receive: Receive, entry: Entry) -> Receive:
    async def counted() -> Message:
        message = await receive()
        entry.received += len(message.get("body", b""))
        entry.left = entry.left or message["type"] == GONE["type"]
        return message

    return counted


def _broken(receive: Receive, left: int) -> Receive:
    """Pass so many bytes of the body, then report that the client left."""

    async def broken() -> Message:
        nonlocal left
        message = await receive() if left else GONE
        body = message.get("body", b"")[:left]
        left -= len(body)
        return {**message, "body": body, "more_body": True} if body else message

    return broken


def _half(send: Send) -> Send:
    """Pass half of the body that the head announces, and no end of it."""
    allowed = 0

    async def half(message: Message) -> None:
        nonlocal allowed
        if message["type"] == "http.response.start":
            allowed = _announced(message) // 2
            if _announced(message):
                await send(message)
            return
        body, allowed = message.get("body", b"")[:allowed], max(0, allowed - len(message.get("body", b"")))
        if body:
            await send({**message, "body": body, "more_body": True})

    return half


def _announced(message: Message) -> int:
    headers: dict[bytes, bytes] = dict(message.get("headers", ()))
    return int(headers.get(b"content-length", b"0"))


def _length(scope: Scope) -> int:
    headers: dict[bytes, bytes] = dict(scope["headers"])
    text = headers.get(b"content-length", b"")
    return int(text) if text.isdigit() else 0


async def _leave(receive: Receive) -> None:
    """Read until the client is gone, so that the server sees the connection as over."""
    while (await receive())["type"] != GONE["type"]:
        pass


async def _nowhere(message: Any) -> None:
    """A reply that is dropped."""
