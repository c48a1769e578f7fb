"""How a vendor reaches the application server of its customer."""

import ssl
from functools import cache

import httpx


@cache
def _trusted() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # once: it reads all certificates


def caller(patience: float) -> httpx.AsyncClient:
    """A client that waits at most `patience` seconds."""
    return httpx.AsyncClient(timeout=patience, trust_env=False, verify=_trusted())
