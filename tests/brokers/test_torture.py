"""Token services from hell, all at once, beside one that works, at the real daemon."""

import gzip
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import recipes
from peer import Connection, Peer
from program import Program

pytestmark = pytest.mark.torture
MIB = 1 << 20


def drips(connection: Connection) -> None:
    connection.request()
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{")
    while True:
        time.sleep(0.5)
        connection.send(b" ")


def repeats(piece: bytes, before: bytes = b"") -> Callable[[Connection], None]:
    def script(connection: Connection) -> None:
        connection.request()
        connection.send(before)
        while True:
            connection.send(piece)

    return script


def says(body: bytes, head: bytes = b"") -> Callable[[Connection], None]:
    def script(connection: Connection) -> None:
        connection.request()
        connection.send(b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n" % (head, len(body)) + body)

    return script


def goes_there(connection: Connection, there: str) -> None:
    connection.request()
    connection.send(b"HTTP/1.1 307 X\r\nLocation: %s/\r\nContent-Length: 0\r\n\r\n" % there.encode())


GIBIBYTE = b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n"
HELL: dict[str, Callable[[Connection], None]] = {
    "drip": drips,
    "continue": repeats(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "headers": repeats(b"X-More: " + b"x" * 1000 + b"\r\n", b"HTTP/1.1 200 OK\r\n"),
    "gibibyte": repeats(bytes(65536), GIBIBYTE),
    "bomb": says(gzip.compress(bytes(512 * MIB), 1), b"Content-Encoding: gzip\r\n"),
    "html": says(b"<!DOCTYPE html><h1>Sign in to this network</h1>", b"Content-Type: text/html\r\n"),
    "empty": says(b""),
    "types": says(b'{"upload": {"url": [], "fields": 7, "headers": "x"}, "key": {}, "expires_in": "soon"}'),
    "deep": says(b"[" * 500_000),
}


@pytest.fixture
def hell() -> Iterator[dict[str, Peer]]:
    with ExitStack() as stack:
        there = stack.enter_context(Peer(lambda connection: None))
        scripts = HELL | {"redirect": lambda connection: goes_there(connection, there.url)}
        yield {name: stack.enter_context(Peer(script)) for name, script in scripts.items()}
        assert there.connections == []


def memory(program: Program, what: str) -> int:
    assert program.daemon is not None
    text = Path(f"/proc/{program.daemon.pid}/status").read_text()
    return int(text.partition(f"{what}:")[2].split()[0]) // 1024


def test_none_of_them_stops_the_others_or_fills_the_memory(program: Program, hell: dict[str, Peer]) -> None:
    example = recipes.EXAMPLES[0].replace('{ env = "SIGNED_KEY" }', '"planted-secret-0001"')
    with program.config.open("a") as file:
        for name, server in hell.items():
            (program.folder / name).mkdir()
            file.write(
                example.replace("provider.signed", f"provider.{name}").replace("https://app.example", server.url)
            )
            file.write(f'\n[watch.{name}]\npath = "{program.folder / name}"\nprovider = "{name}"\nsettle = "100ms"\n')
    program.start()
    before = memory(program, "VmRSS")
    for name in hell:
        (program.folder / name / "a.txt").write_text(name)
    for number in range(20):
        program.write(f"{number}.txt", b"good")
    program.until(lambda: program.totals()["done"] == 20, patience=80)

    def told() -> dict[str, str]:
        return {job["watch"]: job["error"] for job in program.status()["jobs"] if job["error"]}

    program.until(lambda: told().keys() == hell.keys(), patience=150)
    assert {job["state"] for job in program.status()["jobs"]} == {"pending"}
    assert memory(program, "VmHWM") - before < 64
    assert "planted-secret" not in str(told()) + program.log.read_text()
    assert program.stop() == 0
