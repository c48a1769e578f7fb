"""Downloads from Kodo's buckets: a private one wants a signed address."""

import hmac
from typing import cast

from starlette.requests import Request

from dumbwaiter_sandbox import cdn
from dumbwaiter_sandbox.kodo import accounts
from dumbwaiter_sandbox.kodo.options import KodoOptions
from dumbwaiter_sandbox.world import Endpoint, World


def endpoint(world: World) -> Endpoint:
    """The host of the downloads."""
    return cdn.endpoint(world, lambda request, bucket, key: _may_read(world, request, bucket))


def _may_read(world: World, request: Request, bucket: str) -> bool:
    """Whether a download is allowed: a private bucket wants `e` and, last in the address, `token`."""
    if "authorization" in request.headers:
        return False  # another service's key has no business here
    account = accounts.of_bucket(bucket)
    options = cast("KodoOptions", world.options["kodo"])
    given = request.query_params.get("token")
    if account is None or given is None:
        return account is None or bucket not in account.private or not options.signed_downloads
    expires = request.query_params.get("e", "")
    # As it was written: the signature covers the address and not what it means.
    target = f"{request.scope['raw_path'].decode()}?{request.scope['query_string'].decode()}"
    signed = f"http://{request.headers['host']}{target}".rpartition("token=")[0][:-1]
    right = f"{account.access_key}:{accounts.sign(account, signed)}"
    timely = expires.isascii() and expires.isdigit() and world.clock.now() < int(expires)
    return timely and hmac.compare_digest(given.encode(), right.encode())
