"""NetEase VOD with NOS upload nodes: its row, its accounts, its section of the config."""

import hmac
from collections.abc import Mapping
from typing import cast

from starlette.requests import Request

from dumbwaiter_sandbox import cdn
from dumbwaiter_sandbox.netease import nos, nos_lbs, nos_token, vod
from dumbwaiter_sandbox.netease.options import NetEaseOptions
from dumbwaiter_sandbox.world import Endpoint, Service, Vendor, World

# Made up: they open nothing but this sandbox.
ACCOUNT = {
    "app_key": "vodak0000000000000000000000000001",
    "app_secret": "vodsecret001",
    "access_key": "nosak0000000000000000000000000001",
    "secret_key": "nossk0000000000000000000000000001",
    "bucket": "voddumb01",
}
NODE_CALLS = ("put", "complete", "query")
CHUNK_FAULTS = ("short", "context", "noprogress")
ANY_FAULTS = ("lost-context", "backwards", "beyond", "expired")


def _build(world: World) -> Mapping[str, Endpoint]:
    nodes = nos.Nodes(world, nos.Keys(ACCOUNT["access_key"], ACCOUNT["secret_key"]))
    return {
        "vod": vod.Vod(world, ACCOUNT).endpoint(),
        "lbs": nos_lbs.endpoint(world),
        "nos1": nodes.endpoint(),
        "nos2": nodes.endpoint(),
        "cdn": cdn.endpoint(world, lambda request, bucket, key: _allow(world, request, bucket, key)),
    }


def _allow(world: World, request: Request, bucket: str, key: str) -> bool:
    """Whether a download may be read: a signature must be right and in time, and must be there if the switch says so."""
    query = request.query_params
    given, expires = query.get("Signature"), query.get("Expires", "")
    if given is None:
        return not cast("NetEaseOptions", world.options["netease"]).signed_downloads
    right = nos_token.download_signature(ACCOUNT["secret_key"], expires, bucket, key)
    timely = expires.isascii() and expires.isdigit() and world.clock.now() < int(expires)
    known = query.get("NOSAccessKeyId") == ACCOUNT["access_key"]
    return known and timely and hmac.compare_digest(given.encode(), right.encode())


def _providers(urls: Mapping[str, str]) -> Mapping[str, Mapping[str, object]]:
    return {
        "netease": {
            "broker": "netease",
            "app_key": ACCOUNT["app_key"],
            "app_secret": ACCOUNT["app_secret"],
            "api": urls["vod"],
            "lbs": urls["lbs"],
            "cdn": urls["cdn"] + "/{bucket}",
        }
    }


VENDOR = Vendor(
    name="netease",
    services=(
        Service("vod", "vod", vod.CALLS),
        Service("lbs", "lbs", ("get",)),
        Service("nos1", "nos", NODE_CALLS),
        Service("nos2", "nos", NODE_CALLS),
        Service("cdn", "cdn", ("get",)),
    ),
    faults={
        "colon": ("lbs.get",),
        "no-nodes": ("lbs.get",),
        "code-NNN": tuple(f"vod.{name}" for name in vod.PATHS.values()),
        **dict.fromkeys(
            CHUNK_FAULTS,
            ("nos.put", "nos1.put", "nos2.put", "nos.complete", "nos1.complete", "nos2.complete"),
        ),
        **dict.fromkeys(ANY_FAULTS, tuple(f"{name}.{call}" for name in ("nos", "nos1", "nos2") for call in NODE_CALLS)),
    },
    # A callback can only fail after the last chunk.
    deferred={("520", "nos.put"): "nos.complete"},
    secrets=("x-nos-token", "checksum", "signature"),
    options=NetEaseOptions,
    accounts=ACCOUNT,
    build=_build,
    providers=_providers,
)
