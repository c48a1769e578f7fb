"""NetEase's load balancer: which upload nodes to use, best first.

NetEase's VOD manual, 'upload address'. It asks for no credentials and answers also without a bucket, as its own SDKs omit it.
"""

import json
from typing import cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from dumbwaiter_sandbox.netease.options import NetEaseOptions
from dumbwaiter_sandbox.world import Endpoint, World, fault_of

OWN_FAULTS = frozenset({"colon", "no-nodes"})


def endpoint(world: World) -> Endpoint:
    """The server of the load balancer."""

    async def lbs(request: Request) -> Response:
        if request.query_params.get("version") != "1.0":
            return _error(400, "InvalidArgument", "version is not 1.0")
        fault = fault_of(request)
        order = cast("NetEaseOptions", world.options["netease"]).node_order
        nodes = [] if fault and fault.name == "no-nodes" else [world.urls[name] for name in order]
        text = json.dumps({"lbs": f"{world.urls['lbs']}/lbs", "upload": nodes}, separators=(",", ":"))
        if fault and fault.name == "colon":
            text = text.replace('"upload":', '"upload"：')
        return Response(text, media_type="application/json")

    return Endpoint(Starlette(routes=[Route("/lbs", lbs)]), _calls, _refuse, OWN_FAULTS)


def _calls(scope: Scope) -> tuple[str, ...]:
    return ("get",) if scope["path"] == "/lbs" else ()


def _refuse(_: Scope, status: int) -> Response:
    return _error(status, "InternalError" if status >= 500 else "InvalidArgument", "the request was refused")


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse({"Code": code, "Message": message}, status)
