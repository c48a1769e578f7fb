"""The page: what the daemon does, for a person with a browser. It is served only where `[web]` asks for it.

Any page that a person visits can talk to this machine's ports, so whoever asks is doubted. A request names an address
and no domain (else another site could pass for this one), comes from this page or from no page at all, and, if it
changes anything, carries a header that no other site may send; with a token, it proves to know that. The page can steer
what is configured: it cannot name a file to be uploaded, nor spend money.
"""

import hmac
import ipaddress
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dumbwaiter import log
from dumbwaiter.app import App
from dumbwaiter.config import Web
from dumbwaiter.control.events import Feed
from dumbwaiter.control.routes import EXCEPTION_HANDLERS, Control
from dumbwaiter.control.serving import WAITING, answering
from dumbwaiter.model import Secret

ROUTES = frozenset(
    {
        "/status", "/events", "/history", "/thumbnail/{id}", "/link",
        "/retry", "/forget", "/rescan", "/pause", "/resume", "/bandwidth",
    }
)  # fmt: skip
MARK = "x-dumbwaiter"  # a header that a browser lets no other site send
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class _Door:
    """Lets in who may ask, and says to the browser what the page may do."""

    def __init__(self, app: ASGIApp, token: Secret | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("cache-control", "no-cache")
            await send(message)

        refusal = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
        await (refusal or self._app)(scope, receive, dressed)

    def _refusal(self, method: str, path: str, headers: Headers) -> JSONResponse | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        asks = path.startswith("/api/")
        if not _is_address(host):
            return _refused("open the page by an IP address, or as localhost: names can be forged")
        if origin is not None and origin.partition("://")[2] != host:
            return _refused("another site asks")
        if asks and headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
            return _refused("another site asks")
        if method not in {"GET", "HEAD"} and MARK not in headers:
            return _refused(f"what changes something carries the header {MARK}")
        if asks and self._token is not None:
            known = f"Bearer {self._token.reveal()}".encode()
            if not hmac.compare_digest(headers.get("authorization", "").encode(), known):
                return _refused("the token is missing, or another one", 401)
        return None


def _is_address(host: str) -> bool:
    """True for "localhost" and for IP addresses, with any port: `ssh -L` gives another one."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _refused(why: str, status: int = 403) -> JSONResponse:
    return JSONResponse({"error": why, "code": 1}, status)


def application(app: App, feed: Feed, web: Web) -> Starlette:
    """Returns the page and its part of the control socket's routes, below /api."""
    chosen = ROUTES | {"/metrics"} if web.metrics else ROUTES
    token = None if web.token is None else web.token.read()
    return Starlette(
        routes=[
            Mount("/api", routes=[route for route in Control(app, feed).routes() if route.path in chosen]),
            Mount("/", StaticFiles(directory=os.path.join(os.path.dirname(__file__), "static"), html=True)),
        ],
        middleware=[Middleware(_Door, token)],
        exception_handlers=EXCEPTION_HANDLERS,
    )


@asynccontextmanager
async def serve(app: App, feed: Feed) -> AsyncIterator[None]:
    """Serves the page while the context lasts, if one is configured. A port that is taken does not stop the uploads."""
    web = app.config.web
    if web.listen is None:
        yield
        return
    page = application(app, feed, web)
    with socket.socket(socket.AF_INET6 if web.listen.host.version == 6 else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((str(web.listen.host), web.listen.port))
        except OSError as error:
            log.get("web").error("the page is not served", listen=web.listen, reason=error.strerror)
            yield
            return
        listener.listen(WAITING)
        log.get("web").info("the page is served", address=f"http://{web.listen}/")
        async with answering(page, listener):
            yield
