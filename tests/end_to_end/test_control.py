"""The control socket among strangers and nuisances: it stays the owner's, and the owner is always answered."""

import asyncio
import json
import os
import re
import resource
import shutil
import socket
import stat
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dumbwaiter.control.routes import EXCEPTION_HANDLERS
from program import Program
from stranger import needs_root, stranger

MIB = 1 << 20


def connect(program: Program) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(str(program.state / "run/control.sock"))
    client.settimeout(30)
    return client


def answer(client: socket.socket) -> bytes:
    """Reads to the end, whichever way the other side ends it."""
    said = b""
    try:
        while piece := client.recv(65536):
            said += piece
    except (ConnectionResetError, BrokenPipeError):
        pass
    return said


def memory(program: Program) -> int:
    assert program.daemon is not None
    with open(f"/proc/{program.daemon.pid}/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))


def test_nobody_else_can_reach_the_socket(program: Program) -> None:
    (program.state / "run").mkdir(parents=True)
    (program.state / "run").chmod(0o755)  # as an older program or a careless hand left it
    program.start()
    assert stat.S_IMODE(os.stat(program.state / "run").st_mode) == 0o700
    assert stat.S_IMODE(os.stat(program.state / "run/control.sock").st_mode) == 0o600


@pytest.mark.parametrize(
    ("what", "body"),
    [("pause", '{"name":"","seconds":1e308}'), ("pause", '{"seconds":-1}'), ("retry", f'{{"ids":[{10**20}]}}')],
)
def test_a_number_that_no_clock_or_journal_holds_is_refused(program: Program, what: str, body: str) -> None:
    program.start()
    with connect(program) as client:
        client.sendall(f"POST /{what} HTTP/1.0\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        said = answer(client)
    assert said.startswith(b"HTTP/1.1 400"), said
    assert b"the request cannot be read" in said
    assert program.status()["paused"] == []


@pytest.mark.parametrize(("asked", "status"), [("GET /stauts", 404), ("DELETE /status", 405)])
def test_a_route_or_method_that_is_none_is_said_in_json(program: Program, asked: str, status: int) -> None:
    program.start()
    with connect(program) as client:
        client.sendall(f"{asked} HTTP/1.0\r\n\r\n".encode())
        head, _, body = answer(client).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status}".encode()), head
    said = json.loads(body)
    assert (asked in said["error"], said["code"]) == (True, 2)


@pytest.mark.parametrize(
    ("what", "asked", "sentence"),
    [
        ("put", {"paths": ["/x%00y"]}, r"/x\x00y is no path"),
        ("put", {"paths": ["/x//y"]}, "/x//y is not the plain path of a file"),
        ("put", {"paths": ["/x/../y"]}, "/x/../y is not the plain path of a file"),
        ("put", {"paths": ["x"]}, "x is not the plain path of a file"),
        ("link", {"id": 1, "form": "{size[0]}"}, '"{size[0]}" is no format: '),
    ],
)
def test_what_nothing_can_be_made_of_is_refused_in_a_sentence(
    program: Program, what: str, asked: dict[str, object], sentence: str
) -> None:
    program.start()
    body = json.dumps(asked)
    with connect(program) as client:
        client.sendall(f"POST /{what} HTTP/1.0\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        head, _, said = answer(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400"), head
    assert json.loads(said)["error"].startswith(sentence)
    assert json.loads(said)["code"] == 2


def test_a_defect_is_said_in_json_too() -> None:
    def fails(_request: Request) -> Response:
        raise ZeroDivisionError("by \udcff")

    async def asked() -> httpx.Response:
        app = Starlette(routes=[Route("/", fails)], exception_handlers=EXCEPTION_HANDLERS)
        way = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=way, base_url="http://localhost") as client:
            return await client.get("/")

    said = asyncio.run(asked())
    assert (said.status_code, said.json()["code"]) == (500, 1)
    assert "ZeroDivisionError" in said.json()["error"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_else_who_gets_at_it_is_turned_away(program: Program) -> None:
    program.start()
    folder = program.state / "run"
    folder.chmod(0o755)
    (folder / "control.sock").chmod(0o666)
    opened = os.open(folder, os.O_PATH)  # the folders above would not let a stranger in
    code = (
        "import os, socket\n"
        "os.setgid(4242); os.setuid(4242)\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        f"s.connect('/proc/self/fd/{opened}/control.sock')\n"
        "try:\n"
        "    s.sendall(b'GET /status HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n"
        "    print(len(s.recv(100)))\n"
        "except ConnectionError:\n"
        "    print(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], pass_fds=[opened], capture_output=True, text=True, check=False)
    os.close(opened)
    assert done.stdout == "0\n", done.stderr
    assert "caller refused" in program.log.read_text()


@needs_root
@pytest.mark.parametrize("words", [("status",), ("status", "--json"), ("put", "FILE"), ("pause",), ("doctor",)])
def test_what_a_stranger_at_the_socket_says_is_not_believed(
    program: Program, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """A folder of somebody else's, named by mistake, or by a variable that `su` keeps."""
    path = program.write("film.mov", b"abc")
    lie = {"running": True, "jobs": [1], "path": str(path), "url": "https://evil/film.mov", "state": "done"}
    program.environment["DUMBWAITER_RUNTIME"] = str(tmp_path / "theirs")
    (tmp_path / "theirs").mkdir()
    with stranger(f"{tmp_path}/theirs/control.sock", lie):
        done = program(*(str(path) if word == "FILE" else word for word in words))
    assert done.returncode == (1 if words == ("doctor",) else 2)
    assert "somebody else listens at" in (done.stdout if words == ("doctor",) else done.stderr)
    assert "evil" not in done.stdout


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\x02\x00\x01", b"\0" * 4096, b"GET\n\n", b"POST /put HTTP/1.1\r\nContent-Length: -1\r\n\r\n"]
)
def test_junk_is_answered_shortly(program: Program, junk: bytes) -> None:
    program.start()
    with connect(program) as client:
        client.sendall(junk + b"\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        said = answer(client)
    assert said == b"" or said.startswith(b"HTTP/1.1 400")
    assert program("status").returncode == 0


def test_one_who_says_no_more_is_answered(program: Program) -> None:
    program.start()
    for asked in (b"GET /status?jobs=0 HTTP/1.1", b"GET /metrics HTTP/1.0", b"POST /retry HTTP/1.1"):
        with connect(program) as client:
            client.sendall(asked + b"\r\nHost: x\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            client.settimeout(4)  # not only once a connection that is kept has been idle for long
            assert answer(client).startswith(b"HTTP/1.1 200"), asked
    assert program.daemon is not None
    folder = f"/proc/{program.daemon.pid}/fd"

    def sockets() -> int:
        count = 0
        for number in os.listdir(folder):
            with suppress(FileNotFoundError):  # closed meanwhile
                count += os.readlink(f"{folder}/{number}").startswith("socket:")
        return count

    before = sockets()
    for _ in range(20):
        with connect(program) as client:
            client.sendall(b"GET /status?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
            client.recv(1)
    program.until(lambda: sockets() <= before, patience=8)  # less than until a beat would find them gone


@pytest.mark.parametrize("head", [b"GET /", b"POST /put HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n"])
def test_a_gibibyte_is_not_taken_in(program: Program, head: bytes) -> None:
    program.start()
    before = memory(program)
    with connect(program) as client:
        client.sendall(head)
        try:
            for _ in range(1024):
                client.sendall(b"x" * MIB)
        except (ConnectionError, TimeoutError):
            pass
        else:
            pytest.fail("all of it was read")
    assert memory(program) < before + 32 * MIB
    assert program("status").returncode == 0


@pytest.mark.parametrize(
    "begun",
    [b"", b"GET /sta", b"POST /retry HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4000000\r\n\r\n"],
    ids=["nothing", "a head", "a body"],
)
def test_a_thousand_callers_who_never_end_do_not_keep_the_owner_out(program: Program, begun: bytes) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    program.start("prlimit", "--nofile=1024", sys.executable, "-m", "dumbwaiter")
    assert program.daemon is not None
    before = len(os.listdir(f"/proc/{program.daemon.pid}/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        with ExitStack() as stack:
            for _ in range(1000):
                client = stack.enter_context(connect(program))
                with suppress(ConnectionError):  # others have its place already
                    client.sendall(begun)
                    if begun.startswith(b"POST"):
                        client.recv(100)  # that the rest is waited for
            assert program("status").returncode == 0
            assert len(os.listdir(f"/proc/{program.daemon.pid}/fd")) < before + 150
            program.write("a.bin", b"a")
            assert program("wait").returncode == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_socket_that_was_left_behind_is_replaced(program: Program) -> None:
    program.start()
    program.kill()
    assert (program.state / "run/control.sock").exists()
    assert program("wait").returncode == 23
    program.start()
    assert program.stop() == 0
    assert not (program.state / "run/control.sock").exists()


def test_a_second_daemon_says_that_there_is_one(program: Program) -> None:
    program.start()
    second = program("run")
    assert second.returncode == 1
    assert second.stderr.endswith(f"a daemon is already running on {program.state}: `dumbwaiter status` asks it\n")


def test_metrics_say_what_was_done(program: Program) -> None:
    program.start()
    program.vendors.faults("vod.init:500@1x1")
    program.write("a.bin", b"abc")
    assert program("wait").returncode == 0
    with connect(program) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        said = answer(client).decode()
    values = dict(re.findall(r"^(dumbwaiter_\S+) (\S+)$", said, re.MULTILINE))
    assert values['dumbwaiter_jobs{state="done"}'] == "1.0"
    assert values["dumbwaiter_bytes_sent_total"] == "3.0"
    assert values["dumbwaiter_grants_requested_total"] == "2.0"
    assert values['dumbwaiter_errors_total{provider="netease",verdict="Retry"}'] == "1.0"
    assert values["dumbwaiter_drop_to_done_seconds_count"] == "1.0"
    assert float(values["dumbwaiter_drop_to_done_seconds_sum"]) > 0
    assert values['dumbwaiter_drop_to_done_seconds_bucket{le="+Inf"}'] == "1.0"
    assert float(values['dumbwaiter_grant_life_seconds{provider="netease"}']) > 0
    assert float(values['dumbwaiter_refreshes_total{provider="netease"}']) >= 1
    assert values['dumbwaiter_watch_overflows_total{watch="netease"}'] == "0.0"
    assert values["dumbwaiter_transfers"] == "0.0"


def test_a_socket_that_is_removed_is_made_anew(program: Program) -> None:
    program.start()
    run = program.state / "run"
    shutil.rmtree(run)
    program.until(lambda: program("status").stdout.startswith("running"))
    assert stat.S_IMODE((run / "control.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    program.write("a.bin", b"a")
    program.until(lambda: len(program.stored()) == 1)
    assert program.stop() == 0
    assert not (run / "control.sock").exists()


OLDER = [
    (("pause",), 404, {"error": "POST /pause is nothing that the daemon does: see docs/api.md", "code": 2}),
    (("pause", "--for", "2h"), 400, {"error": "the request cannot be read: Object contains unknown field `seconds`", "code": 2}),
    (("resume",), 200, {}),
    (("resume",), 405, "Method Not Allowed"),
    (("bandwidth",), 400, {"error": "that cannot be", "code": 99}),
    (("put", "a.bin"), 400, {"error": "the request cannot be read: Object contains unknown field `again`", "code": 2}),
    (("put", "a.bin"), 200, {"jobs": [{"state": "pending", "provider": "netease", "active": False, "error": None}]}),
    (("status",), 200, {"running": True}),
    (("wait",), 200, {"totals": {}}),
]  # fmt: skip


@pytest.mark.parametrize(("words", "status", "said"), OLDER)
def test_a_daemon_that_does_not_know_what_is_asked_is_said_to_be_of_another_version(
    program: Program, words: tuple[str, ...], status: int, said: object
) -> None:
    class Older(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(said.encode() if isinstance(said, str) else json.dumps(said).encode())

        do_POST = do_GET

        def address_string(self) -> str:
            return "somebody"

        def log_message(self, *_words: object) -> None:
            pass

    (program.folder / "a.bin").write_bytes(b"a")
    run = program.state / "run"
    run.mkdir(parents=True)
    with UnixStreamServer(str(run / "control.sock"), Older) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.02,))
        serving.start()
        try:
            done = program(*words, folder=program.folder)
        finally:
            server.shutdown()
            serving.join()
    assert done.stderr == "dumbwaiter: the daemon is of another version than this command: restart it\n"
    assert done.returncode == 1
