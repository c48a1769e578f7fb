"""How httpcore connects for us: to addresses that `reach` has judged, one after the other, and only for answers that end."""

import asyncio
import ssl
from typing import Any

import httpcore

from dumbwaiter.model import MIB
from dumbwaiter.net.bulk import REPLY_MAX
from dumbwaiter.net.reach import Reach

ANSWER_MAX = REPLY_MAX + MIB  # bytes of an answer with all its heads; who sends only heads would never end


class AsyncBackend(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were judged; to a host that may be anywhere, in httpcore's own way."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:
        async def connect(address: str) -> httpcore.AsyncNetworkStream:
            return _Stream(await self._inner.connect_tcp(address, port, timeout, local_address, socket_options))

        if self._reach.trusts(host):
            return await connect(host)
        try:
            async with asyncio.timeout(timeout):
                *others, last = await asyncio.to_thread(self._reach.addresses, host, port)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        for address in others:
            try:
                return await connect(address)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                self._reach.missed(address)
        return await connect(last)


class SyncBackend(httpcore.NetworkBackend):
    """Does the same for threads."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        def connect(address: str) -> httpcore.NetworkStream:
            return self._inner.connect_tcp(address, port, timeout, local_address, socket_options)

        if self._reach.trusts(host):
            return connect(host)
        try:
            return self._reach.connect(host, port, connect, httpcore.ConnectError, httpcore.ConnectTimeout)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error


class _Stream(httpcore.AsyncNetworkStream):
    """A connection whose answers have an end."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self._read = 0  # since something was last sent

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        piece = await self._inner.read(max_bytes, timeout)
        self._read += len(piece)
        if self._read > ANSWER_MAX:
            raise httpcore.RemoteProtocolError("the answer is too large")
        return piece

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._read = 0
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
