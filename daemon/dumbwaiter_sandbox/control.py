"""The first port: faults, switches, clock, log and objects, for tests and for people.

It answers JSON, an error as {"error": sentence}, and is never struck by a fault itself.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dumbwaiter_sandbox.clock import Clock
from dumbwaiter_sandbox.switches import Switches
from dumbwaiter_sandbox.world import World

FARTHEST = 1e10  # seconds: beyond, no date can be written

Answer = Callable[[Request], Awaitable[object]]


class Control:
    """The control server of one sandbox. What its calls raise ValueError for is answered as an error."""

    def __init__(
        self,
        world: World,
        accounts: Mapping[str, Mapping[str, str]],
        switches: Switches,
        set_faults: Callable[[str], Awaitable[None]],
        plant: Callable[[Mapping[str, Any]], object],
    ) -> None:
        self._world = world
        self._accounts = accounts
        self._switches = switches
        self._set_faults = set_faults
        self._plant = plant

    def application(self) -> Starlette:
        """What answers on the port."""
        rows: tuple[tuple[str, str, Answer], ...] = (
            ("GET", "/_sandbox", self.about),
            ("GET", "/_sandbox/faults", self.faults),
            ("PUT", "/_sandbox/faults", self.put_faults),
            ("DELETE", "/_sandbox/faults", self.no_faults),
            ("GET", "/_sandbox/options", self.options),
            ("PUT", "/_sandbox/options", self.put_options),
            ("DELETE", "/_sandbox/options", self.no_options),
            ("GET", "/_sandbox/clock", self.clock),
            ("POST", "/_sandbox/clock", self.post_clock),
            ("GET", "/_sandbox/log", self.log),
            ("DELETE", "/_sandbox/log", self.no_log),
            ("GET", "/_sandbox/objects", self.objects),
            ("POST", "/_sandbox/plant", self.plant),
        )
        return Starlette(routes=[Route(path, _json(answer), methods=[method]) for method, path, answer in rows])

    async def about(self, _: Request) -> object:
        return {
            "urls": dict(self._world.urls),
            "accounts": {name: dict(held) for name, held in self._accounts.items()},
        }

    async def faults(self, _: Request) -> object:
        return {"faults": self._world.faults.spec}

    async def put_faults(self, request: Request) -> object:
        await self._set_faults((await request.body()).decode("utf-8", "replace"))
        return await self.faults(request)

    async def no_faults(self, request: Request) -> object:
        await self._set_faults("")
        return await self.faults(request)

    async def options(self, _: Request) -> object:
        return self._switches.as_json()

    async def put_options(self, request: Request) -> object:
        self._switches.change(await _object(request))
        return self._switches.as_json()

    async def no_options(self, _: Request) -> object:
        self._switches.reset()
        return self._switches.as_json()

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
        return self._plant(await _object(request))


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
