"""Kodo's query for hosts: which of them take the uploads for a bucket."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dumbwaiter_sandbox.kodo import accounts
from dumbwaiter_sandbox.kodo.reply import json_answer, json_error
from dumbwaiter_sandbox.world import Endpoint, World

HOSTS = ("up1", "up2")


def endpoint(world: World) -> Endpoint:
    """The host that is asked."""

    def domains(*names: str) -> list[str]:
        return [world.urls[name].removeprefix("http://") for name in names]

    async def query(request: Request) -> Response:
        account = accounts.by_key(request.query_params.get("ak", ""))
        bucket = request.query_params.get("bucket", "")
        if account is None or bucket not in account.buckets:
            return json_error(631, "no such bucket")
        up, io, uc = domains(*HOSTS), domains("io"), domains("uc")
        if request.url.path.startswith("/v2/"):
            near, far = {"main": up[:1], "backup": up[1:]}, {"main": up}
            return json_answer({"ttl": 86400, "up": {"acc": near, "src": far}, "io": {"src": {"main": io}}})
        services = {"up": up, "io": io, "io_src": io, "rs": uc, "rsf": uc, "api": uc, "uc": uc}
        host = {name: {"domains": found, "old": []} for name, found in services.items()}
        return json_answer({"hosts": [{"region": "z0", "ttl": 86400, **host}]})

    routes = [Route(f"/{version}/query", query) for version in ("v2", "v4")]
    return Endpoint(Starlette(routes=routes), lambda scope: ("query",), lambda _, status: json_error(status, "error"))
