"""The one place that speaks HTTP. Brokers call from the loop, transports from threads.

Every network trouble leaves here as `Retry` with a sentence; a status is no trouble, it is the vendor's to read.
Redirects are never followed: they would carry a credential along. Answers are asked for unpacked; one of more
than 1 MiB is none. Nothing here logs a URL, a header or a body.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TypeVar

import httpx
from httpx._utils import URLPattern, get_environment_proxies  # there are no public names for them

from dumbwaiter import __version__, log
from dumbwaiter.errors import Blocked, Exit, Failure, Offline, Stopped
from dumbwaiter.model import MIB
from dumbwaiter.net.abort import Abort
from dumbwaiter.net.bulk import REPLY_MAX, BulkTransport
from dumbwaiter.net.http_backends import AsyncBackend, SyncBackend
from dumbwaiter.net.http_errors import origin, sentence
from dumbwaiter.net.pace import Bandwidth
from dumbwaiter.net.reach import Inside, Reach
from dumbwaiter.net.slices import SliceStream
from dumbwaiter.wire.message import FileSlice, Reply, Request

LIMITS = httpx.Timeout(60.0, connect=10.0)  # of silence, in seconds
BEHIND = 3  # times that for the answer to a large piece: a tunnel takes all of it at once, its line does not
CALL = 60.0  # for a whole small exchange
SHUN = 300.0  # an origin that failed goes last for so long
SKEW = 5.0  # a clock difference below this may be the network's doing
NEVER_LEFT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.InvalidURL, httpx.UnsupportedProtocol)
HEADERS = {"user-agent": f"dumbwaiter/{__version__}", "accept": "*/*", "accept-encoding": "identity"}

T = TypeVar("T")


class Http:
    """Clients, and what was learned of each origin: its clock, and whether it failed lately."""

    def __init__(self, clock: Callable[[], float] = time.time, reach: Reach | None = None) -> None:
        self.bandwidth = Bandwidth()
        self._clock = clock
        self._log = log.get("http")
        self._reach = reach or Reach()
        self._left: set[asyncio.Task[None]] = set()  # clients of a network that was left, until they have ended
        self._context = httpx.create_ssl_context()  # once: it reads all certificates
        self._calls = self._client()
        self._direct = BulkTransport(self._context, self._reach)
        self._bulk = self._bulk_client() or self._direct
        self._skews: dict[str, float] = {}
        self._shunned: dict[str, float] = {}

    async def call(self, request: Request) -> Reply:
        """Sends one request and returns the complete answer, whatever its status.

        Raises `Retry` for network trouble, `Blocked` for an address inside our network.
        """
        started = self._clock()
        assert isinstance(request.body, bytes)
        with self._map_errors(request):
            reply = await self._send(request, request.body)
        self._note(request, reply, started)
        return reply

    def exchange(self, request: Request, abort: Abort) -> Reply:
        """Does the same from a thread, which it blocks; the body may be a `FileSlice`, whose bytes share the bandwidth.

        Raises `Stopped` once `abort` was called.
        """
        started = self._clock()
        with self._map_errors(request, abort):
            reply = self._send_blocking(request, abort)
        self._note(request, reply, started)
        if 500 <= reply.status < 600:  # beyond, Qiniu speaks of the object
            self._shun(request.url)
        return reply

    @contextmanager
    def _map_errors(self, request: Request, abort: Abort | None = None) -> Iterator[None]:
        try:
            yield
        except Inside as error:
            raise Blocked(f"{request.what}: {error}") from None
        # OSError: a socket's own. UnicodeError: a header that was given to us is none.
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError, ExceptionGroup) as error:
            if abort is not None and abort.called:
                raise Stopped from None
            said = sentence(error, request.url)  # the error's own text may quote a header
            self._shun(request.url)
            self._log.debug("request failed", what=request.what, error=said)
            raise Offline(f"{request.what}: {said}", void=isinstance(error, NEVER_LEFT)) from None

    def _note(self, request: Request, reply: Reply, started: float) -> None:
        self._log.debug("request done", what=request.what, status=reply.status)
        self._note_clock(request.url, reply, started)

    def skew(self, url: str) -> float:
        """Returns how many seconds the clock of a server is ahead of ours, as far as its answers told."""
        return self._skews.get(origin(url), 0.0)

    def order(self, urls: Sequence[str]) -> list[str]:
        """Returns base URLs with those that failed lately at the end: each file that is sent there first is sent twice."""
        now = self._clock()
        return sorted(urls, key=lambda url: self._shunned.get(origin(url), 0.0) > now)

    def renew(self) -> None:
        """Uses no connection again that is idle now, and thinks no host away; an exchange under way goes on."""
        old, self._calls = self._calls, self._client()
        leaving = asyncio.create_task(_leave(old))
        self._left.add(leaving)
        leaving.add_done_callback(self._left.discard)
        self._direct.renew()
        self._shunned.clear()
        self._reach.renew()

    def tidy(self) -> None:
        """Closes upload connections that nobody used for a minute."""
        self._direct.tidy()

    async def close(self) -> None:
        for leaving in self._left:
            leaving.cancel()
        await asyncio.gather(*self._left, return_exceptions=True)
        self._bulk.close()
        self._direct.close()
        await self._calls.aclose()

    def _client(self) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(verify=self._context)
        # httpcore takes a backend of one's own, httpx has no way to hand it through.
        transport._pool._network_backend = AsyncBackend(self._reach)  # noqa: SLF001
        return httpx.AsyncClient(
            timeout=LIMITS,
            headers=HEADERS,
            follow_redirects=False,
            cookies=_no_cookies(),
            transport=transport,
            mounts=proxies(partial(httpx.AsyncHTTPTransport, verify=self._context)),
            trust_env=False,  # which says the proxies alone
        )

    def _bulk_client(self) -> httpx.Client | None:
        """Returns what sends bulk bytes where our own transport does not: through a proxy, or as a fallback by stock httpx."""
        mounts = proxies(partial(httpx.HTTPTransport, verify=self._context))
        transport: httpx.BaseTransport = self._direct
        if os.environ.get("DUMBWAITER_TRANSPORT") == "httpx":
            transport = httpx.HTTPTransport(verify=self._context)
            transport._pool._network_backend = SyncBackend(self._reach)  # noqa: SLF001
        elif not any(mounts.values()):
            return None
        return httpx.Client(
            timeout=LIMITS,
            follow_redirects=False,
            cookies=_no_cookies(),
            transport=transport,
            mounts=mounts,
            trust_env=False,
        )

    async def _send(self, request: Request, body: bytes) -> Reply:
        async with (
            asyncio.timeout(CALL),
            self._calls.stream(
                request.method, request.url, headers=_headers(request.headers), content=body or None
            ) as response,
        ):
            content = bytearray()
            async for piece in response.aiter_raw():
                content += piece
                if len(content) > REPLY_MAX:
                    raise httpx.RemoteProtocolError("the answer is too large")
        return _reply(response, bytes(content))

    def _send_blocking(self, request: Request, abort: Abort) -> Reply:
        url = httpx.URL(request.url)
        if url.scheme not in {"http", "https"} or not url.host:
            raise httpx.UnsupportedProtocol("no address of a web server")
        body = request.body
        limits = LIMITS.as_dict()
        if isinstance(body, FileSlice) and body.length >= MIB and limits["read"]:
            limits["read"] *= BEHIND

        def pace(count: int) -> int:
            if abort.called:
                raise Stopped
            return self.bandwidth.take(count, abort)

        prepared = httpx.Request(
            request.method,
            url,
            headers=_headers(
                {
                    **HEADERS,
                    **request.headers,
                    "host": url.netloc.decode("ascii"),
                    **_length(request.method, body),
                }
            ),
            stream=SliceStream(body, pace) if isinstance(body, FileSlice) else httpx.ByteStream(body),
            extensions={"timeout": limits, "abort": abort},
        )
        if isinstance(self._bulk, httpx.Client):
            response = self._bulk.send(prepared, stream=True)
        else:
            response = self._bulk.handle_request(prepared)
        try:  # the body stays as it came, as in `_send`
            return _reply(response, _limited(response.iter_raw()))
        finally:
            response.close()

    def _shun(self, url: str) -> None:
        self._shunned[origin(url)] = self._clock() + SHUN

    def _note_clock(self, url: str, reply: Reply, started: float) -> None:
        self._shunned.pop(origin(url), None)
        theirs = _date(reply.headers.get("date", ""))
        if theirs is None:
            return
        ours = (started + self._clock()) / 2
        skew = theirs + 0.5 - ours  # "Date" has whole seconds
        self._skews[origin(url)] = skew if abs(skew) > SKEW else 0.0


def proxies(make: Callable[..., T]) -> dict[str, T | None]:
    """Returns the transports of the proxies that the environment names, by the addresses they are for; None is for none.

    Raises `Failure` for a proxy that cannot be used: without it, requests would leave as nobody wants.
    """
    named = get_environment_proxies()
    if {"http://", "https://"} <= named.keys():
        named.pop("all://", None)  # desktops name one of SOCKS there, for others
    if not any(named.values()):
        return {}
    found: dict[str, T | None] = {}
    for pattern, proxy in named.items():
        variable = f"{pattern.removesuffix('://')}_proxy"
        try:
            URLPattern(pattern)
        except (ValueError, httpx.InvalidURL):
            continue  # a network or the like in `no_proxy`, which httpx does not know
        try:
            found[pattern] = None if proxy is None else make(proxy=proxy)
        except ImportError:
            raise Failure(
                f"{variable} names a SOCKS proxy, and the package for one is not installed: pipx inject dumbwaiter socksio",
                Exit.USAGE,
            ) from None
        except (ValueError, httpx.InvalidURL):
            raise Failure(
                f'{variable} cannot be used: write the proxy like "http://proxy.example:8080"', Exit.USAGE
            ) from None
    return found


def _no_cookies() -> CookieJar:
    """Two accounts at one vendor share a client: a cookie set for one must not come with the other."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


async def _leave(client: httpx.AsyncClient) -> None:
    """Closes a client once no call can be under way on it."""
    try:
        await asyncio.sleep(CALL)
    finally:
        await client.aclose()


def _headers(headers: Mapping[str, str]) -> httpx.Headers:
    """Returns headers as they are sent: what is not ASCII in a value as UTF-8 (httpx refuses it), blanks around it gone."""
    return httpx.Headers([(name.encode("ascii"), value.strip(" \t").encode()) for name, value in headers.items()])


def _length(method: str, body: bytes | FileSlice) -> dict[str, str]:
    length = body.body_length if isinstance(body, FileSlice) else len(body)
    return {} if length == 0 and method in {"GET", "HEAD", "DELETE"} else {"content-length": str(length)}


def _limited(pieces: Iterable[bytes]) -> bytes:
    end = time.monotonic() + CALL
    content = bytearray()
    for piece in pieces:
        content += piece
        if len(content) > REPLY_MAX:
            raise httpx.RemoteProtocolError("the answer is too large")
        if time.monotonic() > end:
            raise httpx.ReadTimeout("the answer takes too long")
    return bytes(content)


def _reply(response: httpx.Response, body: bytes) -> Reply:
    return Reply(response.status_code, dict(response.headers), body, _retry_after(response))


def _retry_after(response: httpx.Response) -> float | None:
    """Reads seconds, or a date by the server's own clock; nonsense, or a time that is over, says nothing."""
    value = response.headers.get("retry-after", "")
    if value.isascii() and value.isdigit():
        return float(value) or None
    until = _date(value)
    if until is None:
        return None
    now = _date(response.headers.get("date", ""))
    return max(0.0, until - (time.time() if now is None else now)) or None


def _date(value: str) -> float | None:
    """Reads one of HTTP's dates, which are of UTC also where they do not say so (RFC 9110, "HTTP-date")."""
    try:
        found = parsedate_to_datetime(value)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
