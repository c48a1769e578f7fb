"""Who makes room when there are too many callers."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from dumbwaiter.control import serving

ASK = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
PIECE, PIECES = bytes(1 << 20), 8  # together more than a socket holds


async def pieces(_request: Request) -> Response:
    async def told() -> AsyncIterator[bytes]:
        for _ in range(PIECES):
            yield PIECE

    return StreamingResponse(told())


def test_those_who_read_no_answer_make_room_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "CALLERS", 4)
    monkeypatch.setattr(serving, "CROWD", 8)
    path = str(tmp_path / "socket")

    async def called(stack: ExitStack) -> socket.socket:
        caller = stack.enter_context(socket.socket(socket.AF_UNIX))
        caller.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(caller, path)
        await loop.sock_sendall(caller, ASK)
        assert await loop.sock_recv(caller, 1) == b"H"
        return caller

    async def test() -> None:
        async with asyncio.timeout(30):
            await crowd()

    async def crowd() -> None:
        with ExitStack() as stack, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            async with serving.answering(Starlette(routes=[Route("/", pieces)]), listener):
                for _ in range(9):
                    await called(stack)
                reader, writer = await asyncio.open_connection(sock=await called(stack))
                assert (await reader.read()).count(PIECE) == PIECES
                writer.close()
                await writer.wait_closed()

    asyncio.run(test())
