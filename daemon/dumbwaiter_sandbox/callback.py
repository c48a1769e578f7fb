"""How a vendor reaches the application server of its customer."""

import ssl
from collections.abc import Mapping
from functools import cache

import httpx


class CallbackFailedError(Exception):
    """The application server did not take the message."""


@cache
def _trusted() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # once: it reads all certificates


def caller(patience: float) -> httpx.AsyncClient:
    """A client that waits at most `patience` seconds."""
    return httpx.AsyncClient(timeout=patience, trust_env=False, verify=_trusted())


async def post(url: str, body: str, headers: Mapping[str, str], patience: float) -> httpx.Response:
    """The answer to a callback, whatever its status. Raises CallbackFailedError when there is none."""
    try:
        async with caller(patience) as client:
            return await client.post(url, content=body.encode(), headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CallbackFailedError(f"the callback failed: {type(error).__name__}") from error
