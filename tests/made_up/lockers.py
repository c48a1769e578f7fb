"""The lockers themselves, on loopback."""

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from itertools import count

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dumbwaiter_sandbox.storage import StoredObject
from dumbwaiter_sandbox.world import Endpoint, Service, Vendor, World

KEY = "locker-secret-0001"
MOST = 1 << 20


@dataclass(frozen=True)
class Switches:
    """What can be changed while it runs."""

    life: float = 600


class Lockers:
    """A number for each file, and a signature over it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._numbers = count(1)

    def endpoint(self) -> Endpoint:
        routes = [
            Route("/lockers", self.open, methods=["POST"]),
            Route("/lockers/{number:int}", self.fill, methods=["PUT"]),
        ]
        names = {"POST": ("open",), "PUT": ("fill",)}
        return Endpoint(
            Starlette(routes=routes),
            lambda scope: names.get(scope["method"], ()),
            lambda scope, status: Response(status_code=status),
        )

    async def open(self, request: Request) -> Response:
        if request.headers.get("x-key") != KEY:
            return Response(status_code=403)
        number, life = next(self._numbers), self._world.options["locker"].life
        until = int(self._world.clock.now() + life)
        address = f"{self._world.urls['locker']}/lockers/{number}?until={until}&sign={signature(number, until)}"
        return JSONResponse({"address": address, "number": number, "most": MOST, "seconds": life})

    async def fill(self, request: Request) -> Response:
        number, until = request.path_params["number"], int(request.query_params["until"])
        if request.query_params["sign"] != signature(number, until) or until < self._world.clock.now():
            return Response(status_code=403)
        content = await request.body()
        if len(content) > MOST:
            return Response(status_code=413)
        path = os.path.join(self._world.data, "sandbox", secrets.token_hex(8))
        with open(path, "wb") as file:  # noqa: ASYNC230 - nobody else waits
            file.write(content)
        etag = hashlib.md5(content).hexdigest()
        stored = StoredObject("lockers", str(number), len(content), etag, "text/plain", self._world.clock.now())
        self._world.objects.publish(path, stored)
        return Response(headers={"etag": f'"{etag}"'})


def signature(number: int, until: int) -> str:
    return hmac.new(KEY.encode(), f"{number}/{until}".encode(), hashlib.sha256).hexdigest()


VENDOR = Vendor(
    name="locker",
    services=(Service("locker", "locker", ("open", "fill")),),
    faults={},
    deferred={},
    secrets=("x-key", "sign"),
    options=Switches,
    accounts={"key": KEY},
    build=lambda world: {"locker": Lockers(world).endpoint()},
    providers=lambda urls: {"locker": {"broker": "locker", "api": urls["locker"], "key": KEY}},
)
