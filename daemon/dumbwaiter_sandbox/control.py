"""The first port: faults, switches, clock, log and objects, for tests and for people.

It answers JSON, an error as {"error": sentence}, and is never struck by a fault itself.
"""

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dumbwaiter_sandbox.clock import Clock

if TYPE_CHECKING:
    from dumbwaiter_sandbox.sandbox import Sandbox

FARTHEST = 1e10  # seconds: beyond, no date can be written

Answer = Callable[[Request], Awaitable[object]]


def application(sandbox: "Sandbox") -> Starlette:
    """The control server of one sandbox."""
    control = _Control(sandbox)
    rows: tuple[tuple[str, str, Answer], ...] = (
        ("GET", "/_sandbox", control.about),
        ("GET", "/_sandbox/faults", control.faults),
        ("PUT", "/_sandbox/faults", control.put_faults),
        ("DELETE", "/_sandbox/faults", control.no_faults),
        ("GET", "/_sandbox/options", control.options),
        ("PUT", "/_sandbox/options", control.put_options),
        ("DELETE", "/_sandbox/options", control.no_options),
        ("GET", "/_sandbox/clock", control.clock),
        ("POST", "/_sandbox/clock", control.post_clock),
        ("GET", "/_sandbox/log", control.log),
        ("DELETE", "/_sandbox/log", control.no_log),
        ("GET", "/_sandbox/objects", control.objects),
        ("POST", "/_sandbox/plant", control.plant),
    )
    return Starlette(routes=[Route(path, _json(answer), methods=[method]) for method, path, answer in rows])


class _Control:
    """What each call answers. Raises ValueError for what it cannot take."""

    def __init__(self, sandbox: "Sandbox") -> None:
        self._sandbox = sandbox
        self._world = sandbox.world

    async def about(self, _: Request) -> object:
        return {
            "urls": dict(self._sandbox.urls),
            "accounts": {name: dict(held) for name, held in self._sandbox.accounts.items()},
        }

    async def faults(self, _: Request) -> object:
        return {"faults": self._world.faults.spec}

    async def put_faults(self, request: Request) -> object:
        await self._sandbox.set_faults((await request.body()).decode("utf-8", "replace"))
        return await self.faults(request)

    async def no_faults(self, request: Request) -> object:
        await self._sandbox.set_faults("")
        return await self.faults(request)

    async def options(self, _: Request) -> object:
        return self._sandbox.options()

    async def put_options(self, request: Request) -> object:
        self._sandbox.set_options(await _object(request))
        return self._sandbox.options()

    async def no_options(self, _: Request) -> object:
        self._sandbox.reset_options()
        return self._sandbox.options()

    async def clock(self, _: Request) -> object:
        return {"now": self._world.clock.now(), "shift": self._world.clock.shift}

    async def post_clock(self, request: Request) -> object:
        _shift(self._world.clock, await _object(request))
        return await self.clock(request)

    async def log(self, _: Request) -> object:
        return self._world.log.as_json()

    async def no_log(self, _: Request) -> object:
        self._world.log.clear()
        return []

    async def objects(self, _: Request) -> object:
        return [
            {"bucket": stored.bucket, "key": stored.key, "size": stored.size, "etag": stored.etag}
            for stored in self._world.objects.all()
        ]

    async def plant(self, request: Request) -> object:
        return self._sandbox.plant(await _object(request))


def _json(answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        try:
            return JSONResponse(await answer(request))
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)

    return respond


async def _object(request: Request) -> dict[str, Any]:
    try:
        members = json.loads(await request.body())
    except ValueError as error:
        raise ValueError("the body is not JSON") from error
    if not isinstance(members, dict):
        raise ValueError("the body is not a JSON object")  # noqa: TRY004 - answered like every other wrong value
    return members


def _shift(clock: Clock, members: dict[str, Any]) -> None:
    match members:
        case {"shift": int() | float() as seconds, **rest} if not rest and not isinstance(seconds, bool):
            shift = float(seconds)
        case {"advance": int() | float() as seconds, **rest} if not rest and not isinstance(seconds, bool):
            shift = clock.shift + float(seconds)
        case _:
            raise ValueError('the clock takes {"shift": seconds} or {"advance": seconds}')
    if not abs(shift) < FARTHEST:
        raise ValueError(f"the clock is shifted by less than {FARTHEST} seconds")
    clock.shift = shift
