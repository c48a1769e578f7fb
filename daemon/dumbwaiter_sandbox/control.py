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

if TYPE_CHECKING:
    from dumbwaiter_sandbox.sandbox import Sandbox

FARTHEST = 1e10  # seconds: beyond, no date can be written

Answer = Callable[[Request], Awaitable[object]]


def application(sandbox: "Sandbox") -> Starlette:
    """The control server of one sandbox."""

    async def about(_: Request) -> object:
        return {
            "urls": dict(sandbox.urls),
            "accounts": {name: dict(held) for name, held in sandbox.accounts.items()},
        }

    async def faults(_: Request) -> object:
        return {"faults": sandbox.world.faults.spec}

    async def put_faults(request: Request) -> object:
        await sandbox.set_faults((await request.body()).decode("utf-8", "replace"))
        return await faults(request)

    async def no_faults(request: Request) -> object:
        await sandbox.set_faults("")
        return await faults(request)

    async def options(_: Request) -> object:
        return sandbox.options()

    async def put_options(request: Request) -> object:
        sandbox.set_options(await _object(request))
        return sandbox.options()

    async def no_options(_: Request) -> object:
        sandbox.reset_options()
        return sandbox.options()

    async def clock(_: Request) -> object:
        return {"now": sandbox.world.clock.now(), "shift": sandbox.world.clock.shift}

    async def post_clock(request: Request) -> object:
        _shift(sandbox, await _object(request))
        return await clock(request)

    async def log(_: Request) -> object:
        return sandbox.world.log.as_json()

    async def no_log(_: Request) -> object:
        sandbox.world.log.clear()
        return []

    async def objects(_: Request) -> object:
        return [
            {"bucket": stored.bucket, "key": stored.key, "size": stored.size, "etag": stored.etag}
            for stored in sandbox.world.objects.all()
        ]

    async def plant(request: Request) -> object:
        return sandbox.plant(await _object(request))

    rows: tuple[tuple[str, str, Answer], ...] = (
        ("GET", "/_sandbox", about),
        ("GET", "/_sandbox/faults", faults),
        ("PUT", "/_sandbox/faults", put_faults),
        ("DELETE", "/_sandbox/faults", no_faults),
        ("GET", "/_sandbox/options", options),
        ("PUT", "/_sandbox/options", put_options),
        ("DELETE", "/_sandbox/options", no_options),
        ("GET", "/_sandbox/clock", clock),
        ("POST", "/_sandbox/clock", post_clock),
        ("GET", "/_sandbox/log", log),
        ("DELETE", "/_sandbox/log", no_log),
        ("GET", "/_sandbox/objects", objects),
        ("POST", "/_sandbox/plant", plant),
    )
    return Starlette(routes=[Route(path, _json(answer), methods=[method]) for method, path, answer in rows])


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


def _shift(sandbox: "Sandbox", members: dict[str, Any]) -> None:
    match members:
        case {"shift": int() | float() as seconds, **rest} if not rest and not isinstance(seconds, bool):
            shift = float(seconds)
        case {"advance": int() | float() as seconds, **rest} if not rest and not isinstance(seconds, bool):
            shift = sandbox.world.clock.shift + float(seconds)
        case _:
            raise ValueError('the clock takes {"shift": seconds} or {"advance": seconds}')
    if not abs(shift) < FARTHEST:
        raise ValueError(f"the clock is shifted by less than {FARTHEST} seconds")
    sandbox.world.clock.shift = shift
