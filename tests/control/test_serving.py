"""Who makes room when there are too many callers."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

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


def test_who_cannot_be_let_in_for_want_of_a_descriptor_waits_and_that_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("asyncio.constants.ACCEPT_RETRY_DELAY", 0.01)
    path, accept, fails = str(tmp_path / "socket"), socket.socket.accept, True

    def failing(listener: socket.socket) -> Any:
        if fails:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", failing)

    async def test() -> None:
        async with asyncio.timeout(30):
            await wait_outside()

    async def wait_outside() -> None:
        nonlocal fails
        refusals: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: refusals.append(context))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            async with serving.answering(Starlette(routes=[Route("/", pieces)]), listener):
                reader, writer = await asyncio.open_unix_connection(path)
                writer.write(ASK)
                for turn in range(1, 4):
                    while len(refusals) < turn:  # noqa: ASYNC110 - a turn of the loop is what is counted
                        await asyncio.sleep(0)
                    assert len(refusals) == turn  # one in each turn of the loop
                fails = False
                assert (await reader.read()).count(PIECE) == PIECES
                writer.close()
                await writer.wait_closed()

    asyncio.run(test())
    assert capsys.readouterr().out.count("nobody can be let in") == 1
